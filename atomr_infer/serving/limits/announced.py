"""Which rate limits there are on any node, so that those who keep them know them all.

A limit is lent by one of the voters, whichever its name falls to: that one has to know
it, though it serves nothing that has it.  So each node says in a map that all share
which limits it uses, and each voter takes part in all that are there.

What nobody uses any more is kept for as long as its last uses count.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs
import msgspec
import trio

from atomr.cluster.permits import Limit, Mode, Past
from atomr.cluster.replicator import NotReplicatingError
from atomr_infer.serving.limits.own_entries import OwnEntries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from atomr.cluster.permits import PermitService
    from atomr_infer.serving.node import ServingNode

log = logging.getLogger(__name__)

_MAP = "rate limits"
_MARGIN = 1.1
_LINGER_S = 10.0


class Terms(msgspec.Struct, frozen=True):
    """A limit, as a node says it to the others."""

    name: str
    permits: int
    window_s: float
    floor_fraction: float
    mode: str


@attrs.define
class _Gone:
    """A limit that is used no more.

    Attributes:
        since_s: since when, in trio's clock.
    """

    since_s: float


class AnnouncedLimits(OwnEntries):
    """A part of a node: takes part in the limits that are used on any node.

    Attributes:
        service: has the permits.
        past: what is known of this node's uses; None: what the node says itself.
        followed: limits that other nodes use.
    """

    def __init__(self, node: ServingNode, service: PermitService) -> None:
        super().__init__(node, _MAP)
        self.service = service
        self.past: Past | None = None
        self.followed: frozenset[str] = frozenset()
        self._mine: dict[str, Limit] = {}
        self._gone: dict[str, _Gone] = {}
        self._known: set[str] = set()

    # --- limits of this node ----------------------------------------------------------

    def use(self, limit: Limit, *, past: Past | None = None) -> None:
        """Take part in a limit that this node uses; again with other terms: replace it.

        Args:
            limit: its terms.
            past: what is known of this node's uses of it; None: what the node knows.
        """
        name = limit.name
        if self._gone.pop(name, None) is not None or self._there(name) is not None:
            self._renew(limit)
        else:
            self.service.add(limit, past=self._past(limit) if past is None else past)
        self._known.add(name)
        self._mine[name] = limit
        self._tell()

    def leave(self, name: str) -> None:
        """Use a limit no more; it is there for as long as its uses count."""
        del self._mine[name]
        self._gone[name] = _Gone(trio.current_time())
        self._tell()

    def _renew(self, limit: Limit) -> None:
        if self._there(limit.name) != limit:
            self.service.replace(limit)

    def _there(self, name: str) -> Limit | None:
        return self.service.limit(name)

    def _past(self, limit: Limit) -> Past | None:
        """Return what is known of a limit's uses; None: nothing."""
        if limit.name in self._known:
            return None
        return self._node.past(limit) if self.past is None else self.past

    def others(self) -> Iterator[tuple[Limit, tuple[str, ...]]]:
        """Yield the limits that other nodes use and this one does not, with the nodes.

        Nothing, while the replicator is away.
        """
        found: dict[str, tuple[Limit, list[str]]] = {}
        try:
            for _, owner, value in self._map.items():
                limit = self._limit(value)
                if limit is not None and limit.name not in self._mine:
                    found.setdefault(limit.name, (limit, []))[1].append(owner.name)
        except NotReplicatingError:
            return
        for limit, nodes in found.values():
            yield limit, tuple(sorted(nodes))

    # --- what is said, and what is heard ----------------------------------------------

    def _entries(self) -> Mapping[str, Terms]:
        return {name: _terms(limit) for name, limit in self._mine.items()}

    def _follow(self) -> None:
        """Take part in what others use, and in nothing that nobody does."""
        if self._node.name not in self._node.voters:
            self._end_gone(set())
            return
        used: dict[str, Limit] = {}
        for _, _, value in self._map.items():
            limit = self._limit(value)
            if limit is not None:
                used.setdefault(limit.name, limit)
        now_s = trio.current_time()
        self.followed = frozenset(used.keys() - self._mine.keys())
        for name in self.followed:
            limit = used[name]
            if self._there(name) is None:
                self.service.add(limit, past=self._past(limit))
                self._known.add(name)
            else:
                self._renew(limit)
            self._gone.pop(name, None)
        for limit in self.service.limits:
            if limit.name not in used and limit.name not in self._mine:
                self._gone.setdefault(limit.name, _Gone(now_s))
        self._end_gone(set(used))

    def _end_gone(self, used: set[str]) -> None:
        now_s = trio.current_time()
        for name, gone in list(self._gone.items()):
            limit = self._there(name)
            if name in used or limit is None:
                del self._gone[name]
            elif now_s - gone.since_s > limit.window_s * _MARGIN + _LINGER_S:
                del self._gone[name]
                self.service.remove(name)
                self._known.discard(name)

    def _limit(self, value: object) -> Limit | None:
        try:
            terms = msgspec.convert(value, Terms)
            return Limit(
                terms.name,
                terms.permits,
                terms.window_s,
                voters=self._node.voters,
                floor_fraction=terms.floor_fraction,
                mode=Mode(terms.mode),
            )
        except (msgspec.ValidationError, ValueError) as error:
            log.warning("a node has a rate limit that makes no sense: %s", error)
            return None


def _terms(limit: Limit) -> Terms:
    return Terms(
        name=limit.name,
        permits=limit.permits,
        window_s=limit.window_s,
        floor_fraction=limit.floor_fraction,
        mode=limit.mode.value,
    )
