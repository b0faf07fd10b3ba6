"""vLLM's outputs by their shape, for tests without vLLM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from atomr_infer_vllm import answer


@attrs.define
class Logprob:
    logprob: float
    decoded_token: str | None


@attrs.define
class Completion:
    text: str
    token_ids: Sequence[int] = ()
    index: int = 0
    logprobs: Sequence[Mapping[int, answer.Logprob]] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@attrs.define
class Output:
    outputs: Sequence[Completion]
    finished: bool = False
    num_cached_tokens: int | None = None
    prompt_token_ids: Sequence[int] | None = None
