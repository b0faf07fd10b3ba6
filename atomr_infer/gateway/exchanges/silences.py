"""What keeps a silent stream open: a few bytes now and then that no client sees.

Proxies and clients close a stream that says nothing for long, and a model may
think for minutes.  One task looks at all streamed answers three times within
``keepalive_s``, and one that has been silent since the third look before gets
its dialect's bytes.  So a silence lasts ``keepalive_s`` at most, and a chunk
costs two stores.

A stream is looked at from its first chunk to its end.  Before it, nothing is
sent: the status is still open then, and an error has its own.  A client that
would rather not wait in silence says so, and its stream is looked at from the
start.

Cost: a look at each streamed answer every ``keepalive_s / 3`` seconds.
"""

from __future__ import annotations

from math import inf
from typing import Protocol

import trio

LOOKS = 3
"""Looks within the longest silence."""

BUSY = -1
"""A piece is being sent: that is no silence, however slowly it is read."""


class Silent(Protocol):
    """A streamed answer.

    Attributes:
        quiet: looks since its last piece; :data:`BUSY` while one is being sent.
    """

    quiet: int

    def keep_alive(self) -> None:
        """Send what its client does not see; does not wait."""
        ...


class Silences:
    """The streamed answers of a gateway.

    Attributes:
        watched: those that have begun.
    """

    def __init__(self, keepalive_s: float = 0.0) -> None:
        """Watch nothing yet.

        Args:
            keepalive_s: the longest silence, in seconds; 0: as long as it likes.
        """
        self.watched: set[Silent] = set()
        self._look_every_s = keepalive_s / LOOKS
        self._changed = trio.Event()

    def change(self, keepalive_s: float) -> None:
        """Take another longest silence, also for answers that are silent now."""
        self._look_every_s = keepalive_s / LOOKS
        self._changed.set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            wait_s = self._look_every_s or inf
            with trio.move_on_after(wait_s) as waited:
                await self._changed.wait()
            if waited.cancelled_caught:
                self._look()
            else:
                self._changed = trio.Event()

    def _look(self) -> None:
        for answer in self.watched:
            if answer.quiet == BUSY:
                continue
            answer.quiet += 1
            if answer.quiet >= LOOKS:
                answer.quiet = 0
                answer.keep_alive()
