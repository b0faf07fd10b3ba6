"""Answers that say no, in the dialect of whoever asks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from atomr_infer.gateway.exchanges.answer_headers import (
    failed_headers,
    request_id_headers,
)
from atomr_infer.gateway.exchanges.ingresses import REFUSING

if TYPE_CHECKING:
    from atomr_infer.errors import InferenceError
    from atomr_infer.gateway.exchanges.exchange import Exchange
    from atomr_infer.model.dialect import Dialect

CLOSE = (b"connection", b"close")
"""The header of a connection's last answer."""


RETRY_SOON = (b"retry-after", b"1")
"""The header of an answer to who should ask again."""


def new_id() -> str:
    """Return the id of a new request."""
    return os.urandom(12).hex()


async def answer_error(
    exchange: Exchange, dialect: Dialect, error: InferenceError, request_id: str
) -> None:
    """Answer with an error of inference."""
    answer = REFUSING[dialect].refuse(error, request_id)
    more = (*request_id_headers(request_id, dialect), *failed_headers(error))
    await exchange.answer(answer.status, answer.body, [*answer.headers, *more])


async def fail(
    exchange: Exchange, dialect: Dialect, request_id: str, error: InferenceError
) -> None:
    """Answer with an error of inference, when no answer has begun."""
    if not exchange.started:
        await answer_error(exchange, dialect, error, request_id)


async def refuse(
    exchange: Exchange,
    dialect: Dialect,
    status: int,
    message: str,
    *more: tuple[bytes, bytes],
    code: str | None = None,
) -> None:
    """Answer what HTTP itself refuses, and end the connection."""
    answer = REFUSING[dialect].plain(status, message, new_id(), code=code)
    # Whatever the client still sends of its body is not read: close.
    headers = [CLOSE, *answer.headers, *more]
    await exchange.answer(status, answer.body, headers)
