r"""Write a streamed answer in Anthropic's events.

The grammar, whatever a runner sends::

    message_start
      (content_block_start content_block_delta+ content_block_stop)*
    message_delta message_stop

Blocks ascend and are never interleaved.  One block is open at a time; what
belongs to a later one waits until the open one is over.  A tool call is over
when its arguments are a whole JSON object and something else begins, so calls
that come one after the other are all streamed, and those that a server mixes
are put in order.  One without arguments is over when text or a thought begins.

Pure.

Source: Anthropic API, "Streaming Messages".
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import attrs
import msgspec

from atomr_infer.model.usage import Usage
from atomr_infer.wire.anthropic.answer_blocks import Block, BlockKind, Blocks, Piece
from atomr_infer.wire.anthropic.error_body import stream_error
from atomr_infer.wire.anthropic.reasons import stop_reason
from atomr_infer.wire.anthropic.usage import delta_members, start_members

if TYPE_CHECKING:
    from atomr_infer.errors import InferenceError
    from atomr_infer.model.batch import FinishReason, TokenChunk
    from atomr_infer.wire.ingress import AnswerFacts

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
"""An event that client libraries skip: keeps proxies from closing a silent stream."""

_json = msgspec.json.Encoder().encode

_DELTAS = {
    BlockKind.TEXT: b'{"type":"text_delta","text":%b}',
    BlockKind.THINKING: b'{"type":"thinking_delta","thinking":%b}',
    BlockKind.TOOL: b'{"type":"input_json_delta","partial_json":%b}',
}
_SIGNATURE = b'{"type":"signature_delta","signature":%b}'

_DELTA = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":%d,"delta":%b}\n\n'
)
_START = (
    b"event: content_block_start\n"
    b'data: {"type":"content_block_start","index":%d,"content_block":%b}\n\n'
)
_STOP = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
_MESSAGE_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def message_id(request_id: str) -> str:
    """Return the id of the answer to a request.

    >>> message_id("r-1")
    'msg_r-1'
    """
    return f"msg_{request_id}"


class MessageStreamEncoder:
    """Encodes one streamed answer; feed it every chunk in order."""

    def __init__(self, facts: AnswerFacts) -> None:
        """Prepare.

        Args:
            facts: what the answer says about itself; ``prompt_tokens`` stands
                in the first event, because clients show it at once.
        """
        self._facts = facts
        self._begun = False
        self._blocks = Blocks()
        self._queue = _Queue()
        self._finish: FinishReason | None = None
        self._native: str | None = None
        self._stop_sequence: str | None = None
        self._refusal: list[str] = []
        self._usage: Usage | None = None

    def encode(self, chunk: TokenChunk) -> bytes:
        """Return the events for a chunk, as bytes to send; b"" for none."""
        self._usage = chunk.usage or self._usage
        if chunk.index != 0 or self._finish is not None:
            return b""
        if not chunk.has_content and chunk.finish_reason is None:
            return b""
        head = b"" if self._begun else self._begin()
        self._note(chunk)
        return head + self._queue.take(self._blocks.add(chunk))

    def end(self) -> bytes:
        """Return the events that end a complete answer."""
        head = b"" if self._begun else self._begin()
        return b"".join(
            (head, self._queue.close(), self._message_delta(), _MESSAGE_STOP)
        )

    def fail(self, error: InferenceError) -> bytes:
        """Return the event that ends a broken answer; nothing may follow it."""
        return b"event: error\ndata: %b\n\n" % stream_error(error)

    def _note(self, chunk: TokenChunk) -> None:
        self._finish = chunk.finish_reason
        self._native = chunk.native_finish or self._native
        self._stop_sequence = chunk.stop_sequence or self._stop_sequence
        if chunk.refusal:
            self._refusal.append(chunk.refusal)

    def _begin(self) -> bytes:
        self._begun = True
        message: dict[str, object] = {
            "id": message_id(self._facts.request_id),
            "type": "message",
            "role": "assistant",
            "model": self._facts.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": start_members(self._facts.prompt_tokens),
        }
        data = _json({"type": "message_start", "message": message})
        return b"event: message_start\ndata: %b\n\n" % data

    def _message_delta(self) -> bytes:
        usage = self._usage or Usage(input_uncached=max(1, self._facts.prompt_tokens))
        ending = ending_members(
            self._finish,
            native=self._native,
            stop_sequence=self._stop_sequence,
            refusal="".join(self._refusal),
            calls_tools=self._blocks.calls_tools,
        )
        data = _json(
            {"type": "message_delta", "delta": ending, "usage": delta_members(usage)}
        )
        return b"event: message_delta\ndata: %b\n\n" % data


def ending_members(
    finish: FinishReason | None,
    *,
    native: str | None,
    stop_sequence: str | None,
    refusal: str,
    calls_tools: bool,
) -> dict[str, object]:
    """Return what an answer says about its end."""
    reason = stop_reason(finish, native=native, stop_sequence=stop_sequence)
    if reason == "end_turn" and calls_tools:
        # A provider may say only that it stopped; a client runs tools by this word.
        reason = "tool_use"
    ending: dict[str, object] = {
        "stop_reason": reason,
        "stop_sequence": stop_sequence if reason == "stop_sequence" else None,
    }
    if reason == "refusal":
        details = {"type": "refusal", "category": None, "explanation": refusal or None}
        ending["stop_details"] = details
    return ending


# --- one block at a time --------------------------------------------------------


@attrs.define(eq=False)
class _Turn:
    """A block that is open, or waits to be."""

    block: Block
    deltas: list[bytes] = attrs.field(factory=list)
    has_said: bool = False


class _Queue:
    """Sends blocks one after the other, whatever order their pieces come in."""

    def __init__(self) -> None:
        self._turns: deque[_Turn] = deque()
        self._opened = False
        self._index = 0

    def take(self, pieces: list[Piece]) -> bytes:
        """Return the events that the pieces allow to be sent now."""
        for piece in pieces:
            self._turn(piece.block).deltas += _deltas(piece)
        return b"".join(self._drain())

    def close(self) -> bytes:
        """Return the events of everything that is left."""
        for turn in self._turns:
            turn.block.over = True
        return b"".join(self._drain())

    def _turn(self, block: Block) -> _Turn:
        for turn in reversed(self._turns):
            if turn.block is block:
                return turn
        turn = _Turn(block)
        if not self._is_sent(block):
            self._leave_last()
            if block.kind is not BlockKind.TOOL:
                self._leave_bare_calls()
            self._turns.append(turn)
        return turn

    def _is_sent(self, block: Block) -> bool:
        """Whether a block was closed: a server that goes on with it is too late."""
        return block.over and block.kind is BlockKind.TOOL

    def _leave_last(self) -> None:
        """Close a tool call that can stand as it is, now that another block begins.

        It is looked at once: a call that is incomplete here is one that the
        server mixes with others, and waits for the end.
        """
        if self._turns and self._turns[-1].block.is_whole:
            self._turns[-1].block.over = True

    def _leave_bare_calls(self) -> None:
        """Close the calls that have no arguments, now that no other call begins.

        Behind text nobody sends them any more, and all that follows would wait
        for the end.
        """
        for turn in self._turns:
            if turn.block.is_bare_call:
                turn.block.over = True

    def _drain(self) -> list[bytes]:
        events: list[bytes] = []
        while self._turns:
            turn = self._turns[0]
            if not self._opened:
                events.append(_START % (self._index, _start(turn.block)))
                self._opened = True
            events += [_DELTA % (self._index, delta) for delta in turn.deltas]
            turn.has_said = turn.has_said or bool(turn.deltas)
            turn.deltas.clear()
            if not turn.block.over:
                break
            if not turn.has_said and turn.block.kind is not BlockKind.REDACTED:
                nothing = _DELTAS[turn.block.kind] % b'""'
                events.append(_DELTA % (self._index, nothing))
            events.append(_STOP % self._index)
            self._turns.popleft()
            self._opened = False
            self._index += 1
        return events


def _deltas(piece: Piece) -> list[bytes]:
    deltas = []
    if piece.text and piece.block.kind is not BlockKind.REDACTED:
        deltas.append(_DELTAS[piece.block.kind] % _json(piece.text))
    if piece.signature:
        deltas.append(_SIGNATURE % _json(piece.signature))
    return deltas


def _start(block: Block) -> bytes:
    if block.kind is BlockKind.TEXT:
        return b'{"type":"text","text":""}'
    if block.kind is BlockKind.THINKING:
        return b'{"type":"thinking","thinking":"","signature":""}'
    if block.kind is BlockKind.REDACTED:
        return _json({"type": "redacted_thinking", "data": block.text})
    members = {"type": "tool_use", "id": block.id, "name": block.name, "input": {}}
    return _json(members)
