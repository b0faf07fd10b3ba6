"""Calls served on the caller's stack: nobody must be able to tell."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeAlias

import pytest
import trio
import trio.testing

from atomr.core.exits import KILLED, NOPROC, SHUTDOWN
from atomr.errors import CallCycleError, CallTimeoutError, ServerDownError
from atomr.otp import From, GenServer, NoReply, Reply, Restart, Stop, call, cast, child
from atomr.process import (
    Node,
    exit_process,
    inline,
    is_alive,
    kill,
    self_pid,
    send,
    spawn,
    wait_exit,
)

if TYPE_CHECKING:
    from atomr.refs import Pid

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]
Job: TypeAlias = Callable[[], Awaitable[object]]
COLOUR: ContextVar[str] = ContextVar("colour", default="none")


class Runner(GenServer):
    """Runs what it is asked to."""

    def __init__(self) -> None:
        self.ended: list[object] = []
        self.heard: list[object] = []

    async def init(self) -> None:
        """Wait, as far as anybody can tell: so there is a task from the start."""

    async def handle_call(self, request: Job, from_: From) -> Reply:
        return Reply(await request())

    def handle_cast(self, message: object) -> None:
        self.heard.append(message)

    def handle_info(self, message: object) -> NoReply:
        self.heard.append(message)
        return NoReply()

    async def terminate(self, reason: object) -> None:
        self.ended.append(reason)


class PlainRunner(GenServer):
    """Runs what it is asked to, without a task."""

    def handle_call(self, request: Callable[[], object], from_: From) -> Reply:
        return Reply(request())


async def start(node: Node, kind: type[GenServer] = Runner) -> Pid:
    return await node.start(child(kind, restart=Restart.TEMPORARY))


@pytest.fixture(params=["inline", "mailbox"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test with calls served on the caller's stack, and without."""
    way: str = request.param
    if way == "mailbox":
        monkeypatch.setattr(inline, "MAX_DEPTH", 0)
    return way


@asynccontextmanager
async def no_switch() -> AsyncIterator[None]:
    """Fail when another task had a turn inside the block."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        before = turns
        yield
        assert turns == before
        nursery.cancel_scope.cancel()


def test_this_trio_has_what_it_takes() -> None:
    assert inline.AVAILABLE


async def test_an_idle_server_is_called_without_a_switch_of_tasks(
    clean_node: CleanNode,
) -> None:
    async def two() -> int:
        return 2

    async with clean_node() as node:
        asynchronous, plain = await start(node), await start(node, PlainRunner)
        # The first message starts the task; it sleeps after its first turn.
        assert await call(asynchronous, two) == 2
        await trio.testing.wait_all_tasks_blocked()
        async with no_switch():
            assert await call(asynchronous, two) == 2
            assert await call(plain, lambda: 3) == 3


async def test_a_handler_runs_as_its_server(
    clean_node: CleanNode, both_ways: str
) -> None:
    async with clean_node() as node:
        pid = await start(node)
        await trio.testing.wait_all_tasks_blocked()
        mine = trio.lowlevel.current_task()

        async def look() -> tuple[Pid, trio.lowlevel.Task]:
            return self_pid(), trio.lowlevel.current_task()

        for _ in range(3):
            seen = await call(pid, look)
            assert seen == (pid, node.processes[pid.number].task)
        assert trio.lowlevel.current_task() is mine
        plain = await start(node, PlainRunner)
        assert await call(plain, self_pid) is plain


async def test_context_variables_of_a_server_stay_with_it(
    clean_node: CleanNode, both_ways: str
) -> None:
    async with clean_node() as node:
        COLOUR.set("mine")
        asynchronous, plain = await start(node), await start(node, PlainRunner)
        COLOUR.set("other")

        async def paint() -> str:
            before = COLOUR.get()
            COLOUR.set("its own")
            return before

        def paint_plain() -> str:
            before = COLOUR.get()
            COLOUR.set("its own")
            return before

        for pid, job in ((asynchronous, paint), (plain, paint_plain)):
            await trio.testing.wait_all_tasks_blocked()
            assert await call(pid, job) == "mine"
            assert await call(pid, job) == "its own"
            assert COLOUR.get() == "other"


async def _sleep() -> str:
    await trio.sleep(1.0)
    return "slept"


async def _checkpoints() -> str:
    await trio.lowlevel.cancel_shielded_checkpoint()
    await trio.lowlevel.checkpoint()
    return "checked"


async def _nursery() -> str:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 1.0)
    return "nursed"


async def _bounded() -> str:
    with trio.move_on_after(1.0):
        await trio.sleep_forever()
    return "bounded"


@pytest.mark.parametrize(
    ("job", "reply"),
    [
        (_sleep, "slept"),
        (_checkpoints, "checked"),
        (_nursery, "nursed"),
        (_bounded, "bounded"),
    ],
)
async def test_a_handler_that_waits_goes_on_in_its_own_task(
    clean_node: CleanNode,
    autojump_clock: trio.testing.MockClock,
    both_ways: str,
    job: Job,
    reply: str,
) -> None:
    async with clean_node() as node:
        pid = await start(node)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            assert await call(pid, job) == reply


async def test_what_comes_while_a_handler_waits_is_handled_after_it_in_order(
    clean_node: CleanNode, both_ways: str, schedule: int
) -> None:
    gate = trio.Event()
    async with clean_node() as node:
        pid = await start(node)
        server = node.processes[pid.number].behaviour
        assert isinstance(server, Runner)
        await trio.testing.wait_all_tasks_blocked()

        async def wait() -> tuple[object, ...]:
            await gate.wait()
            return tuple(server.heard)

        async with trio.open_nursery() as nursery:
            got: list[object] = []

            async def ask() -> None:
                got.append(await call(pid, wait))

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            cast(pid, 1)
            send(pid, 2)
            await trio.testing.wait_all_tasks_blocked()
            assert server.heard == []
            gate.set()
        assert got == [()]
        cast(pid, 3)

        async def heard() -> tuple[object, ...]:
            return tuple(server.heard)

        # A call never overtakes what its caller has cast before.
        assert await call(pid, heard) == (1, 2, 3)


async def test_a_cancelled_caller_leaves_a_waiting_handler_undisturbed(
    clean_node: CleanNode, both_ways: str
) -> None:
    gate, done = trio.Event(), trio.Event()

    async def wait() -> None:
        await gate.wait()
        done.set()

    async with clean_node() as node:
        pid = await start(node)
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call, pid, wait)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
        gate.set()
        await done.wait()

        async def alive() -> str:
            return "alive"

        assert await call(pid, alive) == "alive"


async def test_a_cancelled_caller_does_not_cancel_a_handler_that_it_runs(
    clean_node: CleanNode, both_ways: str
) -> None:
    reached: list[str] = []
    async with clean_node() as node:
        pid = await start(node)
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:

            async def cancel_caller() -> None:
                scope.cancel()
                await trio.lowlevel.checkpoint()
                reached.append("end")

            await call(pid, cancel_caller)
        await trio.testing.wait_all_tasks_blocked()
        assert reached == ["end"]


async def test_a_timeout_counts_from_the_call(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, both_ways: str
) -> None:
    async with clean_node() as node:
        pid = await start(node)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(CallTimeoutError):
            await call(pid, trio.sleep_forever, timeout_s=2.0)
        assert trio.current_time() == 2.0
        kill(pid)


@pytest.mark.parametrize("how", ["kill", "exit"])
async def test_a_handler_that_waits_can_be_ended(
    clean_node: CleanNode, both_ways: str, how: str
) -> None:
    left: list[str] = []

    async def wait() -> None:
        try:
            await trio.sleep_forever()
        finally:
            left.append("finally")

    async with clean_node() as node:
        pid = await start(node)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(ServerDownError) as caught:
                    await call(pid, wait)
                assert caught.value.reason is (KILLED if how == "kill" else SHUTDOWN)

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            if how == "kill":
                kill(pid)
            else:
                exit_process(pid, SHUTDOWN)
        assert left == ["finally"]


async def test_a_handler_that_ends_its_own_server_is_cancelled_at_its_next_wait(
    clean_node: CleanNode, both_ways: str
) -> None:
    async with clean_node() as node:
        pid = await start(node)
        await trio.testing.wait_all_tasks_blocked()

        async def end_oneself() -> None:
            exit_process(self_pid(), SHUTDOWN)
            await trio.sleep_forever()

        with pytest.raises(ServerDownError) as caught:
            await call(pid, end_oneself)
        assert caught.value.reason is SHUTDOWN


async def test_a_server_that_ends_itself_and_replies_does_both(
    clean_node: CleanNode, both_ways: str
) -> None:
    async with clean_node() as node:
        pid = await start(node)
        await trio.testing.wait_all_tasks_blocked()

        async def end_oneself() -> str:
            exit_process(self_pid(), SHUTDOWN)
            return "still replied"

        assert await call(pid, end_oneself) == "still replied"
        assert await wait_exit(pid) is SHUTDOWN


async def test_a_crash_shows_the_server_and_nothing_of_its_caller(
    clean_node: CleanNode, both_ways: str
) -> None:
    async def crash() -> None:
        raise ValueError("bad")

    def crash_plain() -> None:
        raise ValueError("bad")

    async with clean_node() as node:
        for kind, job in ((Runner, crash), (PlainRunner, crash_plain)):
            pid = await start(node, kind)
            await trio.testing.wait_all_tasks_blocked()
            try:
                int("what the caller handles meanwhile")
            except ValueError:
                with pytest.raises(ServerDownError) as caught:
                    await call(pid, job)
            reason = caught.value.reason
            assert isinstance(reason, ValueError)
            assert reason.__context__ is None
            text = "".join(traceback.format_exception(reason))
            assert 'raise ValueError("bad")' in text
            assert "test_a_crash_shows" not in text


async def test_terminate_runs_after_a_crash_on_the_callers_stack(
    clean_node: CleanNode, both_ways: str
) -> None:
    async def crash() -> None:
        raise ValueError("bad")

    async with clean_node() as node:
        pid = await start(node)
        server = node.processes[pid.number].behaviour
        assert isinstance(server, Runner)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ServerDownError):
            await call(pid, crash)
        assert [type(reason) for reason in server.ended] == [ValueError]


async def test_a_stop_with_and_without_a_reply(
    clean_node: CleanNode, both_ways: str
) -> None:
    class Stopper(GenServer):
        async def handle_call(self, request: object, from_: From) -> Stop:
            return Stop(SHUTDOWN, reply=1) if request else Stop(SHUTDOWN)

    class PlainStopper(GenServer):
        def handle_call(self, request: object, from_: From) -> Stop:
            return Stop(SHUTDOWN, reply=1) if request else Stop(SHUTDOWN)

    async with clean_node() as node:
        for kind in (Stopper, PlainStopper):
            pid = await start(node, kind)
            await trio.testing.wait_all_tasks_blocked()
            assert await call(pid, True) == 1
            # It may have ended before it could be waited for.
            assert await wait_exit(pid) in {SHUTDOWN, NOPROC}
            assert not is_alive(pid)
            pid = await start(node, kind)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(ServerDownError) as caught:
                await call(pid, False)
            assert caught.value.reason is SHUTDOWN


async def test_a_chain_of_calls_deeper_than_the_stack_allows(
    clean_node: CleanNode, both_ways: str
) -> None:
    async with clean_node() as node:
        pids = [await start(node) for _ in range(100)]
        await trio.testing.wait_all_tasks_blocked()

        def link(position: int) -> Job:
            async def go_on() -> int:
                if position == len(pids):
                    return 0
                return 1 + await call(pids[position], link(position + 1))  # type: ignore[operator]

            return go_on

        assert await call(pids[0], link(1)) == 99
        assert node.inline_depth == 0


async def test_a_cycle_of_calls_is_found(clean_node: CleanNode, both_ways: str) -> None:
    async with clean_node() as node:
        first, second = await start(node), await start(node)
        await trio.testing.wait_all_tasks_blocked()

        async def back() -> object:
            return await call(first, trio.sleep_forever)

        async def there() -> object:
            try:
                await call(second, back)
            except ServerDownError as error:
                return error.reason
            return None

        reason = await call(first, there)
        assert isinstance(reason, CallCycleError)


async def test_a_helper_task_of_a_server_may_call_what_calls_the_server(
    clean_node: CleanNode, both_ways: str
) -> None:
    gate = trio.Event()
    async with clean_node() as node:
        first, second = await start(node), await start(node)
        await trio.testing.wait_all_tasks_blocked()

        async def back() -> object:
            async def done() -> str:
                return "no cycle"

            gate.set()
            return await call(first, done)

        async def helped() -> object:
            got: list[object] = []

            async def help_() -> None:
                got.append(await call(second, back))

            # The helper waits for one who waits for this server; it does not.
            helpers.start_soon(help_)
            await gate.wait()
            return got

        async with trio.open_nursery() as helpers:
            got = await call(first, helped)
        assert got == ["no cycle"]


async def test_a_server_may_send_to_itself_while_it_is_called(
    clean_node: CleanNode, both_ways: str
) -> None:
    async with clean_node() as node:
        pid = await start(node)
        server = node.processes[pid.number].behaviour
        assert isinstance(server, Runner)
        await trio.testing.wait_all_tasks_blocked()

        async def send_both() -> None:
            cast(self_pid(), "cast")
            send(self_pid(), "sent")

        await call(pid, send_both)
        await trio.testing.wait_all_tasks_blocked()
        assert server.heard == ["cast", "sent"]


async def test_an_endless_caller_leaves_others_their_turns(
    clean_node: CleanNode,
) -> None:
    async def nothing() -> None: ...

    async with clean_node() as node:
        for pid, job in (
            (await start(node), nothing),
            (await start(node, PlainRunner), int),
        ):
            turns = 0

            async def tick() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await trio.lowlevel.checkpoint()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(tick)
                await trio.lowlevel.checkpoint()
                before = turns
                for _ in range(2560):
                    await call(pid, job)
                assert turns - before >= 9
                nursery.cancel_scope.cancel()


async def test_an_endless_caller_can_be_cancelled(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        pid = await start(node, PlainRunner)
        with trio.CancelScope() as scope:
            scope.cancel()
            for _ in range(257):
                await call(pid, int)
        assert scope.cancelled_caught


async def test_an_instrument_sees_each_handler_in_its_own_task(
    clean_node: CleanNode,
) -> None:
    class Steps(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.last = task

    seen: list[bool] = []
    steps = Steps()
    async with clean_node() as node:
        pid = await start(node)
        await trio.testing.wait_all_tasks_blocked()

        async def look() -> None:
            seen.append(steps.last is trio.lowlevel.current_task())

        trio.lowlevel.add_instrument(steps)
        try:
            await call(pid, look)
        finally:
            trio.lowlevel.remove_instrument(steps)
    assert seen == [True]


async def test_a_foreign_future_crashes_the_server_only(
    clean_node: CleanNode, both_ways: str
) -> None:
    class Future:
        def __await__(self) -> Generator[object, None, None]:
            yield "no trap of trio"

    async def await_future() -> None:
        await Future()

    async with clean_node() as node:
        pid = await start(node)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ServerDownError) as caught:
            await call(pid, await_future)
        assert isinstance(caught.value.reason, TypeError)


async def test_an_interrupt_in_a_handler_goes_up_and_the_caller_hears_of_it(
    clean_node: CleanNode,
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        async with clean_node() as node:
            pid = await start(node, PlainRunner)
            await call(pid, interrupt)


async def test_a_cancellation_from_around_while_a_handler_runs_on_anothers_stack(
    clean_node: CleanNode, both_ways: str
) -> None:
    ended: list[object] = []

    class Ender(Runner):
        async def terminate(self, reason: object) -> None:
            ended.append(reason)

    with trio.CancelScope() as around:
        async with clean_node() as node:
            pid = await node.start(child(Ender))
            await trio.testing.wait_all_tasks_blocked()

            async def cancel_all() -> str:
                around.cancel()
                return "replied"

            async def ask() -> None:
                assert await call(pid, cancel_all) == "replied"

            with trio.CancelScope(shield=True):
                spawned = spawn(ask)
                await wait_exit(spawned)
            # Without an orderly stop, so that nothing else wakes the server.
            await trio.lowlevel.checkpoint()
    assert around.cancelled_caught
    assert ended == [SHUTDOWN]
