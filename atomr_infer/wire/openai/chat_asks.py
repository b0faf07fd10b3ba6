"""Read what a chat completion request asks for besides text.

Pure.

Source: OpenAI API reference, "Create chat completion".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from atomr_infer.wire.fields import Fields, decode, invalid
from atomr_infer.wire.openai.chat_messages import cache_hint

if TYPE_CHECKING:
    from msgspec import Raw

_MODES = {mode.value: mode for mode in ToolMode}
_KINDS = {kind.value: kind for kind in FormatKind}


def parse_tools(root: Fields) -> tuple[Tool | RawTool, ...]:
    """Take the ``tools`` of a request."""
    return tuple(_tool(param, raw) for param, raw in root.items("tools", "a list"))


def _tool(param: str, raw: Raw) -> Tool | RawTool:
    fields = Fields.of(raw, param)
    kind = fields.required("type", str, "a string")
    if kind != "function":
        return RawTool(kind, bytes(raw))
    function = fields.nested("function")
    if function is None:
        raise invalid(fields.path("function"), "is required")
    return function_tool(function, cache_from=fields)


def function_tool(function: Fields, *, cache_from: Fields) -> Tool:
    """Take a function's members; ``cache_control`` may stand on it or around it."""
    name = function.required("name", str, "a string")
    if not name:
        raise invalid(function.path("name"), "must not be empty")
    parameters = function.raw("parameters")
    if parameters is not None and bytes(parameters)[:1] != b"{":
        raise invalid(function.path("parameters"), "must be a JSON Schema object")
    return Tool(
        name=name,
        description=function.text("description"),
        parameters=None if parameters is None else bytes(parameters),
        strict=function.flag("strict"),
        cache=cache_hint(function) or cache_hint(cache_from),
    )


def parse_tool_choice(root: Fields, *, hosted: bool = False) -> ToolChoice | None:
    """Take the ``tool_choice`` of a request.

    Args:
        root: the request.
        hosted: whether the provider's own tools can be named, as in a response.
    """
    raw = root.raw("tool_choice")
    if raw is None:
        return None
    param = root.path("tool_choice")
    if bytes(raw).startswith(b'"'):
        name = decode(param, raw, str, wanted="a string")
        if name not in _MODES:
            known = ", ".join(_MODES)
            raise invalid(param, f"must be one of {known} or an object, not {name!r}")
        return ToolChoice(mode=_MODES[name])
    return _named_choice(Fields.of(raw, param), hosted=hosted)


def _named_choice(fields: Fields, *, hosted: bool) -> ToolChoice:
    kind = fields.required("type", str, "a string")
    if kind == "allowed_tools":
        allowed = fields.nested("allowed_tools") or fields
        return _allowed(allowed, hosted=hosted)
    if hosted and kind not in _OURS:
        return ToolChoice(mode=ToolMode.REQUIRED, hosted=(kind,))
    if kind not in _OURS:
        raise invalid(fields.path("type"), f"{kind!r} is not supported; use 'function'")
    function = fields.nested(kind) or fields
    name = function.required("name", str, "a string")
    return ToolChoice(mode=ToolMode.REQUIRED, names=(name,))


def _allowed(fields: Fields, *, hosted: bool) -> ToolChoice:
    mode = fields.text("mode") or "auto"
    if mode not in _MODES:
        raise invalid(fields.path("mode"), f"must be auto or required, not {mode!r}")
    names, kinds = [], []
    for param, raw in fields.items("tools", "a list of tools"):
        tool = Fields.of(raw, param)
        kind = tool.text("type") or "function"
        if hosted and kind not in _OURS:
            kinds.append(kind)
            continue
        function = tool.nested("function") or tool
        names.append(function.required("name", str, "a string"))
    return ToolChoice(mode=_MODES[mode], names=tuple(names), hosted=tuple(kinds))


_OURS = ("function", "custom")
"""The kinds of tools that a client runs."""


def parse_response_format(root: Fields) -> ResponseFormat | None:
    """Take the ``response_format`` of a request."""
    fields = root.nested("response_format")
    if fields is None:
        return None
    kind = fields.required("type", str, "a string")
    if kind not in _KINDS:
        known = ", ".join(_KINDS)
        raise invalid(fields.path("type"), f"must be one of {known}, not {kind!r}")
    if kind != FormatKind.JSON_SCHEMA.value:
        return ResponseFormat(kind=_KINDS[kind])
    inner = fields.nested("json_schema")
    if inner is None:
        raise invalid(fields.path("json_schema"), "is required")
    return json_schema_format(inner)


def json_schema_format(fields: Fields) -> ResponseFormat:
    """Take the members of a schema format: name, schema, strict."""
    schema = fields.raw("schema")
    if schema is None or bytes(schema)[:1] != b"{":
        raise invalid(fields.path("schema"), "must be a JSON Schema object")
    return ResponseFormat(
        kind=FormatKind.JSON_SCHEMA,
        schema=bytes(schema),
        name=fields.text("name"),
        description=fields.text("description"),
        strict=fields.flag("strict"),
    )


def parse_reasoning(root: Fields) -> Reasoning | None:
    """Take the ``reasoning_effort`` of a request."""
    effort = root.text("reasoning_effort")
    return None if effort is None else Reasoning(effort=effort_of(root, effort))


def effort_of(root: Fields, name: str, member: str = "reasoning_effort") -> Effort:
    """Return the effort of that name.

    Raises:
        InvalidRequestError: there is none.
    """
    try:
        return Effort(name)
    except ValueError as error:
        known = ", ".join(effort.value for effort in Effort)
        problem = f"must be one of {known}, not {name!r}"
        raise invalid(root.path(member), problem) from error
