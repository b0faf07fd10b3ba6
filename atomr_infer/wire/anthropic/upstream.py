"""Write a request to the Messages API: the canonical batch out.

What the model does not take is left out or brought as near as it goes, and
named in ``Encoded.warnings``; what it cannot do at all is refused here, before
anything is sent.

Pure.

Source: Anthropic API reference, "Create a Message".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import msgspec

from atomr_infer.model.asks import ToolMode
from atomr_infer.model.batch import Role
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import FilePart
from atomr_infer.wire.anthropic.upstream_asks import (
    JSON_TOOL,
    Form,
    Thinking,
    form_of,
    thinking_of,
    tool_members,
)
from atomr_infer.wire.anthropic.upstream_turns import Block, encode_turns
from atomr_infer.wire.anthropic.versions import NEW, OLD
from atomr_infer.wire.in_words import WARNING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.wire.anthropic.traits import ModelTraits

_encode = msgspec.json.Encoder().encode

_SAMPLING = ("temperature", "top_p", "top_k")

_MOST_CACHE_BORDERS = 4  # the API's

_COUNTED = frozenset(
    {
        "model",
        "messages",
        "system",
        "tools",
        "tool_choice",
        "thinking",
        "output_config",
        "cache_control",
    }
)


@attrs.frozen(kw_only=True)
class Encoded:
    """A request, written.

    Attributes:
        body: JSON.
        version: the API version that takes it.
        json_tool: the tool whose arguments are the answer's text; None: none is.
        warnings: what was approximated or left out, in one phrase each.
    """

    body: bytes
    version: str
    json_tool: str | None = None
    warnings: tuple[str, ...] = ()


def encode_request(batch: ExecuteBatch, traits: ModelTraits) -> Encoded:
    """Return the body of a Messages request.

    Raises:
        InvalidRequestError: the conversation cannot be written; ``param`` names
            the place.
        UnsupportedFeatureError: the model lacks what it takes.
    """
    members, form, warnings = _members(batch, traits)
    return Encoded(
        body=_encode(members),
        version=_version(batch, members),
        json_tool=None if form.tool is None else JSON_TOOL,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def encode_count(batch: ExecuteBatch, traits: ModelTraits) -> Encoded:
    """Return the body of a request that only counts the prompt's tokens.

    Raises:
        InvalidRequestError: as :func:`encode_request`.
    """
    members, _, warnings = _members(batch, traits)
    counted = {name: value for name, value in members.items() if name in _COUNTED}
    return Encoded(
        body=_encode(counted), version=_version(batch, {}), warnings=tuple(warnings)
    )


def _members(
    batch: ExecuteBatch, traits: ModelTraits
) -> tuple[dict[str, object], Form, list[str]]:
    turns = encode_turns(batch, traits)
    form = form_of(batch, traits)
    tools = tool_members(batch, traits)
    if form.tool is not None:
        tools = {
            "tools": [form.tool],
            "tool_choice": {"type": "tool", "name": JSON_TOOL},
        }
    max_tokens = _max_tokens(batch, traits, turns.warnings)
    thinking = thinking_of(
        batch, traits, max_tokens=max_tokens, forced=_is_forced(batch, form)
    )
    members: dict[str, object] = {
        "model": batch.model,
        "max_tokens": max_tokens,
        "messages": turns.messages,
    }
    system = [*turns.system, *_instruction(form, turns.warnings)]
    if system:
        members["system"] = system
    members |= tools
    _bound_caches(members, turns.warnings)
    members |= _sampling(batch, traits, thinking, turns.warnings)
    members |= _config(thinking, form)
    if batch.user is not None:
        members["metadata"] = {"user_id": batch.user}
    members["stream"] = batch.stream
    if batch.dialect is Dialect.ANTHROPIC:
        for name, raw in batch.extra.items():
            members.setdefault(name, msgspec.Raw(raw))
    return members, form, [*turns.warnings, *thinking.warnings]


def _version(batch: ExecuteBatch, members: dict[str, object]) -> str:
    """Return the newest version that takes what is sent."""
    if any(name in members for name in _SAMPLING):
        return OLD
    shows_file = any(
        isinstance(part, FilePart)
        for message in batch.messages
        if message.role is Role.ASSISTANT
        for part in message.content
    )
    return OLD if shows_file else NEW


def _is_forced(batch: ExecuteBatch, form: Form) -> bool:
    choice = batch.tool_choice
    asked = choice is not None and choice.mode is ToolMode.REQUIRED
    return form.tool is not None or (bool(batch.tools) and asked)


def _instruction(form: Form, warnings: list[str]) -> list[Block]:
    if not form.instruction:
        return []
    warnings.append(WARNING)
    return [{"type": "text", "text": form.instruction}]


def _bound_caches(members: dict[str, object], warnings: list[str]) -> None:
    """Keep the last cache borders, which are the longest prompts."""
    marked = [block for block in _cacheable(members) if "cache_control" in block]
    for block in marked[:-_MOST_CACHE_BORDERS]:
        del block["cache_control"]
        warnings.append(f"only the last {_MOST_CACHE_BORDERS} cache borders were kept")


def _cacheable(members: dict[str, object]) -> Iterator[dict[str, object]]:
    for name in ("tools", "system"):
        yield from _objects(members.get(name))
    for turn in _objects(members["messages"]):
        yield from _objects(turn["content"])


def _objects(value: object) -> Iterator[dict[str, object]]:
    if isinstance(value, list):
        yield from (each for each in value if isinstance(each, dict))


def _max_tokens(batch: ExecuteBatch, traits: ModelTraits, warnings: list[str]) -> int:
    wanted = batch.sampling.max_tokens
    if wanted is None:
        return traits.max_output_tokens
    if wanted > traits.max_output_tokens:
        warnings.append(f"max_tokens was lowered to {traits.max_output_tokens}")
    return min(wanted, traits.max_output_tokens)


def _sampling(
    batch: ExecuteBatch, traits: ModelTraits, thinking: Thinking, warnings: list[str]
) -> dict[str, object]:
    members: dict[str, object] = {}
    stops = [stop for stop in batch.sampling.stop if stop.strip()]
    if len(stops) < len(batch.sampling.stop):
        warnings.append("a stop sequence of white space was left out")
    if stops:
        members["stop_sequences"] = stops
    # What the model does not take is named by ``check_request`` already.
    numbers = {
        name: value
        for name in _SAMPLING
        if name in traits.sampling
        and (value := getattr(batch.sampling, name)) is not None
    }
    if numbers.get("top_k") == -1:
        del numbers["top_k"]  # another engine's word for "all of them"
    if thinking.is_on and numbers:
        warnings.append(f"{', '.join(numbers)} left out, as the model reasons")
        return members
    if numbers.get("temperature", 0) > 1:
        warnings.append("temperature was lowered to 1")
        numbers["temperature"] = 1.0
    if not traits.both_of and "temperature" in numbers and "top_p" in numbers:
        warnings.append("top_p left out: this model takes it or temperature")
        del numbers["top_p"]
    return members | numbers


def _config(thinking: Thinking, form: Form) -> dict[str, object]:
    members: dict[str, object] = {}
    if thinking.member is not None:
        members["thinking"] = thinking.member
    config: dict[str, object] = {}
    if thinking.effort is not None:
        config["effort"] = thinking.effort.value
    if form.format is not None:
        config["format"] = form.format
    if config:
        members["output_config"] = config
    return members
