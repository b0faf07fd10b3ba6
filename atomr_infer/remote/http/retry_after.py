"""When an upstream wants to be asked again, out of its answer's headers.

Pure: the wall clock is an argument, because an HTTP date is a wall time.

Source: RFC 9110, 10.2.3; OpenAI's ``retry-after-ms``.
"""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_WAIT_S = 86400.0
"""Longest wait that is passed on: beyond a day the number is a mistake."""

_DECIMAL = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


def retry_after_s(headers: Mapping[str, str], *, now_epoch_s: float) -> float | None:
    """Return the seconds to wait; None when the headers do not say.

    ``retry-after-ms`` is the finer one and wins.  A date that has passed, or a
    negative number, is 0; what is not a decimal number or a date is not said.
    More than :data:`MAX_WAIT_S` becomes that.

    Args:
        headers: by lower-case name.
        now_epoch_s: the wall clock, in seconds since 1970.

    >>> retry_after_s({"retry-after": "1.5"}, now_epoch_s=0.0)
    1.5
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return _bounded(milliseconds / 1000)
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is None and text is not None:
        seconds = _until(text, now_epoch_s)
    return None if seconds is None else _bounded(seconds)


def _bounded(seconds: float) -> float:
    return min(max(0.0, seconds), MAX_WAIT_S)


def _number(text: str | None) -> float | None:
    if text is None or _DECIMAL.fullmatch(text) is None:
        return None
    return float(text)


def _until(date: str, now_epoch_s: float) -> float | None:
    try:
        at = parsedate_to_datetime(date)
        # A date without a zone is in GMT: HTTP knows no other.
        at_epoch_s = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return at_epoch_s - now_epoch_s
