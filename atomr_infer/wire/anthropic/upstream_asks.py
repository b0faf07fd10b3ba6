"""Write what a request asks for besides text: tools, thinking, a format.

Pure.

Source: Anthropic API, "Tool use", "Thinking", "Effort", "Structured outputs".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import msgspec

from atomr_infer.errors import UnsupportedFeatureError
from atomr_infer.model.asks import (
    Effort,
    FormatKind,
    RawTool,
    Reasoning,
    Tool,
    ToolChoice,
    ToolMode,
)
from atomr_infer.model.capabilities import ThinkingStyle
from atomr_infer.model.dialect import Dialect
from atomr_infer.wire.anthropic.schema import closed_schema
from atomr_infer.wire.anthropic.traits import ThinkingOff
from atomr_infer.wire.anthropic.upstream_turns import cache_control
from atomr_infer.wire.in_words import json_in_words

if TYPE_CHECKING:
    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.wire.anthropic.traits import ModelTraits

JSON_TOOL = "json_answer"
"""The tool by which a model without structured output is made to write JSON."""

_MIN_BUDGET = 1024  # the API's

_ORDER = tuple(Effort)
_BUDGETS = {
    Effort.MINIMAL: 1024,
    Effort.LOW: 2048,
    Effort.MEDIUM: 8192,
    Effort.HIGH: 16384,
    Effort.XHIGH: 24576,
    Effort.MAX: 32768,
}
_DEFAULT_BUDGET = _BUDGETS[Effort.MEDIUM]

_EMPTY_SCHEMA = msgspec.Raw(b'{"type":"object","properties":{}}')

_encode = msgspec.json.Encoder().encode


# --- tools ----------------------------------------------------------------------


def tool_members(batch: ExecuteBatch, traits: ModelTraits) -> dict[str, object]:
    """Return ``tools`` and ``tool_choice``; {} when no tool is offered.

    Raises:
        UnsupportedFeatureError: a tool is another provider's own.
    """
    choice = batch.tool_choice or ToolChoice()
    tools = [_tool(tool, batch.dialect, traits) for tool in _offered(batch, choice)]
    if not tools:
        return {}
    members: dict[str, object] = {"tools": tools}
    written = _choice(choice)
    if batch.parallel_tool_calls is False and choice.mode is not ToolMode.NONE:
        written["disable_parallel_tool_use"] = True
    if batch.tool_choice is not None or len(written) > 1:
        members["tool_choice"] = written
    return members


def _offered(batch: ExecuteBatch, choice: ToolChoice) -> list[Tool | RawTool]:
    """Return the tools that may be called: the API can name one or all."""
    if len(choice.names) < 1 or _is_one(choice):
        return list(batch.tools)
    return [
        tool
        for tool in batch.tools
        if isinstance(tool, Tool) and tool.name in choice.names
    ]


def _is_one(choice: ToolChoice) -> bool:
    return choice.mode is ToolMode.REQUIRED and len(choice.names) == 1


def _choice(choice: ToolChoice) -> dict[str, object]:
    if _is_one(choice):
        return {"type": "tool", "name": choice.names[0]}
    words = {ToolMode.AUTO: "auto", ToolMode.REQUIRED: "any", ToolMode.NONE: "none"}
    return {"type": words[choice.mode]}


def _tool(tool: Tool | RawTool, dialect: Dialect, traits: ModelTraits) -> object:
    if isinstance(tool, RawTool):
        if dialect is not Dialect.ANTHROPIC:
            raise UnsupportedFeatureError(
                f"this model does not have the tool {tool.kind!r}",
                code="unsupported_parameter",
                param="tools",
            )
        return msgspec.Raw(tool.json)
    return _own_tool(tool, traits)


def _own_tool(tool: Tool, traits: ModelTraits) -> dict[str, object]:
    members: dict[str, object] = {"name": tool.name}
    if tool.description is not None:
        members["description"] = tool.description
    members["input_schema"] = _schema(tool)
    if tool.strict and traits.json_schema:
        members["strict"] = True
    if tool.cache is not None:
        members["cache_control"] = cache_control(tool.cache)
    return members


def _schema(tool: Tool) -> msgspec.Raw:
    if tool.parameters is None:
        return _EMPTY_SCHEMA
    members = msgspec.json.decode(tool.parameters, type=dict[str, msgspec.Raw])
    if "type" in members:
        return msgspec.Raw(tool.parameters)
    return msgspec.Raw(_encode({"type": "object", **members}))


# --- a format ---------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Form:
    """How an answer's text is brought into a form.

    Attributes:
        format: ``output_config.format``; None: not said.
        tool: the tool that takes the answer as its arguments; None: there is none.
        instruction: what is said in words; "" when nothing is.
    """

    format: dict[str, object] | None = None
    tool: dict[str, object] | None = None
    instruction: str = ""


def form_of(batch: ExecuteBatch, traits: ModelTraits) -> Form:
    """Return how the answer's text gets the form that was asked for."""
    wanted = batch.response_format
    if wanted is None or wanted.kind is FormatKind.TEXT:
        return Form()
    if wanted.kind is FormatKind.JSON_OBJECT or wanted.schema is None:
        return Form(instruction=json_in_words())
    if traits.json_schema:
        schema = wanted.schema
        if batch.dialect is not Dialect.ANTHROPIC:
            schema = closed_schema(schema)
        return Form(format={"type": "json_schema", "schema": msgspec.Raw(schema)})
    if batch.tools:
        return Form(instruction=json_in_words(wanted.schema))
    description = wanted.description or "Give the answer with this tool."
    tool = Tool(name=JSON_TOOL, description=description, parameters=wanted.schema)
    return Form(tool=_own_tool(tool, traits))


# --- thinking ----------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Thinking:
    """How a model shall think.

    Attributes:
        member: ``thinking``; None: not said.
        effort: ``output_config.effort``; None: not said.
        warnings: what was approximated.
    """

    member: dict[str, object] | None = None
    effort: Effort | None = None
    warnings: tuple[str, ...] = ()

    @property
    def is_on(self) -> bool:
        """True when the request asks the model to think."""
        return self.member is not None and self.member["type"] != "disabled"


def thinking_of(
    batch: ExecuteBatch, traits: ModelTraits, *, max_tokens: int, forced: bool
) -> Thinking:
    """Return how the model shall think.

    Args:
        batch: what was asked.
        traits: what the model takes.
        max_tokens: the limit that is sent; a budget must be below it.
        forced: True when a tool must be called, which excludes thinking.
    """
    asked = batch.reasoning
    if asked is None or traits.thinking is ThinkingStyle.NONE:
        return Thinking()
    effort = _nearest(asked, traits)
    if _is_off(asked):
        return _off(traits, effort)
    if forced:
        warning = "reasoning was left out, as a tool must be called"
        return Thinking(effort=effort, warnings=(warning,))
    if _only_effort(batch, asked) and traits.efforts:
        return Thinking(effort=effort)
    if traits.thinking is ThinkingStyle.BUDGET:
        return _budget(asked, effort, max_tokens)
    if asked.include is None and batch.dialect is not Dialect.ANTHROPIC:
        # Newer models leave their thoughts out unless somebody asks, and clients of
        # other APIs are used to see them.
        asked = attrs.evolve(asked, include=True)
    return Thinking(member=_shown({"type": "adaptive"}, asked), effort=effort)


def _is_off(asked: Reasoning) -> bool:
    return asked.budget_tokens == 0 or (
        asked.effort is Effort.NONE and not asked.adaptive
    )


def _only_effort(batch: ExecuteBatch, asked: Reasoning) -> bool:
    """Whether a client of this API set an effort and left thinking as it is."""
    said_nothing = asked.budget_tokens is None and not asked.adaptive
    return batch.dialect is Dialect.ANTHROPIC and said_nothing


def _off(traits: ModelTraits, effort: Effort | None) -> Thinking:
    if traits.off is ThinkingOff.NEVER:
        warning = "this model always reasons; it was told the least effort"
        return Thinking(effort=traits.efforts[0], warnings=(warning,))
    member: dict[str, object] = {"type": "disabled"}
    return Thinking(
        member=member if traits.off is ThinkingOff.DISABLED else None, effort=effort
    )


def _shown(member: dict[str, object], asked: Reasoning) -> dict[str, object]:
    if asked.include is not None:
        member["display"] = "summarized" if asked.include else "omitted"
    return member


def _budget(asked: Reasoning, effort: Effort | None, max_tokens: int) -> Thinking:
    if max_tokens <= _MIN_BUDGET:
        warning = f"reasoning was left out: it takes more than {_MIN_BUDGET} tokens"
        return Thinking(effort=effort, warnings=(warning,))
    wanted = asked.budget_tokens
    if wanted is None or wanted < 0:
        wanted = _BUDGETS.get(asked.effort or Effort.MEDIUM, _DEFAULT_BUDGET)
        # Half of the limit is left to the answer, which a client did not know.
        wanted = min(wanted, max_tokens // 2)
    budget = max(_MIN_BUDGET, min(wanted, max_tokens - 1))
    member: dict[str, object] = {"type": "enabled", "budget_tokens": budget}
    return Thinking(member=_shown(member, asked), effort=effort)


def _nearest(asked: Reasoning, traits: ModelTraits) -> Effort | None:
    """Return the highest effort that the model takes and that is not above."""
    wanted = asked.effort
    if wanted is None and traits.thinking is ThinkingStyle.ADAPTIVE:
        wanted = _effort_of_budget(asked.budget_tokens)
    if wanted is None or wanted is Effort.NONE or not traits.efforts:
        return None
    below = [e for e in traits.efforts if _ORDER.index(e) <= _ORDER.index(wanted)]
    return below[-1] if below else traits.efforts[0]


def _effort_of_budget(budget_tokens: int | None) -> Effort | None:
    if budget_tokens is None or budget_tokens <= 0:
        return None
    for effort, budget in _BUDGETS.items():
        if budget_tokens <= budget:
            return effort
    return Effort.MAX
