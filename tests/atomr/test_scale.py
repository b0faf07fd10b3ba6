"""Many processes: a large tree that crashes for a minute, and 100,000 idle ones.

The tree is made from a seed, of supervisors of every kind, three levels deep.
For 60 virtual seconds its processes end in every manner, some supervisors are
killed, starts fail, children are added.  The model, told the same, must have the
same children running, each started and restarted as often.
"""

from __future__ import annotations

import gc
import logging
import random
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TYPE_CHECKING, TypeAlias

import attrs
import pytest
import trio
import trio.testing

from atomr.core.exits import SHUTDOWN, Shutdown
from atomr.otp import (
    AutoShutdown,
    ChildCounts,
    ChildState,
    DynamicSupervisor,
    From,
    GenServer,
    Reply,
    Restart,
    Stop,
    Strategy,
    Supervisor,
    TreeNode,
    call,
    cast,
    child,
    count_children,
    start_child,
    supervision_tree,
    terminate_child,
)
from atomr.process import Node, exit_process, kill, whereis
from tests.atomr.supervision_model import Member, Team, World

if TYPE_CHECKING:
    from atomr.otp import ChildSpec
    from atomr.otp.supervising import Supervising

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]
settle = trio.testing.wait_all_tasks_blocked
CRASH = ValueError("crash")
MANNERS = {
    "normal": "normal",
    "shutdown": "shutdown",
    "detail": "shutdown",
    "crash": "crash",
    "killed": "killed",
    "signal": "crash",
}
DURATION_S = 60.0


@contextmanager
def quiet() -> Iterator[None]:
    """Write no crash reports: they are thousands, and wanted."""
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


# --- the tree, once for the model and once for real ----------------------------------


@attrs.frozen
class Leaf:
    """A worker."""

    id: str
    restart: Restart
    significant: bool
    task: bool


@attrs.frozen
class Branch:
    """A supervisor; one without a strategy is dynamic, and begins empty."""

    id: str
    restart: Restart
    significant: bool
    strategy: Strategy | None
    auto_shutdown: AutoShutdown
    max_restarts: int
    max_seconds: float
    children: tuple[Leaf | Branch, ...]


@attrs.define
class Planter:
    """Makes a tree of some size from a seed."""

    rng: random.Random
    width: int
    count: int = 0

    def tree(self, depth: int) -> Branch:
        """Return the top: it restarts whatever ends, without a bound."""
        children = tuple(self._branch(depth) for _ in range(self.width))
        return Branch(
            id="top",
            restart=Restart.TEMPORARY,
            significant=False,
            strategy=Strategy.ONE_FOR_ONE,
            auto_shutdown=AutoShutdown.NEVER,
            max_restarts=10**9,
            max_seconds=5.0,
            # A transient branch could leave, and its part of the tree with it.
            children=tuple(
                attrs.evolve(c, restart=Restart.PERMANENT, significant=False)
                for c in children
            ),
        )

    def _branch(self, depth: int, auto: AutoShutdown = AutoShutdown.NEVER) -> Branch:
        rng = self.rng
        strategy = rng.choice([*Strategy, None] if depth == 1 else list(Strategy))
        own_auto = rng.choice([AutoShutdown.NEVER, AutoShutdown.NEVER, *AutoShutdown])
        if strategy is None:
            own_auto = AutoShutdown.NEVER
        children: list[Leaf | Branch] = [
            self._branch(depth - 1, own_auto) if depth > 1 else self.leaf(own_auto)
            for _ in range(self.width)
        ]
        restart = self._restart()
        return Branch(
            id=self._id(f"b{depth}"),
            restart=restart,
            significant=self._significant(restart, auto),
            strategy=strategy,
            auto_shutdown=own_auto,
            max_restarts=rng.randrange(4),
            max_seconds=rng.choice([2.0, 5.0, 30.0]),
            children=tuple(children),
        )

    def leaf(self, auto: AutoShutdown = AutoShutdown.NEVER) -> Leaf:
        """Return one worker."""
        restart = self._restart()
        return Leaf(
            id=self._id("w"),
            restart=restart,
            significant=self._significant(restart, auto),
            task=self.rng.random() < 0.2,
        )

    def _restart(self) -> Restart:
        kinds = [Restart.PERMANENT] * 6 + [Restart.TRANSIENT] * 3 + [Restart.TEMPORARY]
        return self.rng.choice(kinds)

    def _significant(self, restart: Restart, auto: AutoShutdown) -> bool:
        allowed = restart is not Restart.PERMANENT and auto is not AutoShutdown.NEVER
        return allowed and self.rng.random() < 0.5

    def _id(self, kind: str) -> str:
        self.count += 1
        return f"{kind}-{self.count}"


def modelled(world: World, plan: Leaf | Branch) -> Member:
    if isinstance(plan, Leaf):
        return Member(plan.id, plan.restart, significant=plan.significant)

    def make() -> Team:
        begins = plan.children if plan.strategy is not None else ()
        return Team(
            world,
            [modelled(world, c) for c in begins],
            strategy=plan.strategy or Strategy.ONE_FOR_ONE,
            auto_shutdown=plan.auto_shutdown,
            max_restarts=plan.max_restarts,
            max_seconds=plan.max_seconds,
            dynamic=plan.strategy is None,
        )

    return Member(plan.id, plan.restart, significant=plan.significant, make=make)


@attrs.define
class Real:
    """How often each worker has started, and whose next starts fail."""

    serials: dict[str, int] = attrs.Factory(dict)
    broken: dict[str, int] = attrs.Factory(dict)

    def spec(self, plan: Leaf | Branch) -> ChildSpec:
        """Return the specification; each process is named by its id."""
        start: Callable[[], Worker | Supervising]
        if isinstance(plan, Leaf):
            kind = TaskWorker if plan.task else Worker
            start = lambda: kind(plan.id, self)  # noqa: E731 - one of two
        else:
            start = lambda: self._supervisor(plan)  # noqa: E731 - one of two
        return child(
            start,
            id=plan.id,
            name=plan.id,
            restart=plan.restart,
            significant=plan.significant,
        )

    def _supervisor(self, plan: Branch) -> Supervising:
        if plan.strategy is None:
            return DynamicSupervisor(
                max_restarts=plan.max_restarts, max_seconds=plan.max_seconds
            )
        return Supervisor(
            [self.spec(c) for c in plan.children],
            strategy=plan.strategy,
            auto_shutdown=plan.auto_shutdown,
            max_restarts=plan.max_restarts,
            max_seconds=plan.max_seconds,
        )


class Worker(GenServer):
    """Counts its starts; ends as it is told."""

    __slots__ = ("id", "real")

    def __init__(self, id_: str, real: Real) -> None:
        self.id = id_
        self.real = real

    def init(self) -> None:
        real = self.real
        if real.broken.get(self.id, 0) > 0:
            real.broken[self.id] -= 1
            raise CRASH
        real.serials[self.id] = real.serials.get(self.id, 0) + 1

    def handle_cast(self, manner: str) -> Stop:
        match manner:
            case "normal":
                return Stop()
            case "shutdown":
                return Stop(SHUTDOWN)
            case "detail":
                return Stop(Shutdown(manner))
        raise CRASH


class TaskWorker(Worker):
    """The same with a task, which takes a moment to start."""

    async def init(self) -> None:  # type: ignore[override]
        await trio.lowlevel.checkpoint()
        super().init()


def end(id_: str, manner: str) -> None:
    pid = whereis(id_)
    assert pid is not None, (id_, manner)
    if manner == "killed":
        kill(pid)
    elif manner == "signal":
        exit_process(pid, CRASH)
    else:
        cast(pid, manner)


# --- the storm ----------------------------------------------------------------------


@attrs.define
class Storm:
    """Ends processes, here and in the model."""

    rng: random.Random
    planter: Planter
    plans: dict[str, Branch]
    world: World
    team: Team
    real: Real
    given_up: int = 0

    async def strike(self) -> None:
        """End some processes at the same time; each in a part of its own."""
        parts = self.rng.sample(self.team.members, k=self.rng.randint(1, 3))
        # Half of all hits the same part, so that intensities are exceeded.
        if self.rng.random() < 0.5 and self.team.members[0] not in parts:
            parts.append(self.team.members[0])
        teams = [self._hit(part) for part in parts]
        await settle()
        for team in teams:
            team.settle()
            self.given_up += team.ended is not None

    def _hit(self, member: Member) -> Team:
        """Go down to some process, and end it; return its supervisor."""
        team = self.team
        while member.team is not None and self.rng.random() > 0.02:
            running = [m for m in member.team.members if m.serial is not None]
            if not running:
                break
            team = member.team
            # The first of them more often.
            member = self.rng.choice(running[:1] + running)
        if member.team is not None:
            end(member.id, "killed")
            team.end(member, "killed")
            return team
        victims = [member]
        if self.rng.random() < 0.3:
            victims = self._lean_among(team)
        for victim in victims or [member]:
            if self.rng.random() < 0.1:
                self.world.broken[victim.id] = self.real.broken[victim.id] = 1
            manner = self.rng.choice(list(MANNERS))
            end(victim.id, manner)
            team.end(victim, MANNERS[manner])
        return team

    def _lean_among(self, team: Team) -> list[Member]:
        """Return workers of one team that end in the order in which they are told."""
        lean = [
            m
            for m in team.members
            if m.serial is not None and m.team is None and self._is_lean(m)
        ]
        return self.rng.sample(lean, k=min(3, len(lean)))

    def _is_lean(self, member: Member) -> bool:
        pid = whereis(member.id)
        assert pid is not None
        return type(pid._process.behaviour) is Worker

    async def fill(self, team: Team, members: int) -> None:
        """Add children to the dynamic supervisors below that have too few."""
        for member in team.members:
            if member.team is None:
                continue
            await self.fill(member.team, members)
            if self.plans[member.id].strategy is None:
                for _ in range(members - len(member.team.members)):
                    leaf = self.planter.leaf()
                    assert member.team.add(modelled(self.world, leaf)) == "ok"
                    await start_child(member.id, self.real.spec(leaf))


def census(tree: TreeNode) -> dict[str, tuple[bool, int]]:
    found = {}
    for row in tree.children:
        found[row.id] = (row.state is ChildState.RUNNING, row.restarts)
        found |= census(row)
    return found


def branches(plan: Branch) -> Iterator[Branch]:
    yield plan
    for below in plan.children:
        if isinstance(below, Branch):
            yield from branches(below)


async def storm(node: Node, *, seed: int, width: int, strikes: int) -> Storm:
    """Run one, and compare; return what it came to."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    rng = random.Random(seed)
    planter = Planter(rng, width)
    plan = planter.tree(depth=3 if width > 5 else 2)
    world, real = World(), Real()
    member = modelled(world, plan)
    assert member.make is not None
    team = member.make()
    assert team.start_all()
    plans = {branch.id: branch for branch in branches(plan)}
    it = Storm(rng, planter, plans, world, team, real)
    await node.start(real.spec(plan))
    await it.fill(team, width)
    for number in range(strikes):
        # Binary fractions of a second: sums of them are exact.
        clock.jump(rng.randrange(1, 128) * DURATION_S / 64 / strikes)
        world.now = trio.current_time()
        await it.strike()
        assert (number, real.serials) == (number, world.serials)
        if number % (strikes // 8) == 0:
            await it.fill(team, width)
            compare(team)
    compare(team)
    return it


def compare(team: Team) -> None:
    tree = supervision_tree("top")
    assert tree is not None
    assert census(tree) == team.census()


@pytest.mark.parametrize("seed", range(4))
async def test_a_tree_that_crashes_for_a_minute_is_as_the_model_says(
    clean_node: CleanNode, mock_clock: trio.testing.MockClock, seed: int
) -> None:
    with quiet():
        async with clean_node() as node:
            it = await storm(node, seed=seed, width=5, strikes=64)
            assert node.size > 50
            assert it.given_up > 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1))
async def test_a_tree_of_ten_thousand_that_crashes_for_a_minute_is_as_the_model_says(
    clean_node: CleanNode, mock_clock: trio.testing.MockClock, seed: int
) -> None:
    with quiet():
        async with clean_node() as node:
            it = await storm(node, seed=seed, width=10, strikes=48)
            assert node.size > 5_000
            assert it.given_up > 20


# --- many idle processes --------------------------------------------------------------


class Echo(GenServer):
    """Without a task."""

    __slots__ = ()

    def handle_call(self, request: object, from_: From) -> Reply:
        return Reply(request)


class TaskEcho(GenServer):
    """With one, from its start on, as its init may wait."""

    __slots__ = ()

    async def init(self) -> None:
        await trio.lowlevel.checkpoint()

    async def handle_call(self, request: object, from_: From) -> Reply:
        return Reply(request)


async def _in_own_scope() -> None:
    with trio.CancelScope():
        await trio.sleep_forever()


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Trace what is allocated, with the collector off; yield a reader of bytes."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        gc.enable()


async def bytes_per_task(read: Callable[[], int], count: int) -> float:
    """Return what a sleeping task in a cancel scope of its own takes."""
    async with trio.open_nursery() as nursery:
        before = read()
        for _ in range(count):
            nursery.start_soon(_in_own_scope)
        await settle()
        taken = read() - before
        nursery.cancel_scope.cancel()
    return taken / count


@pytest.mark.parametrize(("kind", "ratio"), [(Echo, 0.45), (TaskEcho, 2.0)])
async def test_an_idle_process_takes_so_much_of_a_tasks_memory(
    clean_node: CleanNode, kind: type[GenServer], ratio: float
) -> None:
    count = 200
    with traced() as read:
        task = await bytes_per_task(read, count)
        async with clean_node() as node:
            top = await node.start(DynamicSupervisor())
            before = read()
            for _ in range(count):
                await start_child(top, child(kind))
            await settle()
            process = (read() - before) / count
    assert process < ratio * task


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Echo, TaskEcho])
async def test_a_hundred_thousand_processes_start_answer_and_stop(
    clean_node: CleanNode, kind: type[GenServer]
) -> None:
    count = 100_000
    async with clean_node() as node:
        top = await node.start(DynamicSupervisor())
        spec = child(kind, restart=Restart.TEMPORARY)
        pids = [await start_child(top, spec) for _ in range(count)]
        assert await count_children(top) == ChildCounts(count, count, 0, count)
        assert node.size == count + 1
        for number in range(0, count, 100):
            assert await call(pids[number], number) == number
        for pid in pids[:100]:
            await terminate_child(top, pid)
        assert (await count_children(top)).active == count - 100
        tree = supervision_tree(top)
        assert tree is not None
        assert [row.pid for row in tree.children] == pids[100:]
        await node.stop()
        assert node.processes == {}
