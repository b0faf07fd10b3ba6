"""KeyboardInterrupt and SystemExit in a process' code: all stop in order first."""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from atomr.core.exits import SHUTDOWN, ExitReason
from atomr.errors import ServerDownError, StartError
from atomr.otp import (
    Application,
    DynamicSupervisor,
    From,
    GenServer,
    Next,
    NoReply,
    Reply,
    Restart,
    StateMachine,
    Supervisor,
    TaskSupervisor,
    call,
    cast,
    child,
    run_applications,
    start_child,
    start_task,
    terminate_child,
)
from atomr.process import (
    Node,
    current_node,
    open_node,
    receive,
    send,
    spawn,
    wait_exit,
    whereis,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.atomr.conftest import CleanNode

settle = trio.testing.wait_all_tasks_blocked


def by_signal() -> None:
    signal.raise_signal(signal.SIGINT)
    raise AssertionError("nobody was interrupted")


def by_hand() -> None:
    raise KeyboardInterrupt


class Log(list[object]):
    """What happens in one test, in order."""


class Says(GenServer):
    """Says that it starts and ends; its end takes a while."""

    def __init__(self, log: Log, name: str) -> None:
        self.log, self.name = log, name
        log.append(f"start {name}")

    async def terminate(self, reason: ExitReason) -> None:
        await trio.sleep(1)
        self.log.append((self.name, reason))


class Strikes(GenServer):
    """Is interrupted in the callback that is asked for; has no task."""

    def __init__(self, log: Log, strike: Callable[[], None]) -> None:
        self.log, self.strike = log, strike
        log.append("start strikes")

    def handle_call(self, request: object, from_: From) -> Reply:
        self.strike()
        return Reply(None)

    def handle_cast(self, message: object) -> None:
        self.strike()

    def handle_info(self, message: object) -> NoReply:
        if message == "go on":
            return NoReply(continue_=None)
        self.strike()
        return NoReply()

    def handle_continue(self, continuation: object) -> None:
        self.strike()

    def terminate(self, reason: ExitReason) -> None:
        self.log.append(("strikes", type(reason)))


class TaskStrikes(Strikes):
    """The same with a task."""

    async def handle_info(  # type: ignore[override]
        self, message: object
    ) -> NoReply:
        await trio.lowlevel.checkpoint()
        return super().handle_info(message)


class StateStrikes(StateMachine):
    """The same as a state machine."""

    def __init__(self, log: Log, strike: Callable[[], None]) -> None:
        self.log, self.strike = log, strike
        log.append("start strikes")

    def init(self) -> Next:
        return Next(self.only)

    def only(self, event: object) -> None:
        self.strike()

    def terminate(self, reason: ExitReason, state: object) -> None:
        self.log.append(("strikes", type(reason)))


STARTED = ["start a1", "start a2", "start strikes", "start b1"]
IN_ORDER = [("b1", SHUTDOWN), ("a2", SHUTDOWN), ("a1", SHUTDOWN)]
STRUCK = ("strikes", KeyboardInterrupt)


async def start_tree(node: Node, log: Log, strikes: Callable[[], GenServer]) -> None:
    """Start two supervisors; the one that is struck is the first one's last child."""
    first = [
        child(partial(Says, log, "a1"), id="a1"),
        child(partial(Says, log, "a2"), id="a2"),
        child(strikes, id="strikes", name="strikes"),
    ]
    # Any restart would be one too many.
    await node.start(Supervisor(first, max_restarts=0))
    await node.start(Supervisor([child(partial(Says, log, "b1"), id="b1")]))
    await settle()


async def ask_from_body() -> None:
    with pytest.raises(ServerDownError):
        await call("strikes", None)


def ask(request: Callable[[], object]) -> Callable[[], Awaitable[None]]:
    async def send_it() -> None:
        request()

    return send_it


WAYS: dict[str, Callable[[], Awaitable[None]]] = {
    "call": ask_from_body,
    "cast": ask(lambda: cast("strikes", None)),
    "info": ask(lambda: send("strikes", None)),
    "continue": ask(lambda: send("strikes", "go on")),
}


@pytest.mark.parametrize("strike", [by_hand, by_signal])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("server", [Strikes, TaskStrikes, StateStrikes])
def test_one_that_strikes_a_callback_is_raised_when_all_have_stopped_in_order(
    server: Callable[..., GenServer], way: str, strike: Callable[[], None]
) -> None:
    log = Log()

    async def main() -> None:
        async with open_node() as node:
            await start_tree(node, log, partial(server, log, strike))
            await WAYS[way]()
            await trio.sleep_forever()

    clock = trio.testing.MockClock(autojump_threshold=0)
    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=clock)

    assert log == [*STARTED, STRUCK, *IN_ORDER]


async def run_struck(
    log: Log, go: Callable[[Node], Awaitable[None]], clean_node: CleanNode
) -> None:
    """Have ``go`` be interrupted beside two servers, which end in order."""
    with pytest.raises(KeyboardInterrupt):
        async with clean_node() as node:
            for name in ("a", "b"):
                await node.start(Says(log, name))
            await go(node)
            await trio.sleep_forever()
    assert log == ["start a", "start b", ("b", SHUTDOWN), ("a", SHUTDOWN)]


class PlainInit(GenServer):
    def init(self) -> None:
        by_hand()


class PlainInitOfATask(PlainInit):
    async def handle_info(self, message: object) -> None:
        pass


class AsyncInit(GenServer):
    async def init(self) -> None:
        by_hand()


@pytest.mark.parametrize("kind", [PlainInit, PlainInitOfATask, AsyncInit])
async def test_one_in_init_fails_the_start_and_stops_all_in_order(
    kind: type[GenServer], clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async def go(node: Node) -> None:
        top = await node.start(DynamicSupervisor())
        with pytest.raises(StartError):
            await start_child(top, child(kind))

    await run_struck(Log(), go, clean_node)


async def test_one_in_a_child_specifications_start_stops_all_in_order(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    def start() -> GenServer:
        raise KeyboardInterrupt

    log = Log()

    async def go(node: Node) -> None:
        specs = [child(partial(Says, log, "c"), id="c"), child(start)]
        with pytest.raises(StartError):
            await node.start(Supervisor(specs))

    with pytest.raises(KeyboardInterrupt):
        async with clean_node() as node:
            await node.start(Says(log, "a"))
            await go(node)
    ended = [("c", SHUTDOWN), ("a", SHUTDOWN)]
    assert log == ["start a", "start c", *ended]


@pytest.mark.parametrize("grouped", [False, True])
async def test_one_in_a_plain_process_stops_all_in_order(
    grouped: bool, clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async def strike() -> None:
        by_hand()

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(strike)
            nursery.start_soon(trio.sleep_forever)

    async def go(node: Node) -> None:
        spawn(run if grouped else strike)

    await run_struck(Log(), go, clean_node)


async def test_one_in_a_task_stops_all_in_order(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async def strike() -> None:
        by_hand()

    async def go(node: Node) -> None:
        tasks = await node.start(TaskSupervisor())
        start_task(tasks, strike, restart=Restart.PERMANENT)

    await run_struck(Log(), go, clean_node)


async def test_nothing_is_restarted_that_the_interrupt_takes_along(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    """Neither the struck process, nor one that crashes because of it."""
    log = Log()

    class Asks(GenServer):
        def init(self) -> None:
            log.append("start asks")

        async def handle_cast(self, message: object) -> None:
            await call("strikes", None)

    with pytest.raises(KeyboardInterrupt):
        async with clean_node() as node:
            strikes = child(partial(Strikes, log, by_hand), id="s", name="strikes")
            await node.start(Supervisor([strikes]))
            dynamic = await node.start(DynamicSupervisor())
            await start_child(dynamic, child(Asks, name="asks"))
            cast("asks", None)
            await trio.sleep_forever()

    assert log == ["start strikes", "start asks", STRUCK]


async def test_what_the_body_says_while_it_is_left_is_still_answered(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    log = Log()
    with pytest.raises(KeyboardInterrupt):
        async with clean_node() as node:
            spec = child(partial(Strikes, log, by_hand), id="s", name="strikes")
            await node.start(Supervisor([spec], max_restarts=0))
            dynamic = await node.start(DynamicSupervisor())
            pid = await start_child(dynamic, child(partial(Says, log, "a"), id="a"))
            try:
                cast("strikes", None)
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await settle()
                    await terminate_child(dynamic, pid)
                    log.append("terminated")
    assert log == ["start strikes", "start a", STRUCK, ("a", SHUTDOWN), "terminated"]


async def test_the_exit_code_of_a_system_exit_is_kept(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async def leave() -> None:
        raise SystemExit(3)

    log = Log()
    with pytest.raises(SystemExit) as caught:
        async with clean_node() as node:
            await node.start(Says(log, "a"))
            spawn(leave)
            await trio.sleep_forever()
    assert caught.value.code == 3
    assert log == ["start a", ("a", SHUTDOWN)]


async def test_an_end_of_a_root_by_it_is_no_failure_of_the_root(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        async with clean_node() as node:
            strikes = partial(Strikes, Log(), by_hand)
            await node.start(
                child(strikes, id="s", name="s", restart=Restart.PERMANENT)
            )
            cast("s", None)
            await trio.sleep_forever()
    assert not hasattr(caught.value, "__notes__")


# --- what else goes wrong meanwhile ----------------------------------------------


async def test_a_second_one_in_a_terminate_cancels_the_rest_at_once(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    log = Log()

    class Again(Says):
        async def terminate(self, reason: ExitReason) -> None:
            log.append("again")
            by_hand()

    with pytest.raises(KeyboardInterrupt):
        async with clean_node() as node:
            # In order, the first would be asked for last.
            for name in ("a", "b"):
                await node.start(Says(log, name))
            await node.start(Again(log, "c"))
            await node.start(child(partial(Strikes, log, by_hand), id="s", name="s"))
            cast("s", None)
            await trio.sleep_forever()
    started = ["start a", "start b", "start c", "start strikes"]
    assert log[:6] == [*started, STRUCK, "again"]
    assert set(log[6:]) == {("a", SHUTDOWN), ("b", SHUTDOWN)}
    assert len(log) == 8


def test_a_second_one_while_the_node_stops_cancels_the_rest_at_once() -> None:
    log = Log()
    took: list[float] = []

    class Never(Says):
        async def terminate(self, reason: ExitReason) -> None:
            # It comes to the main task, which waits for this server's end.
            signal.raise_signal(signal.SIGINT)
            await trio.sleep(1000)

    async def main() -> None:
        began = trio.current_time()
        try:
            async with open_node() as node:
                await node.start(Says(log, "a"))
                await node.start(child(partial(Never, log, "b"), shutdown=3, id="b"))
                strikes = partial(Strikes, log, by_hand)
                await node.start(child(strikes, id="s", name="s"))
                cast("s", None)
                await trio.sleep_forever()
        finally:
            took.append(trio.current_time() - began)

    clock = trio.testing.MockClock(autojump_threshold=0)
    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=clock, restrict_keyboard_interrupt_to_checkpoints=True)
    assert log == ["start a", "start b", "start strikes", STRUCK, ("a", SHUTDOWN)]
    # The bound of the longer terminate, and not one after the other.
    assert took == [3]


async def test_two_at_once_cancel_all(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async def strike() -> None:
        by_hand()

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(strike)
            nursery.start_soon(strike)

    class Sleeps(GenServer):
        async def terminate(self, reason: ExitReason) -> None:
            await trio.sleep(1)
            log.append(trio.current_time())

    log: list[float] = []
    with pytest.raises(BaseExceptionGroup) as caught:
        async with clean_node() as node:
            for _ in range(2):
                await node.start(child(Sleeps))
            began = trio.current_time()
            spawn(run)
            await trio.sleep_forever()
    kinds = [type(each) for each in caught.value.exceptions]
    assert kinds == [KeyboardInterrupt, KeyboardInterrupt]
    assert log == [began + 1, began + 1]


async def test_an_error_of_the_body_meanwhile_is_a_note(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        async with clean_node() as node:
            await node.start(child(partial(Strikes, Log(), by_hand), id="s", name="s"))
            try:
                cast("s", None)
                await trio.sleep_forever()
            finally:
                raise ValueError("of the body")
    assert caught.value.__notes__ == [
        "meanwhile the node's block raised ValueError('of the body')"
    ]


async def test_a_cancellation_from_outside_meanwhile_is_not_lost(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    log = Log()
    with pytest.raises(BaseExceptionGroup) as caught, trio.CancelScope() as scope:
        async with clean_node() as node:
            await node.start(Says(log, "a"))

            async def strike() -> None:
                scope.cancel()
                by_hand()

            spawn(strike)
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert [type(each) for each in caught.value.exceptions] == [KeyboardInterrupt]
    assert log == ["start a", ("a", SHUTDOWN)]


async def test_a_node_inside_a_node_hands_it_to_its_own_caller(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    log = Log()

    async def inner() -> None:
        async with open_node("inner") as node:
            await node.start(Says(log, "inner"))
            spawn(strike)
            await trio.sleep_forever()

    async def strike() -> None:
        assert current_node().name == "inner"
        by_hand()

    with pytest.raises(KeyboardInterrupt):
        async with clean_node() as node:
            await node.start(Says(log, "outer"))
            spawn(inner)
            await trio.sleep_forever()
    ended = [("inner", SHUTDOWN), ("outer", SHUTDOWN)]
    assert log == ["start outer", "start inner", *ended]


async def test_applications_stop_in_order_before_it_is_raised(
    autojump_clock: trio.testing.MockClock,
) -> None:
    log = Log()

    def tree(name: str) -> Callable[[], Supervisor]:
        return lambda: Supervisor([child(partial(Says, log, name), id=name)])

    def strikes() -> Supervisor:
        server = partial(Strikes, log, by_hand)
        return Supervisor([child(server, id="s", name="s")])

    applications = [
        Application("a", tree("a")),
        Application("strikes", strikes, depends_on=("a",)),
        Application("b", tree("b"), depends_on=("strikes",)),
    ]

    def ready(node: Node) -> None:
        assert node.whereis("s") is not None
        node.send_from_thread("s", None)

    with pytest.raises(KeyboardInterrupt):
        await run_applications(applications, handle_signals=False, ready=ready)
    started = ["start a", "start strikes", "start b"]
    assert log == [*started, STRUCK, ("b", SHUTDOWN), ("a", SHUTDOWN)]


async def test_who_waits_for_the_struck_process_hears_of_its_end(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    reasons: list[object] = []

    async def strike() -> None:
        await receive()
        by_hand()

    with pytest.raises(KeyboardInterrupt) as caught:
        async with clean_node():
            pid = spawn(strike, name="strikes")

            async def watch() -> None:
                reasons.append(await wait_exit(pid))
                assert whereis("strikes") is None

            spawn(watch)
            await settle()
            send(pid, None)
            await trio.sleep_forever()
    assert reasons == [caught.value]
