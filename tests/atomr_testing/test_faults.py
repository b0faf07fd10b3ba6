"""Crashes on demand: each kind of process, each place where it may strike."""

from __future__ import annotations

import re
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr.core.exits import SHUTDOWN, ExitReason
from atomr.errors import (
    NotAProcessError,
    ProcessKilledError,
    ServerDownError,
    StartError,
    TaskExitError,
)
from atomr.otp import (
    Cast,
    DynamicSupervisor,
    From,
    GenServer,
    Next,
    NoReply,
    Reply,
    Restart,
    StateEvent,
    StateMachine,
    StateResult,
    Strategy,
    Supervisor,
    Task,
    call,
    cast,
    child,
    count_children,
    sys,
    which_children,
)
from atomr.process import (
    attached,
    is_alive,
    kill,
    receive,
    send,
    spawn,
    stop,
    trap_exit,
    wait_exit,
    whereis,
)
from atomr.testing import (
    Chaos,
    InjectedCrashError,
    NoCrashError,
    Probe,
    TestNode,
    UnexpectedCrashError,
    advance,
    crash,
    crash_next,
    explore,
    like,
    open_test_node,
    run,
    settle,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

BOOM = ValueError("boom")


class Lean(GenServer):
    """Answers and notes; all plain functions."""

    def __init__(self, log: list[object]) -> None:
        self.log = log

    def handle_call(self, request: object, from_: From) -> Reply | NoReply:
        self.log.append(request)
        return NoReply() if request == "later" else Reply(request)

    def handle_cast(self, message: object) -> NoReply:
        self.log.append(message)
        return NoReply()

    def handle_info(self, message: object) -> NoReply:
        self.log.append(message)
        return NoReply()

    def terminate(self, reason: ExitReason) -> None:
        self.log.append(reason)


class Tasked(GenServer):
    """The same with a task; may wait in a call."""

    def __init__(self, log: list[object]) -> None:
        self.log = log

    async def init(self) -> None:
        if "slow start" in self.log:
            await trio.sleep_forever()

    async def handle_call(self, request: object, from_: From) -> Reply | NoReply:
        self.log.append(request)
        if request == "wait":
            try:
                await trio.sleep_forever()
            except Exception:
                self.log.append("caught")
                raise
            finally:
                self.log.append("finally")
        return NoReply() if request == "later" else Reply(request)

    async def handle_cast(self, message: object) -> NoReply:
        self.log.append(message)
        return NoReply()

    async def handle_info(self, message: object) -> NoReply:
        self.log.append(message)
        return NoReply()

    async def terminate(self, reason: ExitReason) -> None:
        await trio.lowlevel.checkpoint()
        self.log.append(reason)


class Switch(StateMachine):
    """Notes its events; all plain functions."""

    def __init__(self, log: list[object]) -> None:
        self.log = log

    def init(self) -> Next:
        return Next(self.off)

    def off(self, event: StateEvent) -> StateResult:
        if isinstance(event, Cast):
            self.log.append(event.message)
        return None

    def terminate(self, reason: ExitReason, state: object) -> None:
        self.log.append(reason)


class AsyncSwitch(Switch):
    """The same with a task."""

    async def off(self, event: StateEvent) -> StateResult:  # type: ignore[override]
        await trio.lowlevel.checkpoint()
        return super().off(event)


@pytest.fixture(params=[Lean, Tasked])
def kind(request: pytest.FixtureRequest) -> Callable[[list[object]], GenServer]:
    found: Callable[[list[object]], GenServer] = request.param
    return found


# --- crash ---------------------------------------------------------------------------


async def test_an_idle_server_crashes_with_that_very_error(
    node: TestNode, kind: Callable[[list[object]], GenServer], schedule: int
) -> None:
    log: list[object] = []
    probe = Probe()
    pid = await node.start_supervised(kind(log))
    probe.monitor(pid)
    probe.link(pid)

    assert crash(pid, BOOM) is BOOM
    assert is_alive(pid)

    down = await probe.expect_down(pid)
    assert down.reason is BOOM
    assert (await probe.expect_exit(pid)).reason is BOOM
    assert log == [BOOM]


async def test_a_message_in_front_of_which_it_crashes_is_not_handled(
    node: TestNode, kind: Callable[[list[object]], GenServer]
) -> None:
    log: list[object] = []
    pid = await node.start_supervised(kind(log))
    cast(pid, "unseen")
    crash(pid, BOOM)
    with pytest.raises(ServerDownError) as caught:
        await call(pid, "hello?")

    assert caught.value.reason is BOOM
    assert log == [BOOM]


async def test_a_call_set_aside_hears_of_the_crash(
    node: TestNode, kind: Callable[[list[object]], GenServer]
) -> None:
    pid = await node.start_supervised(kind([]))

    async def crash_it() -> None:
        await settle()
        crash(pid, BOOM)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(crash_it)
        with pytest.raises(ServerDownError) as caught:
            await call(pid, "later")

    assert caught.value.reason is BOOM


async def test_a_handler_that_waits_is_struck_where_it_waits(
    node: TestNode, schedule: int
) -> None:
    log: list[object] = []
    pid = await node.start_supervised(Tasked(log))
    error = ValueError("boom")

    async def crash_it() -> None:
        await settle()
        crash(pid, error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(crash_it)
        with pytest.raises(ServerDownError) as caught:
            await call(pid, "wait")

    assert caught.value.reason is error
    assert log == ["wait", "finally", error]
    assert "await trio.sleep_forever()" in "".join(traceback.format_exception(error))


async def test_a_server_that_starts_fails_to(node: TestNode) -> None:
    async def crash_it() -> None:
        await settle()
        crash("slow", BOOM)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(crash_it)
        log: list[object] = ["slow start"]
        with pytest.raises(StartError) as caught:
            spec = child(lambda: Tasked(log), id="slow", name="slow")
            await node.start_supervised(spec)

    assert caught.value.reason is BOOM
    assert log == ["slow start"]


async def test_a_plain_process_crashes_at_its_next_checkpoint(
    node: TestNode, schedule: int
) -> None:
    log: list[object] = []

    async def worker() -> None:
        try:
            await receive()
        finally:
            log.append("closed")

    async def busy() -> None:
        while True:
            await trio.lowlevel.checkpoint()

    async def helpers() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(trio.sleep_forever)

    pids = [spawn(worker), spawn(busy), spawn(helpers)]
    await trio.lowlevel.checkpoint()
    probe = Probe()
    errors = [ValueError(number) for number in range(3)]
    for pid, error in zip(pids, errors, strict=True):
        probe.monitor(pid)
        crash(pid, error)

    downs = [await probe.expect_down(pid) for pid in pids]
    assert [down.reason for down in downs] == errors
    assert log == ["closed"]


async def test_a_process_that_has_not_begun_crashes_too(node: TestNode) -> None:
    async def worker() -> None:
        await trio.sleep_forever()

    pid = spawn(worker)
    crash(pid, BOOM)

    assert await wait_exit(pid) is BOOM


async def test_an_attached_block_ends_with_the_error_as_its_reason(
    node: TestNode,
) -> None:
    point = await node.start_supervised(DynamicSupervisor)
    with pytest.raises(ProcessKilledError) as caught:
        async with attached(point, id="x") as pid:
            crash(pid, BOOM)
            await trio.sleep_forever()

    assert caught.value.reason is BOOM


async def test_a_server_that_hibernates_wakes_to_crash(node: TestNode) -> None:
    class Sleepy(Tasked):
        async def handle_call(self, request: object, from_: From) -> Reply:
            return Reply(request, hibernate=True)

    log: list[object] = []
    pid = await node.start_supervised(Sleepy(log))
    probe = Probe()
    probe.monitor(pid)
    await call(pid, 1)
    await settle()
    assert pid._process.hibernating
    crash(pid, BOOM)

    assert (await probe.expect_down(pid)).reason is BOOM
    assert log == [BOOM]


async def test_a_task_crashes_in_whoever_waits_for_it(node: TestNode) -> None:
    error = ValueError("boom")
    async with node.as_process():
        task = Task.async_(trio.sleep_forever)
        await settle()
        trap_exit(enabled=True)
        assert task.pid is not None
        crash(task.pid, error)
        with pytest.raises(TaskExitError) as caught:
            await task.result()

    assert caught.value.__cause__ is error


@pytest.mark.parametrize("machine", [Switch, AsyncSwitch])
async def test_a_state_machine_crashes_at_once_or_at_an_event(
    node: TestNode, machine: type[Switch], schedule: int
) -> None:
    log: list[object] = []
    probe = Probe()
    spec = child(partial(machine, log), id="switch")
    first = await node.start_supervised(spec)
    probe.monitor(first)
    crash(first, BOOM)
    assert (await probe.expect_down(first)).reason is BOOM

    second = await node.start_supervised(spec)
    probe.monitor(second)
    crash_next(second, on="x", error=BOOM)
    cast(second, "y")
    cast(second, "x")
    assert (await probe.expect_down(second)).reason is BOOM

    assert log == [BOOM, "y", BOOM]


async def test_a_probe_crashes_at_once(node: TestNode) -> None:
    probe = Probe()
    watcher = Probe()
    watcher.monitor(probe.pid)
    async with node.expect_crash(probe.pid) as expected:
        crash(probe.pid, BOOM)

    assert not probe.alive
    assert expected.reason is BOOM
    assert (await watcher.expect_down(probe.pid)).reason is BOOM


async def test_the_supervisor_restarts_what_was_made_to_crash(node: TestNode) -> None:
    log: list[object] = []
    tree = Supervisor(
        [child(lambda: Lean(log), id=name, name=name) for name in "ab"],
        strategy=Strategy.ONE_FOR_ALL,
    )
    await node.start_supervised(tree)
    before = whereis("a"), whereis("b")
    crash("a", BOOM)
    await settle()

    after = whereis("a"), whereis("b")
    assert None not in after
    assert not {*before} & {*after}
    assert log == [BOOM, SHUTDOWN]


async def test_a_cancellation_from_outside_is_not_swallowed_by_an_injection() -> None:
    with trio.CancelScope() as scope:
        async with open_test_node() as node:
            log: list[object] = []
            pid = await node.start_supervised(Tasked(log))
            await settle()
            scope.cancel()
            crash(pid, BOOM)
            await trio.sleep_forever()

    assert scope.cancelled_caught


async def test_a_kill_comes_before_an_injection(node: TestNode, schedule: int) -> None:
    log: list[object] = []
    pid = await node.start_supervised(Tasked(log))
    kill(pid)
    crash(pid, BOOM)

    assert repr(await wait_exit(pid)) == "KILLED"
    assert log == []
    with pytest.raises(NoCrashError):
        async with node.expect_crash(timeout_s=0.0) as expected:
            second = await node.start_supervised(child(partial(Tasked, log), id="b"))
            kill(second)
            crash(second, BOOM)
            await wait_exit(second)
    with pytest.raises(NoCrashError):
        _ = expected.pid


async def test_of_two_injections_the_first_counts(
    node: TestNode, kind: Callable[[list[object]], GenServer]
) -> None:
    pid = await node.start_supervised(kind([]))
    first = crash(pid)
    crash(pid, BOOM)

    assert await wait_exit(pid) is first


async def test_an_injected_error_has_a_class_of_its_own_by_default(
    node: TestNode,
) -> None:
    pid = await node.start_supervised(Lean([]))
    error = crash(pid)

    assert isinstance(error, InjectedCrashError)
    assert str(error) == f"crash({pid!r})"
    async with node.expect_crash(pid, InjectedCrashError) as expected:
        await wait_exit(pid)
    assert expected.reason is error


async def test_what_an_injection_leads_to_is_still_unexpected() -> None:
    class Sore(GenServer):
        def terminate(self, reason: ExitReason) -> None:
            raise KeyError("and that")

    with pytest.raises(UnexpectedCrashError, match="and that"):
        async with open_test_node() as node:
            crash(await node.start_supervised(Sore), BOOM)
            await trio.sleep_forever()


async def test_who_is_not_there_and_a_supervisor_are_refused(node: TestNode) -> None:
    top = await node.start_supervised(Supervisor([]))
    pid = await node.start_supervised(Lean([]))
    await stop(pid)

    for operation in (crash, crash_next):
        with pytest.raises(TypeError, match="a supervisor; crash its children"):
            operation(top)
        with pytest.raises(NotAProcessError, match="no such process"):
            operation(pid)


async def test_a_crash_works_on_a_node_that_is_no_test_node() -> None:
    async with open_test_node(allow_crashes=True) as node:
        node.node.on_crash = None
        pid = await node.start_supervised(Lean([]))
        crash(pid, BOOM)
        assert await wait_exit(pid) is BOOM


# --- crash_next ---------------------------------------------------------------------


async def test_it_crashes_at_the_message_that_matches(
    node: TestNode, kind: Callable[[list[object]], GenServer], schedule: int
) -> None:
    log: list[object] = []
    pid = await node.start_supervised(kind(log))
    fault = crash_next(pid, on=like(str), error=BOOM, after=1)

    assert await call(pid, 1) == 1
    assert await call(pid, "first") == "first"
    cast(pid, 2)
    send(pid, 3)
    await settle()
    fired = [fault.fired]
    with pytest.raises(ServerDownError) as caught:
        await call(pid, "second")

    assert caught.value.reason is BOOM
    assert [*fired, fault.fired] == [False, True]
    assert log == [1, "first", 2, 3, BOOM]


@pytest.mark.parametrize("how", ["cast", "send"])
async def test_it_crashes_at_a_cast_and_at_what_was_sent(
    node: TestNode, kind: Callable[[list[object]], GenServer], how: str
) -> None:
    log: list[object] = []
    pid = await node.start_supervised(kind(log))
    crash_next(pid, on="x", error=BOOM)
    (cast if how == "cast" else send)(pid, "x")

    assert await wait_exit(pid) is BOOM
    assert log == [BOOM]


async def test_a_fault_can_be_taken_back(
    node: TestNode, kind: Callable[[list[object]], GenServer]
) -> None:
    pid = await node.start_supervised(kind([]))
    first, second = crash_next(pid), crash_next(pid, on="x")
    assert first.cancel()
    assert not first.cancel()

    assert await call(pid, "y") == "y"
    assert second.cancel()
    assert await call(pid, "x") == "x"
    assert pid._process.debug is None


@pytest.mark.parametrize("way", ["typo", "ended", "allowed"])
async def test_a_fault_that_did_not_strike_fails_the_test(way: str) -> None:
    with pytest.raises(NoCrashError) as caught:
        async with open_test_node(allow_crashes=way == "allowed") as node:
            pid = await node.start_supervised(child(lambda: Lean([]), id="server"))
            crash_next(pid, on="z").cancel()
            fault = crash_next(pid, on=("x", int))
            assert await call(pid, "x") == "x"
            if way == "ended":
                await stop(pid)
            assert (fault.waits, fault.fired) == (True, False)

    assert re.fullmatch(
        r"crash_next\(<Pid \d server>, on=\('x', int\)\) did not strike: .*",
        str(caught.value),
    )


async def test_a_fault_that_did_not_strike_hides_no_failure() -> None:
    with pytest.raises(KeyError):
        async with open_test_node() as node:
            crash_next(await node.start_supervised(child(lambda: Lean([]), id="x")))
            raise KeyError


async def test_chaos_without_a_tree_is_a_crash() -> None:
    with pytest.raises(UnexpectedCrashError, match=r"Chaos\('shpo'\): no such"):
        async with open_test_node() as node:
            await node.start_supervised(Chaos("shpo", seed=1))
            await trio.sleep_forever()


async def test_a_fault_and_a_trace_do_not_disturb_each_other(
    node: TestNode, kind: Callable[[list[object]], GenServer]
) -> None:
    seen: list[object] = []
    pid = await node.start_supervised(kind([]))
    await sys.trace(pid, lambda event: seen.append(event.kind))
    fault = crash_next(pid, on="x")
    await call(pid, 1)
    assert seen == ["in", "out"]
    assert fault.cancel()
    await call(pid, 2)
    assert seen == ["in", "out"] * 2

    fault = crash_next(pid, on="x")
    await sys.trace(pid, None)
    with pytest.raises(ServerDownError):
        await call(pid, "x")
    assert fault.fired
    assert not fault.cancel()


async def test_a_plain_process_handles_no_messages(node: TestNode) -> None:
    async def worker() -> None:
        await receive()

    with pytest.raises(TypeError, match="a worker handles no messages"):
        crash_next(spawn(worker))


# --- chaos ----------------------------------------------------------------------------


def shop(log: list[object]) -> Supervisor:
    parts = [child(lambda: Lean(log), id=f"lean {n}") for n in range(3)]
    parts += [child(lambda: Tasked(log), id=f"tasked {n}") for n in range(3)]
    below = Supervisor(parts[3:], max_restarts=1_000)
    return Supervisor(
        [*parts[:3], child(lambda: below, id="below")], max_restarts=1_000
    )


async def storm(seed: int) -> list[tuple[float, str]]:
    async with open_test_node() as node:
        top = await node.start_supervised(shop([]))
        chaos = Chaos(top, seed=seed, every_s=0.5, spare={"lean 0"})
        await node.start_supervised(chaos)
        await trio.sleep(60)
        await node.stop_supervised("Chaos")
        await settle()
        counts = await count_children(top)
        assert (counts.active, counts.specs) == (4, 4)
        rows = await which_children(top)
        assert rows[3].pid is not None
        assert (await count_children(rows[3].pid)).active == 3
        return [(strike.at_s, strike.id) for strike in chaos.strikes]


def test_a_tree_survives_random_crashes_and_a_seed_repeats_them() -> None:
    strikes = run(storm, 7, seed=3)

    assert 80 < len(strikes) < 160
    assert {id_ for _, id_ in strikes} == {
        "lean 1",
        "lean 2",
        "tasked 0",
        "tasked 1",
        "tasked 2",
    }
    assert run(storm, 7, seed=3) == strikes
    assert run(storm, 8, seed=3) != strikes


def test_it_holds_under_many_schedules() -> None:
    assert explore(storm, 7, seeds=range(4)).runs == 4


async def test_chaos_may_make_errors_of_any_kind(
    node: TestNode, virtual_clock: MockClock
) -> None:
    errors: list[BaseException] = []

    def make() -> BaseException:
        errors.append(KeyError(len(errors)))
        return errors[-1]

    probe = Probe()
    spec = child(lambda: Lean([]), id="lean", name="lean", restart=Restart.TEMPORARY)
    top = await node.start_supervised(Supervisor([spec]))
    probe.monitor("lean")
    await node.start_supervised(Chaos(top, seed=1, error=make))
    await advance(30)

    down: Any = await probe.receive()
    assert [down.reason] == errors
