"""The engine of a state machine: which event is next, and which time-outs run.

The events wait in three places:

=============  =============================================================
the queue      inserted ones, and those that were postponed before the state
               changed; handled first
``zero``       time-outs of 0, in the order of their actions; handled when
               the queue is empty, and then before anything from outside
``postponed``  until the state changes
=============  =============================================================

One transition is: ``state`` is set to the next state, :meth:`Engine.note` is called
with each action, :meth:`Engine.settle` puts it all into effect.

Pure: the clock that arms timers is an argument.

Source: OTP ``gen_statem``, ``transition_option()``, and its user's guide.
"""

from __future__ import annotations

from math import inf
from typing import Protocol

from atomr.core.state_events import (
    AT,
    CANCEL,
    UPDATE,
    Enter,
    EventTimeout,
    Hibernate,
    Info,
    Insert,
    Internal,
    Postpone,
    SetTimeout,
    StateTimeout,
    Timeout,
    TimeoutKey,
    event_of,
)
from atomr.errors import BadActionError, short


class Armed(Protocol):
    """A timer that runs."""

    def cancel(self) -> object:
        """Let it not fire."""


class Clock(Protocol):
    """What arms timers."""

    def arm(self, timeout: RunningTimeout, time_s: float, *, absolute: bool) -> Armed:
        """Bring ``timeout`` to :meth:`Engine.fired` when it is time."""


class RunningTimeout:
    """One time-out that was started; another start makes another of these.

    Attributes:
        key: which one.
        content: for its event.
        timer: what will fire; None: a time-out of 0.
    """

    __slots__ = ("content", "key", "timer")

    def __init__(self, key: TimeoutKey, content: object) -> None:
        self.key = key
        self.content = content
        self.timer: Armed | None = None


class Engine:
    """The state of one machine, apart from its data.

    Attributes:
        state: the one that is, or that is entered.
        hibernates: whether the last transition asked for it.
        old: the state before this transition.
        queue: next event last.
        postponed: oldest first.
        timeouts: those that were started, by key.
        zero: keys of those of 0, next first.
    """

    __slots__ = (
        "_asked",
        "_clock",
        "_inserted",
        "_postpones",
        "hibernates",
        "old",
        "postponed",
        "queue",
        "state",
        "timeouts",
        "zero",
    )

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.state: object = None
        self.old: object = None
        self.queue: list[object] = []
        self.postponed: list[object] = []
        self.timeouts: dict[TimeoutKey, RunningTimeout] = {}
        self.zero: list[TimeoutKey] = []
        self._asked: dict[TimeoutKey, SetTimeout] = {}
        self._inserted: list[object] = []
        self._postpones = False
        self.hibernates = False

    def begin(self, state: object) -> None:
        """Set the first state; the state that it comes from is the same."""
        self.state = self.old = state

    # --- a transition ---------------------------------------------------------------

    def leaves_for(self, state: object) -> bool:
        """Return whether it would be a change of state."""
        return state is not self.state and state != self.state

    def note(self, action: object, event: object) -> None:
        """Note an action of the transition.

        Args:
            action: what to do.
            event: what the state was called with; None: nothing, at the start.

        Raises:
            BadActionError: it is none, or is not allowed on entering a state.
        """
        kind = type(action)
        if kind is SetTimeout:
            # The last counts, and stands where it was asked for.
            self._asked.pop(action.key, None)  # type: ignore[attr-defined]
            self._asked[action.key] = action  # type: ignore[attr-defined, assignment]
        elif kind is Postpone:
            _refuse_entering(action, event, "there is no event to postpone")
            self._postpones = event is not None
        elif kind is Insert:
            _refuse_entering(action, event, "entering a state inserts no events")
            if type(action.event) is Enter:  # type: ignore[attr-defined]
                raise BadActionError(action, event, "Enter is no event")
            self._inserted.append(action.event)  # type: ignore[attr-defined]
        elif kind is Hibernate:
            self.hibernates = True
        else:
            raise BadActionError(action, event, _no_action(action))

    def settle(self, event: object) -> None:
        """End the transition: put all that was noted into effect."""
        if self._postpones:
            self._postpones = False
            self.postponed.append(event)
        if self.timeouts:
            self.drop(EventTimeout)
        if self.old is not self.state:
            if self.old != self.state:
                self._change()
            self.old = self.state
        if self._asked:
            asked, self._asked = self._asked, {}
            for action in asked.values():
                self._set(action)
        if self._inserted:
            self.queue += reversed(self._inserted)
            self._inserted = []

    def _change(self) -> None:
        self.drop(StateTimeout)
        if self.postponed:
            self.queue += reversed(self.postponed)
            self.postponed = []

    # --- the next event -------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """Whether there is an event to handle before any from outside."""
        return bool(self.queue or self.zero)

    def next_event(self) -> object:
        """Take the next event; only while ``waiting``."""
        if self.queue:
            return self.queue.pop()
        key = self.zero.pop(0)
        return event_of(key, self.timeouts.pop(key).content)

    def fired(self, timeout: RunningTimeout) -> object:
        """Return the event of a timer that fired; None: it is cancelled since."""
        if self.timeouts.get(timeout.key) is not timeout:
            return None
        del self.timeouts[timeout.key]
        return event_of(timeout.key, timeout.content)

    # --- time-outs ------------------------------------------------------------------

    def drop(self, key: TimeoutKey) -> None:
        """Cancel a time-out, if it was started."""
        timeout = self.timeouts.pop(key, None)
        if timeout is None:
            return
        if timeout.timer is None:
            self.zero.remove(key)
        else:
            timeout.timer.cancel()

    def _set(self, action: SetTimeout) -> None:
        key, how = action.key, action.how
        if how is UPDATE and key in self.timeouts:
            self.timeouts[key].content = action.content
            return
        self.drop(key)
        if how is CANCEL or action.time_s == inf:
            return
        timeout = self.timeouts[key] = RunningTimeout(key, action.content)
        if how is not AT and action.time_s == 0:
            self.zero.append(key)
        else:
            absolute = how is AT
            timeout.timer = self._clock.arm(timeout, action.time_s, absolute=absolute)


def _refuse_entering(action: object, event: object, problem: str) -> None:
    if type(event) is Enter:
        raise BadActionError(action, event, problem)


def _no_action(action: object) -> str:
    remedy = ""
    if isinstance(action, StateTimeout | EventTimeout):
        # The event that it ends in was taken for what starts it.
        kind = type(action).__name__
        remedy = f"; use {kind}.after({_seconds(action)})"
    elif isinstance(action, Timeout):
        remedy = f"; use Timeout.after({short(action.name)}, {_seconds(action)})"
    elif isinstance(action, type):
        remedy = f"; use {action.__name__}()"
    elif isinstance(action, Internal | Info):
        remedy = f"; use Insert({short(action)})"
    return f"expected an action{remedy}"


def _seconds(event: StateTimeout | EventTimeout | Timeout) -> str:
    return "seconds" if event.content is None else short(event.content)
