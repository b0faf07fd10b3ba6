"""Number the tool calls of a stream that is passed on as it came.

Libraries put the pieces of a call together by their index.  Some servers give
each of several calls the index 0, or none: their clients would get one call
with the arguments of all.  Only events whose numbers are wrong are written
anew, and in them only the numbers, and an id where a call has none.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from atomr_infer.wire.openai.tool_index import ToolCallNumbers
from atomr_infer.wire.openai.upstream_delta import decode_tool_calls
from atomr_infer.wire.sse import encode_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr_infer.model.batch import ToolCallDelta
    from atomr_infer.wire.sse import SseEvent

_Members = dict[str, msgspec.Raw]


class _Delta(msgspec.Struct):
    tool_calls: msgspec.Raw = msgspec.Raw(b"null")


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None


_decode = msgspec.json.Decoder(_Chunk).decode
_members = msgspec.json.Decoder(_Members).decode
_items = msgspec.json.Decoder(list[_Members]).decode
_encode = msgspec.json.encode

_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class PassedCalls:
    r"""The tool calls of all choices of one answer.

    >>> from atomr_infer.wire.sse import SseEvent
    >>> call = b'{"id":"%b","function":{"name":"f"},"index":0}'
    >>> data = b'{"choices":[{"delta":{"tool_calls":[%b]}}]}' % call
    >>> calls = PassedCalls("r1")
    >>> calls.renumbered(SseEvent(data % b"a")) is None
    True
    >>> b'{"id":"b","function":{"name":"f"},"index":1}' in calls.renumbered(
    ...     SseEvent(data % b"b")
    ... )
    True
    """

    def __init__(self, seed: str) -> None:
        """Begin with no call.

        Args:
            seed: what the ids of calls without one are made of.
        """
        self._seed = seed
        self._numbers: dict[int, ToolCallNumbers] = {}

    def renumbered(self, event: SseEvent) -> bytes | None:
        """Return the event with its calls numbered; None: they are.

        Calls that cannot be read are left as they are.
        """
        # All that can fail comes first: a call that is not written takes no number.
        try:
            choices = _decode(event.data).choices or ()
            chunk = _members(event.data)
            written = _items(chunk["choices"]) if choices else []
        except _DECODE_ERRORS:
            return None
        numbered = [
            self._number(choice, members)
            for choice, members in zip(choices, written, strict=True)
        ]
        if not any(numbered):
            return None
        chunk["choices"] = msgspec.Raw(_encode(written))
        # A line end between two members would cut the event in two.
        return encode_event(
            msgspec.json.format(_encode(chunk), indent=-1), event.event or None
        )

    def _number(self, choice: _Choice, written: _Members) -> bool:
        """Write a choice's calls with their numbers; False: they are as they were."""
        raw = (choice.delta or _Delta()).tool_calls
        try:
            pieces = decode_tool_calls(raw)
            if not pieces:
                return False
            calls = _items(raw)
            delta = _members(written["delta"])
        except _DECODE_ERRORS:
            return False
        numbers = self._numbers.setdefault(
            choice.index, ToolCallNumbers(f"{self._seed}_{choice.index}")
        )
        if not _renumber(numbers, pieces, calls):
            return False
        delta["tool_calls"] = msgspec.Raw(_encode(calls))
        written["delta"] = msgspec.Raw(_encode(delta))
        return True


def _renumber(
    numbers: ToolCallNumbers, pieces: Sequence[ToolCallDelta], calls: list[_Members]
) -> bool:
    """Write the calls' numbers and missing ids into them; False: they have them."""
    differs = False
    for members, piece in zip(calls, pieces, strict=True):
        given = numbers.renumber(piece)
        if given.index != piece.index:
            members["index"] = msgspec.Raw(_encode(given.index))
            differs = True
        if piece.id is None and given.id is not None:
            members["id"] = msgspec.Raw(_encode(given.id))
            differs = True
    return differs
