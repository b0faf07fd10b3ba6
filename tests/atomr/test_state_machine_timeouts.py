"""Time-outs of a StateMachine: what starts, changes and cancels each kind.

Source: OTP ``gen_statem``, ``state_timeout()``, ``event_timeout()``,
``generic_timeout()`` and the user's guide, "Time-Outs".
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import trio
import trio.testing

from atomr.otp import (
    Call,
    Cast,
    Enter,
    EventTimeout,
    Fail,
    Info,
    Insert,
    Internal,
    Keep,
    Next,
    Postpone,
    Repeat,
    Reply,
    Restart,
    StateMachine,
    StateTimeout,
    Timeout,
    call,
    cast,
    child,
    sys,
)
from atomr.process import Node, send, stop

if TYPE_CHECKING:
    from atomr.refs import Pid

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]
Log: TypeAlias = list[tuple[float, str, object]]
Clock: TypeAlias = trio.testing.MockClock
settle = trio.testing.wait_all_tasks_blocked


class Clocked(StateMachine):
    """Logs when each event came in which state; a message says what to return.

    A message is ``(state or None, *actions)``.
    """

    def __init__(self, log: Log) -> None:
        self.log = log
        self.begun = trio.current_time()
        self.entering: dict[str, tuple[Any, ...]] = {}

    def init(self) -> Any:
        return Next(self.a)

    def a(self, event: Any) -> Any:
        return self.handled("a", event)

    def b(self, event: Any) -> Any:
        return self.handled("b", event)

    def handled(self, state: str, event: Any) -> Any:
        match event:
            case Enter():
                return Keep(*self.entering.get(state, ()))
            case Call((to, *actions)):
                return self.to(to, (*actions, Reply(None)))
            case Cast((to, *actions)) | Internal((to, *actions)) | Info((to, *actions)):
                self.note(state, type(event).__name__)
                return self.to(to, actions)
        self.note(state, event)
        return None

    def note(self, state: str, what: object) -> None:
        self.log.append((round(trio.current_time() - self.begun, 3), state, what))

    def to(self, state: Any, actions: Any) -> Any:
        return Keep(*actions) if state is None else Next(getattr(self, state), *actions)


class AsyncClocked(Clocked):
    """The same, with a task and states that wait."""

    async def a(self, event: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return super().a(event)

    async def b(self, event: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return super().b(event)


Kind: TypeAlias = type[Clocked]


@pytest.fixture(params=[Clocked, AsyncClocked])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Return a machine without and with a task."""
    found: Kind = request.param
    return found


async def start(node: Node, make: Callable[[], object]) -> Pid:
    """Start a root whose end is not the node's."""
    return await node.start(child(make, id="it", restart=Restart.TEMPORARY))


async def test_each_kind_comes_after_its_time_with_its_content(
    clean_node: CleanNode, autojump_clock: Clock, kind: Kind
) -> None:
    """[gen_statem: timeout_event_type()] Three kinds of time-outs, each an event of its
    own kind with the content that it was started with.
    """
    log: Log = []
    async with clean_node() as node:
        pid = await start(node, lambda: kind(log))
        timers = (
            StateTimeout.after(3.0, "s"),
            Timeout.after("x", 2.0, "t"),
            EventTimeout.after(1.0, "e"),
        )
        await call(pid, (None, *timers))
        await trio.sleep(10.0)

    assert log == [
        (1.0, "a", EventTimeout("e")),
        (2.0, "a", Timeout("x", "t")),
        (3.0, "a", StateTimeout("s")),
    ]


async def test_a_change_of_state_cancels_the_state_time_out_alone(
    clean_node: CleanNode, autojump_clock: Clock, kind: Kind
) -> None:
    """[gen_statem: state_timeout()] A change of state cancels it.
    [gen_statem: generic_timeout()] A time-out with a name runs on, whatever the state.
    """
    log: Log = []
    async with clean_node() as node:
        pid = await start(node, lambda: kind(log))
        await call(pid, (None, StateTimeout.after(3.0), Timeout.after("x", 3.0)))
        await call(pid, (None,))
        await call(pid, ("a",))
        await trio.sleep(1.0)
        await call(pid, ("b",))
        await trio.sleep(10.0)

    assert log == [(3.0, "b", Timeout("x"))]


async def test_neither_the_same_state_nor_repeat_cancels_the_state_time_out(
    clean_node: CleanNode,
    autojump_clock: Clock,
) -> None:
    """[gen_statem: state_timeout()] While the state stays it runs until it is over; to
    repeat the state is to stay.
    """
    log: Log = []

    class Repeating(Clocked, enter=True):
        def handled(self, state: str, event: Any) -> Any:
            return (
                Repeat() if event == Cast(("again",)) else super().handled(state, event)
            )

    async with clean_node() as node:
        pid = await start(node, lambda: Repeating(log))
        await call(pid, ("a", StateTimeout.after(3.0)))
        await call(pid, ("a",))
        cast(pid, "again")
        await trio.sleep(10.0)

    assert log == [(3.0, "a", StateTimeout())]


async def test_a_state_time_out_set_with_a_change_belongs_to_the_new_state(
    clean_node: CleanNode, autojump_clock: Clock, kind: Kind
) -> None:
    """[gen_statem: state_timeout()] Started together with a change of state, it is the
    new state's.
    """
    log: Log = []
    async with clean_node() as node:
        pid = await start(node, lambda: kind(log))
        await call(pid, (None, StateTimeout.after(2.0, "old")))
        await call(pid, ("b", StateTimeout.after(5.0, "new")))
        await trio.sleep(10.0)

    assert log == [(5.0, "b", StateTimeout("new"))]


@pytest.mark.parametrize(
    "disturb",
    [
        lambda pid: cast(pid, (None,)),
        lambda pid: send(pid, (None,)),
    ],
)
async def test_any_message_cancels_the_event_time_out(
    clean_node: CleanNode,
    autojump_clock: Clock,
    kind: Kind,
    disturb: Callable[[Pid], None],
) -> None:
    """[gen_statem: event_timeout()] Any event that arrives cancels it."""
    log: Log = []
    async with clean_node() as node:
        pid = await start(node, lambda: kind(log))
        await call(pid, (None, EventTimeout.after(3.0)))
        await trio.sleep(1.0)
        disturb(pid)
        await trio.sleep(10.0)

    assert [(when, state) for when, state, _ in log] == [(1.0, "a")]


async def test_another_time_out_a_call_and_an_inserted_event_cancel_it_too(
    clean_node: CleanNode, autojump_clock: Clock, kind: Kind
) -> None:
    """[gen_statem: event_timeout()] So does another time-out, and an inserted event."""
    log: Log = []
    idle = EventTimeout.after(3.0)
    async with clean_node() as node:
        pid = await start(node, lambda: kind(log))
        await call(pid, (None, idle, Timeout.after("x", 1.0)))
        await trio.sleep(10.0)
        await call(pid, (None, idle))
        await call(pid, (None,))
        await trio.sleep(10.0)
        await call(pid, (None, idle, Insert(Internal((None,)))))
        await trio.sleep(10.0)

    assert log == [(1.0, "a", Timeout("x")), (20.0, "a", "Internal")]


async def test_a_retried_event_cancels_an_event_time_out_of_the_change(
    clean_node: CleanNode, autojump_clock: Clock, kind: Kind, schedule: int
) -> None:
    """[gen_statem: event_timeout()] A postponed event that comes again counts as one
    that arrived.
    """
    log: Log = []
    async with clean_node() as node:
        pid = await start(node, lambda: kind(log))
        cast(pid, (None, Postpone()))
        cast(pid, ("b", EventTimeout.after(0, "never"), StateTimeout.after(0, "s")))
        await trio.sleep(1.0)

    # The postponed event is put aside again: b says the same.
    assert log == [
        (0.0, "a", "Cast"),
        (0.0, "a", "Cast"),
        (0.0, "b", "Cast"),
        (0.0, "b", StateTimeout("s")),
    ]


async def test_a_time_out_of_zero_comes_after_what_waits_inside_and_before_messages(
    clean_node: CleanNode, autojump_clock: Clock, kind: Kind, schedule: int
) -> None:
    """[gen_statem: transition_option()] A time-out of 0 is no timer: it comes after the
    events that wait inside, and before any that has not been received.
    """
    log: Log = []
    actions = (
        Timeout.after("x", 0),
        StateTimeout.after(0),
        Insert(Internal((None, Timeout.after("y", 0)))),
    )
    async with clean_node() as node:
        pid = await start(node, lambda: kind(log))
        cast(pid, (None, *actions))
        send(pid, (None,))
        await settle()

    assert [what for _, _, what in log] == [
        "Cast",
        "Internal",
        Timeout("x"),
        StateTimeout(),
        Timeout("y"),
        "Info",
    ]


async def test_a_change_of_state_cancels_a_state_time_out_of_zero_that_waits(
    clean_node: CleanNode, autojump_clock: Clock, kind: Kind
) -> None:
    """[gen_statem: state_timeout()] A change of state cancels one of 0 too, as long as
    it has not come.
    """
    log: Log = []
    async with clean_node() as node:
        pid = await start(node, lambda: kind(log))
        cast(pid, (None, StateTimeout.after(0), Insert(Internal(("b",)))))
        await settle()

    assert [what for _, _, what in log] == ["Cast", "Internal"]


async def test_a_time_out_set_again_begins_anew_and_the_last_of_a_kind_counts(
    clean_node: CleanNode, autojump_clock: Clock, kind: Kind
) -> None:
    """[gen_statem: generic_timeout()] To start one that runs is to begin anew.
    [gen_statem: action()] Of several actions of a kind the last one counts.
    """
    log: Log = []
    async with clean_node() as node:
        pid = await start(node, lambda: kind(log))
        await call(pid, (None, Timeout.after("x", 3.0, 1), StateTimeout.after(3.0, 1)))
        await trio.sleep(2.0)
        twice = (Timeout.after("x", 1.0, 2), Timeout.after("x", 3.0, 3))
        await call(pid, (None, *twice, StateTimeout.after(4.0, 2)))
        await trio.sleep(10.0)

    assert log == [(5.0, "a", Timeout("x", 3)), (6.0, "a", StateTimeout(2))]


async def test_names_tell_time_outs_apart(
    clean_node: CleanNode, autojump_clock: Clock, kind: Kind
) -> None:
    """[gen_statem: generic_timeout()] Any number may run at a time; their names tell
    them apart.
    """
    log: Log = []
    names = [("a", 1), "x", None, StateTimeout]
    timers = [Timeout.after(name, float(i + 1)) for i, name in enumerate(names)]
    async with clean_node() as node:
        pid = await start(node, lambda: kind(log))
        await call(pid, (None, *timers))
        await trio.sleep(10.0)

    assert log == [(float(i + 1), "a", Timeout(n)) for i, n in enumerate(names)]


async def test_cancel_and_an_infinite_time_end_a_time_out(
    clean_node: CleanNode, autojump_clock: Clock, kind: Kind
) -> None:
    """[gen_statem: timeout_cancel_action()] cancel ends a time-out, as an infinite time
    does; of one that does not run it is nothing.
    """
    log: Log = []
    async with clean_node() as node:
        pid = await start(node, lambda: kind(log))
        timers = [Timeout.after(name, 1.0) for name in ("w", "x", "y")]
        await call(pid, (None, *timers, StateTimeout.after(1.0)))
        ends = (
            Timeout.cancel("w"),
            Timeout.after("x", inf),
            Timeout.at("y", inf),
            Timeout.cancel("never started"),
            StateTimeout.cancel(),
            EventTimeout.cancel(),
        )
        await call(pid, (None, *ends))
        assert node.timers.size == 0
        await trio.sleep(10.0)

    assert log == []


async def test_update_changes_the_content_and_not_the_time(
    clean_node: CleanNode, autojump_clock: Clock, kind: Kind
) -> None:
    """[gen_statem: timeout_update_action()] update sets the content of one that runs;
    the time stays.
    """
    log: Log = []
    async with clean_node() as node:
        pid = await start(node, lambda: kind(log))
        await call(pid, (None, Timeout.after("x", 3.0, "old")))
        await trio.sleep(1.0)
        await call(pid, (None, Timeout.update("x", "new")))
        await trio.sleep(10.0)

    assert log == [(3.0, "a", Timeout("x", "new"))]


async def test_update_of_what_does_not_run_comes_at_once(
    clean_node: CleanNode, autojump_clock: Clock, kind: Kind
) -> None:
    """[gen_statem: timeout_update_action()] If none runs it is as one of 0."""
    log: Log = []
    updates = (Timeout.update("x", 1), StateTimeout.update(2), EventTimeout.update(3))
    async with clean_node() as node:
        pid = await start(node, lambda: kind(log))
        await call(pid, (None, *updates))
        await trio.sleep(10.0)

    # The first of them is an event, which cancels the event time-out.
    assert log == [(0.0, "a", Timeout("x", 1)), (0.0, "a", StateTimeout(2))]


async def test_an_absolute_time_is_on_trios_clock_and_a_past_one_is_now(
    clean_node: CleanNode, autojump_clock: Clock, kind: Kind
) -> None:
    """[gen_statem: timeout_option()] A time-out may be for a point in time, also one
    that is past.
    """
    log: Log = []
    async with clean_node() as node:
        pid = await start(node, lambda: kind(log))
        begun = trio.current_time()
        timers = (Timeout.at("past", begun - 5.0), Timeout.at("later", begun + 4.0))
        await trio.sleep(1.0)
        cast(pid, (None, *timers, StateTimeout.at(begun + 2.0)))
        cast(pid, (None,))
        await trio.sleep(10.0)

    # A past time is no time-out of 0: the message that waits comes first.
    assert log == [
        (1.0, "a", "Cast"),
        (1.0, "a", "Cast"),
        (1.0, "a", Timeout("past")),
        (2.0, "a", StateTimeout()),
        (4.0, "a", Timeout("later")),
    ]


async def test_a_time_out_that_fired_is_not_delivered_once_it_is_cancelled(
    clean_node: CleanNode, autojump_clock: Clock, kind: Kind
) -> None:
    """[gen_statem: timeout_cancel_action()] A time-out that was cancelled, or started
    anew, does not come, though its time was over already.
    """
    log: Log = []
    timers = (
        StateTimeout.after(1.0, "late"),
        Timeout.after("x", 1.0, "late"),
        Timeout.after("y", 1.0, "late"),
        Timeout.after("z", 1.0, "old"),
        EventTimeout.after(1.0, "late"),
    )
    async with clean_node() as node:
        pid = await start(node, lambda: kind(log))
        await call(pid, (None, *timers))
        await sys.suspend(pid)
        again = Timeout.after("x", 5.0, "again")
        cast(pid, ("b", again, Timeout.cancel("y"), Timeout.update("z", "new")))
        await trio.sleep(2.0)
        await sys.resume(pid)
        await trio.sleep(10.0)

    assert log == [
        (2.0, "a", "Cast"),
        (2.0, "b", Timeout("z", "new")),
        (7.0, "b", Timeout("x", "again")),
    ]


async def test_an_enter_call_may_set_time_outs_and_outdo_those_of_the_event(
    clean_node: CleanNode,
    autojump_clock: Clock,
) -> None:
    """[gen_statem: enter_action()] Who enters a state may start, change and cancel
    time-outs; they count more than those of the event before.
    """
    log: Log = []

    class Entering(Clocked, enter=True):
        def __init__(self, log: Log) -> None:
            super().__init__(log)
            self.entering = {"b": (StateTimeout.after(4.0, "b"), Timeout.cancel("x"))}

    async with clean_node() as node:
        pid = await start(node, lambda: Entering(log))
        first = (StateTimeout.after(1.0, "a"), Timeout.after("x", 2.0))
        await call(pid, ("b", *first))
        await trio.sleep(10.0)

    assert log == [(4.0, "b", StateTimeout("b"))]


async def test_time_outs_come_while_a_state_waits_and_are_handled_after_it(
    clean_node: CleanNode,
    autojump_clock: Clock,
) -> None:
    """[gen_statem: Event handling] One event at a time: a time-out that is over while a
    state is at work is handled after it.
    """
    log: Log = []

    class Slow(Clocked):
        async def a(self, event: Any) -> Any:
            if event == Cast(("slow",)):
                await trio.sleep(5.0)
                self.note("a", "slept")
                return Keep(StateTimeout.cancel())
            return super().a(event)

    async with clean_node() as node:
        pid = await start(node, lambda: Slow(log))
        await call(pid, (None, StateTimeout.after(1.0), Timeout.after("x", 1.0)))
        cast(pid, "slow")
        await trio.sleep(10.0)

    assert log == [(5.0, "a", "slept"), (5.0, "a", Timeout("x"))]


async def test_a_postponed_time_out_comes_again_after_a_change(
    clean_node: CleanNode, autojump_clock: Clock, kind: Kind
) -> None:
    """[gen_statem: postpone()] Any event can be postponed, a time-out too."""
    log: Log = []

    class Postponing(kind):  # type: ignore[misc, valid-type]
        def handled(self, state: str, event: Any) -> Any:
            if type(event) is Timeout and state == "a":
                return Keep(Postpone())
            return super().handled(state, event)

    async with clean_node() as node:
        pid = await start(node, lambda: Postponing(log))
        await call(pid, (None, Timeout.after("x", 1.0, "t")))
        await trio.sleep(2.0)
        await call(pid, ("b", Timeout.cancel("x")))
        await trio.sleep(2.0)

    assert log == [(2.0, "b", Timeout("x", "t"))]


async def test_timers_go_with_their_machine(
    clean_node: CleanNode, autojump_clock: Clock, kind: Kind
) -> None:
    """[gen_statem: timeout_action()] The time-outs of a machine end with it."""
    async with clean_node() as node:
        pid = await start(node, lambda: kind([]))
        await call(pid, (None, StateTimeout.after(60.0), Timeout.after("x", 60.0)))
        assert node.timers.size == 2
        await stop(pid)
        assert node.timers.size == 0


async def test_a_crash_in_a_time_out_is_reported_with_it(
    clean_node: CleanNode,
    autojump_clock: Clock,
    kind: Kind,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Crashing(kind):  # type: ignore[misc, valid-type]
        def note(self, state: str, what: object) -> None:
            raise ValueError(state)

    async with clean_node() as node:
        pid = await start(node, lambda: Crashing([]))
        await call(pid, (None, Timeout.after("x", 1.0, "t")))
        await trio.sleep(2.0)

    [report] = [r.getMessage() for r in caplog.records if "crashed" in r.message]
    assert report.splitlines()[1] == "last message: Timeout(name='x', content='t')"


async def test_a_failed_call_cancels_the_event_time_out_as_any_other(
    clean_node: CleanNode,
    autojump_clock: Clock,
) -> None:
    log: Log = []

    class Failing(Clocked):
        def handled(self, state: str, event: Any) -> Any:
            if type(event) is Call and event.request == "fail":
                return Fail(ValueError("no"))
            return super().handled(state, event)

    async with clean_node() as node:
        pid = await start(node, lambda: Failing(log))
        await call(pid, (None, EventTimeout.after(3.0)))
        with pytest.raises(ValueError, match="no"):
            await call(pid, "fail")
        await trio.sleep(10.0)

    assert log == []
