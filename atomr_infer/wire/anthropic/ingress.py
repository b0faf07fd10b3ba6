"""Anthropic's Messages API as the gateway drives it.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from atomr_infer.model.dialect import Dialect
from atomr_infer.wire.anthropic import error_body
from atomr_infer.wire.anthropic.answer_stream import PING, MessageStreamEncoder
from atomr_infer.wire.anthropic.answer_whole import MessageBuilder
from atomr_infer.wire.anthropic.glance import glance_at_messages
from atomr_infer.wire.anthropic.request import parse_request

if TYPE_CHECKING:
    from atomr_infer.errors import InferenceError
    from atomr_infer.wire.ingress import AnswerFacts, Asked, Call, ErrorAnswer


class MessagesIngress:
    """``/v1/messages`` and ``/v1/messages/count_tokens``; see ``Ingress``."""

    dialect = Dialect.ANTHROPIC
    keepalive = PING

    def parse(self, call: Call) -> Asked:
        """Read a request.

        Args:
            call: its ``action`` is ``count_tokens`` on that route.

        Raises:
            InvalidRequestError: with ``param`` naming the member at fault.
        """
        return parse_request(call)

    def glance(self, call: Call) -> Asked | None:
        """Look at a request; see :func:`glance_at_messages`."""
        return glance_at_messages(call)

    def stream(self, _: Asked, facts: AnswerFacts) -> MessageStreamEncoder:
        """Begin a streamed answer."""
        return MessageStreamEncoder(facts)

    def whole(self, _: Asked, facts: AnswerFacts) -> MessageBuilder:
        """Begin an answer that is not streamed."""
        return MessageBuilder(facts)

    def refuse(self, error: InferenceError, request_id: str) -> ErrorAnswer:
        """Return the HTTP answer for an error that precedes the first byte."""
        return error_body.answer(error, request_id)

    def plain(
        self,
        status: int,
        message: str,
        request_id: str,
        *,
        code: str | None = None,
    ) -> ErrorAnswer:
        """Return an answer for what HTTP itself refuses: 401, 404, 405, 408, 413.

        Args:
            status: HTTP status.
            message: one sentence.
            request_id: ours.
            code: not written; the dialect has no place for one.
        """
        return error_body.plain(status, message, request_id)


def counted(input_tokens: int) -> bytes:
    """Return the answer of ``/v1/messages/count_tokens``."""
    return msgspec.json.encode({"input_tokens": input_tokens})


MESSAGES = MessagesIngress()
"""The one that there is: it holds no state."""
