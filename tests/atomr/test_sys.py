"""System messages: looking into a live process, and steering it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

import attrs
import pytest
import trio
import trio.testing

from atomr.errors import CallTimeoutError, NoProcessError, SystemMessageError
from atomr.otp import (
    From,
    GenServer,
    NoReply,
    Ok,
    Reply,
    Restart,
    Supervisor,
    call,
    cast,
    child,
    sys,
    which_children,
)
from atomr.process import Node, send, spawn, stop

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]


class Counter(GenServer):
    """Without a task."""

    def __init__(self, total: int = 0) -> None:
        self.total = total

    def handle_call(self, request: int, from_: From) -> Reply:
        self.total += request
        return Reply(self.total)

    def handle_cast(self, message: int) -> None:
        self.total += message

    def handle_info(self, message: object) -> NoReply:
        if message == "crash":
            raise ValueError("asked to")
        return NoReply()


class AsyncCounter(Counter):
    """With a task; its calls may wait."""

    async def handle_call(  # type: ignore[override]
        self, request: int, from_: From
    ) -> Reply:
        return super().handle_call(request, from_)


class MixedCounter(Counter):
    """With a task; its calls do not wait."""

    async def handle_info(  # type: ignore[override]
        self, message: object
    ) -> NoReply:
        return super().handle_info(message)


Kind: TypeAlias = type[Counter]


@pytest.fixture(params=[Counter, AsyncCounter, MixedCounter])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Return each way to run a server."""
    found: Kind = request.param
    return found


async def test_get_state_returns_a_copy(clean_node: CleanNode, kind: Kind) -> None:
    async with clean_node() as node:
        pid = await node.start(child(kind))
        await call(pid, 2)
        state = await sys.get_state(pid)
        assert isinstance(state, Counter)
        assert state.total == 2
        state.total = 99
        assert await call(pid, 1) == 3


async def test_replace_state_takes_effect_and_returns_the_new_state(
    clean_node: CleanNode, kind: Kind
) -> None:
    def doubled(state: Counter) -> Counter:
        state.total *= 2
        return state

    async with clean_node() as node:
        pid = await node.start(child(kind))
        await call(pid, 2)
        new = await sys.replace_state(pid, doubled)
        assert new.total == 4
        assert await call(pid, 1) == 5
        cast(pid, 1)
        assert await call(pid, 1) == 7


async def test_a_failing_replacement_leaves_the_state_as_it_was(
    clean_node: CleanNode, kind: Kind
) -> None:
    def broken(state: Counter) -> Counter:
        state.total = 99
        raise RuntimeError("no")

    async with clean_node() as node:
        pid = await node.start(child(kind))
        await call(pid, 2)
        with pytest.raises(SystemMessageError, match="no") as caught:
            await sys.replace_state(pid, broken)
        assert isinstance(caught.value.__cause__, RuntimeError)
        with pytest.raises(
            SystemMessageError, match=r"expected a .*Counter, not a int"
        ):
            await sys.replace_state(pid, lambda _state: 3)
        assert await call(pid, 1) == 3


async def test_a_suspended_server_keeps_what_comes_and_answers_system_messages(
    clean_node: CleanNode, kind: Kind, schedule: int
) -> None:
    async with clean_node() as node:
        pid = await node.start(child(kind))
        await sys.suspend(pid)
        await sys.suspend(pid)
        cast(pid, 1)
        cast(pid, 2)
        async with trio.open_nursery() as nursery:
            got: list[object] = []

            async def ask() -> None:
                got.append(await call(pid, 4))

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            assert got == []
            status = await sys.get_status(pid)
            assert status.suspended
            assert status.queue_size == 3
            state = await sys.get_state(pid)
            assert isinstance(state, Counter)
            assert state.total == 0
            await sys.resume(pid)
        assert got == [7]
        assert not (await sys.get_status(pid)).suspended


async def test_a_suspended_server_can_be_stopped(
    clean_node: CleanNode, kind: Kind
) -> None:
    async with clean_node() as node:
        pid = await node.start(child(kind, restart=Restart.TEMPORARY))
        await sys.suspend(pid)
        cast(pid, 1)
        await stop(pid)
        assert not node.processes.get(pid.number)


async def test_a_call_to_a_suspended_server_times_out(
    clean_node: CleanNode, kind: Kind, autojump_clock: trio.testing.MockClock
) -> None:
    async with clean_node() as node:
        pid = await node.start(child(kind))
        await sys.suspend(pid)
        with pytest.raises(CallTimeoutError):
            await call(pid, 1, timeout_s=3.0)
        assert trio.current_time() >= 3.0
        await sys.resume(pid)
        assert await call(pid, 1) == 2


async def test_a_trace_tells_of_each_message_and_what_came_of_it(
    clean_node: CleanNode, kind: Kind
) -> None:
    events: list[tuple[str, str]] = []
    async with clean_node() as node:
        pid = await node.start(child(kind))
        await sys.trace(
            pid, lambda e: events.append((e.kind, type(e.message).__name__))
        )
        cast(pid, 1)
        assert await call(pid, 1) == 2
        send(pid, "hello")
        assert await call(pid, 1) == 3
        await sys.trace(pid, None)
        await call(pid, 1)
    expected = [("in", "Cast"), ("out", "Cast"), ("in", "From"), ("out", "From")]
    expected += [("in", "str"), ("out", "str"), ("in", "From"), ("out", "From")]
    assert events == expected


async def test_a_tracer_that_fails_is_removed_and_breaks_nothing(
    clean_node: CleanNode, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    async with clean_node() as node:
        pid = await node.start(child(kind))
        await sys.trace(pid, lambda _event: 1 / 0, tracer_id="bad")  # type: ignore[arg-type]
        assert await call(pid, 1) == 1
        assert await call(pid, 1) == 2
    assert [r.message for r in caplog.records if "'bad'" in r.message] == [
        f"tracer 'bad' of {pid!r} failed: removed"
    ]


async def test_statistics_count_from_when_they_were_switched_on(
    clean_node: CleanNode, kind: Kind, autojump_clock: trio.testing.MockClock
) -> None:
    async with clean_node() as node:
        pid = await node.start(child(kind))
        assert await sys.statistics(pid) is None
        await call(pid, 1)
        await sys.count(pid)
        cast(pid, 1)
        await call(pid, 1)
        await trio.sleep(2.0)
        found = await sys.statistics(pid)
        assert found is not None
        assert (found.messages_in, found.messages_out) == (2, 2)
        assert found.running_s == pytest.approx(2.0)
        await sys.count(pid, enabled=False)
        assert await sys.statistics(pid) is None


async def test_a_log_keeps_the_last_events_and_the_crash_report_shows_them(
    clean_node: CleanNode, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    async with clean_node() as node:
        top = await node.start(Supervisor([child(kind, name="counter")]))
        await sys.log("counter", 3)
        cast("counter", 41)
        cast("counter", 42)
        await call("counter", 1)
        events = await sys.get_log("counter")
        assert [event.kind for event in events] == ["out", "in", "out"]
        send("counter", "crash")
        await trio.testing.wait_all_tasks_blocked()
        assert (await which_children(top))[0].pid is not None
    report = next(r for r in caplog.records if "crashed" in r.message).getMessage()
    assert "last message: 'crash'" in report
    assert "before: in 'crash'" in report
    assert f"ancestors: {top!r}" in report
    assert "names: counter" in report


async def test_status_tells_who_a_process_is_and_whom_it_knows(
    clean_node: CleanNode, kind: Kind
) -> None:
    async with clean_node() as node:
        top = await node.start(Supervisor([child(kind, name="counter")]))
        status = await sys.get_status("counter")
        assert status.behaviour == kind.__name__
        assert status.names == ("counter",)
        assert status.ancestors == (top,)
        assert status.state == {"total": 0}
        assert (status.links, status.monitors, status.monitored_by) == ((), (), ())
        above = await sys.get_status(top)
        assert above.behaviour == "Supervisor"
        children = await sys.get_state(top)
        assert children == await which_children(top)
        with pytest.raises(SystemMessageError, match="cannot be replaced"):
            await sys.replace_state(top, lambda state: state)


async def test_a_suspended_supervisor_restarts_when_it_is_resumed(
    clean_node: CleanNode, caplog: pytest.LogCaptureFixture
) -> None:
    async with clean_node() as node:
        top = await node.start(Supervisor([child(Counter, name="counter")]))
        await sys.suspend(top)
        send("counter", "crash")
        await trio.testing.wait_all_tasks_blocked()
        assert node.whereis("counter") is None
        await sys.resume(top)
        await trio.testing.wait_all_tasks_blocked()
        assert await call("counter", 1) == 1
    assert "restarts 'Counter'" in caplog.text


async def test_system_messages_are_served_between_two_messages_of_a_busy_server(
    clean_node: CleanNode,
) -> None:
    gate = trio.Event()

    class Busy(GenServer):
        def __init__(self) -> None:
            self.done = 0

        async def handle_cast(self, message: int) -> None:
            await gate.wait()
            self.done = message

    async with clean_node() as node:
        pid = await node.start(child(Busy))
        for number in (1, 2, 3):
            cast(pid, number)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            got: list[object] = []

            async def look() -> None:
                got.append(await sys.get_state(pid))

            nursery.start_soon(look)
            await trio.testing.wait_all_tasks_blocked()
            assert got == []
            gate.set()
        state = got[0]
        assert isinstance(state, Busy)
        assert state.done == 1


async def test_what_answers_no_system_messages_says_so(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        pid = spawn(trio.sleep_forever)
        with pytest.raises(SystemMessageError, match="sleep_forever answers no system"):
            await sys.get_state(pid)
        with pytest.raises(NoProcessError):
            await sys.get_state("nobody")
        gone = await node.start(child(Counter, restart=Restart.TEMPORARY))
        await stop(gone)
        with pytest.raises(NoProcessError):
            await sys.suspend(gone)


async def test_looking_leaves_nothing_behind(clean_node: CleanNode, kind: Kind) -> None:
    async with clean_node() as node:
        pid = await node.start(child(kind))
        process = node.processes[pid.number]
        await sys.trace(pid, print)
        await sys.log(pid, 5)
        await sys.count(pid)
        await sys.suspend(pid)
        assert process.debug is not None
        await sys.trace(pid, None)
        await sys.log(pid, 0)
        await sys.count(pid, enabled=False)
        await sys.resume(pid)
        assert process.debug is None


async def test_a_continuation_and_an_init_are_served_before_a_suspension_shows(
    clean_node: CleanNode,
) -> None:
    class Later(Counter):
        def init(self) -> Ok:
            return Ok(continue_=5)

        def handle_continue(self, continuation: int) -> NoReply:
            self.total = continuation
            return NoReply()

    async with clean_node() as node:
        pid = await node.start(child(Later))
        await sys.suspend(pid)
        await sys.resume(pid)
        assert await call(pid, 0) == 5


async def test_the_state_of_a_server_with_slots_is_shown_too(
    clean_node: CleanNode,
) -> None:
    @attrs.define
    class Slotted(GenServer):
        total: int
        note: str = "none"

        def handle_call(self, request: int, from_: From) -> Reply:
            self.total += request
            return Reply(self.total)

    class Wider(Slotted):
        def init(self) -> None:
            self.more = 1

    async with clean_node() as node:
        pid = await node.start(Slotted(2))
        assert await call(pid, 3) == 5
        assert (await sys.get_status(pid)).state == {"total": 5, "note": "none"}
        wider = await node.start(Wider(0))
        state = (await sys.get_status(wider)).state
        assert state == {"total": 0, "note": "none", "more": 1}
