"""Read ``tools``, ``toolConfig`` and ``generationConfig``.

What is not modelled stays raw in ``extra``, under the member that it was in, so
that a Gemini upstream gets it back in its place.

Pure.

Source: Gemini API reference, "GenerationConfig", "Tool" and "ToolConfig".
"""

from __future__ import annotations

import attrs
import msgspec
from msgspec import Raw

from atomr_infer.model.asks import (
    Effort,
    FormatKind,
    RawTool,
    Reasoning,
    ResponseFormat,
    Tool,
    ToolChoice,
    ToolMode,
)
from atomr_infer.model.batch import RawJson, Sampling
from atomr_infer.wire.fields import Fields, invalid
from atomr_infer.wire.gemini.members import fields_of, nested
from atomr_infer.wire.gemini.schema import json_schema

_MAX_TOKENS = 2**31 - 1
_MAX_CANDIDATES = 8
_MAX_LOGPROBS = 20
_INT32 = 2**31

JSON = "application/json"

# --- tools ------------------------------------------------------------------


def tools(fields: Fields) -> tuple[tuple[Tool | RawTool, ...], list[str]]:
    """Take the tools; also return the members that were dropped.

    One item of Google's list may hold several functions and several tools of
    the provider's own; each becomes one of its own.

    Raises:
        InvalidRequestError: ``param`` names the member at fault.
    """
    found: list[Tool | RawTool] = []
    dropped: list[str] = []
    for place, raw in fields.items("tools", "a list of tools"):
        item = fields_of(raw, place)
        for where, declared in item.items("functionDeclarations", "a list"):
            function = fields_of(declared, where)
            found.append(_function(function))
            dropped += [function.path(name) for name in function.rest()]
        for kind, value in item.rest().items():
            json = msgspec.json.encode({kind: Raw(value)})
            found.append(RawTool(kind, json))
    return tuple(found), dropped


def _function(fields: Fields) -> Tool:
    name = fields.required("name", str, "a string")
    if not name:
        raise invalid(fields.path("name"), "must not be empty")
    return Tool(
        name=name,
        description=fields.text("description"),
        parameters=_schema(fields, "parameters", "parametersJsonSchema"),
    )


def _schema(fields: Fields, older: str, newer: str) -> RawJson | None:
    """Take a schema that may come in either spelling."""
    openapi, standard = fields.raw(older), fields.raw(newer)
    if openapi is not None and standard is not None:
        raise invalid(fields.path(newer), f"must not be given beside {older!r}")
    if openapi is not None:
        return json_schema(bytes(openapi), fields.path(older))
    if standard is None:
        return None
    if not bytes(standard).startswith(b"{"):
        raise invalid(fields.path(newer), "must be a schema: an object")
    return bytes(standard)


_MODES = {
    "AUTO": ToolMode.AUTO,
    "ANY": ToolMode.REQUIRED,
    "NONE": ToolMode.NONE,
    # It constrains how a call is written and not whether one is made.
    "VALIDATED": ToolMode.AUTO,
    "MODE_UNSPECIFIED": ToolMode.AUTO,
}


def tool_choice(fields: Fields) -> ToolChoice | None:
    """Take how tools are chosen; the rest of ``toolConfig`` is put back."""
    config = nested(fields, "toolConfig")
    if config is None:
        return None
    calling = nested(config, "functionCallingConfig")
    choice = None if calling is None else _choice(calling)
    if calling is not None and calling.rest():
        config.put_raw("functionCallingConfig", calling.rest())
    if config.rest():
        fields.put_raw("toolConfig", config.rest())
    return choice


def _choice(fields: Fields) -> ToolChoice:
    told = (fields.text("mode") or "AUTO").upper()
    mode = _MODES.get(told)
    if mode is None:
        raise invalid(fields.path("mode"), f"must be AUTO, ANY or NONE, not {told!r}")
    wanted = "a list of strings"
    names = fields.optional("allowedFunctionNames", list[str], wanted) or []
    if told == "VALIDATED":
        fields.put("mode", told)
        if names:
            fields.put("allowedFunctionNames", names)
    return ToolChoice(mode=mode, names=tuple(names))


# --- generationConfig -------------------------------------------------------


@attrs.frozen(kw_only=True)
class Config:
    """What ``generationConfig`` asks for."""

    sampling: Sampling = attrs.field(factory=Sampling)
    response_format: ResponseFormat | None = None
    reasoning: Reasoning | None = None


def generation_config(fields: Fields) -> Config:
    """Take ``generationConfig``; what is not modelled in it is put back.

    Raises:
        InvalidRequestError: ``param`` names the member at fault.
    """
    config = nested(fields, "generationConfig")
    if config is None:
        return Config()
    read = Config(
        sampling=_sampling(config),
        response_format=_response_format(config),
        reasoning=_reasoning(config),
    )
    if config.rest():
        fields.put_raw("generationConfig", config.rest())
    return read


def _sampling(fields: Fields) -> Sampling:
    return Sampling(
        temperature=fields.number("temperature", 0, 2),
        top_p=fields.number("topP", 0, 1),
        top_k=_top_k(fields),
        max_tokens=fields.whole("maxOutputTokens", 1, _MAX_TOKENS),
        stop=_stop(fields),
        seed=fields.whole("seed", -_INT32, _INT32 - 1),
        presence_penalty=fields.number("presencePenalty", -2, 2),
        frequency_penalty=fields.number("frequencyPenalty", -2, 2),
        n=fields.whole("candidateCount", 1, _MAX_CANDIDATES) or 1,
        top_logprobs=_top_logprobs(fields),
    )


def _top_k(fields: Fields) -> int | None:
    """Take a count that the API has as a float, as it once was one."""
    top_k = fields.number("topK", 0, _MAX_TOKENS)
    if top_k is not None and not top_k.is_integer():
        raise invalid(fields.path("topK"), f"must be a whole number, not {top_k:g}")
    return None if top_k is None else int(top_k)


def _stop(fields: Fields) -> tuple[str, ...]:
    stops = fields.optional("stopSequences", list[str], "a list of strings") or []
    if not all(stops):
        raise invalid(fields.path("stopSequences"), "must not contain an empty string")
    return tuple(stops)


def _top_logprobs(fields: Fields) -> int | None:
    wanted = fields.flag("responseLogprobs")
    count = fields.whole("logprobs", 0, _MAX_LOGPROBS)
    if count is not None and not wanted:
        problem = "is only allowed when 'responseLogprobs' is true"
        raise invalid(fields.path("logprobs"), problem)
    return (count or 0) if wanted else None


def _response_format(fields: Fields) -> ResponseFormat | None:
    media_type = fields.text("responseMimeType")
    schema = _schema(fields, "responseSchema", "responseJsonSchema")
    if schema is not None and media_type not in {JSON, "text/x.enum"}:
        problem = f"needs 'responseMimeType' to be {JSON!r}"
        raise invalid(fields.path("responseSchema"), problem)
    if media_type in {None, "text/plain"}:
        return None
    if media_type != JSON:
        # An enum's bare word is no JSON: only a Gemini upstream has this form.
        fields.put("responseMimeType", media_type)
        if schema is not None:
            fields.put("responseJsonSchema", Raw(schema))
        return None
    if schema is None:
        return ResponseFormat(kind=FormatKind.JSON_OBJECT)
    return ResponseFormat(kind=FormatKind.JSON_SCHEMA, schema=schema)


_LEVELS = {
    "MINIMAL": Effort.MINIMAL,
    "LOW": Effort.LOW,
    "MEDIUM": Effort.MEDIUM,
    "HIGH": Effort.HIGH,
    "XHIGH": Effort.XHIGH,
    "THINKING_LEVEL_UNSPECIFIED": None,
}


def _reasoning(fields: Fields) -> Reasoning | None:
    config = nested(fields, "thinkingConfig")
    if config is None:
        return None
    level = config.text("thinkingLevel")
    if level is not None and level.upper() not in _LEVELS:
        known = ", ".join(word for word, effort in _LEVELS.items() if effort)
        raise invalid(config.path("thinkingLevel"), f"must be one of {known}")
    read = Reasoning(
        effort=None if level is None else _LEVELS[level.upper()],
        budget_tokens=config.whole("thinkingBudget", -1, _MAX_TOKENS),
        include=config.flag("includeThoughts"),
    )
    if config.rest():
        fields.put_raw("thinkingConfig", config.rest())
    return read
