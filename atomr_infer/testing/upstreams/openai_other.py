"""OpenAI's completions and embeddings: what it accepts, and what it answers.

Pure.
"""

from __future__ import annotations

import array
import base64
from typing import TYPE_CHECKING, Any

import msgspec

from atomr_infer.testing.upstreams.answer import Answer, Text, units
from atomr_infer.testing.upstreams.call import Call, Members, Operation, words
from atomr_infer.testing.upstreams.checks import Invalid
from atomr_infer.testing.upstreams.dialect import Frame
from atomr_infer.testing.upstreams.embeddings import embed
from atomr_infer.testing.upstreams.openai_chat import (
    CREATED_S,
    finish_reason,
    usage_members,
)
from atomr_infer.testing.upstreams.openai_checks import (
    check_numbers,
    missing,
    refuse_unknown,
    required_model,
    stops,
    wrong_type,
    wrong_value,
)
from atomr_infer.wire.sse import DONE, encode_event

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_COMPLETION_MEMBERS = frozenset(
    {
        "best_of",
        "echo",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "model",
        "n",
        "presence_penalty",
        "prompt",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "suffix",
        "temperature",
        "top_p",
        "user",
    }
)
_EMBEDDING_MEMBERS = frozenset(
    {"dimensions", "encoding_format", "input", "model", "user"}
)
_DEFAULT_MAX_TOKENS = 16

Json = dict[str, Any]


def completion_call(members: Members, *, model: str, strict: bool) -> Call:
    """Return the call that the body of a completion is; see ``chat_call``."""
    model = model or required_model(members)
    if strict:
        refuse_unknown(members, _COMPLETION_MEMBERS)
    check_numbers({k: v for k, v in members.items() if k != "logprobs"})
    prompts = _texts("prompt", members.get("prompt", "<|endoftext|>"))
    options = members.get("stream_options") or {}
    wanted = members.get("logprobs")
    return Call(
        route="completions",
        model=model,
        members=members,
        stream=bool(members.get("stream")),
        include_usage=bool(options.get("include_usage")),
        n=len(prompts) * (members.get("n") or 1),
        # An answer of a completion is short unless somebody says otherwise.
        max_tokens=members.get("max_tokens") or _DEFAULT_MAX_TOKENS,
        stop=stops(members),
        prompt_tokens=sum(map(_size, prompts)),
        top_logprobs=None if wanted is None else int(wanted),
    )


def embedding_call(members: Members, *, model: str, strict: bool) -> Call:
    """Return the call that the body of an embedding is; see ``chat_call``."""
    model = model or required_model(members)
    if strict:
        refuse_unknown(members, _EMBEDDING_MEMBERS)
    if "input" not in members:
        raise missing("input")
    texts = _texts("input", members["input"])
    if not texts or any(text in ("", []) for text in texts):
        raise Invalid(
            "Invalid 'input': input cannot be an empty string.", param="input"
        )
    form = members.get("encoding_format", "float")
    if form not in ("float", "base64"):
        raise wrong_value("encoding_format", form, ("float", "base64"))
    return Call(
        operation=Operation.EMBED,
        route="embeddings",
        model=model,
        members=members,
        prompt_tokens=sum(map(_size, texts)),
    )


def completion(call: Call, answer: Answer) -> Json:
    """Return a completion."""
    choices = [
        _choice(call, answer.pieces, index, finish_reason(answer))
        for index in range(call.n)
    ]
    members = _head(answer, choices)
    if answer.usage is not None:
        members["usage"] = usage_members(answer.usage)
    return members


def completion_chunks(call: Call, answer: Answer, *, done: bool) -> Iterator[Frame]:
    """Yield a streamed completion."""
    for unit in units(answer):
        if isinstance(unit, Text):
            for index in range(call.n):
                choice = _choice(call, (unit.text,), index, None)
                yield Frame(_event(call, answer, [choice]), unit.position)
    for index in range(call.n):
        choice = _choice(call, (), index, finish_reason(answer))
        yield Frame(_event(call, answer, [choice]), closing=True)
    if call.include_usage and answer.usage is not None:
        usage = usage_members(answer.usage)
        yield Frame(_event(call, answer, [], usage), closing=True)
    if done:
        yield Frame(encode_event(DONE), closing=True)


def embeddings(call: Call) -> Json:
    """Return a list of vectors."""
    size = call.members.get("dimensions")
    texts = _texts("input", call.members["input"])
    return {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": _encoded(call, embed(str(text), size)),
            }
            for index, text in enumerate(texts)
        ],
        "model": call.model,
        "usage": {
            "prompt_tokens": call.prompt_tokens,
            "total_tokens": call.prompt_tokens,
        },
    }


def _encoded(call: Call, vector: list[float]) -> list[float] | str:
    if call.members.get("encoding_format") != "base64":
        return vector
    return base64.b64encode(array.array("f", vector).tobytes()).decode()


def _texts(name: str, value: object) -> Sequence[object]:
    """Return each text of a text, of texts, of tokens, or of lists of tokens."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise wrong_type(name, "a string or an array", value)
    return [value] if value and isinstance(value[0], int) else value


def _size(text: object) -> int:
    return (
        words(text)
        if isinstance(text, str)
        else len(text)
        if isinstance(text, list)
        else 0
    )


def _choice(
    call: Call, pieces: tuple[str, ...], index: int, finish: str | None
) -> Json:
    return {
        "text": "".join(pieces),
        "index": index,
        "logprobs": _logprobs(call, pieces),
        "finish_reason": finish,
    }


def _logprobs(call: Call, pieces: tuple[str, ...]) -> Json | None:
    if call.top_logprobs is None or not pieces:
        return None
    return {
        "tokens": list(pieces),
        "token_logprobs": [-0.25] * len(pieces),
        "top_logprobs": [{piece: -0.25} for piece in pieces],
        "text_offset": [len("".join(pieces[:place])) for place in range(len(pieces))],
    }


def _event(
    call: Call, answer: Answer, choices: list[Json], usage: Json | None = None
) -> bytes:
    members = _head(answer, choices)
    if call.include_usage:
        members["usage"] = usage
    return encode_event(msgspec.json.encode(members))


def _head(answer: Answer, choices: list[Json]) -> Json:
    return {
        "id": "cmpl-fake",
        "object": "text_completion",
        "created": CREATED_S,
        "model": answer.model,
        "system_fingerprint": "fp_fake",
        "choices": choices,
    }
