"""Requests to the arguments of vLLM's ``SamplingParams``.

Pure: the arguments come out as mappings, so that nothing here imports vLLM.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from atomr_infer.errors import ContextLengthError, InvalidRequestError
from atomr_infer.model.asks import FormatKind
from atomr_infer.model.capabilities import BOOKKEEPING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.parts import RawJson
    from atomr_infer.runtimes.decoding.tools import Forced

MAX_TOP_LOGPROBS = 20

EXTRA = (
    "min_p",
    "repetition_penalty",
    "min_tokens",
    "ignore_eos",
    "stop_token_ids",
    "logit_bias",
    "bad_words",
    "allowed_token_ids",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "include_stop_str_in_output",
    "thinking_token_budget",
)
"""Members of a request that are vLLM's own, and what it calls them too."""

STRUCTURED = {
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
}
"""The same for what constrains an answer's text."""


@attrs.frozen(kw_only=True)
class Asked:
    """A request in vLLM's terms.

    Attributes:
        arguments: of ``SamplingParams``, the model's own defaults beside.
        structured: of ``StructuredOutputsParams``; empty: the text is free.
        ignored: members of the request that have no effect.
    """

    arguments: dict[str, Any]
    structured: dict[str, Any]
    ignored: tuple[str, ...] = ()


def asked_of(
    batch: ExecuteBatch,
    *,
    prompt_tokens: int,
    context_tokens: int,
    defaults: Mapping[str, Any],
    forced: Forced | None,
) -> Asked:
    """Return how a request is sampled.

    Args:
        batch: the request.
        prompt_tokens: how many its prompt has.
        context_tokens: prompt and answer together.
        defaults: the sampling that the model's makers advise.
        forced: the tool calls that the answer must be.

    Raises:
        ContextLengthError: the prompt leaves no room.
        InvalidRequestError: a value is not allowed.
    """
    room = context_tokens - prompt_tokens
    if room < 1:
        raise ContextLengthError(
            f"the prompt has {prompt_tokens} tokens, and the model's context is "
            f"{context_tokens} with the answer",
            code="context_length_exceeded",
            param="messages",
        )
    extra, structured, ignored = _extra(batch.extra)
    arguments = {**defaults, **_sampling(batch, room), **extra}
    structured |= _form(batch)
    if forced is not None:
        structured = {"json": forced.schema}
        # A call that is cut is none, and there is no text for them to end.
        arguments |= {"stop": []}
        arguments.pop("stop_token_ids", None)
    return Asked(arguments=arguments, structured=structured, ignored=ignored)


def _sampling(batch: ExecuteBatch, room: int) -> dict[str, Any]:
    asked = batch.sampling
    most = asked.max_tokens
    if most is not None and most < 1:
        raise InvalidRequestError(
            f"max_tokens is {most}; it must be at least 1", param="max_tokens"
        )
    if asked.top_logprobs is not None and asked.top_logprobs > MAX_TOP_LOGPROBS:
        raise InvalidRequestError(
            f"top_logprobs is {asked.top_logprobs}; it must be at most "
            f"{MAX_TOP_LOGPROBS}",
            param="top_logprobs",
        )
    said = {
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "top_k": asked.top_k,
        "presence_penalty": asked.presence_penalty,
        "frequency_penalty": asked.frequency_penalty,
        "logprobs": asked.top_logprobs,
        # Any whole number is a seed to others; vLLM wants one of 64 bits.
        "seed": None if asked.seed is None else asked.seed & (2**63 - 1),
    }
    arguments: dict[str, Any] = {k: v for k, v in said.items() if v is not None}
    arguments |= {
        "n": asked.n,
        "max_tokens": room if most is None else min(most, room),
        "stop": list(asked.stop),
    }
    if asked.n > 1 and asked.temperature == 0:
        # vLLM refuses several greedy answers, which are equal; this is the same.
        arguments |= {"temperature": 1.0, "top_k": 1}
    return arguments


def _form(batch: ExecuteBatch) -> dict[str, Any]:
    form = batch.response_format
    if form is None or form.kind is FormatKind.TEXT:
        return {}
    if form.kind is FormatKind.JSON_OBJECT:
        return {"json_object": True}
    if form.schema is None:
        raise InvalidRequestError("the schema is missing", param="response_format")
    return {"json": _decoded("response_format", form.schema)}


def _extra(
    extra: Mapping[str, RawJson],
) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
    arguments: dict[str, Any] = {}
    structured: dict[str, Any] = {}
    ignored: list[str] = []
    for name, raw in extra.items():
        if name in BOOKKEEPING or bytes(raw) == b"null":
            continue
        if name in EXTRA:
            arguments[name] = _decoded(name, raw)
        elif name in STRUCTURED:
            structured[STRUCTURED[name]] = _decoded(name, raw)
        else:
            near = difflib.get_close_matches(name, (*EXTRA, *STRUCTURED), n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            ignored.append(f"{name} was ignored{hint}")
    if "logit_bias" in arguments:
        arguments["logit_bias"] = _biases(arguments["logit_bias"])
    return arguments, structured, tuple(ignored)


def _biases(value: object) -> dict[int, float]:
    try:
        # JSON's names are texts, and vLLM's are tokens.
        return msgspec.convert(value, dict[int, float], strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(
            f"logit_bias is no table of tokens: {error}", param="logit_bias"
        ) from error


def _decoded(name: str, raw: RawJson) -> Any:  # noqa: ANN401  JSON
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise InvalidRequestError(f"{name} is no JSON: {error}", param=name) from error
