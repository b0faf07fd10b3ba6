"""A node for the length of a test, which leaves nothing and hides no crash."""

from __future__ import annotations

from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload

import attrs
import trio

from atomr.core.child_spec import ChildSpec, Restart
from atomr.core.exits import SHUTDOWN
from atomr.errors import ChildNotFoundError
from atomr.otp import (
    DynamicSupervisor,
    Supervisor,
    child,
    delete_child,
    start_child,
    terminate_child,
    which_children,
)
from atomr.process import attached, open_node
from atomr.process.behaviour import Startable
from atomr.process.endings import reason_of
from atomr.testing.clocks import running_clock, settle
from atomr.testing.crashes import (
    CrashLog,
    ExpectedCrash,
    NoCrashError,
    UnexpectedCrashError,
)
from atomr.testing.leftovers import LeftoverError, TracedTimers, leftovers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from atomr.process import Node
    from atomr.refs import Pid

E = TypeVar("E", bound=BaseException)

_UNLIMITED = 1_000_000
"""Restarts in a second: a test supervisor never gives up, as ExUnit's."""


class TestNode:
    """A node under test; see :func:`open_test_node`.

    Attributes:
        node: the node itself, for all that is not about testing.
    """

    __test__: ClassVar[bool] = False  # pytest would take it for a class of tests

    def __init__(self, node: Node, crashes: CrashLog) -> None:
        self.node = node
        self._crashes = crashes
        self._supervisor: Pid | None = None
        self._attach_point: Pid | None = None

    def __repr__(self) -> str:
        return f"<TestNode {self.node.name} with {self.node.size} processes>"

    async def start_supervised(
        self,
        child: ChildSpec | Startable | Callable[[], object],
        *,
        restart: Restart = Restart.TEMPORARY,
    ) -> Pid:
        """Start a process under the test's supervisor; wait for its ``init``.

        It is stopped when the node's block is left, last started first.

        Args:
            child: a child specification, a class, a function that makes what to
                run, or an instance.
            restart: in the place of the specification's own.  A restart would
                hide the crash, and put a fresh state under the old name; to
                test restarts, start your own supervisor here.

        Raises:
            StartError: it did not start; subclasses say how.
            ValueError: an instance cannot be restarted, or it has no name to
                take for its id.

        Cancellation: the process is started all the same.
        """
        spec = attrs.evolve(_spec(child, restart), restart=restart, significant=False)
        return await start_child(await self._test_supervisor(), spec)

    async def stop_supervised(self, id: str | Pid) -> None:  # noqa: A002 - as ChildSpec
        """Stop what ``start_supervised`` started, and wait for its end.

        Args:
            id: of its specification (the name of its class or function, unless
                it was given one), or its pid.

        Raises:
            ChildNotFoundError: there is none (any more).
        """
        if self._supervisor is None:
            raise ChildNotFoundError("stop_supervised", id)
        supervisor = self._supervisor
        rows = await which_children(supervisor)
        row = next((row for row in rows if id in (row.id, row.pid)), None)
        if row is None:
            raise ChildNotFoundError("stop_supervised", id)
        await terminate_child(supervisor, row.id)
        if any(left.id == row.id for left in await which_children(supervisor)):
            # Not a temporary one: the supervisor keeps the specification.
            await delete_child(supervisor, row.id)

    @overload
    def expect_crash(
        self, process: Pid | str | None = None, *, timeout_s: float = 1.0
    ) -> ExpectedCrash[Exception]: ...
    @overload
    def expect_crash(
        self,
        process: Pid | str | None = None,
        error: type[E] = ...,
        *,
        timeout_s: float = 1.0,
    ) -> ExpectedCrash[E]: ...
    def expect_crash(
        self,
        process: Pid | str | None = None,
        error: type[BaseException] = Exception,
        *,
        timeout_s: float = 1.0,
    ) -> ExpectedCrash[Any]:
        """Expect that a process crashes within the block, once.

        ::

            async with node.expect_crash(pid, ZeroDivisionError) as crash:
                await call(pid, Divide(1, 0))
            assert str(crash.reason) == "division by zero"

        Leaving the block waits for the crash.  A call, or a wait for a task,
        that fails because of it ends the block like ``pytest.raises``: the
        ``ServerDownError`` or ``TaskExitError`` goes no further.

        Args:
            process: its pid, its name or id; None: any process of the node.
            error: what it raises, or a superclass.
            timeout_s: seconds to wait for it at the end of the block.  Under a
                clock that only the test moves it waits until all is settled.

        Raises:
            NoCrashError: it did not crash, or with something else.
        """
        return ExpectedCrash(self._crashes, process, error, timeout_s=timeout_s)

    @asynccontextmanager
    async def as_process(self, id: str = "test") -> AsyncIterator[Pid]:  # noqa: A002
        """Make the running task a process, for ``receive`` and the like.

        Args:
            id: its label.

        Raises:
            ProcessKilledError: the block was ended through the process.
        """
        if self._attach_point is None:
            point = child(DynamicSupervisor, id="test processes")
            self._attach_point = await self.start_supervised(point)
        async with attached(self._attach_point, id=id) as pid:
            yield pid

    async def _test_supervisor(self) -> Pid:
        if self._supervisor is None:
            top = Supervisor(max_restarts=_UNLIMITED, max_seconds=1.0)
            start = child(lambda: top, id="test supervisor", restart=Restart.TRANSIENT)
            self._supervisor = await self.node.start(start)
        return self._supervisor


def _spec(start: object, restart: Restart) -> ChildSpec:
    if isinstance(start, ChildSpec):
        return start
    if isinstance(start, Startable):
        if restart is not Restart.TEMPORARY:
            problem = "an instance cannot be started twice; give its class or a spec"
            raise ValueError(f"start_supervised({start!r}, restart=...): {problem}")
        return child(lambda: start, id=start.process_label())
    if not callable(start):
        raise TypeError(f"start_supervised({start!r}): nothing that can be started")
    return child(start)


@asynccontextmanager
async def open_test_node(
    name: str = "test", *, allow_crashes: bool = False
) -> AsyncIterator[TestNode]:
    """Open a node for the length of a test.

    Leaving the block stops all processes.  Under a clock that only the test
    moves, time may jump meanwhile: a shutdown may take its seconds.

    Args:
        name: of the node.
        allow_crashes: let processes crash as they like; else each crash has to
            be expected.

    Raises:
        UnexpectedCrashError: a process crashed, and neither ``expect_crash`` nor
            an injected crash accounts for it.  The body is cancelled at once.
            When the body failed by itself, its error is raised, and the crash
            is its ``__cause__``.
        NoCrashError: a ``crash_next`` did not strike, and was not taken back.
        LeftoverError: a process, name, timer or task of the node is left.  Not
            looked for when the body failed.

    Cancellation: as ``open_node``.
    """
    scope = trio.CancelScope()
    crashes = CrashLog(lambda: None if allow_crashes else scope.cancel())
    try:
        with ExitStack() as stack:
            async with open_node(name) as node:
                # Nothing has been armed yet, and the node's tasks have not run.
                node.timers = TracedTimers()
                node.on_crash = crashes.note
                try:
                    with scope:
                        yield TestNode(node, crashes)
                finally:
                    stack.enter_context(running_clock())
    except BaseException as error:
        if allow_crashes or not crashes.unexpected:
            raise
        if reason_of(error) is SHUTDOWN:
            # Cancelled from outside, which is no failure, and would hide one.
            raise _unexpected(crashes) from crashes.unexpected[0].reason
        if isinstance(error, Exception) and error.__cause__ is None:
            error.__cause__ = crashes.unexpected[0].reason
        raise
    if crashes.unexpected and not allow_crashes:
        raise _unexpected(crashes)
    for fault in crashes.faults:
        if fault.waits:
            raise NoCrashError(f"{fault} did not strike: no such message was handled")
    await _check_left(node)


def _unexpected(crashes: CrashLog) -> UnexpectedCrashError:
    first, *others = crashes.unexpected
    error = UnexpectedCrashError(first.pid, first.reason)
    for crash in others:
        error.add_note(f"then {crash} crashed")
    return error


async def _check_left(node: Node) -> None:
    if leftovers(node):
        # A task that was cancelled just now may still be on its way out.
        await settle()
    left = leftovers(node)
    if left:
        raise LeftoverError(node.name, left)
