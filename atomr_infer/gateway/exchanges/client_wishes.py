"""What a client says in headers about how its request is served.

A client may shorten the time that its request has, never lengthen it, it may
bring a key where a deployment asks for one, it may give up an error's status for a
stream that is never silent for long, it may ask what a stream cost, and it may say
which requests belong together.

Pure.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs

from atomr_infer.model.dialect import Dialect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.serving.shared import Serving

SESSION_HEADER = "x-atomr-session"
"""What a client calls its conversation, so that its requests go to one replica."""

_TIMEOUTS = ("x-request-timeout", "x-stainless-timeout")
"""Seconds; the second is what the SDKs of OpenAI and Anthropic tell of their own."""


def with_wishes(
    serving: Serving, batch: ExecuteBatch, headers: Mapping[str, str]
) -> ExecuteBatch:
    """Return a request with what its headers wish for.

    Args:
        serving: knows which headers can hold a key.
        batch: the request.
        headers: all of its headers, by lower-case name.
    """
    wished = serving.with_client_keys(batch, headers)
    timeout_s = timeout_of(headers)
    if timeout_s is not None:
        wished = attrs.evolve(wished, timeout_s=timeout_s)
    session = headers.get(SESSION_HEADER)
    return attrs.evolve(wished, session=session) if session else wished


def wants_early_stream(headers: Mapping[str, str]) -> bool:
    """Whether a stream shall be kept open before its first chunk, too."""
    wish = headers.get("x-atomr-early-stream")
    return wish is not None and wish.strip().lower() == "true"


def tells_cost(dialect: Dialect, headers: Mapping[str, str]) -> bool:
    """Whether a stream shall end with a comment that says what it cost.

    Not in Gemini's dialect: its SDK takes a comment for an error (W3).
    """
    wanted = headers.get("x-atomr-stream-cost", "").strip().lower() == "true"
    return wanted and dialect is not Dialect.GEMINI


def timeout_of(headers: Mapping[str, str]) -> float | None:
    """Return the shortest time that the headers name; None when they name none.

    >>> timeout_of({"x-request-timeout": "2.5", "x-stainless-timeout": "600"})
    2.5
    >>> timeout_of({"x-stainless-timeout": "NOT_GIVEN"})
    """
    if _TIMEOUTS[0] not in headers and _TIMEOUTS[1] not in headers:
        return None
    found = [_seconds(headers[name]) for name in _TIMEOUTS if name in headers]
    named = [seconds for seconds in found if seconds is not None]
    return min(named, default=None)


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 < seconds < math.inf else None
