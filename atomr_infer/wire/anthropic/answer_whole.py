"""Write an answer that is not streamed: one ``message`` object.

Pure.

Source: Anthropic API reference, "Create a Message".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from atomr_infer.model.usage import Usage
from atomr_infer.wire.anthropic.answer_blocks import (
    Block,
    BlockKind,
    Blocks,
    is_object,
)
from atomr_infer.wire.anthropic.answer_stream import ending_members, message_id
from atomr_infer.wire.anthropic.usage import usage_members

if TYPE_CHECKING:
    from atomr_infer.model.batch import FinishReason, TokenChunk
    from atomr_infer.wire.ingress import AnswerFacts

INVALID_INPUT = "invalid_json"
"""The member of ``input`` that holds arguments that a model wrote as no object."""


class MessageBuilder:
    """Collects one answer; feed it every chunk in order."""

    def __init__(self, facts: AnswerFacts) -> None:
        """Prepare for the answer that ``facts`` describe."""
        self._facts = facts
        self._blocks = Blocks()
        self._finish: FinishReason | None = None
        self._native: str | None = None
        self._stop_sequence: str | None = None
        self._refusal: list[str] = []
        self._usage: Usage | None = None

    def add(self, chunk: TokenChunk) -> None:
        """Take the next chunk."""
        self._usage = chunk.usage or self._usage
        if chunk.index != 0 or self._finish is not None:
            return
        self._blocks.add(chunk)
        self._finish = chunk.finish_reason
        self._native = chunk.native_finish or self._native
        self._stop_sequence = chunk.stop_sequence or self._stop_sequence
        self._refusal.append(chunk.refusal)

    def build(self) -> bytes:
        """Return the whole answer as JSON."""
        usage = self._usage or Usage(input_uncached=max(1, self._facts.prompt_tokens))
        ending = ending_members(
            self._finish,
            native=self._native,
            stop_sequence=self._stop_sequence,
            refusal="".join(self._refusal),
            calls_tools=self._blocks.calls_tools,
        )
        message = {
            "id": message_id(self._facts.request_id),
            "type": "message",
            "role": "assistant",
            "model": self._facts.model,
            "content": [_members(block) for block in self._blocks.order],
            **ending,
            "usage": usage_members(usage),
        }
        return msgspec.json.encode(message)


def _members(block: Block) -> dict[str, object]:
    text = block.text
    if block.kind is BlockKind.TEXT:
        return {"type": "text", "text": text}
    if block.kind is BlockKind.THINKING:
        return {"type": "thinking", "thinking": text, "signature": block.signature}
    if block.kind is BlockKind.REDACTED:
        return {"type": "redacted_thinking", "data": text}
    return {
        "type": "tool_use",
        "id": block.id,
        "name": block.name,
        "input": _input(text),
    }


def _input(arguments: str) -> object:
    if not arguments:
        return {}
    if is_object(arguments):
        return msgspec.Raw(arguments.encode())
    return {INVALID_INPUT: arguments}
