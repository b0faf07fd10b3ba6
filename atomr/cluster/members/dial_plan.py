"""Whom to dial, and when: lower names dial, failures wait longer and longer.

There are two kinds of targets.  A *member* that is taken to run is wanted for as long
as it is: the node with the lower name dials at once, and the other one only when that
has not happened for a while, as where one direction is closed.  An *errand* is one try
for one frame: to a seed, or to a member that is held dead; the membership comes back
with another one by itself.

Pure: the time and the generator are arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from atomr.gossip.membership.draw import Draw

MAX_DIALS = 64
"""At once; members may name addresses that nobody answers at."""

MAX_WANTED = 56
MAX_ERRANDS = 32
"""Of these: members that nobody answers at leave room to ask the seeds and the dead,
without whom an island stays one; nor do errands take all."""

PACE_S = 0.005
"""So long nobody is dialed after a dial was begun, for each: thousands of addresses
that nobody answers at shall not keep a node busy."""

PATIENCE_S = 3.0
"""How long the higher name waits for the lower one to dial."""

STABLE_S = 5.0
"""A link that lived so long was well; one that ends sooner counts as a failure."""

_NEVER = float("inf")


@attrs.frozen
class Target:
    """What can be dialed.

    Attributes:
        address: where.
        name: whom; None: whoever is there.
    """

    address: str
    name: str | None


@attrs.define
class _Wanted:
    """A member's tries.

    Attributes:
        target: the member.
        at: when the next one is due; infinity while there is a link.
        failures: in a row.
        linked_at: since when there is a link; None: there is none.
    """

    target: Target
    at: float
    failures: int = 0
    linked_at: float | None = None


class DialPlan:
    """The targets of one node.

    Attributes:
        dialing: those that are being dialed.
    """

    __slots__ = (
        "_draw",
        "_errands",
        "_first_s",
        "_most_s",
        "_own",
        "_rests_until",
        "_running",
        "_wanted",
        "dialing",
    )

    def __init__(
        self, own: str, *, draw: Draw, redial_s: float, max_redial_s: float
    ) -> None:
        """Want nobody yet.

        Args:
            own: this node's name.
            draw: for the jitter.
            redial_s: wait after the first failure; doubles with each.
            max_redial_s: the longest.
        """
        self._own = own
        self._draw = draw
        self._first_s = redial_s
        self._most_s = max_redial_s
        self._wanted: dict[str, _Wanted] = {}
        self._errands: dict[Target, None] = {}
        self._running: set[Target] = set()
        self._rests_until = -_NEVER
        self.dialing: set[Target] = set()

    # --- what is wanted ---------------------------------------------------------------

    def want(self, name: str, address: str, now_s: float) -> None:
        """Want a link with a member that is taken to run."""
        target = Target(address, name)
        wanted = self._wanted.get(name)
        if wanted is None:
            self._wanted[name] = _Wanted(target, now_s + self._patience_s(name))
        elif wanted.target != target:
            wanted.target = target
            wanted.failures = 0
            if wanted.linked_at is None:
                wanted.at = now_s + self._patience_s(name)

    def release(self, name: str) -> None:
        """Want none with that member any longer."""
        self._wanted.pop(name, None)

    def run_errand(self, target: Target) -> None:
        """Dial once, unless that is under way or the member is wanted anyhow."""
        if target not in self.dialing and target.name not in self._wanted:
            self._errands[target] = None

    # --- what happens -----------------------------------------------------------------

    def linked(self, name: str, now_s: float) -> None:
        """Note that there is a link with that node, whoever has dialed."""
        wanted = self._wanted.get(name)
        if wanted is not None and wanted.linked_at is None:
            wanted.linked_at = now_s
            wanted.at = _NEVER

    def unlinked(self, name: str, now_s: float) -> None:
        """Note that there is none any more."""
        wanted = self._wanted.get(name)
        if wanted is None or wanted.linked_at is None:
            return
        lived_s, wanted.linked_at = now_s - wanted.linked_at, None
        wanted.failures = 0 if lived_s >= STABLE_S else wanted.failures + 1
        # The peer may have opened another one in its place.
        wait_s = self._wait_s(max(1, wanted.failures))
        wanted.at = now_s + self._patience_s(name) + wait_s

    def ended(self, target: Target, now_s: float) -> None:
        """Note that a dial has come to its end; without a link it has failed."""
        self.dialing.discard(target)
        self._running.discard(target)
        wanted = self._wanted.get(target.name or "")
        if wanted is None or wanted.target != target or wanted.linked_at is not None:
            return
        wanted.failures += 1
        wanted.at = now_s + self._wait_s(wanted.failures)

    # --- what is due ------------------------------------------------------------------

    def due(self, now_s: float) -> list[Target]:
        """Return whom to dial now, and take them as being dialed."""
        if now_s < self._rests_until:
            return []
        due = [
            wanted
            for wanted in self._wanted.values()
            if wanted.at <= now_s and wanted.target not in self.dialing
        ]
        # Who has waited longest first: not the same ones again and again.
        due.sort(key=lambda wanted: wanted.at)
        chosen = [wanted.target for wanted in due[: self._room_for_wanted]]
        room = min(self._room_for_errands, self._room - len(chosen))
        errands = list(self._errands)[:room]
        for target in (*chosen, *errands):
            self._errands.pop(target, None)
        self.dialing.update(chosen, errands)
        self._running.update(errands)
        self._rests_until = now_s + PACE_S * len(chosen + errands)
        return chosen + errands

    @property
    def _room(self) -> int:
        return MAX_DIALS - len(self.dialing)

    @property
    def _room_for_wanted(self) -> int:
        wanted = len(self.dialing) - len(self._running)
        return max(0, min(self._room, MAX_WANTED - wanted))

    @property
    def _room_for_errands(self) -> int:
        return max(0, min(self._room, MAX_ERRANDS - len(self._running)))

    @property
    def due_at(self) -> float:
        """When somebody is due; infinity: never, or no sooner than a dial ends."""
        if self._errands and self._room_for_errands:
            return self._rests_until
        if not self._room_for_wanted:
            return _NEVER
        at = min(
            (w.at for w in self._wanted.values() if w.target not in self.dialing),
            default=_NEVER,
        )
        return max(at, self._rests_until)

    def _patience_s(self, name: str) -> float:
        if self._own < name:
            return 0.0
        return PATIENCE_S * (1.0 + self._draw.random())

    def _wait_s(self, failures: int) -> float:
        """Return a wait between half and the whole of what the failures ask for."""
        most_s = min(self._most_s, self._first_s * 2.0 ** min(failures - 1, 60))
        return most_s * (1.0 + self._draw.random()) / 2.0
