"""Speak to an OpenAI-like upstream: the canonical batch out, chunks back in.

What the canonical form does not model travels as raw JSON and is spliced in
and cut out unchanged, so that a member that neither side of the gateway knows
arrives as it was sent.

Pure.

Source: OpenAI API reference, "Chat completions" and "Streaming".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from atomr_infer.errors import UpstreamProtocolError
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    RawJson,
    RawPart,
    Sampling,
    TextPart,
    TokenChunk,
)
from atomr_infer.wire.openai.upstream_errors import ErrorBody, classify, parse_error
from atomr_infer.wire.openai.upstream_usage import decode_usage

if TYPE_CHECKING:
    from atomr_infer.model.secret import Secret

MaxTokensMember = Literal["max_tokens", "max_completion_tokens"]
"""How an upstream spells the limit: OpenAI's newer models refuse the older
name, and many compatible servers do not know the newer one."""

_encode = msgspec.json.Encoder().encode

_SAMPLING_MEMBERS = (
    "temperature",
    "top_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
)


# --- requests ---------------------------------------------------------------


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
    extra = dict(batch.extra)
    options = extra.pop("stream_options", None)
    body: dict[str, object] = {
        "model": batch.model,
        "messages": [_message(message) for message in batch.messages],
    }
    body.update(_sampling(batch.sampling))
    if batch.sampling.max_tokens is not None and "max_completion_tokens" not in extra:
        body[max_tokens_member] = batch.sampling.max_tokens
    body["stream"] = batch.stream
    if batch.stream:
        body["stream_options"] = _stream_options(options)
    for name, raw in extra.items():
        body.setdefault(name, msgspec.Raw(raw))
    return _encode(body)


def _sampling(sampling: Sampling) -> dict[str, object]:
    members = {name: getattr(sampling, name) for name in _SAMPLING_MEMBERS}
    said = {name: value for name, value in members.items() if value is not None}
    if sampling.stop:
        said["stop"] = sampling.stop
    if sampling.n != 1:
        said["n"] = sampling.n
    return said


def _stream_options(raw: RawJson | None) -> dict[str, object]:
    options: dict[str, object] = {}
    if raw is not None:
        options.update(
            msgspec.json.decode(raw, type=dict[str, msgspec.Raw] | None) or {}
        )
    options["include_usage"] = True
    return options


def _message(message: Message) -> dict[str, object]:
    members: dict[str, object] = {"role": message.role.value}
    if isinstance(message.content, tuple):
        members["content"] = [_part(part) for part in message.content]
    else:
        members["content"] = message.content
    for name, raw in message.extra.items():
        members.setdefault(name, msgspec.Raw(raw))
    return members


def _part(part: TextPart | RawPart) -> object:
    if isinstance(part, RawPart):
        return msgspec.Raw(part.json)
    return {"type": "text", "text": part.text}


# --- answers ----------------------------------------------------------------


_NULL = msgspec.Raw(b"null")

_Members = dict[str, msgspec.Raw]


class _Answer(msgspec.Struct):
    choices: list[_Members] | None = None
    usage: msgspec.Raw = _NULL
    model: str | None = None
    object: str | None = None
    error: Any = None


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_members = msgspec.json.Decoder(_Members | None).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_index = msgspec.json.Decoder(int | None).decode
_decode_reason = msgspec.json.Decoder(str | None).decode

_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

# What says nothing, in every member that a server fills in for completeness.
_EMPTY = (b"null", b"[]")


def decode_chunk(
    data: bytes, *, event: str = "", secret: Secret | None = None
) -> tuple[TokenChunk, ...]:
    """Return what one streamed event says; nothing for an empty delta.

    Usage stands on a chunk of its own, behind the others; one that cannot be
    read counts as none, and takes nothing else with it.

    Args:
        data: the event's data; not ``[DONE]``.
        event: the event's name; ``error`` makes any data an error.
        secret: our key, blotted out of error messages.

    Raises:
        UpstreamProtocolError: ``malformed_event``; it is not a chunk.
        InferenceError: the upstream reports an error in its stream.
    """
    answer = _decode(data, event, secret, what="event")
    chunks = [_choice(choice, "delta", answer.model) for choice in answer.choices or ()]
    chunks = [chunk for chunk in chunks if _says_something(chunk)]
    return (*chunks, *_usage_chunks(answer))


def decode_response(
    body: bytes, *, secret: Secret | None = None
) -> tuple[TokenChunk, ...]:
    """Return a whole answer: one finished chunk per choice, then usage.

    A choice without a ``finish_reason`` came whole, so it is finished: STOP.
    An upstream that does not say its usage gives no usage chunk.

    Raises:
        UpstreamProtocolError: ``malformed_body``; it is not a chat completion.
        InferenceError: it is an error, though its status said otherwise.
    """
    answer = _decode(body, "", secret, what="body")
    if not answer.choices:
        raise malformed("body")
    chunks = [
        _choice(choice, "message", answer.model, unfinished=FinishReason.STOP)
        for choice in answer.choices
    ]
    return (*chunks, *_usage_chunks(answer))


def _usage_chunks(answer: _Answer) -> tuple[TokenChunk, ...]:
    usage = decode_usage(bytes(answer.usage))
    return () if usage is None else (TokenChunk(usage=usage, model=answer.model),)


def _decode(data: bytes, event: str, secret: Secret | None, *, what: str) -> _Answer:
    try:
        answer = _decode_answer(data)
    except _DECODE_ERRORS as error:
        # An error's other members need not have the types of an answer's.
        problem = parse_error(data) or _named_error(data, event)
        if problem is not None:
            raise classify(problem, secret=secret) from error
        raise malformed(what) from error
    if answer.error or answer.object == "error" or event == "error":
        problem = parse_error(data) or _named_error(data, "error")
        raise classify(problem or ErrorBody(), secret=secret)
    return answer


def _named_error(data: bytes, event: str) -> ErrorBody | None:
    if event != "error":
        return None
    return ErrorBody(message=data.decode("utf-8", "replace"))


def malformed(what: str) -> UpstreamProtocolError:
    """Return the error for an ``event`` or ``body`` that is no completion."""
    return UpstreamProtocolError(
        f"the upstream's {what} is not a chat completion", code=f"malformed_{what}"
    )


def _choice(
    choice: _Members,
    member: str,
    model: str | None,
    *,
    unfinished: FinishReason | None = None,
) -> TokenChunk:
    """Return one choice as a chunk; its text is under ``member``."""
    try:
        said = _decode_members(choice.pop(member, _NULL)) or {}
        index = _decode_index(choice.pop("index", _NULL)) or 0
        native = _decode_reason(choice.pop("finish_reason", _NULL))
        text, extra = _delta(said)
    except _DECODE_ERRORS as error:
        raise malformed("event" if member == "delta" else "body") from error
    return TokenChunk(
        text=text,
        index=index,
        finish_reason=finish_reason(native) if native else unfinished,
        extra=extra,
        choice_extra=_raw(choice),
        model=model,
    )


def _delta(members: _Members) -> tuple[str, dict[str, RawJson]]:
    # Who speaks is always the assistant, and the gateway says so itself.
    members.pop("role", None)
    content = members.get("content")
    if content is None:
        return "", _raw(members)
    if bytes(content)[:1] == b'"':
        del members["content"]
        return _decode_text(content), _raw(members)
    # Content in parts (reasoning next to text) has no canonical form: it stays.
    return "", _raw(members)


def _raw(members: _Members) -> dict[str, RawJson]:
    raw = {name: bytes(value) for name, value in members.items()}
    return {name: value for name, value in raw.items() if value not in _EMPTY}


def _says_something(chunk: TokenChunk) -> bool:
    said = chunk.has_content or chunk.choice_extra
    return bool(said) or chunk.finish_reason is not None


_FINISH_REASONS = {reason.value: reason for reason in FinishReason}
_FINISH_REASONS["function_call"] = FinishReason.TOOL_CALLS


def finish_reason(native: str) -> FinishReason:
    """Return the canonical reason for an upstream's own.

    A word that is not OpenAI's (``eos``, ``abort``) becomes STOP: the answer
    has ended, and no other class of reason can be claimed for it.

    >>> finish_reason("function_call")
    <FinishReason.TOOL_CALLS: 'tool_calls'>
    """
    return _FINISH_REASONS.get(native, FinishReason.STOP)
