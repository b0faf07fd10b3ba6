"""What the simulator drives: a node without I/O, and what happens to it.

A node is a state machine.  It is told what happened and what its clock says,
and answers with what it wants done:

- an effect that has ``to`` (a node's name) and ``message`` is sent,
- any other effect is a fact, which observers see and nobody acts on.

Between two events nothing of a node runs, so whatever it returns is done at
once, in order.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeAlias

import attrs

from atomr.testing.simulation.disk import Disk


@attrs.frozen
class Received:
    """A message has come; whether its sender still lives is not known.

    Attributes:
        sender: name of the node that sent it.
        message: as sent, or decoded from what was encoded.
    """

    sender: str
    message: Any


@attrs.frozen
class Woke:
    """The time of ``next_deadline_s`` has come."""


@attrs.frozen
class LinkReset:
    """The system says that the peer's process has ended; it may have a new one.

    Attributes:
        peer: its name.
        boot: of the life that has ended.
    """

    peer: str
    boot: int


Event: TypeAlias = Received | Woke | LinkReset

WOKE = Woke()
"""The only one that is needed: it says nothing."""


class Node(Protocol):
    """A node without I/O; ``now_s`` is its own monotonic clock, in seconds."""

    @property
    def next_deadline_s(self) -> float | None:
        """When it wants to be woken at the latest; None: at no time."""
        ...

    def start(self, now_s: float) -> Iterable[object]:
        """Return the effects of the node's start; called once, before all else."""
        ...

    def handle(self, event: Event, now_s: float) -> Iterable[object]:
        """Return the effects of an event.

        A node that has no use for an event returns nothing.  Being woken too
        early or too late is to be expected, as are messages of peers that are
        long dead, twice, and in any order.
        """
        ...


@attrs.frozen
class Sent:
    """The plainest effect that is sent; any class with these two fields will do.

    Attributes:
        to: name of the node that shall get it.
        message: what it gets; without a codec the very object, so never changed
            after it was sent.
    """

    to: str
    message: object


@attrs.frozen(eq=False)
class Boot:
    """One life of a node: what a factory makes the node of.

    Attributes:
        name: stays over restarts.
        boot: 64 bits, greater than those of all lives that began earlier.
        names: of all nodes, this one among them, in the order they were added.
        random: the life's own generator, so that what one node draws does not
            change what another one does.
        disk: what earlier lives wrote, unless the disk was lost.
        wall_s: makes wall time, in seconds, of the node's monotonic time; wrong
            by as much as the scenario says.
    """

    name: str
    boot: int
    names: tuple[str, ...]
    random: random.Random
    disk: Disk
    wall_s: Callable[[float], float]


Factory: TypeAlias = Callable[[Boot], Node]


@attrs.frozen
class Codec:
    """How messages become bytes and come back.

    With one, nodes share no objects, sizes are known, and what does not survive
    the wire is found.

    Attributes:
        encode: message to bytes.
        decode: bytes to message.
    """

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
