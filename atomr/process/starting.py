"""The start of a process: from a child specification to a running ``init``.

A start is over when ``init`` has returned.  If it failed, the process has
ended, its name is free, and the error is raised in the starter.
"""

from __future__ import annotations

from contextvars import copy_context
from inspect import iscoroutine
from typing import TYPE_CHECKING, cast

import trio
from trio.lowlevel import disable_ki_protection, enable_ki_protection

from atomr.core.checks import name_of
from atomr.core.child_spec import ChildSpec, Restart
from atomr.core.exits import KILLED, SHUTDOWN
from atomr.errors import (
    AlreadyStartedError,
    AtomrError,
    InitTimeoutError,
    StartError,
    StartIgnoredError,
    short,
)
from atomr.process.behaviour import Parent, Startable, take_once
from atomr.process.calls import ChildWait
from atomr.process.context import CURRENT, NODE, find_process
from atomr.process.lean import LeanProcess
from atomr.process.process import Process, Status
from atomr.process.stopping import begin_stop
from atomr.process.task_process import TaskProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.process.node import Node
    from atomr.process.parking import ParkSpot


class StartAbortedError(AtomrError):
    """The starter was asked to stop while a child's ``init`` ran."""


def root_spec(given: object) -> ChildSpec:
    """Return the specification of a root: that given, or one for an instance.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(given, ChildSpec):
        return given
    if not isinstance(given, Startable):
        remedy = "make one by child(...)"
        if callable(given):
            remedy = f"use child({name_of(given)})"
        expected = "expected a ChildSpec, a server or a supervisor"
        raise TypeError(f"Node.start({short(given)}): {expected}: {remedy}")
    return ChildSpec(
        id=given.process_label(), start=lambda: given, restart=Restart.TRANSIENT
    )


# An interrupt half-way would leave a process that nobody starts or stops.
@enable_ki_protection
def prepare(node: Node, spec: ChildSpec, parent: Parent) -> Process:
    """Return the process of a specification, named but not yet running.

    Raises:
        StartError: ``start`` raised, or returned something that cannot run; or
            the name could not be registered.
        AlreadyStartedError: a live process holds the name.
    """
    if spec.name is not None:
        _refuse_taken(node, spec)
    try:
        made = _call_start(spec)
    except BaseException as error:  # user code; reported as the start's failure
        if node.interrupts.pass_up(error) is not None:
            raise
        raise StartError(spec.id, error) from error
    if spec.name is not None:
        # It may have started something itself.
        _refuse_taken(node, spec)
    # Whether something is an instance of an ABC is dear to ask.
    if Startable not in type(made).__mro__:
        raise StartError(spec.id, _not_startable(made))
    behaviour = cast("Startable", made)
    try:
        take_once(behaviour)
    except ValueError as error:
        raise StartError(spec.id, error) from error
    return _make(node, spec, behaviour, parent)


# User code: it can be interrupted, as anywhere.
@disable_ki_protection
def _call_start(spec: ChildSpec) -> object:
    return spec.start()


def _refuse_taken(node: Node, spec: ChildSpec) -> None:
    assert spec.name is not None, "asked only then"
    try:
        holder = node.whereis(spec.name)
    except Exception as error:  # a Via's, which is user code
        raise StartError(spec.id, error) from error
    if holder is not None:
        raise AlreadyStartedError(spec.name, holder)


def _not_startable(given: object) -> TypeError:
    what = type(given).__name__
    expected = "expected a GenServer, a supervisor or a PlainProcess"
    if isinstance(given, type):
        what, expected = f"the class {given.__name__}", f"expected {given.__name__}()"
    elif iscoroutine(given):
        given.close()
        expected = f"{expected}; an async function runs as one by PlainProcess(fn)"
    return TypeError(f"start returned {what}, {expected}")


@enable_ki_protection
def _make(node: Node, spec: ChildSpec, behaviour: Startable, parent: Parent) -> Process:
    process = behaviour.make_process(
        node,
        label=spec.id,
        parent=parent,
        shutdown=spec.shutdown_for(spec.kind or behaviour.child_kind),
    )
    process.limit = spec.mailbox
    if spec.name is not None:
        try:
            node.hold_name(spec.name, process)
        except Exception as error:  # a Via's; nothing may be left of the process
            process.finish(error)
            raise StartError(spec.id, error) from error
    return process


async def run_init(
    process: Process,
    nursery: trio.Nursery,
    spec: ChildSpec,
    *,
    spot: ParkSpot,
    aborted: Callable[[], bool] = lambda: False,
) -> None:
    """Run a prepared process in ``nursery`` and wait until ``init`` is done.

    Args:
        process: from :func:`prepare`.
        nursery: where its task lives.
        spec: its specification.
        spot: where the starter waits; a supervisor's own, so that a stop
            signal wakes it too.
        aborted: asked on each wake; true ends the start.

    Raises:
        StartError: ``init`` failed, or the process ended before it was done.
        StartIgnoredError: ``init`` returned ``Ignore``.
        InitTimeoutError: ``init`` took longer than ``spec.init_timeout_s``.
        StartAbortedError: ``aborted()`` became true.

    Cancellation: cancels the process; the nursery waits for its end.
    """
    if isinstance(process, LeanProcess):
        process.run_init()
    elif isinstance(process, TaskProcess):
        if not process.behaviour.starts_without_task():
            await _run_init_in_task(process, nursery, spec, spot=spot, aborted=aborted)
            return
        _run_init_without_task(process, nursery)
    if not process.was_started:
        _raise_failure(process, spec, aborted=False)


@enable_ki_protection
def _run_init_without_task(process: TaskProcess, nursery: trio.Nursery) -> None:
    """Run a plain ``init``; the task comes with the first message.

    Raises:
        BaseException: what neither the process nor the node may keep: a second
            ``KeyboardInterrupt``.
    """
    context = copy_context()
    serves, failure = False, None
    try:
        serves = context.run(_init_without_task, process)
    except BaseException as error:  # noqa: BLE001 - the reason, as for a task
        failure = error
    if failure is not None:
        passing = process.node.interrupts.pass_up(failure)
        process.finish_with(failure)
        if passing is not None:
            raise passing
    elif process.kill_reason is not None:
        process.finish(process.kill_reason)
    elif not serves:
        process.finish(SHUTDOWN)
    else:
        process.lie_down(nursery, context)
        process.started()
        if process.inbox or process.signals or process.unfinished is not None:
            process.wake()


# User code: it can be interrupted, as anywhere.
@disable_ki_protection
def _init_without_task(process: TaskProcess) -> bool:
    CURRENT.set(process)
    # The starter may be of another node.
    NODE.set(process.node)
    return process.behaviour.init_without_task(process)


async def _run_init_in_task(
    process: TaskProcess,
    nursery: trio.Nursery,
    spec: ChildSpec,
    *,
    spot: ParkSpot,
    aborted: Callable[[], bool],
) -> None:
    process.starter = spot
    nursery.start_soon(process.main, name=repr(process.pid))
    supervisor = process.parent.own_pid()
    above = None if supervisor is None else find_process(supervisor)
    if above is not None:
        # So that a call from the init to its supervisor is seen to be a deadlock.
        above.waiting_for = ChildWait(process)
    timer = None
    if spec.init_timeout_s is not None:

        def give_up() -> None:
            process.init_timed_out = True
            process.cancel(KILLED)

        timer = process.node.timers.after(spec.init_timeout_s, give_up)
    task = trio.lowlevel.current_task()
    try:
        stopping = False
        while process.status is Status.STARTING:
            if aborted() and not stopping:
                stopping = True
                begin_stop(process, process.shutdown)
            await spot.park(task)
    except BaseException:
        process.cancel(SHUTDOWN)
        raise
    finally:
        process.starter = None
        if above is not None:
            above.waiting_for = None
        if timer is not None:
            timer.cancel()
    if not process.was_started:
        _raise_failure(process, spec, aborted=aborted())


def run_init_now(process: Process, spec: ChildSpec) -> None:
    """Run the ``init`` of a prepared process that has no task.

    Raises:
        StartError: it failed; as :func:`run_init`.
    """
    assert isinstance(process, LeanProcess), f"{spec.start!r} promised not to wait"
    process.run_init()
    if not process.was_started:
        _raise_failure(process, spec, aborted=False)


def _raise_failure(process: Process, spec: ChildSpec, *, aborted: bool) -> None:
    if aborted:
        raise StartAbortedError(f"start of {spec.id!r} was aborted by a stop")
    if process.ignored:
        raise StartIgnoredError(spec.id)
    if process.init_timed_out and spec.init_timeout_s is not None:
        raise InitTimeoutError(spec.id, spec.init_timeout_s)
    raise StartError(spec.id, process.reason)
