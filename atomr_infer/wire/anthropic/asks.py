"""Read what a Messages request asks for besides text.

Pure.

Source: Anthropic API reference, "Create a Message".
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
from atomr_infer.wire.anthropic.blocks import Notes, cache_hint
from atomr_infer.wire.fields import Fields, invalid

if TYPE_CHECKING:
    from msgspec import Raw

_MODES = {
    "auto": ToolMode.AUTO,
    "any": ToolMode.REQUIRED,
    "tool": ToolMode.REQUIRED,
    "none": ToolMode.NONE,
}

_EFFORTS = {effort.value: effort for effort in Effort if effort != Effort.NONE}

_SHOWN = {"summarized": True, "omitted": False}


def parse_tools(root: Fields, notes: Notes) -> tuple[Tool | RawTool, ...]:
    """Take the ``tools`` of a request."""
    items = root.items("tools", "a list of tools")
    return tuple(_tool(param, raw, notes) for param, raw in items)


def _tool(param: str, raw: Raw, notes: Notes) -> Tool | RawTool:
    fields = Fields.of(raw, param)
    kind = fields.text("type") or "custom"
    if kind != "custom":
        return RawTool(kind, bytes(raw))
    name = fields.required("name", str, "a string")
    if not name:
        raise invalid(fields.path("name"), "must not be empty")
    schema = fields.raw("input_schema")
    if schema is None or bytes(schema)[:1] != b"{":
        raise invalid(fields.path("input_schema"), "must be a JSON Schema object")
    tool = Tool(
        name=name,
        description=fields.text("description"),
        parameters=bytes(schema),
        strict=fields.flag("strict"),
        cache=cache_hint(fields),
    )
    notes.drop_rest(fields)
    return tool


def parse_tool_choice(root: Fields) -> tuple[ToolChoice | None, bool | None]:
    """Take the ``tool_choice``; return it and whether one turn may call several."""
    fields = root.nested("tool_choice")
    if fields is None:
        return None, None
    kind = fields.required("type", str, "a string")
    if kind not in _MODES:
        known = ", ".join(_MODES)
        raise invalid(fields.path("type"), f"must be one of {known}, not {kind!r}")
    disabled = fields.flag("disable_parallel_tool_use")
    names = (fields.required("name", str, "a string"),) if kind == "tool" else ()
    choice = ToolChoice(mode=_MODES[kind], names=names)
    return choice, None if disabled is None else not disabled


def parse_output_config(
    root: Fields, notes: Notes
) -> tuple[Effort | None, ResponseFormat | None]:
    """Take the ``output_config``: an effort and a format."""
    fields = root.nested("output_config")
    if fields is None:
        return None, None
    effort, form = _effort(fields), _format(fields)
    notes.drop_rest(fields)
    return effort, form


def _effort(fields: Fields) -> Effort | None:
    name = fields.text("effort")
    if name is None:
        return None
    if name not in _EFFORTS:
        known = ", ".join(_EFFORTS)
        raise invalid(fields.path("effort"), f"must be one of {known}, not {name!r}")
    return _EFFORTS[name]


def _format(fields: Fields) -> ResponseFormat | None:
    form = fields.nested("format")
    if form is None:
        return None
    kind = form.required("type", str, "a string")
    if kind != FormatKind.JSON_SCHEMA.value:
        raise invalid(form.path("type"), f"must be json_schema, not {kind!r}")
    schema = form.raw("schema")
    if schema is None or bytes(schema)[:1] != b"{":
        raise invalid(form.path("schema"), "must be a JSON Schema object")
    return ResponseFormat(
        kind=FormatKind.JSON_SCHEMA, schema=bytes(schema), strict=True
    )


def parse_thinking(root: Fields, effort: Effort | None) -> Reasoning | None:
    """Take the ``thinking`` of a request, to which the effort belongs."""
    fields = root.nested("thinking")
    if fields is None:
        return None if effort is None else Reasoning(effort=effort)
    kind = fields.required("type", str, "a string")
    if kind == "disabled":
        return Reasoning(effort=effort or Effort.NONE, budget_tokens=0)
    shown = _display(fields)
    if kind == "enabled":
        budget = fields.whole("budget_tokens", 1, 2**31)
        if budget is None:
            raise invalid(fields.path("budget_tokens"), "is required")
        return Reasoning(effort=effort, budget_tokens=budget, include=shown)
    if kind in {"adaptive", "between_tools"}:
        return Reasoning(effort=effort, include=shown, adaptive=True)
    known = "enabled, disabled, adaptive, between_tools"
    raise invalid(fields.path("type"), f"must be one of {known}, not {kind!r}")


def _display(fields: Fields) -> bool:
    """Return whether thoughts are wanted; who asks for thinking wants to see it."""
    name = fields.text("display")
    if name is None:
        return True
    if name not in _SHOWN:
        known = ", ".join(_SHOWN)
        raise invalid(fields.path("display"), f"must be one of {known}, not {name!r}")
    return _SHOWN[name]
