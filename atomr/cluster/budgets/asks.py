"""Somebody who waits for what a node's budgets decide."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from atomr.cluster.budgets.account import Reservation
from atomr.cluster.budgets.core import Fact
from atomr.gossip.ledger import Refused


@attrs.define(eq=False)
class Ask:
    """Waits for an answer, or has left.

    Attributes:
        answer: what it was; None: none has come.
        done: set when it has come, or none will.
        left: what becomes of units that come too late.
    """

    answer: Reservation | Fact | Refused | None = None
    done: trio.Event = attrs.field(factory=trio.Event)
    left: Callable[[Reservation], None] | None = None

    def put(self, answer: Reservation | Fact | Refused) -> None:
        """Take the answer."""
        if self.left is not None and isinstance(answer, Reservation):
            self.left(answer)
        self.answer = answer
        self.done.set()
