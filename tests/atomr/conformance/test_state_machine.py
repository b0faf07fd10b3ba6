"""StateMachine: each result, what is a change of state, time-outs of 0, replies."""

from __future__ import annotations

from functools import partial
from itertools import permutations
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import trio
import trio.testing

from atomr.core.exits import NORMAL, SHUTDOWN, ExitReason
from atomr.errors import (
    BadReturnError,
    CallTimeoutError,
    ServerDownError,
    SystemMessageError,
)
from atomr.otp import (
    Call,
    Cast,
    Enter,
    EventTimeout,
    Fail,
    From,
    Hibernate,
    Info,
    Insert,
    Internal,
    Keep,
    Next,
    Postpone,
    Repeat,
    Reply,
    ReplyTo,
    Restart,
    StateMachine,
    StateTimeout,
    Stop,
    Timeout,
    call,
    cast,
    child,
    sys,
)
from atomr.process import link, receive, send, spawn, wait_exit
from atomr.process.task_process import TaskProcess
from tests.atomr.conformance.kit import (
    CRASH,
    DETAIL,
    LIVES,
    CleanNode,
    Log,
    collect,
    do,
    end_of,
    raising,
    reason_of,
    settle,
)

if TYPE_CHECKING:
    from atomr.process import Node
    from atomr.refs import Pid

Clock = trio.testing.MockClock


class ToldMachine(StateMachine, enter=True):
    """States are numbers; a message is what is to be done, or returned."""

    def __init__(self, log: Log, entering: Any = None, handles: Any = None) -> None:
        self.log = log
        self.entering = entering
        self.handles = handles
        self.counted = 0

    def init(self) -> Any:
        return Next(1 if self.handles is None else 0)

    def handle_event(self, event: Any, state: Any) -> Any:
        if self.handles is not None:
            return self.handles(event, state)
        match event:
            case Enter(old):
                self.log.append(("enter", old, state))
                return do(self.entering) if state == 2 else None
            case Call(job):
                return do(job, event.from_)
            case Cast(job) | Internal(job) | Info(job) if callable(job):
                return job(self, state)
        self.log.append((state, event))
        return None

    def terminate(self, reason: ExitReason, state: object) -> Any:
        self.log.append(("terminate", reason, state))


class ToldTaskMachine(ToldMachine):
    """The same in a task."""

    async def handle_event(self, event: Any, state: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return super().handle_event(event, state)


class ToldDormantMachine(ToldMachine):
    """The same, put away after each event, if nothing waits inside."""

    async def handle_event(self, event: Any, state: Any) -> Any:
        return _resting(event, super().handle_event(event, state))


def _resting(event: object, result: Any) -> Any:
    if type(result) is Next:
        return Next(result.state, *result.actions, Hibernate())
    if isinstance(result, Keep | Repeat):
        return type(result)(*result.actions, Hibernate())
    if isinstance(result, Reply | Fail):
        return Keep(result, Hibernate())
    return Keep(Hibernate()) if result is None and type(event) is not Call else result


Machine: TypeAlias = type[ToldMachine]
MACHINES: dict[str, Machine] = {
    "lean": ToldMachine,
    "task": ToldTaskMachine,
    "dormant": ToldDormantMachine,
}


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> Machine:
    """Run the test with a machine of each kind."""
    return MACHINES[request.param]


async def start(
    node: Node,
    machine: Machine,
    log: Log | None = None,
    entering: Any = None,
    handles: Any = None,
) -> Pid:
    """Start one that ends for itself, and let it go to sleep."""
    given = [] if log is None else log
    spec = child(
        lambda: machine(given, entering, handles), id="it", restart=Restart.TEMPORARY
    )
    pid = await node.start(spec)
    await settle()
    return pid


def acting(*actions: Any, to: object = None) -> Any:
    """Return a message that asks for these actions."""
    return lambda _machine, _state: Keep(*actions) if to is None else Next(to, *actions)


def noting(label: str, result: Any = None) -> Any:
    """Return a message that is logged with the state that handles it."""

    def act(machine: ToldMachine, state: object) -> Any:
        machine.log.append((state, label))
        return do(result, state)

    return act


def _told(error: object) -> object:
    return "bad return" if isinstance(error, BadReturnError) else error


async def _outcome(pid: Pid, request: Any) -> object:
    try:
        return ("reply", await call(pid, request, timeout_s=1.0))
    except ServerDownError as error:
        return ("down", _told(error.reason))
    except CallTimeoutError:
        return "waits"
    except ValueError as error:
        return ("raises", error)


# What a state returns for a call: what the caller gets, how the machine ends, and
# in which state it is then.
RESULTS: dict[str, tuple[Any, object, object, object]] = {
    "reply": (Reply(1), ("reply", 1), LIVES, 1),
    "reply none": (Keep(Reply(None)), ("reply", None), LIVES, 1),
    "go and reply": (Next(2, Reply(1)), ("reply", 1), LIVES, 2),
    "go without": (Next(2), "waits", LIVES, 2),
    "stay and reply": (Next(1, Reply(1)), ("reply", 1), LIVES, 1),
    "repeat and reply": (Repeat(Reply(1)), ("reply", 1), LIVES, 1),
    "keep": (Keep(), "waits", LIVES, 1),
    "postpone": (Keep(Postpone()), "waits", LIVES, 1),
    "fail": (Fail(CRASH), ("raises", CRASH), LIVES, 1),
    "stop": (Stop(), ("down", NORMAL), NORMAL, 1),
    "stop with a reason": (Stop(SHUTDOWN), ("down", SHUTDOWN), SHUTDOWN, 1),
    "stop with a crash": (Stop(CRASH), ("down", CRASH), CRASH, 1),
    "stop with reply": (Stop(DETAIL, reply=1), ("reply", 1), DETAIL, 1),
    "raise": (raising(CRASH), ("down", CRASH), CRASH, 1),
    "bad": ("bad", ("down", "bad return"), "bad return", 1),
    "none is bad": (None, ("down", "bad return"), "bad return", 1),
}


async def test_each_result_of_a_state(
    clean_node: CleanNode,
    autojump_clock: Clock,
    schedule: int,
    machine: Machine,
    way: str,
) -> None:
    """[gen_statem: event_handler_result()] next_state, keep_state and repeat_state with
      actions; the caller gets its reply, or waits.
    [gen_statem: state_callback_result()] stop ends the machine with its reason, normal
      if there is none; stop_and_reply replies as well.
    [gen_statem: terminate/3] It gets that reason, and the state that the machine was
      in.
    """
    got: dict[str, object] = {}
    async with clean_node() as node:
        for name, (result, _, _, _) in RESULTS.items():
            log: Log = []
            pid = await start(node, machine, log)
            ended = end_of(node, pid)
            outcome = await _outcome(pid, result)
            await settle()
            if ended() == LIVES:
                found: Any = await sys.get_state(pid)
                got[name] = (outcome, LIVES, found[0])
            else:
                _, reason, state = log[-1]
                assert reason is ended()
                got[name] = (outcome, _told(reason), state)
    assert got == {name: row[1:] for name, row in RESULTS.items()}


def _count(machine: ToldMachine, _state: object) -> Any:
    machine.counted += 1
    return Keep()


# What a state returns: whether postponed events come again, whether the state is
# entered, whether the state time-out runs on.
CHANGES: dict[str, tuple[Any, tuple[bool, bool, bool]]] = {
    "none": (lambda _m, _s: None, (False, False, True)),
    "keep": (acting(), (False, False, True)),
    "other data": (_count, (False, False, True)),
    "the same state": (acting(to=1), (False, False, True)),
    "an equal state": (acting(to=1.0), (False, False, True)),
    "repeat": (lambda _m, _s: Repeat(), (False, True, True)),
    "another state": (acting(to=2), (True, True, False)),
}


async def test_what_is_a_change_of_state(
    clean_node: CleanNode, autojump_clock: Clock, schedule: int, machine: Machine
) -> None:
    """[gen_statem: state()] Only a state that is another one is a change of state:
      postponed events come again, the state is entered, the state time-out is
      cancelled.
    [gen_statem: data()] A change of the data is none.
    [gen_statem: state_callback_result()] Of these, repeat_state does one thing: the
      state is entered.
    [gen_statem: state()] differs: states are the same when they are equal (`==`).
      Erlang tells 1 from 1.0; a language where `1 == 1.0 == True` would surprise more
      by doing so.
    """
    got: dict[str, object] = {}
    async with clean_node() as node:
        for name, (act, _) in CHANGES.items():
            log: Log = []
            pid = await start(node, machine, log)
            cast(pid, acting(StateTimeout.after(60.0)))
            cast(pid, noting("again", Keep(Postpone())))
            await settle()
            log.clear()
            cast(pid, act)
            await trio.sleep(61.0)
            entered = [entry for entry in log if entry[0] == "enter"]
            got[name] = (
                "again" in [what for _, what, *_ in log],
                entered != [],
                StateTimeout() in [what for _, what, *_ in log],
            )
    assert got == {name: effects for name, (_, effects) in CHANGES.items()}


async def test_one_result_may_answer_several_calls(
    clean_node: CleanNode, schedule: int, machine: Machine, way: str
) -> None:
    """[gen_statem: Reply to a call] One result may have several replies, and they are
    sent in the order in which they stand.
    """
    held: list[From] = []
    got: Log = []

    def keep(from_: From) -> Keep:
        held.append(from_)
        return Keep()

    async with clean_node() as node:
        pid = await start(node, machine)

        async def ask(n: int) -> None:
            got.append((n, await call(pid, keep)))

        def answer(from_: From) -> Next:
            replies = [ReplyTo(old, n) for n, old in enumerate(held)]
            return Next(2, *replies, Reply("last"))

        async with trio.open_nursery() as nursery:
            for n in range(3):
                nursery.start_soon(ask, n)
                await settle()
            assert await call(pid, answer) == "last"
    assert sorted(got) == [(0, 0), (1, 1), (2, 2)]


async def test_who_postpones_and_changes_the_state_handles_the_event_in_the_new_one(
    clean_node: CleanNode, schedule: int, machine: Machine
) -> None:
    """[gen_statem: transition_option()] The event is postponed before the state
    changes: it is handled again in the new state, after those that were postponed
    earlier and before those that wait.
    """
    log: Log = []

    def once(result: Any) -> Any:
        return lambda state: result if state == 1 else None

    async with clean_node() as node:
        pid = await start(node, machine, log)
        log.clear()
        cast(pid, noting("first", once(Keep(Postpone()))))
        cast(pid, noting("both", once(Next(2, Postpone()))))
        cast(pid, noting("waits"))
        await settle()
        assert log == [
            (1, "first"),
            (1, "both"),
            ("enter", 1, 2),
            (2, "first"),
            (2, "both"),
            (2, "waits"),
        ]


ZERO: dict[str, tuple[tuple[Any, ...], list[object]]] = {
    "alone": ((EventTimeout.after(0),), [EventTimeout()]),
    "an inserted event": (
        (EventTimeout.after(0), Insert(Internal("i"))),
        [Internal("i")],
    ),
    "a state time-out before it": (
        (StateTimeout.after(0), EventTimeout.after(0)),
        [StateTimeout()],
    ),
    "a state time-out after it": (
        (EventTimeout.after(0), StateTimeout.after(0)),
        [EventTimeout(), StateTimeout()],
    ),
    "another before it": (
        (Timeout.after("x", 0), EventTimeout.after(0)),
        [Timeout("x")],
    ),
    "all of a kind": (
        (Timeout.after("x", 0), StateTimeout.after(0), Timeout.after("y", 0)),
        [Timeout("x"), StateTimeout(), Timeout("y")],
    ),
    "asked for twice": (
        (Timeout.after("x", 0, 1), StateTimeout.after(0), Timeout.after("x", 0, 2)),
        [StateTimeout(), Timeout("x", 2)],
    ),
}


@pytest.mark.parametrize("name", ZERO)
async def test_time_outs_of_zero_wait_in_line_and_cancel_that_of_the_event(
    clean_node: CleanNode,
    autojump_clock: Clock,
    schedule: int,
    machine: Machine,
    name: str,
) -> None:
    """[gen_statem: event_timeout()] One of 0 comes only if nothing waits inside: also a
      time-out of 0 that was asked for before it cancels it.
    [gen_statem: transition_option()] Time-outs of 0 come in the order in which they
      were asked for, and before an event from outside that has come meanwhile.
    """
    actions, expected = ZERO[name]
    log: Log = []
    async with clean_node() as node:
        pid = await start(node, machine, log)
        log.clear()
        cast(pid, acting(*actions))
        send(pid, "outside")
        await trio.sleep(1.0)
        assert log == [(1, event) for event in [*expected, Info("outside")]]


ENTERING: dict[str, tuple[Any, object]] = {
    "none": (None, LIVES),
    "keep": (Keep(), LIVES),
    "its own state": (Next(2), LIVES),
    "hibernate": (Keep(Hibernate()), LIVES),
    "a time-out": (Keep(Timeout.after("x", 60.0)), LIVES),
    "another state": (Next(3), "bad return"),
    "back to the old one": (Next(1), "bad return"),
    "stop": (Stop(DETAIL), DETAIL),
    "raise": (raising(CRASH), CRASH),
    "bad": ("bad", "bad return"),
}


async def test_each_result_of_entering_a_state(
    clean_node: CleanNode, schedule: int, machine: Machine
) -> None:
    """[gen_statem: state_enter_result()] Who enters a state stays in it: a next state
      has to be that state; another one ends the machine.
    [gen_statem: enter_action()] hibernate and time-outs are allowed there.
    """
    got: dict[str, object] = {}
    async with clean_node() as node:
        for name, (entering, _) in ENTERING.items():
            log: Log = []
            pid = await start(node, machine, log, entering)
            ended = end_of(node, pid)
            cast(pid, acting(to=2))
            await settle()
            got[name] = _told(ended())
            # It is in the new state by then, whatever comes of it.
            assert log[1] == ("enter", 1, 2)
            assert [state for what, *_, state in log if what == "terminate"] == (
                [] if ended() == LIVES else [2]
            )
    assert got == {name: end for name, (_, end) in ENTERING.items()}


async def test_postponing_what_does_not_match_is_a_selective_receive(
    clean_node: CleanNode, schedule: int, machine: Machine
) -> None:
    """[gen_statem: Event postponing] To postpone what the state does not wait for, and
    to change the state for what it does, takes messages in the order in which a
    process does that receives them selectively.
    """
    sent = [("a", 1), ("b", 1), ("c", 1), ("a", 2), ("b", 2), ("c", 2)]
    for wanted in sorted({*permutations("abcab")}):
        by_machine: Log = []
        by_process: Log = []

        def wait(
            event: Any, state: Any, wanted: Any = wanted, got: Log = by_machine
        ) -> Any:
            if type(event) is not Info or state == len(wanted):
                return None
            message: Any = event.message
            if message[0] != wanted[state]:
                return Keep(Postpone())
            got.append(message)
            return Next(state + 1)

        async def receives(wanted: Any = wanted, got: Log = by_process) -> None:
            for tag in wanted:

                def matches(message: Any, tag: str = tag) -> bool:
                    return bool(message[0] == tag)

                got.append(await receive(matches))

        async with clean_node() as node:
            by_hand = spawn(receives)
            pid = await start(node, machine, handles=wait)
            for each in sent:
                send(pid, each)
                send(by_hand, each)
            await wait_exit(by_hand)
            await settle()
        assert by_machine == by_process
        assert len(by_machine) == len(wanted)


async def test_a_machine_that_is_put_away_is_awake_for_events_only(
    clean_node: CleanNode, schedule: int
) -> None:
    """[gen_statem: transition_option()] In hibernation the next message wakes the
    machine; after a system message it goes back.
    """

    async with clean_node() as node:
        pid = await start(node, ToldTaskMachine)
        process = node.processes[pid.number]
        assert isinstance(process, TaskProcess)
        assert await call(pid, Keep(Reply(1), Hibernate())) == 1
        await settle()
        assert process.hibernating
        for ask in (sys.get_state, sys.get_status, sys.statistics):
            await ask(pid)
            await settle()
            assert process.hibernating
        assert await call(pid, Next(2, Reply(2))) == 2
        await settle()
        assert not process.hibernating


@pytest.mark.parametrize("reason", [SHUTDOWN, DETAIL, CRASH])
async def test_the_end_of_a_machine_reaches_its_links_and_the_log(
    clean_node: CleanNode,
    schedule: int,
    machine: Machine,
    caplog: pytest.LogCaptureFixture,
    reason: ExitReason,
) -> None:
    """[gen_statem: Server termination] Linked processes get a signal with its reason.
    [gen_statem: terminate/3] An error is logged unless the reason is normal, shutdown
      or a shutdown with detail.
    """
    async with clean_node() as node:
        pid = await start(node, machine)
        linked = spawn(collect, [], partial(link, pid))
        await settle()
        act = partial(cast, pid, lambda _m, _s: Stop(reason))
        assert await reason_of(linked, act) is reason
    errors = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert len(errors) == (1 if reason is CRASH else 0)


async def test_a_format_status_that_fails_shows_nothing_of_the_data(
    clean_node: CleanNode, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    """[gen_statem: format_status/1] When it fails the crash report says so, and shows
      nothing of state and data, which may be secret.
    [gen_statem: format_status/1] differs: who asks for the status is told of the
      failure. Erlang shows the state without the data.
    """

    class Hides(machine):  # type: ignore[misc, valid-type]
        def format_status(self, state: object) -> object:
            raise KeyError("no such field")

    async with clean_node() as node:
        pid = await start(node, Hides, ["secret"])
        with pytest.raises(SystemMessageError, match="no such field"):
            await sys.get_status(pid)
        assert await call(pid, Reply(1)) == 1
        cast(pid, raising(CRASH))
        assert await wait_exit(pid) is CRASH
    [report] = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert "state: <format_status failed: KeyError('no such field')>" in report
    assert "secret" not in report
