"""Messages to Gemini's turns: ``systemInstruction`` and ``contents``.

*   Leading system and developer messages become the instruction; one in the
    middle becomes part of the user's turn at its place, so that it is heard
    where it was said.
*   Neighbours of the same role become one turn, and tools' results are part of
    the user's; empty texts are left out.
*   The first turn must be the user's, and so must the last: Gemini takes no
    text of the model's to be continued.
*   Signatures go back on the parts that they came on; what another provider
    signed is left out, and its thoughts with it.

Pure.

Source: Gemini API reference, "Content"; guide "Thought signatures".
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

import attrs
import msgspec

from atomr_infer.errors import InvalidRequestError, UnsupportedFeatureError
from atomr_infer.model.batch import Role
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    RawPart,
    ReasoningPart,
    RefusalPart,
    Signature,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from atomr_infer.wire.gemini.upstream_media import media_part

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from atomr_infer.model.batch import ExecuteBatch, Message
    from atomr_infer.model.parts import Part
    from atomr_infer.wire.gemini.signature_memory import SignatureMemory

_Part = dict[str, object]

_SYSTEM = frozenset({Role.SYSTEM, Role.DEVELOPER})

# Stands where a conversation opens with the assistant: Gemini wants a user first.
_OPENING = "."

UNSIGNED = b64encode(b"skip_thought_signature_validator").decode()
"""What Google's guide has for a call whose signature is not to be had: another
model made it, or the client could not keep it."""


@attrs.frozen
class Turns:
    """A conversation as Gemini takes it.

    Attributes:
        system: parts of the instruction.
        contents: turns, at least one.
        warnings: what was approximated or left out, in one phrase each.
    """

    system: list[_Part]
    contents: list[dict[str, object]]
    warnings: list[str]


def turns(
    batch: ExecuteBatch,
    *,
    signed_calls: bool,
    media_in_results: bool = True,
    memory: SignatureMemory | None = None,
) -> Turns:
    """Return a request's conversation.

    Args:
        batch: the request.
        signed_calls: True when the model refuses a call without a signature.
        media_in_results: True when what a tool shows stands inside its result.
        memory: where the signatures are that clients could not carry.

    Raises:
        InvalidRequestError: something in it has no form there; ``param`` names
            the message.
    """
    writer = _Writer(
        batch,
        signed_calls=signed_calls,
        media_in_results=media_in_results,
        memory=memory,
    )
    for position, message in enumerate(batch.messages):
        writer.add(message, f"messages[{position}]")
    return writer.turns()


class _Writer:
    def __init__(
        self,
        batch: ExecuteBatch,
        *,
        signed_calls: bool,
        media_in_results: bool,
        memory: SignatureMemory | None,
    ) -> None:
        self._dialect = batch.dialect
        self._signed_calls = signed_calls
        self._media_in_results = media_in_results
        self._memory = memory
        self._system: list[_Part] = []
        self._turns: list[tuple[str, list[_Part]]] = []
        self._names: dict[str, str] = {}
        self._warnings: list[str] = []

    def add(self, message: Message, param: str) -> None:
        if message.role in _SYSTEM:
            texts = list(_texts(message, param))
            if not self._turns:
                self._system += texts
            else:
                self._warnings.append(f"{param} became part of the user's turn")
                self._append("user", texts)
            return
        if message.role is Role.ASSISTANT:
            self._append("model", self._model_parts(message, param))
            return
        place = f"{param}.content"
        parts = [p for part in message.content for p in self._part(part, place)]
        self._append("user", parts)

    def turns(self) -> Turns:
        if not self._turns:
            # An instruction alone: Gemini wants something to answer.
            self._turns, self._system = [("user", self._system)], []
        if not self._turns[0][1]:
            raise InvalidRequestError("the messages hold no text", param="messages")
        if self._turns[-1][0] == "model":
            raise UnsupportedFeatureError(
                "this model cannot continue an assistant's text: the last message"
                " must be the user's or a tool's",
                param="messages",
            )
        if self._turns[0][0] == "model":
            self._turns.insert(0, ("user", [{"text": _OPENING}]))
        contents: list[dict[str, object]] = [
            {"role": role, "parts": parts} for role, parts in self._turns
        ]
        return Turns(self._system, contents, self._warnings)

    def _append(self, role: str, parts: list[_Part]) -> None:
        if not parts:
            return
        if self._turns and self._turns[-1][0] == role:
            self._turns[-1][1].extend(parts)
        else:
            self._turns.append((role, parts))

    def _model_parts(self, message: Message, param: str) -> list[_Part]:
        place = f"{param}.content"
        parts: list[_Part] = []
        has_calls = False
        for part in message.content:
            made = list(self._part(part, place))
            if isinstance(part, ToolCallPart):
                # Only the first call of a step must be signed.
                if self._signed_calls and not has_calls:
                    made[0].setdefault("thoughtSignature", UNSIGNED)
                has_calls = True
            parts += made
        return parts

    def _part(self, part: Part, param: str) -> Iterator[_Part]:
        match part:
            case TextPart() | RefusalPart() | ReasoningPart():
                yield from _text(part)
            case ImagePart(source=source) | AudioPart(source=source):
                yield media_part(source, param)
            case FilePart(source=source):
                yield media_part(source, param)
            case ToolCallPart():
                self._names[part.id] = part.name
                yield self._call(part, param)
            case ToolResultPart():
                yield from self._result(part, param)
            case RawPart():
                yield self._raw(part, param)

    def _call(self, part: ToolCallPart, param: str) -> _Part:
        signature = _own(part.signature)
        if signature is None and self._memory is not None:
            signature = self._memory.get(
                part.id, name=part.name, arguments=part.arguments
            )
        call = _call(part, param)
        return call if signature is None else {**call, "thoughtSignature": signature}

    def _result(self, part: ToolResultPart, param: str) -> Iterator[_Part]:
        name = self._names.get(part.call_id) or part.name
        if name is None:
            raise InvalidRequestError(
                f"{param!r} answers the tool call {part.call_id!r},"
                " which no message before it makes",
                param=param,
            )
        told: dict[str, object] = {
            "id": part.call_id,
            "name": name,
            "response": _response(part),
        }
        others = [inner for inner in part.content if not isinstance(inner, TextPart)]
        shown = [media_part(inner.source, param) for inner in others]
        if shown and self._media_in_results:
            told["parts"] = shown
        yield {"functionResponse": told}
        if not self._media_in_results:
            yield from shown

    def _raw(self, part: RawPart, param: str) -> _Part:
        if self._dialect is not Dialect.GEMINI:
            raise UnsupportedFeatureError(
                f"{param!r} holds a part of type {part.kind!r}, which Gemini lacks",
                param=param,
            )
        members: _Part = msgspec.json.decode(part.json, type=dict[str, msgspec.Raw])
        return members


def _texts(message: Message, param: str) -> Iterator[_Part]:
    for part in message.content:
        if not isinstance(part, TextPart):
            raise InvalidRequestError(
                f"'{param}.content' must be text: it is an instruction",
                param=f"{param}.content",
            )
        if part.text:
            yield {"text": part.text}


def _text(part: TextPart | RefusalPart | ReasoningPart) -> Iterable[_Part]:
    if isinstance(part, RefusalPart):
        return [{"text": part.text}] if part.text else []
    signature = _own(part.signature)
    if isinstance(part, ReasoningPart):
        if signature is None:
            return []
        return [{"text": part.text, "thought": True, "thoughtSignature": signature}]
    if signature is not None:
        return [{"text": part.text, "thoughtSignature": signature}]
    return [{"text": part.text}] if part.text else []


def _own(signature: Signature | None) -> str | None:
    """Return Gemini's own signature; another provider's is none."""
    if signature is None or signature.origin is not Dialect.GEMINI:
        return None
    return signature.text


def _call(part: ToolCallPart, param: str) -> _Part:
    arguments = _object(part.arguments or "{}")
    if arguments is None:
        raise InvalidRequestError(
            f"{param!r}: the arguments of the tool call {part.id!r} are not a JSON"
            " object",
            param=param,
        )
    return {"functionCall": {"id": part.id, "name": part.name, "args": arguments}}


def _response(part: ToolResultPart) -> object:
    """Return a tool's answer as the object that it must be."""
    if part.is_error:
        return _object(part.text, member="error") or {"error": part.text}
    return _object(part.text) or {"result": part.text}


def _object(text: str, *, member: str | None = None) -> msgspec.Raw | None:
    """Return a text that is a JSON object; None: it is none.

    Args:
        text: what may be one.
        member: what the object must have.
    """
    if not text.lstrip().startswith("{"):
        return None
    try:
        members = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if member is not None and member not in members:
        return None
    return msgspec.Raw(text.strip().encode())
