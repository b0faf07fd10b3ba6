"""What code does to processes: send, link, monitor, exit, timers.

All of it is synchronous: a thing and its consequences happen with no other
task in between.  Nothing here fails because the other process is dead; each
function says what happens then.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import enable_ki_protection

from atomr.core.checks import check_seconds
from atomr.core.exits import KILL, NOPROC, NORMAL, ExitReason
from atomr.core.messages import Down
from atomr.errors import NotAProcessError
from atomr.process import mailbox
from atomr.process.context import (
    CURRENT,
    current_node,
    current_process,
    find_process,
    living_process,
)
from atomr.process.stopping import stop_process, wait_ended
from atomr.refs import Address, Pid, Ref

if TYPE_CHECKING:
    from atomr.process.process import Process
    from atomr.process.timers import Timer

SHORTEST_INTERVAL_S: Final = 0.001
"""Erlang's clock ticks so; anything shorter is a loop, not a timer."""


def self_pid() -> Pid:
    """Return the pid of the running process; its helper tasks share it.

    Raises:
        NotAProcessError: the running task belongs to no process.
    """
    return current_process("self_pid()").pid


def is_alive(pid: Address) -> bool:
    """Return whether the process has not ended; it may be about to."""
    return find_process(pid) is not None


@enable_ki_protection
def send(to: Address, message: object) -> None:
    """Put a message into a mailbox; never blocks.

    Messages of one sender arrive in order.  A message to nobody is dropped.
    From other threads use :func:`send_from_thread`.

    Raises:
        MailboxFullError: a bounded mailbox with the policy ``WAIT`` or
            ``REJECT`` is full.
    """
    # Flat, as it is short and often called.
    process = to._process if type(to) is Pid else find_process(to)  # noqa: SLF001
    if process is not None:
        if process.limit is not None and mailbox.refuses(process):
            return
        process.inbox.append(message)
        if process.idle:
            process.wake()


async def send_wait(to: Address, message: object) -> None:
    """Send, and wait for room first if the mailbox is bounded and full.

    A checkpoint only if it waits.

    Raises:
        MailboxFullError: it is full, and its policy is ``REJECT``.

    Cancellation: the message was not sent.
    """
    process = await mailbox.wait_for_room(to)
    if process is not None:
        process.deliver(message)


def send_from_thread(to: Pid, message: object) -> None:
    """Put a message into a mailbox, from any thread; never blocks or fails.

    For a name, use :meth:`~atomr.process.Node.send_from_thread`.
    """
    process = find_process(to)
    if process is not None:
        process.node.send_from_thread(to, message)


# --- exits ----------------------------------------------------------------------


def exit_process(pid: Address, reason: ExitReason) -> None:
    """Send an exit signal.

    ``KILL`` ends the process with ``KILLED``, trapped or not.  Any other is
    trapped as the message ``Exit(sender, reason)``, or ends the process at its
    next checkpoint; ``NORMAL`` ends only oneself.  ``terminate`` does not run:
    for an orderly end use :func:`stop`.  Nothing happens to the dead.
    """
    process = find_process(pid)
    if process is not None:
        sender = CURRENT.get()
        process.exit_signal(
            reason,
            sender.pid if sender is not None else None,
            to_self=sender is process,
        )


def kill(pid: Address) -> None:
    """Send ``KILL``; same as ``exit_process(pid, KILL)``."""
    exit_process(pid, KILL)


async def stop(pid: Address, reason: ExitReason = NORMAL) -> None:
    """Ask a process to end with ``reason``, and wait until it has.

    A GenServer first finishes the message it works on; a plain process that
    does not trap exits is cancelled.

    It has the shutdown time of its child specification, and is killed then.
    Its supervisor treats this as an end by itself.

    Raises:
        NotAProcessError: a process cannot wait for its own end.

    Cancellation: the process goes on stopping.
    """
    process = find_process(pid)
    if process is None:
        return
    if process is CURRENT.get():
        raise NotAProcessError(f"stop({pid!r}): a process cannot wait for its own end")
    await stop_process(process, reason, orderly=True)


async def wait_exit(pid: Address) -> ExitReason:
    """Wait until the process has ended; works from any task.

    Returns:
        Its exit reason; ``NOPROC`` when it had ended before.
    """
    process = find_process(pid)
    if process is None:
        return NOPROC
    await wait_ended((process,))
    return process.reason if process.reason is not None else NOPROC


def trap_exit(enabled: bool) -> bool:  # noqa: FBT001 - process_flag(trap_exit, x)
    """Let exit signals to the running process arrive as ``Exit`` messages.

    Returns:
        Whether they did before.
    """
    process = current_process("trap_exit()")
    before, process.trapping = process.trapping, enabled
    return before


# --- links and monitors ------------------------------------------------------------


def link(pid: Address) -> None:
    """Link the running process and another: one's abnormal end ends the other.

    With the dead, the running process gets the signal ``NOPROC`` at once.

    Raises:
        NotAProcessError: the running task belongs to no live process.
    """
    process = living_process(f"link({pid!r})")
    peer = find_process(pid)
    if peer is process:
        return
    if peer is None:
        process.exit_signal(NOPROC, pid if isinstance(pid, Pid) else None)
        return
    for one, other in ((process, peer), (peer, process)):
        if one.links is None:
            one.links = {}
        one.links[other] = None


def unlink(pid: Address) -> None:
    """Undo :func:`link`; a signal that has come already stays."""
    process = current_process(f"unlink({pid!r})")
    peer = find_process(pid)
    if peer is None:
        return
    for one, other in ((process, peer), (peer, process)):
        if one.links is not None:
            one.links.pop(other, None)


def monitor(target: Address) -> Ref:
    """Let the running process get one ``Down`` when the target ends.

    For the dead, and for a name that nobody holds, it comes at once with
    ``NOPROC``.  Each call makes a monitor of its own.

    Raises:
        NotAProcessError: the running task belongs to no live process.
    """
    process = living_process(f"monitor({target!r})")
    ref = Ref()
    watched = find_process(target)
    if watched is None:
        pid = target if isinstance(target, Pid) else None
        process.deliver(Down(ref, pid, NOPROC))
        return ref
    if watched.watchers is None:
        watched.watchers = {}
    watched.watchers[ref] = process
    if process.monitoring is None:
        process.monitoring = {}
    process.monitoring[ref] = watched
    return ref


def demonitor(ref: Ref, *, flush: bool = False) -> bool:
    """Undo :func:`monitor`.

    Args:
        ref: what ``monitor`` returned.
        flush: also take a ``Down`` that has come already out of the mailbox.

    Returns:
        Whether the monitor was still there.
    """
    process = current_process(f"demonitor({ref!r})")
    watched = process.monitoring.pop(ref, None) if process.monitoring else None
    if watched is not None and watched.watchers is not None:
        del watched.watchers[ref]
    if flush:
        _flush(process, ref)
    return watched is not None


def _flush(process: Process, ref: Ref) -> None:
    def kept(message: object) -> bool:
        return not (isinstance(message, Down) and message.ref is ref)

    if process.batch:
        # In place: whoever handles it goes on with the list that it has.
        process.batch[:] = [message for message in process.batch if kept(message)]
    process.inbox = [message for message in process.inbox if kept(message)]


# --- timers ------------------------------------------------------------------


class TimerRef:
    """An armed ``send_after`` or ``send_interval``."""

    __slots__ = ("_timer",)

    def __init__(self, timer: Timer | None = None) -> None:
        self._timer = timer

    def cancel(self) -> bool:
        """Disarm it; return whether it was armed."""
        return self._timer is not None and self._timer.cancel()

    def left_s(self) -> float | None:
        """Return the seconds until it fires, at least 0; None: it is not armed."""
        timer = self._timer
        if timer is None or timer.callback is None:
            return None
        return max(0.0, timer.at - trio.current_time())


def send_after(delay_s: float, to: Address, message: object) -> TimerRef:
    """Send a message after a delay.

    A timer for a pid is disarmed when that process ends; a name is looked up
    when the timer fires.

    Args:
        delay_s: seconds from now, at least 0.
        to: pid or name.
        message: what to send.

    Raises:
        TypeError: the delay is no number.
        ValueError: it is negative.
        NoNodeError: ``to`` is a name and there is no node around.
    """
    if type(delay_s) is not float or not delay_s >= 0:
        check_seconds("send_after(): delay_s", delay_s)
    if not isinstance(to, Pid):
        node = current_node()
        return TimerRef(node.timers.after(delay_s, partial(node.deliver, to, message)))
    process = find_process(to)
    if process is None:
        return TimerRef()
    timer = process.node.timers.after(delay_s, partial(process.deliver, message))
    process.own_timer(timer)
    return TimerRef(timer)


def send_interval(interval_s: float, to: Address, message: object) -> TimerRef:
    """Send a message again and again, the first time one interval from now.

    Ticks keep in step with the first one.  What could not be sent because the
    event loop was blocked is sent once, not as often as it was missed.

    Args:
        interval_s: seconds, at least 0.001.
        to: pid or name; as for :func:`send_after`.
        message: what to send.

    Raises:
        TypeError: the interval is no number.
        ValueError: it is shorter.
        NoNodeError: ``to`` is a name and there is no node around.
    """
    check_seconds("send_interval(): interval_s", interval_s)
    if interval_s < SHORTEST_INTERVAL_S:
        expected = f"expected seconds, at least {SHORTEST_INTERVAL_S}"
        raise ValueError(f"send_interval({interval_s!r}): {expected}")
    process = find_process(to) if isinstance(to, Pid) else None
    if process is None and isinstance(to, Pid):
        return TimerRef()
    node = current_node() if process is None else process.node
    ref = TimerRef()

    def arm(at: float) -> None:
        timer = ref._timer = node.timers.at(at, fire)  # noqa: SLF001 - one module
        if process is not None:
            process.own_timer(timer)

    def fire() -> None:
        assert ref._timer is not None, "it has just fired"  # noqa: SLF001 - the same
        at = ref._timer.at  # noqa: SLF001 - the same
        arm(at + interval_s * ((trio.current_time() - at) // interval_s + 1))
        node.deliver(to, message)

    arm(trio.current_time() + interval_s)
    return ref


def read_timer(timer: TimerRef) -> float | None:
    """Return the seconds until it fires, at least 0; None: it is not armed.

    None does not tell whether a message that it sent has been handled yet.
    """
    return timer.left_s()


def cancel_timer(timer: TimerRef) -> bool:
    """Disarm a timer; return whether it was armed.

    A message that was sent already stays in the mailbox.
    """
    return timer.cancel()
