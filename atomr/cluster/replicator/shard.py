"""One shard on one node: its log, the machine that replicates it, and its lives.

A log's life has an :class:`Origin` of its own: the node's name and a boot id that is
the log's.  It ends when peers say that it was away for too long, and another one
begins: empty, except for what the node owns, which is put again.

Which life of a log is a peer's present one, the peer itself says.  An owner in an
owned map *is in sight* while it is the present life of a node that is up and not
suspected; all others are hidden.

Pure: the clock, the generator and the boot ids are arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from atomr.cluster.replicator.changes import Changed, View
from atomr.cluster.replicator.frames import mark_of, says_same
from atomr.cluster.replicator.tail import Owned, Tail
from atomr.crdt import Event, EventLog, Origin, OwnedMap, Replicated, VersionVector
from atomr.gossip.replication import (
    Digest,
    Effect,
    Gone,
    PeerDown,
    PeerUp,
    Quorum,
    Received,
    Replication,
    Send,
    Woke,
    Wrote,
    digest_of,
)
from atomr.gossip.replication import Event as MachineEvent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr.cluster.replicator.options import ReplicatorOptions
    from atomr.gossip.membership.draw import Draw
    from atomr.gossip.replication import Frame

ReplicatedT = TypeVar("ReplicatedT", bound=Replicated)

_CHECK_S = 1.0
"""So often it is looked at who is gone."""
_TALK_S = 30.0
"""For so long digests are sent though all is equal: whoever is given up must be known
by all that are there, and what they said before does not count."""
_TOLD_S = 1.0
"""Who still asks after so long did not hear it, or heard something older last."""
_REFILL_S = 5.0
"""After a reset, for what peers have to come again before it counts as removed."""
_REST_S = 5.0
"""A round is due so seldom while all hold the same; of all shards at the same time."""


class Shard:
    """A shard, over all lives of its log.

    Attributes:
        number: which; from 0.
        log: of the present life.
        machine: replicates it.
        nodes: of each peer's present life of this log, the node.
        views: what is watched, by the id of the replica.
    """

    def __init__(
        self,
        number: int,
        origin: Origin,
        options: ReplicatorOptions,
        *,
        draw: Draw,
        now_s: float,
    ) -> None:
        self.number = number
        self.nodes: dict[Origin, Origin] = {}
        self.views: dict[str, View] = {}
        self._options = options
        self._draw = draw
        self._has_quorum = True
        self._check_at_s = now_s
        self._compare_at_s = float("inf")
        self._begin(origin, now_s)

    def _begin(self, origin: Origin, now_s: float) -> None:
        options = self._options
        self.tail = Tail(
            max_events=max(1, options.max_log_events // options.shards),
            max_bytes=max(1, options.max_log_bytes // options.shards),
        )
        self.log = EventLog(origin, tail=self.tail)
        self.machine = Replication(
            self.log,
            draw=self._draw,
            now_s=now_s,
            options=self._options.replication,
        )
        self._owned = Owned()
        self._opened: dict[tuple[type[Replicated], str], Replicated] = {}
        self._heard: dict[Origin, Digest] = {}
        self._owed: dict[Origin, VersionVector | None] = {}
        self._told: dict[Origin, tuple[Digest, float]] = {}
        self._absent: dict[Origin, float] = {}
        self._talk_until_s = now_s

    @property
    def origin(self) -> Origin:
        """The present life of the log here."""
        return self.log.origin

    @property
    def next_deadline_s(self) -> float:
        """When to be woken at the latest."""
        return self.machine.next_deadline_s

    def has_all_of(self, peer: Origin) -> bool:
        """Return whether all is known that a peer knew when it said so first.

        Args:
            peer: the present life of its log; it is up.
        """
        if peer not in self._owed:
            return True
        owed = self._owed[peer]
        if owed is None or self.machine.lacks(owed):
            return False
        del self._owed[peer]
        return True

    def open(self, kind: type[ReplicatedT], name: str) -> ReplicatedT:
        """Return the replica of that type and name.

        Raises:
            BadKeyError: it can be no name.
        """
        found = self._opened.get((kind, name))
        if found is None:
            found = self._opened[kind, name] = self.log.open(kind, name)
        assert isinstance(found, kind), "it is what it was opened as"
        return found

    # --- what happens ---------------------------------------------------------------

    def wrote(self, now_s: float) -> list[Effect]:
        """Return what is to be done after a replica was written to."""
        return self._act(Wrote(), now_s)

    def wake(self, now_s: float) -> list[Effect]:
        """Return what is to be done now."""
        effects: list[Effect] = []
        if now_s >= self._check_at_s:
            self._check_at_s = now_s + _CHECK_S
            effects += self._give_up(now_s)
        is_round = now_s >= self.machine.round_at_s
        effects += self._act(Woke(), now_s)
        if is_round and not effects and self._is_at_rest(now_s):
            # News, and peers that hold something else, end the rest.
            self.machine.round_at_s = (now_s // _REST_S + 1.0) * _REST_S
        return effects

    def _is_at_rest(self, now_s: float) -> bool:
        if now_s < self._talk_until_s:
            return False
        ours = digest_of(self.log, is_answer=True)
        return all(says_same(self._heard.get(peer), ours) for peer in self.nodes)

    def _rouse(self, now_s: float) -> None:
        soon_s = now_s + self._options.replication.round_s + self.machine.put_off_s
        self.machine.round_at_s = min(self.machine.round_at_s, soon_s)

    def receive(
        self, peer: Origin, frame: Frame, now_s: float, now_ms: int
    ) -> list[Effect]:
        """Return what is to be done after a frame.

        Args:
            peer: the life of the log that sent it.
            frame: decoded.
            now_s: the node's clock.
            now_ms: the wall's.
        """
        if isinstance(frame, Digest):
            # First: what is asked of a peer that knows more is not needless.
            self._heard[peer] = frame
            if self._owed.get(peer, frame) is None:
                self._owed[peer] = VersionVector(dict(frame.vector))
        effects = self._act(Received(peer, frame), now_s, now_ms)
        if isinstance(frame, Digest):
            ours = digest_of(self.log, is_answer=True)
            if not says_same(frame, ours):
                self._rouse(now_s)
            elif not self._is_told(peer, ours, now_s):
                # Else it would go on asking.
                effects.append(self._tell(peer, ours, now_s))
        return effects

    @property
    def mark(self) -> int:
        """What stands for the digest in an overview."""
        return mark_of(digest_of(self.log, is_answer=True))

    def compare(self, peer: Origin, *, is_equal: bool, now_s: float) -> list[Effect]:
        """Return what is to be done after an overview.

        Args:
            peer: the life of the log that sent it.
            is_equal: whether its mark is ours.
            now_s: our clock.
        """
        ours = digest_of(self.log, is_answer=False)
        if is_equal and not self.machine.must_hear(peer):
            self._heard[peer] = ours
            self._owed.pop(peer, None)
            return []
        self._rouse(now_s)
        return [self._tell(peer, ours, now_s)]

    def _tell(self, peer: Origin, ours: Digest, now_s: float) -> Effect:
        self._told[peer] = ours, now_s
        return Send(peer, ours)

    def _is_told(self, peer: Origin, ours: Digest, now_s: float) -> bool:
        told, at_s = self._told.get(peer, (None, now_s))
        return says_same(told, ours) and now_s - at_s < _TOLD_S

    def peer_up(self, peer: Origin, node: Origin, now_s: float) -> list[Effect]:
        """Begin to replicate with a peer's log.

        Args:
            peer: its present life.
            node: the node's.
            now_s: our clock.
        """
        self.nodes[peer] = node
        self._owed[peer] = None
        self._rouse(now_s)
        return self._act(PeerUp(peer), now_s)

    def peer_down(self, peer: Origin, now_s: float) -> list[Effect]:
        """Replicate with it no longer."""
        self.nodes.pop(peer, None)
        self._heard.pop(peer, None)
        self._owed.pop(peer, None)
        self._told.pop(peer, None)
        return self._act(PeerDown(peer), now_s)

    def quorum(self, now_s: float, *, is_held: bool) -> list[Effect]:
        """Note whether a majority of the voters is up."""
        if is_held and not self._has_quorum:
            # Whom we did not see meanwhile is looked for anew: we were away.
            self._absent.clear()
        self._has_quorum = is_held
        return self._act(Quorum(is_held), now_s)

    def _act(self, event: MachineEvent, now_s: float, now_ms: int = 0) -> list[Effect]:
        effects = self.machine.handle(event, now_s, now_ms=now_ms)
        if not effects:
            return effects
        return [e for e in effects if not self._is_needless(e, now_s)]

    def _is_needless(self, effect: Effect, now_s: float) -> bool:
        # Who has said that it knows and holds the same learns nothing from a digest;
        # as soon as it does not, its own digest says so, and an overview finds out.
        if not isinstance(effect, Send) or not isinstance(effect.frame, Digest):
            return False
        ours = effect.frame
        is_equal = says_same(self._heard.get(effect.to), ours)
        if is_equal and now_s >= self._talk_until_s:
            return True
        self._told[effect.to] = ours, now_s
        return False

    # --- lives ----------------------------------------------------------------------

    def reset(self, boot: int, now_s: float) -> list[Effect]:
        """Begin a new life of the log, with what the node owns and nothing else.

        Args:
            boot: its id.
            now_s: the node's clock.
        """
        before = self.log
        self._begin(Origin(before.origin.name, boot), now_s)
        for replica in before.replicas().values():
            if isinstance(replica, OwnedMap):
                self._put_again(replica, before.origin)
        for view in self.views.values():
            view.replaced(self.open(type(view.replica), view.name))
        effects = self._act(Quorum(self._has_quorum), now_s)
        for peer in self.nodes:
            self._owed[peer] = None
            effects += self._act(PeerUp(peer), now_s)
        self._compare_at_s = now_s + _REFILL_S
        return effects

    def _put_again(self, replica: OwnedMap, owner: Origin) -> None:
        name = replica.crdt_id.partition("/")[2]
        for key, owner_, value in replica.items():
            if owner_ == owner:
                self.open(OwnedMap, name).put(key, value)

    def heal(self, news: Iterable[Event], *, is_joined: bool) -> bool:
        """Put again what is the node's own and was removed by others.

        Args:
            news: events that were applied.
            is_joined: whether a snapshot was joined.

        Returns:
            Whether there was any.
        """
        lost = self._owned.lost(news, self.origin)
        if is_joined:
            lost += self._owned.absent(self.log)
        for crdt, key, value in lost:
            self.open(OwnedMap, crdt.partition("/")[2]).put(key, value)
        return bool(lost)

    def _give_up(self, now_s: float) -> list[Effect]:
        vector, absent = self.log.seen.vector, self._absent
        if not self._has_quorum:
            # Nobody is absent: we are.  Nor are they who come back one by one.
            absent.clear()
        for origin in [o for o in absent if o in self.nodes or o not in vector]:
            del absent[origin]
        names = {self.origin.name, *(origin.name for origin in self.nodes)}
        effects: list[Effect] = []
        for origin in list(vector):
            if origin != self.origin and origin not in self.nodes:
                since_s = absent.setdefault(origin, now_s)
                if self._is_overdue(now_s - since_s, is_restarted=origin.name in names):
                    absent[origin] = float("inf")
                    self._talk_until_s = now_s + _TALK_S
                    effects += self._act(Gone(origin), now_s)
        return effects

    def _is_overdue(self, absent_s: float, *, is_restarted: bool) -> bool:
        options = self._options
        if not self._has_quorum:
            return False
        if is_restarted:
            return absent_s >= options.retire_restarted_after_s
        return bool(options.voters) and absent_s >= options.retire_after_s

    # --- what is watched ------------------------------------------------------------

    def watch(
        self, kind: type[Replicated], name: str, sight: dict[Origin, Origin]
    ) -> None:
        """Begin to remember what watchers of a replica were told."""
        replica = self.open(kind, name)
        if replica.crdt_id not in self.views:
            self.views[replica.crdt_id] = View(name, replica, sight)

    def changes(self, news: Iterable[Event]) -> list[Changed]:
        """Return what watchers are to be told after events."""
        views = self.views
        if not views:
            return []
        return [
            changed
            for event in news
            if event.crdt in views
            for changed in views[event.crdt].touched(event.key)
        ]

    def is_refilled(self, now_s: float) -> bool:
        """Return whether it is time to compare all, once after a reset."""
        if now_s < self._compare_at_s:
            return False
        self._compare_at_s = float("inf")
        return True

    def joined(self) -> list[Changed]:
        """Return what watchers are to be told after a snapshot."""
        return [c for view in self.views.values() for c in view.joined()]

    def seen(self, owner: Origin, node: Origin | None) -> list[Changed]:
        """Return what watchers are to be told as an owner comes into sight or goes."""
        return [c for view in self.views.values() for c in view.seen(owner, node)]
