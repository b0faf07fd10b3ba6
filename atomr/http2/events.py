"""What a link's protocol reports, and the words for why a link ends.

The messages of the lanes are events themselves: see ``atomr.http2.frames``.

Pure.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import TypeAlias

import attrs

from atomr.http2.frames import Frame


class Lane(IntEnum):
    """The three long-lived streams of a link; the value is the stream's number.

    ``CTL`` is sent before all else: probes, gossip, leases.  ``MSG`` is for calls
    and tells.  ``BULK`` is for what may take long, such as snapshots.
    """

    CTL = 1
    MSG = 3
    BULK = 5


class Reason(StrEnum):
    """Why a link ended, or never came to be."""

    CLOSED = "closed"
    """It was closed on this side."""

    GOODBYE = "goodbye"
    """The peer closed it on purpose, and said so."""

    PEER_CLOSED = "peer_closed"
    """The peer's end of the connection is gone: its process died, mostly."""

    BROKEN = "broken"
    """The network broke the connection."""

    NO_PONG = "no_pong"
    """No HTTP/2 PING came back: the path is cut, or the peer's machine hangs."""

    STALLED = "stalled"
    """Pings come back and probes do not: the peer's process does no work."""

    MALFORMED = "malformed"
    """The peer does not keep to the protocol."""

    FLOOD = "flood"
    """The peer keeps to it, and floods us."""

    OVERFLOW = "overflow"
    """The peer asks and does not read the answers."""

    REPLACED = "replaced"
    """Another connection with the same node took its place."""

    WRONG_CERTIFICATE = "wrong_certificate"
    """TLS failed: another authority, an expired certificate, none at all."""

    WRONG_NAME = "wrong_name"
    """The certificate, the hello and the name that was dialed are not the same."""

    WRONG_CLUSTER = "wrong_cluster"
    """The peer belongs to another cluster."""

    WRONG_COOKIE = "wrong_cookie"
    """The peer does not know the cluster's cookie."""

    WRONG_VERSION = "wrong_version"
    """The peer speaks another version of this protocol."""

    DUPLICATE = "duplicate"
    """There is a link with that node already."""

    SUPERSEDED = "superseded"
    """A later life of the node that dialed has a link: its boot id is greater."""

    UNREACHABLE = "unreachable"
    """Nobody listens at that address."""

    TOO_SLOW = "too_slow"
    """The handshake was not done in time."""


@attrs.frozen
class StreamOpened:
    """The peer opened a stream of its own.

    Attributes:
        stream_id: its number.
    """

    stream_id: int


@attrs.frozen
class StreamData:
    """Bytes came on a stream of its own.

    Attributes:
        stream_id: its number.
        data: the bytes.
        window_bytes: what they took of the window, padding included.
    """

    stream_id: int
    data: bytes
    window_bytes: int


@attrs.frozen
class StreamEnded:
    """The peer sends no more on a stream.

    Attributes:
        stream_id: its number.
    """

    stream_id: int


@attrs.frozen
class StreamReset:
    """The peer broke a stream off.

    Attributes:
        stream_id: its number.
        code: HTTP/2's name of the reason.
    """

    stream_id: int
    code: str


@attrs.frozen
class Ponged:
    """A PING came back.

    Attributes:
        number: as it was sent.
    """

    number: int


@attrs.frozen
class PeerLeft:
    """The peer ended the connection.

    Attributes:
        code: HTTP/2's number of the reason; 0 for none.
        said: what it wrote beside it.
    """

    code: int
    said: str


Event: TypeAlias = (
    Frame | StreamOpened | StreamData | StreamEnded | StreamReset | Ponged | PeerLeft
)
