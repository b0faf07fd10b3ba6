"""Snapshots on their way: those that peers fetch here, and the one that we fetch.

The receiver asks for each part, so nothing is sent to who does not listen, and a
part that is lost is asked for again.  One snapshot is fetched at a time: a node that
begins with nothing would otherwise get it from everybody.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr.crdt.origin import Origin
from atomr.crdt.snapshots import Assembly, Chunk
from atomr.crdt.version_vector import VersionVector
from atomr.gossip.replication.events import Effect, Send
from atomr.gossip.replication.frames import AskSnapshot, SnapshotPart
from atomr.gossip.replication.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr.crdt import Replicated
    from atomr.gossip.replication.options import ReplicationOptions


_MOST_RETRIES = 4.0
"""A part that does not come is waited for so many times ``retry_s`` at most."""


@attrs.define
class _Outgoing:
    number: int
    chunks: tuple[Chunk, ...]
    used_at_s: float
    wait_s: float


class Outgoing:
    """Snapshots that peers fetch: one for each, and no longer than it is used."""

    __slots__ = ("_by_peer", "_keep_s", "_number", "_retry_s")

    def __init__(self, options: ReplicationOptions) -> None:
        self._by_peer: dict[Origin, _Outgoing] = {}
        self._number = 0
        self._keep_s = options.keep_s
        self._retry_s = options.retry_s

    def __len__(self) -> int:
        return len(self._by_peer)

    def is_fetching(self, peer: Origin, now_s: float) -> bool:
        """Return whether a peer asked for a part just now."""
        outgoing = self._by_peer.get(peer)
        return outgoing is not None and now_s - outgoing.used_at_s < outgoing.wait_s

    def offer(self, peer: Origin, chunks: tuple[Chunk, ...], now_s: float) -> Effect:
        """Return the first part of a new snapshot, for a peer."""
        self._number += 1
        self._by_peer[peer] = _Outgoing(self._number, chunks, now_s, self._retry_s)
        return Send(peer, SnapshotPart(self._number, chunks[0]))

    def offer_again(
        self, peer: Origin, known: VersionVector, now_s: float
    ) -> Effect | None:
        """Return the first part of the one that a peer has not asked more of.

        A slow one may be about to ask: a newer snapshot would have it begin again, and
        never come to an end.  It gets twice as long as the last time.

        Args:
            peer: who.
            known: what it says that it knows.
            now_s: the time.

        Returns:
            None: there is none from which it would learn anything.
        """
        outgoing = self._by_peer.get(peer)
        if outgoing is None:
            return None
        first = outgoing.chunks[0]
        if VersionVector(dict(first.vector)) <= known:
            return None
        outgoing.used_at_s = now_s
        outgoing.wait_s = min(2 * outgoing.wait_s, self._keep_s)
        return Send(peer, SnapshotPart(outgoing.number, first))

    def answer(self, peer: Origin, frame: AskSnapshot, now_s: float) -> list[Effect]:
        """Return the part that was asked for; nothing, if it is of no use any more."""
        outgoing = self._by_peer.get(peer)
        if outgoing is None or outgoing.number != frame.snapshot:
            return []
        if frame.part >= len(outgoing.chunks):
            return []
        outgoing.used_at_s, outgoing.wait_s = now_s, self._retry_s
        part = SnapshotPart(outgoing.number, outgoing.chunks[frame.part])
        return [Send(peer, part)]

    def drop(self, peer: Origin) -> None:
        """Forget the snapshot of a peer that is gone."""
        self._by_peer.pop(peer, None)

    def drop_unused(self, now_s: float) -> None:
        """Forget snapshots that nobody has asked for in a while."""
        for peer, outgoing in list(self._by_peer.items()):
            if now_s - outgoing.used_at_s > self._keep_s:
                del self._by_peer[peer]


@attrs.define
class Incoming:
    """The snapshot that we fetch.

    Attributes:
        peer: from whom.
        number: which of its snapshots.
        assembly: what is there.
        asked_at_s: when we asked for the next part.
        timeout: how long that takes to come.
        tries: how often we have asked again.
    """

    peer: Origin
    number: int
    assembly: Assembly
    asked_at_s: float
    timeout: Timeout
    tries: int = 0

    @classmethod
    def begin(
        cls,
        peer: Origin,
        part: SnapshotPart,
        options: ReplicationOptions,
        now_s: float,
        *,
        ours: Mapping[str, Replicated],
    ) -> Incoming:
        """Begin to fetch a snapshot, of which some part has come.

        Args:
            peer: from whom.
            part: any of it; to be added still.
            options: how long parts are waited for.
            now_s: the time.
            ours: the replicas here.

        Raises:
            MalformedError: it has no parts, or too many.
        """
        retry_s = options.retry_s
        timeout = Timeout(least_s=retry_s, most_s=_MOST_RETRIES * retry_s)
        assembly = Assembly(part.chunk, ours=ours)
        return cls(peer, part.snapshot, assembly, now_s, timeout)

    def is_older_than(self, sender: Origin, part: SnapshotPart) -> bool:
        """Return whether its sender has begun another one since."""
        return self.peer == sender and part.snapshot > self.number

    def add(self, chunk: Chunk, now_s: float) -> bool:
        """Add a part; return whether it was not there.

        Raises:
            MalformedError: it is of another snapshot, or holds what that has not seen.
        """
        before = self.assembly.next_number
        self.assembly.add(chunk)
        if self.assembly.next_number == before:
            return False
        if before and not self.tries:
            self.timeout.took(now_s - self.asked_at_s)
        self.tries = 0
        return True

    def is_due(self, now_s: float) -> bool:
        """Return whether it is time to ask again."""
        return now_s - self.asked_at_s >= self.timeout.wait_s

    def ask_again(self, now_s: float) -> Effect:
        """Return the question for the next part once more."""
        self.timeout.expired()
        self.tries += 1
        return self.ask(now_s)

    def ask(self, now_s: float) -> Effect:
        """Return the question for the next part."""
        self.asked_at_s = now_s
        return Send(self.peer, AskSnapshot(self.number, self.assembly.next_number))
