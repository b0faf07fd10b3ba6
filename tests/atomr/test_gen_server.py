"""GenServer: callbacks, results, terminate, crash reports."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import pytest
import trio
import trio.lowlevel
import trio.testing

from atomr.core.exits import KILLED, NORMAL, SHUTDOWN, ExitReason, Shutdown
from atomr.core.messages import Down, Exit, IdleTimeout
from atomr.errors import (
    BadReturnError,
    InitStoppedError,
    InitTimeoutError,
    ServerDownError,
    StartError,
    StartIgnoredError,
)
from atomr.otp import (
    BRUTAL_KILL,
    INFINITY,
    From,
    GenServer,
    Ignore,
    NoReply,
    Ok,
    Reply,
    Restart,
    Stop,
    call,
    cast,
    child,
    sys,
)
from atomr.process import (
    Node,
    demonitor,
    exit_process,
    is_alive,
    kill,
    monitor,
    self_pid,
    send,
    send_after,
    spawn,
    stop,
    trap_exit,
    wait_exit,
)
from atomr.refs import Ref

if TYPE_CHECKING:
    from atomr.refs import Pid

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]
settle = trio.testing.wait_all_tasks_blocked
CRASH = ValueError("x")


class Recorder(GenServer):
    """Records what it is called with; does what it is told."""

    def __init__(self, log: list[object], init: Any = None) -> None:
        self.log = log
        self._init = init

    def init(self) -> Any:
        self.log.append("init")
        if isinstance(self._init, Exception):
            raise self._init
        return self._init

    def handle_call(self, request: Any, from_: From) -> Any:
        self.log.append(("call", request))
        return request

    def handle_cast(self, message: Any) -> Any:
        self.log.append(("cast", message))
        if isinstance(message, Exception):
            raise message
        return message

    def handle_info(self, message: Any) -> Any:
        self.log.append(("info", message))

    def handle_continue(self, continuation: Any) -> Any:
        self.log.append(("continue", continuation))
        return continuation

    def terminate(self, reason: ExitReason) -> Any:
        self.log.append(("terminate", reason))


class AsyncRecorder(Recorder):
    """The same, with each callback as ``async def``."""

    async def init(self) -> Any:
        await trio.lowlevel.checkpoint()
        return super().init()

    async def handle_call(self, request: Any, from_: From) -> Any:
        await trio.lowlevel.checkpoint()
        return super().handle_call(request, from_)

    async def handle_cast(self, message: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return super().handle_cast(message)

    async def handle_info(self, message: Any) -> None:
        await trio.lowlevel.checkpoint()
        super().handle_info(message)

    async def handle_continue(self, continuation: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return super().handle_continue(continuation)

    async def terminate(self, reason: ExitReason) -> None:
        # Not cancelled, though the process may be: it is shielded.
        await trio.lowlevel.checkpoint()
        super().terminate(reason)


@pytest.fixture(params=[Recorder, AsyncRecorder], ids=["plain", "async"])
def recorder(request: pytest.FixtureRequest) -> type[Recorder]:
    """Run the test with plain and with async callbacks."""
    found: type[Recorder] = request.param
    return found


async def start(node: Node, make: Callable[[], object], **options: Any) -> Pid:
    """Start a root whose end is not the node's."""
    spec = child(make, id="it", restart=Restart.TEMPORARY, **options)
    return await node.start(spec)


async def test_each_message_goes_to_its_callback(
    clean_node: CleanNode, recorder: type[Recorder], schedule: int
) -> None:
    log: list[object] = []
    async with clean_node() as node:
        pid = await start(node, lambda: recorder(log))
        cast(pid, None)
        send(pid, "hello")
        assert await call(pid, Reply("r")) == "r"

    assert log == [
        "init",
        ("cast", None),
        ("info", "hello"),
        ("call", Reply("r")),
        ("terminate", SHUTDOWN),
    ]


async def test_continue_runs_before_the_next_message(
    clean_node: CleanNode, recorder: type[Recorder]
) -> None:
    log: list[object] = []
    async with clean_node() as node:
        pid = await start(node, lambda: recorder(log, Ok(continue_=None)))
        cast(pid, NoReply(continue_=NoReply(continue_=None)))
        cast(pid, "next")
        with pytest.raises(ServerDownError):
            await call(pid, Stop(NORMAL))

    assert log[:6] == [
        "init",
        ("continue", None),
        ("cast", NoReply(continue_=NoReply(continue_=None))),
        ("continue", NoReply(continue_=None)),
        ("continue", None),
        ("cast", "next"),
    ]


async def test_a_bad_return_is_a_crash_that_names_the_callback(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        cases: list[tuple[Callable[[Pid], None], str]] = [
            (lambda p: cast(p, "x"), "handle_cast returned 'x', expected NoReply"),
            (
                lambda p: cast(p, NoReply(continue_=3)),
                "handle_continue returned 3, expected NoReply",
            ),
        ]
        for use, text in cases:
            pid = await start(node, lambda: Recorder([]))
            use(pid)
            reason = await wait_exit(pid)
            assert isinstance(reason, BadReturnError)
            assert str(reason).startswith(text)
        pid = await start(node, lambda: Recorder([]))
        with pytest.raises(ServerDownError) as caught:
            await call(pid, None)
        assert isinstance(caught.value.reason, BadReturnError)


async def test_idle_timeout_comes_only_when_no_message_does(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    log: list[object] = []
    async with clean_node() as node:
        pid = await start(node, lambda: Recorder(log, Ok(timeout_s=2.0)))
        await trio.sleep(1.0)
        cast(pid, NoReply(timeout_s=2.0))
        await trio.sleep(1.9)
        assert ("info", IdleTimeout()) not in log
        await trio.sleep(0.2)
        assert log[-1] == ("info", IdleTimeout())
        await trio.sleep(100)
        assert log.count(("info", IdleTimeout())) == 1


async def test_a_message_in_the_same_instant_as_the_idle_timeout_wins_or_loses(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    """It is never followed by a timeout that its arrival has refuted."""
    log: list[object] = []
    async with clean_node() as node:
        pid = await start(node, lambda: Recorder(log, Ok(timeout_s=2.0)))
        await trio.sleep(2.0)
        cast(pid, None)
        await trio.sleep(100)

    both = [("info", IdleTimeout()), ("cast", None)]
    assert log[1:-1] in (both, both[1:])


async def test_a_message_cancels_the_idle_timeout(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    log: list[object] = []
    async with clean_node() as node:
        pid = await start(node, lambda: Recorder(log, Ok(timeout_s=2.0)))
        await trio.sleep(1.0)
        cast(pid, None)
        await trio.sleep(100)

    assert ("info", IdleTimeout()) not in log


@pytest.mark.parametrize(
    ("init", "error"),
    [
        (CRASH, StartError("it", CRASH)),
        (Stop(CRASH), StartError("it", CRASH)),
        (Ignore(), StartIgnoredError("it")),
    ],
)
async def test_a_start_that_fails_raises_in_the_starter_and_leaves_nothing(
    clean_node: CleanNode,
    recorder: type[Recorder],
    init: object,
    error: StartError,
    schedule: int,
) -> None:
    log: list[object] = []
    async with clean_node() as node:
        with pytest.raises(StartError) as caught:
            await start(node, lambda: recorder(log, init), name="it")
        assert (type(caught.value), str(caught.value)) == (type(error), str(error))
        assert caught.value.__cause__ is error.__cause__
        assert (node.processes, node.names) == ({}, {})

    # terminate does not run: there is nothing that init finished.
    assert log == ["init"]


async def test_init_that_stops_orderly_is_a_failed_start_too(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        with pytest.raises(StartError) as caught:
            await start(node, lambda: Recorder([], Stop(Shutdown("no"))))
        assert isinstance(caught.value.reason, InitStoppedError)
        assert caught.value.reason.reason == Shutdown("no")


async def test_init_has_a_time_bound_when_the_spec_says_so(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    class Slow(GenServer):
        async def init(self) -> None:
            await trio.sleep(10)

    async with clean_node() as node:
        with pytest.raises(InitTimeoutError, match=r"within 1\.5 s"):
            await start(node, Slow, init_timeout_s=1.5)
        assert (trio.current_time(), node.processes) == (1.5, {})
        assert is_alive(await start(node, Slow, init_timeout_s=15.0))


async def test_cancelling_the_starter_cancels_the_half_started(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    class Slow(GenServer):
        async def init(self) -> None:
            await trio.sleep_forever()

    async with clean_node() as node:
        with trio.move_on_after(1.0) as scope:
            await start(node, Slow)
        assert scope.cancelled_caught
        await settle()
        assert node.processes == {}


async def test_a_spec_that_starts_no_process_is_a_start_error(
    clean_node: CleanNode,
) -> None:
    def broken() -> object:
        raise CRASH

    async with clean_node() as node:
        with pytest.raises(StartError, match="start returned dict, expected"):
            await start(node, dict)
        with pytest.raises(StartError) as caught:
            await start(node, broken)
        assert caught.value.__cause__ is CRASH


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Stop(NORMAL), NORMAL),
        (Stop(Shutdown(1)), Shutdown(1)),
        (Stop(CRASH), CRASH),
        (CRASH, CRASH),
    ],
)
async def test_terminate_runs_with_the_reason_of_the_end(
    clean_node: CleanNode,
    recorder: type[Recorder],
    message: object,
    reason: ExitReason,
) -> None:
    log: list[object] = []
    async with clean_node() as node:
        pid = await start(node, lambda: recorder(log))
        cast(pid, message)
        assert await wait_exit(pid) == reason

    assert log[-1] == ("terminate", reason)


async def test_terminate_runs_when_an_enclosing_scope_is_cancelled(
    clean_node: CleanNode, recorder: type[Recorder], schedule: int
) -> None:
    log: list[object] = []
    reasons: list[ExitReason] = []
    with trio.CancelScope() as scope:
        async with clean_node() as node:
            pid = await start(node, lambda: recorder(log))
            process = node.processes[pid.number]
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert process.reason is not None
    reasons.append(process.reason)

    assert (log, reasons) == (["init", ("terminate", SHUTDOWN)], [SHUTDOWN])


@pytest.mark.parametrize("end", [kill, lambda pid: exit_process(pid, SHUTDOWN)])
async def test_terminate_does_not_run_on_a_kill_or_an_untrapped_signal(
    clean_node: CleanNode, recorder: type[Recorder], end: Callable[[Pid], None]
) -> None:
    log: list[object] = []
    async with clean_node() as node:
        pid = await start(node, lambda: recorder(log))
        end(pid)
        assert await wait_exit(pid) in {KILLED, SHUTDOWN}

    assert log == ["init"]


async def test_an_error_in_terminate_is_the_exit_reason(clean_node: CleanNode) -> None:
    class Fails(GenServer):
        def terminate(self, reason: ExitReason) -> None:
            raise CRASH

    async with clean_node() as node:
        pid = await start(node, Fails)
        await settle()
        with trio.fail_after(1):
            reasons: list[ExitReason] = []
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def note() -> None:
                    reasons.append(await wait_exit(pid))

                await settle()
                await stop(pid)

    assert reasons == [CRASH]


async def test_terminate_is_cut_off_after_the_shutdown_time(
    clean_node: CleanNode,
    autojump_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Lingers(GenServer):
        def handle_cast(self, message: object) -> Stop:
            return Stop(NORMAL)

        async def terminate(self, reason: ExitReason) -> None:
            await trio.sleep(100)

    async with clean_node() as node:
        for shutdown, bound_s in [(2.0, 2.0), (BRUTAL_KILL, 5.0)]:
            pid = await start(node, Lingers, shutdown=shutdown)
            began = trio.current_time()
            cast(pid, None)
            assert await wait_exit(pid) is NORMAL
            assert trio.current_time() - began == bound_s

    assert "terminate did not end in time" in caplog.text


async def test_a_kill_cuts_terminate_short(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    class Lingers(GenServer):
        def handle_cast(self, message: object) -> Stop:
            return Stop(CRASH)

        async def terminate(self, reason: ExitReason) -> None:
            await trio.sleep(100)

    async with clean_node() as node:
        pid = await start(node, Lingers, shutdown=INFINITY)
        cast(pid, None)
        await trio.sleep(1.0)
        kill(pid)
        await wait_exit(pid)
        assert trio.current_time() == 1.0


async def test_a_server_that_was_signalled_handles_no_other_message(
    clean_node: CleanNode,
) -> None:
    handled: list[object] = []

    class Ends(GenServer):
        def handle_cast(self, message: object) -> None:
            handled.append(message)
            exit_process(self_pid(), SHUTDOWN)

    async with clean_node() as node:
        pid = await start(node, Ends)
        for number in range(10):
            cast(pid, number)
        assert await wait_exit(pid) is SHUTDOWN

    assert handled == [0]


async def test_stop_lets_the_message_in_work_finish(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    class Busy(GenServer):
        async def handle_call(self, request: float, from_: From) -> Reply:
            await trio.sleep(request)
            return Reply("done")

    got: list[object] = []
    async with clean_node() as node:
        pid = await start(node, Busy)

        async def ask() -> None:
            got.append(await call(pid, 1.0))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await settle()
            await stop(pid, Shutdown("because"))

    assert got == ["done"]


async def test_the_inbox_does_not_hide_a_stop(clean_node: CleanNode) -> None:
    log: list[object] = []
    async with clean_node() as node:
        pid = await start(node, lambda: Recorder(log))
        for _ in range(10_000):
            cast(pid, None)
        await stop(pid)

    assert len(log) < 300


async def test_a_kill_reaches_a_server_that_is_never_idle(
    clean_node: CleanNode,
) -> None:
    class Busy(GenServer):
        handled = 0

        def handle_cast(self, message: object) -> None:
            self.handled += 1
            cast(self_pid(), None)

    async with clean_node() as node:
        pid = await start(node, Busy)
        cast(pid, None)
        await trio.lowlevel.checkpoint()
        kill(pid)
        assert await wait_exit(pid) is KILLED


async def test_a_trapped_exit_is_a_message_and_the_supervisors_is_an_order(
    clean_node: CleanNode,
) -> None:
    log: list[object] = []

    class Traps(Recorder):
        def init(self) -> None:
            trap_exit(True)

    async with clean_node() as node:
        pid = await start(node, lambda: Traps(log))
        exit_process(pid, CRASH)
        await settle()

    assert log == [("info", Exit(None, CRASH)), ("terminate", SHUTDOWN)]


async def test_a_server_can_monitor_and_set_timers(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    log: list[object] = []

    class Watches(Recorder):
        def handle_cast(self, message: Pid) -> None:
            self.log.append(monitor(message))
            send_after(1.0, self_pid(), "tick")

    async with clean_node() as node:
        pid = await start(node, lambda: Watches(log))
        target = spawn(trio.sleep_forever)
        cast(pid, target)
        await trio.sleep(2.0)
        kill(target)
        await settle()

    ref = log[1]
    assert log[2:4] == [("info", "tick"), ("info", Down(ref, target, KILLED))]  # type: ignore[arg-type]


class Flusher(GenServer):
    """Lets go of a monitor when it is told to."""

    def __init__(self, log: list[object]) -> None:
        self.log = log
        self.ref = Ref()

    def handle_cast(self, message: Any) -> None:
        self.log.append(message)
        if message == "let go":
            self.log.append(demonitor(self.ref, flush=True))
        elif message not in ("before", "after"):
            self.ref = monitor(message)

    def handle_info(self, message: Any) -> None:
        self.log.append(message)


class AsyncFlusher(Flusher):
    async def terminate(self, reason: ExitReason) -> None:
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("server", [Flusher, AsyncFlusher])
async def test_a_flush_takes_the_down_out_of_the_messages_in_work(
    clean_node: CleanNode, server: type[Flusher]
) -> None:
    log: list[object] = []
    async with clean_node() as node:
        watched = spawn(trio.sleep_forever)
        pid = await start(node, lambda: server(log))
        cast(pid, watched)
        await settle()
        await sys.suspend(pid)
        cast(pid, "let go")
        cast(pid, "before")
        kill(watched)
        await settle()
        cast(pid, "after")
        await settle()
        await sys.resume(pid)
        await settle()

    assert log == [watched, "let go", False, "before", "after"]


async def test_an_unexpected_message_is_logged_with_module_name_and_content(
    clean_node: CleanNode, caplog: pytest.LogCaptureFixture
) -> None:
    class Plain(GenServer):
        pass

    async with clean_node() as node:
        pid = await start(node, Plain)
        send(pid, {"what": 1})
        await settle()

    assert [record.getMessage() for record in caplog.records] == [
        f"{__name__} Plain got an unexpected message: {{'what': 1}}"
    ]


@pytest.mark.parametrize(
    ("use", "text"),
    [
        (lambda p: cast(p, 1), "Plain has no handle_cast; it got 1"),
        (lambda p: cast(p, 2), "Plain has no handle_cast; it got 2"),
    ],
)
async def test_a_missing_callback_is_a_crash_that_says_which(
    clean_node: CleanNode, use: Callable[[Pid], None], text: str
) -> None:
    class Plain(GenServer):
        pass

    async with clean_node() as node:
        pid = await start(node, Plain)
        use(pid)
        reason = await wait_exit(pid)
        assert isinstance(reason, NotImplementedError)
        assert str(reason) == text


@attrs.define
class Account(GenServer):
    """A server whose state must not be logged as it is."""

    owner: str
    password: str

    def handle_cast(self, message: Exception) -> None:
        raise message

    def format_status(self) -> object:
        return {"owner": self.owner, "password": "<redacted>"}


async def test_a_crash_report_shows_state_last_message_and_traceback(
    clean_node: CleanNode, caplog: pytest.LogCaptureFixture
) -> None:
    async with clean_node() as node:
        pid = await start(node, lambda: Account("ann", "hunter2"))
        cast(pid, CRASH)
        await wait_exit(pid)

    (record,) = caplog.records
    assert (record.name, record.levelname) == ("atomr", "ERROR")
    assert record.getMessage() == (
        "process <Pid 1 it> crashed: ValueError('x')\n"
        "last message: ValueError('x')\n"
        "state: {'owner': 'ann', 'password': '<redacted>'}"
    )
    assert record.exc_info is not None
    assert record.exc_info[1] is CRASH


async def test_a_format_status_that_fails_does_not_hide_the_crash(
    clean_node: CleanNode, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(GenServer):
        def handle_cast(self, message: object) -> None:
            raise CRASH

        def format_status(self) -> object:
            raise KeyError("no")

    async with clean_node() as node:
        pid = await start(node, Broken)
        cast(pid, None)
        assert await wait_exit(pid) is CRASH

    assert "state: <format_status failed: KeyError('no')>" in caplog.text


async def test_an_error_in_a_nursery_of_a_callback_is_the_error_itself(
    clean_node: CleanNode,
) -> None:
    class Fans(GenServer):
        async def handle_cast(self, message: Exception) -> None:
            async def fail() -> None:
                raise message

            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                nursery.start_soon(fail)

    async with clean_node() as node:
        pid = await start(node, Fans)
        cast(pid, CRASH)
        assert await wait_exit(pid) is CRASH


async def test_a_server_that_is_never_idle_leaves_time_to_others(
    clean_node: CleanNode,
) -> None:
    class Busy(GenServer):
        def __init__(self) -> None:
            self.handled = 0

        def handle_cast(self, message: object) -> None:
            self.handled += 1
            cast(self_pid(), None)

        def handle_call(self, request: object, from_: From) -> Reply:
            return Reply(self.handled)

    async with clean_node() as node:
        pid = await start(node, Busy)
        cast(pid, None)
        handled = [await call(pid, None) for _ in range(5)]
        kill(pid)

    # Three turns per call at most: the caller's, the server's, and one between.
    assert handled[-1] <= 5 * 3 * 256  # type: ignore[operator]
