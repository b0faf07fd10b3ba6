"""The server that runs a StateMachine: a GenServer that feeds the engine.

A message becomes an event, the state is called with it, and what it returns
goes into the :class:`~atomr.core.state_engine.Engine`.  If an event waits in
the engine then, the server goes on with it by ``continue_``: before the next
message, and after system messages.  So a machine is lean, is called on the
caller's stack, is looked into and is reported on like any GenServer.
"""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, Final

from atomr.core.messages import PassesBounds
from atomr.core.state_engine import Engine, RunningTimeout
from atomr.core.state_events import Enter, Info
from atomr.errors import BadActionError, BadReturnError, short
from atomr.otp.gen_server import GenServer
from atomr.otp.results import ABSENT, Fail, Ignore, NoReply, Ok, Reply, Stop
from atomr.otp.state_results import Call, Keep, Next, Repeat, ReplyTo
from atomr.process.behaviour import Startable, copy_of
from atomr.process.calls import Cast, From
from atomr.process.context import current_process

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from atomr.core.exits import ExitReason
    from atomr.otp.results import CallResult, CastResult, InitResult
    from atomr.otp.state_machine import StateMachine
    from atomr.process.process import Process
    from atomr.process.timers import Timer

_GO_ON: Final = NoReply(continue_=None)
DONE: Final = NoReply()
_REST: Final = NoReply(hibernate=True)

_NO_STATES: Final = frozenset(
    {*dir(Startable), "init", "handle_event", "terminate", "format_status"}
)
"""Methods that every machine has: called for something else than an event."""


class Fired(PassesBounds):
    """The message that a machine's timer sends it.

    Attributes:
        timeout: the time-out, which may be cancelled by the time this is read.
    """

    __slots__ = ("timeout",)

    def __init__(self, timeout: RunningTimeout) -> None:
        self.timeout = timeout

    def __repr__(self) -> str:
        return f"<Fired {self.timeout.key!r}>"


class MachineServer(GenServer):
    """Runs a machine none of whose methods is ``async def``."""

    def __init__(self, machine: StateMachine) -> None:
        self.machine = machine
        self.engine = Engine(self)
        self._by_methods = machine.states_are_methods
        self._enters = machine.enter_calls
        # A server's class says it; this one stands for the machine's.
        self.hibernate_after_s = machine.hibernate_after_s  # type: ignore[misc]

    # --- callbacks of the GenServer -------------------------------------------------

    def init(self) -> InitResult | Awaitable[InitResult]:
        """Run ``init``; what its actions do, and ``Enter``, come next."""
        return self.init_result(self.machine.init())

    def init_result(self, result: object) -> InitResult:
        """Take the first state."""
        if isinstance(result, Ignore | Stop):
            return result
        if type(result) is not Next:
            raise BadReturnError("init", result, "Next, Ignore or Stop")
        self._check_state(result, "init")
        self.engine.begin(result.state)
        if self._enters or result.actions:
            return Ok(continue_=result)
        return None

    def handle_call(
        self, request: object, from_: From
    ) -> CallResult | Awaitable[CallResult]:
        """Serve a ``Call``."""
        event = Call(request, from_)
        result = self.run(event)
        if not self.engine.timeouts:
            # The common case: the state stays, and the answer is at hand.
            answer: object = result
            if type(result) is Keep and len(result.actions) == 1:
                answer = result.actions[0]
            if type(answer) is Reply and answer.plain:
                return answer
        return self._finish(event, result) or DONE

    def handle_cast(self, message: object) -> CastResult | Awaitable[CastResult]:
        """Serve a ``Cast``."""
        return self._serve(Cast((message,)))

    def handle_info(self, message: object) -> CastResult | Awaitable[CastResult]:
        """Serve an ``Info`` or a time-out."""
        event = self.event_of(message)
        return None if event is None else self._serve(event)

    def handle_continue(
        self, continuation: Next | None
    ) -> CastResult | Awaitable[CastResult]:
        """Enter the first state, or serve the next event that waits inside."""
        if continuation is not None:
            return self._finish(None, continuation)
        process, event = self.take_waiting()
        result = self.run(event)
        stop = self._finish(event, result)
        self.taken(process, event, result)
        return stop

    def terminate(self, reason: ExitReason) -> Awaitable[None] | None:
        """Run ``terminate`` of the machine."""
        return self.machine.terminate(reason, self.engine.state)

    # --- events ---------------------------------------------------------------------

    def run(self, event: object) -> object:
        """Call the state."""
        if self._by_methods:
            return self.engine.state(event)  # type: ignore[operator]
        return self.machine.handle_event(event, self.engine.state)

    def event_of(self, message: object) -> object:
        """Return the event that a message is; None: a time-out that was cancelled."""
        if type(message) is not Fired:
            return Info(message)
        event = self.engine.fired(message.timeout)
        if event is not None:
            # A crash report is to show what it was about.
            current_process("a time-out").current = event
        return event

    def take_waiting(self) -> tuple[Process, object]:
        """Take the next event from inside, and tell who traces of it."""
        process = current_process("a state machine")
        event = process.current = self.engine.next_event()
        if process.debug is not None:
            process.debug.began(process, event)
        return process, event

    def taken(self, process: Process, event: object, result: object) -> None:
        """Note that an event from inside is done with."""
        if process.debug is not None:
            process.debug.ended(process, event, result)
        process.current = None

    def _serve(self, event: object) -> CastResult:
        result = self.run(event)
        if result is None and not self.engine.timeouts:
            return None
        return self._finish(event, result)

    def _finish(self, event: object, result: object) -> NoReply | Stop | None:
        step = self.take(event, result)
        while type(step) is Enter:
            step = self.take(step, self.run(step))
        return self.settled(event, step)

    def settled(
        self, event: object, step: Enter | Stop | None
    ) -> NoReply | Stop | None:
        """End the transition; return what the server is to do."""
        if isinstance(step, Stop):
            return step
        engine = self.engine
        engine.settle(event)
        rests, engine.hibernates = engine.hibernates, False
        if engine.waiting:
            return _GO_ON
        return _REST if rests else None

    # --- results --------------------------------------------------------------------

    def take(self, event: object, result: object) -> Enter | Stop | None:
        """Act on what a state returned.

        Args:
            event: what it was called with; None: the result is ``init``'s.
            result: what it returned.

        Returns:
            What the state is to be called with next, in this transition; a
            ``Stop``; or None: it was all.
        """
        kind = type(result)
        enters = False
        actions: tuple[object, ...] = ()
        if kind is Next:
            enters = self._go(event, result)  # type: ignore[arg-type]
            actions = result.actions  # type: ignore[attr-defined]
        elif kind is Keep or kind is Repeat:
            enters = kind is Repeat
            actions = result.actions  # type: ignore[attr-defined]
        elif kind is Reply or kind is Fail:
            actions = (result,)
        elif isinstance(result, Stop):
            return self._stop(event, result)
        elif result is not None or type(event) is Call:
            raise BadReturnError(self._state_text(), result, _expected(event))
        for action in actions:
            self._act(event, action)
        return Enter(self.engine.old) if enters and self._enters else None

    def _go(self, event: object, result: Next) -> bool:
        if event is None:
            return True
        if not self.engine.leaves_for(result.state):
            return False
        if type(event) is Enter:
            raise BadReturnError(self._state_text(), result, _expected(event))
        self._check_state(result, None)
        self.engine.state = result.state
        return True

    def _act(self, event: object, action: object) -> None:
        kind = type(action)
        if kind is ReplyTo:
            action.from_.reply(action.value)  # type: ignore[attr-defined]
        elif kind is Reply or kind is Fail:
            _answer(event, action)  # type: ignore[arg-type]
        else:
            self.engine.note(action, event)

    def _stop(self, event: object, stop: Stop) -> Stop:
        # At once, and so before ``terminate``: as gen_statem does, unlike gen_server.
        if stop.reply is not ABSENT:
            _caller(event, stop).reply(stop.reply)
            # Answered: an event from inside is a continuation, which nobody asked.
            return Stop(stop.reason)
        return stop

    def _check_state(self, result: Next, callback: str | None) -> None:
        if not self._by_methods:
            return
        state, expected = (
            result.state,
            f"a method of this {type(self.machine).__name__}",
        )
        if type(state) is not MethodType or state.__self__ is not self.machine:
            expected += " as state"
        elif state.__name__ in _NO_STATES:
            expected += f" that is a state: {state.__name__}() is a callback"
        else:
            return
        raise BadReturnError(callback or self._state_text(), result, expected)

    def _state_text(self) -> str:
        return f"state {short(name_of(self.engine.state))}"

    # --- the clock ------------------------------------------------------------------

    def arm(self, timeout: RunningTimeout, time_s: float, *, absolute: bool) -> Timer:
        """Let the process get :class:`Fired` when it is time."""
        process = current_process("a time-out")
        timers = process.node.timers

        def fire() -> None:
            process.deliver(Fired(timeout))

        timer = timers.at(time_s, fire) if absolute else timers.after(time_s, fire)
        process.own_timer(timer)
        return timer

    # --- for the process layer ------------------------------------------------------

    def process_label(self) -> str:
        """Return the machine's name."""
        return self.machine.process_label()

    def behaviour_name(self) -> str:
        """Return the name of the machine's class."""
        return self.machine.behaviour_name()

    def stops_gracefully(self, process: Process) -> bool:
        """Whether there is something to do before the end."""
        return process.trapping or self.machine.has_terminate

    def format_status(self) -> object:
        """Return what the machine shows."""
        return self.machine.format_status(name_of(self.engine.state))

    def crash_details(self) -> tuple[str, ...]:
        """Return a line for each place where events or time-outs wait."""
        engine = self.engine
        lines = []
        for text, events in (
            ("postponed", engine.postponed),
            ("inserted", engine.queue[::-1]),
            ("time-outs", [_key_text(key) for key in engine.timeouts]),
        ):
            if events:
                lines.append(f"{text}: {short(events)}")
        return tuple(lines)

    def system_state(self) -> object:
        """Return the state and a shallow copy of the instance."""
        machine = copy_of(self.machine)
        return _bound_to(machine, self.engine.state), machine

    def replace_system_state(self, process: Process, state: object) -> None:
        """Go on with another state and instance; it is no change of state."""
        match state:
            case (new, machine) if type(machine) is type(self.machine):
                pass
            case _:
                expected = f"expected a state and a {type(self.machine).__name__}"
                raise TypeError(f"replace_state: {expected}, not {short(state)}")
        new = _bound_to(machine, new)
        if self._by_methods and getattr(new, "__self__", None) is not machine:
            raise TypeError(f"replace_state: {short(new)} is no method of the machine")
        if self._by_methods and name_of(new) in _NO_STATES:
            raise TypeError(f"replace_state: {name_of(new)}() is no state")
        self.machine = machine
        self.engine.begin(new)


def name_of(state: object) -> object:
    """Return the name of a state that is a method, any other as it is."""
    return state.__name__ if type(state) is MethodType else state


def _bound_to(machine: StateMachine, state: object) -> object:
    if type(state) is MethodType and isinstance(state.__self__, type(machine)):
        return MethodType(state.__func__, machine)
    return state


def _key_text(key: object) -> object:
    return key[1] if isinstance(key, tuple) else getattr(key, "__name__", key)


def _answer(event: object, action: Reply | Fail) -> None:
    from_ = _caller(event, action)
    if not action.plain:
        problem = "only its value: continue_ and the like are for a GenServer"
        raise BadActionError(action, event, problem)
    if type(action) is Fail:
        from_.fail(action.error)
    else:
        from_.reply(action.value)  # type: ignore[union-attr]


def _caller(event: object, action: object) -> From:
    if type(event) is not Call:
        raise BadActionError(action, event, "there is no call to answer: use ReplyTo")
    return event.from_


def _expected(event: object) -> str:
    if type(event) is Enter:
        return "Keep, Repeat, Stop or None on entering a state"
    if type(event) is Call:
        return "Reply, Fail, Next, Keep, Repeat or Stop; Keep() to reply later"
    return "Next, Keep, Repeat, Stop or None"
