"""The phases of an exchange: their limits, and what an error in each one means.

This is the one place where transport errors become errors of inference.  What
decides is the phase: before a connection exists nothing was asked, so a retry
is always safe; after that the upstream may have begun.
"""

from __future__ import annotations

import math
import ssl
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar

import attrs
import h11
import trio

from atomr_infer.errors import (
    StreamCutError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
)
from atomr_infer.remote.connection import (
    MAX_HEAD_BYTES,
    HttpConnection,
    PeerClosedError,
)
from atomr_infer.remote.origin import Origin

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class Phase(Enum):
    """What an exchange waits for."""

    CONNECT = "connect"
    WRITE = "write"
    HEAD = "head"
    BODY = "body"


TRANSPORT_ERRORS = (
    trio.TooSlowError,
    trio.BrokenResourceError,
    h11.RemoteProtocolError,
    PeerClosedError,
    ssl.SSLError,
    OSError,
)
"""What trio, h11 and ssl raise for a peer's or the network's fault."""


@attrs.frozen(kw_only=True)
class HttpTimeouts:
    """How long each phase of an exchange may take, in seconds; ``inf``: forever.

    Attributes:
        connect_s: name look-up, TCP and TLS together.
        write_s: sending the whole request.
        head_s: from the request's last byte to the answer's headers.
        idle_s: between two reads of the body.
    """

    connect_s: float = 10.0
    write_s: float = 60.0
    head_s: float = 120.0
    idle_s: float = 60.0

    def of(self, phase: Phase) -> float:
        """Return the limit of a phase."""
        return {
            Phase.CONNECT: self.connect_s,
            Phase.WRITE: self.write_s,
            Phase.HEAD: self.head_s,
            Phase.BODY: self.idle_s,
        }[phase]


@attrs.frozen
class Phases:
    """Runs the steps of exchanges with one upstream under their limits."""

    origin: Origin
    timeouts: HttpTimeouts

    async def run(
        self,
        phase: Phase,
        step: Callable[[], Awaitable[T]],
        connection: HttpConnection | None = None,
    ) -> T:
        """Run one step, and translate what goes wrong in it."""
        seconds = self.timeouts.of(phase)
        try:
            if seconds == math.inf:
                return await step()
            with trio.fail_after(seconds):
                return await step()
        except TRANSPORT_ERRORS as error:
            translated = translate(
                error,
                phase=phase,
                origin=self.origin,
                seconds=seconds,
                at_eof=connection is not None and connection.at_eof,
            )
            # h11's text quotes the peer's bytes, and a log shows causes.
            quotes_peer = isinstance(error, h11.RemoteProtocolError)
            raise translated from (None if quotes_peer else error)


_WAITED_FOR = {
    Phase.CONNECT: "no connection to",
    Phase.WRITE: "could not send the request to",
    Phase.HEAD: "no answer from",
    Phase.BODY: "no more of the answer from",
}


def translate(
    error: BaseException, *, phase: Phase, origin: Origin, seconds: float, at_eof: bool
) -> UpstreamError:
    """Return the error of inference for one of :data:`TRANSPORT_ERRORS`.

    Args:
        error: what was raised.
        phase: during what.
        origin: the upstream, for the message.
        seconds: the phase's limit.
        at_eof: True when the peer has ended its side of the connection.

    Returns:
        For a timeout :class:`UpstreamTimeoutError` whose ``code`` is
        ``connect_timeout``, ``write_timeout``, ``head_timeout`` or
        ``body_timeout``; :class:`UpstreamConnectError` when there was no
        connection; :class:`StreamCutError` when it was lost, with code
        ``no_response`` when nothing of the answer had come; else
        :class:`UpstreamProtocolError`.
    """
    if isinstance(error, trio.TooSlowError):
        return UpstreamTimeoutError(
            f"{_WAITED_FOR[phase]} {origin} within {seconds:g} s",
            code=f"{phase.value}_timeout",
        )
    if phase is Phase.CONNECT:
        return UpstreamConnectError(f"no connection to {origin}: {describe(error)}")
    if isinstance(error, h11.RemoteProtocolError) and not at_eof:
        return UpstreamProtocolError(
            f"{origin} does not speak HTTP/1.1: {_malformed(error, phase)}"
        )
    if phase is Phase.BODY:
        return StreamCutError(f"{origin} broke off its answer: {describe(error)}")
    return StreamCutError(
        f"{origin} closed the connection without an answer: {describe(error)}",
        code="no_response",
    )


def _malformed(error: h11.RemoteProtocolError, phase: Phase) -> str:
    """Say what is wrong without a byte of the peer's, which may be our key."""
    part = "body" if phase is Phase.BODY else "head"
    if error.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
        return f"the {part} of its answer has a part beyond {MAX_HEAD_BYTES} bytes"
    return f"the {part} of its answer is malformed"


def describe(error: BaseException) -> str:
    """Return what lies at the bottom of an error, for a message.

    h11's words are left out, since they quote the peer.

    trio wraps what the system said: in a group when several addresses were
    tried, as the cause when TLS failed.

    >>> describe(OSError("all failed"))
    'all failed'
    """
    if isinstance(error, h11.RemoteProtocolError):
        return "the connection ended inside it"
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(describe(e) for e in error.exceptions))
    if error.__cause__ is not None:
        return describe(error.__cause__)
    return str(error) or type(error).__name__
