"""Supervisor: strategy x restart x reason, orders, shutdown values, intensity."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import pytest
import trio
import trio.testing

from atomr.core.exits import KILLED, NORMAL, SHUTDOWN, ExitReason, Shutdown
from atomr.core.supervision import GaveUp
from atomr.errors import (
    AlreadyStartedError,
    ChildError,
    ChildNotFoundError,
    MaxChildrenError,
    StartError,
    StartIgnoredError,
)
from atomr.otp import (
    BRUTAL_KILL,
    INFINITY,
    AutoShutdown,
    ChildCounts,
    ChildSpec,
    DynamicSupervisor,
    Ignore,
    Restart,
    Stop,
    Strategy,
    Supervisor,
    cast,
    child,
    count_children,
    delete_child,
    restart_child,
    start_child,
    terminate_child,
    which_children,
)
from atomr.process import (
    Node,
    PlainProcess,
    kill,
    receive,
    stop,
    trap_exit,
    wait_exit,
    whereis,
)
from atomr.refs import Pid
from tests.atomr.conformance.kit import (
    CRASH,
    DETAIL,
    CleanNode,
    Kind,
    Log,
    Told,
    ToldTask,
    raising,
    settle,
)

Clock = trio.testing.MockClock
P, T, X = Restart.PERMANENT, Restart.TRANSIENT, Restart.TEMPORARY
ONE, ALL, REST = Strategy.ONE_FOR_ONE, Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE
REASONS: tuple[ExitReason, ...] = (NORMAL, SHUTDOWN, DETAIL, KILLED, CRASH)


class Family:
    """Children that write their starts and ends into one log."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.log: list[str] = []

    def __call__(self, name: str, job: Any = None, **options: Any) -> ChildSpec:
        """Return a child that runs ``job`` in its init."""

        def start() -> Told:
            def init() -> Any:
                result = job() if job else None
                self.log.append(f"+{name}")
                return result

            return self.kind([], init, lambda: self.log.append(f"-{name}"))

        return child(start, id=name, name=name, **options)

    def since(self) -> list[str]:
        """Return the log and empty it."""
        log, self.log[:] = list(self.log), []
        return log


@pytest.fixture
def family(kind: Kind) -> Family:
    """Children of both kinds."""
    return Family(kind)


async def end(name: str, reason: ExitReason) -> None:
    """Let the named process end, and wait for what follows."""
    if reason is KILLED:
        pid = whereis(name)
        assert pid is not None
        kill(pid)
    else:
        cast(name, Stop(reason))
    await settle()


# By strategy: what stops and starts when b, the second of three, is restarted.
REGROUPS = {
    ONE: ["+b"],
    ALL: ["-c", "-a", "+a", "+b", "+c"],
    REST: ["-c", "+b", "+c"],
}
# By restart type: the reasons after which it is started again.
RESTARTED: dict[Restart, set[ExitReason]] = {
    P: {NORMAL, SHUTDOWN, DETAIL, KILLED, CRASH},
    T: {KILLED, CRASH},
    X: set(),
}


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("restart", Restart)
async def test_strategy_restart_type_and_reason(
    clean_node: CleanNode,
    schedule: int,
    family: Family,
    strategy: Strategy,
    restart: Restart,
) -> None:
    """[supervisor: Restart Strategies] one_for_one restarts the ended child alone.
    [supervisor: Restart Strategies] one_for_all stops all others, then starts all.
    [supervisor: Restart Strategies] rest_for_one stops those after it, then starts it
      and those.
    [supervisor: Child specification] A permanent child is always restarted, a temporary
      one never, a transient one unless it ended with normal, shutdown or a shutdown
      with detail.
    [supervisor: Restart Strategies] A child that is not restarted touches no sibling.
    """
    got: dict[ExitReason, object] = {}
    for reason in REASONS:
        async with clean_node() as node:
            children = [family("a"), family("b", restart=restart), family("c")]
            await node.start(Supervisor(children, strategy=strategy))
            await settle()
            family.since()
            await end("b", reason)
            log = family.since()
            if reason is not KILLED:
                # Its own terminate is no business of the supervisor.
                assert log.pop(0) == "-b"
            got[reason] = (log, [whereis(n) is not None for n in "abc"])
        family.since()
    back = RESTARTED[restart]
    assert got == {
        reason: (REGROUPS[strategy], [True] * 3)
        if reason in back
        else ([], [True, False, True])
        for reason in REASONS
    }


@pytest.mark.parametrize("strategy", [ALL, REST])
async def test_a_group_restart_forgets_the_temporary_and_starts_the_done(
    clean_node: CleanNode, schedule: int, family: Family, strategy: Strategy
) -> None:
    """[supervisor: Child specification] A temporary child is not started again even
      when a sibling's restart stopped it.
    [supervisor] A transient child that was done is started again with its group.
    """
    async with clean_node() as node:
        children = [
            family("a"),
            family("temporary", restart=X),
            family("done", restart=T),
        ]
        top = await node.start(Supervisor(children, strategy=strategy))
        await end("done", NORMAL)
        family.since()
        await end("a", KILLED)
        assert family.since() == ["-temporary", "+a", "+done"]
        assert [info.id for info in await which_children(top)] == ["a", "done"]


@pytest.mark.parametrize("failing", range(4))
async def test_a_start_that_fails_at_any_child_stops_those_before_it_in_reverse(
    clean_node: CleanNode, schedule: int, family: Family, failing: int
) -> None:
    """[supervisor:start_link/2] Children start in order; when one fails, those that run
      are stopped in reverse and the start fails with its reason.
    [supervisor: Supervision Principles] Leaving stops the children in the reverse of
      their start.
    """
    names = "abcd"
    children = [
        family(name, raising(CRASH) if n == failing else None)
        for n, name in enumerate(names)
    ]
    async with clean_node() as node:
        with pytest.raises(StartError) as caught:
            await node.start(child(partial(Supervisor, children), id="top"))
        assert node.processes == {}
    before = [*names[:failing]]
    assert family.since() == [f"+{n}" for n in before] + [f"-{n}" for n in before[::-1]]
    inner = caught.value.reason
    assert isinstance(inner, StartError)
    assert (inner.child, inner.reason) == (names[failing], CRASH)

    async with clean_node() as node:
        await node.start(Supervisor([family(name) for name in names]))
    assert family.since() == [f"+{n}" for n in names] + [f"-{n}" for n in names[::-1]]


# The shutdown value, how long terminate takes: the reason, and when it is over.
SHUTDOWNS: dict[tuple[Any, float], tuple[ExitReason, float]] = {
    (BRUTAL_KILL, 2.0): (KILLED, 0.0),
    (5.0, 2.0): (SHUTDOWN, 2.0),
    (5.0, 60.0): (KILLED, 5.0),
    (0.0, 2.0): (KILLED, 0.0),
    (INFINITY, 3600.0): (SHUTDOWN, 3600.0),
    (None, 60.0): (KILLED, 5.0),
}


async def test_each_shutdown_value(
    clean_node: CleanNode, autojump_clock: Clock
) -> None:
    """[supervisor: Child specification] brutal_kill: ended at once, without terminate.
    [supervisor: Child specification] A time: asked to stop with shutdown, and killed
      when it is over.
    [supervisor: Child specification] infinity: waited for as long as it takes, a worker
      too.
    [supervisor: Child specification] Without a value a worker has 5 s.
    """
    got: dict[tuple[Any, float], object] = {}
    for shutdown, takes_s in SHUTDOWNS:
        async with clean_node() as node:
            spec = child(
                partial(ToldTask, [], None, partial(trio.sleep, takes_s)),
                id="child",
                shutdown=shutdown,
            )
            top = await node.start(Supervisor([spec]))
            await settle()
            (info,) = await which_children(top)
            assert info.pid is not None
            process = node.processes[info.pid.number]
            began = trio.current_time()
            await terminate_child(top, "child")
            took_s = trio.current_time() - began
            got[shutdown, takes_s] = (process.reason, took_s)
    assert got == SHUTDOWNS


async def test_a_child_that_ignores_the_stop_is_killed_and_its_siblings_wait(
    clean_node: CleanNode, autojump_clock: Clock
) -> None:
    """[supervisor: Child specification] Who traps exits and does not end in its time is
    killed; the next is stopped only then.
    """
    ends: list[tuple[str, float]] = []
    began = 0.0

    async def stubborn() -> None:
        trap_exit(True)
        try:
            while True:
                await receive()
        finally:
            ends.append(("stubborn", trio.current_time() - began))

    async def polite() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ends.append(("polite", trio.current_time() - began))

    async with clean_node() as node:
        children = [
            child(partial(PlainProcess, polite), id="first"),
            child(partial(PlainProcess, stubborn), id="second", shutdown=3.0),
            child(partial(PlainProcess, polite), id="third"),
        ]
        top = await node.start(Supervisor(children))
        await settle()
        began = trio.current_time()
        await stop(top)
    assert ends == [("polite", 0.0), ("stubborn", 3.0), ("polite", 3.0)]


@pytest.mark.parametrize(
    ("max_restarts", "ends_at", "gives_up_at"),
    [
        (0, [1.0], 1.0),
        (1, [1.0, 2.0], 2.0),
        (1, [1.0, 6.0], 6.0),
        (1, [1.0, 6.1], None),
        (2, [1.0, 2.0, 6.0], 6.0),
        (2, [1.0, 2.0, 6.1, 7.1], None),
        (2, [1.0, 2.0, 6.1, 6.2], 6.2),
        (3, [1.0, 1.0, 1.0], None),
        (3, [1.0, 1.0, 1.0, 1.0], 1.0),
    ],
)
async def test_the_edges_of_the_restart_intensity(
    clean_node: CleanNode,
    autojump_clock: Clock,
    family: Family,
    max_restarts: int,
    ends_at: list[float],
    gives_up_at: float | None,
) -> None:
    """[supervisor: Restart intensity] More than max_restarts within max_seconds, over
      all children, and the supervisor stops them and itself; 0 allows none.
    [supervisor: Restart intensity] A restart exactly max_seconds ago still counts.
    [supervisor: Restart intensity] differs: the reason is a shutdown with a detail that
      tells child and reason. Erlang says shutdown alone; supervisors above treat both
      alike.
    """
    given_up: list[tuple[float, object]] = []

    async def watch(pid: Pid, began: float) -> None:
        reason = await wait_exit(pid)
        given_up.append((trio.current_time() - began, reason))

    async with clean_node() as node, trio.open_nursery() as nursery:
        inner = partial(
            Supervisor,
            [family("a"), family("b")],
            max_restarts=max_restarts,
            max_seconds=5.0,
        )
        top = await node.start(
            Supervisor([child(inner, id="inner", name="inner", restart=X)])
        )
        began = trio.current_time()
        pid = whereis("inner")
        assert pid is not None
        nursery.start_soon(watch, pid, began)
        for n, at in enumerate(ends_at):
            # An event at the very instant: only virtual time makes that exact.
            await trio.sleep_until(began + at)
            await end("ab"[n % 2], KILLED)
        assert (whereis("inner") is None) is (gives_up_at is not None)
        if gives_up_at is None:
            kill(pid)
        else:
            last = "ab"[(len(ends_at) - 1) % 2]
            detail = GaveUp(last, KILLED, max_restarts, 5.0)
            ((at, reason),) = given_up
            assert (round(at, 6), reason) == (gives_up_at, Shutdown(detail))
            assert await which_children(top) == ()


MODES = (
    AutoShutdown.NEVER,
    AutoShutdown.ANY_SIGNIFICANT,
    AutoShutdown.ALL_SIGNIFICANT,
)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("restart", [T, X])
async def test_auto_shutdown_by_mode_restart_type_and_reason(
    clean_node: CleanNode,
    schedule: int,
    kind: Kind,
    mode: AutoShutdown,
    restart: Restart,
) -> None:
    """[supervisor: Automatic Shutdown] any_significant: the first significant child
      that ends for good ends the supervisor, with shutdown; all_significant: the last
      one does.
    [supervisor: Automatic Shutdown] A transient child ends for good when it ends
      normally, a temporary one however it ends.
    [supervisor: Automatic Shutdown] never: significant children are refused.
    """
    family = Family(kind)

    def significant(name: str) -> ChildSpec:
        return family(name, restart=restart, significant=True)

    if mode is AutoShutdown.NEVER:
        with pytest.raises(ValueError, match="needs a supervisor with auto_shutdown"):
            Supervisor([significant("a")])
        return
    got: dict[ExitReason, list[bool]] = {}
    for reason in REASONS:
        async with clean_node() as node:
            inner = partial(
                Supervisor,
                [significant("a"), family("other"), significant("b")],
                auto_shutdown=mode,
                max_restarts=100,
            )
            await node.start(
                Supervisor([child(inner, id="inner", name="inner", restart=X)])
            )
            pid = whereis("inner")
            assert pid is not None
            process = node.processes[pid.number]
            lives = []
            for name in "ab":
                if whereis(name) is not None:
                    await end(name, reason)
                lives.append(whereis("inner") is not None)
            got[reason] = lives
            assert process.reason is (None if lives[-1] else SHUTDOWN)

    for_good = set(REASONS) - RESTARTED[restart]
    ended = [False, False] if mode is AutoShutdown.ANY_SIGNIFICANT else [True, False]
    assert got == {r: ended if r in for_good else [True, True] for r in REASONS}


async def test_a_significant_child_that_is_stopped_by_hand_ends_nothing(
    clean_node: CleanNode, kind: Kind
) -> None:
    """[supervisor: Automatic Shutdown] Only the end of a child by itself counts, not
    terminate_child.
    """
    family = Family(kind)
    async with clean_node() as node:
        top = await node.start(
            Supervisor(
                [family("a", restart=T, significant=True)],
                auto_shutdown=AutoShutdown.ANY_SIGNIFICANT,
            )
        )
        await terminate_child(top, "a")
        await settle()
        assert node.processes[top.number].reason is None


async def _try(operation: Any, *args: Any) -> object:
    try:
        result = await operation(*args)
    except (ChildError, StartError) as error:
        return type(error)
    return "pid" if isinstance(result, Pid) else result


async def test_each_operation_on_each_state_of_a_child(
    clean_node: CleanNode, autojump_clock: Clock, kind: Kind
) -> None:
    """[supervisor:terminate_child/2] Stops a running child and keeps its specification,
      unless it is temporary; one that does not run is left as it is.
    [supervisor:restart_child/2] Starts a stopped child; running, about to be restarted,
      or unknown is an error.
    [supervisor:delete_child/2] Drops the specification of a stopped child; running,
      about to be restarted, or unknown is an error.
    [supervisor:start_child/2] An id that is there already is an error: already_started
      with the pid when it runs, already_present when not.
    [supervisor:count_children/1] Counts specifications, running ones, supervisors and
      workers.
    """
    family = Family(kind)

    async def fresh(node: Node, state: str) -> Pid:
        options = {"backoff_s": 100.0} if state == "restarting" else {}
        restart = X if state == "temporary" else P
        spec = family("child", restart=restart, **options)
        top = await node.start(child(partial(Supervisor, [spec]), restart=X, id="top"))
        if state == "stopped":
            await terminate_child(top, "child")
        if state == "restarting":
            await end("child", KILLED)
        if state == "unknown":
            await terminate_child(top, "child")
            await delete_child(top, "child")
        await settle()
        return top

    got: dict[tuple[str, str], object] = {}
    states = ("running", "stopped", "restarting", "temporary", "unknown")
    operations: dict[str, Any] = {
        "terminate": terminate_child,
        "restart": restart_child,
        "delete": delete_child,
    }
    counts: dict[str, ChildCounts] = {}
    for state, name in product(states, (*operations, "start")):
        async with clean_node() as node:
            top = await fresh(node, state)
            counts[state] = await count_children(top)
            if name == "start":
                got[state, name] = await _try(start_child, top, family("child"))
            else:
                got[state, name] = await _try(operations[name], top, "child")
    unknown = ChildNotFoundError
    assert got == {
        ("running", "terminate"): None,
        ("running", "restart"): ChildError,
        ("running", "delete"): ChildError,
        ("running", "start"): AlreadyStartedError,
        ("stopped", "terminate"): None,
        ("stopped", "restart"): "pid",
        ("stopped", "delete"): None,
        ("stopped", "start"): ChildError,
        ("restarting", "terminate"): None,
        ("restarting", "restart"): ChildError,
        ("restarting", "delete"): ChildError,
        ("restarting", "start"): ChildError,
        ("temporary", "terminate"): None,
        ("temporary", "restart"): ChildError,
        ("temporary", "delete"): ChildError,
        ("temporary", "start"): AlreadyStartedError,
        ("unknown", "terminate"): unknown,
        ("unknown", "restart"): unknown,
        ("unknown", "delete"): unknown,
        ("unknown", "start"): "pid",
    }
    assert counts == {
        "running": ChildCounts(1, 1, 0, 1),
        "stopped": ChildCounts(1, 0, 0, 1),
        "restarting": ChildCounts(1, 0, 0, 1),
        "temporary": ChildCounts(1, 1, 0, 1),
        "unknown": ChildCounts(0, 0, 0, 0),
    }


async def test_a_terminated_child_is_not_restarted_but_counts_as_there(
    clean_node: CleanNode, schedule: int, kind: Kind
) -> None:
    """[supervisor:terminate_child/2] It is stopped in its shutdown time, and not
    restarted, whatever its type; the caller waits for that.
    """
    family = Family(kind)
    async with clean_node() as node:
        top = await node.start(Supervisor([family("a"), family("b", restart=T)]))
        family.since()
        for name in "ab":
            await terminate_child(top, name)
            assert family.since() == [f"-{name}"]
        await settle()
        assert [i.pid for i in await which_children(top)] == [None, None]
        # A restart that its sibling causes starts nothing here: one_for_one.
        await restart_child(top, "b")
        await end("b", KILLED)
        assert [i.pid is None for i in await which_children(top)] == [True, False]


@pytest.mark.parametrize("restart", Restart)
async def test_a_dynamic_child_by_restart_type_and_reason(
    clean_node: CleanNode, schedule: int, kind: Kind, restart: Restart
) -> None:
    """[DynamicSupervisor] Children are started one by one, and restarted by their type
      and reason, each alone.
    [DynamicSupervisor.start_child/2] It returns the pid when init is done.
    """
    family = Family(kind)
    got: dict[ExitReason, list[str]] = {}
    for reason in REASONS:
        async with clean_node() as node:
            top = await node.start(DynamicSupervisor())
            await start_child(top, family("other"))
            await start_child(top, family("a", restart=restart))
            assert family.since() == ["+other", "+a"]
            await end("a", reason)
            got[reason] = [e for e in family.since() if e.startswith("+")]
            counts = await count_children(top)
            assert counts.active == counts.specs == 1 + len(got[reason])
        family.since()
    assert got == {r: ["+a"] if r in RESTARTED[restart] else [] for r in REASONS}


async def test_what_a_dynamic_supervisor_refuses(
    clean_node: CleanNode, schedule: int, kind: Kind
) -> None:
    """[DynamicSupervisor.start_child/2] Above max_children a start is refused; one that
      fails or ignores is not kept.
    [DynamicSupervisor.terminate_child/2] A pid that is no child is not found; an id is
      refused.
    [supervisor: Restart Strategies] restart_child and delete_child are no operations of
      a dynamic supervisor.
    """
    family = Family(kind)
    async with clean_node() as node:
        top = await node.start(DynamicSupervisor(max_children=2))
        first = await start_child(top, family("a"))
        for job, error in ((raising(CRASH), StartError), (Ignore, StartIgnoredError)):
            with pytest.raises(error):
                await start_child(top, family("b", job))
        await start_child(top, family("b"))
        with pytest.raises(MaxChildrenError):
            await start_child(top, family("c"))
        assert await count_children(top) == ChildCounts(2, 2, 0, 2)
        await terminate_child(top, first)
        assert await count_children(top) == ChildCounts(1, 1, 0, 1)
        assert await _try(terminate_child, top, first) is ChildNotFoundError
        for operation in (terminate_child, restart_child, delete_child):
            assert await _try(operation, top, "b") is ChildError


async def test_a_dynamic_supervisor_stops_all_children_at_the_same_time(
    clean_node: CleanNode, autojump_clock: Clock
) -> None:
    """[supervisor: Restart Strategies] A simple_one_for_one supervisor stops its
      children side by side, in no order.
    [DynamicSupervisor] All have ended when it has.
    """
    log: Log = []
    async with clean_node() as node:
        top = await node.start(child(DynamicSupervisor, restart=X))
        for n in range(5):
            spec = child(
                partial(ToldTask, log, None, partial(trio.sleep, 2.0 + n / 10)),
                id=str(n),
            )
            await start_child(top, spec)
        began = trio.current_time()
    assert trio.current_time() - began == pytest.approx(2.4)
    assert log == [("terminate", SHUTDOWN)] * 5
