"""What proves a thought, as a response's ``encrypted_content`` carries it.

OpenAI's own content goes through untouched.  Another provider's signature has
to come back with its provider's name, since a conversation may meet several.

Pure.
"""

from __future__ import annotations

from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import ReasoningPart, Signature

_MARK = "atomr1"


def write_proof(part: ReasoningPart) -> str | None:
    """Return the ``encrypted_content`` of a thought; None when nothing proves it.

    >>> write_proof(ReasoningPart(signature=Signature("s", Dialect.ANTHROPIC)))
    'atomr1.anthropic.signature.s'
    """
    if part.data is not None:
        if part.data.origin is Dialect.OPENAI_RESPONSES:
            return part.data.text
        return f"{_MARK}.{part.data.origin.value}.data.{part.data.text}"
    if part.signature is None:
        return None
    return f"{_MARK}.{part.signature.origin.value}.signature.{part.signature.text}"


def is_marked(encrypted: str) -> bool:
    """Whether an ``encrypted_content`` holds another provider's proof.

    >>> is_marked("atomr1.anthropic.signature.s"), is_marked("gAAAAA")
    (True, False)
    """
    return encrypted.startswith(f"{_MARK}.")


def read_proof(
    *, text: str, encrypted: str | None, identity: str | None
) -> ReasoningPart:
    """Return the thought of an item; the inverse of :func:`write_proof`."""
    if encrypted is None:
        return ReasoningPart(text=text, id=identity)
    pieces = encrypted.split(".", 3)
    known = {dialect.value: dialect for dialect in Dialect}
    if len(pieces) == 4 and pieces[0] == _MARK and pieces[1] in known:
        proof = Signature(pieces[3], known[pieces[1]])
        if pieces[2] == "data":
            return ReasoningPart(text=text, data=proof, id=identity)
        return ReasoningPart(text=text, signature=proof, id=identity)
    data = Signature(encrypted, Dialect.OPENAI_RESPONSES)
    return ReasoningPart(text=text, data=data, id=identity)
