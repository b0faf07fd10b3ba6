"""TaskSupervisor: tasks that are seen, counted, bounded, and stopped in order.

::

    await node.start(child(TaskSupervisor, name="tasks"))
    task = async_nolink("tasks", fetch, url)
    start_task("tasks", write_audit_log, entry)

A start is no call: it happens on the caller's stack, waits for nobody, and so
can be made in a server's plain callback.  It finds the supervisor busy or
suspended and starts the task all the same.  (In Elixir a task supervisor can
become a bottleneck, and is partitioned for that; here it does nothing at all
for a task that is not to be restarted.)

======================  =========  ==========================================
function                linked     when
======================  =========  ==========================================
:func:`async_`          yes        a failure of the task is the caller's
:func:`async_nolink`    no         the task may fail, the caller looks at it
:func:`start_task`      no         nobody wants the value
======================  =========  ==========================================

All of them raise ``NoProcessError`` when the supervisor is not there,
``MaxChildrenError`` when it is full, and ``StartError`` when it is stopping.

Source: Elixir ``Task.Supervisor``.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple, Unpack

from trio.lowlevel import enable_ki_protection

from atomr.core.checks import check_async, check_member
from atomr.core.child_spec import (
    DEFAULT_SHUTDOWN_S,
    ChildSpec,
    Restart,
    ShutdownTime,
    check_shutdown,
)
from atomr.errors import NoProcessError
from atomr.otp.children import ChildInfo, which_children
from atomr.otp.dynamic_supervisor import DynamicSupervisor
from atomr.otp.supervising import Child
from atomr.otp.task import Task
from atomr.otp.task_body import (
    AsyncProcess,
    TaskBody,
    callers_of,
    label_of,
    owner_now,
)
from atomr.process.context import find_process
from atomr.process.starting import prepare

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from atomr.core.exits import ExitReason
    from atomr.process.process import Process
    from atomr.refs import Address, Pid

Ts = TypeVarTuple("Ts")
R = TypeVar("R")


class TaskSupervisor(DynamicSupervisor):
    """Supervises tasks; begins empty, and stops all tasks at the same time.

    Args:
        max_children: bound on the number of tasks; None: no bound.
        max_restarts: restarts allowed within ``max_seconds``, of the tasks that
            :func:`start_task` was told to restart.
        max_seconds: length of that window in seconds.
        backoff_s: seconds to wait before the first restart of such a task.
        max_backoff_s: longest such wait in seconds.
    """

    def __init__(
        self,
        *,
        max_children: int | None = None,
        max_restarts: int = 3,
        max_seconds: float = 5.0,
        backoff_s: float = 0.0,
        max_backoff_s: float = 30.0,
    ) -> None:
        super().__init__(
            max_children=max_children,
            max_restarts=max_restarts,
            max_seconds=max_seconds,
            backoff_s=backoff_s,
            max_backoff_s=max_backoff_s,
        )

    @enable_ki_protection
    def run_task(self, body: TaskBody, shutdown: ShutdownTime) -> AsyncProcess:
        """Start a temporary task; it begins to run when the caller waits.

        Raises:
            StartError: the supervisor is stopping or full.
            ValueError: ``shutdown`` is negative.
        """
        check_shutdown(shutdown)
        label = label_of(body.fn)
        self.check_room(label)
        process = AsyncProcess(
            self._process.node, body, label=label, parent=self, shutdown=shutdown
        )
        # Without a row: it is never restarted, so there is nothing to keep.
        self.attach(process)
        self._nursery.start_soon(process.main, name=label)
        process.started()
        return process

    @enable_ki_protection
    def run_restartable(self, spec: ChildSpec) -> Process:
        """Start a task that is restarted as its specification says.

        Raises:
            StartError: the supervisor is stopping or full.
        """
        self.check_room(spec.id)
        child = Child(self._completed(spec))
        process = prepare(self._process.node, child.spec, self)
        assert isinstance(process, AsyncProcess), "a task's start makes one"
        child.process = process
        self.note_process(child, process)
        self._nursery.start_soon(process.main, name=spec.id)
        process.started()
        self.emit("child_start", child.spec, pid=process.pid)
        return process

    def cancel_foreign(self, reason: ExitReason) -> None:
        """Cancel attached blocks; tasks are cancelled with the nursery."""
        for process in self.attached():
            if not isinstance(process, AsyncProcess):
                process.cancel(reason)

    def system_state(self) -> object:
        """Return the children."""
        return self._infos()


def task_supervisor(supervisor: Address, operation: str) -> TaskSupervisor:
    """Return the supervisor behind an address.

    Raises:
        NoProcessError: it is not there.
        TypeError: it is no TaskSupervisor.
    """
    process = find_process(supervisor)
    if process is None:
        raise NoProcessError(supervisor, operation)
    behaviour = process.behaviour
    if not isinstance(behaviour, TaskSupervisor):
        raise TypeError(
            f"{operation} on {supervisor!r}: expected a TaskSupervisor,"
            f" not a {type(behaviour).__name__}"
        )
    return behaviour


def async_(
    supervisor: Address,
    fn: Callable[[Unpack[Ts]], Awaitable[R]],
    *args: *Ts,
    shutdown: ShutdownTime = DEFAULT_SHUTDOWN_S,
) -> Task[R]:
    """Run ``fn(*args)`` as a task, linked to the running process.

    If the task crashes, the process that asked for it ends with the same
    reason, unless it traps exits; if the process ends abnormally, so does the
    task.  Called from a trio task that is no process, nothing is linked, and it
    is the same as :func:`async_nolink`.

    Returns before the function has begun.  The function sees the context
    variables of the caller.

    Args:
        supervisor: pid or name.
        fn: async function.
        args: its arguments.
        shutdown: seconds that a task which traps exits has to end when its
            supervisor stops, or ``BRUTAL_KILL``.

    Raises:
        NoProcessError: the supervisor is not there.
        StartError: it is stopping; ``MaxChildrenError``: it is full.
        TypeError: it is no TaskSupervisor, or ``fn`` no async function.
        ValueError: ``shutdown`` is negative.
    """
    return _start(supervisor, fn, args, shutdown, linked=True)


def async_nolink(
    supervisor: Address,
    fn: Callable[[Unpack[Ts]], Awaitable[R]],
    *args: *Ts,
    shutdown: ShutdownTime = DEFAULT_SHUTDOWN_S,
) -> Task[R]:
    """Run ``fn(*args)`` as a task that is not linked to the running process.

    For what may fail without taking its caller along: in a server, with
    :meth:`Task.notify`.  The task outlives its caller.

    Args:
        supervisor: pid or name.
        fn: async function.
        args: its arguments.
        shutdown: as for :func:`async_`.

    Raises:
        NoProcessError: the supervisor is not there.
        StartError: it is stopping; ``MaxChildrenError``: it is full.
        TypeError: it is no TaskSupervisor, or ``fn`` no async function.
        ValueError: ``shutdown`` is negative.
    """
    return _start(supervisor, fn, args, shutdown, linked=False)


def start_task(
    supervisor: Address,
    fn: Callable[[Unpack[Ts]], Awaitable[object]],
    *args: *Ts,
    restart: Restart = Restart.TEMPORARY,
    shutdown: ShutdownTime = DEFAULT_SHUTDOWN_S,
) -> Pid:
    """Run ``fn(*args)`` and forget it; Elixir's ``Task.Supervisor.start_child``.

    For side effects whose value nobody waits for.  It is linked to nobody, and
    a crash is in the log.

    Args:
        supervisor: pid or name.
        fn: async function; what it returns is dropped.
        args: its arguments; a restarted task gets the same, and the context
            variables of the first start.
        restart: ``TRANSIENT``: called again if it ended abnormally;
            ``PERMANENT``: always.
        shutdown: as for :func:`async_`.

    Returns:
        Its pid; a restarted task has another.

    Raises:
        NoProcessError: the supervisor is not there.
        StartError: it is stopping; ``MaxChildrenError``: it is full.
        TypeError: it is no TaskSupervisor, or ``fn`` no async function.
        ValueError: ``shutdown`` is negative.
    """
    check_async("start_task()", fn)
    check_member("restart", restart, Restart)
    top = task_supervisor(supervisor, "start_task")
    callers = callers_of(owner_now())
    if restart is Restart.TEMPORARY:
        return top.run_task(TaskBody(fn, args, callers=callers), shutdown).pid
    context = copy_context()

    def start() -> TaskBody:
        return TaskBody(fn, args, callers=callers, context=context)

    spec = ChildSpec(id=label_of(fn), start=start, restart=restart, shutdown=shutdown)
    return top.run_restartable(spec).pid


async def task_children(supervisor: Address) -> tuple[Pid, ...]:
    """Return the pids of all tasks that run, in the order of their start.

    Raises:
        CallError: the supervisor is not there, or ended meanwhile.
    """
    infos: tuple[ChildInfo, ...] = await which_children(supervisor)
    return tuple(info.pid for info in infos if info.pid is not None)


def _start(
    supervisor: Address,
    fn: Callable[..., Awaitable[R]],
    args: tuple[object, ...],
    shutdown: ShutdownTime,
    *,
    linked: bool,
) -> Task[R]:
    operation = "async_" if linked else "async_nolink"
    check_async(f"{operation}()", fn)
    top = task_supervisor(supervisor, operation)
    owner = owner_now()
    task: Task[R] = Task(owner)
    body = TaskBody(fn, args, callers=callers_of(owner), sink=task)
    task.runs_in(top.run_task(body, shutdown).pid, linked=linked)
    return task
