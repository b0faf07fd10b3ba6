"""Bare text completions: the older route that engines and benchmarks speak.

A request holds its prompt twice: as ``prompt`` for a runtime that continues
text, and as one user message for a runtime that only chats.

Pure.

Source: OpenAI API reference, "Create completion".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
from atomr_infer.model.collected import Choice, Collected
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.source import Source
from atomr_infer.wire.fields import Fields, decode, invalid
from atomr_infer.wire.ingress import Asked, ReadWhole
from atomr_infer.wire.openai import error_body
from atomr_infer.wire.openai.chat import OpenAIErrors
from atomr_infer.wire.openai.chat_answer import event
from atomr_infer.wire.openai.chat_members import merge_logprobs
from atomr_infer.wire.openai.chat_request import (
    SEEDS,
    model_name,
    take_include_usage,
    take_stop,
)
from atomr_infer.wire.openai.usage_body import usage_members
from atomr_infer.wire.sse import KEEPALIVE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr_infer.errors import InferenceError
    from atomr_infer.model.batch import TokenChunk
    from atomr_infer.model.parts import RawJson
    from atomr_infer.model.usage import Usage
    from atomr_infer.wire.ingress import AnswerFacts, Call

_json = msgspec.json.Encoder().encode

_MAX_N = 128
_MAX_LOGPROBS = 20
_DONE = b"data: [DONE]\n\n"
_MAX_PROMPTS = 2048
_PROMPT = "a string, a list of strings, a list of token ids, or a list of such lists"
_SEVERAL, _IDS = "several prompts at once", "prompts of token ids"
_CHARS_PER_TOKEN = 4


def parse_completion(call: Call) -> Asked:
    """Return the request that a call's body holds.

    Several prompts, and prompts of token ids, have no canonical form: who does not
    pass them on refuses them.

    Raises:
        InvalidRequestError: with ``param`` naming the member at fault.
    """
    root = Fields.of_body(call.body, wanted="with 'model' and 'prompt'")
    model = model_name(root)
    asked = _prompt(root)
    prompt = asked.text
    stream = root.flag("stream") or False
    include_usage = take_include_usage(root, stream=stream)
    batch = ExecuteBatch(
        request_id=call.request_id,
        model=model,
        messages=(Message(Role.USER, prompt),),
        prompt=prompt,
        only_passed=asked.only_passed,
        sampling=_sampling(root, asked.count),
        stream=stream,
        user=root.text("user"),
        dialect=Dialect.OPENAI_COMPLETIONS,
        extra=root.rest(),
        source=Source(Dialect.OPENAI_COMPLETIONS, call.body, model),
    )
    return Asked(batch=batch, include_usage=include_usage)


@attrs.frozen
class _Prompt:
    """What is to be continued.

    Attributes:
        text: all of it; of token ids something as long.
        count: how many prompts it is.
        only_passed: what cannot be written anew; None: it can be.
    """

    text: str
    count: int = 1
    only_passed: str | None = None


def _prompt(root: Fields) -> _Prompt:
    raw = root.raw("prompt")
    if raw is None:
        raise invalid("prompt", "is required")
    if bytes(raw).startswith(b'"'):
        return _Prompt(decode("prompt", raw, str, wanted=_PROMPT))
    given = decode("prompt", raw, list[str | int | list[int]], wanted=_PROMPT)
    if not given:
        raise invalid("prompt", "must not be empty")
    if all(isinstance(each, int) for each in given):
        return _Prompt(_as_long_as(given), only_passed=_IDS)
    if len(given) > _MAX_PROMPTS:
        raise invalid("prompt", f"must be at most {_MAX_PROMPTS} prompts")
    texts = [each for each in given if isinstance(each, str)]
    if len(texts) == len(given):
        several = None if len(texts) == 1 else _SEVERAL
        return _Prompt("".join(texts), len(texts), several)
    ids = [each for each in given if isinstance(each, list)]
    if len(ids) != len(given):
        raise invalid("prompt", f"must be {_PROMPT}")
    return _Prompt("".join(map(_as_long_as, ids)), len(ids), _IDS)


def _as_long_as(ids: Sequence[object]) -> str:
    return " " * (_CHARS_PER_TOKEN * len(ids))


def _sampling(root: Fields, prompts: int) -> Sampling:
    n = root.whole("n", 1, _MAX_N) or 1
    return Sampling(
        temperature=root.number("temperature", 0, 2),
        top_p=root.number("top_p", 0, 1),
        top_k=root.whole("top_k", -1, 2**31),
        max_tokens=root.whole("max_tokens", 1, 2**31),
        stop=take_stop(root),
        seed=root.whole("seed", *SEEDS),
        presence_penalty=root.number("presence_penalty", -2, 2),
        frequency_penalty=root.number("frequency_penalty", -2, 2),
        n=n * prompts,  # so many answers come
        top_logprobs=root.whole("logprobs", 0, _MAX_LOGPROBS),
    )


class CompletionsIngress(OpenAIErrors, ReadWhole):
    """``POST /v1/completions``."""

    dialect = Dialect.OPENAI_COMPLETIONS
    keepalive = KEEPALIVE

    def parse(self, call: Call) -> Asked:
        """Read a request; see :func:`parse_completion`."""
        return parse_completion(call)

    def stream(self, asked: Asked, facts: AnswerFacts) -> CompletionStreamEncoder:
        """Begin a streamed answer."""
        return CompletionStreamEncoder(facts, include_usage=asked.include_usage)

    def whole(self, asked: Asked, facts: AnswerFacts) -> CompletionBuilder:
        """Begin an answer that is not streamed."""
        del asked
        return CompletionBuilder(facts)


def _head(facts: AnswerFacts) -> dict[str, object]:
    return {
        "id": f"cmpl-{facts.request_id}",
        "object": "text_completion",
        "created": facts.created_s,
        "model": facts.model,
    }


class CompletionStreamEncoder:
    """Encodes one streamed answer; feed it every chunk in order."""

    def __init__(self, facts: AnswerFacts, *, include_usage: bool) -> None:
        self._head = _head(facts)
        self._include_usage = include_usage
        self._finished: set[int] = set()
        self._offsets: dict[int, int] = {}
        self._usage: Usage | None = None

    def encode(self, chunk: TokenChunk) -> bytes:
        """Return the event for a chunk; b"" for none.

        Thoughts and tool calls have no place in bare text.
        """
        self._usage = chunk.usage or self._usage
        said = chunk.text or chunk.logprobs or chunk.finish_reason
        if not said or chunk.index in self._finished:
            return b""
        finish = chunk.finish_reason
        if finish is not None:
            self._finished.add(chunk.index)
        offset = self._offsets.get(chunk.index, 0)
        self._offsets[chunk.index] = offset + len(chunk.text)
        choice = {
            "index": chunk.index,
            "text": chunk.text,
            "logprobs": legacy_logprobs(chunk.logprobs, offset=offset),
            "finish_reason": None if finish is None else finish.value,
        }
        return self._event([choice])

    def end(self) -> bytes:
        """Return what follows the last chunk: usage when asked, ``[DONE]``."""
        if not self._include_usage or self._usage is None:
            return _DONE
        members = {**self._head, "choices": [], "usage": usage_members(self._usage)}
        return event(_json(members)) + _DONE

    def fail(self, error: InferenceError) -> bytes:
        """Return the event that ends a broken answer, without ``[DONE]`` (W6)."""
        return event(error_body.envelope(error))

    def _event(self, choices: list[dict[str, object]]) -> bytes:
        members: dict[str, object] = {**self._head, "choices": choices}
        if self._include_usage:
            members["usage"] = None
        return event(_json(members))


class CompletionBuilder:
    """Collects the chunks of one answer into a whole ``text_completion``."""

    def __init__(self, facts: AnswerFacts) -> None:
        self._facts = facts
        self._collected = Collected()

    def add(self, chunk: TokenChunk) -> None:
        """Take the next chunk."""
        self._collected.add(chunk)

    def build(self) -> bytes:
        """Return the ``text_completion`` object as JSON."""
        usage = self._collected.usage
        choices = [
            _choice(index, self._collected.choice(index))
            for index in self._collected.indices
        ]
        members = {
            **_head(self._facts),
            "choices": choices,
            "usage": None if usage is None else usage_members(usage),
        }
        return _json(members)


def _choice(index: int, choice: Choice) -> dict[str, object]:
    finish = choice.finish_reason
    return {
        "index": index,
        "text": choice.text,
        "logprobs": legacy_logprobs(merge_logprobs(choice.logprobs), offset=0),
        "finish_reason": None if finish is None else finish.value,
    }


def legacy_logprobs(raw: RawJson | None, *, offset: int) -> dict[str, Any] | None:
    """Return a chat choice's probabilities in the older form.

    Args:
        raw: ``{"content": [{"token", "logprob", "top_logprobs"}, ...]}``; what
            is in the older form already is returned as it is.
        offset: characters of the text in front of the first token.
    """
    if raw is None:
        return None
    members = msgspec.json.decode(raw)
    if not isinstance(members, dict):
        return None
    if "tokens" in members:
        return members
    tokens = members.get("content") or []
    texts = [token.get("token", "") for token in tokens]
    return {
        "tokens": texts,
        "token_logprobs": [token.get("logprob") for token in tokens],
        "top_logprobs": [
            {top["token"]: top["logprob"] for top in token.get("top_logprobs") or ()}
            for token in tokens
        ],
        "text_offset": [
            offset + sum(map(len, texts[:before])) for before in range(len(texts))
        ],
    }
