"""A server with a task is put away while nothing comes, and nobody can tell."""

from __future__ import annotations

import contextvars
import gc
import tracemalloc
from typing import TYPE_CHECKING, ClassVar

import attrs
import pytest
import trio
import trio.testing

from atomr import telemetry
from atomr.core.exits import KILL, KILLED, NORMAL, SHUTDOWN, ExitReason
from atomr.errors import (
    NoProcessError,
    ServerDownError,
    StartError,
    StartIgnoredError,
)
from atomr.otp import (
    DynamicSupervisor,
    Fail,
    From,
    GenServer,
    Ignore,
    MailboxLimit,
    NoReply,
    Ok,
    Overflow,
    Reply,
    Restart,
    Stop,
    Supervisor,
    call,
    cast,
    cast_wait,
    child,
    start_child,
    sys,
)
from atomr.process import (
    exit_process,
    is_alive,
    kill,
    link,
    monitor,
    open_node,
    receive,
    self_pid,
    send,
    send_after,
    spawn,
    stop,
    wait_exit,
)
from atomr.process.task_process import TaskProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.process import Node
    from atomr.refs import Pid
    from tests.atomr.conftest import CleanNode

SEEN: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="nothing")


class Sleeper(GenServer):
    """Hibernates after each message but the call ``"awake"``."""

    def __init__(self) -> None:
        self.log: list[object] = []

    async def handle_call(self, request: object, from_: From) -> Reply | Fail | Stop:
        self.log.append(request)
        match request:
            case "awake":
                return Reply(tuple(self.log))
            case "wait":
                await trio.sleep(1)
            case "set":
                SEEN.set("something")
            case "get":
                return Reply(SEEN.get(), hibernate=True)
            case "fail":
                return Fail(ValueError("no"), hibernate=True)
            case "stop":
                return Stop(NORMAL, reply="bye")
            case "crash":
                raise ValueError("asked to")
        return Reply(request, hibernate=True)

    async def handle_cast(self, message: object) -> NoReply:
        self.log.append(message)
        return NoReply(hibernate=True)

    async def handle_info(self, message: object) -> NoReply:
        self.log.append(message)
        return NoReply(hibernate=True)

    async def terminate(self, reason: ExitReason) -> None:
        await trio.lowlevel.checkpoint()
        ENDS.append(reason)


ENDS: list[ExitReason] = []


@pytest.fixture(autouse=True)
def ends() -> list[ExitReason]:
    ENDS.clear()
    return ENDS


def hibernates(node: Node, pid: Pid) -> bool:
    process = node.processes[pid.number]
    assert isinstance(process, TaskProcess)
    assert (process.task is None) is process.hibernating
    return process.hibernating


async def asleep(node: Node) -> Pid:
    """Start a server and let it hibernate."""
    pid = await node.start(child(Sleeper, restart=Restart.TEMPORARY))
    assert await call(pid, 1) == 1
    await trio.testing.wait_all_tasks_blocked()
    assert hibernates(node, pid)
    return pid


async def test_a_call_wakes_it_and_its_result_says_whether_it_sleeps_again(
    clean_node: CleanNode, schedule: int
) -> None:
    """[GenServer: handle_call] hibernate puts the server away until the next message,
    which wakes it.
    """
    async with clean_node() as node:
        pid = await asleep(node)
        assert await call(pid, 2) == 2
        await trio.testing.wait_all_tasks_blocked()
        assert hibernates(node, pid)
        assert await call(pid, "awake") == (1, 2, "awake")
        await trio.testing.wait_all_tasks_blocked()
        assert not hibernates(node, pid)


async def test_messages_that_wait_are_handled_before_it_sleeps(
    clean_node: CleanNode, schedule: int
) -> None:
    """[proc_lib:hibernate/3] One that has messages is awake at once."""
    async with clean_node() as node:
        pid = await asleep(node)
        for number in range(300):
            cast(pid, number)
        log = await call(pid, "awake")
        assert log == (1, *range(300), "awake")


async def test_a_timer_and_a_down_wake_it(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async with clean_node() as node:
        pid = await asleep(node)
        send_after(3, pid, "tick")
        await trio.sleep(2)
        assert hibernates(node, pid)
        await trio.sleep(2)
        assert await call(pid, "awake") == (1, "tick", "awake")


class Started(GenServer):
    """Has a plain ``init``, which returns what it is told to."""

    def __init__(self, result: object = None) -> None:
        self.result = result
        self.did: list[object] = []

    def init(self) -> Ok | None:
        self.did.append(self_pid())
        SEEN.set("in init")
        if isinstance(self.result, Exception):
            raise self.result
        return self.result  # type: ignore[return-value]

    async def handle_call(self, request: object, from_: From) -> Reply:
        return Reply((SEEN.get(), *self.did))

    async def handle_info(self, message: object) -> None:
        self.did.append(type(message).__name__)

    async def handle_continue(self, continuation: object) -> None:
        self.did.append(continuation)


async def test_a_start_that_cannot_wait_makes_no_task(
    clean_node: CleanNode, schedule: int
) -> None:
    async with clean_node() as node:
        SEEN.set("outside")
        await trio.testing.wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        pid = await node.start(Started())
        assert hibernates(node, pid)
        assert trio.lowlevel.current_statistics().tasks_living == before
        SEEN.set("changed")
        assert await call(pid, "first") == ("in init", pid)
        assert not hibernates(node, pid)
        assert trio.lowlevel.current_statistics().tasks_living == before + 1
        assert SEEN.get() == "changed"
        await stop(pid)


async def test_it_needs_none_to_stop_either(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        before = trio.lowlevel.current_statistics().tasks_living
        pid = await node.start(child(Started, restart=Restart.TEMPORARY))
        await stop(pid)
        assert not is_alive(pid)
        assert trio.lowlevel.current_statistics().tasks_living == before


async def test_what_init_asks_for_is_done_by_a_task_at_once(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    async with clean_node() as node:
        goes_on = await node.start(Started(Ok(continue_="more")))
        waits = await node.start(Started(Ok(timeout_s=3)))
        rests = await node.start(Started(Ok(hibernate=True)))
        await trio.sleep(2)
        assert hibernates(node, rests)
        assert await call(waits, 1) == ("in init", waits)
        await trio.sleep(9)
        # The call was activity: the time-out that init asked for is over.
        assert await call(waits, 1) == ("in init", waits)
        assert await call(goes_on, 1) == ("in init", goes_on, "more")

    async with clean_node() as node:
        waits = await node.start(Started(Ok(timeout_s=3)))
        await trio.sleep(4)
        assert await call(waits, 1) == ("in init", waits, "IdleTimeout")


async def test_what_came_while_init_ran_is_handled(clean_node: CleanNode) -> None:
    class Impatient(Started):
        def init(self) -> None:
            send(self_pid(), 1)
            send(self_pid(), "two")

    async with clean_node() as node:
        pid = await node.start(Impatient())
        await trio.testing.wait_all_tasks_blocked()
        assert await call(pid, 1) == ("nothing", "int", "str")


@pytest.mark.parametrize(
    ("result", "error", "reason"),
    [
        (Ignore(), StartIgnoredError, "init returned Ignore"),
        (Stop(SHUTDOWN), StartError, None),
        (ValueError("no"), StartError, None),
        ("nonsense", StartError, None),
    ],
)
async def test_a_plain_init_that_fails_leaves_nothing(
    clean_node: CleanNode,
    result: object,
    error: type[StartError],
    reason: object,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with clean_node() as node:
        with pytest.raises(error) as caught:
            await node.start(Started(result))
        if reason is not None:
            assert caught.value.reason == reason
        if isinstance(result, Exception):
            assert caught.value.reason is result
        assert node.processes == {}
    assert caplog.text == ""


async def test_a_plain_init_that_ends_itself_is_a_failed_start(
    clean_node: CleanNode,
) -> None:
    class Hasty(Started):
        def init(self) -> None:
            exit_process(self_pid(), SHUTDOWN)

    async with clean_node() as node:
        with pytest.raises(StartError) as caught:
            await node.start(Hasty())
        assert caught.value.reason is SHUTDOWN


async def test_a_link_ends_one_that_has_had_no_message(
    clean_node: CleanNode, schedule: int
) -> None:
    async def die(pid: Pid) -> None:
        link(pid)
        raise ValueError("linked")

    async with clean_node() as node:
        pid = await node.start(child(Started, restart=Restart.TEMPORARY))
        spawn(die, pid)
        reason = await wait_exit(pid)
        assert isinstance(reason, ValueError)


async def test_its_context_variables_survive(clean_node: CleanNode) -> None:
    """[proc_lib:hibernate/3] What belongs to the process stays: here its context
    variables.
    """
    async with clean_node() as node:
        pid = await asleep(node)
        await call(pid, "set")
        await trio.testing.wait_all_tasks_blocked()
        assert hibernates(node, pid)
        assert await call(pid, "get") == "something"
        assert SEEN.get() == "nothing"


async def test_a_failed_call_can_put_it_away_too(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        pid = await asleep(node)
        with pytest.raises(ValueError, match="no"):
            await call(pid, "fail")
        await trio.testing.wait_all_tasks_blocked()
        assert hibernates(node, pid)


async def test_it_may_hibernate_from_its_start(clean_node: CleanNode) -> None:
    class Early(Sleeper):
        async def init(self) -> Ok:
            return Ok(hibernate=True)

    async with clean_node() as node:
        pid = await node.start(Early())
        await trio.testing.wait_all_tasks_blocked()
        assert hibernates(node, pid)
        assert await call(pid, "awake") == ("awake",)


@pytest.mark.parametrize(
    ("how", "reason", "terminated"),
    [
        (kill, KILLED, []),
        (lambda pid: exit_process(pid, SHUTDOWN), SHUTDOWN, []),
    ],
    ids=["kill", "exit signal"],
)
async def test_a_signal_ends_it_as_it_ends_one_that_is_awake(
    clean_node: CleanNode,
    how: Callable[[Pid], None],
    reason: ExitReason,
    terminated: list[ExitReason],
    schedule: int,
) -> None:
    async with clean_node() as node:
        pid = await asleep(node)
        how(pid)
        assert await wait_exit(pid) == reason
        assert terminated == ENDS


async def test_a_stop_runs_terminate(clean_node: CleanNode, schedule: int) -> None:
    async with clean_node() as node:
        pid = await asleep(node)
        await stop(pid)
        assert ENDS == [NORMAL]
        assert not is_alive(pid)


async def test_a_crash_after_waking_is_a_crash(
    clean_node: CleanNode, caplog: pytest.LogCaptureFixture
) -> None:
    async with clean_node() as node:
        pid = await asleep(node)
        with pytest.raises(ServerDownError) as caught:
            await call(pid, "crash")
        assert isinstance(caught.value.reason, ValueError)
        assert [type(reason) for reason in ENDS] == [ValueError]
        with pytest.raises(NoProcessError):
            await call(pid, 1)
    assert "last message: 'crash'" in caplog.text


async def test_its_end_is_seen_by_whoever_monitors_it(clean_node: CleanNode) -> None:
    reasons = []

    async def watch(pid: Pid) -> None:
        monitor(pid)
        reasons.append((await receive()).reason)  # type: ignore[attr-defined]

    async with clean_node() as node:
        pid = await asleep(node)
        watcher = spawn(watch, pid)
        await trio.testing.wait_all_tasks_blocked()
        assert hibernates(node, pid)
        exit_process(pid, KILL)
        await wait_exit(watcher)
    assert reasons == [KILLED]


async def test_its_supervisor_stops_it_in_order(
    clean_node: CleanNode, schedule: int
) -> None:
    order: list[str] = []

    class Named(Sleeper):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        async def init(self) -> Ok:
            return Ok(hibernate=True)

        async def terminate(self, reason: ExitReason) -> None:
            await trio.lowlevel.checkpoint()
            order.append(f"{self.name} {reason}")

    async with clean_node() as node:
        names = ("a", "b", "c")
        specs = [child(lambda n=n: Named(n), id=n) for n in names]  # type: ignore[misc]
        await node.start(Supervisor(specs))
        await trio.testing.wait_all_tasks_blocked()
    assert order == ["c SHUTDOWN", "b SHUTDOWN", "a SHUTDOWN"]


@pytest.mark.parametrize("place", ["root", "supervisor", "dynamic"])
async def test_a_cancellation_around_reaches_it(place: str, schedule: int) -> None:
    """Nothing may hang, and ``terminate`` runs as for one that is awake."""
    with trio.CancelScope() as scope:
        async with open_node() as node:
            spec = child(Sleeper, name="sleeper")
            if place == "root":
                await node.start(spec)
            elif place == "supervisor":
                await node.start(
                    Supervisor([child(lambda: Supervisor([spec]), id="s")])
                )
            else:
                await start_child(await node.start(child(DynamicSupervisor)), spec)
            await call("sleeper", 1)
            await trio.testing.wait_all_tasks_blocked()
            assert hibernates(node, node.names["sleeper"].pid)
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert node.processes == {}
    assert ENDS == [SHUTDOWN]


@pytest.mark.parametrize("when", range(12))
async def test_a_cancellation_that_meets_the_moment_of_hibernation_loses_nobody(
    when: int, schedule: int
) -> None:
    with trio.CancelScope() as scope:
        async with open_node() as node:
            pid = await node.start(Supervisor([child(Sleeper, name="sleeper")]))
            assert is_alive(pid)

            async def cancel() -> None:
                for _ in range(when):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel)
                for _ in range(4):
                    await call("sleeper", 1)
                    await trio.lowlevel.checkpoint()
    assert node.processes == {}
    assert ENDS == [SHUTDOWN]


async def test_a_killed_supervisor_takes_it_along(
    clean_node: CleanNode, schedule: int
) -> None:
    async with clean_node() as node:
        spec = child(lambda: Supervisor([child(Sleeper, name="sleeper")]), id="top")
        top = await node.start(attrs.evolve(spec, restart=Restart.TEMPORARY))
        await call("sleeper", 1)
        await trio.testing.wait_all_tasks_blocked()
        pid = node.names["sleeper"].pid
        assert hibernates(node, pid)
        kill(top)
        await wait_exit(top)
        assert not is_alive(pid)


async def test_a_system_message_does_not_keep_it_awake(clean_node: CleanNode) -> None:
    """[sys:handle_system_msg/7] A system message finds it in hibernation, and leaves it
    there.
    """
    async with clean_node() as node:
        pid = await asleep(node)
        status = await sys.get_status(pid)
        assert status.state == {"log": [1]}
        await trio.testing.wait_all_tasks_blocked()
        assert hibernates(node, pid)


async def test_a_suspended_one_is_awake_and_handles_what_came_when_resumed(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        pid = await asleep(node)
        await sys.suspend(pid)
        cast(pid, 2)
        await trio.testing.wait_all_tasks_blocked()
        assert not hibernates(node, pid)
        await sys.resume(pid)
        assert await call(pid, "awake") == (1, 2, "awake")


async def test_room_in_its_bounded_mailbox_is_seen_by_who_waits_for_it(
    clean_node: CleanNode, schedule: int
) -> None:
    async with clean_node() as node:
        limit = MailboxLimit(2, Overflow.WAIT)
        pid = await node.start(child(Sleeper, mailbox=limit))
        for number in range(20):
            await cast_wait(pid, number)
        assert await call(pid, "awake") == (*range(20), "awake")


async def test_after_a_time_without_a_message_it_hibernates_by_itself(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    """[GenServer.start_link/3] hibernate_after: it is put away when no message has come
    for so long.
    """

    class Lazy(GenServer):
        hibernate_after_s: ClassVar[float | None] = 10.0

        async def handle_call(self, request: float, from_: From) -> Reply:
            await trio.sleep(request)
            return Reply(request)

        async def handle_cast(self, message: object) -> None:
            await trio.lowlevel.checkpoint()

    async with clean_node() as node:
        pid = await node.start(Lazy())
        for _ in range(5):  # inline calls are activity as well
            await trio.sleep(6)
            await call(pid, 0)
            assert not hibernates(node, pid)
        for _ in range(5):
            await trio.sleep(6)
            cast(pid, 0)
            assert not hibernates(node, pid)
        await call(pid, 60, timeout_s=None)  # at work is not idle
        assert not hibernates(node, pid)
        await trio.sleep(21)
        assert hibernates(node, pid)
        assert await call(pid, 0) == 0
        await trio.sleep(21)
        assert hibernates(node, pid)


async def test_listeners_hear_of_it(clean_node: CleanNode) -> None:
    events: list[str] = []
    telemetry.attach("h", ("atomr", "process"), lambda e, _m, _d: events.append(e[-1]))
    try:
        async with clean_node() as node:
            pid = await asleep(node)
            await call(pid, 2)
            await trio.testing.wait_all_tasks_blocked()
            await stop(pid)
    finally:
        telemetry.detach("h")
    awake = ["wake", "hibernate"]
    assert events == ["start", *awake, *awake, "wake", "stop"]


async def test_a_server_without_a_task_takes_the_result_and_stays_as_small(
    clean_node: CleanNode,
) -> None:
    class Plain(GenServer):
        def handle_call(self, request: object, from_: From) -> Reply:
            return Reply(request, hibernate=True)

    async with clean_node() as node:
        pid = await node.start(Plain())
        assert [await call(pid, n) for n in range(3)] == [0, 1, 2]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Ok(continue_=1, hibernate=True),
        lambda: NoReply(timeout_s=1, hibernate=True),
        lambda: Reply(1, timeout_s=1, continue_=2),
        lambda: Fail(ValueError(), timeout_s=1, hibernate=True),
    ],
)
def test_a_result_says_one_thing_that_comes_next(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="one of continue_, timeout_s and hibernate"):
        make()


async def test_it_takes_less_than_half_of_the_memory(clean_node: CleanNode) -> None:
    class Small(GenServer):
        __slots__ = ()

        async def handle_cast(self, message: bool) -> NoReply:
            return NoReply(hibernate=message)

    async with clean_node() as node:
        top = await node.start(child(DynamicSupervisor))
        pids = [await start_child(top, child(Small)) for _ in range(300)]

        async def bytes_with(*, hibernate: bool) -> int:
            for pid in pids:
                cast(pid, hibernate)
            await trio.testing.wait_all_tasks_blocked()
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        try:
            # Started before, so that only what comes and goes is counted.
            asleep = await bytes_with(hibernate=True)
            awake = await bytes_with(hibernate=False)
            again = await bytes_with(hibernate=True)
        finally:
            tracemalloc.stop()
    assert awake - asleep > 300 * 1200
    assert abs(again - asleep) < 300 * 300


@pytest.mark.parametrize("after_s", [0, 0.0, -1.0])
def test_a_server_that_would_hibernate_without_a_pause_is_refused(
    after_s: float,
) -> None:
    with pytest.raises(ValueError, match=f"={after_s}: expected seconds, more than 0"):

        class _Never(GenServer):
            hibernate_after_s = after_s
