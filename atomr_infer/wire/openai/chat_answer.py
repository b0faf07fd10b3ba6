"""Write chat completions: canonical chunks to OpenAI's JSON, streamed or whole.

A stream's chunks differ only in their choice, so what they share is encoded
once, and each chunk is a few joins of bytes.

What the encoder guarantees, whatever a runner sends:

*   the first chunk of each index carries ``role: assistant``;
*   ``id``, ``created`` and ``model`` are the same in every chunk;
*   each index finishes exactly once, and no content follows its finish;
*   usage appears only when it was asked for, in a last chunk with no choices,
    and then every earlier chunk has ``usage: null``.

Pure.

Source: OpenAI API reference, "Chat completion chunk object".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from atomr_infer.wire.openai.chat_deltas import DeltaMerger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.model.batch import FinishReason, RawJson, TokenChunk, Usage

_json = msgspec.json.Encoder().encode


class ChatStreamEncoder:
    """Encodes one streamed answer; feed it every chunk in order."""

    def __init__(
        self, *, answer_id: str, created_s: int, model: str, include_usage: bool
    ) -> None:
        """Prepare the part that all chunks share.

        Args:
            answer_id: ``chatcmpl-...``.
            created_s: Unix time in seconds.
            model: the model that serves.
            include_usage: True when the client asked for a usage chunk.
        """
        head = {
            "id": answer_id,
            "object": "chat.completion.chunk",
            "created": created_s,
            "model": model,
        }
        self._head = _json(head)[:-1] + b',"choices":['
        self._tail = b'],"usage":null}' if include_usage else b"]}"
        self._include_usage = include_usage
        self._opened: set[int] = set()
        self._finished: set[int] = set()
        self._usage: Usage | None = None

    def encode(self, chunk: TokenChunk) -> list[bytes]:
        """Return the JSON of zero or more stream chunks for one runner's chunk."""
        if chunk.usage is not None:
            self._usage = chunk.usage
        if chunk.index in self._finished:
            return []
        said = chunk.has_content or chunk.choice_extra
        if not said and chunk.finish_reason is None:
            return []
        events = []
        if chunk.index not in self._opened:
            self._opened.add(chunk.index)
            events.append(self._choice(chunk.index, b'"role":"assistant","content":""'))
        if said:
            events.append(
                self._choice(chunk.index, _delta(chunk), more=chunk.choice_extra)
            )
        if chunk.finish_reason is not None:
            self._finished.add(chunk.index)
            events.append(self._choice(chunk.index, b"", chunk.finish_reason))
        return events

    def end(self) -> list[bytes]:
        """Return what follows the last chunk: usage when asked, ``[DONE]``."""
        if self._include_usage and self._usage is not None:
            usage = self._head + b'],"usage":' + _json(usage_members(self._usage))
            return [usage + b"}", b"[DONE]"]
        return [b"[DONE]"]

    def _choice(
        self,
        index: int,
        delta: bytes,
        finish: FinishReason | None = None,
        more: Mapping[str, RawJson] | None = None,
    ) -> bytes:
        reason = b"null" if finish is None else b'"%s"' % finish.value.encode()
        return b'%s{"index":%d,"delta":{%s},%s"finish_reason":%s}%s' % (
            self._head,
            index,
            delta,
            _raw_members(more or {}, b'"logprobs":null,'),
            reason,
            self._tail,
        )


def _delta(chunk: TokenChunk) -> bytes:
    members = [b'"content":' + _json(chunk.text)] if chunk.text else []
    members += [_json(name) + b":" + raw for name, raw in chunk.extra.items()]
    return b",".join(members)


def _raw_members(members: Mapping[str, RawJson], empty: bytes) -> bytes:
    if not members:
        return empty
    return b"".join(_json(name) + b":" + raw + b"," for name, raw in members.items())


class ChatAnswerBuilder:
    """Collects the chunks of one answer into a whole ``chat.completion``."""

    def __init__(self) -> None:
        self._texts: dict[int, list[str]] = {}
        self._finish: dict[int, FinishReason] = {}
        self._deltas: dict[int, DeltaMerger] = {}
        self._choice_extra: dict[int, dict[str, RawJson]] = {}
        self.usage: Usage | None = None

    def add(self, chunk: TokenChunk) -> None:
        """Take the next chunk."""
        if chunk.usage is not None:
            self.usage = chunk.usage
        if not (chunk.has_content or chunk.finish_reason or chunk.choice_extra):
            return
        self._texts.setdefault(chunk.index, []).append(chunk.text)
        if chunk.extra:
            self._deltas.setdefault(chunk.index, DeltaMerger()).add(chunk.extra)
        if chunk.choice_extra:
            self._choice_extra.setdefault(chunk.index, {}).update(chunk.choice_extra)
        if chunk.finish_reason is not None:
            self._finish.setdefault(chunk.index, chunk.finish_reason)

    def text(self, index: int = 0) -> str:
        """The text of one choice so far."""
        return "".join(self._texts.get(index, ()))

    def finish_reason(self, index: int = 0) -> FinishReason | None:
        """Why that choice ended; None when it has not."""
        return self._finish.get(index)

    def build(self, *, answer_id: str, created_s: int, model: str) -> bytes:
        """Return the ``chat.completion`` object as JSON."""
        answer = {
            "id": answer_id,
            "object": "chat.completion",
            "created": created_s,
            "model": model,
            "choices": [self._choice(index) for index in sorted(self._texts)],
            "usage": None if self.usage is None else usage_members(self.usage),
        }
        return _json(answer)

    def _choice(self, index: int) -> dict[str, object]:
        extra = self._deltas[index].members() if index in self._deltas else {}
        text = self.text(index)
        message: dict[str, object] = {
            "role": "assistant",
            # null, not "": how clients tell a pure tool call from an empty answer.
            "content": text if text or "tool_calls" not in extra else None,
            "refusal": None,
        }
        message.update({name: msgspec.Raw(raw) for name, raw in extra.items()})
        finish = self._finish.get(index)
        choice: dict[str, object] = {
            "index": index,
            "message": message,
            "logprobs": None,
            "finish_reason": None if finish is None else finish.value,
        }
        more = self._choice_extra.get(index, {})
        choice.update({name: msgspec.Raw(raw) for name, raw in more.items()})
        return choice


def usage_members(usage: Usage) -> dict[str, object]:
    """Return usage in OpenAI's buckets: totals include cached and reasoning."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }
