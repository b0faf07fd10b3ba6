"""Supervisors against a model, through generated programs.

A program ends children in every way, several at once, lets starts fail or be
ignored, adds and takes away children, and lets time pass.  After each step the
supervisor and the model must agree on every start and stop so far and on their
order, on who lives and in which of its lives, and on why the supervisor ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import attrs
import pytest
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from atomr.core.exits import SHUTDOWN, ExitReason, Shutdown
from atomr.errors import ChildError, StartError
from atomr.otp import (
    AutoShutdown,
    GaveUp,
    GenServer,
    Ignore,
    Restart,
    Stop,
    Strategy,
    Supervisor,
    cast,
    child,
    delete_child,
    restart_child,
    start_child,
    terminate_child,
)
from atomr.process import exit_process, kill, open_node
from atomr.refs import Pid
from tests.at_length import times
from tests.atomr.supervision_model import GaveUpModel, Member, Reason, Team, World

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from atomr.otp import ChildSpec
    from atomr.process.process import Process

CRASH = ValueError("crash")
IDS = "abcd"
ENDS = ["normal", "shutdown", "detail", "crash", "killed", "signal"]
REASONS: dict[str, Reason] = {"detail": "shutdown", "signal": "crash"}

Step: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]
"""``end`` (child and manner, several), or another operation on one child."""


@attrs.define
class Real:
    """What really happened, and what the workers are to do."""

    log: list[str] = attrs.Factory(list)
    broken: dict[str, int] = attrs.Factory(dict)
    ignoring: set[str] = attrs.Factory(set)
    serials: dict[str, int] = attrs.Factory(dict)


class Worker(GenServer):
    """Writes its start, and its stop by the supervisor."""

    def __init__(self, id_: str, real: Real) -> None:
        self.id = id_
        self.real = real
        self.leaves = False
        self.serial = 0

    def init(self) -> Ignore | None:
        real = self.real
        if real.broken.get(self.id, 0) > 0:
            real.broken[self.id] -= 1
            raise CRASH
        if self.id in real.ignoring:
            return Ignore()
        self.serial = real.serials[self.id] = real.serials.get(self.id, 0) + 1
        real.log.append(f"+{self.id}")
        return None

    def handle_cast(self, manner: str) -> Stop:
        self.leaves = True
        match manner:
            case "normal":
                return Stop()
            case "shutdown":
                return Stop(SHUTDOWN)
            case "detail":
                return Stop(Shutdown("detail"))
        raise CRASH

    def terminate(self, reason: ExitReason) -> None:
        if not self.leaves:
            self.real.log.append(f"-{self.id}")


class TaskWorker(Worker):
    """The same with a task, which takes a moment to start and to close."""

    async def init(self) -> Ignore | None:  # type: ignore[override]
        await trio.lowlevel.checkpoint()
        return super().init()

    async def terminate(self, reason: ExitReason) -> None:  # type: ignore[override]
        if not self.leaves:
            await trio.lowlevel.checkpoint()
        super().terminate(reason)


class Watched(Supervisor):
    """Notes the order in which its children ended."""

    ends: list[tuple[Process, ExitReason]]

    def child_exited(self, process: Process, reason: ExitReason) -> None:
        self.ends.append((process, reason))
        super().child_exited(process, reason)

    def living(self) -> dict[str, int]:
        found = {}
        for row in self.rows():
            if row.process is not None and row.running:
                assert isinstance(row.process.behaviour, Worker)
                found[row.spec.id] = row.process.behaviour.serial
        return found

    def pid(self, id_: str) -> Pid | None:
        return next((r.info().pid for r in self.rows() if r.spec.id == id_), None)

    def restarts(self) -> dict[str, int]:
        return {row.spec.id: row.restarts for row in self.rows()}


@attrs.frozen
class Setting:
    """A supervisor and its first children."""

    strategy: Strategy
    auto_shutdown: AutoShutdown
    max_restarts: int
    restarts: tuple[Restart, ...]
    significant: tuple[bool, ...]
    tasks: tuple[bool, ...]

    def is_significant(self, id_: str) -> bool:
        """A permanent child, or one of a supervisor that cannot shut down, is not."""
        n = IDS.index(id_)
        return (
            self.significant[n]
            and self.auto_shutdown is not AutoShutdown.NEVER
            and self.restarts[n] is not Restart.PERMANENT
        )

    def spec(self, id_: str, real: Real) -> ChildSpec:
        n = IDS.index(id_)
        kind = TaskWorker if self.tasks[n] else Worker
        return child(
            lambda: kind(id_, real),
            id=id_,
            restart=self.restarts[n],
            significant=self.is_significant(id_),
        )

    def member(self, id_: str) -> Member:
        restart = self.restarts[IDS.index(id_)]
        return Member(id_, restart, significant=self.is_significant(id_))

    def supervisor(self, real: Real) -> Watched:
        top = Watched(
            [self.spec(id_, real) for id_ in IDS[:3]],
            strategy=self.strategy,
            auto_shutdown=self.auto_shutdown,
            max_restarts=self.max_restarts,
        )
        top.ends = []
        return top

    def team(self, world: World) -> Team:
        return Team(
            world,
            [self.member(id_) for id_ in IDS[:3]],
            strategy=self.strategy,
            auto_shutdown=self.auto_shutdown,
            max_restarts=self.max_restarts,
        )


SETTINGS = st.builds(
    Setting,
    strategy=st.sampled_from(Strategy),
    auto_shutdown=st.sampled_from(AutoShutdown),
    max_restarts=st.integers(0, 4),
    restarts=st.tuples(*[st.sampled_from(Restart)] * 4),
    significant=st.tuples(*[st.booleans()] * 4),
    tasks=st.tuples(*[st.booleans()] * 4),
)
ANY_ID = st.sampled_from(IDS)
ENDING = st.tuples(ANY_ID, st.sampled_from(ENDS))
STEPS: st.SearchStrategy[Step] = st.one_of(
    st.tuples(
        st.just("end"),
        st.lists(ENDING, min_size=1, max_size=4, unique_by=lambda e: e[0]).map(tuple),
    ),
    st.tuples(
        st.sampled_from(
            ["start", "terminate", "restart", "delete", "break", "ignore", "wait"]
        ),
        ANY_ID.map(lambda id_: ((id_, ""),)),
    ),
)


@attrs.define
class Run:
    """One program on both."""

    setting: Setting
    world: World
    team: Team
    real: Real
    top: Watched
    pid: Pid
    clock: trio.testing.MockClock

    async def do(self, step: Step) -> None:
        name, ((id_, _), *_) = step
        match name:
            case "end":
                await self._end(dict(step[1]))
            case "break":
                for side in (self.world, self.real):
                    side.broken[id_] = 2
            case "ignore":
                for side in (self.world, self.real):
                    side.ignoring ^= {id_}
            case "wait":
                self.clock.jump(2.0)
                self.world.now += 2.0
            case _:
                await self._ask(name, id_)

    async def _end(self, ending: dict[str, str]) -> None:
        self.top.ends.clear()
        lives = {self.top.pid(id_): id_ for id_ in ending}
        for pid, id_ in lives.items():
            if pid is not None:
                end(pid, ending[id_])
        await trio.testing.wait_all_tasks_blocked()
        # Ends at the same time come in any order; the supervisor saw this one.
        for process, _ in self.top.ends:
            ended = lives.get(process.pid)
            member = None if ended is None else self.team.find(ended)
            if ended is not None and member is not None:
                manner = ending[ended]
                self.team.end(member, REASONS.get(manner, manner))
        self.team.settle()

    async def _ask(self, name: str, id_: str) -> None:
        real: Awaitable[object]
        match name:
            case "start":
                real = start_child(self.pid, self.setting.spec(id_, self.real))
                expected = self.team.add(self.setting.member(id_))
            case "terminate":
                real = terminate_child(self.pid, id_)
                expected = self.team.terminate(id_)
            case "restart":
                real = restart_child(self.pid, id_)
                expected = self.team.restart_one(id_)
            case _:
                real = delete_child(self.pid, id_)
                expected = self.team.delete(id_)
        assert await outcome_of(real) == expected

    def check(self, step: Step, reason: ExitReason | None) -> None:
        assert (step, self.real.log) == (step, self.world.log)
        assert same_reason(reason, self.team.ended)
        if reason is None:
            assert self.top.living() == self.team.living()
            assert self.top.restarts() == {
                member.id: member.restarts for member in self.team.members
            }


def end(pid: Pid, manner: str) -> None:
    """Let a worker end so; what it does about it comes later."""
    if manner == "killed":
        kill(pid)
    elif manner == "signal":
        exit_process(pid, CRASH)
    else:
        cast(pid, manner)


async def outcome_of(request: Awaitable[object]) -> str:
    try:
        await request
    except (ChildError, StartError) as error:
        return type(error).__name__
    return "ok"


def same_reason(real: ExitReason | None, model: Reason) -> bool:
    """Compare by what they are: the model's reasons are words."""
    if isinstance(model, GaveUpModel):
        assert isinstance(real, Shutdown)
        assert isinstance(real.detail, GaveUp)
        ends = real.detail.reason
        same = {
            "crash": ends is CRASH,
            "not started": isinstance(ends, StartError),
        }.get(str(model.reason), str(ends).lower() == model.reason)
        return same or isinstance(ends, Shutdown)
    return real is (None if model is None else SHUTDOWN)


async def run_program(setting: Setting, program: list[Step]) -> None:
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    world, real = World(), Real()
    team, top = setting.team(world), setting.supervisor(real)
    async with open_node() as node:
        spec = child(lambda: top, id="top", restart=Restart.TEMPORARY)
        pid = await node.start(spec)
        assert team.start_all()
        process = node.processes[pid.number]
        run = Run(setting, world, team, real, top, pid, clock)
        for step in program:
            await run.do(step)
            run.check(step, process.reason)
            if process.reason is not None:
                break
        await node.stop()
        assert node.processes == {}
    if team.ended is None:
        team.stop_all()
    assert real.log == world.log


def check_program(setting: Setting, program: list[Step]) -> None:
    trio.run(run_program, setting, program, clock=trio.testing.MockClock())


PERMANENT, TRANSIENT = Restart.PERMANENT, Restart.TRANSIENT
SIGNIFICANT_PAIR = Setting(
    strategy=Strategy.ONE_FOR_ONE,
    auto_shutdown=AutoShutdown.ALL_SIGNIFICANT,
    max_restarts=3,
    restarts=(TRANSIENT, TRANSIENT, PERMANENT, PERMANENT),
    significant=(True, True, False, False),
    tasks=(False, False, False, False),
)


@settings(max_examples=150, deadline=None)
@given(SETTINGS, st.lists(STEPS, max_size=12))
# One significant child is to be restarted when the other is done.
@example(SIGNIFICANT_PAIR, [("end", (("a", "crash"), ("b", "normal")))])
@example(SIGNIFICANT_PAIR, [("end", (("b", "normal"), ("a", "crash")))])
def test_a_supervisor_does_what_the_model_says(
    setting: Setting, program: list[Step]
) -> None:
    check_program(setting, program)


@pytest.mark.slow
@settings(max_examples=times(200), deadline=None)
@given(SETTINGS, st.lists(STEPS, max_size=40))
def test_a_supervisor_does_what_the_model_says_in_many_long_programs(
    setting: Setting, program: list[Step]
) -> None:
    check_program(setting, program)
