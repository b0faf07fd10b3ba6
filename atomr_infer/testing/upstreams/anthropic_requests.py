"""What Anthropic accepts as a message, and what it says of the rest.

Pure.

Source: Anthropic's API reference, and the words of its errors.
"""

from __future__ import annotations

from collections.abc import Mapping

from atomr_infer.testing.upstreams import anthropic_models as models
from atomr_infer.testing.upstreams.anthropic_turns import (
    check_turns,
    media_of,
    words_of,
)
from atomr_infer.testing.upstreams.call import Call, Members, Operation
from atomr_infer.testing.upstreams.checks import Invalid, is_count, is_number, objects

OLD_VERSION = "2023-06-01"
NEW_VERSION = "2026-10-21"
VERSIONS = (OLD_VERSION, NEW_VERSION)

_SHARED = {
    "cache_control",
    "messages",
    "model",
    "output_config",
    "speed",
    "system",
    "thinking",
    "tool_choice",
    "tools",
    "user_profile_id",
    "workspace_id",
}
_COUNT_MEMBERS = frozenset(_SHARED)
_MEMBERS = frozenset(
    _SHARED
    | {
        "container",
        "diagnostics",
        "inference_geo",
        "max_tokens",
        "metadata",
        "service_tier",
        "stop_sequences",
        "stream",
        "temperature",
        "top_k",
        "top_p",
    }
)
_BETA_MEMBERS = {"context_management": "context-management-", "mcp_servers": "mcp-"}
"""Members that only a beta of such a name makes known."""

_SAMPLERS = ("temperature", "top_p", "top_k")
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_LEAST_BUDGET_TOKENS = 1024
_MOST_CACHE_BORDERS = 4


def message_call(
    members: Members, *, version: str, counting: bool, betas: str = ""
) -> Call:
    """Return the call that a body's members are.

    Args:
        members: of the body.
        version: of the API, as the request's header names it.
        counting: True for the route that only counts.
        betas: as the request's ``anthropic-beta`` names them.

    Raises:
        Invalid: as Anthropic says it.
    """
    known = _COUNT_MEMBERS if counting else _MEMBERS
    known |= {name for name, beta in _BETA_MEMBERS.items() if beta in betas}
    for name in members:
        if name not in known:
            raise Invalid(f"{name}: Extra inputs are not permitted")
    required = (
        ("model", "messages") if counting else ("model", "max_tokens", "messages")
    )
    for name in required:
        if name not in members:
            raise Invalid(f"{name}: Field required")
    if not isinstance(members["model"], str):
        raise Invalid("model: Input should be a valid string")
    if not counting and not is_count(members["max_tokens"]):
        raise Invalid("max_tokens: Input should be greater than or equal to 1")
    _check_sampling(members, version)
    _check_tools(members)
    _check_thinking(members)
    check_turns(members, closed=version == NEW_VERSION)
    _check_cache_borders(members)
    return _call(members, counting=counting)


def _call(members: Members, *, counting: bool) -> Call:
    messages = objects(members["messages"])
    wanted = (members.get("output_config") or {}).get("format")
    return Call(
        operation=Operation.COUNT if counting else Operation.GENERATE,
        route="count_tokens" if counting else "messages",
        model=members["model"],
        members=members,
        stream=bool(members.get("stream")),
        include_usage=True,
        max_tokens=members.get("max_tokens"),
        stop=_stops(members),
        prompt_tokens=words_of(members.get("system"))
        + sum(words_of(message.get("content")) for message in messages),
        media=tuple(m for message in messages for m in media_of(message["content"])),
        schema=_schema(wanted),
        reasoning=_thinks(members),
    )


def _thinks(members: Members) -> bool:
    return (members.get("thinking") or {}).get("type") in ("enabled", "adaptive")


# --- sampling ---------------------------------------------------------------


def _check_sampling(members: Members, version: str) -> None:
    given = [name for name in _SAMPLERS if name in members]
    if given and version == NEW_VERSION:
        raise Invalid(
            f"{given[0]}: Sampling parameters are not supported with anthropic-version"
            f" {NEW_VERSION}"
        )
    for name in given:
        _check_share(name, members[name])
    if {"temperature", "top_p"} <= set(given) and (
        models.generation(members["model"]) >= models.ONE_SAMPLER
    ):
        raise Invalid(
            "`temperature` and `top_p` cannot both be specified for this model. Please"
            " use only one."
        )


def _check_share(name: str, value: object) -> None:
    if not isinstance(value, int | float) or not is_number(value):
        raise Invalid(f"{name}: Input should be a valid number")
    if value < 0:
        raise Invalid(f"{name}: Input should be greater than or equal to 0")
    if name != "top_k" and value > 1:
        raise Invalid(f"{name}: Input should be less than or equal to 1")


def _stops(members: Members) -> tuple[str, ...]:
    stops = members.get("stop_sequences") or ()
    for number, stop in enumerate(stops):
        if not isinstance(stop, str):
            raise Invalid(f"stop_sequences.{number}: Input should be a valid string")
        if not stop.strip():
            raise Invalid(
                "stop_sequences: each stop sequence must contain non-whitespace"
            )
    return tuple(stops)


def _schema(wanted: Mapping[str, object] | None) -> Members | None:
    if wanted is None:
        return None
    schema = wanted.get("schema")
    if wanted.get("type") != "json_schema" or not isinstance(schema, Mapping):
        raise Invalid("output_config.format.schema: Field required")
    if (
        schema.get("type") == "object"
        and schema.get("additionalProperties") is not False
    ):
        raise Invalid(
            "output_config.format.schema: For 'object' type, 'additionalProperties'"
            " must be explicitly set to false"
        )
    return schema


# --- tools and thinking -----------------------------------------------------


def _check_tools(members: Members) -> None:
    names = []
    for number, tool in enumerate(objects(members.get("tools"))):
        name = tool.get("name")
        where = f"tools.{number}"
        if tool.get("type", "custom") == "custom":
            where += ".custom"
            _check_own_tool(where, tool)
        if not isinstance(name, str):
            raise Invalid(f"{where}.name: Field required")
        names.append(name)
    if len(set(names)) < len(names):
        raise Invalid("tools: Tool names must be unique.")
    choice = members.get("tool_choice")
    if choice is None:
        return
    if not names:
        raise Invalid("tool_choice may only be specified while providing tools.")
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind not in ("auto", "any", "tool", "none"):
        raise Invalid(
            f"tool_choice: Input tag '{kind}' found using 'type' does not match any of"
            " the expected tags: 'any', 'auto', 'none', 'tool'"
        )
    if kind == "tool" and choice.get("name") not in names:
        raise Invalid(f"Tool '{choice.get('name')}' not found in provided tools")


def _check_own_tool(where: str, tool: Members) -> None:
    name = tool.get("name")
    if isinstance(name, str) and not models.is_name(name):
        raise Invalid(
            f"{where}.name: String should match pattern '{models.NAME_PATTERN}'"
        )
    schema = tool.get("input_schema")
    if not isinstance(schema, dict):
        raise Invalid(f"{where}.input_schema: Field required")
    if schema.get("type") != "object":
        raise Invalid(f"{where}.input_schema.type: Input should be 'object'")


def _check_thinking(members: Members) -> None:
    effort = (members.get("output_config") or {}).get("effort")
    if effort is not None and effort not in _EFFORTS:
        raise Invalid(f"output_config.effort: Input should be one of {_EFFORTS}")
    thinking = members.get("thinking") or {}
    if thinking.get("type") == "enabled":
        _check_budget(members, thinking.get("budget_tokens"))
    if not _thinks(members):
        return
    if members.get("temperature", 1) != 1:
        raise Invalid("`temperature` may only be set to 1 when thinking is enabled.")
    if (members.get("tool_choice") or {}).get("type") in ("any", "tool"):
        raise Invalid("Thinking may not be enabled when tool_choice forces tool use.")


def _check_budget(members: Members, budget: object) -> None:
    if models.generation(members["model"]) >= models.NO_MANUAL_THINKING:
        raise Invalid(
            '"thinking.type.enabled" is not supported for this model. Use'
            ' "thinking.type.adaptive" and "output_config.effort" to control thinking'
            " behavior."
        )
    if not isinstance(budget, int) or not is_count(budget, least=_LEAST_BUDGET_TOKENS):
        raise Invalid(
            "thinking.enabled.budget_tokens: Input should be greater than or equal to"
            f" {_LEAST_BUDGET_TOKENS}"
        )
    if budget >= members.get("max_tokens", budget + 1):
        raise Invalid("`max_tokens` must be greater than `thinking.budget_tokens`.")


def _check_cache_borders(members: Members) -> None:
    blocks = [
        *objects(members.get("tools")),
        *objects(members.get("system")),
        *(b for m in objects(members["messages"]) for b in objects(m.get("content"))),
    ]
    borders = [block["cache_control"] for block in blocks if block.get("cache_control")]
    if len(borders) > _MOST_CACHE_BORDERS:
        raise Invalid(
            f"A maximum of {_MOST_CACHE_BORDERS} blocks with cache_control may be"
            f" provided. Found {len(borders)}."
        )
    for border in borders:
        if border.get("type") != "ephemeral" or border.get("ttl", "5m") not in (
            "5m",
            "1h",
        ):
            raise Invalid("cache_control.ephemeral.ttl: Input should be '5m' or '1h'")
