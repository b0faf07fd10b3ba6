"""The responses route: OpenAI's newer format as the gateway's ingress.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from atomr_infer.model.collected import Collected
from atomr_infer.model.dialect import Dialect
from atomr_infer.wire.ingress import ReadWhole
from atomr_infer.wire.openai.chat import OpenAIErrors
from atomr_infer.wire.openai.responses_output import (
    ResponseObject,
    ending,
    output_items,
)
from atomr_infer.wire.openai.responses_request import parse_response_request
from atomr_infer.wire.openai.responses_stream import ResponseStreamEncoder
from atomr_infer.wire.sse import KEEPALIVE

if TYPE_CHECKING:
    from atomr_infer.model.batch import TokenChunk
    from atomr_infer.wire.ingress import AnswerFacts, Asked, Call

_json = msgspec.json.Encoder().encode


class ResponsesIngress(OpenAIErrors, ReadWhole):
    """``POST /v1/responses``."""

    dialect = Dialect.OPENAI_RESPONSES
    keepalive = KEEPALIVE

    def parse(self, call: Call) -> Asked:
        """Read a request; see :func:`parse_response_request`."""
        return parse_response_request(call)

    def stream(self, asked: Asked, facts: AnswerFacts) -> ResponseStreamEncoder:
        """Begin a streamed answer."""
        return ResponseStreamEncoder(asked, facts)

    def whole(self, asked: Asked, facts: AnswerFacts) -> ResponseBuilder:
        """Begin an answer that is not streamed."""
        return ResponseBuilder(asked, facts)


class ResponseBuilder:
    """Collects the chunks of one answer into a whole response."""

    def __init__(self, asked: Asked, facts: AnswerFacts) -> None:
        self._object = ResponseObject(asked, facts)
        self._facts = facts
        self._collected = Collected()

    def add(self, chunk: TokenChunk) -> None:
        """Take the next chunk."""
        self._collected.add(chunk)

    def build(self) -> bytes:
        """Return the response object as JSON."""
        choice = self._collected.choice()
        status, reason = ending(choice.finish_reason)
        return _json(
            self._object.members(
                status,
                output_items(choice, self._facts, status, forms=self._object.forms),
                usage=self._collected.usage,
                incomplete=reason,
            )
        )
