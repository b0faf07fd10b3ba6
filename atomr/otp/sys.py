"""Looking into a live process, and steering it: any behaviour, any time.

::

    await sys.get_state("counter")
    await sys.trace("counter", print)
    await sys.suspend("counter")

For people at a prompt, for observers and for tests; not for programs, whose
processes talk by calls.  All of it works on a GenServer, a StateMachine and
the supervisors; a plain process answers no system messages.

Source: OTP ``sys``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs
import trio

from atomr.process.calls import DEFAULT_TIMEOUT_S
from atomr.process.context import ancestors_of
from atomr.process.system import (
    SystemEvent,
    SystemRequest,
    Tracer,
    ask_system,
    debug_of,
    settle_debug,
)
from atomr.refs import Name, Pid

if TYPE_CHECKING:
    from atomr.process.process import Process
    from atomr.refs import Address

S = TypeVar("S")


@attrs.frozen
class Statistics:
    """What was counted.

    Attributes:
        running_s: seconds since counting began.
        messages_in: messages taken to be handled.
        messages_out: of those, how many the process is done with.
    """

    running_s: float
    messages_in: int
    messages_out: int


@attrs.frozen
class ProcessStatus:
    """All that can be told of a live process.

    Attributes:
        pid: its address.
        behaviour: class name of what runs.
        names: registered names.
        ancestors: its supervisor, that one's supervisor, and so on.
        suspended: whether it handles system messages only.
        trapping: whether it traps exits.
        queue_size: messages that wait.
        links: the processes it is linked with.
        monitors: the processes that it monitors.
        monitored_by: the processes that monitor it.
        state: what its ``format_status`` shows.
        uptime_s: seconds since its ``init`` was done.
    """

    pid: Pid
    behaviour: str
    names: tuple[Name, ...]
    ancestors: tuple[Pid, ...]
    suspended: bool
    trapping: bool
    queue_size: int
    links: tuple[Pid, ...]
    monitors: tuple[Pid, ...]
    monitored_by: tuple[Pid, ...]
    state: object
    uptime_s: float


# --- the state --------------------------------------------------------------------


@attrs.frozen
class _GetState(SystemRequest[object]):
    def apply(self, process: Process) -> object:
        return process.behaviour.system_state()


@attrs.frozen
class _ReplaceState(SystemRequest[S], Generic[S]):
    replace: Callable[[S], S]

    def apply(self, process: Process) -> S:
        # Its type is what the asker says, as a call's reply type is.
        before: S = process.behaviour.system_state()  # type: ignore[assignment]
        state = self.replace(before)
        process.behaviour.replace_system_state(process, state)
        return state


@attrs.frozen
class _GetStatus(SystemRequest[ProcessStatus]):
    def apply(self, process: Process) -> ProcessStatus:
        behaviour = process.behaviour
        return ProcessStatus(
            pid=process.pid,
            behaviour=behaviour.behaviour_name(),
            names=tuple(sorted(process.names or ())),
            ancestors=ancestors_of(process),
            suspended=process.debug is not None and process.debug.suspended,
            trapping=process.trapping,
            queue_size=process.queue_size,
            links=tuple(peer.pid for peer in process.links or ()),
            monitors=tuple(p.pid for p in (process.monitoring or {}).values()),
            monitored_by=tuple(p.pid for p in (process.watchers or {}).values()),
            state=behaviour.crash_state(),
            uptime_s=trio.current_time() - process.started_at,
        )


async def get_state(
    server: Address, *, timeout_s: float | None = DEFAULT_TIMEOUT_S
) -> object:
    """Return the state: of a GenServer a copy of the instance.

    The copy is shallow: what its attributes hold, it shares with the server.
    A StateMachine's is the pair of state and copied instance, a supervisor's
    the tuple of its children.

    Raises:
        SystemMessageError: the process answers no system messages, or its
            state cannot be copied.
        CallError: it is not there, ended meanwhile, or is at work.
    """
    return await ask_system(server, _GetState(), timeout_s=timeout_s)


async def replace_state(
    server: Address,
    replace: Callable[[S], S],
    *,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
) -> S:
    """Put ``replace(state)`` in the place of the state, and return it.

    Args:
        server: pid or name.
        replace: gets what :func:`get_state` returns, and returns the same kind
            of thing; it may change what it got.
        timeout_s: bound in seconds; None: no bound.

    Raises:
        SystemMessageError: ``replace`` raised, or returned something else; the
            state is as before.  A supervisor's state cannot be replaced.
        CallError: as for :func:`get_state`.
    """
    return await ask_system(server, _ReplaceState(replace), timeout_s=timeout_s)


async def get_status(
    server: Address, *, timeout_s: float | None = DEFAULT_TIMEOUT_S
) -> ProcessStatus:
    """Return all that can be told of a process.

    Raises:
        SystemMessageError: it answers no system messages.
        CallError: as for :func:`get_state`.
    """
    return await ask_system(server, _GetStatus(), timeout_s=timeout_s)


# --- suspend and resume -------------------------------------------------------------


@attrs.frozen
class _Suspend(SystemRequest[None]):
    suspended: bool

    def apply(self, process: Process) -> None:
        debug_of(process).suspended = self.suspended
        settle_debug(process)


async def suspend(
    server: Address, *, timeout_s: float | None = DEFAULT_TIMEOUT_S
) -> None:
    """Let a process handle system messages and stops only; the rest waits.

    Its callers wait, and their timeouts run.  Suspending twice is suspending.
    """
    await ask_system(server, _Suspend(suspended=True), timeout_s=timeout_s)


async def resume(
    server: Address, *, timeout_s: float | None = DEFAULT_TIMEOUT_S
) -> None:
    """Undo :func:`suspend`: what waited is handled, in order."""
    await ask_system(server, _Suspend(suspended=False), timeout_s=timeout_s)


# --- traces, logs and counts --------------------------------------------------------


@attrs.frozen
class _Trace(SystemRequest[None]):
    tracer_id: str
    tracer: Tracer | None

    def apply(self, process: Process) -> None:
        tracers = debug_of(process).tracers
        tracers.pop(self.tracer_id, None)
        if self.tracer is not None:
            tracers[self.tracer_id] = self.tracer
        settle_debug(process)


async def trace(
    server: Address,
    tracer: Tracer | None,
    *,
    tracer_id: str = "trace",
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
) -> None:
    """Call ``tracer`` with each event of a process; None: stop that.

    Args:
        server: pid or name.
        tracer: plain function; one that raises is removed, and logged.
        tracer_id: a process may have several; the same id replaces.
        timeout_s: bound in seconds; None: no bound.

    Cost: calls take the way through the mailbox while anything is traced.
    """
    await ask_system(server, _Trace(tracer_id, tracer), timeout_s=timeout_s)


@attrs.frozen
class _Log(SystemRequest[None]):
    size: int

    def apply(self, process: Process) -> None:
        events = deque[SystemEvent](maxlen=self.size) if self.size else None
        debug_of(process).events = events
        settle_debug(process)


@attrs.frozen
class _GetLog(SystemRequest[tuple[SystemEvent, ...]]):
    def apply(self, process: Process) -> tuple[SystemEvent, ...]:
        kept = process.debug.events if process.debug is not None else None
        return tuple(kept or ())


async def log(
    server: Address, size: int, *, timeout_s: float | None = DEFAULT_TIMEOUT_S
) -> None:
    """Keep the last ``size`` events; 0: keep none, and drop those kept.

    A crash report shows what was kept.
    """
    await ask_system(server, _Log(size), timeout_s=timeout_s)


async def get_log(
    server: Address, *, timeout_s: float | None = DEFAULT_TIMEOUT_S
) -> tuple[SystemEvent, ...]:
    """Return the events kept by :func:`log`, oldest first."""
    return await ask_system(server, _GetLog(), timeout_s=timeout_s)


@attrs.frozen
class _Count(SystemRequest[None]):
    enabled: bool

    def apply(self, process: Process) -> None:
        debug = debug_of(process)
        debug.counting_since = trio.current_time() if self.enabled else None
        debug.messages_in = debug.messages_out = 0
        settle_debug(process)


@attrs.frozen
class _GetCount(SystemRequest[Statistics | None]):
    def apply(self, process: Process) -> Statistics | None:
        debug = process.debug
        if debug is None or debug.counting_since is None:
            return None
        running_s = trio.current_time() - debug.counting_since
        return Statistics(running_s, debug.messages_in, debug.messages_out)


async def count(
    server: Address,
    *,
    enabled: bool = True,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
) -> None:
    """Begin to count what a process handles, from 0; or end that."""
    await ask_system(server, _Count(enabled), timeout_s=timeout_s)


async def statistics(
    server: Address, *, timeout_s: float | None = DEFAULT_TIMEOUT_S
) -> Statistics | None:
    """Return what was counted; None: :func:`count` was not called."""
    return await ask_system(server, _GetCount(), timeout_s=timeout_s)


# --- all of it off -------------------------------------------------------------------


@attrs.frozen
class _NoDebug(SystemRequest[None]):
    def apply(self, process: Process) -> None:
        debug = debug_of(process)
        debug.tracers.clear()
        debug.events = debug.counting_since = None
        settle_debug(process)


async def no_debug(
    server: Address, *, timeout_s: float | None = DEFAULT_TIMEOUT_S
) -> None:
    """Switch off traces, log and counts; a suspended process stays suspended.

    Looking costs time for each message: be sure to end it.
    """
    await ask_system(server, _NoDebug(), timeout_s=timeout_s)
