"""What happens to a state machine, and what it asks its engine to do.

An event is a small value that a state matches on.  The time-outs are events and
make their own actions: ``StateTimeout.after(10.0, "lock")`` starts the timer
that ends in the event ``StateTimeout("lock")``.

Pure.

Source: OTP ``gen_statem``, ``event_type()`` and ``action()``.
"""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum
from math import isnan
from typing import TypeAlias

import attrs

TimeoutKey: TypeAlias = "type[object] | tuple[type[object], Hashable]"
"""Two time-outs with one key replace each other."""


# Not frozen: one is made for each message, and freezing costs more than the rest.
@attrs.define
class Info:
    """Any message that is neither called nor cast: sent, ``Down``, ``Exit``.

    Attributes:
        message: what was sent.
    """

    message: object


@attrs.define
class Internal:
    """An event from the machine to itself, by ``Insert``; never from outside.

    Attributes:
        content: what it was inserted with.
    """

    content: object = None


@attrs.define
class Enter:
    """The machine enters the state; no event, but a call before the next one.

    Attributes:
        old: the state that it comes from; the same state at the start and
            after ``Repeat``.
    """

    old: object


@attrs.define
class _OneTimeout:
    # There is one of the kind; those with names are a class of their own.
    content: object = None

    @classmethod
    def after(cls, seconds: float, content: object = None) -> SetTimeout:
        """Start it anew: ``seconds`` from now; 0: see :class:`SetTimeout`.

        Raises:
            ValueError: ``seconds`` is negative, or no number.
        """
        return SetTimeout(cls, _How.AFTER, _checked(seconds), content)

    @classmethod
    def at(cls, time: float, content: object = None) -> SetTimeout:
        """Start it anew: at ``time`` on trio's clock; one that is past is now."""
        return SetTimeout(cls, _How.AT, _number(time), content)

    @classmethod
    def update(cls, content: object) -> SetTimeout:
        """Give the running one another content; as ``after(0)`` if none runs."""
        return SetTimeout(cls, _How.UPDATE, 0.0, content)

    @classmethod
    def cancel(cls) -> SetTimeout:
        """Let it not happen, if it runs."""
        return SetTimeout(cls, _How.CANCEL)


@attrs.define
class StateTimeout(_OneTimeout):
    """The machine was in one state for the time that it asked for.

    Cancelled by a change of state.

    Attributes:
        content: what the time-out was started with.
    """


@attrs.define
class EventTimeout(_OneTimeout):
    """No event came for the time that the machine asked for.

    Cancelled by whatever event is next: received, retried or inserted.  So
    none runs while a state is called.

    Attributes:
        content: what the time-out was started with.
    """


@attrs.define
class Timeout:
    """A time-out with a name is over, whatever happened meanwhile.

    Attributes:
        name: tells it from others; anything that can be hashed.
        content: what the time-out was started with.
    """

    name: Hashable
    content: object = None

    @classmethod
    def after(
        cls, name: Hashable, seconds: float, content: object = None
    ) -> SetTimeout:
        """Start it anew: ``seconds`` from now; 0: see :class:`SetTimeout`.

        Raises:
            ValueError: ``seconds`` is negative, or no number.
        """
        return SetTimeout((cls, name), _How.AFTER, _checked(seconds), content)

    @classmethod
    def at(cls, name: Hashable, time: float, content: object = None) -> SetTimeout:
        """Start it anew: at ``time`` on trio's clock; one that is past is now."""
        return SetTimeout((cls, name), _How.AT, _number(time), content)

    @classmethod
    def update(cls, name: Hashable, content: object) -> SetTimeout:
        """Give the running one another content; as ``after(0)`` if none runs."""
        return SetTimeout((cls, name), _How.UPDATE, 0.0, content)

    @classmethod
    def cancel(cls, name: Hashable) -> SetTimeout:
        """Let it not happen, if it runs."""
        return SetTimeout((cls, name), _How.CANCEL)


class _How(Enum):
    AFTER = "after"
    AT = "at"
    UPDATE = "update"
    CANCEL = "cancel"


def _number(time: float) -> float:
    if isnan(time):
        raise ValueError(f"a time-out at {time!r}: expected a time")
    return time


def _checked(seconds: float) -> float:
    if not seconds >= 0:
        raise ValueError(f"a time-out after {seconds!r} s: expected 0 or more")
    return seconds


# --- actions ----------------------------------------------------------------------


@attrs.define
class SetTimeout:
    """Start, change or cancel a time-out; made by the time-out's own class.

    A time of 0 starts no timer: the event comes after those that wait in the
    machine already, and before any that was not received yet.  An infinite
    time is the same as ``cancel``.  Of several with one key in a transition
    the last counts.

    Attributes:
        key: which time-out.
        how: what to do with it.
        time_s: seconds from now, or a time on trio's clock.
        content: of the event.
    """

    key: TimeoutKey
    how: _How
    time_s: float = 0.0
    content: object = None


@attrs.frozen
class Postpone:
    """Put the event aside until the state changes, then handle it again.

    Allowed for each event; after ``init`` it does nothing, as there is no event.
    """


@attrs.frozen
class Hibernate:
    """Put the machine's task away until the next message, if it has one.

    Nothing happens when an event waits inside.  See
    :attr:`atomr.otp.GenServer.hibernate_after_s` for what it saves.
    """


@attrs.define
class Insert:
    """Handle ``event`` next, before all that wait.

    Several are handled in the order in which they stand.

    Attributes:
        event: any event; ``Internal(...)`` is one that cannot come from outside.
    """

    event: object


def event_of(key: TimeoutKey, content: object) -> object:
    """Return the event of a time-out that is over."""
    if key is StateTimeout:
        return StateTimeout(content)
    if key is EventTimeout:
        return EventTimeout(content)
    assert isinstance(key, tuple), "the third kind has names"
    return Timeout(key[1], content)


AFTER, AT, UPDATE, CANCEL = _How.AFTER, _How.AT, _How.UPDATE, _How.CANCEL
