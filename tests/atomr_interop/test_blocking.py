"""Blocking functions as processes: their end, their stop, what they say and hear."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, TypeAlias

import pytest
import trio
import trio.lowlevel
import trio.testing

from atomr.core.exits import KILLED, NORMAL, SHUTDOWN, ExitReason
from atomr.core.mailbox_limit import MailboxLimit, Overflow
from atomr.core.messages import Down
from atomr.errors import (
    CallCycleError,
    CallTimeoutError,
    NoNodeError,
    NoProcessError,
    NotAProcessError,
    ReceiveTimeoutError,
    ServerDownError,
    StopRequestedError,
    ThreadAbandonedError,
)
from atomr.interop import AbandonedThread, Blocking, abandoned_threads, from_thread
from atomr.otp import (
    BRUTAL_KILL,
    INFINITY,
    Cast,
    ChildSpec,
    From,
    GenServer,
    Reply,
    Restart,
    Supervisor,
    call,
    cast,
    child,
    sys,
    terminate_child,
    which_children,
)
from atomr.process import (
    Node,
    exit_process,
    kill,
    link,
    monitor,
    open_node,
    receive,
    self_pid,
    send,
    send_wait,
    spawn,
    stop,
    wait_exit,
    whereis,
)

if TYPE_CHECKING:
    from atomr.refs import Pid

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]
settle = trio.testing.wait_all_tasks_blocked


async def until(event: threading.Event) -> None:
    """Wait for something that a thread does; a test that fails ends all the same."""
    assert await trio.to_thread.run_sync(event.wait, 10.0)


async def eventually(holds: Callable[[], bool]) -> None:
    """Poll for something that a thread does and tells nobody."""
    with trio.fail_after(10.0):
        while not holds():  # noqa: ASYNC110 - see above
            await trio.sleep(0.001)


def until_stopped() -> None:
    from_thread.sleep(60.0)


def temporary(fn: Callable[..., object], *args: object) -> ChildSpec:
    name = fn.__name__
    return child(Blocking.of(fn, *args), id=name, restart=Restart.TEMPORARY)


class Echo(GenServer):
    def __init__(self) -> None:
        self.got: list[object] = []

    def handle_call(self, request: object, from_: From) -> Reply:
        return Reply((request, from_.pid))

    def handle_cast(self, message: object) -> None:
        self.got.append(message)

    def handle_info(self, message: object) -> None:
        self.got.append(message)


# --- the end of the function --------------------------------------------------------


async def test_the_end_of_the_function_ends_its_process(clean_node: CleanNode) -> None:
    ran: list[tuple[int, str, Pid]] = []

    def work(number: int, text: str) -> None:
        ran.append((number, text, self_pid()))

    async with clean_node() as node:
        go = threading.Event()
        spec = child(
            Blocking.of(lambda: go.wait(10)), id="w", restart=Restart.TEMPORARY
        )
        waits = await node.start(spec)
        pid = await node.start(temporary(work, 1, "a"))
        await eventually(lambda: pid not in node.roots())
        go.set()
        assert await wait_exit(waits) is NORMAL

    assert ran == [(1, "a", pid)]
    assert pid.label == "work"


async def test_an_exception_is_the_exit_reason_with_its_traceback(
    clean_node: CleanNode, caplog: pytest.LogCaptureFixture
) -> None:
    go = threading.Event()

    def work() -> None:
        go.wait(10)
        raise ValueError("bad luck")

    async with clean_node() as node:
        spec = child(Blocking.of(work), restart=Restart.TEMPORARY)
        pid = await node.start(spec)
        go.set()
        reason = await wait_exit(pid)

    assert isinstance(reason, ValueError)
    names = []
    traceback = reason.__traceback__
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert names[-1] == "work"
    assert "bad luck" in caplog.text


async def test_a_supervisor_restarts_a_function_that_crashed(
    clean_node: CleanNode,
) -> None:
    runs: list[int] = []
    third = threading.Event()

    def work() -> None:
        runs.append(len(runs))
        if len(runs) < 3:
            raise ValueError("again")
        third.set()
        until_stopped()

    async with clean_node() as node:
        await node.start(Supervisor([child(Blocking.of(work))]))
        await until(third)

    assert runs == [0, 1, 2]


# --- the stop -----------------------------------------------------------------------


def polls() -> None:
    while not from_thread.stopping():
        time.sleep(0.001)


def checks() -> None:
    while True:
        from_thread.check_stopping()
        time.sleep(0.001)


def receives() -> None:
    from_thread.receive()


@pytest.mark.parametrize("work", [polls, checks, until_stopped, receives])
async def test_a_stop_asks_the_function_and_waits_for_it(
    clean_node: CleanNode, work: Callable[[], None]
) -> None:
    began = threading.Event()
    closed: list[object] = []

    def function() -> None:
        began.set()
        try:
            work()
        finally:
            closed.append(from_thread.stopping())

    async with clean_node() as node:
        await node.start(Supervisor([child(Blocking.of(function), name="it")]))
        await until(began)
        ended: list[ExitReason] = []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def wait() -> None:
                pid = whereis("it")
                assert pid is not None
                ended.append(await wait_exit(pid))

            await settle()
            await terminate_child(node.roots()[0], "function")
        assert (ended, closed) == ([SHUTDOWN], [True])


async def test_a_function_that_does_not_stop_is_left_behind_and_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    began, go, over = threading.Event(), threading.Event(), threading.Event()
    heard: list[str] = []

    def deaf() -> None:
        began.set()
        go.wait(10)
        asks: list[Callable[[], object]] = [
            lambda: from_thread.send("it", 1),
            lambda: from_thread.call("it", 1),
            from_thread.receive,
            from_thread.check_stopping,
            lambda: from_thread.sleep(60),
        ]
        for ask in asks:
            try:
                ask()
            except (ThreadAbandonedError, StopRequestedError) as error:
                heard.append(f"{type(error).__name__}: {error}")
        heard.append(str(from_thread.stopping()))
        over.set()

    async with open_node() as node:
        spec = child(
            Blocking.of(deaf), name="it", shutdown=0.01, restart=Restart.TEMPORARY
        )
        pid = await node.start(spec)
        await until(began)
        process = node.processes[pid.number]
        await stop(pid, SHUTDOWN)
        assert process.reason is KILLED
        assert abandoned_threads() == (AbandonedThread(pid, repr(pid)),)
        assert node.processes == {}

    assert [record.getMessage() for record in caplog.records] == [
        f"thread of {pid!r} still runs: its time is over, and a thread cannot be"
        " killed; it is left behind (1 so far)"
    ]
    go.set()
    await until(over)
    await eventually(lambda: not abandoned_threads())
    ended = "has ended without this thread"
    assert heard == [
        f"ThreadAbandonedError: send(): {pid!r} {ended}",
        f"ThreadAbandonedError: call(): {pid!r} {ended}",
        f"ThreadAbandonedError: receive(): {pid!r} {ended}",
        "StopRequestedError: check_stopping(): asked to stop: SHUTDOWN",
        "StopRequestedError: sleep(): asked to stop: SHUTDOWN",
        "True",
    ]


async def test_a_kill_leaves_the_thread_and_fails_what_it_waits_for() -> None:
    heard: list[BaseException] = []
    over = threading.Event()

    def work() -> None:
        try:
            from_thread.receive()
        except ThreadAbandonedError as error:
            heard.append(error)
        over.set()

    async with open_node() as node:
        spec = child(Blocking.of(work), name="it", restart=Restart.TEMPORARY)
        pid = await node.start(spec)
        await waits_in_thread(pid)
        kill(pid)
        assert await wait_exit(pid) is KILLED
        await until(over)
        await eventually(lambda: not abandoned_threads())
    assert len(heard) == 1


async def waits_in_thread(pid: Pid) -> None:
    """Wait until the thread of a Blocking is in ``receive`` or ``call``."""
    behaviour = pid._process.behaviour
    await eventually(lambda: hasattr(behaviour, "_side") and behaviour._side.waiting)


async def test_brutal_kill_asks_nobody() -> None:
    began, go = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        go.wait(10)

    async with open_node() as node:
        spec = child(Blocking.of(work), shutdown=BRUTAL_KILL, restart=Restart.TEMPORARY)
        pid = await node.start(spec)
        await until(began)
        process = node.processes[pid.number]
        await stop(pid)
        assert process.reason is KILLED
        go.set()
        await eventually(lambda: not abandoned_threads())


async def test_with_infinity_a_stop_waits_for_the_thread(clean_node: CleanNode) -> None:
    began, go = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        go.wait(10)

    async with clean_node() as node:
        spec = child(Blocking.of(work), shutdown=INFINITY, restart=Restart.TEMPORARY)
        pid = await node.start(spec)
        await until(began)
        process = node.processes[pid.number]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop, pid)
            await settle()
            assert process.reason is None
            go.set()
        assert process.reason is NORMAL


async def test_an_exit_signal_is_a_request_with_the_shutdown_time(
    clean_node: CleanNode, caplog: pytest.LogCaptureFixture
) -> None:
    crash = ValueError("another's")
    closed: list[ExitReason | None] = []
    began = threading.Event()

    def work() -> None:
        began.set()
        try:
            until_stopped()
        except StopRequestedError as error:
            closed.append(error.reason)  # type: ignore[arg-type]
            raise

    async with clean_node() as node:
        spec = child(Blocking.of(work), restart=Restart.TEMPORARY)
        pid = await node.start(spec)
        await until(began)
        exit_process(pid, NORMAL)  # ends nobody but oneself
        exit_process(pid, crash)
        exit_process(pid, SHUTDOWN)  # the first reason stays
        assert await wait_exit(pid) is crash

    assert closed == [crash]
    assert caplog.records == []


async def test_a_linked_process_takes_the_function_with_it(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        spec = child(Blocking.of(until_stopped), restart=Restart.TEMPORARY)
        pid = await node.start(spec)

        async def partner() -> None:
            link(pid)
            raise ValueError("x")

        other = spawn(partner)
        reason = await wait_exit(pid)
        assert isinstance(reason, ValueError)
        assert await wait_exit(other) is not NORMAL


async def test_a_cancellation_from_around_asks_too_and_goes_on(
    clean_node: CleanNode,
) -> None:
    began = threading.Event()
    closed: list[bool] = []

    def work() -> None:
        began.set()
        try:
            until_stopped()
        finally:
            closed.append(True)

    with trio.CancelScope() as scope:
        async with clean_node() as node:
            pid = await node.start(Blocking(work))
            process = node.processes[pid.number]
            await until(began)
            scope.cancel()
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert (process.reason, closed) == (SHUTDOWN, [True])


async def test_a_cancellation_from_around_is_bounded_by_the_shutdown_time() -> None:
    began, go = threading.Event(), threading.Event()

    def deaf() -> None:
        began.set()
        go.wait(10)

    with trio.CancelScope() as scope:
        async with open_node() as node:
            pid = await node.start(child(Blocking.of(deaf), shutdown=0.01))
            process = node.processes[pid.number]
            await until(began)
            scope.cancel()
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert process.reason is SHUTDOWN
    assert [thread.pid for thread in abandoned_threads()] == [pid]
    go.set()
    await eventually(lambda: not abandoned_threads())


async def test_a_function_that_fails_while_it_stops_has_that_as_its_reason(
    clean_node: CleanNode,
) -> None:
    began = threading.Event()

    def work() -> None:
        began.set()
        try:
            until_stopped()
        finally:
            raise ValueError("clean-up failed")

    async with clean_node() as node:
        spec = child(Blocking.of(work), restart=Restart.TEMPORARY)
        pid = await node.start(spec)
        process = node.processes[pid.number]
        await until(began)
        await stop(pid)
    assert isinstance(process.reason, ValueError)


async def test_a_limiter_makes_functions_wait_for_a_thread(
    clean_node: CleanNode,
) -> None:
    limiter = trio.CapacityLimiter(1)
    ran: list[str] = []
    began = threading.Event()

    def work(name: str) -> None:
        ran.append(name)
        began.set()
        until_stopped()

    def spec(name: str) -> object:
        start = Blocking.of(work, name, limiter=limiter)
        return child(start, id=name, restart=Restart.TEMPORARY)

    async with clean_node() as node:
        first, second, third = [await node.start(spec(n)) for n in "abc"]  # type: ignore[arg-type]
        await until(began)
        began.clear()
        # One that has no thread yet needs none in order to end.
        await stop(second)
        await stop(first)
        await until(began)
        assert whereis("a") is None
        assert limiter.borrowed_tokens == 1
        await stop(third)
        assert limiter.borrowed_tokens == 0
    assert ran == ["a", "c"]


# --- what it says -------------------------------------------------------------------


async def test_a_thread_sends_casts_and_calls_in_order(clean_node: CleanNode) -> None:
    said: list[object] = []
    over = threading.Event()

    def work() -> None:
        from_thread.send("echo", 1)
        from_thread.cast("echo", 2)
        said.append(from_thread.call("echo", 3))
        from_thread.send(whereis("echo") or "echo", 4)
        over.set()

    async with clean_node() as node:
        echo = Echo()
        await node.start(child(lambda: echo, id="echo", name="echo"))
        pid = await node.start(child(Blocking.of(work), restart=Restart.TEMPORARY))
        await until(over)
        await settle()
        assert said == [(3, pid)]
        assert echo.got == [1, 2, 4]


async def test_a_threads_call_fails_as_a_tasks_would(clean_node: CleanNode) -> None:
    class Difficult(GenServer):
        async def handle_call(self, request: object, from_: From) -> Reply:
            if request == "crash":
                raise ValueError("x")
            await trio.sleep_forever()
            raise AssertionError

    heard: list[object] = []
    over = threading.Event()

    def work() -> None:
        for name, request in (("nobody", 1), ("it", "slow"), ("it", "crash")):
            timeout_s = 0.01 if request == "slow" else 60.0
            try:
                from_thread.call(name, request, timeout_s=timeout_s)
            except (NoProcessError, CallTimeoutError, ServerDownError) as error:
                heard.append(type(error))
            if request == "slow":
                from_thread.call("again", 1)
        over.set()

    class Again(GenServer):
        async def handle_call(self, request: object, from_: From) -> Reply:
            pid = whereis("it")
            assert pid is not None
            exit_process(pid, SHUTDOWN)
            await wait_exit(pid)
            await current.start(spec)
            return Reply(None)

    async with clean_node() as current:
        spec = child(Difficult, name="it", restart=Restart.TEMPORARY)
        await current.start(spec)
        await current.start(child(Again, name="again"))
        await current.start(child(Blocking.of(work), restart=Restart.TEMPORARY))
        await until(over)
    assert heard == [NoProcessError, CallTimeoutError, ServerDownError]


async def test_whoever_calls_a_thread_that_waits_for_it_learns_of_the_deadlock(
    clean_node: CleanNode,
) -> None:
    class Calls(GenServer):
        async def handle_call(self, request: object, from_: From) -> Reply:
            with pytest.raises(CallCycleError) as caught:
                await call("thread", "back")
            return Reply(len(caught.value.chain))

    said: list[object] = []
    over = threading.Event()

    def work() -> None:
        said.append(from_thread.call("server", 1))
        over.set()

    async with clean_node() as node:
        await node.start(child(Calls, name="server"))
        spec = child(Blocking.of(work), name="thread", restart=Restart.TEMPORARY)
        await node.start(spec)
        await until(over)
    assert said == [3]


async def test_any_thread_with_a_tasks_context_can_talk(clean_node: CleanNode) -> None:
    class InThread(GenServer):
        async def handle_call(self, request: object, from_: From) -> Reply:
            said = await trio.to_thread.run_sync(from_thread.call, "echo", request)
            return Reply(said)

    async with clean_node() as node:
        await node.start(child(Echo, name="echo"))
        pid = await node.start(InThread())
        assert await call(pid, 7) == (7, pid)
        said: list[object] = []
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=context.run, args=(lambda: said.append(from_thread.call("echo", 8)),)
        )
        thread.start()
        await trio.to_thread.run_sync(thread.join)
        assert said == [(8, None)]


async def test_what_is_asked_in_the_wrong_place_is_refused(
    clean_node: CleanNode,
) -> None:
    async with clean_node():
        with pytest.raises(RuntimeError, match="blocks: call it in a thread"):
            from_thread.call("x", 1)
        for ask in (from_thread.stopping, from_thread.receive):
            with pytest.raises(NotAProcessError):
                await trio.to_thread.run_sync(ask)
    with pytest.raises(NoNodeError):
        await trio.to_thread.run_sync(from_thread.send, "x", 1)


def test_after_the_event_loops_end_a_thread_hears_so() -> None:
    contexts: list[contextvars.Context] = []
    go, over = threading.Event(), threading.Event()
    heard: list[str] = []

    def late() -> None:
        go.wait(10)
        try:
            from_thread.send("x", 1)
        except ThreadAbandonedError as error:
            heard.append(str(error))
        over.set()

    async def main() -> None:
        async with open_node():
            contexts.append(contextvars.copy_context())

    trio.run(main)
    thread = threading.Thread(target=contexts[0].run, args=(late,))
    thread.start()
    go.set()
    assert over.wait(10)
    thread.join()
    assert heard == ["send: the node has ended without this thread"]


# --- what it hears ------------------------------------------------------------------


async def test_a_thread_receives_what_is_sent_to_it(clean_node: CleanNode) -> None:
    got: list[object] = []
    quiet, over = threading.Event(), threading.Event()

    def work() -> None:
        got.append(from_thread.receive(lambda m: isinstance(m, str)))
        got.append(from_thread.receive())
        got.append(from_thread.receive())
        with pytest.raises(ReceiveTimeoutError):
            from_thread.receive(lambda m: m == 4, timeout_s=0)
        with pytest.raises(ReceiveTimeoutError):
            from_thread.receive(lambda m: m == 4, timeout_s=0.01)
        quiet.set()
        with pytest.raises(ZeroDivisionError):
            from_thread.receive(lambda m: bool(1 // 0))
        got.append(from_thread.receive(lambda m: m == 4))
        over.set()

    async with clean_node() as node:
        spec = child(Blocking.of(work), name="it", restart=Restart.TEMPORARY)
        pid = await node.start(spec)
        for message in (1, 2, "text", 3):
            send(pid, message)
        await until(quiet)
        send(pid, 4)
        await until(over)
    assert got == ["text", 1, 2, 4]


async def test_a_thread_serves_calls_and_those_unanswered_fail_with_it(
    clean_node: CleanNode,
) -> None:
    def work() -> None:
        question = from_thread.receive()
        assert isinstance(question, From)
        from_thread.reply(question, f"answer to {question.request}")
        cast_ = from_thread.receive()
        assert isinstance(cast_, Cast)
        from_thread.receive()  # and no reply

    async with clean_node() as node:
        await node.start(child(Blocking.of(work), name="it", restart=Restart.TEMPORARY))
        assert await call("it", "q") == "answer to q"
        cast("it", 1)
        with pytest.raises(ServerDownError) as caught:
            await call("it", "ignored")
        assert caught.value.reason is NORMAL


async def test_a_call_that_a_thread_forgot_fails_with_it(clean_node: CleanNode) -> None:
    def work() -> None:
        from_thread.receive()
        from_thread.receive(lambda message: message == "go on")

    async with clean_node() as node:
        pid = await node.start(temporary(work))
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def ask() -> None:
                with pytest.raises(ServerDownError) as caught:
                    await call(pid, "forgotten", timeout_s=60.0)
                assert caught.value.reason is NORMAL

            await settle()
            send(pid, "go on")


async def test_messages_before_a_stop_are_received_before_it_is_told(
    clean_node: CleanNode,
) -> None:
    got: list[object] = []
    began, go = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        go.wait(10)
        while True:
            got.append(from_thread.receive())

    async with clean_node() as node:
        pid = await node.start(Blocking(work))
        await until(began)
        for number in range(3):
            send(pid, number)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop, pid)
            await settle()
            go.set()
    assert got == [0, 1, 2]


async def test_a_bounded_mailbox_makes_room_as_the_thread_receives(
    clean_node: CleanNode,
) -> None:
    got: list[object] = []

    def work() -> None:
        while (message := from_thread.receive()) != "end":
            got.append(message)

    async with clean_node() as node:
        limit = MailboxLimit(2, Overflow.WAIT)
        spec = child(Blocking.of(work), mailbox=limit, restart=Restart.TEMPORARY)
        pid = await node.start(spec)
        for number in range(100):
            await send_wait(pid, number)
        await send_wait(pid, "end")
        await wait_exit(pid)
    assert got == list(range(100))


def wants(word: str) -> Callable[[object], bool]:
    return lambda message: message == word


async def test_a_selective_receive_makes_room_too(clean_node: CleanNode) -> None:
    got: list[object] = []
    began, go = threading.Event(), threading.Event()

    def work() -> None:
        for wanted in "bcdea":
            go.wait(10)
            got.append(from_thread.receive(wants(wanted)))
            if wanted == "b":
                go.clear()
                began.set()

    async with clean_node() as node:
        limit = MailboxLimit(3, Overflow.WAIT)
        spec = child(Blocking.of(work), mailbox=limit, restart=Restart.TEMPORARY)
        pid = await node.start(spec)

        async def send_all() -> None:
            for message in "abcde":
                await send_wait(pid, message)

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_all)
                await settle()
                go.set()
                await until(began)
                # There is room for the fourth; the fifth waits for more.
                await settle()
                go.set()
            await wait_exit(pid)
    assert got == list("bcdea")


async def test_a_thread_takes_a_thousand_messages(clean_node: CleanNode) -> None:
    total: list[int] = []

    def work() -> None:
        total.append(sum(int(str(from_thread.receive())) for _ in range(1_000)))

    async with clean_node() as node:
        spec = child(Blocking.of(work), restart=Restart.TEMPORARY)
        pid = await node.start(spec)
        for number in range(1_000):
            send(pid, number)
        assert await wait_exit(pid) is NORMAL
    assert total == [sum(range(1_000))]


# --- seen from outside --------------------------------------------------------------


async def test_it_is_seen_like_any_other_process(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        top = await node.start(
            Supervisor([child(Blocking.of(until_stopped), name="it")])
        )
        [info] = await which_children(top)
        assert info.id == "until_stopped"
        assert info.pid is whereis("it")
        status = await sys.get_status("it")
        assert (status.behaviour, status.names) == ("Blocking", ("it",))
        assert await sys.get_state("it") == {"stopping": False}


async def test_while_suspended_it_hands_no_message_over(clean_node: CleanNode) -> None:
    got: list[object] = []
    over = threading.Event()

    def work() -> None:
        got.append(from_thread.receive())
        over.set()

    async with clean_node() as node:
        spec = child(Blocking.of(work), restart=Restart.TEMPORARY)
        pid = await node.start(spec)
        await sys.suspend(pid)
        send(pid, 1)
        await waits_in_thread(pid)
        assert got == []
        await sys.resume(pid)
        await until(over)
    assert got == [1]


async def test_its_end_is_told_to_monitors(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        go = threading.Event()
        spec = child(
            Blocking.of(lambda: go.wait(10)), id="w", restart=Restart.TEMPORARY
        )
        pid = await node.start(spec)
        told: list[object] = []

        async def watch() -> None:
            ref = monitor(pid)
            go.set()
            told.append(await receive() == Down(ref, pid, NORMAL))

        await wait_exit(spawn(watch))
    assert told == [True]
