"""Somebody who waits for permits until the home has answered.

Pure.
"""

from __future__ import annotations

import attrs


@attrs.define(eq=False)
class Waiter:
    """An acquire that waits.

    Attributes:
        ticket: tells the answers apart.
        permits: how many it wants.
        until_s: when it waits no more.
        asked_s: when the home was first told of it; infinite: not yet.
    """

    ticket: int
    permits: int
    until_s: float
    asked_s: float = float("inf")
