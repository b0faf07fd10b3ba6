"""Supervisor: a fixed, ordered set of children, restarted by a strategy.

::

    Supervisor(
        [child(Store), child(Cache), child(Web, restart=Restart.TRANSIENT)],
        strategy=Strategy.REST_FOR_ONE,
    )

Children start in order, each after the one before has finished its ``init``,
and stop one by one in reverse.  When one fails to start, those before it are
stopped in reverse and the supervisor's own start fails.

What a child's end leads to is decided by :mod:`atomr.core.supervision`.  Over
``max_restarts`` in ``max_seconds`` the supervisor stops its children and ends
with ``Shutdown(GaveUp(...))``; its own supervisor then decides.

A start that fails during a restart counts as one more end of that child, so a
child that cannot start uses the intensity up; ``backoff_s`` spreads the tries.

Source: OTP ``supervisor``.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING

import attrs
import trio

from atomr.core.checks import check_member
from atomr.core.child_spec import ChildKind, ChildSpec, Restart
from atomr.core.exits import SHUTDOWN, ExitReason
from atomr.core.supervision import (
    AutoShutdown,
    ChildView,
    Plan,
    Strategy,
    Verdict,
    plan_exit,
)
from atomr.errors import (
    AlreadyStartedError,
    ChildError,
    ChildNotFoundError,
    StartError,
    StartIgnoredError,
    short,
)
from atomr.otp.children import (
    ChildCounts,
    ChildInfo,
    ChildState,
    CountChildren,
    DeleteChild,
    RestartChild,
    StartChild,
    TerminateChild,
    WhichChildren,
    check_spec,
)
from atomr.otp.supervising import Child, StartAbortedError, Supervising, aborted_start

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr.process.process import Process
    from atomr.refs import Pid


class Supervisor(Supervising):
    """Supervises ``children``; use it in a child specification or as a root.

    Args:
        children: in start order; ids must differ.
        strategy: which siblings a restart takes along.
        max_restarts: restarts allowed within ``max_seconds``, at least 0.
        max_seconds: length of that window in seconds.
        auto_shutdown: when the end of significant children ends it, with
            ``SHUTDOWN``.
        backoff_s: the ``backoff_s`` of all children that have none.
        max_backoff_s: longest wait in seconds for those.

    Raises:
        TypeError: a child is no ``ChildSpec``, or an option is of another type.
        ValueError: ids repeat; a significant child without ``auto_shutdown``; a
            limit or a time is too small.
    """

    def __init__(  # noqa: PLR0913 - all but one by keyword, all with OTP's defaults
        self,
        children: Sequence[ChildSpec] = (),
        *,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        max_restarts: int = 3,
        max_seconds: float = 5.0,
        auto_shutdown: AutoShutdown = AutoShutdown.NEVER,
        backoff_s: float = 0.0,
        max_backoff_s: float = 30.0,
    ) -> None:
        super().__init__(
            max_restarts=max_restarts,
            max_seconds=max_seconds,
            backoff_s=backoff_s,
            max_backoff_s=max_backoff_s,
        )
        check_member("strategy", strategy, Strategy)
        check_member("auto_shutdown", auto_shutdown, AutoShutdown)
        self._strategy = strategy
        self._auto_shutdown = auto_shutdown
        self._children: dict[str, Child] = {}
        self._by_process: dict[Process, Child] = {}
        for spec in _specs(children):
            if spec.id in self._children:
                raise ValueError(f"Supervisor: two children have the id {spec.id!r}")
            problem = self._significance_problem(spec)
            if problem:
                raise ValueError(f"Supervisor: child {spec.id!r}: {problem}")
            self._children[spec.id] = self._row(spec)

    def _row(self, spec: ChildSpec) -> Child:
        backoff_s, max_backoff_s = self._backoff
        if backoff_s and not spec.backoff_s:
            spec = attrs.evolve(spec, backoff_s=backoff_s, max_backoff_s=max_backoff_s)
        return Child(spec)

    def _significance_problem(self, spec: ChildSpec) -> str | None:
        if spec.significant and self._auto_shutdown is AutoShutdown.NEVER:
            return "significant=True needs a supervisor with auto_shutdown"
        return None

    # --- start and stop ---------------------------------------------------------

    async def start_all(self) -> None:
        """Start all in order; on a failure stop those started, last first."""
        for child in tuple(self._children.values()):
            try:
                await self.start_process(child)
            except StartIgnoredError:
                if child.spec.restart is Restart.TEMPORARY:
                    del self._children[child.spec.id]
            except (StartError, StartAbortedError):
                await self.stop_all()
                raise

    async def stop_all(self) -> None:
        """Stop all, one by one, last first."""
        for child in reversed(tuple(self._children.values())):
            await self._stop(child)

    async def _stop(self, child: Child) -> None:
        process, child.process, child.due_at = child.process, None, None
        if process is not None:
            self.forget_process(process)
            try:
                await self.stop_children(process)
            except Exception:
                # A Startable's own code; the child still runs.
                if process.reason is None:
                    child.process = process
                    self.note_process(child, process)
                raise

    def cancel_foreign(self, reason: ExitReason) -> None:
        """Do nothing: all children are in the nursery."""

    def rows(self) -> list[Child]:
        """Return the children in the order of start."""
        return list(self._children.values())

    def note_process(self, child: Child, process: Process) -> None:
        """Remember whose process it is."""
        self._by_process[process] = child

    def forget_process(self, process: Process) -> None:
        """Let its end mean nothing any more."""
        self._by_process.pop(process, None)

    # --- ends and restarts ---------------------------------------------------------

    def child_exited(self, process: Process, reason: ExitReason) -> None:
        """Queue the end of a child that was not stopped by the supervisor."""
        child = self._by_process.pop(process, None)
        if child is not None:
            self._exits.append((child, process, reason))
            self._process.wake()

    async def on_exit(self, child: Child, reason: ExitReason) -> ExitReason | None:
        """Carry out the plan for a child's end."""
        if self._children.get(child.spec.id) is not child:
            return None
        now = trio.current_time()
        plan, self._window = plan_exit(
            strategy=self._strategy,
            auto_shutdown=self._auto_shutdown,
            children=[self._view(row, child) for row in self._children.values()],
            exited=child.spec.id,
            reason=reason,
            window=self._window,
            now=now,
        )
        if plan.verdict is Verdict.ESCALATE:
            return self.give_up(child, reason)
        if plan.verdict is Verdict.AUTO_SHUTDOWN:
            self.emit("auto_shutdown", child.spec, reason=reason)
            return SHUTDOWN
        if plan.start:
            delay_s = child.backoff_s(now)
            self.log_restart(child, reason, delay_s)
        child.process = None
        await self._regroup(plan)
        if plan.start:
            restarting = [self._children[id_] for id_ in plan.start]
            self.schedule(restarting, delay_s)
        return None

    async def _regroup(self, plan: Plan) -> None:
        for id_ in plan.stop:
            await self._stop(self._children[id_])
        for id_ in plan.forget:
            del self._children[id_]

    async def start_due(self, now: float) -> None:
        """Start what is due, in order; a failure is one more end."""
        rows = self._children.values()
        due = [row for row in rows if row.due_at is not None and row.due_at <= now]
        for place, child in enumerate(due):
            try:
                await self.start_process(child)
                child.restarts += 1
            except StartIgnoredError:
                pass
            except StartAbortedError:
                return
            except StartError as error:
                self._exits.append((child, None, error))
                if self._strategy is not Strategy.ONE_FOR_ONE:
                    # The plan for this failure starts those after it as well.
                    for later in due[place:]:
                        later.due_at = None
                    break
        self.arm()

    def next_due_at(self) -> float:
        """Return when the next restart is due."""
        due = (c.due_at for c in self._children.values() if c.due_at is not None)
        return min(due, default=inf)

    @staticmethod
    def _view(child: Child, exited: Child) -> ChildView:
        spec = child.spec
        # One that ended as well is still to be looked at: it may be restarted.
        there = child.process is not None or child.due_at is not None
        running = there and child is not exited
        return ChildView(spec.id, spec.restart, running, spec.significant)

    # --- requests --------------------------------------------------------------------

    async def handle_request(self, request: object) -> object:
        """Serve one request of :mod:`atomr.otp.children`."""
        match request:
            case StartChild(spec):
                return await self._add(spec)
            case TerminateChild(key):
                await self._terminate(key)
                return None
            case RestartChild(key):
                return await self._restart(self._stopped("restart_child", key))
            case DeleteChild(key):
                del self._children[self._stopped("delete_child", key).spec.id]
                return None
            case WhichChildren():
                return tuple(child.info() for child in self._children.values())
            case CountChildren():
                return count(child.info() for child in self._children.values())
            case _:
                raise unknown_request(request)

    async def _add(self, spec: ChildSpec) -> Pid:
        there = self._children.get(spec.id)
        if there is not None:
            info = there.info()
            if info.pid is not None:
                raise AlreadyStartedError(spec.id, info.pid)
            raise ChildError(
                "start_child", spec.id, f"that child is {info.state.value}"
            )
        problem = self._significance_problem(spec)
        if problem:
            raise ChildError("start_child", spec.id, problem)
        child = self._children[spec.id] = self._row(spec)
        try:
            return await self._restart(child)
        except StartIgnoredError:
            if spec.restart is Restart.TEMPORARY:
                del self._children[spec.id]
            raise
        except Exception:
            del self._children[spec.id]
            raise

    async def _restart(self, child: Child) -> Pid:
        try:
            return (await self.start_process(child)).pid
        except StartAbortedError as error:
            raise aborted_start(child) from error

    async def _terminate(self, key: str | Pid) -> None:
        child = self._find("terminate_child", key)
        pid = child.info().pid
        await self._stop(child)
        self.emit("child_terminate", child.spec, pid=pid)
        if child.spec.restart is Restart.TEMPORARY:
            del self._children[child.spec.id]

    def _stopped(self, operation: str, key: str) -> Child:
        child = self._find(operation, key)
        if child.state is not ChildState.STOPPED:
            raise ChildError(operation, key, f"the child is {child.state.value}")
        return child

    def _find(self, operation: str, key: str | Pid) -> Child:
        for child in self._children.values():
            if child.spec.id == key or child.info().pid is key:
                return child
        raise ChildNotFoundError(operation, key)


def _specs(children: Sequence[ChildSpec]) -> Sequence[ChildSpec]:
    if isinstance(children, (ChildSpec, str, type)) or not isinstance(
        children, Iterable
    ):
        problem = "expected a list of child specifications"
        remedy = ": use [...]" if isinstance(children, ChildSpec) else ""
        raise TypeError(f"Supervisor({short(children)}): {problem}{remedy}")
    specs = tuple(children)
    for place, spec in enumerate(specs):
        check_spec(f"Supervisor: children[{place}]", spec)
    return specs


def count(children: Iterable[ChildInfo]) -> ChildCounts:
    """Return the numbers of children."""
    rows = tuple(children)
    supervisors = sum(row.kind is ChildKind.SUPERVISOR for row in rows)
    return ChildCounts(
        specs=len(rows),
        active=sum(row.state is ChildState.RUNNING for row in rows),
        supervisors=supervisors,
        workers=len(rows) - supervisors,
    )


def unknown_request(request: object) -> ChildError:
    """Return what the caller of an unknown request gets."""
    return ChildError("call", request, "a supervisor knows no such request")
