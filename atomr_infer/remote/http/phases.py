"""The phases of an exchange: their limits, and what an error in each one means.

Here transport errors become errors of inference; those of connecting do so in
``atomr_infer.remote.http.dialing.dialer``.  What decides is the phase: before a
connection exists nothing was asked, so a retry is always safe; after that the
upstream may have begun.
"""

from __future__ import annotations

import math
import re
import ssl
from enum import Enum
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.errors import (
    StreamCutError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
)
from atomr_infer.remote.http.http1 import FramingError, PeerClosedError

if TYPE_CHECKING:
    from atomr_infer.remote.http.origin import Origin

# What stands before the words of the system's own: its number, and where.
_SYSTEMS_OWN = re.compile(r"^\[Errno \d+\] (Error connecting to \(.*?\): )?")


class Phase(Enum):
    """What an exchange waits for."""

    CONNECT = "connect"
    WRITE = "write"
    HEAD = "head"
    BODY = "body"
    TOTAL = "total"


TRANSPORT_ERRORS = (
    trio.TooSlowError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    FramingError,
    PeerClosedError,
    ssl.SSLError,
    OSError,
)
"""What trio, ssl, the system and the reader raise for a peer's or the network's
fault."""


@attrs.frozen(kw_only=True)
class HttpTimeouts:
    """How long each phase of an exchange may take, in seconds; ``inf``: forever.

    Attributes:
        connect_s: waiting for a free connection, or name look-up, TCP and TLS
            together.
        write_s: sending the whole request.
        head_s: from the request's last byte to the answer's headers.
        idle_s: between two reads of the body, while somebody waits for one.
        total_s: the whole exchange; it ends only a wait, so a caller who has
            what it wants is not disturbed.
    """

    connect_s: float = 10.0
    write_s: float = 60.0
    head_s: float = 120.0
    idle_s: float = 60.0
    total_s: float = math.inf

    def of(self, phase: Phase) -> float:
        """Return the limit of a phase."""
        return {
            Phase.CONNECT: self.connect_s,
            Phase.WRITE: self.write_s,
            Phase.HEAD: self.head_s,
            Phase.BODY: self.idle_s,
            Phase.TOTAL: self.total_s,
        }[phase]


_WAITED_FOR = {
    Phase.WRITE: "could not send the request to",
    Phase.HEAD: "no answer from",
    Phase.BODY: "no more of the answer from",
    Phase.TOTAL: "no end of the answer from",
}


def translate(
    error: BaseException,
    *,
    phase: Phase,
    late_in: Phase,
    origin: Origin,
    seconds: float,
) -> UpstreamError:
    """Return the error of inference for one of :data:`TRANSPORT_ERRORS`.

    Args:
        error: what was raised.
        phase: during what.
        late_in: whose limit it was that passed, the phase's or the whole's.
        origin: the upstream, for the message.
        seconds: that limit.

    Returns:
        For a timeout :class:`UpstreamTimeoutError` whose ``code`` is
        ``write_timeout``, ``head_timeout``, ``body_timeout`` or
        ``total_timeout``; :class:`UpstreamProtocolError` when the peer's bytes
        are wrong; else :class:`StreamCutError`, with code ``no_response`` when
        nothing of the answer had come.
    """
    if isinstance(error, trio.TooSlowError):
        return UpstreamTimeoutError(
            f"{_WAITED_FOR[late_in]} {origin} within {seconds:g} s",
            code=f"{late_in.value}_timeout",
        )
    if isinstance(error, FramingError):
        return UpstreamProtocolError(
            f"{origin} does not speak {error.protocol}: {error}"
        )
    if phase is Phase.BODY:
        return StreamCutError(f"{origin} broke off its answer: {describe(error)}")
    return StreamCutError(
        f"{origin} closed the connection without an answer: {describe(error)}",
        code="no_response",
    )


def describe(error: BaseException) -> str:
    """Return what lies at the bottom of an error, for a message.

    trio wraps what the system said: in a group when several addresses were
    tried, as the cause when TLS failed.

    >>> describe(OSError("all failed"))
    'all failed'
    >>> describe(OSError(111, "Error connecting to ('127.0.0.1', 80): Refused"))
    'Refused'
    """
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(describe(e) for e in error.exceptions))
    if error.__cause__ is not None:
        return describe(error.__cause__)
    return _SYSTEMS_OWN.sub("", str(error)) or type(error).__name__
