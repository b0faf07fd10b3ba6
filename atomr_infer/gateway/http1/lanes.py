"""Which of the server's three tiers a new connection belongs to.

The first bytes say it: HTTP/1.1 is served by our own code
(``atomr_infer.gateway.http1``), all else by hypercorn as it is
(``atomr_infer.gateway.listening.hypercorn_lane``): HTTP/2, TLS, and a connection that
asks to become a WebSocket later.

Pure.

Source: RFC 9113, 3.4 (the preface of HTTP/2); RFC 8446, 5.1 (a TLS record).
"""

from __future__ import annotations

import enum

import attrs

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_TLS_HANDSHAKE = 22


class Lane(enum.Enum):
    """Who serves a connection."""

    HTTP1 = "our own HTTP/1.1"
    TLS = "hypercorn, behind TLS"
    HYPERCORN = "hypercorn"


@attrs.frozen
class Handover:
    """A connection that another lane is to serve.

    Attributes:
        lane: which.
        data: what was read of it already.
    """

    lane: Lane
    data: bytes


def lane_of(first: bytes) -> Lane | None:
    r"""Return the lane for a connection that starts so; None: too little to say.

    >>> lane_of(b"POST /v1/chat"), lane_of(b"\x16\x03\x01")
    (<Lane.HTTP1: 'our own HTTP/1.1'>, <Lane.TLS: 'hypercorn, behind TLS'>)
    >>> lane_of(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00"), lane_of(b"PR")
    (<Lane.HYPERCORN: 'hypercorn'>, None)
    """
    if not first:
        return None
    if first[0] == _TLS_HANDSHAKE:
        return Lane.TLS
    if first.startswith(_PREFACE):
        return Lane.HYPERCORN
    return None if _PREFACE.startswith(first) else Lane.HTTP1
