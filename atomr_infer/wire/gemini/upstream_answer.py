"""One response of a Gemini upstream: an event of a stream, or a whole body.

Pure.

Source: Gemini API reference, "GenerateContentResponse".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from atomr_infer.errors import UpstreamProtocolError
from atomr_infer.wire.gemini.upstream_errors import ErrorBody, classify, parse_error
from atomr_infer.wire.gemini.upstream_parts import Part

if TYPE_CHECKING:
    from atomr_infer.model.secret import Secret

ABSENT = msgspec.Raw(b"null")
"""What a raw member is that did not come."""


class Content(msgspec.Struct):
    """What a candidate says."""

    parts: list[Part] | None = None


class Candidate(msgspec.Struct, rename="camel"):
    """One of the answers, or the next piece of one."""

    content: Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    index: int | None = None
    logprobs_result: msgspec.Raw = ABSENT
    citation_metadata: msgspec.Raw = ABSENT
    grounding_metadata: msgspec.Raw = ABSENT

    @property
    def cites(self) -> bool:
        """Whether it says where its words come from."""
        raws = (self.citation_metadata, self.grounding_metadata)
        return any(raw is not ABSENT for raw in raws)


class Feedback(msgspec.Struct, rename="camel"):
    """What became of a prompt that is not answered."""

    block_reason: str | None = None


class Response(msgspec.Struct, rename="camel"):
    """A response; an error where it should have been an answer is read too."""

    candidates: list[Candidate] | None = None
    usage_metadata: msgspec.Raw = ABSENT
    prompt_feedback: Feedback | None = None
    model_version: str | None = None
    error: Any = None

    @property
    def is_answer(self) -> bool:
        """Whether it says anything that an answer says."""
        return bool(
            self.candidates
            or self.prompt_feedback is not None
            or bytes(self.usage_metadata) != b"null"
        )


_decode_response = msgspec.json.Decoder(Response).decode

_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decode(
    data: bytes, *, what: str, event: str = "", secret: Secret | None = None
) -> Response:
    """Return the response that JSON holds.

    Args:
        data: the JSON.
        what: ``event`` or ``body``, for the error.
        event: the event's name; ``error`` makes any data an error.
        secret: our key, blotted out of error messages.

    Raises:
        UpstreamProtocolError: ``malformed_event`` or ``malformed_body``.
        InferenceError: the upstream reports an error.
    """
    if event == "error":
        raise classify(parse_error(data) or _named_error(data), secret=secret)
    try:
        response = _decode_response(data)
    except _DECODE_ERRORS as error:
        # An error's other members need not have the types of an answer's.
        problem = parse_error(data)
        if problem is not None:
            raise classify(problem, secret=secret) from error
        raise malformed(what) from error
    if response.error:
        raise classify(parse_error(data) or ErrorBody(), secret=secret)
    return response


def _named_error(data: bytes) -> ErrorBody:
    return ErrorBody(message=data.decode("utf-8", "replace"))


def malformed(what: str) -> UpstreamProtocolError:
    """Return the error for an ``event`` or ``body`` that is no response."""
    return UpstreamProtocolError(
        f"the upstream's {what} is not a GenerateContentResponse",
        code=f"malformed_{what}",
    )
