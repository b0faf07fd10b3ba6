"""All limits of one node, by name.

Pure: times are arguments, in seconds of the node's monotonic clock.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Protocol

from atomr.gossip.escrow.frames import Frame, Open, Refused, Voting
from atomr.gossip.escrow.limit import Mode
from atomr.gossip.escrow.member import UNKNOWN, Member, Past
from atomr.gossip.escrow.outcomes import Effect, Granted, Mark, Outcome, Send
from atomr.gossip.escrow.seats import Seats
from atomr.gossip.escrow.soft import SoftLimit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr.crdt.origin import Origin
    from atomr.gossip.escrow.limit import Limit
    from atomr.gossip.escrow.seat import Seat

_NEVER = float("inf")


class _Part(Protocol):
    """What a node does for one limit, whatever its mode."""

    next_deadline_s: float

    @property
    def overrun(self) -> int: ...
    def used(self, now_s: float) -> int: ...
    def retry_after_s(self, permits: int, now_s: float) -> float: ...
    def take(self, permits: int, now_s: float, *, expected: bool) -> Granted | None: ...
    def expect(self, permits: int) -> None: ...
    def acquire(self, permits: int, now_s: float) -> Outcome: ...
    def settle(self, granted: Granted, used: int, *, now_s: float) -> None: ...
    def resize(self, limit: Limit, now_s: float) -> list[Effect]: ...
    def advance(self, now_s: float) -> list[Effect]: ...
    def receive(self, sender: str, frame: Frame, now_s: float) -> list[Effect]: ...
    def persisted(self, mark: Mark) -> None: ...


class Escrow:
    """The permits of one node, under any number of limits.

    Attributes:
        due_s: when :meth:`advance` is due, or earlier: for who looks often.
            :attr:`next_deadline_s` is exact.
    """

    __slots__ = (
        "_due",
        "_heap",
        "_limits",
        "_me",
        "_order",
        "_parts",
        "_seat_of",
        "_seats",
        "due_s",
    )

    def __init__(self, me: Origin, *, voted_until_s: float = -_NEVER) -> None:
        """Start without limits.

        Args:
            me: this life of this node.
            voted_until_s: an earlier life may have voted until then, whatever the
                ``past`` of limits says.
        """
        self._me = me
        self._seats = Seats(me, voted_until_s=voted_until_s)
        self._seat_of: dict[str, Seat] = {}
        self._parts: dict[str, _Part] = {}
        self._limits: dict[str, Limit] = {}
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._order = 0
        self.due_s = _NEVER

    def add(self, limit: Limit, now_s: float, *, past: Past = UNKNOWN) -> None:
        """Take part in a limit.

        Args:
            limit: its terms, the same on all nodes.
            now_s: by the node's clock.
            past: what is known of earlier lives; the less, the longer it takes
                until what they may have used is free.

        Raises:
            ValueError: the limit is there already.
        """
        name = limit.name
        if name in self._parts:
            raise ValueError(f"add({name!r}): it is there already")
        part: _Part
        if limit.mode is Mode.SOFT:
            part = SoftLimit(limit, name=self._me.name, boot=self._me.boot)
        else:
            quiet_at_s = now_s - past.quiet_s
            seat = self._seats.use(limit, now_s, quiet_at_s=quiet_at_s)
            self._seat_of[name] = seat
            part = Member(limit, self._me, past=past, now_s=now_s, seat=seat)
            self.due_s = min(self.due_s, self._seats.next_deadline_s)
        self._parts[name] = part
        self._limits[name] = limit
        self._due[name] = _NEVER
        self._schedule(name, part)

    def resize(self, limit: Limit, now_s: float) -> Sequence[Effect]:
        """Take other terms of a limit; what was used, or lent, stays so.

        Args:
            limit: its terms from now on.
            now_s: by the node's clock.

        Raises:
            KeyError: there is no such limit here.
            ValueError: the terms differ in more than the number of permits and how
                they are divided (:meth:`Limit.may_become`); nothing was changed.
        """
        name = limit.name
        part = self._parts[name]
        if not self._limits[name].may_become(limit):
            raise ValueError(f"resize({name!r}): expected the same but for its permits")
        self._limits[name] = limit
        effects = part.resize(limit, now_s)
        self._schedule(name, part)
        return effects

    def remove(self, name: str, now_s: float) -> None:
        """Take no part any more; what is lent comes back when its lease has lapsed.

        Raises:
            KeyError: there is no such limit here.
        """
        del self._parts[name]
        del self._limits[name]
        del self._due[name]
        seat = self._seat_of.pop(name, None)
        if seat is not None:
            self._seats.leave(seat, now_s)

    def overrun(self, name: str) -> int:
        """Return how many permits of a limit were used beyond what was granted.

        Raises:
            KeyError: there is no such limit here.
        """
        return self._parts[name].overrun

    def used(self, name: str, *, now_s: float) -> int:
        """Return how many permits of a limit are locked here; of a soft one, in all.

        Raises:
            KeyError: there is no such limit here.
        """
        return self._parts[name].used(now_s)

    def home(self, name: str) -> str:
        """Return which node lends a limit's permits, as far as is known here.

        Empty for a soft one, which nobody lends.

        Raises:
            KeyError: there is no such limit here.
        """
        if name not in self._parts:
            raise KeyError(name)
        seat = self._seat_of.get(name)
        return "" if seat is None else seat.home

    def retry_after_s(self, name: str, permits: int, *, now_s: float) -> float:
        """Return when there may be as many permits here, as a ``Denied`` would say.

        Raises:
            KeyError: there is no such limit here.
        """
        return self._parts[name].retry_after_s(permits, now_s)

    # --- use ------------------------------------------------------------------------

    def take(
        self, name: str, permits: int, *, now_s: float, expected: bool = False
    ) -> Granted | None:
        """Use permits that are here; nobody is asked for more.

        Args:
            name: of the limit.
            permits: at least 1.
            now_s: by the node's clock.
            expected: True where :meth:`expect` has counted them.

        Returns:
            None when there are not as many here.

        Raises:
            KeyError: there is no such limit here.
            ValueError: ``permits`` is not at least 1.
        """
        part = self._parts[name]
        if permits < 1:
            raise _too_few(name, permits)
        granted = part.take(permits, now_s, expected=expected)
        if part.next_deadline_s < self._due[name]:
            self._schedule(name, part)
        return granted

    def expect(self, name: str, permits: int) -> None:
        """Count permits that somebody waits for and will acquire with ``expected``.

        How much is lent to this node depends on what it is asked for, and those who
        wait in a queue have asked.

        Raises:
            KeyError: there is no such limit here.
            ValueError: ``permits`` is not at least 1.
        """
        part = self._parts[name]
        if permits < 1:
            raise _too_few(name, permits)
        part.expect(permits)

    def acquire(
        self, name: str, permits: int, *, now_s: float, expected: bool = False
    ) -> Outcome:
        """Use permits of a limit, from now on.

        Read :attr:`next_deadline_s` afterwards, as after each call.

        Args:
            name: of the limit.
            permits: at least 1; what is not used in the end goes back with
                :meth:`settle`.
            now_s: by the node's clock.
            expected: True where :meth:`expect` has counted them.

        Returns:
            ``Granted``, ``Denied``, or ``Asking`` if the home must be asked.

        Raises:
            KeyError: there is no such limit here.
            ValueError: ``permits`` is not at least 1.
        """
        part = self._parts[name]
        if permits < 1:
            raise _too_few(name, permits)
        if not expected:
            part.expect(permits)
        outcome = part.acquire(permits, now_s)
        if part.next_deadline_s < self._due[name]:
            self._schedule(name, part)
        return outcome

    def settle(self, name: str, granted: Granted, used: int, *, now_s: float) -> None:
        """Say how many of the granted permits were used; the others are free again.

        A second time it does nothing.  More than were granted is locked as far
        as there is anything to lock, and else counted (:meth:`overrun`).

        Raises:
            KeyError: there is no such limit here.
            ValueError: ``used`` is negative.
        """
        if used < 0:
            raise ValueError(f"settle({name!r}, used={used!r}): expected at least 0")
        self._parts[name].settle(granted, used, now_s=now_s)

    # --- events ---------------------------------------------------------------------

    @property
    def next_deadline_s(self) -> float | None:
        """When :meth:`advance` is due; None: not before something else happens."""
        heap, due = self._heap, self._due
        while heap and due.get(heap[0][2]) != heap[0][0]:
            heappop(heap)
        due_s = heap[0][0] if heap else _NEVER
        seats_s = self._seats.next_deadline_s
        if seats_s < due_s:
            due_s = seats_s
        self.due_s = due_s
        return None if due_s == _NEVER else due_s

    def advance(self, now_s: float) -> Sequence[Effect]:
        """Do what is due."""
        effects = self._seats.advance(now_s)
        for name in self._take_due(now_s):
            part = self._parts[name]
            effects += part.advance(now_s)
            self._schedule(name, part)
        return effects

    def receive(self, sender: str, frame: Frame, now_s: float) -> Sequence[Effect]:
        """Handle a frame of another node; ``sender`` is who it is known to be."""
        if isinstance(frame, Voting):
            return self._seats.receive(sender, frame, now_s)
        name = frame.limit
        part = self._parts.get(name)
        if part is None:
            return _unknown(sender, frame)
        effects = part.receive(sender, frame, now_s)
        self._schedule(name, part)
        return effects

    def persisted(self, mark: Mark) -> None:
        """A mark of the use log has been written and synced."""
        part = self._parts.get(mark.limit)
        if part is not None:
            part.persisted(mark)

    def _schedule(self, name: str, part: _Part) -> None:
        due_s = part.next_deadline_s
        if due_s < self._due[name]:
            self._due[name] = due_s
            self._order += 1
            if due_s < self.due_s:
                self.due_s = due_s
            heappush(self._heap, (due_s, self._order, name))

    def _take_due(self, now_s: float) -> list[str]:
        """Take the limits that are due off the heap, in order."""
        heap = self._heap
        names = []
        while heap and heap[0][0] <= now_s:
            due_s, _, name = heappop(heap)
            if self._due.get(name) == due_s:
                self._due[name] = _NEVER
                names.append(name)
        return names


def _too_few(name: str, permits: int) -> ValueError:
    return ValueError(f"acquire({name!r}, {permits!r}): expected at least 1")


def _unknown(sender: str, frame: Frame) -> list[Effect]:
    if not isinstance(frame, Open):
        return []
    return [Send(sender, Refused(frame.limit, 0, frame.boot, frame.nonce))]
