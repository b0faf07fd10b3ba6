"""StateMachine: states, results, actions, enter calls, the end, looking inside."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import pytest
import trio
import trio.testing

from atomr.core.exits import NORMAL, SHUTDOWN, ExitReason, Shutdown
from atomr.errors import (
    BadActionError,
    BadReturnError,
    CallTimeoutError,
    InitStoppedError,
    ServerDownError,
    StartError,
    StartIgnoredError,
    SystemMessageError,
)
from atomr.otp import (
    BRUTAL_KILL,
    Call,
    Cast,
    Enter,
    EventTimeout,
    Exit,
    Fail,
    From,
    Hibernate,
    Ignore,
    Info,
    Insert,
    Internal,
    Keep,
    MailboxLimit,
    Next,
    Overflow,
    Postpone,
    Repeat,
    Reply,
    ReplyTo,
    Restart,
    StateMachine,
    StateTimeout,
    Stop,
    Supervisor,
    Timeout,
    call,
    cast,
    child,
    sys,
)
from atomr.process import (
    Node,
    exit_process,
    kill,
    monitor,
    self_pid,
    send,
    spawn,
    stop,
    trap_exit,
    wait_exit,
)

if TYPE_CHECKING:
    from atomr.refs import Pid

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]
settle = trio.testing.wait_all_tasks_blocked
Act: TypeAlias = Callable[["Script", str], Any]


@attrs.frozen
class Do:
    """A message that says itself what the state is to return."""

    label: str
    act: Act = attrs.field(repr=False, default=lambda _machine, _state: None)


class Script(StateMachine):
    """Logs what it is called with, and does what it is told."""

    def __init__(self, log: list[object] | None = None, init: Any = None) -> None:
        self.log: list[object] = [] if log is None else log
        self._init = init
        self.on_enter: dict[str, Act] = {}

    def init(self) -> Any:
        if self._init is not None:
            return self._init(self, "init")
        return Next(self.named("a"))

    def named(self, state: str) -> Any:
        return getattr(self, state)

    def a(self, event: Any) -> Any:
        return self.handled("a", event)

    def b(self, event: Any) -> Any:
        return self.handled("b", event)

    def handled(self, state: str, event: Any) -> Any:
        match event:
            case Enter(old):
                self.log.append((state, "enter", getattr(old, "__name__", old)))
                act = self.on_enter.get(state)
                return act(self, state) if act is not None else None
            case Call(Do(label, act)) | Cast(Do(label, act)) | Info(Do(label, act)):
                self.log.append((state, type(event).__name__, label))
                return act(self, state)
            case Internal(Do(label, act)):
                self.log.append((state, "Internal", label))
                return act(self, state)
        self.log.append((state, event))
        return None

    def terminate(self, reason: ExitReason, state: Any) -> Any:
        self.log.append(("terminate", reason, getattr(state, "__name__", state)))


class AsyncScript(Script):
    """The same, with callbacks that wait."""

    async def init(self) -> Any:
        await trio.lowlevel.checkpoint()
        return super().init()

    async def a(self, event: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return super().a(event)

    async def b(self, event: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return super().b(event)

    async def terminate(self, reason: ExitReason, state: Any) -> None:
        await trio.lowlevel.checkpoint()
        super().terminate(reason, state)


class Waitless(Script):
    """With a task, but its states do not wait."""

    async def a(self, event: Any) -> Any:
        return super().a(event)

    async def b(self, event: Any) -> Any:
        return super().b(event)


class OneHandler(Script):
    """The same, with states that are texts."""

    def named(self, state: str) -> Any:
        return state

    def handle_event(self, event: Any, state: str) -> Any:
        return self.handled(state, event)


class Entering(Script, enter=True):
    """With enter calls."""


class AsyncEntering(AsyncScript, enter=True):
    """With enter calls that wait."""


class OneHandlerEntering(OneHandler, enter=True):
    """With enter calls to one handler."""


Kind: TypeAlias = type[Script]


@pytest.fixture(params=[Script, AsyncScript, OneHandler])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Return each way to write a machine."""
    found: Kind = request.param
    return found


@pytest.fixture(params=[Entering, AsyncEntering, OneHandlerEntering])
def entering(request: pytest.FixtureRequest) -> Kind:
    """Return each way to write a machine with enter calls."""
    found: Kind = request.param
    return found


async def start(node: Node, make: Callable[[], object], **options: Any) -> Pid:
    """Start a root whose end is not the node's."""
    spec = child(make, id="it", restart=Restart.TEMPORARY, **options)
    return await node.start(spec)


def go(state: str, *actions: Any) -> Act:
    return lambda machine, _state: Next(machine.named(state), *actions)


def keep(*actions: Any) -> Act:
    return lambda _machine, _state: Keep(*actions)


def done(log: list[object]) -> list[object]:
    """Return the log without the end, which the node's own end brings."""
    return [
        entry
        for entry in log
        if not (isinstance(entry, tuple) and entry[0] == "terminate")
    ]


# --- events and results -------------------------------------------------------------


async def test_each_kind_of_message_is_an_event_of_the_state(
    clean_node: CleanNode, kind: Kind, schedule: int
) -> None:
    """[gen_statem: Event types] A call, a cast and any other message are events, each
      of a kind of its own, for the state that the machine is in.
    [gen_statem: callback_mode()] States are functions that get their own events, or any
      values with one handler for all; a machine can be written either way.
    [gen_statem: event_handler_result()] The state becomes the next one, or stays.
    """
    log: list[object] = []
    async with clean_node() as node:
        pid = await start(node, lambda: kind(log))
        cast(pid, Do("1", go("b")))
        send(pid, Do("2"))
        answer = lambda _machine, _state: Reply("yes")  # noqa: E731
        assert await call(pid, Do("3", answer)) == "yes"
        cast(pid, Do("4", go("a")))
        assert await call(pid, Do("5", keep(Reply("no")))) == "no"

    assert log == [
        ("a", "Cast", "1"),
        ("b", "Info", "2"),
        ("b", "Call", "3"),
        ("b", "Cast", "4"),
        ("a", "Call", "5"),
        ("terminate", SHUTDOWN, "a"),
    ]


async def test_an_event_has_what_was_sent_and_where_to_reply(
    clean_node: CleanNode,
) -> None:
    """[gen_statem: external_event_type()] An event has what was sent; that of a call
    also whom to reply to.
    """
    log: list[Any] = []

    class Machine(StateMachine):
        def init(self) -> Next:
            return Next(self.only)

        def only(self, event: Any) -> Any:
            log.append(event)
            return Reply(self_pid()) if type(event) is Call else None

    async with clean_node() as node:
        pid = await start(node, Machine)
        cast(pid, "cast")
        send(pid, "info")
        assert await call(pid, "call") is pid

    assert log[:2] == [Cast(("cast",)), Info("info")]
    assert log[2].request == "call"
    assert isinstance(log[2].from_, From)
    assert repr(log[2]) == "Call(request='call')"


async def test_down_and_exit_messages_are_info(clean_node: CleanNode) -> None:
    """[gen_statem: external_event_type()] Any other message is an info event.
    [gen_statem: Trapping exit] A machine traps no exits unless its init says so.
    """
    log: list[Any] = []

    class Machine(Script):
        def init(self) -> Any:
            trap_exit(enabled=True)
            self.ref = monitor(spawn(trio.lowlevel.checkpoint))
            return Next(self.a)

    async with clean_node() as node:
        pid = await start(node, lambda: Machine(log))
        await settle()
        exit_process(pid, Shutdown("x"))
        await settle()

    messages = [entry[1].message for entry in done(log)]  # type: ignore[index]
    assert [type(m).__name__ for m in messages] == ["Down", "Exit"]
    assert messages[1] == Exit(None, Shutdown("x"))


async def test_a_call_may_be_answered_from_a_later_state(
    clean_node: CleanNode, kind: Kind, schedule: int
) -> None:
    """[gen_statem: Reply to a call] Any state may reply, not only the one that got the
    call.
    """
    held: list[From] = []

    class Machine(kind):  # type: ignore[misc, valid-type]
        def handled(self, state: str, event: Any) -> Any:
            match event:
                case Call("later", from_):
                    held.append(from_)
                    return Keep()
            return super().handled(state, event)

    async with clean_node() as node:
        pid = await start(node, Machine)
        got: list[object] = []

        async def ask() -> None:
            got.append(await call(pid, "later"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await settle()
            assert got == []
            cast(pid, Do("x", lambda m, _s: Next(m.named("b"), ReplyTo(held[0], 1))))
        assert got == [1]


async def test_a_call_is_failed_by_fail_and_the_machine_goes_on(
    clean_node: CleanNode, kind: Kind
) -> None:
    """[gen_statem: reply_action()] differs: Fail(error) raises in the caller and the
    machine lives. Erlang replies with an error tuple and leaves the raising to a client
    function.
    """
    async with clean_node() as node:
        pid = await start(node, kind)
        for act in (
            lambda _m, _s: Fail(ValueError("no")),
            lambda _m, _s: Keep(Fail(ValueError("no"))),
        ):
            with pytest.raises(ValueError, match="no"):
                await call(pid, Do("1", act))
        assert await call(pid, Do("2", keep(Reply(2)))) == 2


async def test_who_waits_for_a_reply_hears_of_the_end(
    clean_node: CleanNode, kind: Kind, schedule: int
) -> None:
    """[gen_statem:call/3] The end of the machine ends all calls to it, those that it
    postponed too.
    """
    async with clean_node() as node:
        pid = await start(node, kind)
        errors: list[object] = []

        async def ask(act: Act) -> None:
            try:
                await call(pid, Do("x", act))
            except ServerDownError as error:
                errors.append(error.reason)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, keep())
            nursery.start_soon(ask, keep(Postpone()))
            await settle()
            cast(pid, Do("stop", lambda _m, _s: Stop(Shutdown("over"))))
        assert errors == [Shutdown("over")] * 2


async def test_none_keeps_the_state_but_answers_no_call(
    clean_node: CleanNode, kind: Kind
) -> None:
    """[gen_statem: state_callback_result()] differs: None is Keep(), but not for a
    call. A function of Python that says nothing returns it, and a caller would wait in
    vain.
    """
    log: list[object] = []
    async with clean_node() as node:
        pid = await start(node, lambda: kind(log))
        cast(pid, Do("1"))
        with pytest.raises(ServerDownError) as caught:
            await call(pid, Do("2"))

    assert isinstance(caught.value.reason, BadReturnError)
    assert str(caught.value.reason) == (
        "state 'a' returned None, expected Reply, Fail, Next, Keep, Repeat or Stop;"
        " Keep() to reply later"
    )
    assert done(log) == [("a", "Cast", "1"), ("a", "Call", "2")]


@pytest.mark.parametrize(
    ("act", "text"),
    [
        (lambda _m, _s: "x", "state 'a' returned 'x', expected Next, Keep, Repeat"),
        (lambda _m, _s: Next("b"), "state 'a' returned Next('b'), expected a method"),
        (lambda _m, _s: Next(Script().a), "expected a method of this Script as state"),
        (lambda m, _s: Next(m.init), "of this Script that is a state: init() is a"),
        (lambda m, _s: Next(m.terminate), "a state: terminate() is a callback"),
        (lambda m, _s: Next(m.handle_event), "a state: handle_event() is a callback"),
        (lambda m, _s: Next(m.process_label), "a state: process_label() is a callback"),
        (
            lambda _m, _s: Keep("x"),  # type: ignore[arg-type]
            "action 'x' after Cast(Do(label='1')): expected an",
        ),
        (lambda _m, _s: Keep(Reply(1)), "there is no call to answer: use ReplyTo"),
        (lambda _m, _s: Stop(reply=1), "there is no call to answer: use ReplyTo"),
        (lambda _m, _s: Insert(Internal()), "returned Insert(event=Internal"),
        (lambda _m, _s: Keep(Insert(Enter("a"))), "Enter is no event"),
        (lambda _m, _s: StateTimeout.after(-1), "after -1 s: expected 0 or more"),
        (lambda _m, _s: Timeout.at("x", float("nan")), "at nan: expected a time"),
    ],
)
async def test_what_is_no_result_is_a_crash_that_names_it(
    clean_node: CleanNode, act: Act, text: str
) -> None:
    """[gen_statem: Callback failure] A bad result or a bad action ends the machine."""
    async with clean_node() as node:
        pid = await start(node, Script)
        cast(pid, Do("1", act))
        reason = await wait_exit(pid)

    assert isinstance(reason, BadReturnError | BadActionError | ValueError)
    assert text in str(reason)


async def test_a_reply_with_more_than_a_value_is_refused(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        pid = await start(node, Script)
        with pytest.raises(ServerDownError) as caught:
            await call(pid, Do("1", keep(Reply(1, timeout_s=1.0))))

    assert "only its value" in str(caught.value.reason)


# --- postponed and inserted events ----------------------------------------------------


def later(_machine: Script, state: str) -> Any:
    """Wait for state b."""
    return Keep(Postpone()) if state == "a" else None


async def test_postponed_events_come_again_in_their_order_before_what_waits(
    clean_node: CleanNode, kind: Kind, schedule: int
) -> None:
    """[gen_statem: postpone()] A postponed event is handled again after a change of
      state.
    [gen_statem: transition_option()] The oldest postponed one is the first, and all
      come before what has not been handled yet.
    """
    log: list[object] = []
    async with clean_node() as node:
        pid = await start(node, lambda: kind(log))
        for label in ("1", "2"):
            cast(pid, Do(label, later))
        cast(pid, Do("go", go("b")))
        cast(pid, Do("3"))
        assert await call(pid, Do("4", keep(Reply(4)))) == 4

    assert done(log) == [
        ("a", "Cast", "1"),
        ("a", "Cast", "2"),
        ("a", "Cast", "go"),
        ("b", "Cast", "1"),
        ("b", "Cast", "2"),
        ("b", "Cast", "3"),
        ("b", "Call", "4"),
    ]


async def test_a_postponed_call_is_answered_in_the_state_that_handles_it(
    clean_node: CleanNode, kind: Kind, schedule: int
) -> None:
    """[gen_statem: Event handling] To go to the same state is no change of state:
    nothing is handled again.
    """

    def act(_machine: Script, state: str) -> Any:
        return Keep(Postpone()) if state == "a" else Reply(f"in {state}")

    async with clean_node() as node:
        pid = await start(node, kind)
        got: list[object] = []

        async def ask() -> None:
            got.append(await call(pid, Do("1", act)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await settle()
            assert got == []
            # To the same state is no change: nothing comes again.
            cast(pid, Do("same", go("a")))
            await settle()
            assert got == []
            cast(pid, Do("go", go("b")))
        assert got == ["in b"]


async def test_a_caller_that_gave_up_leaves_its_postponed_call_behind(
    clean_node: CleanNode, kind: Kind, autojump_clock: trio.testing.MockClock
) -> None:
    """[gen_statem:call/3] A caller that gave up leaves its event where it is; the late
    reply reaches nobody.
    """
    log: list[object] = []

    def act(_machine: Script, state: str) -> Any:
        return Keep(Postpone()) if state == "a" else Reply("nobody hears it")

    async with clean_node() as node:
        pid = await start(node, lambda: kind(log))
        with pytest.raises(CallTimeoutError):
            await call(pid, Do("1", act), timeout_s=1.0)
        assert await call(pid, Do("go", go("b", Reply("went")))) == "went"
        await settle()

    assert done(log) == [("a", "Call", "1"), ("a", "Call", "go"), ("b", "Call", "1")]


async def test_inserted_events_come_first_and_in_order(
    clean_node: CleanNode, kind: Kind, schedule: int
) -> None:
    """[gen_statem: action()] Inserted events are the next, in the order in which they
    stand, before any that wait.
    """
    log: list[object] = []
    inserted = (
        Insert(Internal(Do("i1", keep(Insert(Info(Do("j"))))))),
        Insert(Internal(Do("i2"))),
    )
    async with clean_node() as node:
        pid = await start(node, lambda: kind(log))
        cast(pid, Do("1", later))
        cast(pid, Do("go", go("b", *inserted)))
        cast(pid, Do("2"))
        await call(pid, Do("3", keep(Reply(3))))

    assert done(log) == [
        ("a", "Cast", "1"),
        ("a", "Cast", "go"),
        ("b", "Internal", "i1"),
        ("b", "Info", "j"),
        ("b", "Internal", "i2"),
        ("b", "Cast", "1"),
        ("b", "Cast", "2"),
        ("b", "Call", "3"),
    ]


async def test_a_call_waits_for_what_an_earlier_event_inserted(
    clean_node: CleanNode, kind: Kind
) -> None:
    """[gen_statem: Event insertion] An inserted event is handled before any from
    outside that has not been received.
    """
    log: list[object] = []
    async with clean_node() as node:
        pid = await start(node, lambda: kind(log))
        first = keep(Reply(1), Insert(Internal(Do("i"))))
        assert await call(pid, Do("1", first)) == 1
        assert await call(pid, Do("2", keep(Reply(2)))) == 2

    assert done(log) == [("a", "Call", "1"), ("a", "Internal", "i"), ("a", "Call", "2")]


async def test_a_call_may_be_inserted_again(clean_node: CleanNode, kind: Kind) -> None:
    """[gen_statem: action()] An event of any kind can be inserted."""

    class Machine(kind):  # type: ignore[misc, valid-type]
        def handled(self, state: str, event: Any) -> Any:
            match event:
                case Call(("wrapped", request), from_):
                    return Keep(Insert(Call(request, from_)))
            return super().handled(state, event)

    async with clean_node() as node:
        pid = await start(node, Machine)
        assert await call(pid, ("wrapped", Do("1", keep(Reply("in"))))) == "in"


async def test_a_machine_that_inserts_for_ever_starves_nobody(
    clean_node: CleanNode, kind: Kind
) -> None:
    """[gen_statem: System messages] differs: system messages and a stop come between
    two events that wait inside. Erlang reads its mailbox only when none is left, so
    that a machine that goes on inserting answers nobody.
    """

    def again(_machine: Script, _state: str) -> Any:
        return Keep(Insert(Internal(Do("i", again))))

    async with clean_node() as node:
        pid = await start(node, kind)
        cast(pid, Do("1", again))
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        # System messages and stops come between two events.
        state, _machine = await sys.get_state(pid)  # type: ignore[misc]
        assert getattr(state, "__name__", state) == "a"  # type: ignore[has-type]
        await stop(pid)


async def test_ten_thousand_postponed_events_are_handled_once_each(
    clean_node: CleanNode,
) -> None:
    log: list[object] = []

    class Machine(StateMachine):
        def init(self) -> Next:
            return Next(self.closed)

        def closed(self, event: Any) -> Any:
            return Next(self.open) if event == Cast(("open",)) else Keep(Postpone())

        def open(self, event: Any) -> Any:
            log.append(event.message)

    async with clean_node() as node:
        pid = await start(node, Machine)
        for number in range(10_000):
            cast(pid, number)
        cast(pid, "open")
        await settle()

    assert log == list(range(10_000))


# --- enter calls ------------------------------------------------------------------


async def test_each_state_is_entered_before_its_first_event(
    clean_node: CleanNode, entering: Kind, schedule: int
) -> None:
    """[gen_statem: state_enter()] A state is called once when it is entered, with the
      old state, before any event; not when it stays the same.
    [gen_statem: state_enter()] The first state is entered too, and is the old one
      itself.
    """
    log: list[object] = []
    async with clean_node() as node:
        pid = await start(node, lambda: entering(log))
        cast(pid, Do("0", later))
        cast(pid, Do("1", go("b", Insert(Internal(Do("i"))))))
        cast(pid, Do("same", go("b")))
        cast(pid, Do("keep", keep()))
        await call(pid, Do("back", go("a", Reply(None))))

    assert done(log) == [
        ("a", "enter", "a"),
        ("a", "Cast", "0"),
        ("a", "Cast", "1"),
        ("b", "enter", "a"),
        ("b", "Internal", "i"),
        ("b", "Cast", "0"),
        ("b", "Cast", "same"),
        ("b", "Cast", "keep"),
        ("b", "Call", "back"),
        ("a", "enter", "b"),
    ]


async def test_repeat_enters_again_and_is_no_change_of_state(
    clean_node: CleanNode, entering: Kind
) -> None:
    """[gen_statem: state_callback_result()] repeat_state enters the state again, with
    itself as the old one; in all else it is keep_state.
    """
    log: list[object] = []
    async with clean_node() as node:
        pid = await start(node, lambda: entering(log))
        cast(pid, Do("p", keep(Postpone())))
        repeat = lambda _m, _s: Repeat(Reply("r"))  # noqa: E731
        assert await call(pid, Do("again", repeat)) == "r"

    assert done(log) == [
        ("a", "enter", "a"),
        ("a", "Cast", "p"),
        ("a", "Call", "again"),
        ("a", "enter", "a"),
    ]


async def test_repeat_from_an_enter_call_keeps_the_old_state(
    clean_node: CleanNode, entering: Kind
) -> None:
    log: list[object] = []

    def twice(machine: Script, _state: str) -> Any:
        return Repeat() if len(machine.log) < 4 else None

    class Machine(entering):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__(log)
            self.on_enter = {"b": twice}

    async with clean_node() as node:
        pid = await start(node, Machine)
        await call(pid, Do("1", go("b", Reply(None))))

    assert done(log) == [
        ("a", "enter", "a"),
        ("a", "Call", "1"),
        ("b", "enter", "a"),
        ("b", "enter", "a"),
    ]


async def test_without_the_class_argument_no_state_is_entered(
    clean_node: CleanNode, kind: Kind
) -> None:
    """[gen_statem: state_enter()] Without the flag no state is entered, and
    repeat_state is keep_state.
    """
    log: list[object] = []
    async with clean_node() as node:
        pid = await start(node, lambda: kind(log))
        repeat = lambda _m, _s: Repeat(Reply("r"))  # noqa: E731
        assert await call(pid, Do("1", repeat)) == "r"
        assert await call(pid, Do("2", go("b", Reply("s")))) == "s"

    assert done(log) == [("a", "Call", "1"), ("a", "Call", "2")]


async def test_enter_calls_are_inherited_and_can_be_switched_off() -> None:
    class Inherits(Entering):
        pass

    class Off(Entering, enter=False):
        pass

    flags = [cls.enter_calls for cls in (Script, Entering, Inherits, Off)]
    assert flags == [False, True, True, False]


@pytest.mark.parametrize(
    ("act", "text"),
    [
        (keep(Postpone()), "there is no event to postpone"),
        (keep(Insert(Internal())), "entering a state inserts no events"),
        (keep(Reply(1)), "there is no call to answer"),
        (go("a"), "expected Keep, Repeat, Stop or None on entering a state"),
        (lambda _m, _s: 3, "state 'b' returned 3, expected Keep, Repeat, Stop or None"),
    ],
)
async def test_what_an_enter_call_may_not_do_is_a_crash_that_names_it(
    clean_node: CleanNode, entering: Kind, act: Act, text: str
) -> None:
    """[gen_statem: handle_event/4] Who enters a state can neither postpone, nor insert
    events, nor change the state; it is an error that ends the machine.
    """

    class Machine(entering):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.on_enter = {"b": act}

    async with clean_node() as node:
        pid = await start(node, Machine)
        cast(pid, Do("1", go("b")))
        reason = await wait_exit(pid)

    assert isinstance(reason, BadReturnError | BadActionError)
    assert text in str(reason)


async def test_an_enter_call_may_answer_an_earlier_call_and_stop(
    clean_node: CleanNode, entering: Kind
) -> None:
    """[gen_statem: transition_option()] Replies are sent first, before the next state
      is entered.
    [gen_statem: state_enter_result()] Who enters a state may stop the machine.
    """
    held: list[From] = []
    log: list[object] = []

    class Machine(entering):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__(log)
            self.on_enter = {"b": lambda _m, _s: Stop(Shutdown("full"))}

        def handled(self, state: str, event: Any) -> Any:
            match event:
                case Call("fill", from_):
                    held.append(from_)
                    return Next(self.named("b"), ReplyTo(from_, "filled"))
            return super().handled(state, event)

    async with clean_node() as node:
        pid = await start(node, Machine)
        assert await call(pid, "fill") == "filled"
        await settle()

    assert log[-1] == ("terminate", Shutdown("full"), "b")


# --- the start ----------------------------------------------------------------------


async def test_the_starter_goes_on_before_the_first_state_is_entered(
    clean_node: CleanNode, caplog: pytest.LogCaptureFixture
) -> None:
    """[gen_statem:start_link/4] It returns when init has; the first state is entered
    after that, and may fail then.
    """

    def broken(_machine: Script, _state: str) -> Any:
        raise ValueError("too late to fail the start")

    class Machine(Entering):
        def __init__(self) -> None:
            super().__init__()
            self.on_enter = {"a": broken}

    async with clean_node() as node:
        pid = await start(node, Machine)
        assert str(await wait_exit(pid)) == "too late to fail the start"
    assert "last message" in caplog.text


async def test_actions_of_init_are_done_in_the_first_state(
    clean_node: CleanNode, kind: Kind, schedule: int
) -> None:
    """[gen_statem: init_result()] The actions of init are done on entering the first
    state, but postpone: there is no event.
    """
    log: list[object] = []
    actions = (
        StateTimeout.after(0, "t"),
        Insert(Internal(Do("i"))),
        Postpone(),  # there is nothing to postpone
    )
    async with clean_node() as node:
        pid = await start(node, lambda: kind(log, go("b", *actions)))
        await call(pid, Do("1", go("a", Reply(1))))
        await settle()

    assert done(log) == [
        ("b", "Internal", "i"),
        ("b", StateTimeout("t")),
        ("b", "Call", "1"),
    ]


async def test_a_start_may_be_ignored_or_fail(
    clean_node: CleanNode, kind: Kind
) -> None:
    """[gen_statem: init_result()] ignore, stop and an exception: no machine, and the
    starter is told; terminate does not run.
    """

    def crash(_machine: Script, _state: str) -> Any:
        raise ValueError("in init")

    log: list[object] = []
    cases: list[tuple[Act, type[Exception], str]] = [
        (lambda _m, _s: Ignore(), StartIgnoredError, ""),
        (lambda _m, _s: Stop(Shutdown("x")), InitStoppedError, "Shutdown"),
        (lambda _m, _s: Stop(ValueError("y")), ValueError, "y"),
        (crash, ValueError, "in init"),
        (lambda _m, _s: Keep(), BadReturnError, "expected Next, Ignore or Stop"),
    ]
    async with clean_node() as node:
        for act, error, text in cases:
            if error is StartIgnoredError:
                with pytest.raises(StartIgnoredError):
                    await start(node, lambda act=act: kind(log, act))  # type: ignore[misc]
                continue
            with pytest.raises(StartError) as caught:
                await start(node, lambda act=act: kind(log, act))  # type: ignore[misc]
            assert isinstance(caught.value.__cause__ or caught.value.reason, error)
            assert text in str(caught.value.reason)
    assert log == []


async def test_a_first_state_that_is_no_method_fails_the_start(
    clean_node: CleanNode,
) -> None:
    """[gen_statem: state_name()] differs: a first state that is no function of the
    machine fails the start. Erlang finds out with the first event.
    """
    async with clean_node() as node:
        with pytest.raises(
            StartError, match=r"init returned .*expected a method of this"
        ):
            await start(node, lambda: Script([], lambda _m, _s: Next("a")))


async def test_a_callback_is_no_first_state(clean_node: CleanNode) -> None:
    class Wrong(StateMachine):
        def init(self) -> Any:
            return Next(self.terminate)

    async with clean_node() as node:
        with pytest.raises(StartError) as caught:
            await start(node, Wrong)
    assert str(caught.value.reason).endswith(
        "expected a method of this Wrong that is a state: terminate() is a callback"
    )


async def test_a_machine_without_init_or_handler_says_so(clean_node: CleanNode) -> None:
    class Bare(StateMachine):
        pass

    async with clean_node() as node:
        with pytest.raises(StartError, match="Bare has no init"):
            await start(node, Bare)


# --- the end --------------------------------------------------------------------------


async def test_stop_replies_first_then_terminates(
    clean_node: CleanNode, kind: Kind
) -> None:
    """[gen_statem: state_callback_result()] stop_and_reply replies, then terminate
    runs.
    """
    log: list[object] = []
    async with clean_node() as node:
        pid = await start(node, lambda: kind(log))
        act = lambda _m, _s: Stop(Shutdown("x"), reply="bye")  # noqa: E731
        assert await call(pid, Do("1", act)) == "bye"
        await settle()

    assert log == [("a", "Call", "1"), ("terminate", Shutdown("x"), "a")]


async def test_a_postponed_call_may_stop_the_machine_with_a_reply(
    clean_node: CleanNode, kind: Kind
) -> None:
    def act(_machine: Script, state: str) -> Any:
        return Keep(Postpone()) if state == "a" else Stop(NORMAL, reply="bye")

    log: list[object] = []
    async with clean_node() as node:
        pid = await start(node, lambda: kind(log))
        got: list[object] = []

        async def ask() -> None:
            got.append(await call(pid, Do("1", act)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await settle()
            cast(pid, Do("go", go("b")))
        assert got == ["bye"]
        await settle()

    assert log[-1] == ("terminate", NORMAL, "b")


async def test_terminate_runs_when_a_state_raises_and_when_asked_but_not_when_killed(
    clean_node: CleanNode, kind: Kind, schedule: int
) -> None:
    """[gen_statem: terminate/3] It runs with reason and state when a result stops the
      machine, when a state fails, and when it is asked to stop; not when it is killed,
      nor on brutal_kill.
    [gen_statem: terminate/3] differs: it runs whether or not the machine traps exits.
      That a cleanup is forgotten because a flag was is a well-known mistake.
    """

    def crash(_machine: Script, _state: str) -> Any:
        raise ValueError("x")

    log: list[object] = []
    async with clean_node() as node:
        pid = await start(node, lambda: kind(log))
        cast(pid, Do("1", crash))
        reason = await wait_exit(pid)
        await stop(await start(node, lambda: kind(log)), Shutdown("asked"))
        kill(await start(node, lambda: kind(log)))
        await settle()
        await start(node, lambda: kind(log), shutdown=BRUTAL_KILL)

    assert log == [
        ("a", "Cast", "1"),
        ("terminate", reason, "a"),
        ("terminate", Shutdown("asked"), "a"),
    ]


async def test_a_supervisor_restarts_a_machine_in_its_first_state_without_old_events(
    clean_node: CleanNode, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    """[gen_statem: init/1] A machine that is restarted begins anew: no state, no
    postponed event and no time-out of before.
    """

    def crash(_machine: Script, _state: str) -> Any:
        raise ValueError("x")

    log: list[object] = []
    async with clean_node() as node:
        spec = child(lambda: kind(log), id="m", name="m")
        await node.start(Supervisor([spec]))
        cast("m", Do("p", keep(Postpone(), Timeout.after("t", 60.0))))
        cast(
            "m",
            Do(
                "crash",
                lambda m, _s: Next(m.named("b"), Insert(Internal(Do("i", crash)))),
            ),
        )
        await settle()
        await call("m", Do("1", go("b", Reply(1))))
        await settle()

    assert done(log) == [
        ("a", "Cast", "p"),
        ("a", "Cast", "crash"),
        ("b", "Internal", "i"),
        ("a", "Call", "1"),
    ]


# --- looking inside -----------------------------------------------------------------


async def test_a_machine_without_async_methods_has_no_task(
    clean_node: CleanNode,
) -> None:
    class WithClientApi(Script):
        @staticmethod
        async def ask(pid: Pid) -> object:
            return await call(pid, Do("1", keep(Reply(1))))

    async with clean_node() as node:
        for cls in (Script, OneHandler, WithClientApi, AsyncScript):
            pid = await start(node, cls)
            has_task = node.processes[pid.number].task is not None
            assert has_task == (cls is AsyncScript), cls
            assert await WithClientApi.ask(pid) == 1
            await stop(pid)


@pytest.mark.parametrize("kind", [Script, OneHandler, Waitless])
async def test_a_call_to_an_idle_machine_is_served_on_the_callers_stack(
    clean_node: CleanNode, kind: Kind
) -> None:
    async with clean_node() as node:
        pid = await start(node, kind)
        with trio.CancelScope() as scope:
            # A call that waited would be a checkpoint, and cancelled.
            scope.cancel()
            assert await call(pid, Do("1", go("b", Reply("x")))) == "x"
            assert await call(pid, Do("2", keep(Reply("y")))) == "y"
        assert not scope.cancelled_caught


async def test_get_state_is_the_state_and_a_copy_of_the_instance(
    clean_node: CleanNode, kind: Kind
) -> None:
    """[sys:get_state/1] Of a gen_statem: the state and the data."""
    async with clean_node() as node:
        pid = await start(node, kind)
        await call(pid, Do("1", go("b", Reply(1))))
        found: Any = await sys.get_state(pid)
        state, machine = found
        assert type(machine) is kind
        assert state == machine.named("b")
        machine.on_enter = {"changed": keep()}
        again: Any = await sys.get_state(pid)
        assert again[1].on_enter == {}


async def test_replace_state_sets_state_and_data_and_is_no_change_of_state(
    clean_node: CleanNode, kind: Kind
) -> None:
    """[sys:replace_state/2] Of a gen_statem: the state and the data; it is no change of
    state.
    """
    log: list[object] = []

    def replaced(found: tuple[Any, Script]) -> tuple[Any, Script]:
        _state, machine = found
        machine.log = log
        return machine.named("b"), machine

    async with clean_node() as node:
        pid = await start(node, kind)
        cast(pid, Do("p", keep(Postpone(), StateTimeout.after(60.0))))
        await settle()
        await sys.replace_state(pid, replaced)
        await call(pid, Do("1", go("a", Reply(1))))
        await settle()

    assert done(log) == [("b", "Call", "1"), ("a", "Cast", "p")]


async def test_a_state_is_taken_over_by_another_instance(
    clean_node: CleanNode,
) -> None:
    log: list[object] = []
    async with clean_node() as node:
        pid = await start(node, Script)
        await sys.replace_state(pid, lambda found: (found[0], Script(log)))
        await call(pid, Do("1", keep(Reply(1))))

    assert done(log) == [("a", "Call", "1")]


async def test_a_machine_without_terminate_is_not_waited_for(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    class Waiting(StateMachine):
        def init(self) -> Next:
            return Next(self.only)

        async def only(self, event: Any) -> Any:
            await trio.sleep_forever()

    async with clean_node() as node:
        pid = await start(node, Waiting)
        cast(pid, "wait")
        await settle()
    assert trio.current_time() == 0.0


async def test_an_event_from_inside_is_no_longer_in_work_when_it_is_done(
    clean_node: CleanNode, kind: Kind
) -> None:
    async with clean_node() as node:
        pid = await start(node, kind)
        cast(pid, Do("1", keep(Insert(Internal(Do("i"))))))
        await settle()
        assert node.processes[pid.number].current is None


async def test_a_bad_replacement_leaves_the_machine_as_it_was(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        pid = await start(node, Script)
        for bad, text in (
            (lambda _found: 3, "expected a state and a Script, not 3"),
            (lambda found: ("x", found[1]), "'x' is no method of the machine"),
            (lambda found: (found[1].init, found[1]), r"init\(\) is no state"),
            (lambda found: (found[0], 3), "expected a state and a Script"),
        ):
            with pytest.raises(SystemMessageError, match=text):
                await sys.replace_state(pid, bad)
        assert await call(pid, Do("1", keep(Reply(1)))) == 1


async def test_a_suspended_machine_handles_nothing_not_even_what_waits_inside(
    clean_node: CleanNode, kind: Kind, schedule: int
) -> None:
    """[sys:suspend/1] A suspended gen_statem handles no event until it is resumed, then
    all in order.
    """
    log: list[object] = []

    def suspends(_machine: Script, _state: str) -> Any:
        return Keep(Insert(Internal(Do("i"))), Timeout.after("t", 0))

    async with clean_node() as node:
        pid = await start(node, lambda: kind(log))
        await sys.suspend(pid)
        cast(pid, Do("1", suspends))
        await settle()
        assert log == []
        await sys.resume(pid)
        await settle()

    assert done(log) == [
        ("a", "Cast", "1"),
        ("a", "Internal", "i"),
        ("a", Timeout("t")),
    ]


async def test_trace_and_statistics_tell_of_inserted_events_too(
    clean_node: CleanNode, kind: Kind
) -> None:
    """[gen_statem: System messages] sys traces and counts inserted events as those from
    outside.
    """
    told: list[tuple[str, str]] = []
    async with clean_node() as node:
        pid = await start(node, kind)
        await sys.count(pid)
        await sys.trace(pid, lambda e: told.append((e.kind, type(e.message).__name__)))
        cast(pid, Do("1", keep(Insert(Internal(Do("i"))))))
        await settle()
        found = await sys.statistics(pid)

    assert told == [
        ("in", "Cast"),
        ("out", "Cast"),
        ("in", "Internal"),
        ("out", "Internal"),
    ]
    assert found is not None
    assert (found.messages_in, found.messages_out) == (2, 2)


async def test_status_names_the_machine_and_what_format_status_shows(
    clean_node: CleanNode, kind: Kind
) -> None:
    """[gen_statem: format_status/1] It says what sys:get_status shows; without it,
    state and data.
    """

    class Shown(kind):  # type: ignore[misc, valid-type]
        def format_status(self, state: object) -> object:
            return {"in": state}

    async with clean_node() as node:
        pid = await start(node, Shown)
        status = await sys.get_status(pid)

    assert (status.behaviour, status.state) == ("Shown", {"in": "a"})


async def test_a_crash_report_shows_state_event_and_what_waits(
    clean_node: CleanNode, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    """[gen_statem: format_status()] A crash report has the state as format_status shows
    it, the events that wait and are postponed, and the time-outs that run.
    """

    def crash(_machine: Script, _state: str) -> Any:
        raise ValueError("x")

    def first(machine: Script, _state: str) -> Any:
        machine.on_enter = {}
        return Keep(
            Insert(Internal(Do("boom", crash))),
            Insert(Internal(Do("never"))),
            StateTimeout.after(60.0),
            Timeout.after("retry", 60.0),
        )

    class Machine(kind):  # type: ignore[misc, valid-type]
        def format_status(self, state: object) -> object:
            return state, "data"

    async with clean_node() as node:
        pid = await start(node, Machine)
        cast(pid, Do("later", keep(Postpone())))
        cast(pid, Do("1", first))
        await wait_exit(pid)

    [report] = [r.getMessage() for r in caplog.records if "crashed" in r.message]
    lines = report.splitlines()
    assert lines[1:6] == [
        "last message: Internal(content=Do(label='boom'))",
        "state: ('a', 'data')",
        "postponed: [Cast(Do(label='later'))]",
        "inserted: [Internal(content=Do(label='never'))]",
        "time-outs: ['StateTimeout', 'retry']",
    ]


async def test_a_full_mailbox_lets_time_outs_in_and_drops_none(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    log: list[object] = []
    limit = MailboxLimit(1, Overflow.DROP_OLDEST)
    async with clean_node() as node:
        pid = await start(node, lambda: Script(log), mailbox=limit)
        await call(pid, Do("1", keep(Reply(1), Timeout.after("t", 1.0))))
        await sys.suspend(pid)
        await trio.sleep(2.0)
        send(pid, Do("2"))
        send(pid, Do("3"))
        await sys.resume(pid)
        await settle()

    assert ("a", Timeout("t")) in log


async def test_a_machine_with_a_task_hibernates_when_it_is_told_to(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    """[gen_statem: hibernate()] With hibernate the machine is put away until the next
      message; its time-outs run, and wake it.
    [gen_statem: Hibernation] With hibernate_after it is put away when no message has
      come for so long.
    """
    log: list[object] = []

    class AfterAWhile(AsyncScript):
        hibernate_after_s = 5.0

    async with clean_node() as node:
        pid = await start(node, lambda: AsyncScript(log))
        living = trio.lowlevel.current_statistics().tasks_living
        timer = Timeout.after("t", 60.0)
        assert await call(pid, Do("1", go("b", Reply(1), Hibernate(), timer))) == 1
        await settle()
        assert trio.lowlevel.current_statistics().tasks_living == living - 1
        await trio.sleep(61.0)
        assert done(log) == [("a", "Call", "1"), ("b", Timeout("t"))]
        assert await call(pid, Do("2", keep(Reply(2)))) == 2
        await settle()
        assert trio.lowlevel.current_statistics().tasks_living == living
        await start(node, AfterAWhile)
        living = trio.lowlevel.current_statistics().tasks_living
        await trio.sleep(11.0)
        assert trio.lowlevel.current_statistics().tasks_living == living - 1


@pytest.mark.parametrize("after_s", [0.0, -1.0, math.nan])
def test_a_machine_that_would_hibernate_at_once_is_refused(after_s: float) -> None:
    with pytest.raises(ValueError, match=r"Restless.hibernate_after_s=.*more than 0"):

        class Restless(StateMachine):
            hibernate_after_s = after_s


async def test_hibernation_waits_for_what_waits_inside(clean_node: CleanNode) -> None:
    """[gen_statem: hibernate()] It is not put away while an event waits inside."""
    log: list[object] = []
    async with clean_node() as node:
        pid = await start(node, lambda: AsyncScript(log))
        act = keep(Hibernate(), Insert(Internal(Do("i"))), EventTimeout.after(0, "e"))
        cast(pid, Do("1", act))
        await settle()

    assert done(log) == [("a", "Cast", "1"), ("a", "Internal", "i")]


def test_results_are_values() -> None:
    machine = Script()
    assert Next(machine.a, Postpone()) == Next(machine.a, Postpone())
    assert Next(machine.a) != Next(machine.b)
    assert Keep(Postpone()) != Keep()
    assert Keep() != Repeat()
    assert Keep() != 3
    assert Next(1) != 1
    shown = [repr(r) for r in (Next("a", Postpone()), Keep(), Repeat(Reply(1)))]
    assert shown == ["Next('a', Postpone())", "Keep()", "Repeat(Reply(value=1))"]
