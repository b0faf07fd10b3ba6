"""Read a request's body, or say why it is not taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.gateway.exchanges.body_coding import (
    BadCodingError,
    UnfoldsTooFarError,
    UnknownCodingError,
    decoded,
)
from atomr_infer.gateway.exchanges.exchange import BodyTooLargeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.gateway.exchanges.exchange import Exchange

# What curl calls any body that it is not told about; JSON is taken all the same.
_UNTOLD = ("application/x-www-form-urlencoded", "text/plain")

# Unfolding more than this takes long enough for others to notice.
_THREAD_BYTES = 64 * 1024


@attrs.frozen(kw_only=True)
class GatewayLimits:
    """What the gateway accepts, and how long it is silent.

    Attributes:
        max_body_bytes: the largest request body, unfolded.
        body_timeout_s: longest silence while a body arrives.
        keepalive_s: longest silence of a stream of ours; 0: there is no bound.
        shared_references: whether every client may name what upstreams keep.
    """

    max_body_bytes: int = 32 * 1024 * 1024
    body_timeout_s: float = 30.0
    keepalive_s: float = 0.0
    shared_references: bool = False


@attrs.frozen
class RefusedBodyError(Exception):
    """A body that is not taken.

    Attributes:
        status: the HTTP status to answer with.
        message: one sentence for the client.
    """

    status: int
    message: str


async def read_body(
    exchange: Exchange,
    headers: Mapping[str, str],
    limits: GatewayLimits,
    *,
    any_kind: bool = False,
) -> bytes:
    """Return a request's JSON, without its encoding.

    Args:
        exchange: the request.
        headers: by lower-case name.
        limits: what is accepted.
        any_kind: whether it need not be JSON.

    Raises:
        RefusedBodyError: it is too large, too slow, no JSON by its media type,
            or broken.
        ClientGoneError: the client left.
    """
    try:
        body = await exchange.read_body(
            limit_bytes=limits.max_body_bytes, timeout_s=limits.body_timeout_s
        )
    except BodyTooLargeError as error:
        raise _too_large(error.limit_bytes) from error
    except trio.TooSlowError as error:
        raise RefusedBodyError(408, "the body did not arrive in time") from error
    coding = headers.get("content-encoding")
    if coding is not None:
        body = await _decoded(body, coding, limits.max_body_bytes)
    if not any_kind and not is_json(headers.get("content-type"), body):
        kind = headers["content-type"][:60]
        problem = f"the body must be application/json, not {kind!r}"
        raise RefusedBodyError(415, problem)
    return body


def is_json(content_type: str | None, body: bytes) -> bool:
    """Whether a body may be JSON by its media type.

    >>> is_json("application/json; charset=utf-8", b"")
    True
    >>> is_json("multipart/form-data; boundary=x", b"")
    False
    """
    if content_type == "application/json":  # as nearly all are
        return True
    kind = (content_type or "").partition(";")[0].strip().lower()
    if not kind or kind == "application/json" or kind.endswith("+json"):
        return True
    return kind in _UNTOLD and body.lstrip()[:1] in (b"{", b"[")


async def _decoded(body: bytes, coding: str, limit_bytes: int) -> bytes:
    def work() -> bytes:
        return decoded(body, coding, limit_bytes=limit_bytes)

    try:
        if len(body) < _THREAD_BYTES:
            return work()
        return await trio.to_thread.run_sync(work)
    except UnknownCodingError as error:
        raise RefusedBodyError(415, str(error)) from error
    except BadCodingError as error:
        raise RefusedBodyError(400, str(error)) from error
    except UnfoldsTooFarError as error:
        raise _too_large(limit_bytes) from error


def _too_large(limit_bytes: int) -> RefusedBodyError:
    return RefusedBodyError(413, f"the body is larger than {limit_bytes} bytes")
