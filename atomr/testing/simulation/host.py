"""The place where a node lives, one life after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atomr.testing.simulation.disk import Disk

if TYPE_CHECKING:
    from atomr.testing.simulation.clocks import Clock
    from atomr.testing.simulation.links import Link
    from atomr.testing.simulation.node import Factory, Node


class Host:
    """A machine: its clock, its disk, its links, and the node that runs there.

    Attributes:
        name: of the node, in each life.
        factory: makes it.
        clock: of the machine; goes on while the node is down.
        disk: what a life leaves to the next.
        links: from here, by the name of the other end.
        node: None: down.
        is_paused: whether it runs but does nothing.
        deadline_s: the node's, by its own clock, as of its latest event.
        inbox: what waits for the end of a pause.
        lives: how many have begun.
        boot: id of the latest life.
        wake_at_s: true time of the earliest wake in the heap, of this life.
        woke_at_s: true time of the latest wake.
        storm: how many there were at that instant.
        sent: messages, over all lives.
        sent_bytes: their sizes; 0 without a codec.
        handled: events, over all lives.
    """

    __slots__ = (
        "boot",
        "clock",
        "deadline_s",
        "disk",
        "factory",
        "handled",
        "inbox",
        "is_paused",
        "links",
        "lives",
        "name",
        "node",
        "sent",
        "sent_bytes",
        "storm",
        "wake_at_s",
        "woke_at_s",
    )

    def __init__(self, name: str, factory: Factory, clock: Clock) -> None:
        """Start without a node."""
        self.name = name
        self.factory = factory
        self.clock = clock
        self.disk = Disk()
        self.links: dict[str, Link] = {}
        self.node: Node | None = None
        self.deadline_s: float | None = None
        self.is_paused = False
        self.inbox: list[Any] = []
        self.lives = 0
        self.boot = 0
        self.wake_at_s = float("inf")
        self.woke_at_s = float("-inf")
        self.storm = 0
        self.sent = 0
        self.sent_bytes = 0
        self.handled = 0

    def lose_disk(self) -> None:
        """Find nothing of earlier lives."""
        self.disk = Disk()
