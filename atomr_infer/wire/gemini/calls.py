"""Put the pieces of tool calls together: Gemini's clients want them whole.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from atomr_infer.wire.gemini.signatures import to_wire

if TYPE_CHECKING:
    from atomr_infer.model.batch import ToolCallDelta
    from atomr_infer.model.parts import Signature

_Part = dict[str, object]

_SHOWN_CHARS = 200


class _Call:
    def __init__(self) -> None:
        self.id: str | None = None
        self.name = ""
        self.arguments: list[str] = []
        self.signature: Signature | None = None

    @property
    def is_whole(self) -> bool:
        """True when its arguments are a JSON object, so that no piece is missing."""
        text = "".join(self.arguments)
        return bool(text.strip()) and _object(text) is not None


class CallAssembler:
    """The calls of one choice.

    Attributes:
        malformed: what is wrong with arguments that are no JSON object; None:
            nothing was.
    """

    def __init__(self) -> None:
        self._open: dict[int, _Call] = {}
        self._given: set[int] = set()
        self.malformed: str | None = None

    def add(self, delta: ToolCallDelta) -> list[_Part]:
        """Take a piece; return the parts of calls that it shows to be whole.

        A call that has no arguments yet is not whole: servers begin several and
        then send the arguments of each.  A piece that adds nothing to a call that
        was given out is too late to be one of its own.
        """
        is_open = delta.index in self._open
        if not is_open and delta.index in self._given and _is_blank(delta):
            return []
        whole = [] if is_open else self._whole()
        call = self._open.setdefault(delta.index, _Call())
        call.id = delta.id or call.id
        call.name = delta.name or call.name
        call.arguments.append(delta.arguments)
        call.signature = delta.signature or call.signature
        return whole

    def _whole(self) -> list[_Part]:
        """Return the parts of the first calls, up to one that is not whole."""
        parts = []
        for index, call in sorted(self._open.items()):
            part = self._part(call) if call.is_whole else None
            if part is None:
                break
            parts.append(part)
            del self._open[index]
            self._given.add(index)
        return parts

    def end(self) -> list[_Part]:
        """Return the parts of all calls that are still open, in order."""
        calls, self._open = self._open, {}
        parts = [self._part(call) for _, call in sorted(calls.items())]
        return [part for part in parts if part is not None]

    def _part(self, call: _Call) -> _Part | None:
        text = "".join(call.arguments)
        arguments = _object(text)
        if arguments is None:
            self.malformed = (
                f"the arguments of {call.name!r} are not a JSON object:"
                f" {text[:_SHOWN_CHARS]}"
            )
            return None
        told: _Part = {"name": call.name, "args": arguments}
        if call.id is not None:
            told = {"id": call.id, **told}
        part: _Part = {"functionCall": told}
        if call.signature is not None:
            part["thoughtSignature"] = to_wire(call.signature)
        return part


def _is_blank(delta: ToolCallDelta) -> bool:
    return delta.name is None and not delta.arguments.strip()


def _object(text: str) -> msgspec.Raw | None:
    raw = text.strip().encode()
    if not raw:
        return msgspec.Raw(b"{}")
    if not raw.startswith(b"{"):
        return None
    try:
        # Written anew: a line end in it would cut a streamed event in two.
        return msgspec.Raw(msgspec.json.format(raw, indent=-1))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
