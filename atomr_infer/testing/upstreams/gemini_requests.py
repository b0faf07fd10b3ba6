"""What Gemini accepts, and what it says of the rest.

Pure.

Source: the Gemini API's reference, and the words of its errors.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs

from atomr_infer.testing.upstreams.call import Call, Members, Operation
from atomr_infer.testing.upstreams.checks import Invalid, is_count, is_number, objects
from atomr_infer.testing.upstreams.gemini_fields import read_message, snake
from atomr_infer.testing.upstreams.gemini_turns import check_turns, media_of, words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_CONFIG = "* GenerateContentRequest.generation_config"
_RANGES = {
    "temperature": (0, 2),
    "topP": (0, 1),
    "presencePenalty": (-2, 2),
    "frequencyPenalty": (-2, 2),
}
_MOST_STOPS = 5
_MOST_CANDIDATES = 8
_FUNCTION_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}")
_MODES = ("AUTO", "ANY", "NONE", "VALIDATED", "MODE_UNSPECIFIED")


def read_call(
    method: str, members: Members, *, model: str, vertex: bool, sse: bool
) -> Call:
    """Return the call that a body's members are.

    Args:
        method: behind the colon of the path.
        members: of the body.
        model: as the path says it.
        vertex: whether the path is one of Vertex's.
        sse: whether ``alt=sse`` was asked for.

    Raises:
        Invalid: as Google says it.
        KeyError: there is no such method.
    """
    call = METHODS[method](members, model, vertex)
    if method != "streamGenerateContent":
        return call
    return attrs.evolve(call, stream=True, route="events" if sse else "array")


def _generate(members: Members, model: str, vertex: bool) -> Call:  # noqa: FBT001
    request = read_message(members, "GenerateContentRequest")
    turns = request.get("contents") or []
    config = request.get("generationConfig") or {}
    check_turns(turns, model=model, vertex=vertex)
    _check_tools(request)
    _check_config(config)
    return Call(
        route="generateContent",
        model=model,
        members=request,
        n=config.get("candidateCount") or 1,
        max_tokens=config.get("maxOutputTokens"),
        stop=tuple(config.get("stopSequences") or ()),
        prompt_tokens=words_of([*_system(request), *turns]),
        media=tuple(media_of(turns)),
        schema=_schema(config),
        top_logprobs=_top_logprobs(config),
        reasoning=bool((config.get("thinkingConfig") or {}).get("includeThoughts")),
    )


def _count(members: Members, model: str, vertex: bool) -> Call:  # noqa: FBT001
    request = read_message(members, "CountTokensRequest")
    inner = request.get("generateContentRequest", request)
    turns = inner.get("contents") or []
    check_turns(turns, model="", vertex=vertex)
    return Call(
        operation=Operation.COUNT,
        route="countTokens",
        model=model,
        members=request,
        prompt_tokens=words_of([*_system(inner), *turns]),
        media=tuple(media_of(turns)),
    )


def _embed(members: Members, model: str, _: bool) -> Call:  # noqa: FBT001
    request = read_message(members, "EmbedContentRequest")
    return _embedding_call("embedContent", model, [request])


def _embed_batch(members: Members, model: str, _: bool) -> Call:  # noqa: FBT001
    batch = read_message(members, "BatchEmbedContentsRequest")
    requests = batch.get("requests") or []
    for number, request in enumerate(requests):
        if request.get("model") != f"models/{model}":
            raise Invalid(
                f"* BatchEmbedContentsRequest.requests[{number}].model: the model must"
                f" match the one in the path: models/{model}\n"
            )
    return _embedding_call("batchEmbedContents", model, requests)


def _predict(members: Members, model: str, _: bool) -> Call:  # noqa: FBT001
    batch = read_message(members, "PredictRequest")
    size = (batch.get("parameters") or {}).get("outputDimensionality")
    requests = [
        {
            "content": {"parts": [{"text": instance.get("content", "")}]},
            "outputDimensionality": size,
        }
        for instance in objects(batch.get("instances"))
    ]
    return _embedding_call("predict", model, requests)


def _embedding_call(route: str, model: str, requests: Sequence[Members]) -> Call:
    if not requests or any("content" not in request for request in requests):
        raise Invalid("* EmbedContentRequest.content: contents is not specified\n")
    return Call(
        operation=Operation.EMBED,
        route=route,
        model=model,
        members={"requests": requests},
        prompt_tokens=sum(words_of([request["content"]]) for request in requests),
    )


METHODS: Mapping[str, Callable[[Members, str, bool], Call]] = {
    "generateContent": _generate,
    "streamGenerateContent": _generate,
    "countTokens": _count,
    "embedContent": _embed,
    "batchEmbedContents": _embed_batch,
    "predict": _predict,
}


# --- generationConfig -------------------------------------------------------


def _check_config(config: Members) -> None:
    for name, (low, high) in _RANGES.items():
        if name in config:
            _check_range(name, config[name], low=low, high=high)
    for name, most in (
        ("maxOutputTokens", None),
        ("candidateCount", _MOST_CANDIDATES),
        ("topK", None),
    ):
        value = config.get(name)
        if value is not None and (not is_count(value) or (most and value > most)):
            bound = f"in the range [1, {most}]" if most else "positive"
            raise Invalid(f"{_CONFIG}.{snake(name)}: {snake(name)} must be {bound}.\n")
    stops = config.get("stopSequences") or []
    if not isinstance(stops, list) or not all(isinstance(s, str) for s in stops):
        raise Invalid(
            "Invalid value at 'generation_config.stop_sequences' (TYPE_STRING)"
        )
    if len(stops) > _MOST_STOPS:
        raise Invalid(
            f"{_CONFIG}.stop_sequences: must have at most {_MOST_STOPS} elements.\n"
        )
    thinking = config.get("thinkingConfig") or {}
    if "thinkingBudget" in thinking and "thinkingLevel" in thinking:
        raise Invalid(
            "You can only set only one of thinking budget and thinking level."
        )


def _check_range(name: str, value: object, *, low: int, high: int) -> None:
    if not isinstance(value, int | float) or not is_number(value):
        raise Invalid(
            f"Invalid value at 'generation_config.{snake(name)}' (TYPE_FLOAT),"
            f' "{value}"'
        )
    if not low <= value <= high:
        raise Invalid(
            f"{_CONFIG}.{snake(name)}: {snake(name)} must be in the range"
            f" [{low:.1f}, {high:.1f}].\n"
        )


def _schema(config: Members) -> Members | None:
    schema: Members | None = config.get("responseJsonSchema")
    if schema is None:
        schema = config.get("responseSchema")
    wants_json = config.get("responseMimeType") in {"application/json", "text/x.enum"}
    if schema is not None and not wants_json:
        raise Invalid(
            f"{_CONFIG}.response_schema: only allowed with response_mime_type"
            " 'application/json'.\n"
        )
    return {"type": "object"} if wants_json and schema is None else schema


def _top_logprobs(config: Members) -> int | None:
    if not config.get("responseLogprobs"):
        if "logprobs" in config:
            raise Invalid(f"{_CONFIG}.logprobs: only allowed with response_logprobs.\n")
        return None
    return int(config.get("logprobs") or 0)


# --- tools ------------------------------------------------------------------


def _check_tools(request: Members) -> None:
    names = [
        str(function.get("name", ""))
        for tool in request.get("tools") or ()
        for function in tool.get("functionDeclarations") or ()
    ]
    for number, name in enumerate(names):
        if not _FUNCTION_NAME.fullmatch(name):
            raise Invalid(
                "* GenerateContentRequest.tools[0].function_declarations"
                f"[{number}].name: Invalid function name. Must start with a letter or"
                " an underscore.\n"
            )
    if len(set(names)) < len(names):
        raise Invalid("Duplicate function declaration found")
    choice = (request.get("toolConfig") or {}).get("functionCallingConfig") or {}
    mode = choice.get("mode", "AUTO")
    if mode not in _MODES:
        raise Invalid(
            f"Invalid value at 'tool_config.function_calling_config.mode', \"{mode}\""
        )
    allowed = choice.get("allowedFunctionNames") or []
    if allowed and mode not in ("ANY", "VALIDATED"):
        raise Invalid("Allowed function names can only be set when mode is ANY.")
    if not set(allowed) <= set(names):
        raise Invalid("allowed_function_names must be declared functions")


def _system(request: Members) -> list[Mapping[str, Any]]:
    system = request.get("systemInstruction")
    return [] if system is None else [system]
