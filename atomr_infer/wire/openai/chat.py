"""The chat completions route: OpenAI's format as the gateway's ingress.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.model.dialect import Dialect
from atomr_infer.wire.openai import error_body
from atomr_infer.wire.openai.chat_answer import ChatAnswerBuilder, ChatStreamEncoder
from atomr_infer.wire.openai.chat_glance import glance_at_chat_request
from atomr_infer.wire.openai.chat_request import parse_chat_request
from atomr_infer.wire.sse import KEEPALIVE

if TYPE_CHECKING:
    from atomr_infer.errors import InferenceError
    from atomr_infer.wire.ingress import AnswerFacts, Asked, Call, ErrorAnswer


class OpenAIErrors:
    """How every OpenAI route refuses."""

    def refuse(self, error: InferenceError, request_id: str) -> ErrorAnswer:
        """Return the HTTP answer for an error that precedes the first byte."""
        del request_id  # OpenAI has it in a header only
        return error_body.answer(error)

    def plain(
        self, status: int, message: str, request_id: str, *, code: str | None = None
    ) -> ErrorAnswer:
        """Return an answer for what HTTP itself refuses: 401, 404, 405, 408, 413."""
        del request_id
        return error_body.plain(status, message, code=code)


class ChatIngress(OpenAIErrors):
    """``POST /v1/chat/completions``."""

    dialect = Dialect.OPENAI_CHAT
    keepalive = KEEPALIVE

    def parse(self, call: Call) -> Asked:
        """Read a request; see :func:`parse_chat_request`."""
        return parse_chat_request(call)

    def glance(self, call: Call) -> Asked | None:
        """Look at a request; see :func:`glance_at_chat_request`."""
        return glance_at_chat_request(call)

    def stream(self, asked: Asked, facts: AnswerFacts) -> ChatStreamEncoder:
        """Begin a streamed answer."""
        return ChatStreamEncoder(facts, include_usage=asked.include_usage)

    def whole(self, asked: Asked, facts: AnswerFacts) -> ChatAnswerBuilder:
        """Begin an answer that is not streamed."""
        del asked
        return ChatAnswerBuilder(facts)
