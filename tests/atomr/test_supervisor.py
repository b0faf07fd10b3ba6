"""Supervisor: order, strategies, intensity, backoff, and operations on children."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

import pytest
import trio
import trio.testing

from atomr import telemetry
from atomr.core.exits import KILLED, NORMAL, SHUTDOWN, ExitReason, Shutdown
from atomr.core.supervision import GaveUp
from atomr.errors import (
    AlreadyStartedError,
    ChildError,
    ChildNotFoundError,
    RootExitError,
    StartError,
    StartIgnoredError,
)
from atomr.otp import (
    AutoShutdown,
    ChildCounts,
    ChildInfo,
    ChildKind,
    ChildState,
    DynamicSupervisor,
    GenServer,
    Ignore,
    Ok,
    Restart,
    Stop,
    Strategy,
    Supervisor,
    call,
    cast,
    child,
    count_children,
    delete_child,
    restart_child,
    start_child,
    supervision_tree,
    terminate_child,
    which_children,
)
from atomr.process import (
    Node,
    attached,
    exit_process,
    kill,
    open_node,
    send,
    stop,
    wait_exit,
    whereis,
)

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]
settle = trio.testing.wait_all_tasks_blocked
CRASH = ValueError("x")
P, T, X = Restart.PERMANENT, Restart.TRANSIENT, Restart.TEMPORARY


class Member(GenServer):
    """Writes its start and end into a log; ends as it is told."""

    def __init__(self, name: str, log: list[str], init_s: float = 0.0) -> None:
        self.name = name
        self.log = log
        self.init_s = init_s

    async def init(self) -> None:
        await trio.sleep(self.init_s)
        self.log.append(f"+{self.name}")

    def handle_cast(self, reason: ExitReason) -> Stop:
        return Stop(reason)

    async def terminate(self, reason: ExitReason) -> None:
        await trio.lowlevel.checkpoint()
        self.log.append(f"-{self.name}")


class Family:
    """Child specifications whose processes share one log."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def __call__(self, name: str, **options: Any) -> Any:
        return child(lambda: Member(name, self.log), id=name, name=name, **options)

    def since(self) -> list[str]:
        """Return the log and empty it."""
        log, self.log[:] = list(self.log), []
        return log


@pytest.fixture
def family() -> Family:
    return Family()


async def end(name: str, reason: ExitReason) -> None:
    """Let the named process end, and wait for what follows."""
    if reason is KILLED:
        kill(whereis(name))  # type: ignore[arg-type]
    else:
        cast(name, reason)
    await settle()


async def test_children_start_in_order_and_stop_in_reverse(
    clean_node: CleanNode, family: Family, schedule: int
) -> None:
    async with clean_node() as node:
        await node.start(Supervisor([family(n) for n in "abc"]))
        assert family.since() == ["+a", "+b", "+c"]

    assert family.log == ["-c", "-b", "-a"]


async def test_each_child_has_finished_its_init_before_the_next_starts(
    clean_node: CleanNode, family: Family, autojump_clock: trio.testing.MockClock
) -> None:
    slow = child(lambda: Member("slow", family.log, 3.0), id="slow")
    async with clean_node() as node:
        await node.start(Supervisor([slow, family("after")]))
        assert (family.log, trio.current_time()) == (["+slow", "+after"], 3.0)


async def test_a_failure_in_the_middle_of_the_start_rolls_back_in_reverse(
    clean_node: CleanNode, family: Family, schedule: int
) -> None:
    class Fails(GenServer):
        def init(self) -> Stop:
            raise CRASH

    children = [family("a"), family("b"), child(Fails), family("never")]
    async with clean_node() as node:
        with pytest.raises(StartError) as caught:
            await node.start(child(lambda: Supervisor(children), id="top"))
        assert node.processes == {}

    assert family.log == ["+a", "+b", "-b", "-a"]
    assert caught.value.child == "top"
    inner = caught.value.reason
    assert isinstance(inner, StartError)
    assert (inner.child, inner.reason, inner.__cause__) == ("Fails", CRASH, CRASH)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (Strategy.ONE_FOR_ONE, ["+b"]),
        (Strategy.ONE_FOR_ALL, ["-c", "-a", "+a", "+b", "+c"]),
        (Strategy.REST_FOR_ONE, ["-c", "+b", "+c"]),
    ],
)
async def test_a_strategy_says_which_siblings_are_restarted(
    clean_node: CleanNode,
    family: Family,
    schedule: int,
    strategy: Strategy,
    expected: list[str],
) -> None:
    async with clean_node() as node:
        top = Supervisor([family(n) for n in "abc"], strategy=strategy)
        await node.start(top)
        family.since()
        await end("b", KILLED)
        assert family.since() == expected


@pytest.mark.parametrize(
    ("restart", "reason", "restarted"),
    [
        (P, NORMAL, True),
        (P, Shutdown(1), True),
        (P, CRASH, True),
        (T, NORMAL, False),
        (T, SHUTDOWN, False),
        (T, Shutdown(1), False),
        (T, CRASH, True),
        (T, KILLED, True),
        (X, NORMAL, False),
        (X, CRASH, False),
        (X, KILLED, False),
    ],
)
@pytest.mark.parametrize("strategy", Strategy)
async def test_a_child_is_restarted_by_its_type_and_reason(
    clean_node: CleanNode,
    family: Family,
    strategy: Strategy,
    restart: Restart,
    reason: ExitReason,
    restarted: bool,
) -> None:
    async with clean_node() as node:
        await node.start(
            Supervisor([family("a", restart=restart), family("b")], strategy=strategy)
        )
        other = whereis("b")
        await end("a", reason)
        assert (whereis("a") is not None) is restarted
        # Without a restart no sibling is touched, whatever the strategy.
        takes_along = restarted and strategy is not Strategy.ONE_FOR_ONE
        assert (whereis("b") is not other) is takes_along


async def test_a_crash_reaches_no_sibling(
    clean_node: CleanNode, family: Family, schedule: int
) -> None:
    async with clean_node() as node:
        await node.start(Supervisor([family(n) for n in "abc"]))
        others = [whereis("a"), whereis("c")]
        await end("b", CRASH)
        assert [whereis("a"), whereis("c")] == others


async def test_a_restart_starts_from_a_fresh_instance(clean_node: CleanNode) -> None:
    made: list[GenServer] = []

    class Counter(GenServer):
        def __init__(self) -> None:
            made.append(self)

        def handle_cast(self, message: object) -> Stop:
            return Stop(CRASH)

    async with clean_node() as node:
        await node.start(Supervisor([child(Counter, name="counter")]))
        await end("counter", CRASH)

    assert len(made) == 2


async def test_over_the_intensity_the_node_hears_who_and_why(
    family: Family, schedule: int
) -> None:
    """One window for all children; the body is cancelled, the others stop."""
    went_on: list[bool] = []
    with pytest.raises(RootExitError) as caught:
        async with open_node() as node:
            await node.start(family("other"))
            children = [family(n) for n in "ab"]
            await node.start(Supervisor(children, max_restarts=3, max_seconds=5.0))
            family.since()
            for name in "aba":
                await end(name, KILLED)
            cast("b", CRASH)
            await trio.sleep(1.0)
            went_on.append(True)

    assert went_on == []
    assert caught.value.reason == Shutdown(GaveUp("b", CRASH, 3, 5.0))
    assert family.log == ["+a", "+b", "+a", "-b", "-a", "-other"]


async def test_restarts_outside_the_window_do_not_count(
    clean_node: CleanNode, family: Family, autojump_clock: trio.testing.MockClock
) -> None:
    async with clean_node() as node:
        await node.start(Supervisor([family("a")], max_restarts=1, max_seconds=5.0))
        for _ in range(5):
            await trio.sleep(5.1)
            await end("a", KILLED)
        assert whereis("a") is not None


async def test_a_supervisor_that_gives_up_is_restarted_by_its_own(
    clean_node: CleanNode, family: Family
) -> None:
    def inner() -> Supervisor:
        return Supervisor([family("a"), family("b")], max_restarts=0)

    async with clean_node() as node:
        await node.start(Supervisor([child(inner), family("c")]))
        family.since()
        await end("a", KILLED)
        assert family.since() == ["-b", "+a", "+b"]


async def test_a_restart_writes_one_warning_line_and_one_event(
    clean_node: CleanNode, family: Family, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[Any] = []
    telemetry.attach("t", ("atomr", "supervisor"), lambda *e: events.append(e))
    try:
        async with clean_node() as node:
            top = await node.start(Supervisor([family("a")]))
            await end("a", KILLED)
            await end("a", KILLED)
            new = whereis("a")
    finally:
        telemetry.detach("t")

    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        (
            "WARNING",
            "supervisor <Pid 1 Supervisor> restarts 'a' after KILLED:"
            f" restart {n} of 3 in 5.0 s",
        )
        for n in (1, 2)
    ]
    assert [event[-1] for event, *_ in events] == [
        "child_start",
        "restart",
        "child_start",
        "restart",
        "child_start",
    ]
    about = {"supervisor": top, "child": "a"}
    assert events[-2][2] == {**about, "reason": KILLED, "delay_s": 0.0}
    assert events[-1][2] == {**about, "pid": new}


async def test_a_start_that_fails_on_a_restart_uses_the_intensity_up(
    clean_node: CleanNode, caplog: pytest.LogCaptureFixture
) -> None:
    starts = 0

    class FailsLater(GenServer):
        def init(self) -> None:
            nonlocal starts
            starts += 1
            if starts > 1:
                raise CRASH

    def inner() -> Supervisor:
        return Supervisor([child(FailsLater, name="a")], max_restarts=3)

    async with clean_node() as node:
        top = await node.start(Supervisor([child(inner, restart=X)]))
        await end("a", KILLED)
        assert await which_children(top) == ()

    assert starts == 4


@pytest.mark.parametrize("strategy", [Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE])
async def test_a_group_restart_that_fails_in_the_middle_is_tried_again_as_a_group(
    clean_node: CleanNode, family: Family, strategy: Strategy
) -> None:
    failures = 0

    class FailsOnce(Member):
        async def init(self) -> None:
            nonlocal failures
            if failures:
                failures -= 1
                raise CRASH
            await super().init()

    fails = child(lambda: FailsOnce("b", family.log), id="b", name="b")
    async with clean_node() as node:
        await node.start(
            Supervisor([family("a"), fails, family("c")], strategy=strategy)
        )
        failures = 1
        family.since()
        await end("a", KILLED)
        assert [whereis(name) is not None for name in "abc"] == [True, True, True]
        # Those before the one that failed are stopped again by one_for_all alone.
        again = ["-a", "+a"] if strategy is Strategy.ONE_FOR_ALL else []
        assert family.since() == ["-c", "-b", "+a", *again, "+b", "+c"]


async def test_backoff_spreads_the_tries_while_the_supervisor_answers(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    """0.5, 1, 2 s, bounded by 2 s; starts again at 0.5 after a long life."""
    starts: list[float] = []

    class Flaps(GenServer):
        def init(self) -> Ok:
            starts.append(trio.current_time())
            return Ok(continue_=None)

        async def handle_continue(self, continuation: object) -> Stop:
            if len(starts) == 5:
                await trio.sleep(60.0)
            return Stop(CRASH)

    spec = child(Flaps, id="a", backoff_s=0.5, max_backoff_s=2.0)
    async with clean_node() as node:
        top = await node.start(Supervisor([spec], max_restarts=3, max_seconds=1.0))
        await settle()
        assert await which_children(top) == (
            ChildInfo("a", None, ChildKind.WORKER, ChildState.RESTARTING),
        )
        with pytest.raises(ChildError, match="the child is restarting"):
            await restart_child(top, "a")
        await trio.sleep_until(66.3)
        await terminate_child(top, "a")
        assert (await which_children(top))[0].state is ChildState.STOPPED
        await trio.sleep(100)

    assert starts == [0.0, 0.5, 1.5, 3.5, 5.5, 66.0]


async def test_backoff_of_the_supervisor_holds_for_children_that_have_none(
    clean_node: CleanNode, family: Family, autojump_clock: trio.testing.MockClock
) -> None:
    async with clean_node() as node:
        children = [family("a"), family("b", backoff_s=1.0)]
        await node.start(Supervisor(children, backoff_s=7.0))
        await end("a", KILLED)
        await end("b", KILLED)
        await trio.sleep(1.1)
        assert [whereis("a"), whereis("b") is None] == [None, False]
        await trio.sleep(6)
        assert whereis("a") is not None


async def test_a_stop_interrupts_a_slow_init(
    clean_node: CleanNode, family: Family, autojump_clock: trio.testing.MockClock
) -> None:
    """A model that loads for minutes must not hold up SIGTERM."""
    slow = child(lambda: Member("slow", family.log, 600.0), id="slow")
    async with clean_node() as node:
        spec = child(lambda: Supervisor([family("a")]), id="top", restart=X)
        top = await node.start(spec)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def add() -> None:
                with pytest.raises(StartError, match="the supervisor is stopping"):
                    await start_child(top, slow)

            await trio.sleep(1.0)
            await stop(top, SHUTDOWN)
        assert trio.current_time() == 1.0

    assert family.log == ["+a", "-a"]


async def test_a_stop_while_nested_children_start_still_stops_in_order(
    clean_node: CleanNode, family: Family, autojump_clock: trio.testing.MockClock
) -> None:
    slow = child(lambda: Member("slow", family.log, 600.0), id="slow")

    def inner() -> Supervisor:
        return Supervisor([family("b"), family("c"), slow, family("never")])

    async with clean_node() as node, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def start() -> None:
            with pytest.raises(StartError):
                await node.start(Supervisor([family("a"), child(inner)]))

        await trio.sleep(1.0)
        assert family.since() == ["+a", "+b", "+c"]
        await node.stop()
        assert (trio.current_time(), family.log) == (1.0, ["-c", "-b", "-a"])


async def test_auto_shutdown_ends_the_supervisor_with_its_significant_child(
    clean_node: CleanNode, family: Family
) -> None:
    children = [family("a"), family("b", restart=T, significant=True)]
    async with clean_node() as node:
        spec = child(
            lambda: Supervisor(children, auto_shutdown=AutoShutdown.ANY_SIGNIFICANT),
            id="top",
            restart=X,
        )
        top = await node.start(spec)
        cast("b", NORMAL)
        assert await wait_exit(top) is SHUTDOWN

    assert family.log == ["+a", "+b", "-b", "-a"]


async def test_a_significant_child_needs_auto_shutdown(
    clean_node: CleanNode, family: Family
) -> None:
    with pytest.raises(ValueError, match="needs a supervisor with auto_shutdown"):
        Supervisor([family("a", restart=T, significant=True)])
    async with clean_node() as node:
        for top in (Supervisor(), DynamicSupervisor()):
            pid = await node.start(top)
            with pytest.raises(ChildError, match=r"auto_shutdown|no significant"):
                await start_child(pid, family("a", restart=T, significant=True))


def test_two_children_of_one_id_are_refused(family: Family) -> None:
    with pytest.raises(ValueError, match="two children have the id 'a'"):
        Supervisor([family("a"), family("a")])


async def test_the_life_of_a_child_by_hand(
    clean_node: CleanNode, family: Family, schedule: int
) -> None:
    async with clean_node() as node:
        top = await node.start(Supervisor())
        pid = await start_child(top, family("a"))
        with pytest.raises(AlreadyStartedError) as already:
            await start_child(top, family("a"))
        assert already.value.pid is pid
        for operation in (restart_child, delete_child):
            with pytest.raises(ChildError, match="the child is running"):
                await operation(top, "a")
        await terminate_child(top, pid)
        assert await which_children(top) == (
            ChildInfo("a", None, ChildKind.WORKER, ChildState.STOPPED),
        )
        with pytest.raises(ChildError, match="that child is stopped"):
            await start_child(top, family("a"))
        again = await restart_child(top, "a")
        assert whereis("a") is again is not pid
        await terminate_child(top, "a")
        await delete_child(top, "a")
        assert await which_children(top) == ()
        for operation in (restart_child, delete_child, terminate_child):
            with pytest.raises(ChildNotFoundError):
                await operation(top, "a")


async def test_a_terminated_temporary_child_is_forgotten(
    clean_node: CleanNode, family: Family
) -> None:
    async with clean_node() as node:
        top = await node.start(Supervisor([family("a", restart=X)]))
        await terminate_child(top, "a")
        assert await which_children(top) == ()


async def test_a_child_that_does_not_start_is_not_kept(
    clean_node: CleanNode, family: Family
) -> None:
    class Fails(GenServer):
        def init(self) -> None:
            raise CRASH

    async with clean_node() as node:
        top = await node.start(Supervisor())
        with pytest.raises(StartError) as caught:
            await start_child(top, child(Fails))
        assert caught.value.__cause__ is CRASH
        await start_child(top, family("a"))
        with pytest.raises(AlreadyStartedError, match="'a' failed: already started"):
            await start_child(top, child(lambda: Member("x", []), id="b", name="a"))
        assert [info.id for info in await which_children(top)] == ["a"]


async def test_a_child_that_ignores_is_kept_without_a_process(
    clean_node: CleanNode, family: Family
) -> None:
    class Ignores(GenServer):
        def init(self) -> Ignore:
            return Ignore()

    async with clean_node() as node:
        specs = [child(Ignores), child(Ignores, id="temporary", restart=X), family("a")]
        top = await node.start(Supervisor(specs))
        with pytest.raises(StartIgnoredError):
            await start_child(top, child(Ignores, id="later"))
        infos = await which_children(top)

    assert [(i.id, i.state) for i in infos] == [
        ("Ignores", ChildState.STOPPED),
        ("a", ChildState.RUNNING),
        ("later", ChildState.STOPPED),
    ]


async def test_counts_and_unknown_requests(
    clean_node: CleanNode, family: Family, caplog: pytest.LogCaptureFixture
) -> None:
    async with clean_node() as node:
        children = [
            family("a"),
            family("b"),
            child(Supervisor),
            child(DynamicSupervisor),
        ]
        top = await node.start(Supervisor(children))
        await terminate_child(top, "b")
        assert await count_children(top) == ChildCounts(4, 3, 2, 2)
        with pytest.raises(ChildError, match="knows no such request"):
            await call(top, "what?")
        send(top, "what?")
        await settle()
        assert "got an unexpected message: 'what?'" in caplog.text


async def test_an_exit_signal_does_not_end_a_supervisor_but_a_kill_does(
    clean_node: CleanNode, family: Family, schedule: int
) -> None:
    """Its children end with it: they are in its nursery."""
    inner = child(lambda: Supervisor([family("a")]), id="inner", name="inner")
    async with clean_node() as node:
        await node.start(Supervisor([inner]))
        pid, a = whereis("inner"), whereis("a")
        assert pid is not None
        exit_process(pid, SHUTDOWN)
        await settle()
        assert whereis("inner") is pid
        family.since()
        kill(pid)
        await settle()
        assert family.since() == ["-a", "+a"]
        assert whereis("a") not in (None, a)


async def test_children_that_crash_together_are_restarted_once_each(
    clean_node: CleanNode, family: Family, schedule: int
) -> None:
    async with clean_node() as node:
        await node.start(
            Supervisor(
                [family(n) for n in "abc"],
                strategy=Strategy.ONE_FOR_ALL,
                max_restarts=1,
            )
        )
        family.since()
        for name in "abc":
            kill(whereis(name))  # type: ignore[arg-type]
        await settle()
        assert family.since() == ["+a", "+b", "+c"]


async def test_a_child_that_ends_at_once_after_its_start_is_seen(
    clean_node: CleanNode, schedule: int
) -> None:
    starts = 0

    class Brief(GenServer):
        def init(self) -> Ok:
            nonlocal starts
            starts += 1
            return Ok(continue_=1)

        def handle_continue(self, continuation: object) -> Stop | None:
            return Stop(CRASH) if starts < 3 else None

    async with clean_node() as node:
        await node.start(Supervisor([child(Brief, name="brief")]))
        await settle()
        assert whereis("brief") is not None

    assert starts == 3


async def test_the_tree_shows_everything_below_a_node(
    clean_node: CleanNode, family: Family, autojump_clock: trio.testing.MockClock
) -> None:
    dynamic = child(DynamicSupervisor, id="requests", name="requests")
    async with clean_node() as node:
        children = [family("a"), dynamic, family("b", restart=T)]
        top = await node.start(child(lambda: Supervisor(children), id="top"))
        await end("a", KILLED)
        await end("b", NORMAL)
        await start_child("requests", family("session"))
        await trio.sleep(2.0)
        async with attached("requests", id="r1") as request:
            tree = supervision_tree(node)
            assert tree is not None
            lines = tree.as_lines()
            assert supervision_tree(top) == tree.children[0]
            send("a", "waits")
            a = supervision_tree("a")
        assert supervision_tree(request) is None

    assert lines == [
        "test (running) Node",
        "  top <Pid 1 top> Supervisor",
        "    a <Pid 5 a> Member",
        "    requests <Pid 3 requests> DynamicSupervisor",
        "      session <Pid 6 session> Member",
        "      r1 <Pid 7 r1> Attached",
        "    b (stopped)",
    ]
    assert a is not None
    assert (a.names, a.queue_size, a.uptime_s, a.restarts) == (("a",), 1, 2.0, 1)
