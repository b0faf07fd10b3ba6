"""The test node: supervision, crashes, and what is left."""

from __future__ import annotations

import re
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from atomr.core.child_spec import DEFAULT_SHUTDOWN_S
from atomr.core.exits import KILLED
from atomr.errors import (
    AlreadyStartedError,
    ChildNotFoundError,
    NoNodeError,
    ServerDownError,
    StartError,
    TaskExitError,
)
from atomr.otp import (
    DynamicSupervisor,
    GenServer,
    NoReply,
    Reply,
    Restart,
    Supervisor,
    Task,
    call,
    cast,
    child,
    which_children,
)
from atomr.process import (
    attached,
    current_node,
    exit_process,
    is_alive,
    kill,
    link,
    receive,
    self_pid,
    send,
    send_after,
    send_interval,
    spawn,
    wait_exit,
    whereis,
)
from atomr.testing import (
    LeftoverError,
    NoCrashError,
    TestNode,
    UnexpectedCrashError,
    advance,
    open_test_node,
    run,
    settle,
)
from atomr.testing.leftovers import leftovers

if TYPE_CHECKING:
    from trio.testing import MockClock

    from atomr.core.exits import ExitReason


class Divider(GenServer):
    """Divides twelve."""

    def __init__(self) -> None:
        self.served = 0

    def handle_call(self, request: int, from_: Any) -> Reply:
        self.served += 1
        return Reply(12 // request)

    def handle_cast(self, message: int) -> NoReply:
        self.served += 12 // message
        return NoReply()


class Logged(GenServer):
    """Writes its end into a log."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    def terminate(self, reason: ExitReason) -> None:
        self.log.append(f"{self.name} {reason!r}")


class Unwilling(GenServer):
    def init(self) -> None:
        raise ValueError("no")


# --- start_supervised ------------------------------------------------------------


async def test_a_class_a_spec_a_function_and_an_instance_can_be_started(
    node: TestNode,
) -> None:
    def make() -> Divider:
        return Divider()

    ids = [
        await node.start_supervised(Divider),
        await node.start_supervised(child(Divider, id="spec", name="divider")),
        await node.start_supervised(make),
        await node.start_supervised(Logged("x", [])),
    ]

    assert [pid.label for pid in ids] == ["Divider", "spec", "make", "Logged"]
    assert [await call(pid, 4) for pid in ids[:3]] == [3, 3, 3]
    assert whereis("divider") is ids[1]


async def test_processes_are_stopped_in_reverse_when_the_block_is_left() -> None:
    log: list[str] = []
    async with open_test_node() as node:
        for name in "abc":
            await node.start_supervised(child(partial(Logged, name, log), id=name))
        assert log == []

    assert log == ["c SHUTDOWN", "b SHUTDOWN", "a SHUTDOWN"]


async def test_a_process_is_stopped_by_id_or_pid_and_can_be_started_again(
    node: TestNode,
) -> None:
    log: list[str] = []
    spec = child(lambda: Logged("a", log), id="a")
    first = await node.start_supervised(spec)
    await node.stop_supervised("a")
    second = await node.start_supervised(spec, restart=Restart.PERMANENT)
    await node.stop_supervised(second)
    third = await node.start_supervised(spec)

    assert log == ["a SHUTDOWN", "a SHUTDOWN"]
    assert [is_alive(pid) for pid in (first, second, third)] == [False, False, True]


async def test_what_is_not_there_cannot_be_stopped(node: TestNode) -> None:
    with pytest.raises(ChildNotFoundError):
        await node.stop_supervised("a")
    await node.start_supervised(Divider)
    with pytest.raises(ChildNotFoundError, match=r"stop_supervised\('a'\)"):
        await node.stop_supervised("a")


async def test_an_id_is_taken_while_its_process_lives(node: TestNode) -> None:
    pid = await node.start_supervised(Divider)

    with pytest.raises(AlreadyStartedError) as caught:
        await node.start_supervised(Divider)

    assert caught.value.pid is pid


async def test_a_failed_start_is_raised_and_is_no_crash(node: TestNode) -> None:
    with pytest.raises(StartError) as caught:
        await node.start_supervised(Unwilling)

    assert str(caught.value.reason) == "no"
    assert node.node.size == 1  # the test supervisor


async def test_what_cannot_be_started_is_refused(node: TestNode) -> None:
    with pytest.raises(TypeError, match="nothing that can be started"):
        await node.start_supervised(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="an instance cannot be started twice"):
        await node.start_supervised(Divider(), restart=Restart.PERMANENT)


async def test_a_crashed_process_stays_dead_unless_asked_otherwise(
    node: TestNode,
) -> None:
    spec = child(Divider, name="divider", restart=Restart.PERMANENT)
    pid = await node.start_supervised(spec)
    async with node.expect_crash(pid):
        cast(pid, 0)
    await settle()
    assert whereis("divider") is None

    pid = await node.start_supervised(spec, restart=Restart.PERMANENT)
    for _ in range(10):
        async with node.expect_crash("divider"):
            cast("divider", 0)
        await settle()

    assert whereis("divider") not in (None, pid)


async def test_a_significant_child_can_be_tested_alone(node: TestNode) -> None:
    spec = child(Divider, restart=Restart.TRANSIENT, significant=True)

    assert is_alive(await node.start_supervised(spec))


async def test_the_test_can_be_a_process(node: TestNode) -> None:
    async with node.as_process("me") as me:
        assert self_pid() is me
        send(me, "hello")
        assert await receive() == "hello"
    async with node.as_process() as other:
        assert other.label == "test"

    assert not is_alive(me)


def test_the_node_works_without_pytest() -> None:
    async def main() -> object:
        async with open_test_node("mine") as node:
            assert repr(node) == "<TestNode mine with 0 processes>"
            return await call(await node.start_supervised(Divider), 4)

    assert trio.run(main) == 3
    assert run(main) == 3


# --- crashes ------------------------------------------------------------------------


async def test_an_unexpected_crash_fails_the_test_with_its_traceback() -> None:
    with pytest.raises(UnexpectedCrashError) as caught:
        async with open_test_node() as node:
            pid = await node.start_supervised(Divider)
            cast(pid, 0)
            await trio.sleep_forever()  # it ends the test at once

    error = caught.value
    assert error.pid is pid
    assert isinstance(error.reason, ZeroDivisionError)
    assert re.fullmatch(
        r"<Pid \d Divider> crashed: ZeroDivisionError\(.*\)", str(error)
    )
    text = "".join(traceback.format_exception(error))
    assert "self.served += 12 // message" in text
    assert "direct cause" in text


async def test_all_unexpected_crashes_are_named() -> None:
    with pytest.raises(UnexpectedCrashError) as caught:
        async with open_test_node() as node:
            for name in "ab":
                cast(await node.start_supervised(child(Divider, id=name)), 0)
            await trio.sleep_forever()

    [note] = caught.value.__notes__
    assert re.fullmatch(r"then <Pid \d b>: ZeroDivisionError.* crashed", note)


async def test_a_crash_is_the_cause_of_what_the_test_fails_with() -> None:
    with pytest.raises(ServerDownError) as caught:
        async with open_test_node() as node:
            await call(await node.start_supervised(Divider), 0)

    assert caught.value.__cause__ is caught.value.reason


async def test_a_crash_while_the_node_stops_fails_the_test() -> None:
    class Clumsy(GenServer):
        def terminate(self, reason: ExitReason) -> None:
            raise ValueError("dropped it")

    with pytest.raises(UnexpectedCrashError, match="dropped it"):
        async with open_test_node() as node:
            await node.start_supervised(Clumsy)


async def test_a_crash_of_a_spawned_process_and_of_a_grandchild_count() -> None:
    async def bad() -> None:
        raise ValueError("bad luck")

    for how in ("spawned", "grandchild"):
        with pytest.raises(UnexpectedCrashError, match=r"bad luck|ZeroDivision"):
            async with open_test_node() as node:
                if how == "spawned":
                    spawn(bad)
                else:
                    tree = Supervisor([child(Divider, name="deep")])
                    await node.start_supervised(tree)
                    cast("deep", 0)
                await trio.sleep_forever()


async def test_a_stop_a_kill_and_a_linked_death_are_no_crashes(node: TestNode) -> None:
    async def linked(pid: Any) -> None:
        link(pid)
        await trio.sleep_forever()

    pid = await node.start_supervised(Divider)
    peer = spawn(linked, pid)
    await settle()
    exit_process(pid, ValueError("told to"))

    assert isinstance(await wait_exit(peer), ValueError)


async def test_crashes_may_be_allowed() -> None:
    async with open_test_node(allow_crashes=True) as node:
        pid = await node.start_supervised(Divider)
        cast(pid, 0)
        assert isinstance(await wait_exit(pid), ZeroDivisionError)


async def test_an_expected_crash_is_returned(node: TestNode) -> None:
    pid = await node.start_supervised(Divider)

    async with node.expect_crash(pid, ZeroDivisionError) as crash:
        cast(pid, 0)

    assert "by zero" in str(crash.reason)
    assert crash.pid is pid


async def test_the_call_that_hears_of_an_expected_crash_ends_the_block(
    node: TestNode,
) -> None:
    await node.start_supervised(child(Divider, name="divider"))
    async with node.expect_crash("divider") as crash:
        await call("divider", 0)

    assert isinstance(crash.reason, ZeroDivisionError)


async def test_another_error_leaves_the_block(node: TestNode) -> None:
    pid = await node.start_supervised(Divider)
    with pytest.raises(KeyError):
        async with node.expect_crash(pid):
            raise KeyError


async def test_a_crash_that_does_not_come_fails_the_test(
    node: TestNode, autojump_clock: MockClock
) -> None:
    pid = await node.start_supervised(Divider)
    with pytest.raises(NoCrashError) as caught:
        async with node.expect_crash(pid, timeout_s=3):
            await call(pid, 4)
    with pytest.raises(NoCrashError):
        _ = (node.expect_crash(pid)).reason

    assert trio.current_time() == 3
    who = re.escape(repr(pid))
    text = f"expected {who} to crash with Exception: nothing crashed"
    assert re.fullmatch(text, str(caught.value))


async def test_the_wrong_crash_is_shown_and_fails_the_test() -> None:
    with pytest.raises(NoCrashError, match=r"KeyError: <Pid \d Divider>: ZeroDiv"):
        async with open_test_node() as node:
            pid = await node.start_supervised(Divider)
            with trio.CancelScope(shield=True):
                async with node.expect_crash(pid, KeyError, timeout_s=0.01):
                    cast(pid, 0)


async def test_a_task_that_crashes_ends_the_block_as_a_server_does(
    node: TestNode,
) -> None:
    async def divide(by: int) -> int:
        return 12 // by

    async with node.expect_crash("divide", ZeroDivisionError) as crash:
        await Task.async_(divide, 0).result()
        pytest.fail("not reached")

    assert crash.pid.label == "divide"
    for other in (Task.async_(divide, 3), Task.async_(trio.sleep_forever)):
        with pytest.raises((TaskExitError, NoCrashError)):
            async with node.expect_crash("divide"):
                other.begin_shutdown()
                await other.result()


async def test_a_call_that_failed_for_another_reason_leaves_the_block(
    node: TestNode,
) -> None:
    pid = await node.start_supervised(Divider)
    other = spawn(trio.sleep_forever)

    async def kill_other() -> None:
        await settle()
        kill(other)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill_other)
        with pytest.raises(ServerDownError) as caught:
            async with node.expect_crash(pid) as crash:
                cast(pid, 0)
                await call(other, "hello?")

    assert caught.value.reason is KILLED
    assert isinstance(crash.reason, ZeroDivisionError)


async def test_an_error_keeps_a_cause_of_its_own() -> None:
    cause = KeyError()
    with pytest.raises(ValueError, match="mine") as caught:
        async with open_test_node() as node:
            pid = await node.start_supervised(Divider)
            cast(pid, 0)
            with trio.CancelScope(shield=True):
                await wait_exit(pid)
            raise ValueError("mine") from cause

    assert caught.value.__cause__ is cause


async def test_one_block_expects_one_crash() -> None:
    with pytest.raises(UnexpectedCrashError) as caught:
        async with open_test_node() as node:
            pids = [
                await node.start_supervised(child(Divider, id=name)) for name in "ab"
            ]
            async with node.expect_crash() as crash:
                for pid in pids:
                    cast(pid, 0)
                await trio.sleep_forever()

    assert {crash.pid, caught.value.pid} == {*pids}


async def test_a_crash_of_another_is_not_expected_beside_the_one_that_is() -> None:
    with pytest.raises(UnexpectedCrashError) as caught:
        async with open_test_node() as node:
            one = await node.start_supervised(child(Divider, id="one"))
            other = await node.start_supervised(child(Divider, id="other"))
            async with node.expect_crash(one):
                cast(other, 0)
                cast(one, 0)
                with trio.CancelScope(shield=True):
                    await settle()

    assert caught.value.pid is other


async def test_a_crash_after_the_block_that_missed_it_is_not_expected() -> None:
    with pytest.raises(UnexpectedCrashError):
        async with open_test_node() as node:
            pid = await node.start_supervised(Divider)
            with pytest.raises(NoCrashError):
                async with node.expect_crash(pid, timeout_s=0.0):
                    pass
            cast(pid, 0)
            await settle()


async def test_a_block_ends_when_its_crash_comes(
    node: TestNode, autojump_clock: MockClock
) -> None:
    async def crash_later() -> None:
        await trio.sleep(2)
        raise KeyError

    async with node.expect_crash(error=KeyError, timeout_s=9.0):
        spawn(crash_later)

    assert trio.current_time() == 2.0


async def test_a_second_crash_is_not_expected() -> None:
    with pytest.raises(UnexpectedCrashError):
        async with open_test_node() as node:
            await node.start_supervised(Divider, restart=Restart.PERMANENT)
            pid = await node.start_supervised(child(Divider, id="b"))
            async with node.expect_crash():
                cast(pid, 0)
            [row, *_] = await which_children(node.node.roots()[0])
            assert row.pid is not None
            cast(row.pid, 0)
            await trio.sleep_forever()


async def test_without_a_running_clock_a_crash_is_waited_for_until_all_is_settled(
    node: TestNode, virtual_clock: MockClock
) -> None:
    pid = await node.start_supervised(Divider)
    async with node.expect_crash(pid):
        cast(pid, 0)
    with pytest.raises(NoCrashError):
        async with node.expect_crash(pid):
            pass


# --- what is left ---------------------------------------------------------------------


async def test_a_task_that_outlives_the_node_is_named_with_its_place() -> None:
    async def lingering() -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        with pytest.raises(LeftoverError) as caught:
            async with open_test_node("short"):
                nursery.start_soon(lingering, name="lingering")
                await settle()
        nursery.cancel_scope.cancel()

    [line] = caught.value.leftovers
    place = rf"{re.escape(__file__)}:\d+ in .*lingering"
    assert re.fullmatch(rf"task 'lingering', waiting at {place}", line)
    assert str(caught.value) == f"left of node 'short' after its block:\n  {line}"


async def test_a_task_that_is_on_its_way_out_is_waited_for() -> None:
    async def leaving(scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep_forever()
        for _ in range(20):
            await trio.lowlevel.checkpoint()

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery, open_test_node():
        nursery.start_soon(leaving, scope)
        await settle()
        scope.cancel()


async def test_a_timer_for_a_name_is_named_with_its_place(
    autojump_clock: MockClock,
) -> None:
    with pytest.raises(LeftoverError) as caught:
        async with open_test_node():
            send_after(0.0, "nobody", "fires")
            send_after(7.0, "nobody", "cancelled").cancel()
            send_after(10.0, "nobody", "hello")
            await trio.sleep(1)

    place = rf"{re.escape(__file__)}:\d+ in .*its_place"
    [line] = caught.value.leftovers
    assert re.fullmatch(rf"timer due in 9 s, armed at {place}", line)


async def test_an_interval_for_a_name_is_named_with_the_place_that_began_it(
    autojump_clock: MockClock,
) -> None:
    with pytest.raises(LeftoverError) as caught:
        async with open_test_node():
            send_interval(2.0, "nobody", "tick")
            await trio.sleep(5)

    place = rf"{re.escape(__file__)}:\d+ in .*began_it"
    [line] = caught.value.leftovers
    assert re.fullmatch(rf"timer due in 1 s, armed at {place}", line)


async def test_ten_thousand_timers_are_not_remembered(
    autojump_clock: MockClock,
) -> None:
    async with open_test_node() as node:
        for _ in range(10_000):
            send_after(1.0, "nobody", "x").cancel()
        assert len(node.node.timers.origins) < 100  # type: ignore[attr-defined]
        send_after(1.0, "nobody", "x")
        await trio.sleep(2)


async def test_a_process_and_a_name_that_are_left_are_named(node: TestNode) -> None:
    tree = Supervisor([child(Divider, name="divider")])
    top = await node.start_supervised(tree)
    [root] = node.node.roots()
    pid = whereis("divider")

    # No public way leaves one behind, so look while they live.
    lines = [line for line in leftovers(node.node) if not line.startswith("task")]

    assert lines == [
        f"supervisor {root!r}, a Supervisor at the top of the node",
        f"supervisor {top!r}, a Supervisor under {root!r}",
        f"process {pid!r}, a Divider under {top!r}",
        f"name 'divider' of {pid!r}",
    ]


async def test_a_call_that_still_waits_is_counted(node: TestNode) -> None:
    async def silent() -> None:
        await trio.sleep_forever()

    pid = spawn(silent)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, pid, "hello?")
        await settle()
        lines = leftovers(node.node)
        nursery.cancel_scope.cancel()

    assert "1 calls or timers that still wait" in lines


async def test_what_the_test_fails_with_hides_no_error_behind_leftovers() -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(KeyError):
            async with open_test_node():
                nursery.start_soon(trio.sleep_forever)
                raise KeyError
        nursery.cancel_scope.cancel()


async def test_a_cancellation_from_outside_goes_through_and_leaves_nothing(
    schedule: int,
) -> None:
    log: list[str] = []
    with trio.CancelScope() as scope:
        async with open_test_node() as node:
            await node.start_supervised(child(lambda: Logged("a", log), id="a"))
            scope.cancel()
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert log == ["a SHUTDOWN"]
    assert node.node.processes == {}
    with pytest.raises(NoNodeError):
        current_node()


@pytest.mark.parametrize("in_a_nursery", [False, True])
async def test_a_cancellation_from_outside_hides_no_crash(
    schedule: int, *, in_a_nursery: bool
) -> None:
    async def test() -> None:
        async with open_test_node() as node, trio.open_nursery() as nursery:
            if in_a_nursery:
                nursery.start_soon(trio.sleep_forever)
            cast(await node.start_supervised(Divider), 0)
            with trio.CancelScope(shield=True):
                await settle()
            scope.cancel()
            await trio.sleep_forever()

    with trio.CancelScope() as scope:
        with pytest.raises(UnexpectedCrashError) as caught:
            await test()
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_time_jumps_while_the_node_stops(virtual_clock: MockClock) -> None:
    class Slow(GenServer):
        async def terminate(self, reason: ExitReason) -> None:
            await trio.sleep_forever()

    async with open_test_node() as node:
        await node.start_supervised(Slow)
        await advance(1.0)

    assert trio.current_time() == 1.0 + DEFAULT_SHUTDOWN_S
    assert virtual_clock.autojump_threshold == float("inf")


async def test_time_jumps_too_when_the_test_failed(virtual_clock: MockClock) -> None:
    class Slow(GenServer):
        async def terminate(self, reason: ExitReason) -> None:
            await trio.sleep_forever()

    with pytest.raises(KeyError):
        async with open_test_node() as node:
            await node.start_supervised(Slow)
            raise KeyError


async def test_two_nodes_each_count_their_own_crashes() -> None:
    with pytest.raises(UnexpectedCrashError):
        async with open_test_node("a"):
            async with open_test_node("b", allow_crashes=True) as b:
                pid = await b.start_supervised(Divider)
                cast(pid, 0)
                await wait_exit(pid)

                async def bad() -> None:
                    raise ValueError

            spawn(bad)
            await trio.sleep_forever()


async def test_an_attached_block_that_raises_is_its_callers_business(
    node: TestNode,
) -> None:
    point = await node.start_supervised(DynamicSupervisor)
    with pytest.raises(KeyError):
        async with attached(point, id="x"):
            raise KeyError
