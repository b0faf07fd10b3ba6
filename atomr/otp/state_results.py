"""What the callbacks of a StateMachine get and may return.

=======================  ===================================================
``init``                 ``Next(state, *actions)``, ``Ignore``, ``Stop``
a state, for an event    ``Next``, ``Keep``, ``Repeat``, ``Stop``; None is
                         ``Keep()``, except for a call; ``Reply(value)`` and
                         ``Fail(error)`` are short for ``Keep`` with them
a state, for ``Enter``   ``Keep``, ``Repeat``, ``Stop``, None
=======================  ===================================================

Pure.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from atomr.core.state_events import (
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
)
from atomr.otp.results import Fail, Ignore, Reply, Stop
from atomr.process.calls import Cast, From


# Not frozen: one is made for each call.
@attrs.define
class Call:
    """A ``call``; whoever sent it waits for a reply.

    Attributes:
        request: what was asked.
        from_: where to reply, now or later.
    """

    request: object
    from_: From = attrs.field(repr=False)


@attrs.define
class ReplyTo:
    """The action that answers a call of earlier.

    Attributes:
        from_: of that call.
        value: the answer.
    """

    from_: From
    value: object


StateEvent: TypeAlias = (
    Call | Cast | Info | Internal | StateTimeout | EventTimeout | Timeout | Enter
)
"""What a state is called with."""

StateAction: TypeAlias = (
    Reply | Fail | ReplyTo | Postpone | Insert | SetTimeout | Hibernate
)
"""What may follow a state in ``Next``, ``Keep`` and ``Repeat``."""


class _WithActions:
    # Written by hand: one is made for each event.
    __slots__ = ("actions",)

    def __init__(self, *actions: StateAction) -> None:
        self.actions = actions

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return self.actions == other.actions

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.actions))})"


class Keep(_WithActions):
    """Stay in the state; from ``Next`` with the same state it differs in nothing."""

    __slots__ = ()


class Repeat(_WithActions):
    """Stay in the state, and call it with ``Enter`` again if that is on."""

    __slots__ = ()


class Next:
    """Go to a state.

    If it is another (``!=``), that is a *change of state*: postponed events
    are handled again, the state time-out is cancelled, and the new state is
    called with ``Enter`` if that is on.

    Attributes:
        state: a method of the machine, or any value with ``handle_event``.
        actions: in order.
    """

    __slots__ = ("actions", "state")
    __match_args__ = ("state",)

    def __init__(self, state: object, *actions: StateAction) -> None:
        self.state = state
        self.actions = actions

    def __eq__(self, other: object) -> bool:
        if type(other) is not Next:
            return NotImplemented
        return (self.state, self.actions) == (other.state, other.actions)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Next({', '.join(map(repr, (self.state, *self.actions)))})"


StateInitResult: TypeAlias = Next | Ignore | Stop
StateResult: TypeAlias = Next | Keep | Repeat | Stop | Reply | Fail | None
