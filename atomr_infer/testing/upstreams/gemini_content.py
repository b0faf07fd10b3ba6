"""Generated content, as Gemini writes it, whole and in chunks.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from atomr_infer.testing.upstream_script import Finish, ToolCall
from atomr_infer.testing.upstreams.answer import (
    Answer,
    CallStart,
    Text,
    Thought,
    Unit,
    units,
)
from atomr_infer.testing.upstreams.dialect import Frame
from atomr_infer.testing.upstreams.embeddings import embed
from atomr_infer.testing.upstreams.gemini_turns import signature_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from atomr_infer.model.usage import Usage
    from atomr_infer.testing.upstreams.call import Call, Members

FINISH: Mapping[Finish, str] = {
    Finish.STOP: "STOP",
    Finish.STOP_SEQUENCE: "STOP",
    Finish.LENGTH: "MAX_TOKENS",
    Finish.TOOL_CALLS: "STOP",
    Finish.CONTENT_FILTER: "SAFETY",
    Finish.PAUSE: "STOP",
    Finish.CONTEXT_FULL: "MAX_TOKENS",
}

Json = dict[str, Any]


def response(call: Call, answer: Answer) -> Json:
    """Return a whole response."""
    if answer.blocked:
        return _blocked(answer)
    answer = _shown(call, answer)
    parts: list[Json] = []
    if answer.reasoning:
        parts.append({"text": "".join(answer.reasoning), "thought": True})
    if answer.pieces:
        signed = {} if answer.tool_calls else _text_signature(answer)
        parts.append({"text": answer.text, **signed})
    parts += [_call_part(number, tool) for number, tool in enumerate(answer.tool_calls)]
    further = {"finishReason": _finish(answer), **_logprobs(call, answer.pieces)}
    candidates = [_candidate(index, parts, **further) for index in range(call.n)]
    return {"candidates": candidates, **_tail(answer, usage_members(answer.usage))}


def chunks(call: Call, answer: Answer, *, done: bool) -> Iterator[Frame]:
    """Yield a streamed response; ``done`` False leaves out an array's end."""
    if answer.blocked:
        frames = [Frame(msgspec.json.encode(_blocked(answer)), closing=True)]
    else:
        frames = list(_frames(call, _shown(call, answer)))
    for number, frame in enumerate(frames):
        data = enclose(call, frame.data, first=number == 0)
        yield attrs.evolve(frame, data=data)
    if done and call.route == "array":
        yield Frame(b"\n]\n", closing=True)


def enclose(call: Call, data: bytes, *, first: bool) -> bytes:
    """Return a chunk as an event, or as an element of the array."""
    if call.route == "events":
        return b"data: %b\r\n\r\n" % data
    return (b"[" if first else b",\r\n") + data


def usage_members(usage: Usage | None) -> Json | None:
    """Return what a response says of its tokens; None: it does not say."""
    if usage is None:
        return None
    prompt = usage.prompt_tokens - usage.tool_prompt
    apart = {"IMAGE": usage.input_image, "AUDIO": usage.input_audio}
    text = prompt - sum(apart.values())
    where_any = {
        "thoughtsTokenCount": usage.reasoning,
        "cachedContentTokenCount": usage.cache_read,
        "toolUsePromptTokenCount": usage.tool_prompt,
    }
    return {
        "promptTokenCount": prompt,
        "candidatesTokenCount": usage.output_tokens - usage.reasoning,
        "totalTokenCount": usage.total_tokens,
        "promptTokensDetails": _modalities({"TEXT": text, **apart}),
        **{name: count for name, count in where_any.items() if count},
    }


def counted(call: Call) -> Json:
    """Return the answer to ``countTokens``."""
    return {
        "totalTokens": call.prompt_tokens,
        "promptTokensDetails": _modalities({"TEXT": call.prompt_tokens}),
    }


def embedded(call: Call) -> Json:
    """Return the answer to a method that embeds."""
    vectors = [_vector(request) for request in call.members["requests"]]
    if call.route == "embedContent":
        return {"embedding": {"values": vectors[0]}}
    if call.route == "batchEmbedContents":
        return {"embeddings": [{"values": values} for values in vectors]}
    statistics = {"truncated": False, "token_count": call.prompt_tokens}
    return {
        "predictions": [
            {"embeddings": {"values": values, "statistics": statistics}}
            for values in vectors
        ]
    }


# --- chunks -----------------------------------------------------------------


def _frames(call: Call, answer: Answer) -> Iterator[Frame]:
    for unit in units(answer):
        part = _part(unit)
        if part is None:
            continue
        text = (unit.text,) if isinstance(unit, Text) else ()
        candidates = [
            _candidate(index, [part], **_logprobs(call, text))
            for index in range(call.n)
        ]
        yield _frame(answer, candidates, _so_far(answer.usage), unit.position)
    last = {"text": "", **({} if answer.tool_calls else _text_signature(answer))}
    parts = [] if answer.finish is Finish.CONTENT_FILTER else [last]
    ended = [
        _candidate(index, parts, finishReason=_finish(answer))
        for index in range(call.n)
    ]
    frame = _frame(answer, ended, usage_members(answer.usage), None)
    yield attrs.evolve(frame, closing=True)


def _frame(
    answer: Answer, candidates: list[Json], usage: Json | None, position: int | None
) -> Frame:
    members = {"candidates": candidates, **_tail(answer, usage)}
    return Frame(msgspec.json.encode(members), position)


def _part(unit: Unit) -> Json | None:
    match unit:
        case Thought(text=text):
            return {"text": text, "thought": True}
        case Text(text=text):
            return {"text": text}
        case CallStart(index=index, call=tool):
            return _call_part(index, tool)
        case _:
            # A call comes whole, and Gemini declines with no text.
            return None


def _so_far(usage: Usage | None) -> Json | None:
    if usage is None:
        return None
    return {
        "promptTokenCount": usage.prompt_tokens - usage.tool_prompt,
        "totalTokenCount": usage.prompt_tokens,
    }


# --- members ----------------------------------------------------------------


def _shown(call: Call, answer: Answer) -> Answer:
    """Return the answer as far as the request may see it."""
    return answer if call.reasoning else attrs.evolve(answer, reasoning=())


def _candidate(index: int, parts: list[Json], **further: object) -> Json:
    content = {"content": {"parts": parts, "role": "model"}} if parts else {}
    return {**content, **further, "index": index}


def _call_part(index: int, tool: ToolCall) -> Json:
    arguments = msgspec.json.decode(tool.arguments_json)
    call: Json = {"name": tool.name, "args": arguments}
    if tool.id is not None:
        call["id"] = tool.id
    part: Json = {"functionCall": call}
    if index == 0:
        # Of calls in parallel only the first is signed.
        part["thoughtSignature"] = signature_of(tool.name, arguments)
    return part


def _text_signature(answer: Answer) -> Json:
    if not answer.reasoning:
        return {}
    return {"thoughtSignature": signature_of("", "".join(answer.reasoning))}


def _finish(answer: Answer) -> str:
    return answer.native_finish or FINISH[answer.finish]


def _logprobs(call: Call, pieces: tuple[str, ...]) -> Json:
    if call.top_logprobs is None or not pieces:
        return {}
    chosen = [_logprob(piece, 0) for piece in pieces]
    tops = [
        {"candidates": [_logprob(piece, rank) for rank in range(call.top_logprobs)]}
        for piece in pieces
    ]
    result = {"chosenCandidates": chosen, "topCandidates": tops}
    return {"avgLogprobs": -0.25, "logprobsResult": result}


def _logprob(piece: str, rank: int) -> Json:
    token = f"{piece}{rank or ''}"
    return {"token": token, "tokenId": rank, "logProbability": -0.25 - rank}


def _tail(answer: Answer, usage: Json | None) -> Json:
    members: Json = {"modelVersion": answer.model, "responseId": "resp-fake"}
    return members if usage is None else {"usageMetadata": usage, **members}


def _blocked(answer: Answer) -> Json:
    rating = {
        "category": "HARM_CATEGORY_DANGEROUS_CONTENT",
        "probability": "HIGH",
        "blocked": True,
    }
    feedback = {"blockReason": "SAFETY", "safetyRatings": [rating]}
    return {"promptFeedback": feedback, **_tail(answer, _so_far(answer.usage))}


def _modalities(counts: Mapping[str, int]) -> list[Json]:
    return [
        {"modality": name, "tokenCount": count}
        for name, count in counts.items()
        if count
    ]


def _vector(request: Members) -> list[float]:
    text = "".join(str(part.get("text", "")) for part in request["content"]["parts"])
    return embed(text, request.get("outputDimensionality"))
