"""The bound on how long an engine or upstream may say nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from atomr_infer.errors import UpstreamTimeoutError

if TYPE_CHECKING:
    from types import TracebackType

    from atomr_infer.remote.http.watchdog import Watchdog


class Silence:
    """A block with a bound on how long an engine or upstream may say nothing.

    While the sink takes a chunk the bound is off, since a slow client is not a
    silent engine.  So it moves twice with each chunk, and the watchdog keeps it:
    moving a scope's own deadline would cost as much as the chunk.

    Attributes:
        scope: the block's.
        due_at: when something must have been said; ``inf``: it is our turn.
    """

    def __init__(self, watchdog: Watchdog) -> None:
        self.scope = trio.CancelScope()
        self.due_at = math.inf
        self._watchdog = watchdog
        self._bound_s = math.inf
        self._awaited = ""

    def __enter__(self) -> None:
        self._watchdog.watched.add(self)
        self.scope.__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._watchdog.watched.discard(self)
        return self.scope.__exit__(exc_type, exc, traceback)

    def pause(self) -> None:
        """Take the bound off: it is our turn."""
        self.due_at = math.inf

    def expect(self, bound_s: float, awaited: str) -> None:
        """Wait for the next chunk, at most so long."""
        self._bound_s = bound_s
        self._awaited = awaited
        self.due_at = trio.current_time() + bound_s
        self._watchdog.notice(self.due_at)

    async def expire(self) -> None:
        """End the block: the bound was passed."""
        self.scope.cancel()

    def error(self, deployment: str) -> UpstreamTimeoutError:
        """Return the error when the bound was passed."""
        return UpstreamTimeoutError(
            f"{deployment} was silent for {self._bound_s:g} s before {self._awaited}"
        )
