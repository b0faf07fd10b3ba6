"""Whether a node that has just started has heard of all keys that others know.

The replicated values come to it each in its own time, and each from its beginning: a
secret, and later that it was revoked.  So what it has heard is not believed before all
of it has come that those others knew whom it has met: the replicator says so
(:meth:`~atomr.cluster.replicator.Replicator.told`), however long it takes.

Who goes away in the middle still owes the rest: it comes back and tells it, or is given
up after a minute.  Whom it has not met cannot be asked.  When all are there who should
always be, nobody is missing; else the rest is waited for as long as connections may
take.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from atomr.cluster.replicator import Replicator

log = logging.getLogger(__name__)

MEETS_S = 5.0
"""So long others are waited for who are not connected."""

GIVES_UP_S = 60.0
"""So long those are waited for who are, and have not told all: something is wrong."""


class KeyHearing:
    """What a newcomer waits for."""

    def __init__(
        self, replicator: Replicator, others: Callable[[], Collection[str]] | None
    ) -> None:
        """Begin with nobody met.

        Args:
            replicator: what keys are kept in.
            others: returns the names of the nodes that should always be there, without
                this one; None: there can be no others.
        """
        self._replicator = replicator
        self._others = others
        self._is_over = others is None
        self._began_at_s = math.inf
        # Who was seen to know more, and has not told it: also while it is away.
        self._owing: set[str] = set()

    def begin(self) -> None:
        """Let the time run, once."""
        self._began_at_s = min(self._began_at_s, trio.current_time())

    @property
    def is_over(self) -> bool:
        """Whether all has been heard; from then on for ever."""
        if not self._is_over:
            self._is_over = self._look()
        return self._is_over

    @property
    def unheard(self) -> tuple[str, ...]:
        """The nodes that are waited for, sorted: some may be away."""
        if self._is_over or self._others is None:
            return ()
        told = self._replicator.told()
        expected = {*self._others(), *told, *self._owing}
        return tuple(sorted(name for name in expected if not told.get(name, False)))

    def _look(self) -> bool:
        assert self._others is not None, "who has no others waits for nobody"
        waited_s = trio.current_time() - self._began_at_s
        told = self._replicator.told()
        for name, is_all in told.items():
            (self._owing.discard if is_all else self._owing.add)(name)
        if not self._owing:
            return waited_s >= MEETS_S or told.keys() >= set(self._others())
        if waited_s < GIVES_UP_S:
            return False
        log.error(
            "%s have not told all that they know for %g s; virtual keys that they did "
            "tell open from now on, also such as may have been revoked",
            ", ".join(sorted(self._owing)),
            GIVES_UP_S,
        )
        return True
