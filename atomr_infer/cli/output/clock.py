"""Instants, as the commands print them."""

from __future__ import annotations

from datetime import UTC, datetime


def clock(epoch_s: float) -> str:
    """Return an instant in words.

    >>> clock(0)
    '1970-01-01 00:00:00 UTC'
    """
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
