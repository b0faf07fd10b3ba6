"""DynamicSupervisor: children that come and go, each on its own.

::

    pid = await start_child("sessions", child(Session, restart=Restart.TEMPORARY))

Children are started one by one on request, restarted one by one, and stopped
all at the same time.  They are known by pid; ids may repeat.  An ``attached``
block is a temporary child too, and costs the supervisor a dict entry.

What all children need and no caller should have to know goes into
``extra_arguments``: each start, and each restart, is called with them::

    DynamicSupervisor(extra_arguments=(database,))
    await start_child("sessions", ChildSpec(id="ann", start=Session))
    # runs Session(database)

Source: Elixir ``DynamicSupervisor``; OTP ``simple_one_for_one``.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING

import attrs
import trio

from atomr.core.checks import check_count, check_tuple
from atomr.core.child_spec import BrutalKill, ChildKind, ChildSpec
from atomr.core.start_arguments import StartWith
from atomr.core.supervision import should_restart
from atomr.errors import (
    ChildError,
    ChildNotFoundError,
    MaxChildrenError,
    StartError,
    StartIgnoredError,
)
from atomr.otp.children import (
    ChildCounts,
    ChildInfo,
    ChildState,
    CountChildren,
    StartChild,
    TerminateChild,
    WhichChildren,
)
from atomr.otp.supervising import Child, StartAbortedError, Supervising, aborted_start
from atomr.otp.supervisor import count, unknown_request
from atomr.process.behaviour import AttachPoint
from atomr.process.context import find_process
from atomr.process.inline import act_as, can_act
from atomr.process.lean import LeanProcess
from atomr.process.starting import prepare, run_init_now
from atomr.process.stopping import begin_stop
from atomr.refs import Pid

if TYPE_CHECKING:
    from atomr.core.exits import ExitReason
    from atomr.process.process import Process


class DynamicSupervisor(Supervising, AttachPoint):
    """Supervises children that are added while it runs.

    Args:
        max_children: bound on their number, attached and waiting ones included;
            None: no bound.
        extra_arguments: what each child's ``start`` is called with.  One that
            does not take them fails with a ``StartError`` from a ``TypeError``
            that names both; a caller's own arguments come by a lambda.
        max_restarts: restarts allowed within ``max_seconds``, over all children.
        max_seconds: length of that window in seconds.
        backoff_s: the ``backoff_s`` of all children that have none.
        max_backoff_s: longest wait in seconds for those.

    Raises:
        TypeError: an option is of another type.
        ValueError: a limit or a time is too small.
    """

    def __init__(
        self,
        *,
        max_children: int | None = None,
        extra_arguments: tuple[object, ...] = (),
        max_restarts: int = 3,
        max_seconds: float = 5.0,
        backoff_s: float = 0.0,
        max_backoff_s: float = 30.0,
    ) -> None:
        super().__init__(
            max_restarts=max_restarts,
            max_seconds=max_seconds,
            backoff_s=backoff_s,
            max_backoff_s=max_backoff_s,
        )
        if max_children is not None:
            check_count("max_children", max_children)
        check_tuple("extra_arguments", extra_arguments)
        self._max_children = max_children
        self._extra_arguments = extra_arguments
        # A row is made when there is more to know than the specification; an
        # attached child has neither: it is never restarted.
        self._children: dict[Process, Child | ChildSpec | None] = {}
        self._waiting: dict[Child, None] = {}
        self._scheduled: dict[Child, None] = {}

    @property
    def size(self) -> int:
        """Children now, those that wait for a restart included."""
        return len(self._children) + len(self._waiting)

    async def start_all(self) -> None:
        """Start nothing: it begins empty."""

    async def stop_all(self) -> None:
        """Stop all at the same time, each with its own shutdown time."""
        self._waiting.clear()
        self._scheduled.clear()
        await self.stop_children(*self._children)
        self._children.clear()

    def cancel_foreign(self, reason: ExitReason) -> None:
        """Cancel the attached blocks; they end in their own time."""
        for process, child in tuple(self._children.items()):
            if child is None:
                process.cancel(reason)

    def rows(self) -> list[Child]:
        """Return the children that have a specification."""
        held = self._children.items()
        running = (_row(process, row) for process, row in held if row is not None)
        return [*running, *self._waiting]

    # --- attached children ---------------------------------------------------------

    def check_room(self, child: str) -> None:
        """Raise when no other child can be taken."""
        if not self._running:
            raise StartError(child, "the supervisor is stopping")
        if self._max_children is not None and self.size >= self._max_children:
            raise MaxChildrenError(child, self._max_children)

    def attach(self, process: Process) -> None:
        """Take a process whose task is its caller's."""
        self._children[process] = None

    def attached(self) -> list[Process]:
        """Return the processes that are attached blocks."""
        return [process for process, child in self._children.items() if child is None]

    # --- ends and restarts -----------------------------------------------------------

    def note_process(self, child: Child, process: Process) -> None:
        """Add the process to the table."""
        self._children[process] = child

    def forget_process(self, process: Process) -> None:
        """Take the process out of the table."""
        self._children.pop(process, None)

    def child_exited(self, process: Process, reason: ExitReason) -> None:
        """Forget the child, unless it is to be restarted."""
        held = self._children.pop(process, None)
        if held is None or not self._running:
            return
        spec = held if isinstance(held, ChildSpec) else held.spec
        if should_restart(spec.restart, reason):
            child = _row(process, held)
            # It keeps its place against max_children until it is back.
            self._waiting[child] = None
            self._exits.append((child, process, reason))
            self._process.wake()

    async def on_exit(self, child: Child, reason: ExitReason) -> ExitReason | None:
        """Count the restart, and plan it."""
        now = trio.current_time()
        self._window = self._window.record(now)
        if self._window.exceeded:
            return self.give_up(child, reason)
        delay_s = child.backoff_s(now)
        self.log_restart(child, reason, delay_s)
        self._scheduled[child] = None
        self.schedule([child], delay_s)
        return None

    async def start_due(self, now: float) -> None:
        """Start what is due; a failure is one more end."""
        for child in tuple(self._scheduled):
            if child.due_at is None or child.due_at > now:
                continue
            del self._waiting[child], self._scheduled[child]
            try:
                await self.start_process(child)
                child.restarts += 1
            except StartIgnoredError:
                continue
            except StartAbortedError:
                return
            except StartError as error:
                if should_restart(child.spec.restart, error):
                    self._waiting[child] = None
                    self._exits.append((child, None, error))
        self.arm()

    def next_due_at(self) -> float:
        """Return when the next restart is due."""
        due = (child.due_at for child in self._scheduled if child.due_at is not None)
        return min(due, default=inf)

    # --- requests -------------------------------------------------------------

    async def handle_request(self, request: object) -> object:
        """Serve one request of :mod:`atomr.otp.children`."""
        match request:
            case StartChild(spec):
                return await self._add(spec)
            case TerminateChild(key):
                await self._terminate(key)
                return None
            case WhichChildren():
                return self._infos()
            case CountChildren():
                return self._counts()
            case _:
                raise unknown_request(request)

    async def _add(self, spec: ChildSpec) -> Pid:
        self._check_new(spec)
        child = Child(self._completed(spec))
        try:
            process = await self.start_process(child)
        except StartAbortedError as error:
            raise aborted_start(child) from error
        if process in self._children:
            self._children[process] = child.spec
        return process.pid

    # --- the same on the caller's stack ------------------------------------------

    def start_child_now(self, process: Process, spec: ChildSpec) -> Pid | None:
        """Start a child that has no task, if the supervisor has nothing to do."""
        start = spec.start.func if type(spec.start) is partial else spec.start
        if not (isinstance(start, type) and getattr(start, "never_waits", False)):
            return None
        top = self._process
        return act_as(top, self._add_now, spec) if can_act(top) else None

    def _add_now(self, spec: ChildSpec) -> Pid:
        self._check_new(spec)
        spec = self._completed(spec)
        process = prepare(self._process.node, spec, self)
        self._children[process] = spec
        try:
            run_init_now(process, spec)
        except BaseException:
            self._children.pop(process, None)
            raise
        self.emit("child_start", spec, pid=process.pid)
        return process.pid

    def terminate_child_now(self, process: Process, child: str | Pid) -> bool:
        """Stop a child that has no task and nothing to do."""
        found = find_process(child) if isinstance(child, Pid) else None
        if not (isinstance(found, LeanProcess) and found.idle):
            return False
        spec = self._children.get(found)
        if type(spec) is not ChildSpec or isinstance(found.shutdown, BrutalKill):
            return False
        if not can_act(self._process):
            return False
        act_as(self._process, self._terminate_now, found)
        self.emit("child_terminate", spec, pid=found.pid)
        return True

    def _terminate_now(self, process: LeanProcess) -> None:
        del self._children[process]
        begin_stop(process, process.shutdown)

    def _check_new(self, spec: ChildSpec) -> None:
        if spec.significant:
            problem = "a DynamicSupervisor has no significant children"
            raise ChildError("start_child", spec.id, problem)
        self.check_room(spec.id)

    def _completed(self, spec: ChildSpec) -> ChildSpec:
        """Return the specification with what the supervisor adds to it."""
        backoff_s, max_backoff_s = self._backoff
        if backoff_s and not spec.backoff_s:
            spec = attrs.evolve(spec, backoff_s=backoff_s, max_backoff_s=max_backoff_s)
        if self._extra_arguments:
            start = StartWith(spec.start, self._extra_arguments, "extra_arguments")
            spec = attrs.evolve(spec, start=start)
        return spec

    async def _terminate(self, key: str | Pid) -> None:
        if not isinstance(key, Pid):
            problem = "a DynamicSupervisor knows its children by pid"
            raise ChildError("terminate_child", key, problem)
        process = find_process(key)
        if process is None or process not in self._children:
            raise ChildNotFoundError("terminate_child", key)
        # Out of the table first, so that its end is no reason for a restart; but
        # a supervisor killed meanwhile must still find an attached block.
        held = self._children[process]
        if held is not None:
            del self._children[process]
        try:
            await self.stop_children(process)
        except Exception:
            # A Startable's own code; the child still runs.
            if held is not None and process.reason is None:
                self._children[process] = held
            raise
        if held is not None:
            spec = held if isinstance(held, ChildSpec) else held.spec
            self.emit("child_terminate", spec, pid=key)

    def _infos(self) -> tuple[ChildInfo, ...]:
        running = (_info(*item) for item in self._children.items())
        return (*running, *(child.info() for child in self._waiting))

    def _counts(self) -> ChildCounts:
        return count(self._infos())


def _row(process: Process, held: Child | ChildSpec) -> Child:
    if not isinstance(held, ChildSpec):
        return held
    row = Child(held)
    row.runs_in(process)
    return row


def _info(process: Process, held: Child | ChildSpec | None) -> ChildInfo:
    if held is not None:
        return _row(process, held).info()
    pid = process.pid
    return ChildInfo(pid.label, pid, ChildKind.WORKER, ChildState.RUNNING)
