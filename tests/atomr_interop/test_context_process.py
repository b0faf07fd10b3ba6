"""Async context managers and nursery.start functions as processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Self, TypeAlias

import pytest
import trio
import trio.testing

from atomr.core.exits import KILLED, NORMAL, SHUTDOWN, ExitReason
from atomr.errors import InitTimeoutError, NoProcessError, StartError
from atomr.interop import (
    ContextProcess,
    ServiceProcess,
    open_service_nursery,
    value_of,
)
from atomr.otp import (
    BRUTAL_KILL,
    ChildSpec,
    GenServer,
    Restart,
    Supervisor,
    call,
    child,
    sys,
    terminate_child,
)
from atomr.process import (
    Node,
    exit_process,
    kill,
    link,
    send,
    spawn,
    stop,
    wait_exit,
    whereis,
)

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]
settle = trio.testing.wait_all_tasks_blocked


class Resource:
    """Says how it was entered and left."""

    def __init__(
        self, log: list[object], *, enter_s: float = 0.0, exit_s: float = 0.0
    ) -> None:
        self.log = log
        self.enter_s = enter_s
        self.exit_s = exit_s

    async def __aenter__(self) -> Self:
        self.log.append("entering")
        try:
            await trio.sleep(self.enter_s)
        except trio.Cancelled:
            self.log.append("never entered")
            raise
        self.log.append("entered")
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        try:
            await trio.sleep(self.exit_s)
        except trio.Cancelled:
            self.log.append("cut short")
            raise
        self.log.append(error)


def held(start: Callable[[], object], **options: object) -> ChildSpec:
    return child(start, id="it", name="it", restart=Restart.TEMPORARY, **options)  # type: ignore[arg-type]


async def ended(node: Node, act: Callable[[], object]) -> ExitReason:
    """Return the reason of the child after ``act``."""
    process = node.names["it"]
    await settle()
    result = act()
    if hasattr(result, "__await__"):
        await result
    await wait_exit(process.pid)
    assert process.reason is not None
    return process.reason


# --- enter --------------------------------------------------------------------------


async def test_it_is_entered_in_init_and_left_on_a_stop(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    log: list[object] = []
    async with clean_node() as node:
        start = ContextProcess.of(lambda: Resource(log, enter_s=3.0, exit_s=2.0))
        top = await node.start(Supervisor([held(start)]))
        assert log == ["entering", "entered"]
        assert value_of("it", Resource).enter_s == 3.0
        began = trio.current_time()
        reason = await ended(node, lambda: terminate_child(top, "it"))
        assert (trio.current_time() - began, reason) == (2.0, SHUTDOWN)
    assert log == ["entering", "entered", None]


async def test_an_error_of_entering_fails_the_start(clean_node: CleanNode) -> None:
    @asynccontextmanager
    async def broken(text: str) -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        if text:
            raise OSError(text)
        yield

    async with clean_node() as node:
        with pytest.raises(StartError) as caught:
            await node.start(held(ContextProcess.of(broken, "no route")))
        assert repr(caught.value.reason) == "OSError('no route')"


async def test_entering_is_bounded_by_the_init_timeout(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    log: list[object] = []
    async with clean_node() as node:
        start = ContextProcess.of(lambda: Resource(log, enter_s=60.0))
        with pytest.raises(InitTimeoutError):
            await node.start(held(start, init_timeout_s=1.0))
    assert log == ["entering", "never entered"]


async def test_a_start_that_is_cancelled_leaves_nothing(
    clean_node: CleanNode, schedule: int
) -> None:
    log: list[object] = []
    async with clean_node() as node:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                start = ContextProcess.of(lambda: Resource(log, enter_s=60.0))
                nursery.start_soon(node.start, held(start))
                await settle()
                scope.cancel()
        assert scope.cancelled_caught
        await settle()
        assert node.processes == {}
    assert log == ["entering", "never entered"]


async def test_a_supervisor_that_stops_meanwhile_cancels_entering(
    clean_node: CleanNode, schedule: int
) -> None:
    log: list[object] = []
    async with clean_node() as node:
        start = ContextProcess.of(lambda: Resource(log, enter_s=60.0))
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def begin() -> None:
                with pytest.raises(StartError):
                    await node.start(child(lambda: Supervisor([held(start)]), id="top"))

            await settle()
            top = next(p for p in node.processes.values() if p.pid.label == "top")
            await stop(top.pid)
    assert log == ["entering", "never entered"]


# --- leave --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shutdown", "took_s", "reason", "last"),
    [
        (5.0, 2.0, SHUTDOWN, None),
        (1.0, 1.0, KILLED, "cut short"),
        (BRUTAL_KILL, 0.0, KILLED, "cut short"),
    ],
)
async def test_leaving_has_the_shutdown_time(
    clean_node: CleanNode,
    autojump_clock: trio.testing.MockClock,
    shutdown: object,
    took_s: float,
    reason: ExitReason,
    last: object,
) -> None:
    log: list[object] = []
    async with clean_node() as node:
        start = ContextProcess.of(lambda: Resource(log, exit_s=2.0))
        top = await node.start(Supervisor([held(start, shutdown=shutdown)]))
        began = trio.current_time()
        assert await ended(node, lambda: terminate_child(top, "it")) is reason
        assert trio.current_time() - began == took_s
    assert log[2:] == [last]


@pytest.mark.parametrize(("shutdown", "last"), [(5.0, None), (1.0, "cut short")])
async def test_a_cancellation_from_around_leaves_it_in_its_time(
    clean_node: CleanNode,
    autojump_clock: trio.testing.MockClock,
    shutdown: float,
    last: object,
) -> None:
    log: list[object] = []
    with trio.CancelScope() as scope:
        async with clean_node() as node:
            start = ContextProcess.of(lambda: Resource(log, exit_s=2.0))
            await node.start(held(start, shutdown=shutdown))
            process = node.names["it"]
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert (process.reason, log[2:]) == (SHUTDOWN, [last])


async def test_a_kill_cancels_the_leaving(clean_node: CleanNode) -> None:
    log: list[object] = []
    async with clean_node() as node:
        await node.start(held(ContextProcess.of(lambda: Resource(log, exit_s=2.0))))
        pid = whereis("it")
        assert pid is not None
        assert await ended(node, lambda: kill(pid)) is KILLED
    assert log[2:] == ["cut short"]


async def test_an_exit_signal_with_an_error_leaves_it_with_that_error(
    clean_node: CleanNode, caplog: pytest.LogCaptureFixture
) -> None:
    """So a transaction is rolled back, whoever crashed."""
    log: list[object] = []
    crash = ValueError("x")
    async with clean_node() as node:
        await node.start(held(ContextProcess.of(lambda: Resource(log))))
        pid = whereis("it")
        assert pid is not None
        assert await ended(node, lambda: exit_process(pid, crash)) is crash
    assert log[2:] == [crash]
    assert caplog.records == []  # it is not its own crash


async def test_a_linked_users_crash_rolls_back(clean_node: CleanNode) -> None:
    log: list[object] = []

    async def user() -> None:
        pid = whereis("it")
        assert pid is not None
        link(pid)
        raise ValueError("x")

    async with clean_node() as node:
        await node.start(held(ContextProcess.of(lambda: Resource(log))))
        reason = await ended(node, lambda: spawn(user))
        assert isinstance(reason, ValueError)
        assert log[2:] == [reason]


async def test_an_error_of_leaving_is_the_reason(clean_node: CleanNode) -> None:
    @asynccontextmanager
    async def breaks() -> AsyncIterator[None]:
        yield
        raise OSError("flush failed")

    async with clean_node() as node:
        await node.start(held(ContextProcess.of(breaks)))
        pid = whereis("it")
        assert pid is not None
        reason = await ended(node, lambda: stop(pid))
    assert repr(reason) == "OSError('flush failed')"


async def test_a_nursery_inside_that_crashes_ends_the_process_with_that_error(
    clean_node: CleanNode, schedule: int
) -> None:
    log: list[str] = []

    async def crash() -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("task")

    async def sibling() -> None:
        try:
            await trio.sleep_forever()
        finally:
            log.append("sibling cancelled")

    async with clean_node() as node:
        await node.start(held(ContextProcess.of(open_service_nursery)))
        nursery = value_of("it", trio.Nursery)
        nursery.start_soon(sibling)
        await settle()
        reason = await ended(node, lambda: nursery.start_soon(crash))
    assert (repr(reason), log) == ("ValueError('task')", ["sibling cancelled"])


async def test_a_stop_cancels_the_tasks_of_a_service_nursery(
    clean_node: CleanNode,
) -> None:
    cancelled: list[bool] = []

    async def task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(True)

    async with clean_node() as node:
        pid = await node.start(held(ContextProcess.of(open_service_nursery)))
        value_of(pid, trio.Nursery).start_soon(task)
        assert await ended(node, lambda: stop(pid)) is NORMAL
        assert cancelled == [True]


async def test_a_body_that_is_cancelled_from_inside_is_an_end_by_itself(
    clean_node: CleanNode,
) -> None:
    @asynccontextmanager
    async def short_lived() -> AsyncIterator[trio.CancelScope]:
        with trio.CancelScope() as scope:
            yield scope

    async with clean_node() as node:
        await node.start(held(ContextProcess.of(short_lived)))
        scope = value_of("it", trio.CancelScope)
        assert await ended(node, scope.cancel) is NORMAL


async def test_after_a_crash_a_supervisor_opens_it_anew(clean_node: CleanNode) -> None:
    async def crash() -> None:
        raise ValueError("task")

    async with clean_node() as node:
        spec = child(ContextProcess.of(open_service_nursery), name="it")
        await node.start(Supervisor([spec]))
        first = value_of("it", trio.Nursery)
        first.start_soon(crash)
        await settle()
        second = value_of("it", trio.Nursery)
        assert second is not first


# --- its value ----------------------------------------------------------------------


async def test_the_value_is_there_from_init_to_the_end(clean_node: CleanNode) -> None:
    log: list[object] = []
    async with clean_node() as node:
        with pytest.raises(NoProcessError):
            value_of("it")
        async with trio.open_nursery() as nursery:
            start = ContextProcess.of(lambda: Resource(log, enter_s=0.01))
            nursery.start_soon(node.start, held(start))
            await settle()
            with pytest.raises(NoProcessError, match=r"call\('it', 'value_of\(\)'\)"):
                value_of("it")
        assert value_of("it") is value_of("it", Resource)
        with pytest.raises(TypeError, match="expected a int, not a Resource"):
            value_of("it", int)
        await node.start(child(GenServer, name="other"))
        with pytest.raises(TypeError, match="a GenServer holds no value"):
            value_of("other")
        pid = whereis("it")
        assert pid is not None
        await stop(pid)
        with pytest.raises(NoProcessError):
            value_of(pid)


async def test_it_answers_like_a_process(
    clean_node: CleanNode, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[object] = []
    async with clean_node() as node:
        pid = await node.start(held(ContextProcess.of(lambda: Resource(log))))
        assert await sys.get_state(pid) is value_of(pid)
        with pytest.raises(NotImplementedError):
            await call(pid, "question")
        send(pid, "message")
        await settle()
    assert [r.getMessage() for r in caplog.records] == [
        f"{pid!r} got an unexpected message: 'message'"
    ]


# --- nursery.start functions --------------------------------------------------------


async def test_a_function_for_nursery_start_is_a_child(clean_node: CleanNode) -> None:
    async def echo(stream: trio.SocketStream) -> None:
        async for chunk in stream:
            await stream.send_all(chunk)

    async with clean_node() as node:
        start = ServiceProcess.of(trio.serve_tcp, echo, 0)
        top = await node.start(Supervisor([child(start, name="echo")]))
        [listener, *_] = value_of("echo", list)
        port = listener.socket.getsockname()[1]
        async with await trio.open_tcp_stream("localhost", port) as stream:
            await stream.send_all(b"hi")
            assert await stream.receive_some() == b"hi"
        await terminate_child(top, "serve_tcp")
        with pytest.raises(OSError, match="ll attempts to connect"):
            await trio.open_tcp_stream("localhost", port)


async def test_a_service_that_fails_before_it_has_started_fails_the_start(
    clean_node: CleanNode, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(task_status: trio.TaskStatus[None]) -> None:
        raise OSError("in use")

    async def returns(task_status: trio.TaskStatus[None]) -> None:
        pass

    async def twice(task_status: trio.TaskStatus[int]) -> None:
        task_status.started(1)
        task_status.started(2)

    async with clean_node() as node:
        with pytest.raises(StartError) as caught:
            await node.start(held(ServiceProcess.of(fails)))
        assert repr(caught.value.reason) == "OSError('in use')"
        with pytest.raises(StartError, match="returned without calling task_status"):
            await node.start(held(ServiceProcess.of(returns)))
        await node.start(held(ServiceProcess.of(twice)))
        await settle()
        assert whereis("it") is None
    assert "task_status.started() was called twice" in caplog.text


async def test_a_service_is_bounded_by_the_init_timeout(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async def slow(task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep_forever()

    async with clean_node() as node:
        with pytest.raises(InitTimeoutError):
            await node.start(held(ServiceProcess.of(slow), init_timeout_s=1.0))


@pytest.mark.parametrize(
    ("crash", "reason"), [(True, "KeyError('x')"), (False, "NORMAL")]
)
async def test_the_end_of_a_service_is_its_reason(
    clean_node: CleanNode, crash: bool, reason: str
) -> None:
    go = trio.Event()

    async def service(task_status: trio.TaskStatus[str]) -> None:
        task_status.started("ready")
        await go.wait()
        if crash:
            raise KeyError("x")

    async with clean_node() as node:
        await node.start(held(ServiceProcess.of(service)))
        assert value_of("it", str) == "ready"
        assert repr(await ended(node, go.set)) == reason
