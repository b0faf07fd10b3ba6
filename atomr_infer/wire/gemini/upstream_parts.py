"""The parts of a candidate as pieces of a canonical answer.

One reader for each candidate: it counts tool calls over the whole answer, since
each ``functionCall`` part is a call of its own, and puts together those whose
arguments come in pieces.

Pure.

Source: Gemini API reference, "Part" and "FunctionCall".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from atomr_infer.model.batch import ReasoningDelta, TokenChunk, ToolCallDelta
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import Signature
from atomr_infer.wire.gemini.partial_args import JsonValue, PartialArgs

if TYPE_CHECKING:
    from collections.abc import Iterator

NewId = Callable[[], str]
"""Makes the id of a call that came without one: ``call_`` and a random part."""

_EMPTY = msgspec.Raw(b"{}")


class _PartialArg(msgspec.Struct, rename="camel"):
    json_path: str = ""
    string_value: str | None = None
    number_value: float | None = None
    bool_value: bool | None = None
    will_continue: bool | None = None

    @property
    def value(self) -> JsonValue:
        """The value: null where no other is given."""
        if self.string_value is not None:
            return self.string_value
        if self.bool_value is not None:
            return self.bool_value
        number = self.number_value
        if number is not None and number.is_integer() and abs(number) < 2**53:
            return int(number)
        return number


class _FunctionCall(msgspec.Struct, rename="camel"):
    id: str | None = None
    name: str | None = None
    args: msgspec.Raw = _EMPTY
    partial_args: list[_PartialArg] | None = None
    will_continue: bool | None = None


class _Blob(msgspec.Struct, rename="camel"):
    mime_type: str = ""
    data: str = ""


class Part(msgspec.Struct, rename="camel"):
    """One part of what a candidate says."""

    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _FunctionCall | None = None
    inline_data: _Blob | None = None


class _OpenCall:
    def __init__(self, call_id: str, name: str) -> None:
        self.id = call_id
        self.name = name
        self.args = PartialArgs()
        self.signature: Signature | None = None


class PartReader:
    """Reads the parts of one candidate in order.

    Attributes:
        calls: tool calls so far.
        model: the model that serves, for the chunks.
    """

    def __init__(self, index: int, *, new_id: NewId) -> None:
        """Read candidate ``index``; ``new_id`` makes the ids that are missing."""
        self._index = index
        self._new_id = new_id
        self._open: _OpenCall | None = None
        self._block = 0
        self._thinking = False
        self.calls = 0
        self.model: str | None = None

    def read(self, part: Part) -> Iterator[TokenChunk]:
        """Return what a part says, in at most one chunk.

        Raises:
            UpstreamProtocolError: a call's pieces do not fit together.
        """
        signature = _signature(part.thought_signature)
        if part.thought:
            yield self._thought(part, signature)
            return
        if self._thinking and (part.text or part.function_call is not None):
            self._thinking, self._block = False, self._block + 1
        if part.function_call is not None:
            yield from self._call(part.function_call, signature)
        elif part.inline_data is not None:
            yield from self._media(part.inline_data)
        elif part.text or signature is not None:
            yield TokenChunk(
                text=part.text or "",
                index=self._index,
                text_signature=signature,
                model=self.model,
            )

    def end(self) -> Iterator[TokenChunk]:
        """Return a call whose last piece never said that it was the last."""
        if self._open is not None:
            yield self._close(self._open)

    def _thought(self, part: Part, signature: Signature | None) -> TokenChunk:
        self._thinking = True
        delta = ReasoningDelta(
            text=part.text or "", signature=signature, block=self._block
        )
        return TokenChunk(index=self._index, reasoning=delta, model=self.model)

    def _call(
        self, call: _FunctionCall, signature: Signature | None
    ) -> Iterator[TokenChunk]:
        if self._open is not None and call.name and call.name != self._open.name:
            # A new call begins though the one before never ended.
            yield self._close(self._open)
        if self._open is None and not (call.partial_args or call.will_continue):
            if call.name:
                yield self._whole(call, signature)
            return
        opened = self._open or _OpenCall(call.id or self._new_id(), call.name or "")
        self._open = opened
        opened.signature = signature or opened.signature
        for piece in call.partial_args or ():
            opened.args.set(
                piece.json_path, piece.value, more=bool(piece.will_continue)
            )
        if not call.will_continue:
            yield self._close(opened)

    def _whole(self, call: _FunctionCall, signature: Signature | None) -> TokenChunk:
        raw = bytes(call.args)
        if raw == b"null":
            raw = b"{}"
        return self._tool_call(
            ToolCallDelta(
                index=self.calls,
                id=call.id or self._new_id(),
                name=call.name,
                arguments=msgspec.json.format(raw, indent=-1).decode(),
                signature=signature,
            )
        )

    def _close(self, opened: _OpenCall) -> TokenChunk:
        self._open = None
        return self._tool_call(
            ToolCallDelta(
                index=self.calls,
                id=opened.id,
                name=opened.name,
                arguments=msgspec.json.encode(opened.args.value).decode(),
                signature=opened.signature,
            )
        )

    def _tool_call(self, delta: ToolCallDelta) -> TokenChunk:
        self.calls += 1
        return TokenChunk(index=self._index, tool_calls=(delta,), model=self.model)

    def _media(self, blob: _Blob) -> Iterator[TokenChunk]:
        name, member = _medium(blob, self._new_id)
        extra = {name: msgspec.json.encode(member)}
        yield TokenChunk(index=self._index, extra=extra, model=self.model)


def _medium(blob: _Blob, new_id: NewId) -> tuple[str, object]:
    """Return a medium as a chat's message has it: the member's name, and it."""
    if blob.mime_type.startswith("image/"):
        url = f"data:{blob.mime_type};base64,{blob.data}"
        return "images", [{"type": "image_url", "image_url": {"url": url}}]
    told = {"mime_type": blob.mime_type, "data": blob.data}
    if blob.mime_type.startswith("audio/"):
        sound = {"id": new_id(), "transcript": "", "expires_at": 0}
        return "audio", {**sound, **told}
    return "media", [told]


def _signature(text: str | None) -> Signature | None:
    return None if text is None else Signature(text, Dialect.GEMINI)
