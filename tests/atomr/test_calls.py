"""``call`` in each way it can end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, TypeAlias

import attrs
import pytest
import trio
import trio.testing

from atomr.core.exits import KILLED, NORMAL, SHUTDOWN, ExitReason
from atomr.errors import (
    CallCycleError,
    CallTimeoutError,
    NoProcessError,
    ServerDownError,
)
from atomr.otp import Fail, GenServer, NoReply, Reply, Restart, Stop, child
from atomr.process import (
    From,
    Node,
    Request,
    call,
    cast,
    exit_process,
    is_alive,
    kill,
    receive,
    reply,
    self_pid,
    send,
    spawn,
    wait_exit,
)

if TYPE_CHECKING:
    from atomr.refs import Pid

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]
settle = trio.testing.wait_all_tasks_blocked


@attrs.frozen
class Get(Request[object]):
    key: str


class Store(GenServer):
    """Answers ``Get`` in the way that its key names."""

    def __init__(self) -> None:
        self.later: list[From] = []
        self.handled: list[str] = []

    async def handle_call(  # noqa: PLR0911 - one return per way to answer
        self, request: Get, from_: From
    ) -> Reply | Fail | NoReply | Stop:
        self.handled.append(request.key)
        match request.key:
            case "later":
                self.later.append(from_)
                return NoReply()
            case "hang":
                await trio.sleep_forever()
            case "slow":
                await trio.sleep(1.0)
            case "crash":
                raise KeyError("crash")
            case "fail":
                return Fail(LookupError("no such key"))
            case "stop":
                return Stop(NORMAL)
            case "stop and reply":
                return Stop(NORMAL, reply="bye")
            case "twice":
                from_.reply("first")
                from_.reply("second")
                return Reply("third")
            case "handled":
                return Reply(tuple(self.handled))
        return Reply(request.key)

    def handle_cast(self, message: str) -> None:
        for from_ in self.later:
            reply(from_, message)


class Crashes(Store):
    """A store that crashes on a cast."""

    def handle_cast(self, message: str) -> None:
        raise KeyError(message)


async def temporary(node: Node, start: Callable[[], GenServer]) -> Pid:
    """Start a root whose crash is not the node's."""
    return await node.start(child(start, restart=Restart.TEMPORARY))


async def start(node: Node) -> Pid:
    return await temporary(node, Store)


async def test_a_call_returns_the_reply(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        assert await call(await start(node), Get("k")) == "k"


async def test_a_call_through_a_process_a_helper_task_and_a_plain_task_is_the_same(
    clean_node: CleanNode,
) -> None:
    got: list[object] = []
    async with clean_node() as node:
        server = await start(node)

        async def ask(key: str) -> None:
            got.append(await call(server, Get(key)))

        async def process() -> None:
            await ask("process")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, "helper")

        await wait_exit(spawn(process))
        await ask("task")

    assert got == ["process", "helper", "task"]


async def test_two_calls_of_one_process_from_helper_tasks_are_no_deadlock(
    clean_node: CleanNode,
) -> None:
    """Its own task stays free, so it can still answer."""

    async def answers_itself() -> None:
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                assert await call(self_pid(), "q") == "a"

            nursery.start_soon(ask)
            message = await receive()
            assert isinstance(message, From)
            message.reply("a")

    async with clean_node():
        assert await wait_exit(spawn(answers_itself)) is NORMAL


async def test_a_deferred_call_is_answered_by_whoever_has_its_from(
    clean_node: CleanNode, schedule: int
) -> None:
    got: list[object] = []
    async with clean_node() as node:
        server = await start(node)

        async def ask() -> None:
            got.append(await call(server, Get("later")))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
            await settle()
            cast(server, "now")
        assert node.processes[server.number].deferred == set()

    assert got == ["now", "now"]


async def test_only_the_first_reply_counts(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        server = await start(node)
        assert await call(server, Get("twice")) == "first"
        assert await call(server, Get("k")) == "k"


async def test_fail_raises_in_the_caller_and_the_server_goes_on(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        server = await start(node)
        with pytest.raises(LookupError, match="no such key"):
            await call(server, Get("fail"))
        assert await call(server, Get("k")) == "k"


async def test_a_call_to_nobody_fails_at_once(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        server = await start(node)
        kill(server)
        await wait_exit(server)
        for target in (server, "nobody"):
            with pytest.raises(NoProcessError) as caught:
                await call(target, Get("k"))
            assert (
                str(caught.value) == f"call({target!r}, Get(key='k')): no such process"
            )


@pytest.mark.parametrize("key", ["crash", "stop"])
async def test_all_callers_of_a_server_that_ends_hear_of_it_with_its_reason(
    clean_node: CleanNode,
    autojump_clock: trio.testing.MockClock,
    schedule: int,
    key: str,
) -> None:
    """Set aside, in work, queued: none of them waits for its timeout."""
    reasons: list[object] = []
    async with clean_node() as node:
        server = await start(node)

        async def ask(key: str) -> None:
            with pytest.raises(ServerDownError) as caught:
                await call(server, Get(key), timeout_s=None)
            reasons.append(caught.value.reason)

        async def slow() -> None:
            assert await call(server, Get("slow")) == "slow"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "later")
            await settle()
            nursery.start_soon(slow)
            await settle()
            for each in (key, "queued"):
                nursery.start_soon(ask, each)
                await settle()

    assert len(reasons) == 3
    assert {repr(reason) for reason in reasons} == {
        "NORMAL" if key == "stop" else "KeyError('crash')"
    }


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (kill, KILLED),
        (lambda pid: exit_process(pid, SHUTDOWN), SHUTDOWN),
    ],
)
async def test_a_caller_hears_when_the_server_is_killed_at_work(
    clean_node: CleanNode, end: Callable[[Pid], None], reason: ExitReason
) -> None:
    async with clean_node() as node:
        server = await start(node)

        async def ask(key: str) -> None:
            with pytest.raises(ServerDownError) as caught:
                await call(server, Get(key), timeout_s=None)
            assert caught.value.reason is reason

        async with trio.open_nursery() as nursery:
            for key in ("later", "hang", "queued"):
                nursery.start_soon(ask, key)
                await settle()
            end(server)


@pytest.mark.parametrize("waits", [False, True])
async def test_a_caller_hears_when_a_plain_process_ends_that_took_its_call(
    clean_node: CleanNode, autojump_clock: object, waits: bool
) -> None:
    crash = ValueError("before the reply")

    async def taker() -> None:
        if not waits:
            await settle()
        assert isinstance(await receive(), From)
        await trio.sleep(1)
        raise crash

    async with clean_node():
        pid = spawn(taker)
        if waits:
            await settle()
        with pytest.raises(ServerDownError) as caught:
            await call(pid, Get("x"), timeout_s=None)

        assert caught.value.reason is crash
        assert trio.current_time() == 1.0


async def test_a_server_that_stops_may_still_reply(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        assert await call(await start(node), Get("stop and reply")) == "bye"


async def test_no_reply_in_time_is_a_timeout_and_the_late_reply_is_dropped(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async with clean_node() as node:
        server = await start(node)
        began = trio.current_time()
        with pytest.raises(CallTimeoutError) as caught:
            await call(server, Get("slow"), timeout_s=0.25)
        assert trio.current_time() - began == 0.25
        assert str(caught.value) == (
            f"call({server!r}, Get(key='slow')): no reply within 0.25 s"
        )
        assert await call(server, Get("k")) == "k"
        assert trio.current_time() - began == 1.0


async def test_the_default_timeout_is_five_seconds(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async with clean_node() as node:
        server = await start(node)
        with pytest.raises(CallTimeoutError, match=r"within 5\.0 s"):
            await call(server, Get("later"))
        assert trio.current_time() == 5.0
        assert node.processes[server.number].deferred == set()


async def test_a_call_without_a_bound_waits_as_long_as_it_takes(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async with clean_node() as node:
        server = await start(node)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def ask() -> None:
                assert await call(server, Get("later"), timeout_s=None) == "x"
                assert await call(server, Get("k"), timeout_s=float("inf")) == "k"

            await trio.sleep(3600)
            cast(server, "x")


async def test_timeouts_of_many_lengths_each_fire_at_their_time(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    ended: list[tuple[float, float]] = []
    lengths = [round(0.01 * n, 2) for n in range(200, 0, -1)]
    async with clean_node() as node:
        server = await start(node)

        async def ask(timeout_s: float) -> None:
            with pytest.raises(CallTimeoutError):
                await call(server, Get("later"), timeout_s=timeout_s)
            ended.append((timeout_s, round(trio.current_time(), 2)))

        async with trio.open_nursery() as nursery:
            for length in lengths:
                nursery.start_soon(ask, length)
        assert len(node.timers._buckets) <= 201

    assert ended == [(length, length) for length in reversed(lengths)]


async def test_cancelling_the_caller_leaves_the_server_undisturbed(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async with clean_node() as node:
        server = await start(node)
        with trio.move_on_after(0.5) as scope:
            await call(server, Get("slow"))
        assert scope.cancelled_caught
        assert await call(server, Get("handled")) == ("slow", "handled")


async def test_a_cancelled_call_that_was_set_aside_is_forgotten(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async with clean_node() as node:
        server = await start(node)
        with trio.move_on_after(0.5):
            await call(server, Get("later"))
        assert node.processes[server.number].deferred == set()


async def test_a_reply_and_a_cancel_in_the_same_tick_yield_one_of_the_two(
    clean_node: CleanNode, schedule: int
) -> None:
    async with clean_node() as node:
        server = await start(node)
        for _ in range(20):
            got: list[object] = []
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    @nursery.start_soon
                    async def ask(got: list[object] = got) -> None:
                        got.append(await call(server, Get("later")))

                    await settle()
                    if schedule % 2:
                        cast(server, "x")
                        await trio.lowlevel.checkpoint()
                        scope.cancel()
                    else:
                        scope.cancel()
                        cast(server, "x")
            assert got in ([], ["x"])
            assert await call(server, Get("k")) == "k"


async def test_a_call_and_the_servers_end_in_the_same_tick_never_hang(
    clean_node: CleanNode, schedule: int
) -> None:
    ends: list[Callable[[Pid], None]] = [
        kill,
        lambda pid: exit_process(pid, SHUTDOWN),
        lambda pid: cast(pid, "crash"),
    ]

    async def ask(server: Pid, into: list[object]) -> None:
        try:
            into.append(await call(server, Get("k"), timeout_s=None))
        except (ServerDownError, NoProcessError) as error:
            into.append(type(error))

    async with clean_node() as node:
        for end in ends:
            server = await temporary(node, Crashes)
            got: list[object] = []
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(ask, server, got)
                await trio.lowlevel.checkpoint()
                end(server)
                nursery.start_soon(ask, server, got)
            assert len(got) == 6
            assert set(got) <= {"k", ServerDownError, NoProcessError}


async def test_a_cancelled_call_loop_ends_within_its_fairness_bound(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        server = await start(node)
        with trio.move_on_after(0.02) as scope:
            while True:
                await call(server, Get("k"))
        assert scope.cancelled_caught


class Relay(GenServer):
    """Calls on along the pids it is given."""

    async def handle_call(self, chain: tuple[Pid, ...], from_: From) -> Reply:
        return Reply(await call(chain[0], chain[1:], timeout_s=None))


async def test_a_deadlock_is_an_error_with_its_chain(
    clean_node: CleanNode, schedule: int
) -> None:
    async with clean_node() as node:
        a, b, c = [await temporary(node, Relay) for _ in range(3)]
        with pytest.raises(ServerDownError) as caught:
            await call(a, (b, c, a), timeout_s=None)
        reason = caught.value.reason

    assert isinstance(reason, ServerDownError)
    assert isinstance(reason.reason, ServerDownError)
    cycle = reason.reason.reason
    assert isinstance(cycle, CallCycleError)
    assert cycle.chain == (c, a, b, c)
    assert str(cycle).endswith(f"deadlock {c!r} -> {a!r} -> {b!r} -> {c!r}")


async def test_a_server_that_calls_itself_is_told_so(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        a = await temporary(node, Relay)
        with pytest.raises(ServerDownError) as caught:
            await call(a, (a,))
        assert isinstance(caught.value.reason, CallCycleError)
        assert caught.value.reason.chain == (a, a)


class Parent(GenServer):
    """Asks its child and is asked by it in the same moment, without a deadlock."""

    def __init__(self) -> None:
        self.child: Pid | None = None

    async def handle_cast(self, child: Pid) -> None:
        assert await call(child, "up?") == "yes"

    def handle_call(self, request: str, from_: From) -> Reply:
        return Reply("yes")


async def test_a_caller_that_has_its_reply_but_has_not_run_yet_is_no_deadlock(
    clean_node: CleanNode, schedule: int
) -> None:
    async with clean_node() as node:
        first, second = await temporary(node, Parent), await temporary(node, Parent)
        for _ in range(50):
            cast(first, second)
            assert await call(first, "q") == "yes"
            cast(second, first)
            assert await call(second, "q") == "yes"


class CallsBack(GenServer):
    """Asks its caller, right after it has answered it."""

    async def handle_call(self, request: str, from_: From) -> NoReply:
        from_.reply("answer")
        assert from_.pid is not None
        assert await call(from_.pid, "q") == "yes"
        return NoReply()


async def test_a_server_may_call_back_whom_it_has_answered(
    clean_node: CleanNode, schedule: int
) -> None:
    class Asks(Parent):
        async def handle_cast(self, other: Pid) -> None:
            assert await call(other, "up?") == "answer"

    async with clean_node() as node:
        first = await temporary(node, Asks)
        other = await temporary(node, CallsBack)
        for _ in range(20):
            cast(first, other)
            await settle()
        assert (is_alive(first), is_alive(other)) == (True, True)


async def test_a_caller_that_was_cancelled_is_no_longer_waited_for(
    clean_node: CleanNode, schedule: int
) -> None:
    """Its task has not run since the cancel, but it will, and then answer."""
    scope = trio.CancelScope()

    class GivesUp(Parent):
        async def handle_cast(self, other: Pid) -> None:
            with scope:
                await call(other, Get("later"), timeout_s=None)

    class Waits(Store):
        async def handle_info(self, message: Pid) -> None:
            assert await call(message, "q") == "yes"

    async with clean_node() as node:
        first = await temporary(node, GivesUp)
        other = await temporary(node, Waits)
        cast(first, other)
        await settle()
        send(other, first)
        scope.cancel()
        assert await call(first, "q") == "yes"
        await settle()
        assert is_alive(other)


async def test_errors_cut_a_huge_request_short() -> None:
    error = CallTimeoutError("kv", Get("x" * 1_000_000), 5.0)

    assert len(str(error)) < 300


async def test_a_crash_after_the_reply_does_not_reach_the_caller(
    clean_node: CleanNode,
) -> None:
    class RepliesThenCrashes(GenServer):
        def handle_call(self, request: str, from_: From) -> NoReply:
            from_.reply("done")
            raise KeyError("after")

    async with clean_node() as node:
        server = await temporary(node, RepliesThenCrashes)
        assert await call(server, "x") == "done"
        await wait_exit(server)
