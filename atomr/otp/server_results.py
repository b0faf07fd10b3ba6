"""What a GenServer's results do; the same with a task and without.

Source: OTP ``gen_server``, the callbacks' return values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.core.messages import Exit, IdleTimeout
from atomr.errors import BadReturnError, InitStoppedError
from atomr.otp.results import ABSENT, Fail, Ignore, NoReply, Ok, Reply, Stop
from atomr.process.calls import From

if TYPE_CHECKING:
    from atomr.core.exits import ExitReason
    from atomr.process.process import Process
    from atomr.process.timers import Timer


class ServerResults:
    """Acts on results for one process; a part of what runs the server.

    Attributes:
        continuation: for ``handle_continue``, before the next message.
        idle_timer: armed by a result's ``timeout_s``.
    """

    # The subclasses have the slots: two bases with slots cannot be combined.
    __slots__ = ()

    continuation: object
    idle_timer: Timer | None

    def own_process(self) -> Process:
        """Return the process that runs the server."""
        raise NotImplementedError

    def init_result(self, result: object) -> bool:
        """Act on what ``init`` returned; return whether to serve.

        Raises:
            InitStoppedError: it returned ``Stop``; an exception as reason is
                raised itself.
            BadReturnError: it returned something else.
        """
        if isinstance(result, Ignore):
            self.own_process().ignored = True
            return False
        if isinstance(result, Stop):
            if isinstance(result.reason, BaseException):
                raise result.reason
            raise InitStoppedError(result.reason)
        if isinstance(result, Ok):
            self.note(result)
        elif result is not None:
            raise BadReturnError("init", result, "Ok, Ignore, Stop or None")
        return True

    def answer(self, from_: From, result: object) -> Stop | None:
        """Act on what ``handle_call`` returned."""
        kind = type(result)
        if kind is Reply:
            from_.reply(result.value)  # type: ignore[attr-defined]
            if result.plain:  # type: ignore[attr-defined]
                return None
        elif kind is NoReply:
            from_.set_aside()
        elif kind is Fail:
            from_.fail(result.error)  # type: ignore[attr-defined]
        elif isinstance(result, Stop):
            return result
        else:
            raise BadReturnError("handle_call", result, "Reply, Fail, NoReply or Stop")
        self.note(result)  # type: ignore[arg-type]
        return None

    def last_reply(self, stop: Stop | None) -> None:
        """Send the reply that came with a stop: after ``terminate``, as in OTP."""
        if stop is not None and stop.reply is not ABSENT:
            current = self.own_process().current
            if type(current) is From:
                current.reply(stop.reply)

    def noted(self, callback: str, result: object) -> Stop | None:
        """Act on what ``handle_cast``, ``_info`` or ``_continue`` returned."""
        if type(result) is NoReply:
            if not result.plain:
                self.note(result)
        elif isinstance(result, Stop):
            if result.reply is not ABSENT:
                raise BadReturnError(callback, result, "Stop without a reply")
            return result
        elif result is not None:
            raise BadReturnError(callback, result, "NoReply, Stop or None")
        return None

    def note(self, result: Ok | Reply | Fail | NoReply) -> None:
        """Remember what is to be done next."""
        if result.plain:
            return
        if result.continue_ is not ABSENT:
            self.continuation = result.continue_  # type: ignore[misc]
        elif result.timeout_s is not None:
            self._arm_idle(result.timeout_s)
        elif result.hibernate:
            self.put_away()

    def put_away(self) -> None:
        """Hibernate once there is nothing to do; without a task, that is so already."""

    def cancel_idle(self) -> None:
        """Disarm the timer: something came."""
        if self.idle_timer is not None:
            self.idle_timer.cancel()
            self.idle_timer = None  # type: ignore[misc]

    def _arm_idle(self, timeout_s: float) -> None:
        process = self.own_process()
        self.cancel_idle()

        def fire() -> None:
            # A message that waits already is activity, not idleness.
            if not process.inbox and not process.batch:
                process.deliver(IdleTimeout())

        timer = process.node.timers.after(timeout_s, fire)
        process.own_timer(timer)
        self.idle_timer = timer  # type: ignore[misc]


def ordered_end(message: object, process: Process) -> ExitReason | None:
    """Return the reason when it is the supervisor's exit signal: always obeyed."""
    if type(message) is Exit and message.pid is not None:
        return message.reason if message.pid is process.parent.own_pid() else None
    return None
