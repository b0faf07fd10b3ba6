"""What OpenAI accepts as a chat completion, and what it says of the rest.

Pure.

Source: OpenAI's API reference, and the words of its errors.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from atomr_infer.testing.upstreams.call import Call, Media, Members, words
from atomr_infer.testing.upstreams.checks import (
    Invalid,
    inline_media,
    media_of_url,
    objects,
)
from atomr_infer.testing.upstreams.openai_checks import (
    check_numbers,
    check_strict,
    missing,
    refuse_unknown,
    required_model,
    stops,
    wrong_type,
    wrong_value,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

CHAT_MEMBERS = frozenset(
    [
        "audio",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "metadata",
        "modalities",
        "model",
        "moderation",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    ]
)

_ROLES = ("system", "assistant", "user", "function", "tool", "developer")
_REASONING_MODEL = re.compile(r"(^|/)(o\d|gpt-[5-9])")
_PARTS = {
    "system": ("text",),
    "developer": ("text",),
    "tool": ("text",),
    "assistant": ("text", "refusal"),
    "user": ("text", "image_url", "input_audio", "file"),
}


def chat_call(members: Members, *, model: str, strict: bool) -> Call:
    """Return the call that a body's members are.

    Args:
        members: of the body.
        model: as the path says it; "": the body does.
        strict: whether unknown members are refused, as OpenAI does and servers
            with its dialect do not.

    Raises:
        Invalid: as OpenAI says it.
    """
    model = model or required_model(members)
    if strict:
        refuse_unknown(members, CHAT_MEMBERS)
    check_numbers(members)
    messages = _messages(members)
    _check_tools(members)
    if strict and _REASONING_MODEL.search(model):
        _check_reasoning_model(members)
    options = members.get("stream_options") or {}
    if options and not members.get("stream"):
        raise Invalid(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            param="stream_options",
        )
    return Call(
        route="chat",
        model=model,
        members=members,
        stream=bool(members.get("stream")),
        include_usage=bool(options.get("include_usage")),
        n=members.get("n") or 1,
        max_tokens=members.get("max_completion_tokens") or members.get("max_tokens"),
        stop=stops(members),
        prompt_tokens=sum(_words_of(message.get("content")) for message in messages),
        media=tuple(m for message in messages for m in _media_of(message)),
        schema=_schema(members, messages),
        top_logprobs=_top_logprobs(members),
    )


# --- messages ---------------------------------------------------------------


def _messages(members: Members) -> list[Members]:
    messages = members.get("messages")
    if messages is None:
        raise missing("messages")
    if not isinstance(messages, list):
        raise wrong_type("messages", "an array of objects", messages)
    if not messages:
        raise Invalid(
            "Invalid 'messages': empty array. Expected an array with minimum length 1,"
            " but got an empty array instead.",
            param="messages",
            code="empty_array",
        )
    for number, message in enumerate(messages):
        _check_message(number, message)
    _check_tool_turns(messages)
    return messages


def _check_message(number: int, message: object) -> None:
    where = f"messages[{number}]"
    if not isinstance(message, dict):
        raise wrong_type(where, "an object", message)
    role = message.get("role")
    if role is None:
        raise missing(f"{where}.role")
    if role not in _ROLES:
        raise wrong_value(f"{where}.role", role, _ROLES)
    content = message.get("content")
    speaks = ("tool_calls", "function_call", "refusal", "audio")
    if content is None:
        if role == "assistant" and any(message.get(name) for name in speaks):
            return
        raise wrong_type(f"{where}.content", "a string", content)
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise wrong_type(f"{where}.content", "a string or an array of objects", content)
    for place, part in enumerate(content):
        _check_part(f"{where}.content[{place}]", part, _PARTS.get(role, ("text",)))


def _check_part(where: str, part: object, allowed: tuple[str, ...]) -> None:
    if not isinstance(part, dict):
        raise wrong_type(where, "an object", part)
    kind = part.get("type")
    if kind is None:
        raise missing(f"{where}.type")
    if kind not in allowed:
        raise wrong_value(
            f"{where}.type", kind, ("", *allowed)[-max(2, len(allowed)) :]
        )
    if kind not in part:
        raise missing(f"{where}.{kind}")


def _check_tool_turns(messages: list[Members]) -> None:
    """Each call is answered right behind it, and nothing else is an answer."""
    open_ids: list[str] = []
    answering = False
    for number, message in enumerate(messages):
        if message["role"] == "tool":
            if not answering or message.get("tool_call_id") not in open_ids:
                raise Invalid(
                    "Invalid parameter: messages with role 'tool' must be a response"
                    " to a preceeding message with 'tool_calls'.",
                    param=f"messages.[{number}].role",
                )
            open_ids.remove(message["tool_call_id"])
            continue
        _refuse_open(open_ids, number)
        calls = objects(message.get("tool_calls"))
        for place, call in enumerate(calls):
            _check_call(f"messages[{number}].tool_calls[{place}]", call)
        open_ids = [str(call["id"]) for call in calls]
        answering = bool(open_ids)
    _refuse_open(open_ids, len(messages))


def _refuse_open(open_ids: list[str], number: int) -> None:
    if open_ids:
        raise Invalid(
            "An assistant message with 'tool_calls' must be followed by tool messages"
            " responding to each 'tool_call_id'. The following tool_call_ids did not"
            f" have response messages: {', '.join(open_ids)}",
            param=f"messages.[{number}].role",
        )


def _check_call(where: str, call: Members) -> None:
    for name in ("id", "type", "function"):
        if name not in call:
            raise missing(f"{where}.{name}")
    function = call["function"]
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise missing(f"{where}.function.name")
    if not isinstance(function.get("arguments"), str):
        raise wrong_type(
            f"{where}.function.arguments", "a string", function.get("arguments")
        )


def _media_of(message: Members) -> Iterator[Media]:
    for part in objects(message.get("content")):
        match part["type"]:
            case "image_url":
                yield media_of_url(str(part["image_url"]["url"]))
            case "input_audio":
                sound = part["input_audio"]
                yield inline_media(f"audio/{sound['format']}", sound["data"])
            case "file" if "file_data" in part["file"]:
                yield media_of_url(str(part["file"]["file_data"]))


def _words_of(content: object) -> int:
    if isinstance(content, str):
        return words(content)
    return sum(words(part.get("text") or "") for part in objects(content))


# --- tools and formats ------------------------------------------------------


def _check_tools(members: Members) -> None:
    tools = members.get("tools")
    if tools is None:
        for name in ("tool_choice", "parallel_tool_calls"):
            if members.get(name) not in (None, "none", "auto"):
                raise Invalid(
                    f"Invalid value for '{name}': '{name}' is only allowed when"
                    " 'tools' are specified.",
                    param=name,
                )
        return
    if not isinstance(tools, list):
        raise wrong_type("tools", "an array of objects", tools)
    for number, tool in enumerate(tools):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind is None:
            raise missing(f"tools[{number}].type")
        if kind == "function" and not tool.get("function", {}).get("name"):
            raise missing(f"tools[{number}].function.name")


def _schema(members: Members, messages: list[Members]) -> Members | None:
    wanted = members.get("response_format") or {"type": "text"}
    kind = wanted.get("type")
    if kind == "json_object":
        if "json" not in repr(messages).lower():
            raise Invalid(
                "'messages' must contain the word 'json' in some form, to use"
                " 'response_format' of type 'json_object'.",
                param="messages",
            )
        return {"type": "object"}
    if kind == "json_schema":
        named = wanted.get("json_schema") or {}
        if not named.get("name"):
            raise missing("response_format.json_schema.name")
        schema = named.get("schema") or {}
        if named.get("strict"):
            check_strict(schema, where=f"response_format '{named['name']}'")
        return schema
    if kind != "text":
        allowed = ("json_object", "json_schema", "text")
        raise wrong_value("response_format.type", kind, allowed)
    return None


def _top_logprobs(members: Members) -> int | None:
    wanted = members.get("top_logprobs")
    if not members.get("logprobs"):
        if wanted:
            raise Invalid(
                "Invalid value for 'top_logprobs': 'logprobs' must be set to true when"
                " using the 'top_logprobs' parameter.",
                param="top_logprobs",
            )
        return None
    return wanted or 0


def _check_reasoning_model(members: Members) -> None:
    if members.get("max_tokens") is not None:
        raise Invalid(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use"
            " 'max_completion_tokens' instead.",
            param="max_tokens",
            code="unsupported_parameter",
        )
    for name in ("temperature", "top_p"):
        value = members.get(name)
        if value is not None and value != 1:
            raise Invalid(
                f"Unsupported value: '{name}' does not support {value} with this"
                " model. Only the default (1) value is supported.",
                param=name,
                code="unsupported_value",
            )
