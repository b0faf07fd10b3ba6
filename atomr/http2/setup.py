"""How a link's HTTP/2 connection is set up: windows, limits, heads.

Pure.
"""

from __future__ import annotations

import logging

import h2.config
import h2.connection
import h2.settings

from atomr.http2.events import Lane
from atomr.http2.guard import MAX_HEADER_BYTES

# At DEBUG hpack writes every header into the log.
logging.getLogger("hpack").setLevel(logging.INFO)

MAX_STREAMS = 512
"""Streams of their own at once, beside the lanes; a request has one."""

STREAM_WINDOW_BYTES = 1024 * 1024
"""What a stream may hold unread; with all streams of a peer at most 512 MiB."""

LANE_WINDOW_BYTES = {
    Lane.CTL: 1024 * 1024,
    Lane.MSG: 1024 * 1024,
    Lane.BULK: 4 * 1024 * 1024,
}
CONNECTION_WINDOW_BYTES = 16 * 1024 * 1024

FIRST_WINDOW_BYTES = 65_535
"""A connection's window before the first WINDOW_UPDATE (RFC 9113, 6.9.2)."""

ANSWER = [(b":status", b"200")]


def request_for(path: bytes) -> list[tuple[bytes, bytes]]:
    """Return the head with which a stream is opened."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":authority", b"node"),
        (b":path", path),
    ]


def connection_of(*, dialed: bool) -> h2.connection.H2Connection:
    """Return a connection that has begun, with its preface queued."""
    connection = h2.connection.H2Connection(
        h2.config.H2Configuration(
            client_side=dialed,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
    )
    codes = h2.settings.SettingCodes
    settings = {
        codes.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
        codes.MAX_CONCURRENT_STREAMS: MAX_STREAMS + len(Lane),
        codes.MAX_HEADER_LIST_SIZE: MAX_HEADER_BYTES,
    }
    if dialed:
        settings[codes.ENABLE_PUSH] = 0
    connection.local_settings = h2.settings.Settings(
        client=dialed, initial_values=settings
    )
    # Or it holds only from the peer's acknowledgement on.
    connection.decoder.max_header_list_size = MAX_HEADER_BYTES
    connection.initiate_connection()
    connection.increment_flow_control_window(
        CONNECTION_WINDOW_BYTES - FIRST_WINDOW_BYTES
    )
    return connection
