"""ThreadServer: one thread, one resource in it, one call at a time."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, closing, contextmanager
from contextvars import ContextVar
from typing import TypeAlias

import pytest
import trio
import trio.testing

from atomr.core.exits import KILLED, NORMAL, SHUTDOWN
from atomr.errors import (
    CallTimeoutError,
    InitTimeoutError,
    NoProcessError,
    ServerDownError,
    StartError,
)
from atomr.interop import (
    ThreadRef,
    ThreadServer,
    abandoned_threads,
    call_blocking,
    from_thread,
)
from atomr.otp import Restart, Supervisor, call, child, sys, terminate_child
from atomr.process import (
    Node,
    kill,
    open_node,
    self_pid,
    send,
    spawn,
    stop,
    wait_exit,
    whereis,
)

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]
settle = trio.testing.wait_all_tasks_blocked
LOCAL: ContextVar[str] = ContextVar("LOCAL", default="nobody")


async def until(event: threading.Event) -> None:
    assert await trio.to_thread.run_sync(event.wait, 10.0)


async def eventually(holds: Callable[[], bool]) -> None:
    with trio.fail_after(10.0):
        while not holds():  # noqa: ASYNC110 - a thread tells nobody
            await trio.sleep(0.001)


def temporary(start: Callable[[], object], **options: float) -> object:
    return child(start, id="it", name="it", restart=Restart.TEMPORARY, **options)  # type: ignore[arg-type]


def open_db() -> closing[sqlite3.Connection]:
    # sqlite3 itself refuses the connection to any other thread.
    return closing(sqlite3.connect(":memory:"))


def insert(db: sqlite3.Connection, value: int) -> int:
    db.execute("create table if not exists numbers (value)")
    db.execute("insert into numbers values (?)", (value,))
    [(count,)] = db.execute("select count(*) from numbers").fetchall()
    assert isinstance(count, int)
    return count


async def test_the_resource_is_used_in_its_one_thread(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        await node.start(child(ThreadServer.of(open_db), name="db"))
        db = ThreadRef[sqlite3.Connection]("db")
        assert [await db.call(insert, n) for n in range(5)] == [1, 2, 3, 4, 5]
        thread = await call_blocking("db", threading.get_ident)
        assert thread == await call_blocking("db", threading.get_ident)
        assert thread != threading.get_ident()


async def test_calls_are_served_one_at_a_time_in_order(clean_node: CleanNode) -> None:
    served: list[int] = []
    inside = 0
    most = 0

    def work(number: int) -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        served.append(number)
        inside -= 1
        return number * 2

    async with clean_node() as node:
        await node.start(temporary(ThreadServer.of()))  # type: ignore[arg-type]
        got: dict[int, int] = {}
        async with trio.open_nursery() as nursery:
            for number in range(20):

                async def ask(number: int = number) -> None:
                    got[number] = await call_blocking("it", work, number)

                nursery.start_soon(ask)
                await settle()
        assert got == {n: 2 * n for n in range(20)}
    assert (served, most) == (list(range(20)), 1)


async def test_an_exception_goes_to_the_caller_and_the_server_lives(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        pid = await node.start(temporary(ThreadServer.of(open_db)))  # type: ignore[arg-type]
        db = ThreadRef[sqlite3.Connection](pid)
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await db.call(lambda conn: conn.execute("select * from missing"))
        assert await db.call(insert, 1) == 1


async def test_a_fatal_exception_crashes_the_server_and_a_restart_opens_anew(
    clean_node: CleanNode,
) -> None:
    opened: list[str] = []

    @contextmanager
    def open_it() -> Iterator[list[int]]:
        opened.append("open")
        try:
            yield []
        finally:
            opened.append("close")

    def work(state: list[int], number: int) -> int:
        state.append(number)
        return 12 // number

    async with clean_node() as node:
        start = ThreadServer.of(open_it, fatal=(ZeroDivisionError,))
        await node.start(Supervisor([child(start, name="it")]))
        ref = ThreadRef[list[int]]("it")
        assert await ref.call(work, 3) == 4
        with pytest.raises(ServerDownError) as caught:
            await ref.call(work, 0)
        assert isinstance(caught.value.reason, ZeroDivisionError)
        await eventually(lambda: whereis("it") is not None)
        await settle()
        assert await ref.call(lambda state: state[:]) == []
    assert opened == ["open", "close", "open", "close"]


async def test_open_runs_in_init_and_its_error_fails_the_start(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        start = ThreadServer.of(lambda: closing(sqlite3.connect("/no/such/place")))
        with pytest.raises(StartError) as caught:
            await node.start(temporary(start))  # type: ignore[arg-type]
        assert isinstance(caught.value.reason, sqlite3.OperationalError)
        assert whereis("it") is None


async def test_an_open_that_takes_too_long_is_left_behind_and_closed_when_done(
    mock_clock: trio.testing.MockClock,
) -> None:
    mock_clock.rate = 1
    began, go = threading.Event(), threading.Event()
    done: list[str] = []

    @contextmanager
    def open_it() -> Iterator[None]:
        began.set()
        go.wait(10)
        done.append("opened")
        yield
        done.append("closed")

    async with open_node() as node:
        spec = temporary(ThreadServer.of(open_it), init_timeout_s=60.0)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def start() -> None:
                with pytest.raises(InitTimeoutError):
                    await node.start(spec)  # type: ignore[arg-type]

            await until(began)
            mock_clock.jump(60.0)
        assert len(abandoned_threads()) == 1
        go.set()
        await eventually(lambda: not abandoned_threads())
    assert done == ["opened", "closed"]


async def test_a_cancelled_caller_leaves_the_thread_undisturbed(
    clean_node: CleanNode,
) -> None:
    began, go = threading.Event(), threading.Event()
    ran: list[str] = []

    def slow(name: str) -> None:
        began.set()
        go.wait(10)
        ran.append(name)

    async with clean_node() as node:
        await node.start(temporary(ThreadServer.of()))  # type: ignore[arg-type]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call_blocking, "it", slow, "first")
            await until(began)
            # Its turn has not come: it is never run.
            nursery.start_soon(call_blocking, "it", slow, "second")
            await settle()
            nursery.cancel_scope.cancel()
        with pytest.raises(CallTimeoutError):
            await call_blocking("it", slow, "third", timeout_s=0.01)
        go.set()
        assert await call_blocking("it", len, "four") == 4
    assert ran == ["first"]


async def test_a_stop_lets_the_job_in_work_end_and_fails_those_in_line(
    clean_node: CleanNode,
) -> None:
    began, go = threading.Event(), threading.Event()
    closed: list[int] = []

    @contextmanager
    def open_it() -> Iterator[None]:
        yield
        closed.append(threading.get_ident())

    def slow() -> int:
        began.set()
        go.wait(10)
        assert from_thread.stopping()
        return threading.get_ident()

    results: list[object] = []

    async def ask(fn: Callable[[], object]) -> None:
        try:
            results.append(await call_blocking("it", fn))
        except ServerDownError as error:
            results.append(error.reason)

    async with clean_node() as node:
        top = await node.start(Supervisor([temporary(ThreadServer.of(open_it))]))  # type: ignore[list-item]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, slow)
            await until(began)
            nursery.start_soon(ask, threading.get_ident)
            await settle()
            nursery.start_soon(terminate_child, top, "it")
            await settle()
            go.set()
    assert results == [closed[0], SHUTDOWN]


async def test_a_job_that_does_not_end_is_left_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    began, go = threading.Event(), threading.Event()

    def slow() -> None:
        began.set()
        go.wait(10)

    async with open_node() as node:
        spec = temporary(ThreadServer.of(open_db), shutdown=0.01)
        pid = await node.start(spec)  # type: ignore[arg-type]
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def ask() -> None:
                with pytest.raises(ServerDownError) as caught:
                    await call_blocking(pid, slow)
                assert caught.value.reason is KILLED

            await until(began)
            await stop(pid)
        assert len(abandoned_threads()) == 1
        go.set()
        await eventually(lambda: not abandoned_threads())
    assert ["still runs" in r.getMessage() for r in caplog.records] == [True]


async def test_a_kill_between_two_jobs_leaves_no_thread(
    clean_node: CleanNode, caplog: pytest.LogCaptureFixture
) -> None:
    async with clean_node() as node:
        pid = await node.start(temporary(ThreadServer.of(open_db)))  # type: ignore[arg-type]
        assert await call_blocking(pid, len, "abc") == 3
        kill(pid)
        assert await wait_exit(pid) is KILLED
        await eventually(lambda: not abandoned_threads())
    assert caplog.records == []


async def test_the_function_sees_its_callers_context(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        await node.start(temporary(ThreadServer.of()))  # type: ignore[arg-type]

        async def caller() -> None:
            LOCAL.set("caller")
            assert await call_blocking("it", LOCAL.get) == "caller"
            assert await call_blocking("it", self_pid) is self_pid()
            await call_blocking("it", LOCAL.set, "changed")
            assert LOCAL.get() == "caller"

        assert await wait_exit(spawn(caller)) is NORMAL
        assert await call_blocking("it", LOCAL.get) == "nobody"


async def test_what_is_no_job_is_refused_and_the_server_lives(
    clean_node: CleanNode, caplog: pytest.LogCaptureFixture
) -> None:
    async with clean_node() as node:
        pid = await node.start(temporary(ThreadServer.of()))  # type: ignore[arg-type]
        with pytest.raises(NotImplementedError, match="serves no calls; it got 'x'"):
            await call(pid, "x")
        send(pid, "hello")
        assert await call_blocking(pid, len, "a") == 1
        assert await sys.get_state(pid) == {"busy": False, "stopping": False}
    assert [r.getMessage() for r in caplog.records] == [
        f"{pid!r} got an unexpected message: 'hello'"
    ]
    with pytest.raises(NoProcessError):
        await call_blocking(pid, len, "a")


async def test_errors_name_the_function(clean_node: CleanNode) -> None:
    go = threading.Event()
    async with clean_node() as node:
        await node.start(temporary(ThreadServer.of()))  # type: ignore[arg-type]
        with pytest.raises(CallTimeoutError) as caught:
            await call_blocking("it", go.wait, 10, timeout_s=0.01)
        assert str(caught.value) == "call('it', wait(10)): no reply within 0.01 s"
        go.set()
