"""Write a chat completion request for an OpenAI-like upstream.

Pure.

Source: OpenAI API reference, "Create chat completion".
"""

from __future__ import annotations

from typing import Literal

import msgspec

from atomr_infer.model.asks import (
    FormatKind,
    RawTool,
    ResponseFormat,
    Tool,
    ToolChoice,
    ToolMode,
)
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import (
    AudioPart,
    CacheHint,
    FileId,
    FilePart,
    ImagePart,
    Inline,
    MediaSource,
    Part,
    RawJson,
    RawPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Url,
)
from atomr_infer.wire.openai.chat_members import call_members, reasoning_members

MaxTokensMember = Literal["max_tokens", "max_completion_tokens"]
"""How an upstream spells the limit: OpenAI's newer models refuse the older
name, and many compatible servers do not know the newer one."""

_encode = msgspec.json.Encoder().encode

_SAMPLING_MEMBERS = (
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "presence_penalty",
    "frequency_penalty",
)

_AUDIO_FORMATS = {"audio/mpeg": "mp3", "audio/x-wav": "wav"}


def encode_request(
    batch: ExecuteBatch, *, max_tokens_member: MaxTokensMember = "max_tokens"
) -> bytes:
    """Return the body of a chat completion request.

    A canonical member wins over an ``extra`` one of the same name, except that
    ``max_completion_tokens`` in ``extra`` is the client's own spelling and
    replaces the canonical limit.  A stream always asks for usage, which is
    what the request is billed by; other ``stream_options`` are kept.

    Args:
        batch: the generation; its raw members must each be one JSON value.
        max_tokens_member: how this upstream spells the limit.
    """
    extra = dict(batch.extra) if batch.dialect is Dialect.OPENAI_CHAT else {}
    options = extra.pop("stream_options", None)
    body: dict[str, object] = {
        "model": batch.model,
        "messages": [
            members for message in batch.messages for members in _messages(message)
        ],
    }
    body.update(sampling_members(batch.sampling))
    if batch.sampling.max_tokens is not None and "max_completion_tokens" not in extra:
        body[max_tokens_member] = batch.sampling.max_tokens
    body.update(_asks(batch))
    body["stream"] = batch.stream
    if batch.stream:
        body["stream_options"] = stream_options(options)
    for name, raw in extra.items():
        body.setdefault(name, msgspec.Raw(raw))
    return _encode(body)


def encode_completion_request(batch: ExecuteBatch) -> bytes:
    """Return the body of a bare text completion request.

    Args:
        batch: the generation; it has a ``prompt``.
    """
    own = batch.dialect is Dialect.OPENAI_COMPLETIONS
    extra = dict(batch.extra) if own else {}
    options = extra.pop("stream_options", None)
    body: dict[str, object] = {"model": batch.model, "prompt": batch.prompt}
    body.update(sampling_members(batch.sampling))
    for name in ("logprobs", "top_logprobs"):
        body.pop(name, None)
    if batch.sampling.top_logprobs is not None:
        body["logprobs"] = batch.sampling.top_logprobs
    if batch.sampling.max_tokens is not None:
        body["max_tokens"] = batch.sampling.max_tokens
    if batch.user is not None:
        body["user"] = batch.user
    body["stream"] = batch.stream
    if batch.stream:
        body["stream_options"] = stream_options(options)
    for name, raw in extra.items():
        body.setdefault(name, msgspec.Raw(raw))
    return _encode(body)


def sampling_members(sampling: Sampling) -> dict[str, object]:
    """Return what is said of how tokens are chosen, but the limit."""
    members = {name: getattr(sampling, name) for name in _SAMPLING_MEMBERS}
    said = {name: value for name, value in members.items() if value is not None}
    if sampling.stop:
        said["stop"] = sampling.stop
    if sampling.n != 1:
        said["n"] = sampling.n
    if sampling.top_logprobs is not None:
        said["logprobs"] = True
        if sampling.top_logprobs:
            said["top_logprobs"] = sampling.top_logprobs
    return said


def stream_options(raw: RawJson | None) -> dict[str, object]:
    """Return the client's options, with usage asked for."""
    options: dict[str, object] = {}
    if raw is not None:
        options.update(
            msgspec.json.decode(raw, type=dict[str, msgspec.Raw] | None) or {}
        )
    options["include_usage"] = True
    return options


# --- tools, format, reasoning -------------------------------------------------


def _asks(batch: ExecuteBatch) -> dict[str, object]:
    said: dict[str, object] = {}
    if batch.tools:
        said["tools"] = [_tool(tool) for tool in batch.tools]
    if batch.tool_choice is not None:
        said["tool_choice"] = _tool_choice(batch.tool_choice)
    if batch.parallel_tool_calls is not None:
        said["parallel_tool_calls"] = batch.parallel_tool_calls
    if batch.response_format is not None:
        said["response_format"] = _response_format(batch.response_format)
    if batch.reasoning is not None and batch.reasoning.effort is not None:
        said["reasoning_effort"] = batch.reasoning.effort.value
    if batch.user is not None:
        said["user"] = batch.user
    return said


def _tool(tool: Tool | RawTool) -> object:
    if isinstance(tool, RawTool):
        return msgspec.Raw(tool.json)
    return {"type": "function", "function": function_members(tool)}


def function_members(tool: Tool) -> dict[str, object]:
    """Return a function's name, description, parameters and strictness."""
    members: dict[str, object] = {"name": tool.name}
    if tool.description is not None:
        members["description"] = tool.description
    if tool.parameters is not None:
        members["parameters"] = msgspec.Raw(tool.parameters)
    if tool.strict is not None:
        members["strict"] = tool.strict
    return members


def _tool_choice(choice: ToolChoice) -> object:
    if not choice.names:
        return choice.mode.value
    if choice.mode is ToolMode.REQUIRED and len(choice.names) == 1:
        return {"type": "function", "function": {"name": choice.names[0]}}
    tools = [{"type": "function", "function": {"name": name}} for name in choice.names]
    allowed = {"mode": choice.mode.value, "tools": tools}
    return {"type": "allowed_tools", "allowed_tools": allowed}


def _response_format(form: ResponseFormat) -> dict[str, object]:
    if form.kind is not FormatKind.JSON_SCHEMA:
        return {"type": form.kind.value}
    return {"type": form.kind.value, "json_schema": schema_members(form)}


def schema_members(form: ResponseFormat) -> dict[str, object]:
    """Return a schema format's name, schema and strictness; the name is required."""
    members: dict[str, object] = {"name": form.name or "answer"}
    if form.description is not None:
        members["description"] = form.description
    if form.schema is not None:
        members["schema"] = msgspec.Raw(form.schema)
    if form.strict is not None:
        members["strict"] = form.strict
    return members


# --- messages -----------------------------------------------------------------


def _messages(message: Message) -> list[dict[str, object]]:
    """Return a message's members; each tool result is a message of its own."""
    if message.role is Role.TOOL:
        results = [p for p in message.content if isinstance(p, ToolResultPart)]
        return [_with_extra(_tool_result(part), message) for part in results]
    return [_with_extra(_message(message), message)]


def _with_extra(members: dict[str, object], message: Message) -> dict[str, object]:
    for name, raw in message.extra.items():
        members.setdefault(name, msgspec.Raw(raw))
    return members


def _tool_result(part: ToolResultPart) -> dict[str, object]:
    return {
        "role": Role.TOOL.value,
        "tool_call_id": part.call_id,
        "content": _content(part.content) or "",
    }


def _message(message: Message) -> dict[str, object]:
    calls = [part for part in message.content if isinstance(part, ToolCallPart)]
    raw_calls = [
        part
        for part in message.content
        if isinstance(part, RawPart) and _is_raw_call(part)
    ]
    thoughts = [part for part in message.content if isinstance(part, ReasoningPart)]
    refusals = [part.text for part in message.content if isinstance(part, RefusalPart)]
    said = tuple(
        part
        for part in message.content
        if not isinstance(part, ToolCallPart | ReasoningPart | RefusalPart)
        and not _is_raw_call(part)
    )
    content = _content(said)
    if content is None and message.role is not Role.ASSISTANT:
        content = ""
    members: dict[str, object] = {"role": message.role.value, "content": content}
    if message.name is not None:
        members["name"] = message.name
    if refusals:
        members["refusal"] = "".join(refusals)
    members.update(reasoning_members(thoughts))
    if calls or raw_calls:
        members["tool_calls"] = [
            *(call_members(call) for call in calls),
            *(msgspec.Raw(call.json) for call in raw_calls),
        ]
    return members


def _is_raw_call(part: Part) -> bool:
    return isinstance(part, RawPart) and part.kind.startswith("tool_call:")


def _content(parts: tuple[Part, ...]) -> object:
    """Return null, a string for plain text, or a list of parts."""
    if not parts:
        return None
    if len(parts) == 1 and isinstance(parts[0], TextPart) and parts[0].cache is None:
        return parts[0].text
    return [_part(part) for part in parts]


def _part(part: Part) -> object:
    members: dict[str, object]
    match part:
        case TextPart():
            members = {"type": "text", "text": part.text}
        case ImagePart():
            image: dict[str, object] = {"url": media_url(part.source)}
            if part.detail is not None:
                image["detail"] = part.detail
            members = {"type": "image_url", "image_url": image}
        case AudioPart():
            members = {"type": "input_audio", "input_audio": _audio(part.source)}
        case FilePart():
            members = {"type": "file", "file": _file(part)}
        case RawPart():
            return msgspec.Raw(part.json)
        case ToolCallPart() | ToolResultPart() | ReasoningPart() | RefusalPart():
            raise AssertionError(f"{part!r} is no content of a chat message")
    return members | _cache(part.cache)


def _cache(cache: CacheHint | None) -> dict[str, object]:
    if cache is None:
        return {}
    control = {"type": "ephemeral"}
    if cache.ttl is not None:
        control["ttl"] = cache.ttl
    return {"cache_control": control}


def media_url(source: MediaSource) -> str:
    """Return media as one URL: its own, or one that holds the bytes."""
    match source:
        case Url(url):
            return url
        case Inline(media_type, base64):
            return f"data:{media_type};base64,{base64}"
        case FileId(identity):
            return identity


def _audio(source: MediaSource) -> dict[str, object]:
    if not isinstance(source, Inline):
        return {"data": media_url(source), "format": "wav"}
    kind = source.media_type
    form = _AUDIO_FORMATS.get(kind, kind.removeprefix("audio/"))
    return {"data": source.base64, "format": form}


def _file(part: FilePart) -> dict[str, object]:
    members: dict[str, object] = {}
    if isinstance(part.source, FileId):
        members["file_id"] = part.source.id
    else:
        members["file_data"] = media_url(part.source)
    if part.filename is not None:
        members["filename"] = part.filename
    return members
