"""What can be wrong with a link, as its parts tell each other.

Users get the errors of ``atomr.errors``, which are made of these.

Pure.
"""

from __future__ import annotations

from h2.errors import ErrorCodes


class PeerError(Exception):
    """The peer broke the protocol; the text quotes none of its bytes.

    Attributes:
        flood: it kept to the rules, and does too much.
    """

    def __init__(self, problem: str, *, flood: bool = False) -> None:
        self.flood = flood
        super().__init__(problem)


class LaneFullError(Exception):
    """Too much waits on a lane.

    Attributes:
        queued_bytes: what waits.
        limit_bytes: what may.
    """

    def __init__(self, queued_bytes: int, limit_bytes: int) -> None:
        self.queued_bytes = queued_bytes
        self.limit_bytes = limit_bytes
        super().__init__(queued_bytes, limit_bytes)


class NoStreamError(Exception):
    """No further stream can be opened now."""


def code_name(code: object) -> str:
    """Return HTTP/2's name of a code."""
    return code.name if isinstance(code, ErrorCodes) else "an unknown code"


def named(error: Exception) -> str:
    """Name what is wrong without a word of h2's, which may quote the peer."""
    code = getattr(error, "error_code", None)
    return "its frames are malformed" + (f" ({code_name(code)})" if code else "")
