"""What one asks of a supervisor about its children.

All of these are calls without a timeout, as in OTP: a supervisor that starts
or stops a child does nothing else meanwhile, and that may take as long as the
child's ``init`` and shutdown time allow.  :func:`~atomr.otp.supervision_tree`
looks at the same tables without asking.
"""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, TypedDict, Unpack

import attrs

from atomr.core.checks import is_async, name_of
from atomr.core.child_spec import ChildKind, ChildSpec, Restart, ShutdownTime
from atomr.core.mailbox_limit import MailboxLimit  # noqa: TC001 - of a TypedDict
from atomr.errors import short
from atomr.process.behaviour import Startable
from atomr.process.calls import Request, call
from atomr.process.context import find_process
from atomr.refs import Address, Name, Pid, Via

if TYPE_CHECKING:
    from collections.abc import Callable


class ChildState(Enum):
    """Whether a child has a process."""

    RUNNING = "running"
    RESTARTING = "restarting"
    """it waits for its backoff"""
    STOPPED = "stopped"


@attrs.frozen
class ChildInfo:
    """One child, as ``which_children`` lists it.

    Attributes:
        id: of its specification; not unique under a DynamicSupervisor.
        pid: None when it does not run.
        kind: worker or supervisor.
        state: whether it runs.
    """

    id: str
    pid: Pid | None
    kind: ChildKind
    state: ChildState


@attrs.frozen
class ChildCounts:
    """Numbers of children.

    Attributes:
        specs: specifications held.
        active: children that run.
        supervisors: those, running or not, that are supervisors.
        workers: those that are not.
    """

    specs: int
    active: int
    supervisors: int
    workers: int


@attrs.frozen
class StartChild(Request[Pid]):
    """Add a child and start it."""

    spec: ChildSpec


@attrs.frozen
class TerminateChild(Request[None]):
    """Stop a child."""

    child: str | Pid


@attrs.frozen
class RestartChild(Request[Pid]):
    """Start a stopped child."""

    child: str


@attrs.frozen
class DeleteChild(Request[None]):
    """Drop a stopped child's specification."""

    child: str


@attrs.frozen
class WhichChildren(Request[tuple[ChildInfo, ...]]):
    """List the children."""


@attrs.frozen
class CountChildren(Request[ChildCounts]):
    """Count the children."""


class SpecOptions(TypedDict, total=False):
    """The fields of :class:`~atomr.core.child_spec.ChildSpec` with a default."""

    restart: Restart
    shutdown: ShutdownTime | None
    kind: ChildKind | None
    significant: bool
    name: Name | Via | None
    init_timeout_s: float | None
    backoff_s: float
    max_backoff_s: float
    mailbox: MailboxLimit | None


def child(
    start: Callable[[], object],
    *,
    id: str | None = None,  # noqa: A002 - the field's name in ChildSpec
    **options: Unpack[SpecOptions],
) -> ChildSpec:
    """Return a child specification.

    Args:
        start: makes the fresh thing to run: a class, or a function.  One that
            takes a supervisor's arguments goes into a ``ChildSpec``.
        id: None: the name of ``start``, or of what it is a partial of; for a
            lambda, the option ``name``.
        options: any other field of ``ChildSpec``.

    Raises:
        TypeError: ``start`` is an instance, an async function or no function; or
            an option is of another type.
        ValueError: no id, and neither ``start`` nor the child has a name; or a
            time is negative.

    >>> child(dict, restart=Restart.TEMPORARY).id
    'dict'
    >>> child(partial(dict, a=1)).id
    'dict'
    >>> child(lambda: {}, name="cache").id
    'cache'
    """
    if not isinstance(start, type):
        _check_start(start)
    if id is None:
        named = start.func if isinstance(start, partial) else start
        id = getattr(named, "__name__", "<lambda>")  # noqa: A001 - as above
        name = options.get("name")
        if id == "<lambda>" and isinstance(name, str):
            id = name  # noqa: A001 - as above
        if id == "<lambda>":
            raise ValueError(f"child({start!r}): it has no name; give it an id")
    return ChildSpec(id=id, start=start, **options)


def _check_start(start: object) -> None:
    if isinstance(start, Startable):
        kind = type(start).__name__
        problem = "pass the class, or a function that makes a fresh one at each start"
        raise TypeError(f"child({short(start)}): {problem}: child({kind})")
    if not callable(start):
        expected = "expected a class, or a function that makes a fresh one"
        raise TypeError(f"child({short(start)}): {expected}")
    if is_async(start):
        name = name_of(start)
        remedy = f"child(lambda: PlainProcess({name}), id={name!r})"
        raise TypeError(f"child({name}): an async function runs by {remedy}")


def check_spec(operation: str, given: object) -> None:
    """Check that it is a child specification.

    Raises:
        TypeError: it is not; says how to get one.
    """
    if isinstance(given, ChildSpec):
        return
    remedy = "make one by child(...)"
    if callable(given):
        remedy = f"use child({name_of(given)})"
    elif isinstance(given, Startable):
        remedy = f"use child({type(given).__name__}), which makes a fresh one"
    raise TypeError(f"{operation}: expected a ChildSpec, not {short(given)}: {remedy}")


async def start_child(supervisor: Address, spec: ChildSpec) -> Pid:
    """Add a child and start it; returns when its ``init`` is done.

    A ``Supervisor`` puts it last in order; its id must be new.  Under a
    ``DynamicSupervisor`` ids may repeat.

    Raises:
        TypeError: ``spec`` is no ``ChildSpec``.
        StartError: it did not start, and is not kept; subclasses say how:
            ``AlreadyStartedError`` (its id or name runs), ``MaxChildrenError``,
            ``InitTimeoutError``, ``StartIgnoredError`` (a Supervisor keeps the
            specification of that one).
        ChildError: the id is there, but stopped; or the child may not be
            significant here.
        CallError: the supervisor is not there, or ended meanwhile.

    Cancellation: the supervisor starts the child all the same.
    """
    check_spec("start_child()", spec)
    process = find_process(supervisor)
    if process is not None and process.idle:
        pid = process.behaviour.start_child_now(process, spec)
        if pid is not None:
            return pid
    return await call(supervisor, StartChild(spec), timeout_s=None)


async def terminate_child(supervisor: Address, child: str | Pid) -> None:
    """Stop a child; returns when it has ended.

    A ``Supervisor`` keeps the specification, unless the child is temporary.

    Args:
        supervisor: its supervisor.
        child: pid; for a ``Supervisor`` the id as well.

    Raises:
        ChildNotFoundError: it is no child (any more).
        CallError: the supervisor is not there, or ended meanwhile.
    """
    process = find_process(supervisor)
    if process is not None and process.idle:
        done = process.behaviour.terminate_child_now(process, child)
        if done:
            return
    await call(supervisor, TerminateChild(child), timeout_s=None)


async def restart_child(supervisor: Address, child: str) -> Pid:
    """Start a stopped child of a ``Supervisor`` again.

    Raises:
        ChildNotFoundError: no child of that id.
        ChildError: it runs, or is about to be restarted.
        StartError: it did not start; it stays stopped.
        CallError: the supervisor is not there, or ended meanwhile.
    """
    return await call(supervisor, RestartChild(child), timeout_s=None)


async def delete_child(supervisor: Address, child: str) -> None:
    """Drop a stopped child's specification from a ``Supervisor``.

    Raises:
        ChildNotFoundError: no child of that id.
        ChildError: it runs, or is about to be restarted.
        CallError: the supervisor is not there, or ended meanwhile.
    """
    await call(supervisor, DeleteChild(child), timeout_s=None)


async def which_children(supervisor: Address) -> tuple[ChildInfo, ...]:
    """Return all children, in the order of their start.

    Raises:
        CallError: the supervisor is not there, or ended meanwhile.
    """
    return await call(supervisor, WhichChildren(), timeout_s=None)


async def count_children(supervisor: Address) -> ChildCounts:
    """Return how many children there are.

    Raises:
        CallError: the supervisor is not there, or ended meanwhile.
    """
    return await call(supervisor, CountChildren(), timeout_s=None)
