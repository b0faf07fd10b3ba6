"""What a hunt for bugs found: each was one, and each test failed."""

from __future__ import annotations

import signal
import sys as python
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from outcome import Error, capture

from atomr import telemetry
from atomr.core.exits import SHUTDOWN, unwrap
from atomr.core.messages import IdleTimeout
from atomr.errors import (
    AlreadyStartedError,
    NoNodeError,
    NotAProcessError,
    ServerDownError,
    StartError,
    short,
)
from atomr.otp import (
    DynamicSupervisor,
    From,
    GenServer,
    MailboxLimit,
    NoReply,
    Overflow,
    Registry,
    RegistryRef,
    Reply,
    Restart,
    Supervisor,
    call,
    cast,
    child,
    sys,
)
from atomr.process import (
    attached,
    exit_process,
    is_alive,
    kill,
    link,
    monitor,
    open_node,
    receive,
    register,
    self_pid,
    send,
    send_after,
    send_wait,
    spawn,
    stop,
    unregister,
    wait_exit,
    whereis,
)
from atomr.testing import crash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

    from atomr.refs import Pid
    from tests.atomr.conftest import CleanNode

settle = trio.testing.wait_all_tasks_blocked


class Echo(GenServer):
    """Has a task; begins without one, and is put away after each call."""

    async def handle_call(self, request: object, from_: From) -> Reply:
        return Reply(request, hibernate=True)

    async def handle_info(self, message: object) -> NoReply:
        return NoReply(hibernate=True)


@pytest.fixture
def on_hibernate() -> Iterator[list[Callable[[Pid], None]]]:
    """What is done with each process that has just been put away."""
    actions: list[Callable[[Pid], None]] = []

    def handle(
        event: tuple[str, ...],
        _measurements: Mapping[str, float],
        metadata: Mapping[str, object],
    ) -> None:
        for action in actions:
            action(metadata["pid"])  # type: ignore[arg-type]

    telemetry.attach("hunted", ("atomr", "process", "hibernate"), handle)
    yield actions
    # Detached already: it raised.
    assert telemetry.detach("hunted")


@pytest.mark.parametrize(
    ("action", "survives"),
    [(lambda pid: send(pid, "wake"), True), (kill, False)],
    ids=["a message", "a kill"],
)
async def test_who_is_told_of_a_hibernation_may_end_it_at_once(
    action: Callable[[Pid], None],
    survives: bool,
    clean_node: CleanNode,
    on_hibernate: list[Callable[[Pid], None]],
) -> None:
    async with clean_node() as node:
        pid = await node.start(child(Echo, restart=Restart.TEMPORARY))
        once = [action]
        on_hibernate.append(lambda pid: once.pop()(pid) if once else None)
        assert await call(pid, 1) == 1
        await settle()
        assert is_alive(pid) is survives
        if survives:
            assert await call(pid, 2) == 2


async def test_a_selective_receive_sees_what_took_the_place_of_a_dropped_message(
    clean_node: CleanNode, schedule: int
) -> None:
    got = []

    async def select() -> None:
        got.append(await receive(lambda message: message == "wanted"))
        got.extend([await receive(), await receive()])

    async with clean_node():
        pid = spawn(select, mailbox=MailboxLimit(3, Overflow.DROP_OLDEST))
        for message in "abc":
            send(pid, message)
        await settle()
        send(pid, "wanted")
        await wait_exit(pid)
    assert got == ["wanted", "b", "c"]


class Attributes(dict[str, object]):
    """A record whose missing fields are KeyErrors."""

    def __getattr__(self, name: str) -> object:
        return self[name]


class Crashes(GenServer):
    def handle_info(self, message: object) -> None:
        raise ValueError("crashed")


@pytest.mark.parametrize("message", [Attributes(), 10**5000], ids=["record", "number"])
async def test_a_crash_is_one_whatever_message_it_is_reported_with(
    message: object, clean_node: CleanNode, caplog: pytest.LogCaptureFixture
) -> None:
    async with clean_node() as node:
        pid = await node.start(child(Crashes, restart=Restart.TEMPORARY))
        send(pid, message)
        with trio.fail_after(1):
            reason = await wait_exit(pid)
    assert isinstance(reason, ValueError)
    assert f"last message: {short(message)}" in caplog.text


def test_a_number_too_long_for_text_is_named_by_its_type() -> None:
    assert short(10**5000) == "<int: repr raised ValueError>"


async def test_a_plain_init_that_is_made_to_crash_crashes(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    injected = ValueError("injected")
    ended = []

    class Struck(Echo):
        def init(self) -> None:
            crash(self_pid(), injected)

        def terminate(self, reason: object) -> None:
            ended.append(reason)

    async with clean_node() as node:
        pid = await node.start(child(Struck, restart=Restart.TEMPORARY))
        with trio.fail_after(1):
            assert await wait_exit(pid) is injected
    assert ended == [injected]


@pytest.mark.parametrize("awake", [False, True])
async def test_a_stop_with_an_error_is_reported_whether_or_not_there_is_a_task(
    awake: bool,
    clean_node: CleanNode,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Sleeper(Echo):
        async def handle_call(self, request: object, from_: From) -> Reply:
            return Reply(request)

    async with clean_node() as node:
        pid = await node.start(child(Sleeper, restart=Restart.TEMPORARY))
        if awake:
            await call(pid, 1)
        await stop(pid, ValueError("enough"))
    assert "crashed: ValueError('enough')" in caplog.text


ONE_ERROR = ValueError("made once, raised often")


async def test_one_error_may_be_raised_again_and_again(clean_node: CleanNode) -> None:
    class Stubborn(GenServer):
        def handle_call(self, request: object, from_: From) -> Reply:
            raise ONE_ERROR

        def terminate(self, reason: object) -> None:
            raise ONE_ERROR

    async with clean_node() as node:
        for _ in range(3):
            pid = await node.start(child(Stubborn, restart=Restart.TEMPORARY))
            with pytest.raises(ServerDownError) as caught:
                await call(pid, 1)
            assert caught.value.reason is ONE_ERROR
    assert ONE_ERROR.__context__ is None


async def test_errors_that_are_each_other_s_context_hang_nobody(
    clean_node: CleanNode,
) -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__context__, two.__context__ = two, one

    class Circular(GenServer):
        def handle_call(self, request: object, from_: From) -> Reply:
            raise one

    async with clean_node() as node:
        pid = await node.start(child(Circular, restart=Restart.TEMPORARY))
        with pytest.raises(ServerDownError) as caught:
            await call(pid, 1)
        assert caught.value.reason is one


class Steps(trio.abc.Instrument):
    """Counts the steps of all tasks."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


async def test_room_for_one_message_wakes_one_of_those_who_wait(
    clean_node: CleanNode, schedule: int
) -> None:
    got: set[object] = set()

    async def take() -> None:
        for _ in range(300):
            got.add(await receive())

    async with clean_node():
        pid = spawn(take, mailbox=MailboxLimit(1, Overflow.WAIT))
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(send_wait, pid, number)
        await wait_exit(pid)
        trio.lowlevel.remove_instrument(steps)
    assert got == set(range(300))
    # All of them for each message would be 45,000.
    assert steps.count < 3000


async def test_who_finds_another_under_the_name_leaves_the_room_to_the_next(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    got: list[object] = []
    all_there = trio.Event()

    async def take(count: int) -> None:
        await trio.sleep(1)
        for _ in range(count):
            got.append(await receive())
            if len(got) == 8:
                all_there.set()
        await trio.sleep_forever()

    one = MailboxLimit(1, Overflow.WAIT)
    async with clean_node(), trio.open_nursery() as nursery:
        pid = spawn(take, 2, name="name", mailbox=one)
        send(pid, "first")
        for message in range(6):
            nursery.start_soon(send_wait, "name", message)
            await settle()
        nursery.start_soon(send_wait, pid, "stays")
        await settle()
        unregister("name")
        other = spawn(take, 6, name="name", mailbox=one)
        with trio.fail_after(5):
            await all_there.wait()
        assert set(got) == {"first", *range(6), "stays"}
        for process in (pid, other):
            await stop(process)


# --- a server that receives in a callback -------------------------------------


class Selects(GenServer):
    """Waits in a callback for what it is sent meanwhile."""

    def __init__(self) -> None:
        self.log: list[object] = []

    async def handle_call(self, request: object, from_: From) -> Reply:
        self.log.append(f"begin {request}")
        if request == "select":
            self.log.append(await receive(lambda message: message == "go"))
        self.log.append(f"end {request}")
        return Reply(request)


@pytest.mark.parametrize("inline", [True, False])
async def test_while_a_callback_receives_no_other_callback_runs(
    inline: bool, clean_node: CleanNode, schedule: int
) -> None:
    async with clean_node() as node:
        server = Selects()
        pid = await node.start(server)
        if not inline:
            node.inline_left = 0
        replies: list[object] = []
        seen: list[object] = []

        async def ask(request: str) -> None:
            replies.append(await call(pid, request))

        def note(state: Selects) -> Selects:
            seen.append(tuple(state.log))
            return state

        async def look() -> None:
            await sys.replace_state(pid, note)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "select")
            await settle()
            nursery.start_soon(look)
            await settle()
            nursery.start_soon(ask, "other")
            await settle()
            assert (replies, seen) == ([], [])
            send(pid, "go")
        first = ("begin select", "go", "end select")
        assert set(replies) == {"select", "other"}
        # Between two callbacks, where the state is whole.
        assert seen == [first]
        assert server.log == [*first, "begin other", "end other"]


async def test_a_call_while_nothing_is_received_is_served_as_ever(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        pid = await node.start(Selects())
        send_after(0.0, pid, "go")
        assert await call(pid, "select") == "select"
        await settle()
        node.inline_left = 1
        assert await call(pid, "inline") == "inline"
        assert node.inline_left == 0


class EndsItself(GenServer):
    def handle_call(self, request: object, from_: From) -> Reply:
        exit_process(self_pid(), SHUTDOWN)
        raise ValueError("raised first")


class EndsItselfInTask(EndsItself):
    async def init(self) -> None:
        """Makes it a server with a task, from its start."""


@pytest.mark.parametrize("kind", [EndsItself, EndsItselfInTask])
@pytest.mark.parametrize("inline", [True, False])
async def test_what_a_callback_raises_after_it_ended_its_process_is_the_reason(
    kind: type[GenServer],
    inline: bool,
    clean_node: CleanNode,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with clean_node() as node:
        pid = await node.start(child(kind, restart=Restart.TEMPORARY))
        await settle()
        node.inline_left = int(inline)
        with pytest.raises(ServerDownError) as caught:
            await call(pid, 1)
        assert isinstance(caught.value.reason, ValueError)
    assert "crashed: ValueError('raised first')" in caplog.text


# --- hibernation and time-outs ------------------------------------------------


async def test_a_server_that_waits_for_its_timeout_does_not_hibernate_by_itself(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    class Waits(GenServer):
        hibernate_after_s = 1.0

        def __init__(self) -> None:
            self.log: list[object] = []

        async def handle_call(self, request: object, from_: From) -> Reply:
            if request == "arm":
                return Reply(None, timeout_s=10)
            return Reply(tuple(self.log))

        async def handle_info(self, message: object) -> None:
            self.log.append(message)

    async with clean_node() as node:
        pid = await node.start(Waits())
        await call(pid, "arm")
        await trio.sleep(5)
        # Activity: the time-out is over.
        await call(pid, "log")
        await trio.sleep(20)
        assert await call(pid, "log") == ()
        await call(pid, "arm")
        await trio.sleep(20)
        assert await call(pid, "log") == (IdleTimeout(),)


# --- what outlives its process, or its node -----------------------------------


async def test_what_a_process_leaves_running_can_hold_nothing_in_its_name(
    clean_node: CleanNode,
) -> None:
    errors = []
    ended = trio.Event()
    keys: RegistryRef[str, None] = RegistryRef("keys")

    async def outlive(other: Pid) -> None:
        await ended.wait()
        actions: list[Callable[[], object]] = [
            lambda: register("name"),
            lambda: link(other),
            lambda: monitor(other),
            lambda: keys.register("key", None),
        ]
        for action in actions:
            with pytest.raises(NotAProcessError, match="has ended") as caught:
                action()
            errors.append(str(caught.value))

    async with clean_node() as node, trio.open_nursery() as nursery:
        blocks = await node.start(DynamicSupervisor())
        other = await node.start(child(Echo))
        await node.start(child(Registry, name="keys"))
        async with attached(blocks, id="block"):
            nursery.start_soon(outlive, other)
        ended.set()
        await settle()
        assert len(errors) == 4
        assert whereis("name") is None
        assert (await sys.get_status(other)).monitored_by == ()
        assert (await sys.get_status(other)).links == ()
        assert keys.count() == 0


class Plain(GenServer):
    pass


@pytest.mark.parametrize("kind", [Echo, Plain])
async def test_nothing_starts_on_a_node_that_was_cancelled(
    kind: type[GenServer],
) -> None:
    errors: list[str] = []

    class Late(Echo):
        async def init(self) -> None:
            await trio.lowlevel.checkpoint()

        async def terminate(self, reason: object) -> None:
            await trio.lowlevel.checkpoint()
            with pytest.raises(StartError) as caught:
                await node.start(kind())
            errors.append(str(caught.value))

    with trio.CancelScope() as scope:
        async with open_node() as node:
            await node.start(Late())
            scope.cancel()
            await trio.sleep_forever()
    assert errors == [f"start of {kind.__name__!r} failed: the node is stopping"]
    with pytest.raises(StartError):
        await node.start(kind())
    assert node.processes == {}


async def test_nothing_is_spawned_on_a_node_that_has_ended() -> None:
    ended = trio.Event()

    async def outlive() -> None:
        await ended.wait()
        with pytest.raises(NoNodeError, match="has ended"):
            spawn(trio.sleep_forever, name="late")

    async with trio.open_nursery() as nursery:
        async with open_node() as node:
            nursery.start_soon(outlive)
            await settle()
        ended.set()
    assert node.processes == {}
    assert node.names == {}


async def test_a_name_that_a_start_gives_away_itself_is_taken(
    clean_node: CleanNode,
) -> None:
    def start() -> GenServer:
        spawn(trio.sleep_forever, name="name")
        return Plain()

    async with clean_node() as node:
        with pytest.raises(AlreadyStartedError) as caught:
            await node.start(child(start, name="name"))
        holder = whereis("name")
        assert holder is not None
        assert caught.value.pid is holder
        await stop(holder)
        assert node.names == {}


# --- what passes through a process --------------------------------------------


class Exits(GenServer):
    def terminate(self, reason: object) -> None:
        raise SystemExit(3)


class Notes(GenServer):
    def __init__(self, log: list[str]) -> None:
        self.log = log

    def terminate(self, reason: object) -> None:
        self.log.append("closed")


async def test_a_system_exit_in_terminate_goes_on_without_a_task_too() -> None:
    with pytest.raises(SystemExit):
        async with open_node() as node:
            pid = await node.start(child(Exits, restart=Restart.TEMPORARY))
            await stop(pid)


@pytest.mark.parametrize("under_supervisor", [False, True])
async def test_a_system_exit_in_one_terminate_leaves_out_no_other(
    under_supervisor: bool,
) -> None:
    log: list[str] = []
    specs = [
        child(lambda: Notes(log), id="first"),
        child(Exits),
        child(lambda: Notes(log), id="last"),
    ]
    # Beside the cancellation it is one of a group.
    expected = pytest.raises((SystemExit, BaseExceptionGroup))
    with expected as caught, trio.CancelScope() as scope:
        async with open_node() as node:
            if under_supervisor:
                await node.start(Supervisor(specs))
            else:
                for spec in specs:
                    await node.start(spec)
            scope.cancel()
            await trio.sleep_forever()
    assert isinstance(unwrap(caught.value), SystemExit)
    assert log == ["closed", "closed"]
    assert node.processes == {}


# --- interrupts -----------------------------------------------------------------

SERVES = {
    *("call_now", "_waits_in", "run_as", "_serve_plain", "_begin_call", "_served"),
    # Without a task: these as well, and what the drain does.
    *("_serve", "_rest", "turn", "_handle", "_messages", "_drain", "run", "add"),
}


class Interrupter:
    """Interrupts at the n-th line of what serves a call or a cast."""

    def __init__(self, at: int) -> None:
        self.left = at

    def trace(self, frame: FrameType, event: str, argument: object) -> object:
        if frame.f_code.co_name not in SERVES:
            return None
        if event == "line":
            self.left -= 1
            if self.left == -1:
                signal.raise_signal(signal.SIGINT)
        return self.trace


class PlainCall(Echo):
    def handle_call(self, request: object, from_: From) -> Reply:  # type: ignore[override]
        return Reply(request)


class NoTask(GenServer):
    def handle_call(self, request: object, from_: From) -> Reply:
        return Reply(request)

    def handle_cast(self, message: object) -> None:
        pass


class SlowCall(Echo):
    async def handle_call(self, request: object, from_: From) -> Reply:
        await trio.sleep(1)
        return Reply(request)


class EndsSlowly(GenServer):
    def __init__(self, ended_at: list[float]) -> None:
        self.ended_at = ended_at

    async def terminate(self, reason: object) -> None:
        await trio.sleep(1)
        self.ended_at.append(trio.current_time())


async def serve(
    kind: type[GenServer],
    interrupter: Interrupter | None = None,
    ended_at: list[float] | None = None,
) -> None:
    async with open_node() as node:
        if ended_at is not None:
            for _ in range(2):
                await node.start(EndsSlowly(ended_at))
        pid = await node.start(kind())
        await call(pid, 1)
        await settle()
        if interrupter is not None:
            python.settrace(interrupter.trace)  # type: ignore[arg-type]
        try:
            await call(pid, 2)
            if kind is NoTask:
                cast(pid, 1)
                cast(pid, 2)
                await call(pid, 3)
        finally:
            python.settrace(None)
        await trio.sleep(60)


@pytest.mark.parametrize("kind", [Selects, PlainCall, SlowCall, NoTask])
def test_an_interrupt_at_any_line_of_a_call_ends_the_run_in_order(
    kind: type[GenServer],
) -> None:
    at = 0
    while True:
        interrupter, ended_at = Interrupter(at), list[float]()
        clock = trio.testing.MockClock(autojump_threshold=0)
        run = partial(trio.run, serve, kind, interrupter, ended_at, clock=clock)
        outcome = capture(run)
        if interrupter.left >= 0:
            break
        assert isinstance(outcome, Error)
        assert isinstance(unwrap(outcome.error), KeyboardInterrupt)
        # One after the other.
        first_at, second_at = ended_at
        assert second_at - first_at == 1
        at += 1
    assert at > 9


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_handler_on_its_caller_s_stack_can_be_interrupted(
    asynchronous: bool,
) -> None:
    log: list[object] = []

    def compute(request: object) -> Reply:
        if request == 2:
            log.append("computes")
            signal.raise_signal(signal.SIGINT)
            log.append("went on")
        return Reply(None)

    class Plain(Echo):
        def handle_call(self, request: object, from_: From) -> Reply:  # type: ignore[override]
            return compute(request)

    class Asynchronous(Echo):
        async def handle_call(self, request: object, from_: From) -> Reply:
            return compute(request)

    with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)) as caught:
        trio.run(serve, Asynchronous if asynchronous else Plain)
    assert isinstance(unwrap(caught.value), KeyboardInterrupt)
    assert log == ["computes"]


async def start_alone(server: GenServer) -> None:
    async with open_node() as node:
        await node.start(server)


def test_a_plain_init_can_be_interrupted() -> None:
    log: list[str] = []

    class Computes(Echo):
        def init(self) -> None:
            log.append("computes")
            signal.raise_signal(signal.SIGINT)
            log.append("went on")

    with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)) as caught:
        trio.run(start_alone, Computes())
    assert isinstance(unwrap(caught.value), KeyboardInterrupt)
    assert log == ["computes"]
