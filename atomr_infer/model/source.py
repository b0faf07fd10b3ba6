"""A request as the client's bytes, ready to be passed on under another model name.

The bytes are never written anew: prompt caches are keyed by them.  Only the
model's name is spliced in, at the place where a decoder finds it.

Pure.
"""

from __future__ import annotations

import attrs
import msgspec

from atomr_infer.model.dialect import Dialect


class _Model(msgspec.Struct):
    model: str | None = None


_decode_model = msgspec.json.Decoder(_Model).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode

_KEY = b'"model"'


@attrs.frozen
class Source:
    """A client's request body and where it belongs.

    Attributes:
        dialect: whose format it is.
        body: the body as received.
        model: the model's name in it; None: the name is in the path.
        sole: True where ``"model"`` is known to stand once in the body.
    """

    dialect: Dialect
    body: bytes = attrs.field(repr=False)
    model: str | None
    sole: bool = attrs.field(default=False, eq=False)

    def renamed(self, model: str) -> bytes | None:
        """Return the body with the model's name replaced; None: it cannot be.

        It cannot where the name is written with escapes or the key stands
        twice, in whatever case; the canonical form must do then.

        >>> body = b'{"messages": [{"model": "no"}], "model" : "a/b", "n": 1}'
        >>> Source(Dialect.OPENAI_CHAT, body, "a/b").renamed("b")
        b'{"messages": [{"model": "no"}], "model" : "b", "n": 1}'
        """
        if self.model is None:
            return self.body
        old, new = _encode(self.model), _encode(model)
        if self.sole:
            return self._spliced(self.body.index(_KEY) + len(_KEY), old, new)
        start = 0
        while (start := self.body.find(_KEY, start)) >= 0:
            start += len(_KEY)
            renamed = self._spliced(start, old, new)
            # Only the decoder knows which occurrence is the member of the root.
            if renamed is not None and _root_model(renamed) == model:
                return renamed if self._is_only_one(start) else None
        return None

    def _is_only_one(self, key_end: int) -> bool:
        """Whether the root has no other ``model``: upstreams differ in which wins."""
        hidden = b"".join((self.body[: key_end - 2], b'-"', self.body[key_end:]))
        return not any(map(names_model, _members(hidden)))

    def _spliced(self, start: int, old: bytes, new: bytes) -> bytes | None:
        body = self.body
        at = _skip_space(body, start)
        if body[at : at + 1] != b":":
            return None
        at = _skip_space(body, at + 1)
        if not body.startswith(old, at):
            return None
        return b"".join((body[:at], new, body[at + len(old) :]))


def names_model(member: str) -> bool:
    """Whether some upstream would take a member of the root for ``model``.

    Those in Go do, whatever its case, and then the last one wins: a client could
    name a model that its deployment does not serve.

    >>> names_model("Model"), names_model("models")
    (True, False)
    """
    return member.lower() == "model"


def _skip_space(body: bytes, at: int) -> int:
    while body[at : at + 1] in (b" ", b"\t", b"\r", b"\n"):
        at += 1
    return at


def _root_model(body: bytes) -> str | None:
    return _decode_model(body).model
