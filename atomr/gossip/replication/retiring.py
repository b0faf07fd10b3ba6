"""When an origin's entry leaves the vector, and who has to begin anew.

An origin that is gone for good is *buried* first, by the smallest of the living: what
it owned is dropped, and what it counted is put under another dot, as ordinary events.
When everybody alive knows its last event, and nothing that it added lives, each node
drops it, and remembers that for a week.

A node that comes back and was itself retired meanwhile, or knows more of a retired
origin than those who retired it, must reset: drop all, take a new boot id,
and put again what it owns.  So must a node that had no majority for a week: others
may have forgotten what it still remembers.

Without a majority nothing is retired, so of two sides of a cut one goes on, and
the other one waits.  Nor is anything while a node is away for a short time only: it
may know more of who is gone than all others, and would have to reset.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.gossip.replication.events import Effect, Retired

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from atomr.crdt import EventLog, Origin, VersionVector
    from atomr.gossip.replication.options import ReplicationOptions

MAX_RETIRED = 1_024
"""The latest that are remembered: all are in each digest."""

_CHECK_S = 1.0
"""Looking for what an origin added takes as long as there are keys."""


class Retiring:
    """The origins of one log that are gone, or are to go."""

    __slots__ = (
        "_away_s",
        "_away_since_s",
        "_check_at_s",
        "_forget_s",
        "_gone",
        "_has_quorum",
        "_log",
        "_lost_at_s",
        "_reset_s",
        "_retired_at_s",
    )

    def __init__(self, log: EventLog, options: ReplicationOptions) -> None:
        self._log = log
        self._forget_s = options.forget_s
        self._reset_s = options.reset_s
        self._away_s = options.away_s
        self._away_since_s: dict[str, float] = {}
        self._has_quorum = True
        self._lost_at_s: float | None = None
        self._gone: dict[Origin, set[Origin]] = {}
        self._retired_at_s: dict[Origin, float] = {}
        self._check_at_s = float("-inf")

    def quorum(self, now_s: float, *, is_held: bool) -> None:
        """Note whether a majority is on our side."""
        if is_held:
            # Who was without for too long stays so, until it was told to reset.
            if not self.must_reset(now_s):
                self._lost_at_s = None
        elif self._lost_at_s is None:
            self._lost_at_s = now_s
        self._has_quorum = is_held

    def must_reset(self, now_s: float) -> bool:
        """Return whether we were without a majority for too long."""
        return self._lost_at_s is not None and now_s - self._lost_at_s > self._reset_s

    def was_away(self, peer: Origin, vector: VersionVector) -> bool:
        """Return whether a peer was away for longer than the dead are waited for."""
        retired = self._log.retired
        return peer in retired or any(vector[o] > seq for o, seq in retired.items())

    def gone(self, origin: Origin) -> None:
        """Note that an origin is gone for good."""
        if origin != self._log.origin and origin not in self._log.retired:
            self._gone.setdefault(origin, set())

    def back(self, peer: Origin) -> None:
        """Note that an origin is there after all."""
        self._gone.pop(peer, None)

    def heard(self, peer: Origin) -> None:
        """Note that a peer has just told what it knows."""
        for heard in self._gone.values():
            heard.add(peer)

    def must_hear(self, peer: Origin) -> bool:
        """Return whether it has not told what it knows since somebody was gone."""
        return any(peer not in heard for heard in self._gone.values())

    def learn(
        self, retired: Iterable[tuple[Origin, int]], peers: Collection[Origin]
    ) -> None:
        """Note what a peer has retired: it is gone here too.

        Unless it is a peer of ours: whoever lost sight of it is wrong, and asks it to
        begin anew; until it has, it is as alive as before.
        """
        vector = self._log.seen.vector
        for origin, seq in retired:
            if seq and seq == vector.get(origin, 0) and origin not in peers:
                self.gone(origin)

    def check(
        self, peers: Mapping[Origin, VersionVector], now_s: float
    ) -> list[Effect]:
        """Retire whom nothing holds back any more."""
        if now_s < self._check_at_s or not (self._gone or self._log.retired):
            return []
        self._check_at_s = now_s + _CHECK_S
        self._forget(now_s)
        if not self._has_quorum or self._is_somebody_away(peers, now_s):
            return []
        return [
            effect for o in list(self._gone) for effect in self._try(o, peers, now_s)
        ]

    def _is_somebody_away(
        self, peers: Mapping[Origin, VersionVector], now_s: float
    ) -> bool:
        """Return whether a node that was here not long ago has no life here now.

        It may know more of who is gone than all that are here, and would have to
        begin anew when it is back, though it was away for a moment only.
        """
        here = {self._log.origin.name, *(peer.name for peer in peers)}
        away = {
            origin.name
            for origin in self._log.seen.vector
            if origin.name not in here and origin not in self._gone
        }
        since_s = self._away_since_s
        for name in since_s.keys() - away:
            del since_s[name]
        return any(
            now_s - since_s.setdefault(name, now_s) < self._away_s for name in away
        )

    def _forget(self, now_s: float) -> None:
        # Some were learned from a snapshot: their week begins when they are seen.
        for origin in list(self._log.retired):
            if now_s - self._retired_at_s.setdefault(origin, now_s) > self._forget_s:
                del self._retired_at_s[origin]
                self._log.forget(origin)
            self._gone.pop(origin, None)
        # In the order in which they were retired here; most are of nodes that crash
        # again and again, and whose earlier lives nobody will hear of.
        for origin in list(self._log.retired)[:-MAX_RETIRED]:
            self._retired_at_s.pop(origin, None)
            self._log.forget(origin)

    def _try(
        self, origin: Origin, peers: Mapping[Origin, VersionVector], now_s: float
    ) -> list[Effect]:
        log = self._log
        if not any(peer < log.origin for peer in peers):
            log.bury(origin)
        last = log.seen.vector.get(origin, 0)
        # Neither more nor less: a last event that few know must reach all first.
        # What a peer told before the origin was gone may be too old to say so.
        heard = self._gone[origin]
        if any(p not in heard or known[origin] != last for p, known in peers.items()):
            return []
        if not log.retire(origin):
            return []
        del self._gone[origin]
        self._retired_at_s[origin] = now_s
        return [Retired(origin)]
