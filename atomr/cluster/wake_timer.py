"""The one timer of a process that runs a state machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.process import cancel_timer, send_after

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.process import TimerRef
    from atomr.refs import Pid


class WakeTimer:
    """Sends a message to a process when its machine is due.

    What is due later than before is waited for that long: most of what is due soon is
    for an answer that comes at once, and a process that is woken for nothing costs as
    much as one that has something to do.
    """

    def __init__(
        self,
        pid: Pid,
        message: object,
        *,
        now: Callable[[], float],
        least_s: float = 0.0,
    ) -> None:
        """Be armed for nothing yet.

        Args:
            pid: of the process.
            message: what it gets.
            now: the clock of the machine.
            least_s: the process is woken no sooner than after that.
        """
        self._pid = pid
        self._message = message
        self._now = now
        self._least_s = least_s
        self._at: float | None = None
        self._timer: TimerRef | None = None

    def arm(self, at: float | None) -> None:
        """Be due then, and at no other time; None: at no time."""
        if at == self._at:
            return
        if self._timer is not None:
            cancel_timer(self._timer)
        self._at, self._timer = at, None
        if at is not None:
            delay_s = max(self._least_s, at - self._now())
            self._timer = send_after(delay_s, self._pid, self._message)

    def fired(self) -> None:
        """Note that the message has come."""
        self.arm(None)
