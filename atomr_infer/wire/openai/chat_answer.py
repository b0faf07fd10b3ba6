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

from atomr_infer.model.collected import Choice, Collected
from atomr_infer.wire.openai import error_body
from atomr_infer.wire.openai.chat_members import (
    delta_members,
    merge_logprobs,
    message_members,
)
from atomr_infer.wire.openai.usage_body import usage_members

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.errors import InferenceError
    from atomr_infer.model.batch import FinishReason, RawJson, TokenChunk, Usage
    from atomr_infer.wire.ingress import AnswerFacts

_json = msgspec.json.Encoder().encode

_DONE = b"data: [DONE]\n\n"


def event(data: bytes) -> bytes:
    """Return one server-sent event with a line of JSON (W2)."""
    # In JSON a line break can only be white space; in an event it would end it.
    if b"\n" in data or b"\r" in data:
        data = data.replace(b"\r", b" ").replace(b"\n", b" ")
    return b"data: " + data + b"\n\n"


class ChatStreamEncoder:
    """Encodes one streamed answer; feed it every chunk in order."""

    def __init__(self, facts: AnswerFacts, *, include_usage: bool) -> None:
        """Prepare the part that all chunks share.

        Args:
            facts: what the answer says about itself.
            include_usage: True when the client asked for a usage chunk.
        """
        head = {
            "id": answer_id(facts),
            "object": "chat.completion.chunk",
            "created": facts.created_s,
            "model": facts.model,
        }
        self._head = _json(head)[:-1] + b',"choices":['
        self._tail = b'],"usage":null}' if include_usage else b"]}"
        self._include_usage = include_usage
        self._opened: set[int] = set()
        self._finished: set[int] = set()
        self._usage: Usage | None = None

    def encode(self, chunk: TokenChunk) -> bytes:
        """Return zero or more events for one runner's chunk."""
        if chunk.usage is not None:
            self._usage = chunk.usage
        if chunk.index in self._finished:
            return b""
        said = chunk.has_content or chunk.choice_extra or chunk.logprobs
        if not said and chunk.finish_reason is None:
            return b""
        data = b""
        if chunk.index not in self._opened:
            self._opened.add(chunk.index)
            data = self._choice(chunk.index, b'"role":"assistant","content":""')
        if said:
            data += self._choice(chunk.index, delta_members(chunk), more=_beside(chunk))
        if chunk.finish_reason is not None:
            self._finished.add(chunk.index)
            data += self._choice(chunk.index, b"", chunk.finish_reason)
        return data

    def end(self) -> bytes:
        """Return what follows the last chunk: usage when asked, ``[DONE]``."""
        if self._include_usage and self._usage is not None:
            usage = self._head + b'],"usage":' + _json(usage_members(self._usage))
            return event(usage + b"}") + _DONE
        return _DONE

    def fail(self, error: InferenceError) -> bytes:
        """Return the event that ends a broken answer, without ``[DONE]`` (W6)."""
        return event(error_body.envelope(error))

    def _choice(
        self,
        index: int,
        delta: bytes,
        finish: FinishReason | None = None,
        more: Mapping[str, RawJson] | None = None,
    ) -> bytes:
        reason = b"null" if finish is None else b'"%s"' % finish.value.encode()
        return event(
            b'%s{"index":%d,"delta":{%s},%s"finish_reason":%s}%s'
            % (
                self._head,
                index,
                delta,
                _raw_members(more or {}, b'"logprobs":null,'),
                reason,
                self._tail,
            )
        )


def answer_id(facts: AnswerFacts) -> str:
    """Return ``chatcmpl-...``."""
    return f"chatcmpl-{facts.request_id}"


def _beside(chunk: TokenChunk) -> Mapping[str, RawJson]:
    if chunk.logprobs is None:
        return chunk.choice_extra
    return {"logprobs": chunk.logprobs, **chunk.choice_extra}


def _raw_members(members: Mapping[str, RawJson], empty: bytes) -> bytes:
    if not members:
        return empty
    return b"".join(_json(name) + b":" + raw + b"," for name, raw in members.items())


class ChatAnswerBuilder:
    """Collects the chunks of one answer into a whole ``chat.completion``."""

    def __init__(self, facts: AnswerFacts) -> None:
        self._facts = facts
        self._collected = Collected()

    def add(self, chunk: TokenChunk) -> None:
        """Take the next chunk."""
        self._collected.add(chunk)

    def build(self) -> bytes:
        """Return the ``chat.completion`` object as JSON."""
        collected = self._collected
        usage = collected.usage
        answer = {
            "id": answer_id(self._facts),
            "object": "chat.completion",
            "created": self._facts.created_s,
            "model": self._facts.model,
            "choices": [
                _whole_choice(index, collected.choice(index))
                for index in collected.indices
            ],
            "usage": None if usage is None else usage_members(usage),
        }
        return _json(answer)


def _whole_choice(index: int, choice: Choice) -> dict[str, object]:
    finish = choice.finish_reason
    logprobs = merge_logprobs(choice.logprobs)
    members: dict[str, object] = {
        "index": index,
        "message": message_members(choice),
        "logprobs": None if logprobs is None else msgspec.Raw(logprobs),
        "finish_reason": None if finish is None else finish.value,
    }
    more = choice.choice_extra
    members.update({name: msgspec.Raw(raw) for name, raw in more.items()})
    return members
