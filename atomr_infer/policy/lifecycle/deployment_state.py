"""The states of a deployment: of its share on one node, and of the whole.

===========  ==============================================  ===============
state        means                                           left by
===========  ==============================================  ===============
pending      no node can run it                              placed
placing      a node shall run it, and has not begun          started
loading      its engine starts, or its endpoint is not       ready
             reached yet
serving      it takes requests                               broke, unplaced
draining     it takes no new ones; those that run may end    ended
stopped      it runs here no more                            placed
failed       its engine cannot be started here               placed, again
===========  ==============================================  ===============

A node keeps one for its own share (``step``), and tells the others; the state of
the whole is worked out from all of them, alike everywhere (``whole``): the best of
what its nodes say, as a deployment serves while one replica does.

Pure.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


class State(Enum):
    """Where a deployment is in its life."""

    PENDING = "pending"
    PLACING = "placing"
    LOADING = "loading"
    SERVING = "serving"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


class Event(Enum):
    """What happens to a node's share."""

    PLACED = "placed"
    UNPLACED = "unplaced"
    STARTED = "started"
    READY = "ready"
    WAITS = "waits"
    BROKE = "broke"
    ENDED = "ended"


TRANSITIONS: dict[State, dict[Event, State]] = {
    State.PENDING: {
        Event.PLACED: State.PLACING,
        Event.UNPLACED: State.STOPPED,
    },
    State.PLACING: {
        Event.STARTED: State.LOADING,
        # What is missing here is found before anything starts.
        Event.BROKE: State.FAILED,
        Event.UNPLACED: State.STOPPED,
    },
    State.LOADING: {
        Event.READY: State.SERVING,
        Event.BROKE: State.FAILED,
        Event.UNPLACED: State.DRAINING,
    },
    State.SERVING: {
        # An engine that died and is started again, an endpoint that is away.
        Event.WAITS: State.LOADING,
        Event.BROKE: State.FAILED,
        Event.UNPLACED: State.DRAINING,
    },
    State.DRAINING: {
        # Placed again before the last request had ended: it ends all the same.
        Event.ENDED: State.STOPPED,
    },
    State.STOPPED: {
        Event.PLACED: State.PLACING,
    },
    State.FAILED: {
        # Tried again after a while, or because it was changed.
        Event.PLACED: State.PLACING,
        Event.UNPLACED: State.STOPPED,
    },
}


class IllegalEventError(Exception):
    """An event that a state does not allow; nothing was changed.

    Attributes:
        state: the state.
        event: the event.
    """

    def __init__(self, state: State, event: Event) -> None:
        self.state = state
        self.event = event
        super().__init__(f"a deployment that is {state.value} was not {event.value}")


def step(state: State, event: Event) -> State:
    """Return the state after an event.

    Raises:
        IllegalEventError: the state does not allow it.

    >>> step(State.LOADING, Event.READY)
    <State.SERVING: 'serving'>
    """
    try:
        return TRANSITIONS[state][event]
    except KeyError as error:
        raise IllegalEventError(state, event) from error


HOLDS = frozenset({State.PLACING, State.LOADING, State.SERVING})
"""The states in which a share keeps its place, and its GPUs."""


def whole(shares: Collection[State], *, placed: bool, wanted: bool) -> State:
    """Return the state of a deployment.

    Args:
        shares: the states of the nodes' shares; of those that have one.
        placed: whether a node shall run it.
        wanted: False: it was removed.

    >>> whole([State.SERVING, State.FAILED], placed=True, wanted=True)
    <State.SERVING: 'serving'>
    >>> whole([], placed=False, wanted=True)
    <State.PENDING: 'pending'>
    """
    if not wanted:
        busy = HOLDS | {State.DRAINING}
        return State.DRAINING if busy & set(shares) else State.STOPPED
    for best in (State.SERVING, State.LOADING, State.PLACING):
        if best in shares:
            return best
    if placed:
        return State.PLACING
    return State.FAILED if State.FAILED in shares else State.PENDING
