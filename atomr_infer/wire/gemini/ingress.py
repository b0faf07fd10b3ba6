"""Google's dialect towards clients: ``:generateContent``, streamed or not.

The model and the action stand in the path, and whether a stream is made of
events stands in the query; so nothing in the body says how it is answered.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.model.dialect import Dialect
from atomr_infer.wire.gemini import error_body
from atomr_infer.wire.gemini.answer import (
    ARRAY,
    EVENTS,
    GeminiAnswerBuilder,
    GeminiStreamEncoder,
)
from atomr_infer.wire.gemini.request import parse_generate, wants_events
from atomr_infer.wire.ingress import Asked, ReadWhole

if TYPE_CHECKING:
    from atomr_infer.errors import InferenceError
    from atomr_infer.wire.ingress import AnswerFacts, Call, ErrorAnswer

ARRAY_TYPE = "application/json; charset=UTF-8"


class GeminiIngress(ReadWhole):
    """The route of ``models/{model}:generateContent`` and its streamed sister."""

    @property
    def dialect(self) -> Dialect:
        """Google's."""
        return Dialect.GEMINI

    @property
    def keepalive(self) -> bytes:
        """A bare blank line: the one thing that its clients do not see (W3)."""
        return b"\n"

    def parse(self, call: Call) -> Asked:
        """Read a request.

        Raises:
            InvalidRequestError: with ``param`` naming the member at fault.
        """
        read = parse_generate(call)
        warnings = tuple(f"{place} was dropped" for place in read.dropped)
        if read.batch.stream and not wants_events(call):
            return Asked(batch=read.batch, warnings=warnings, stream_type=ARRAY_TYPE)
        return Asked(batch=read.batch, warnings=warnings)

    def stream(self, asked: Asked, facts: AnswerFacts) -> GeminiStreamEncoder:
        """Begin a streamed answer: events, or the items of an array."""
        frame = ARRAY if asked.stream_type == ARRAY_TYPE else EVENTS
        return GeminiStreamEncoder(facts, frame=frame)

    def whole(self, asked: Asked, facts: AnswerFacts) -> GeminiAnswerBuilder:
        """Begin an answer that is not streamed."""
        return GeminiAnswerBuilder(facts)

    def refuse(self, error: InferenceError, request_id: str) -> ErrorAnswer:
        """Return the HTTP answer for an error that precedes the first byte."""
        return error_body.answer(error)

    def plain(
        self, status: int, message: str, request_id: str, *, code: str | None = None
    ) -> ErrorAnswer:
        """Return an answer for what HTTP itself refuses: 401, 404, 405, 408, 413."""
        return error_body.plain(status, message, code=code)


GEMINI = GeminiIngress()
