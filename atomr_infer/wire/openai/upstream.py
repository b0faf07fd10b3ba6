"""Read the answers of an OpenAI-like upstream: its JSON to canonical chunks.

What the canonical form does not model travels as raw JSON, so that a member
that neither side of the gateway knows arrives as it was sent.

Pure.

Source: OpenAI API reference, "Chat completions" and "Streaming".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from atomr_infer.errors import UpstreamProtocolError
from atomr_infer.model.batch import FinishReason, TokenChunk
from atomr_infer.wire.openai.upstream_delta import EMPTY, decode_delta, raw_members
from atomr_infer.wire.openai.upstream_errors import ErrorBody, classify, parse_error
from atomr_infer.wire.openai.upstream_usage import decode_usage

if TYPE_CHECKING:
    from atomr_infer.model.secret import Secret

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
_decode_optional = msgspec.json.Decoder(str | None).decode

_FINISH_REASONS = {reason.value: reason for reason in FinishReason}
_FINISH_REASONS["function_call"] = FinishReason.TOOL_CALLS

_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


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
    """Return one choice as a chunk; what it says is under ``member``."""
    try:
        said = decode_delta(_decode_members(choice.pop(member, _NULL)) or {})
        # A bare text completion has its text in the choice itself.
        text = _decode_optional(choice.pop("text", _NULL)) or ""
        index = _decode_index(choice.pop("index", _NULL)) or 0
        native = _decode_optional(choice.pop("finish_reason", _NULL))
    except _DECODE_ERRORS as error:
        raise malformed("event" if member == "delta" else "body") from error
    logprobs = choice.pop("logprobs", _NULL)
    finish = finish_reason(native) if native else unfinished
    return TokenChunk(
        text=said.text or text,
        index=index,
        finish_reason=finish,
        reasoning=said.reasoning,
        tool_calls=said.tool_calls,
        refusal=said.refusal,
        logprobs=None if bytes(logprobs) in EMPTY else bytes(logprobs),
        # A word of OpenAI's own says nothing beside the canonical reason.
        native_finish=None if native in _FINISH_REASONS else native or None,
        stop_sequence=_stop_sequence(choice.get("stop_reason")),
        extra=said.extra,
        choice_extra=raw_members(choice),
        model=model,
    )


def _stop_sequence(raw: msgspec.Raw | None) -> str | None:
    """Return which stop string ended the answer, as vLLM tells."""
    if raw is None or bytes(raw)[:1] != b'"':
        return None
    return _decode_text(raw)


def _says_something(chunk: TokenChunk) -> bool:
    said = chunk.has_content or chunk.choice_extra or chunk.logprobs
    return bool(said) or chunk.finish_reason is not None


def finish_reason(native: str) -> FinishReason:
    """Return the canonical reason for an upstream's own.

    A word that is not OpenAI's (``eos``, ``abort``) becomes STOP: the answer
    has ended, and no other class of reason can be claimed for it.

    >>> finish_reason("function_call")
    <FinishReason.TOOL_CALLS: 'tool_calls'>
    """
    return _FINISH_REASONS.get(native, FinishReason.STOP)
