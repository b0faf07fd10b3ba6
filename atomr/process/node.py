"""The node: the root of all processes, as one ``async with`` block.

A node has *roots*, started by :meth:`Node.start`, in order, and *spawned*
processes, which nobody supervises.  Leaving the block stops the roots one by
one, last first, then all spawned processes at once.

What a root's end means is the same as the end of an OTP application: a
``PERMANENT`` root's end ends the node, whatever the reason; a ``TRANSIENT``
one's does unless the reason is ``NORMAL``; a ``TEMPORARY`` one's never does.
A node does not restart: that is what a supervisor as root is for.  A node that
ends so cancels its block's body, stops the other roots in order, and raises
:class:`~atomr.errors.RootExitError`.

Source: OTP ``application:start/2``, restart types.
"""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager, contextmanager
from threading import get_ident
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import trio
from trio.lowlevel import enable_ki_protection

from atomr.core.child_spec import (
    DEFAULT_SHUTDOWN_S,
    ChildSpec,
    Restart,
    ShutdownTime,
)
from atomr.core.exits import NORMAL, SHUTDOWN, ExitReason, is_crash, unwrap
from atomr.errors import NameTakenError, NoNodeError, RootExitError, StartError
from atomr.process import inline
from atomr.process.context import CURRENT, NODE, find_process, require_trio
from atomr.process.interrupts import Interrupts, ends_at_once
from atomr.process.lean import Drain
from atomr.process.parking import ParkSpot
from atomr.process.process import FAIRNESS_MESSAGES, Process, end_all
from atomr.process.report import log
from atomr.process.starting import prepare, root_spec, run_init
from atomr.process.stopping import begin_stop, stop_process, wait_ended
from atomr.process.task_process import TaskProcess
from atomr.process.timers import TimerService
from atomr.refs import Via

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from atomr.core.mailbox_limit import MailboxLimit
    from atomr.process.behaviour import Parent, Startable
    from atomr.refs import Address, Name, Pid


class Node:
    """One runtime of processes inside one ``trio.run``; see :func:`open_node`.

    Attributes:
        name: for people and logs.
        names: registered name to process; do not change.
        name_spots: where tasks sleep that wait for a name to be taken.
        processes: number to live process; do not change.
        timers: the node's clock.
        now: returns its time, as ``trio.current_time`` does, in half of its time.
        thread: that its event loop runs in.
        drain: runs the processes that have no task.
        high_waters: longest mailbox warned of, by process.
        inline_left: calls that may still be served on their callers' stacks
            before somebody has to wait.
        inline_depth: how many such calls are on the stack now.
        interrupts: keeps the one that ends all in order.
        on_crash: called with each process that crashes and its error, before
            anybody else is told; must neither block nor raise.
        instruments: those of trio; while there are any, no coroutine is run on
            another task's stack.
    """

    def __init__(self, name: str, nursery: trio.Nursery) -> None:
        self.name = name
        self.names: dict[Name, Process] = {}
        self.name_spots: dict[Name, list[ParkSpot]] = {}
        self.processes: dict[int, Process] = {}
        self.timers = TimerService()
        self.now = trio.lowlevel.current_clock().current_time
        self.spots: list[ParkSpot] = []
        self.drain = Drain()
        self.high_waters: WeakKeyDictionary[Pid, int] = WeakKeyDictionary()
        self.inline_left = FAIRNESS_MESSAGES
        self.inline_depth = 0
        self.instruments = inline.instruments()
        self.on_crash: Callable[[Process, ExitReason], None] | None = None
        self.failure: RootExitError | None = None
        self.body_scope = trio.CancelScope()
        self.interrupts = Interrupts(self.body_scope)
        self._nursery = nursery
        self._numbers = itertools.count(1)
        self._roots: dict[Process, ChildSpec] = {}
        self.thread = get_ident()
        self._token = trio.lowlevel.current_trio_token()
        self._stopping = False
        self._ended = False

    def __repr__(self) -> str:
        return f"<Node {self.name} with {len(self.processes)} processes>"

    @property
    def size(self) -> int:
        """Live processes, attached ones included."""
        return len(self.processes)

    async def start(self, child: ChildSpec | Startable) -> Pid:
        """Start a root and wait until its ``init`` is done.

        Args:
            child: a specification; or what it would start, which then is a
                ``TRANSIENT`` root labelled with its class' name.

        Raises:
            TypeError: ``child`` is something else.
            StartError: it did not start; its subclasses say how.

        Cancellation: cancels the half-started root.
        """
        spec = root_spec(child)
        if self._stopping:
            raise StartError(spec.id, "the node is stopping")
        process = prepare(self, spec, self)
        self._roots[process] = spec
        spot = ParkSpot()
        try:
            await run_init(process, self._nursery, spec, spot=spot)
        except BaseException:
            self._roots.pop(process, None)
            raise
        finally:
            spot.close()
        return process.pid

    @enable_ki_protection
    def spawn(
        self,
        behaviour: Startable,
        *,
        label: str,
        name: Name | None,
        mailbox: MailboxLimit | None = None,
    ) -> Pid:
        """Start a process that nobody supervises; returns before it runs.

        Raises:
            NameTakenError: a live process holds the name.
            NoNodeError: the node has ended.
        """
        if self._ended:
            raise NoNodeError(f"spawn({label!r}): {self.name!r} has ended")
        if name is not None and name in self.names:
            raise NameTakenError(name, self.names[name].pid)
        process = behaviour.make_process(
            self, label=name or label, parent=self, shutdown=DEFAULT_SHUTDOWN_S
        )
        assert isinstance(process, TaskProcess), "spawned code has a task"
        process.limit = mailbox
        if name is not None:
            self.hold_name(name, process)
        self._nursery.start_soon(process.main, name=repr(process.pid))
        return process.pid

    def whereis(self, name: Name | Via) -> Pid | None:
        """Return the pid that holds the name."""
        if isinstance(name, Via):
            return name.whereis()
        process = self.names.get(name)
        return None if process is None else process.pid

    def roots(self) -> tuple[Pid, ...]:
        """Return the live roots in the order of their start."""
        return tuple(process.pid for process in self._roots)

    def send_from_thread(self, to: Address, message: object) -> None:
        """Send from any thread; arrives when the event loop gets to it.

        Never blocks and never fails: after the node's end nobody is there.
        """
        try:
            self._token.run_sync_soon(self.deliver, to, message)
        except trio.RunFinishedError:
            log.debug("send_from_thread(%r): the node has ended", to)

    # --- for the process layer ------------------------------------------------

    def deliver(self, to: Address, message: object) -> None:
        """Send from outside any task of the node; never fails."""
        before = NODE.set(self)
        try:
            process = find_process(to)
        except Exception:  # noqa: BLE001 - a Via is user code; nobody else can be told
            log.exception("%r: the look-up of %r failed", self, to)
            return
        finally:
            NODE.reset(before)
        if process is not None:
            process.deliver(message)

    def task_process(
        self,
        behaviour: Startable,
        *,
        label: str,
        parent: Parent,
        shutdown: ShutdownTime,
    ) -> TaskProcess:
        """Return a process that will be a task."""
        return TaskProcess(
            self, behaviour, label=label, parent=parent, shutdown=shutdown
        )

    def next_number(self) -> int:
        """Return the next pid's number."""
        return next(self._numbers)

    def hold_name(self, name: Name | Via, process: Process) -> None:
        """Register a name that is known to be free."""
        if isinstance(name, Via):
            name.register(process.pid)
            return
        self.names[name] = process
        for spot in self.name_spots.get(name, ()):
            spot.wake()
        if process.names is None:
            process.names = set()
        process.names.add(name)

    def child_exited(self, process: Process, reason: ExitReason) -> None:
        """Decide what a root's end means for the node."""
        spec = self._roots.pop(process, None)
        if spec is None or self._stopping or spec.restart is Restart.TEMPORARY:
            return
        if self.interrupts.kept is not None:
            return
        if spec.restart is Restart.TRANSIENT and reason is NORMAL:
            return
        if self.failure is None:
            self.failure = RootExitError(process.pid, reason)
            if is_crash(reason):
                self.failure.__cause__ = reason  # type: ignore[assignment]
            self.body_scope.cancel()

    def own_pid(self) -> Pid | None:
        """Return None: a node is no process."""
        return None

    async def run_services(self, scope: trio.CancelScope) -> None:
        """Run the clock and the drain until ``scope`` is cancelled.

        A cancellation from outside reaches the processes, not these: what a
        process does in its last moments may need both.
        """
        with scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.timers.run, name=f"{self.name} timers")
                nursery.start_soon(self.drain.run, name=f"{self.name} drain")
        # All have ended; a spot and its trap would wait for a collection.
        for spot in (self.drain.spot, *self.spots):
            spot.close()

    def wake_hibernating(self) -> None:
        """Let a cancellation around the node reach its own that have no task now."""
        # What is started from now on might have none either, and never hear of it.
        self._close()
        for process in tuple(self.processes.values()):
            if process.parent is self and isinstance(process, TaskProcess):
                process.end_around()

    def end_lean(self) -> None:
        """End the processes without a task that are left, last first.

        Raises:
            BaseExceptionGroup: what a ``terminate`` raised and no process may keep.
        """
        self._ended = True
        lean = [p for p in self.processes.values() if not isinstance(p, TaskProcess)]
        end_all(reversed(lean))
        self.drain.close()

    def _half_started(self, process: Process) -> bool:
        ends = process.kill_reason is not None and not process.was_started
        return ends and process.parent is self

    def _close(self) -> None:
        self._stopping = True
        self.interrupts.close()

    async def stop(self) -> None:
        """Stop all roots, last first, then all spawned processes at once.

        Cancellation: the enclosing nursery then cancels what still runs.
        """
        self._close()
        # Those whose start was cancelled come after all that run.
        await wait_ended(tuple(filter(self._half_started, self.processes.values())))
        while self._roots:
            process = next(reversed(self._roots))
            await stop_process(process)
            self._roots.pop(process, None)
        spawned = tuple(p for p in self.processes.values() if p.parent is self)
        for process in spawned:
            begin_stop(process, process.shutdown, SHUTDOWN)
        await wait_ended(spawned)


@asynccontextmanager
async def open_node(name: str = "node") -> AsyncIterator[Node]:
    """Open a node for the length of the block.

    Tasks started inside the block belong to it; see ``current_node``.  Leaving
    the block, in whatever way, stops all processes.

    Args:
        name: for people and logs.

    Raises:
        RootExitError: a root ended by itself; the body was cancelled.  When the
            body raised an error of its own, that one is raised, with a note.
        KeyboardInterrupt: it struck the body or a process' code; all have been
            stopped in order.  A second one cancels all.  So does SystemExit.

    Cancellation: when the block is cancelled from outside, all processes are
    cancelled at the same time; their ``terminate`` still runs, within bounds.
    """
    require_trio("open_node()")
    error: BaseException | None = None
    node: Node | None = None
    try:
        async with trio.open_nursery() as outer:
            services = trio.CancelScope(shield=True)
            try:
                async with trio.open_nursery() as nursery:
                    node = Node(name, nursery)
                    outer.start_soon(
                        node.run_services, services, name=f"{name} services"
                    )
                    try:
                        with _on(node), node.body_scope:
                            yield node
                    except BaseException as raised:
                        if ends_at_once(node.interrupts.pass_up(raised)):
                            node.wake_hibernating()
                            raise
                        # Held back for an orderly stop, and raised again below.
                        error = raised
                    await _stop(node, error)
                    nursery.cancel_scope.cancel()
            finally:
                services.cancel()
                if node is not None:
                    node.end_lean()
    except BaseExceptionGroup as group:
        assert node is not None, "its making raises no group"
        leaf = node.interrupts.with_kept(unwrap(group))
        if leaf is group:
            raise
    else:
        node.interrupts.raise_end(error, node.failure)
        return
    # Neither its context, the group that holds it, nor this frame may keep it.
    try:
        raise leaf
    finally:
        del leaf, error


@contextmanager
def _on(node: Node) -> Iterator[None]:
    """Let the code of the block be on the node."""
    previous, previous_process = NODE.get(), CURRENT.get()
    NODE.set(node)
    try:
        yield
    finally:
        NODE.set(previous)
        CURRENT.set(previous_process)


async def _stop(node: Node, error: BaseException | None) -> None:
    try:
        await node.stop()
    except BaseException as stopped:
        node.wake_hibernating()
        if error is None:
            raise
        raise BaseExceptionGroup("while the node stopped", [error, stopped]) from None
