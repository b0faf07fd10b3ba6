"""The content blocks of an answer, in the order in which they began.

The canonical chunks say what was added: text, a thought, a tool call's
arguments.  Anthropic's answer is a list of blocks instead, so text behind a
tool call is a block of its own, and so is each thought and each call.

Pure.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import attrs
import msgspec

from atomr_infer.wire.anthropic.signatures import write_signature

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atomr_infer.model.batch import ReasoningDelta, TokenChunk, ToolCallDelta


class BlockKind(Enum):
    """What a block holds."""

    TEXT = "text"
    THINKING = "thinking"
    REDACTED = "redacted_thinking"
    TOOL = "tool_use"


@attrs.define(eq=False)
class Block:
    """One block, as far as it has come.

    Attributes:
        kind: what it holds.
        id: the tool call's.
        name: the tool's.
        pieces: its text, its thought, its arguments or its hidden data.
        signature: the thought's, as a client carries it.
        over: True when nothing can be added to it any more.
    """

    kind: BlockKind
    id: str = ""
    name: str = ""
    pieces: list[str] = attrs.field(factory=list)
    signature: str = ""
    over: bool = False

    @property
    def text(self) -> str:
        """Its pieces, joined."""
        return "".join(self.pieces)

    @property
    def is_whole(self) -> bool:
        """True when nothing more of it is awaited.

        Of a call that has no arguments yet nobody knows: servers begin several
        and then send the arguments of each.
        """
        return self.kind is not BlockKind.TOOL or is_object(self.text)

    @property
    def is_bare_call(self) -> bool:
        """True for a tool call that has no arguments yet."""
        return self.kind is BlockKind.TOOL and not self.text.strip()


def is_object(arguments: str) -> bool:
    """Return True for the text of a JSON object.

    >>> is_object('{"a": 1}'), is_object('{"a"')
    (True, False)
    """
    try:
        return isinstance(msgspec.json.decode(arguments), dict)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False


@attrs.frozen
class Piece:
    """What a chunk added to a block.

    Attributes:
        block: the block.
        text: new text of what it holds.
        signature: what proves it, at its end.
    """

    block: Block
    text: str = ""
    signature: str = ""


class Blocks:
    """Puts chunks into blocks.

    Attributes:
        order: the blocks, in order of their beginning.
    """

    def __init__(self) -> None:
        self.order: list[Block] = []
        self._calls: dict[int, Block] = {}
        self._thoughts: dict[int, Block] = {}

    def add(self, chunk: TokenChunk) -> list[Piece]:
        """Take the next chunk; return what it added."""
        pieces = [] if chunk.reasoning is None else list(self._think(chunk.reasoning))
        text = chunk.text + chunk.refusal
        if text:
            pieces.append(self._grow(self._open_text(), text))
        pieces += [self._call(delta) for delta in chunk.tool_calls]
        return pieces

    @property
    def calls_tools(self) -> bool:
        """True when a tool is called."""
        return bool(self._calls)

    def _begin(self, block: Block) -> Block:
        if self.order and self.order[-1].kind is not BlockKind.TOOL:
            # Text is never taken up again behind something else.
            self.order[-1].over = True
        self.order.append(block)
        return block

    def _grow(self, block: Block, text: str, signature: str = "") -> Piece:
        block.pieces.append(text)
        return Piece(block, text, signature)

    def _open_text(self) -> Block:
        last = self.order[-1] if self.order else None
        if last is not None and last.kind is BlockKind.TEXT:
            return last
        return self._begin(Block(BlockKind.TEXT))

    def _think(self, delta: ReasoningDelta) -> Iterator[Piece]:
        signature = "" if delta.signature is None else write_signature(delta.signature)
        if delta.text or signature:
            block = self._thoughts.get(delta.block)
            if block is None or block.over:
                block = self._begin(Block(BlockKind.THINKING))
                self._thoughts[delta.block] = block
            yield self._grow(block, delta.text, signature)
            if signature:
                block.signature, block.over = signature, True
        if delta.data is not None:
            hidden = self._begin(Block(BlockKind.REDACTED, over=True))
            yield self._grow(hidden, write_signature(delta.data))

    def _call(self, delta: ToolCallDelta) -> Piece:
        block = self._calls.get(delta.index)
        if block is None:
            block = Block(BlockKind.TOOL, id=delta.id or "", name=delta.name or "")
            self._calls[delta.index] = self._begin(block)
        return self._grow(block, delta.arguments)
