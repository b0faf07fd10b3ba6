"""vLLM's outputs to chunks.

An output is what is new since the last one, of one or of all ``n`` answers.  A
token that ends an answer is no part of it and is not counted, as with the other
runtimes; those of a stop string are.

Pure: outputs are taken by their shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from atomr_infer.errors import EngineError
from atomr_infer.model.batch import FinishReason, TokenChunk, ToolCallDelta, Usage
from atomr_infer.model.usage import split_total
from atomr_infer.runtimes.decoding.tools import calls_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from atomr_infer.runtimes.decoding.tools import Forced
    from atomr_infer_vllm.parsing import CallParser

_LEAST = -9999.0
"""What OpenAI writes for a token that was impossible; JSON has no infinity."""

_FINISH = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}


class Logprob(Protocol):
    """vLLM's ``Logprob``."""

    logprob: float
    decoded_token: str | None


class Completion(Protocol):
    """vLLM's ``CompletionOutput``, of which this is new."""

    index: int
    text: str
    token_ids: Sequence[int]
    logprobs: Sequence[Mapping[int, Logprob]] | None
    finish_reason: str | None
    stop_reason: int | str | None


class Output(Protocol):
    """vLLM's ``RequestOutput``."""

    prompt_token_ids: Sequence[int] | None
    num_cached_tokens: int | None
    finished: bool

    @property
    def outputs(self) -> Sequence[Completion]:
        """What is new of each answer."""
        ...


class Answer:
    """One generation's chunks.

    Args:
        request_id: what the ids of tool calls begin with.
        prompt_tokens: how many the prompt has.
        top_logprobs: alternatives that are told for each token.
        forced: the tool calls that each answer must be.
        parsers: what finds tool calls in each answer; none: nothing does.
        warnings: what the first chunk says.
    """

    def __init__(
        self,
        request_id: str,
        prompt_tokens: int,
        *,
        top_logprobs: int = 0,
        forced: Forced | None = None,
        parsers: Sequence[CallParser] = (),
        warnings: tuple[str, ...] = (),
    ) -> None:
        self._id = request_id
        self._prompt_tokens = prompt_tokens
        self._top_logprobs = top_logprobs
        self._forced = forced
        self._parsers = parsers
        self._warnings = warnings
        self._made = 0
        self._cached = 0
        self._texts: dict[int, list[str]] = {}

    def take(self, output: Output) -> list[TokenChunk]:
        """Return the chunks of an output; the last one's has the usage.

        Raises:
            EngineError: the engine ended an answer for a reason of its own.
        """
        self._cached = max(self._cached, output.num_cached_tokens or 0)
        chunks = []
        for completion in output.outputs:
            chunk = self._chunk(completion)
            if chunk is not None:
                chunks.append(chunk)
        if output.finished:
            chunks.append(TokenChunk(usage=self._usage()))
        return chunks

    def _chunk(self, completion: Completion) -> TokenChunk | None:
        finish = _finish(completion)
        ended = finish is FinishReason.STOP and _ends_with_a_token(completion)
        self._made += len(completion.token_ids) - ended
        text, calls = self._said(completion, finish)
        if finish is FinishReason.STOP and self._called(completion.index):
            finish = FinishReason.TOOL_CALLS
        logprobs = _logprobs(completion, self._top_logprobs, ended=ended)
        if not (text or calls or finish or logprobs):
            return None  # held back: half a character, or what may be a stop string
        warnings, self._warnings = self._warnings, ()
        stop = completion.stop_reason
        return TokenChunk(
            text=text,
            index=completion.index,
            tool_calls=calls,
            finish_reason=finish,
            logprobs=logprobs,
            stop_sequence=stop if isinstance(stop, str) else None,
            warnings=warnings,
        )

    # --- tools ------------------------------------------------------------------

    def _said(
        self, completion: Completion, finish: FinishReason | None
    ) -> tuple[str, tuple[ToolCallDelta, ...]]:
        if self._forced is not None:
            return "", self._forced_calls(completion, self._forced, finish)
        if self._parsers:
            parser = self._parsers[completion.index]
            return parser.take(
                completion.text, completion.token_ids, finished=finish is not None
            )
        return completion.text, ()

    def _forced_calls(
        self, completion: Completion, forced: Forced, finish: FinishReason | None
    ) -> tuple[ToolCallDelta, ...]:
        index = completion.index
        said = self._texts.setdefault(index, [])
        is_first = not said
        said.append(completion.text)
        ids = f"call-{self._id}-{index}"
        if forced.name is not None:
            first = (f"{ids}-0", forced.name) if is_first else (None, None)
            if not completion.text and not is_first:
                return ()
            return (
                ToolCallDelta(id=first[0], name=first[1], arguments=completion.text),
            )
        # Of a text that was cut, no call is known to be whole.
        return calls_in("".join(said), ids) if finish is FinishReason.STOP else ()

    def _called(self, index: int) -> bool:
        if self._parsers:
            return self._parsers[index].has_called
        return self._forced is not None

    # --- numbers ----------------------------------------------------------------

    def _usage(self) -> Usage:
        uncached, cached = split_total(self._prompt_tokens, (self._cached,))
        return Usage(input_uncached=uncached, cache_read=cached, output_text=self._made)


def _finish(completion: Completion) -> FinishReason | None:
    reason = completion.finish_reason
    if reason is None:
        return None
    if reason not in _FINISH:
        raise EngineError(f"vLLM ended the answer: {reason}")
    return _FINISH[reason]


def _ends_with_a_token(completion: Completion) -> bool:
    return bool(completion.token_ids) and not isinstance(completion.stop_reason, str)


def _logprobs(completion: Completion, top: int, *, ended: bool) -> bytes | None:
    tokens = completion.token_ids[:-1] if ended else completion.token_ids
    if completion.logprobs is None or not tokens:
        return None
    told = [
        _told(token, table, top)
        for token, table in zip(tokens, completion.logprobs, strict=False)
    ]
    return msgspec.json.encode({"content": told, "refusal": None})


def _told(token: int, table: Mapping[int, Logprob], top: int) -> dict[str, Any]:
    report = _report(table[token])
    # vLLM adds the token that was taken where it is not among the likeliest.
    others = sorted(table.values(), key=lambda logprob: -logprob.logprob)
    return {**report, "top_logprobs": [_report(o) for o in others[:top]]}


def _report(logprob: Logprob) -> dict[str, Any]:
    text = logprob.decoded_token or ""
    # A part of a character has no text of its own.
    whole = "\ufffd" not in text
    return {
        "token": text,
        "logprob": max(logprob.logprob, _LEAST),
        "bytes": list(text.encode()) if whole else None,
    }
