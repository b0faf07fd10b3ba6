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
from atomr.gossip.replication.events import Effect, Send
from atomr.gossip.replication.frames import AskSnapshot, SnapshotPart

if TYPE_CHECKING:
    from atomr.gossip.replication.options import ReplicationOptions


@attrs.define
class _Outgoing:
    number: int
    chunks: tuple[Chunk, ...]
    used_at_s: float


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
        return outgoing is not None and now_s - outgoing.used_at_s < self._retry_s

    def offer(self, peer: Origin, chunks: tuple[Chunk, ...], now_s: float) -> Effect:
        """Return the first part of a new snapshot, for a peer."""
        self._number += 1
        self._by_peer[peer] = _Outgoing(self._number, chunks, now_s)
        return Send(peer, SnapshotPart(self._number, chunks[0]))

    def answer(self, peer: Origin, frame: AskSnapshot, now_s: float) -> list[Effect]:
        """Return the part that was asked for; nothing, if it is of no use any more."""
        outgoing = self._by_peer.get(peer)
        if outgoing is None or outgoing.number != frame.snapshot:
            return []
        if frame.part >= len(outgoing.chunks):
            return []
        outgoing.used_at_s = now_s
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
        tries: how often.
    """

    peer: Origin
    number: int
    assembly: Assembly
    asked_at_s: float
    tries: int = 0

    @classmethod
    def begin(cls, peer: Origin, part: SnapshotPart, now_s: float) -> Incoming:
        """Begin to fetch a snapshot, of which some part has come.

        Raises:
            MalformedError: it has no parts, or too many.
        """
        return cls(peer, part.snapshot, Assembly(part.chunk), now_s)

    def ask(self, now_s: float) -> Effect:
        """Return the question for the next part."""
        self.asked_at_s = now_s
        return Send(self.peer, AskSnapshot(self.number, self.assembly.next_number))
