"""Chat completions, as OpenAI writes them.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from atomr_infer.testing.upstream_script import Finish, ToolCall
from atomr_infer.testing.upstreams.answer import (
    Answer,
    CallPiece,
    CallStart,
    Declined,
    Text,
    Thought,
    Unit,
    units,
)
from atomr_infer.testing.upstreams.dialect import Frame
from atomr_infer.wire.sse import DONE, encode_event

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from atomr_infer.model.usage import Usage
    from atomr_infer.testing.upstreams.call import Call

CREATED_S = 1_767_225_600  # any constant: two runs give the same bytes

FINISH: Mapping[Finish, str] = {
    Finish.STOP: "stop",
    Finish.STOP_SEQUENCE: "stop",
    Finish.LENGTH: "length",
    Finish.TOOL_CALLS: "tool_calls",
    Finish.CONTENT_FILTER: "content_filter",
    Finish.PAUSE: "stop",
    Finish.CONTEXT_FULL: "length",
}

Json = dict[str, Any]


def completion(call: Call, answer: Answer) -> Json:
    """Return a chat completion."""
    message: Json = {
        "role": "assistant",
        "content": _content(answer),
        "refusal": answer.refusal,
        "annotations": [],
    }
    if answer.reasoning:
        message["reasoning_content"] = "".join(answer.reasoning)
    if answer.tool_calls:
        message["tool_calls"] = [
            _opened(index, tool, tool.arguments_json)
            for index, tool in enumerate(answer.tool_calls)
        ]
    choices = [
        {
            "index": index,
            "message": message,
            "logprobs": logprobs(call, answer.pieces),
            "finish_reason": finish_reason(answer),
        }
        for index in range(call.n)
    ]
    members = _head(answer, "chat.completion", choices)
    if answer.usage is not None:
        members["usage"] = usage_members(answer.usage)
    return members


def chunks(call: Call, answer: Answer, *, done: bool) -> Iterator[Frame]:
    """Yield a streamed chat completion."""
    if call.route == "azure-chat":
        yield Frame(_event(call, answer, [], prompt_filter_results=_FILTERED))
    opening = {"role": "assistant", "content": "", "refusal": None}
    yield from _deltas(call, answer, opening)
    for unit in units(answer):
        text = (unit.text,) if isinstance(unit, Text) else ()
        for data in _delta_events(call, answer, _delta(unit), text):
            yield Frame(data, unit.position)
    for frame in _deltas(call, answer, {}, finish_reason(answer)):
        yield Frame(frame.data, closing=True)
    if call.include_usage and answer.usage is not None:
        event = _event(call, answer, [], usage=usage_members(answer.usage))
        yield Frame(event, closing=True)
    if done:
        yield Frame(encode_event(DONE), closing=True)


def finish_reason(answer: Answer) -> str:
    """Return OpenAI's word for why an answer ended."""
    return answer.native_finish or FINISH[answer.finish]


def usage_members(usage: Usage) -> Json:
    """Return what a completion says of its tokens."""
    where_any = {
        "cache_write_tokens": usage.cache_write,
        "image_tokens": usage.input_image,
    }
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read,
            "audio_tokens": usage.input_audio,
            **{name: count for name, count in where_any.items() if count},
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": usage.output_audio,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def logprobs(call: Call, pieces: tuple[str, ...]) -> Json | None:
    """Return the log probabilities of pieces; None: nobody asked for them."""
    if call.top_logprobs is None:
        return None
    content = []
    for piece in pieces:
        token = {"token": piece, "logprob": -0.25, "bytes": list(piece.encode())}
        others = [
            {**token, "token": f"{piece}{rank or ''}", "logprob": -0.25 - rank}
            for rank in range(call.top_logprobs)
        ]
        content.append({**token, "top_logprobs": others})
    return {"content": content, "refusal": None}


def call_id(index: int, tool: ToolCall) -> str:
    """Return the id of an answer's call."""
    return tool.id or ("call_fake" if index == 0 else f"call_fake_{index}")


_SAFE = {"filtered": False, "severity": "safe"}
_FILTERED = [
    {
        "prompt_index": 0,
        "content_filter_results": {
            "hate": _SAFE,
            "self_harm": _SAFE,
            "sexual": _SAFE,
            "violence": _SAFE,
        },
    }
]


def _content(answer: Answer) -> str | None:
    if answer.refusal is not None or (answer.tool_calls and not answer.pieces):
        return None
    return answer.text


def _delta(unit: Unit) -> Json:
    match unit:
        case Thought(text=text):
            return {"reasoning_content": text}
        case Text(text=text):
            return {"content": text}
        case Declined(text=text):
            return {"refusal": text}
        case CallStart(index=index, call=tool):
            return {"tool_calls": [{"index": index, **_opened(index, tool, "")}]}
        case CallPiece(index=index, text=text):
            return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}
        case _:
            raise TypeError(f"{unit!r} is no part of a chat completion")


def _opened(index: int, tool: ToolCall, arguments: str) -> Json:
    function = {"name": tool.name, "arguments": arguments}
    return {"id": call_id(index, tool), "type": "function", "function": function}


def _deltas(
    call: Call, answer: Answer, delta: Json, finish: str | None = None
) -> Iterator[Frame]:
    for data in _delta_events(call, answer, delta, (), finish):
        yield Frame(data)


def _delta_events(
    call: Call,
    answer: Answer,
    delta: Json,
    text: tuple[str, ...],
    finish: str | None = None,
) -> Iterator[bytes]:
    for index in range(call.n):
        choice: Json = {
            "index": index,
            "delta": delta,
            "logprobs": logprobs(call, text) if text else None,
            "finish_reason": finish,
        }
        if call.route == "azure-chat":
            choice["content_filter_results"] = {}
        yield _event(call, answer, [choice])


def _event(
    call: Call,
    answer: Answer,
    choices: list[Json],
    *,
    usage: Json | None = None,
    **further: object,
) -> bytes:
    members = _head(answer, "chat.completion.chunk", choices)
    if call.include_usage:
        members["usage"] = usage
    return encode_event(msgspec.json.encode({**members, **further}))


def _head(answer: Answer, kind: str, choices: list[Json]) -> Json:
    return {
        "id": "chatcmpl-fake",
        "object": kind,
        "created": CREATED_S,
        "model": answer.model,
        "service_tier": "default",
        "system_fingerprint": "fp_fake",
        "choices": choices,
    }
