"""What OpenAI accepts as a request for a response, and what it says of the rest.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.testing.upstreams.call import Call, Media, Members, words
from atomr_infer.testing.upstreams.checks import Invalid, media_of_url, objects
from atomr_infer.testing.upstreams.openai_checks import (
    EFFORTS,
    check_count,
    check_numbers,
    check_strict,
    missing,
    required_model,
    wrong_type,
    wrong_value,
)
from atomr_infer.testing.upstreams.openai_responses import RESPONSE_ID, encrypted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MEMBERS = frozenset(
    {
        "background",
        "client_metadata",
        "context_management",
        "conversation",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "model",
        "moderation",
        "parallel_tool_calls",
        "previous_response_id",
        "prompt",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "truncation",
        "user",
    }
)
_ITEMS = (
    "message",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "reasoning",
    "item_reference",
)
_CALLS = ("function_call", "custom_tool_call")
_OUTPUTS = tuple(f"{kind}_output" for kind in _CALLS)
_PARTS = {
    "user": ("input_text", "input_image", "input_file"),
    "system": ("input_text",),
    "developer": ("input_text",),
    "assistant": ("output_text", "refusal"),
}


def response_call(members: Members, *, model: str, strict: bool) -> Call:
    """Return the call that a body's members are.

    Args:
        members: of the body.
        model: as the path says it; "": the body does.
        strict: whether unknown members are refused.

    Raises:
        Invalid: as OpenAI says it.
    """
    for name in members if strict else ():
        if name not in _MEMBERS:
            raise Invalid(
                f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter"
            )
    model = model or required_model(members)
    check_numbers(members)
    if members.get("max_output_tokens") is not None:
        check_count("max_output_tokens", members["max_output_tokens"])
    items = _items(members)
    _check_calls(items, continued=_is_continued(members))
    _check_tools(members)
    effort = (members.get("reasoning") or {}).get("effort")
    if effort is not None and effort not in EFFORTS:
        raise wrong_value("reasoning.effort", effort, EFFORTS)
    wants_logprobs = "message.output_text.logprobs" in (members.get("include") or ())
    return Call(
        route="responses",
        model=model,
        members=members,
        stream=bool(members.get("stream")),
        include_usage=True,
        max_tokens=members.get("max_output_tokens"),
        prompt_tokens=words(members.get("instructions") or "")
        + sum(_words_of(item) for item in items),
        media=tuple(media for item in items for media in _media_of(item)),
        schema=_schema(members),
        top_logprobs=(members.get("top_logprobs") or 0) if wants_logprobs else None,
    )


def _items(members: Members) -> Sequence[Members]:
    given = members.get("input")
    if given is None:
        raise missing("input")
    if isinstance(given, str):
        return ({"type": "message", "role": "user", "content": given},)
    if not isinstance(given, list):
        raise wrong_type("input", "a string or an array of items", given)
    for number, item in enumerate(given):
        _check_item(f"input[{number}]", item)
    return given


def _check_item(where: str, item: object) -> None:
    if not isinstance(item, dict):
        raise wrong_type(where, "an object", item)
    kind = item.get("type", "message")
    if kind not in _ITEMS:
        raise wrong_value(f"{where}.type", kind, _ITEMS)
    if kind == "message":
        _check_message(where, item)
    needed = {
        "function_call": ("call_id", "name", "arguments"),
        "function_call_output": ("call_id", "output"),
        "custom_tool_call": ("call_id", "name", "input"),
        "custom_tool_call_output": ("call_id", "output"),
        "reasoning": ("summary",),
    }
    for name in needed.get(kind, ()):
        if name not in item:
            raise missing(f"{where}.{name}")
    if kind == "reasoning" and item.get("encrypted_content") is not None:
        _check_encrypted(where, item)


def _check_message(where: str, item: Members) -> None:
    role = item.get("role")
    if role not in _PARTS:
        raise wrong_value(f"{where}.role", role, tuple(_PARTS))
    content = item.get("content")
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise wrong_type(f"{where}.content", "a string or an array", content)
    for place, part in enumerate(objects(content)):
        if part.get("type") not in _PARTS[role]:
            allowed = ("", *_PARTS[role])[-max(2, len(_PARTS[role])) :]
            raise wrong_value(
                f"{where}.content[{place}].type", part.get("type"), allowed
            )


def _check_encrypted(where: str, item: Members) -> None:
    sealed = str(item["encrypted_content"])
    text = "".join(part.get("text", "") for part in objects(item["summary"]))
    # Without a summary nothing is known of what is inside but its form.
    if not sealed.startswith("gAAAA") or (text and sealed != encrypted(text)):
        raise Invalid(
            f"The encrypted content for item {item.get('id')} could not be verified.",
            param=f"{where}.encrypted_content",
            code="invalid_encrypted_content",
        )


def _check_calls(items: Sequence[Members], *, continued: bool) -> None:
    """Each call has its output behind it, and each output its call before it."""
    called = [item["call_id"] for item in items if item.get("type") in _CALLS]
    answered = [item["call_id"] for item in items if item.get("type") in _OUTPUTS]
    for identity in answered:
        if identity not in called and not continued:
            raise Invalid(
                f"No tool call found for function call output with call_id {identity}.",
                param="input",
            )
    for identity in called:
        if identity not in answered:
            raise Invalid(
                f"No tool output found for function call {identity}.", param="input"
            )


def _is_continued(members: Members) -> bool:
    previous = members.get("previous_response_id")
    if previous is not None and previous != RESPONSE_ID:
        raise Invalid(
            f"Previous response with id '{previous}' not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    return previous is not None


def _check_tools(members: Members) -> None:
    for number, tool in enumerate(members.get("tools") or ()):
        if tool.get("type") is None:
            raise missing(f"tools[{number}].type")
        if tool["type"] in ("function", "custom", "namespace") and not tool.get("name"):
            raise missing(f"tools[{number}].name")


def _schema(members: Members) -> Members | None:
    wanted = (members.get("text") or {}).get("format") or {"type": "text"}
    if wanted.get("type") == "json_object":
        return {"type": "object"}
    if wanted.get("type") != "json_schema":
        return None
    for name in ("name", "schema"):
        if name not in wanted:
            raise missing(f"text.format.{name}")
    schema: Members = wanted["schema"]
    if wanted.get("strict"):
        check_strict(schema, where=f"response_format '{wanted['name']}'")
    return schema


def _words_of(item: Members) -> int:
    content = item.get("content", item.get("output"))
    if isinstance(content, str):
        return words(content)
    return sum(words(part.get("text") or "") for part in objects(content))


def _media_of(item: Members) -> Iterator[Media]:
    for part in objects(item.get("content")):
        if part["type"] == "input_image" and part.get("image_url"):
            yield media_of_url(str(part["image_url"]))
        elif part["type"] == "input_file" and part.get("file_data"):
            yield media_of_url(str(part["file_data"]))
