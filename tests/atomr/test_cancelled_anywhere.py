"""A cancellation or a kill at every step of a program leaves no half-stopped tree.

One program: a tree three levels deep starts, serves, crashes, is added to, taken
from, and stops.  It is run again and again; at the n-th step of a task, for each
n, something is struck: the block around the node, a supervisor, the task that
waits for a start, a call or a stop.  Whatever is struck, whenever: what had
started has run ``terminate`` once, what was to go on is whole again, what stops
in order does so, and nothing is left.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing

from atomr.core.exits import SHUTDOWN
from atomr.errors import AtomrError, ProcessKilledError, StartError
from atomr.otp import (
    DynamicSupervisor,
    From,
    GenServer,
    Reply,
    Restart,
    Strategy,
    Supervisor,
    call,
    cast,
    child,
    start_child,
    supervision_tree,
    terminate_child,
)
from atomr.process import Node, attached, kill, open_node, stop, wait_exit, whereis
from atomr.process.stopping import begin_stop
from atomr.testing import Schedule, seeded
from tests.at_length import times

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from atomr.core.exits import ExitReason
    from atomr.otp import ChildSpec, TreeNode
    from atomr.otp.supervising import Supervising
    from atomr.refs import Pid
    from tests.atomr.conftest import CleanNode

WHOLE = ["a", "b", "c", "d", "dyn", "mid", "top"]

ORDERLY = {"stop of top": "top", "stop of mid": "mid", "stop of b": "b"}


class Striker(trio.abc.Instrument):
    """Does something once, before some step of a task.

    Before and not after one: what happened between two steps, as a timeout, has
    then made the task ready, though it does not know yet.
    """

    def __init__(self, at: int) -> None:
        self.left = at
        self.act: Callable[[], object] | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count()

    def count(self) -> None:
        self.left -= 1
        if self.left < 0 and self.act is not None:
            act, self.act = self.act, None
            act()


class Server(GenServer):
    """Writes into the log when it has started, and when it has closed."""

    def __init__(self, id_: str, log: list[str]) -> None:
        self.id = id_
        self.log = log

    def init(self) -> None:
        self.log.append(f"+{self.id}")

    def handle_call(self, request: object, from_: From) -> Reply:
        return Reply(request)

    def handle_cast(self, message: object) -> None:
        raise ValueError(message)

    def terminate(self, reason: ExitReason) -> None:
        self.log.append(f"-{self.id}")


class SlowServer(Server):
    """Takes its time for everything."""

    async def init(self) -> None:  # type: ignore[override]
        await trio.sleep(0.25)
        super().init()

    async def handle_call(  # type: ignore[override]
        self, request: object, from_: From
    ) -> Reply:
        await trio.sleep(0.25)
        return Reply(request)

    async def terminate(self, reason: ExitReason) -> None:  # type: ignore[override]
        await trio.sleep(0.25)
        super().terminate(reason)


@attrs.define
class Stage:
    """One run of the program, and what is to be struck in it."""

    striker: Striker
    target: str
    log: list[str] = attrs.Factory(list)
    node: Node | None = None
    finished: bool = False
    never_started: bool = False
    stopping_from: int | None = None

    def server(self, id_: str, kind: type[Server], **options: Any) -> ChildSpec:
        return child(lambda: kind(id_, self.log), id=id_, name=id_, **options)

    def supervisor(self, id_: str, start: Callable[[], Supervising]) -> ChildSpec:
        return child(start, id=id_, name=id_)

    def tree(self) -> Supervisor:
        """Return the root: it restarts whatever was struck."""
        mid = self.supervisor(
            "mid",
            lambda: Supervisor(
                [self.server("c", Server), self.server("d", SlowServer)],
                strategy=Strategy.REST_FOR_ONE,
            ),
        )
        top = self.supervisor(
            "top",
            lambda: Supervisor(
                [
                    self.server("a", Server),
                    self.server("b", SlowServer),
                    mid,
                    self.supervisor("dyn", DynamicSupervisor),
                ],
                strategy=Strategy.ONE_FOR_ALL,
            ),
        )
        return Supervisor([top], max_restarts=9)

    @asynccontextmanager
    async def struck(self, name: str) -> AsyncIterator[trio.CancelScope]:
        """Let what is inside be cancelled alone, if it is the target."""
        with trio.CancelScope() as scope, suppress(AtomrError):
            if name == self.target:
                self.striker.act = scope.cancel
            yield scope
        if name == self.target:
            self.striker.act = None

    def aim(self) -> None:
        """Let a process be killed from now on, if one is the target."""
        if self.target in WHOLE:
            self.striker.act = self._kill
        elif self.target in ORDERLY:
            self.striker.act = self._stop

    def _kill(self) -> None:
        pid = whereis_in(self.node, self.target)
        if pid is not None:
            kill(pid)

    def _stop(self) -> None:
        """Do what ``stop`` does before it waits."""
        assert self.node is not None
        process = self.node.names.get(ORDERLY[self.target])
        if process is not None:
            begin_stop(process, process.shutdown, orderly=True)

    async def play(self) -> None:
        """Run the program."""
        async with open_node() as node:
            self.node = node
            self.aim()
            async with self.struck("starter") as scope:
                await node.start(child(self.tree, id="root", name="root"))
            if scope.cancelled_caught or whereis("root") is None:
                # What had started so far is stopped; nobody waits for that.
                await trio.sleep(5.0)
                assert node.processes == {}
                self.never_started = True
                return
            async with self.struck("call"):
                await call("b", 1)
            cast("c", "crash")
            async with self.struck("start_child"):
                extra = self.server("e", SlowServer, restart=Restart.TEMPORARY)
                await start_child("dyn", extra)
            with suppress(ProcessKilledError, AtomrError):
                async with attached("dyn", id="block"):
                    await trio.sleep(0.25)
            async with self.struck("terminate_child"):
                await terminate_child("mid", "d")
            async with self.struck("stop"):
                pid = whereis("b")
                if pid is not None:
                    await stop(pid)
            await self._until_whole()
            self.stopping_from = len(self.log)
            async with self.struck("node.stop"):
                await node.stop()
        self.finished = True

    async def _until_whole(self) -> None:
        if self.target != "node":
            self.striker.act = None
        await trio.sleep(5.0)
        tree = supervision_tree("root")
        assert tree is not None
        running = {row.id for row in rows(tree) if row.pid is not None}
        assert running - {"e", "root"} == set(WHOLE)

    def check(self) -> None:
        assert self.node is not None
        assert self.node.processes == {}
        assert self.node.names == {}
        assert self.node.timers.size == 0
        for id_ in "abcde":
            starts = self.log.count(f"+{id_}")
            if id_ == self.target:
                # A kill is the one end without terminate.
                assert "--" not in lives(self.log, id_)
                assert starts - self.log.count(f"-{id_}") in (0, 1)
            else:
                assert lives(self.log, id_) == "+-" * starts
        if self.stopping_from is not None and self.finished:
            ends = [e for e in self.log[self.stopping_from :] if e != "-e"]
            in_order = ["-d", "-c", "-b", "-a"]
            # Cancelled while it stopped, it stops the rest at the same time.
            assert ends == in_order or self.target in ("node", "node.stop")
            assert sorted(ends) == sorted(in_order)


def lives(log: list[str], id_: str) -> str:
    return "".join(entry[0] for entry in log if entry[1:] == id_)


def rows(tree: TreeNode) -> Iterator[TreeNode]:
    yield tree
    for below in tree.children:
        yield from rows(below)


def whereis_in(node: Node | None, name: str) -> Any:
    process = None if node is None else node.names.get(name)
    return None if process is None else process.pid


async def play(stage: Stage) -> None:
    tasks = trio.lowlevel.current_statistics().tasks_living
    with trio.CancelScope() as scope:
        if stage.target == "node":
            stage.striker.act = scope.cancel
        await stage.play()
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert scope.cancelled_caught or stage.finished or stage.never_started
    assert not scope.cancelled_caught or stage.target == "node"
    stage.check()


def run(stage: Stage, *, by_step: bool, seed: int) -> bool:
    """Run the program once; return whether something was struck."""
    striker = stage.striker
    clock = trio.testing.MockClock(autojump_threshold=0)
    with seeded(seed) as order, pytest.MonkeyPatch.context() as patch:

        def counted(batch: list[trio.lowlevel.Task]) -> None:
            striker.count()
            Schedule.shuffle(order, batch)

        if not by_step:
            patch.setattr(order, "shuffle", counted)
        trio.run(play, stage, clock=clock, instruments=[striker] if by_step else [])
    return striker.left < 0


TARGETS = [
    "node",
    "starter",
    "call",
    "start_child",
    "terminate_child",
    "stop",
    "node.stop",
    "top",
    "mid",
    "dyn",
    "b",
    "c",
    "d",
    *ORDERLY,
]


def strike_everywhere(
    target: str, *, by_step: bool, seed: int, first: int, stride: int
) -> int:
    """Strike at each ``stride``-th step; return how many steps the program has."""
    at = first
    while True:
        stage = Stage(Striker(at), target)
        try:
            if not run(stage, by_step=by_step, seed=seed):
                return at
        except BaseException as error:
            error.add_note(f"{target} struck after {at} steps, seed {seed}")
            error.add_note(f"log: {' '.join(stage.log)}")
            raise
        at += stride


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("by_step", [True, False], ids=["steps", "batches"])
def test_a_strike_at_many_steps_leaves_no_half_stopped_tree(
    target: str, *, by_step: bool
) -> None:
    first = TARGETS.index(target) % 5
    assert strike_everywhere(target, by_step=by_step, seed=0, first=first, stride=5) > 9


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 1 + times(1)))
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("by_step", [True, False], ids=["steps", "batches"])
def test_a_strike_at_each_step_leaves_no_half_stopped_tree(
    target: str, seed: int, *, by_step: bool
) -> None:
    strike_everywhere(target, by_step=by_step, seed=seed, first=0, stride=1)


async def test_terminate_runs_for_those_whose_start_was_told_when_a_stop_meets_init(
    autojump_clock: trio.testing.MockClock,
    schedule: int,
) -> None:
    log: list[str] = []
    ready = trio.Event()

    class Waits(SlowServer):
        async def init(self) -> None:  # type: ignore[override]
            await ready.wait()
            Server.init(self)

    async def start(top: Pid) -> None:
        try:
            await start_child(top, child(lambda: Waits("w", log), id="w"))
        except StartError:
            log.append("refused")

    async with open_node() as node:
        top = await node.start(child(DynamicSupervisor, restart=Restart.TEMPORARY))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(start, top)
            await trio.testing.wait_all_tasks_blocked()
            ready.set()
            process = node.processes[top.number]
            begin_stop(process, process.shutdown)
        await wait_exit(top)
        assert node.processes == {}
    assert log in (["+w", "refused"], ["+w", "-w"])


async def test_a_deep_tree_that_is_cancelled_from_outside_ends(
    clean_node: CleanNode,
) -> None:
    """Not in a group of groups, one for each level, that trio cannot show."""
    ended: list[object] = []

    class Deepest(GenServer):
        async def terminate(self, reason: ExitReason) -> None:
            ended.append(reason)

    def tree(depth: int) -> Supervisor:
        if depth == 0:
            return Supervisor([child(Deepest)])
        return Supervisor([child(lambda: tree(depth - 1), id="below")])

    with trio.CancelScope() as scope:
        async with clean_node() as node:
            await node.start(tree(400))
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert ended == [SHUTDOWN]
