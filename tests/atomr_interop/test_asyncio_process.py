"""An asyncio loop as a process: calls, cancellation, streams, the end."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from typing import TypeAlias

import pytest
import trio
import trio.testing

from atomr.core.exits import KILLED, SHUTDOWN
from atomr.errors import (
    AsyncioCancelledError,
    CallTimeoutError,
    InitTimeoutError,
    NoProcessError,
    ServerDownError,
    StartError,
)
from atomr.interop import (
    AsyncioProcess,
    AsyncioRef,
    abandoned_threads,
    call_asyncio,
    from_thread,
    stream_asyncio,
)
from atomr.otp import (
    ChildSpec,
    From,
    GenServer,
    Reply,
    Restart,
    Supervisor,
    child,
)
from atomr.otp import sys as otp_sys
from atomr.process import Node, kill, open_node, stop, wait_exit, whereis

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]
settle = trio.testing.wait_all_tasks_blocked
LOCAL: ContextVar[str] = ContextVar("LOCAL", default="nobody")


async def until(event: threading.Event) -> None:
    assert await trio.to_thread.run_sync(event.wait, 10.0)


async def eventually(holds: Callable[[], bool]) -> None:
    with trio.fail_after(10.0):
        while not holds():  # noqa: ASYNC110 - a thread tells nobody
            await trio.sleep(0.001)


def loop_child(
    start: Callable[[], object] | None = None,
    *,
    shutdown: float = 5.0,
    init_timeout_s: float | None = None,
) -> ChildSpec:
    return child(
        start or AsyncioProcess.of(),
        id="loop",
        name="loop",
        restart=Restart.TEMPORARY,
        shutdown=shutdown,
        init_timeout_s=init_timeout_s,
    )


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return number * 2


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


# --- calls --------------------------------------------------------------------------


async def test_a_coroutine_runs_in_the_loop_and_its_value_comes_back(
    clean_node: CleanNode,
) -> None:
    async def thread() -> int:
        assert asyncio.current_task() is not None
        return threading.get_ident()

    async with clean_node() as node:
        await node.start(loop_child())
        assert await call_asyncio("loop", double, 21) == 42
        where = await call_asyncio("loop", thread)
        assert where == await call_asyncio("loop", thread)
        assert where != threading.get_ident()


async def test_calls_run_side_by_side(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        await node.start(loop_child())
        gate: asyncio.Queue[int] = asyncio.Queue(1)
        got: list[int] = []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def wait() -> None:
                got.append(await call_asyncio("loop", gate.get))

            await settle()
            await call_asyncio("loop", gate.put, 7)
        assert got == [7]


async def test_an_exception_comes_to_the_caller_and_the_loop_lives(
    clean_node: CleanNode,
) -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("bad luck")

    def not_even_a_coroutine() -> Awaitable[None]:
        raise KeyError("x")

    async with clean_node() as node:
        await node.start(loop_child())
        with pytest.raises(ValueError, match="bad luck"):
            await call_asyncio("loop", fails)
        with pytest.raises(KeyError):
            await call_asyncio("loop", not_even_a_coroutine)
        assert await call_asyncio("loop", double, 1) == 2


async def test_a_cancelled_caller_cancels_the_task_and_waits_for_its_end(
    clean_node: CleanNode,
) -> None:
    told: list[str] = []
    began = threading.Event()

    async def stubborn() -> None:
        began.set()
        try:
            await forever()
        finally:
            told.append("cancelled")
            for _ in range(10):
                await asyncio.sleep(0)
            told.append("ended")

    async with clean_node() as node:
        await node.start(loop_child())
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call_asyncio, "loop", stubborn)
                await until(began)
                scope.cancel()
        assert scope.cancelled_caught
        assert told == ["cancelled", "ended"]


async def test_a_value_or_error_in_spite_of_a_cancellation_is_not_lost(
    clean_node: CleanNode,
) -> None:
    began = threading.Event()

    async def returns() -> str:
        began.set()
        try:
            await forever()
        except asyncio.CancelledError:
            return "value"
        raise AssertionError

    async def raises() -> str:
        began.set()
        try:
            await forever()
        finally:
            raise ValueError("in clean-up")

    async with clean_node() as node:
        await node.start(loop_child())
        got: list[object] = []
        for function in (returns, raises):
            began.clear()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    @nursery.start_soon
                    async def ask(
                        function: Callable[[], Awaitable[str]] = function,
                    ) -> None:
                        try:
                            got.append(await call_asyncio("loop", function))
                        except ValueError as error:
                            got.append(str(error))

                    await until(began)
                    scope.cancel()
    assert got == ["value", "in clean-up"]


async def test_a_caller_that_is_cancelled_already_begins_nothing(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        await node.start(loop_child())
        ran: list[int] = []

        async def never() -> None:
            ran.append(1)

        with trio.CancelScope() as scope:
            scope.cancel()
            await call_asyncio("loop", never)
        assert scope.cancelled_caught
        assert await call_asyncio("loop", double, 1) == 2
        assert ran == []


async def test_a_timeout_cancels_the_task(
    clean_node: CleanNode, mock_clock: trio.testing.MockClock
) -> None:
    mock_clock.rate = 1
    began = threading.Event()
    ended: list[bool] = []

    async def slow() -> None:
        began.set()
        try:
            await forever()
        finally:
            ended.append(True)

    async with clean_node() as node:
        await node.start(loop_child())
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def ask() -> None:
                with pytest.raises(CallTimeoutError) as caught:
                    await call_asyncio("loop", slow, timeout_s=60.0)
                said = "call('loop', slow()): no reply within 60.0 s"
                assert str(caught.value) == said
                assert ended == [True]

            await until(began)
            mock_clock.jump(60.0)


async def test_a_task_cancelled_inside_the_loop_is_an_error_of_its_own(
    clean_node: CleanNode,
) -> None:
    async def cancels_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async with clean_node() as node:
        await node.start(loop_child())
        with pytest.raises(AsyncioCancelledError) as caught:
            await call_asyncio("loop", cancels_itself)
        assert str(caught.value) == (
            "call('loop', cancels_itself()):"
            " the asyncio task was cancelled inside its loop"
        )


async def test_a_call_has_its_callers_context(clean_node: CleanNode) -> None:
    async def see_and_change() -> str:
        before = LOCAL.get()
        LOCAL.set("changed")
        return before

    async with clean_node() as node:
        await node.start(loop_child())
        LOCAL.set("caller")
        assert await call_asyncio("loop", see_and_change) == "caller"
        assert LOCAL.get() == "caller"


async def test_asyncio_code_can_talk_to_processes(clean_node: CleanNode) -> None:
    got: list[object] = []

    class Echo(GenServer):
        def handle_call(self, request: object, from_: From) -> Reply:
            return Reply(("echo", request))

        def handle_info(self, message: object) -> None:
            got.append(message)

    async def talks() -> object:
        from_thread.send("echo", "hello")
        with pytest.raises(RuntimeError, match=r"use asyncio\.to_thread"):
            from_thread.call("echo", 1)
        return await asyncio.to_thread(from_thread.call, "echo", 2)

    async with clean_node() as node:
        await node.start(child(Echo, name="echo"))
        await node.start(loop_child())
        assert await call_asyncio("loop", talks) == ("echo", 2)
        assert got == ["hello"]


async def test_what_is_not_there_or_no_loop_is_refused(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        with pytest.raises(NoProcessError):
            await call_asyncio("loop", double, 1)
        await node.start(child(GenServer, name="other"))
        with pytest.raises(TypeError, match="expected an AsyncioProcess, not a GenS"):
            await call_asyncio("other", double, 1)
        with pytest.raises(TypeError, match="expected an AsyncioProcess"):
            async with stream_asyncio("other", count):
                pass


# --- the resource -------------------------------------------------------------------


async def test_the_resource_is_held_for_the_life_of_the_loop(
    clean_node: CleanNode,
) -> None:
    said: list[str] = []
    tasks: list[object] = []

    @asynccontextmanager
    async def session(name: str) -> AsyncIterator[list[str]]:
        tasks.append(asyncio.current_task())
        said.append(f"open {name}")
        async with asyncio.timeout(60):  # refuses to be left in another task
            yield said
        tasks.append(asyncio.current_task())
        said.append("close")

    async def use(held: list[str], word: str) -> int:
        held.append(word)
        return len(held)

    async with clean_node() as node:
        pid = await node.start(loop_child(AsyncioProcess.of(session, "it")))
        ref = AsyncioRef[list[str]](pid)
        assert await ref.call(use, "one") == 2
        assert await ref.call(use, "two") == 3
        await stop(pid)
    assert said == ["open it", "one", "two", "close"]
    assert tasks[0] is tasks[1]


async def test_a_resource_that_does_not_open_fails_the_start(
    clean_node: CleanNode,
) -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        await asyncio.sleep(0)
        if LOCAL.get():
            raise OSError("no route")
        yield

    async with clean_node() as node:
        with pytest.raises(StartError) as caught:
            await node.start(loop_child(AsyncioProcess.of(broken)))
        assert isinstance(caught.value.reason, OSError)
        assert whereis("loop") is None


async def test_a_resource_that_opens_too_slowly_is_cancelled(
    clean_node: CleanNode,
    mock_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    mock_clock.rate = 1
    opening = threading.Event()
    closed: list[str] = []

    @asynccontextmanager
    async def slow() -> AsyncIterator[None]:
        opening.set()
        try:
            await forever()
            yield
        finally:
            closed.append("closed")

    async with clean_node() as node:
        spec = loop_child(AsyncioProcess.of(slow), init_timeout_s=60.0)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def start() -> None:
                with pytest.raises(InitTimeoutError):
                    await node.start(spec)

            await until(opening)
            mock_clock.jump(60.0)
        await eventually(lambda: not abandoned_threads())
    assert closed == ["closed"]


async def test_a_start_that_is_cancelled_leaves_nothing(clean_node: CleanNode) -> None:
    opening = threading.Event()
    closed: list[str] = []

    @asynccontextmanager
    async def slow() -> AsyncIterator[None]:
        opening.set()
        try:
            await forever()
            yield
        finally:
            closed.append("closed")

    async with clean_node() as node:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node.start, loop_child(AsyncioProcess.of(slow)))
                await until(opening)
                scope.cancel()
        await eventually(lambda: node.size == 0)
    assert closed == ["closed"]


async def test_a_resource_that_breaks_ends_the_process_with_its_error(
    clean_node: CleanNode,
) -> None:
    """As a task group does whose other task crashed."""

    @asynccontextmanager
    async def group() -> AsyncIterator[asyncio.Event]:
        event = asyncio.Event()

        async def crash() -> None:
            await event.wait()
            raise ValueError("background task")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(crash())
            yield event

    async def break_it(event: asyncio.Event) -> None:
        event.set()
        await forever()

    async with clean_node() as node:
        await node.start(loop_child(AsyncioProcess.of(group)))
        with pytest.raises(ServerDownError) as caught:
            await AsyncioRef[asyncio.Event]("loop").call(break_it)
        assert repr(caught.value.reason) == "ValueError('background task')"


# --- the end ------------------------------------------------------------------------


async def test_a_stop_ends_calls_tasks_and_generators_in_order(
    clean_node: CleanNode,
) -> None:
    said: list[str] = []
    began = threading.Event()

    @asynccontextmanager
    async def session() -> AsyncIterator[None]:
        yield
        said.append("resource")

    async def stray() -> None:
        try:
            await forever()
        finally:
            said.append("stray task")

    async def generate() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            said.append("generator")

    kept: list[object] = []

    async def work() -> None:
        kept.append(asyncio.create_task(stray()))
        generator = generate()
        kept.append(generator)
        await anext(generator)
        began.set()
        try:
            await forever()
        finally:
            said.append("call")

    async with clean_node() as node:
        pid = await node.start(loop_child(AsyncioProcess.of(session)))
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def ask() -> None:
                with pytest.raises(ServerDownError) as caught:
                    await call_asyncio(pid, work)
                assert caught.value.reason is SHUTDOWN

            await until(began)
            await stop(pid, SHUTDOWN)
    assert said == ["call", "resource", "stray task", "generator"]


async def test_a_stop_is_bounded_by_the_shutdown_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    began, go = threading.Event(), threading.Event()

    async def blocks() -> None:
        began.set()
        go.wait(10)

    async with open_node() as node:
        pid = await node.start(loop_child(shutdown=0.01))
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def ask() -> None:
                with pytest.raises(ServerDownError) as caught:
                    await call_asyncio(pid, blocks)
                assert caught.value.reason is KILLED

            await until(began)
            await stop(pid)
        assert len(abandoned_threads()) == 1
        go.set()
        await eventually(lambda: not abandoned_threads())
    assert [r.getMessage() for r in caplog.records] == [
        f"thread of {pid!r} still runs: its time is over, and a thread cannot be"
        " killed; it is left behind (1 so far)"
    ]


async def test_after_a_kill_the_loop_ends_by_itself(clean_node: CleanNode) -> None:
    ended: list[str] = []
    began = threading.Event()

    async def work() -> None:
        began.set()
        try:
            await forever()
        finally:
            ended.append("call")

    async with clean_node() as node:
        pid = await node.start(loop_child())
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def ask() -> None:
                with pytest.raises(ServerDownError):
                    await call_asyncio(pid, work)

            await until(began)
            kill(pid)
            assert await wait_exit(pid) is KILLED
        await eventually(lambda: not abandoned_threads())
    assert ended == ["call"]


async def test_a_cancellation_from_around_ends_the_loop_in_order(
    clean_node: CleanNode,
) -> None:
    said: list[str] = []

    @asynccontextmanager
    async def session() -> AsyncIterator[None]:
        yield
        await asyncio.sleep(0)
        said.append("closed")

    with trio.CancelScope() as scope:
        async with clean_node() as node:
            pid = await node.start(loop_child(AsyncioProcess.of(session)))
            process = node.processes[pid.number]
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert (process.reason, said) == (SHUTDOWN, ["closed"])


async def test_a_crash_of_the_loop_is_the_exit_reason_and_a_restart_makes_another(
    clean_node: CleanNode,
) -> None:
    async def stops_the_loop() -> None:
        asyncio.get_running_loop().stop()
        await forever()

    async with clean_node() as node:
        await node.start(Supervisor([child(AsyncioProcess.of(), name="loop")]))
        with pytest.raises(ServerDownError) as caught:
            await call_asyncio("loop", stops_the_loop)
        assert repr(caught.value.reason) == (
            "RuntimeError('Event loop stopped before Future completed.')"
        )
        await eventually(lambda: whereis("loop") is not None)
        await settle()
        assert await call_asyncio("loop", double, 4) == 8


async def test_a_main_task_that_is_cancelled_inside_is_a_crash(
    clean_node: CleanNode,
) -> None:
    async def cancels_all() -> None:
        for task in asyncio.all_tasks():
            task.cancel()
        await asyncio.sleep(0)

    async with clean_node() as node:
        pid = await node.start(loop_child())
        process = node.processes[pid.number]
        with pytest.raises((ServerDownError, AsyncioCancelledError)):
            await call_asyncio(pid, cancels_all)
        await wait_exit(pid)
        assert repr(process.reason) == (
            "RuntimeError(\"the asyncio loop's main task was cancelled inside the"
            ' loop")'
        )


async def test_the_state_says_how_many_calls_run(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        await node.start(loop_child())
        async with trio.open_nursery() as nursery:
            began = threading.Event()

            async def work() -> None:
                began.set()
                await forever()

            nursery.start_soon(call_asyncio, "loop", work)
            await until(began)
            state = await otp_sys.get_state("loop")
            assert state == {"calls": 1, "stopping": False}
            nursery.cancel_scope.cancel()


# --- streams ------------------------------------------------------------------------


async def count() -> AsyncIterator[int]:
    for number in range(5):
        yield number


async def test_a_stream_brings_each_item_and_its_end(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        await node.start(loop_child())
        async with stream_asyncio("loop", count) as items:
            assert [item async for item in items] == [0, 1, 2, 3, 4]


async def test_a_stream_never_runs_ahead_of_its_reader(clean_node: CleanNode) -> None:
    made: list[int] = []

    async def endless() -> AsyncIterator[int]:
        while True:
            made.append(len(made))
            yield made[-1]

    async with clean_node() as node:
        await node.start(loop_child())
        async with stream_asyncio("loop", endless) as items:
            for expected in range(3):
                assert await anext(items) == expected
                await call_asyncio("loop", double, 1)
                assert len(made) == expected + 1


async def test_leaving_a_stream_closes_the_generator_and_waits_for_it(
    clean_node: CleanNode,
) -> None:
    closed: list[object] = []
    tasks: list[object] = []

    async def endless() -> AsyncIterator[int]:
        tasks.append(asyncio.current_task())
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0)
            tasks.append(asyncio.current_task())
            closed.append(True)

    async with clean_node() as node:
        await node.start(loop_child())
        async with stream_asyncio("loop", endless) as items:
            await anext(items)
        assert closed == [True]
        assert tasks[0] is tasks[1]


async def test_a_cancelled_wait_for_an_item_loses_none(clean_node: CleanNode) -> None:
    gate: asyncio.Queue[str] = asyncio.Queue()

    async def from_queue() -> AsyncIterator[str]:
        while True:
            yield await gate.get()

    async with clean_node() as node:
        await node.start(loop_child())
        async with stream_asyncio("loop", from_queue) as items:
            with trio.move_on_after(0.01) as scope:
                await anext(items)
            assert scope.cancelled_caught
            await call_asyncio("loop", gate.put, "a")
            await call_asyncio("loop", gate.put, "b")
            assert [await anext(items), await anext(items)] == ["a", "b"]


async def test_a_streams_errors_come_where_they_belong(clean_node: CleanNode) -> None:
    async def fails() -> AsyncIterator[int]:
        yield 1
        raise ValueError("second")

    async def fails_at_close() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise KeyError("close")

    async with clean_node() as node:
        await node.start(loop_child())
        async with stream_asyncio("loop", fails) as items:
            assert await anext(items) == 1
            with pytest.raises(ValueError, match="second"):
                await anext(items)
        with pytest.raises(KeyError, match="close"):
            async with stream_asyncio("loop", fails_at_close) as items:
                await anext(items)


async def test_a_stream_fails_with_its_loop(clean_node: CleanNode) -> None:
    async def silent() -> AsyncIterator[int]:
        await forever()
        yield 1

    async with clean_node() as node:
        pid = await node.start(loop_child())
        async with stream_asyncio(pid, silent) as items, trio.open_nursery() as nursery:

            @nursery.start_soon
            async def read() -> None:
                with pytest.raises(ServerDownError):
                    await anext(items)

            await settle()
            with pytest.raises(trio.BusyResourceError):
                await anext(items)
            await stop(pid)


async def test_a_stream_uses_the_resource(clean_node: CleanNode) -> None:
    @asynccontextmanager
    async def words() -> AsyncIterator[list[str]]:
        yield ["a", "b"]

    async def each(held: list[str], suffix: str) -> AsyncIterator[str]:
        for word in held:
            yield word + suffix

    async with clean_node() as node:
        await node.start(loop_child(AsyncioProcess.of(words)))
        async with AsyncioRef[list[str]]("loop").stream(each, "!") as items:
            assert [item async for item in items] == ["a!", "b!"]


# --- real things --------------------------------------------------------------------


async def test_asyncio_streams_talk_over_a_real_socket(clean_node: CleanNode) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    @asynccontextmanager
    async def server() -> AsyncIterator[int]:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
            port: int = listening.sockets[0].getsockname()[1]
            yield port

    async def ask(port: int, text: str) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(text.encode() + b"\n")
        answer = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return answer.decode().strip()

    async with clean_node() as node:
        await node.start(loop_child(AsyncioProcess.of(server)))
        ref = AsyncioRef[int]("loop")
        assert await ref.call(ask, "hello") == "HELLO"

        async def port_of(port: int) -> int:
            return port

        stream = await trio.open_tcp_stream("127.0.0.1", await ref.call(port_of))
        async with stream:
            await stream.send_all(b"from trio\n")
            assert await stream.receive_some() == b"FROM TRIO\n"


async def test_an_asyncio_subprocess_works_in_the_thread(
    clean_node: CleanNode,
) -> None:
    async def run() -> bytes:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-S", "-c", "print(6 * 7)", stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        assert process.returncode == 0
        return out

    async with clean_node() as node:
        await node.start(loop_child())
        assert await call_asyncio("loop", run) == b"42\n"


async def test_many_calls_at_once_are_answered(clean_node: CleanNode) -> None:
    got: set[int] = set()
    async with clean_node() as node:
        await node.start(loop_child())
        async with trio.open_nursery() as nursery:
            for number in range(300):

                async def ask(number: int = number) -> None:
                    got.add(await call_asyncio("loop", double, number))

                nursery.start_soon(ask)
    assert got == {2 * n for n in range(300)}
