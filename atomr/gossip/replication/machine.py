"""Replication of one shard as a state machine: events in, frames and facts out.

Two ways lead to every peer.  A *push* carries what was just written, to all or some;
it is fast, and may be lost.  A *round* sends what we know to a random peer, which
answers with what we lack, and with what it knows when it lacks something; it is
slow, and makes good whatever was lost.

No peer has a queue here, and nothing waits for an answer: a peer that is dead, slow
or cut off costs nothing, and is brought up from the log when it is back.  Of what is
under way to a peer only its end is remembered, so that a slow one is not sent the
same again for each of its digests.

Pure: the clocks and the generator are arguments.

Source: Demers et al., "Epidemic Algorithms for Replicated Database Maintenance",
1987; van Renesse et al., "Efficient Reconciliation and Flow Control for Anti-Entropy
Protocols", 2008.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.crdt import Batch, EventLog, MalformedError, Origin, Took, VersionVector
from atomr.gossip.replication.answers import Answers
from atomr.gossip.replication.events import (
    Applied,
    Diverged,
    Effect,
    Event,
    Gone,
    Joined,
    MustReset,
    PeerDown,
    PeerUp,
    Quorum,
    Received,
    Send,
    Suspicious,
    Woke,
    Wrote,
)
from atomr.gossip.replication.frames import (
    AskSnapshot,
    Digest,
    Events,
    Push,
    Reset,
    SnapshotPart,
    digest_of,
)
from atomr.gossip.replication.options import ReplicationOptions
from atomr.gossip.replication.retiring import Retiring
from atomr.gossip.replication.transfers import Incoming, Outgoing

if TYPE_CHECKING:
    from atomr.gossip.membership.draw import Draw

_NEVER = float("inf")
_DEFAULTS = ReplicationOptions()


class Replication:
    """The replicator of one log.

    Attributes:
        log: of the shard.
        options: how fast, how much.
        peers: who is alive, each with what it last said that it knows.
        push_at_s: when what was written is sent; infinity: nothing was.
        received: events that came, how often they were new or known.
        round_at_s: when the next round is due, unless there are news before; whoever
            knows by other ways that all peers hold the same may put it off.
        put_off_s: rounds come by so much later; for whoever runs this and is behind
            its time: what it would ask for waits to be read.
    """

    __slots__ = (
        "_answers",
        "_asked_at_s",
        "_asked_peer",
        "_busy_rounds",
        "_draw",
        "_incoming",
        "_outgoing",
        "_pushed",
        "_retiring",
        "_told",
        "log",
        "options",
        "peers",
        "push_at_s",
        "put_off_s",
        "received",
        "round_at_s",
    )

    def __init__(
        self,
        log: EventLog,
        *,
        draw: Draw,
        now_s: float,
        options: ReplicationOptions = _DEFAULTS,
    ) -> None:
        self.log = log
        self.options = options
        self.peers: dict[Origin, VersionVector] = {}
        self.received = {"applied": 0, "known": 0, "dropped": 0, "refused": 0}
        self.put_off_s = 0.0
        self._draw = draw
        self._retiring = Retiring(log, options)
        self._answers = Answers(log, options)
        self._outgoing = Outgoing(options)
        self._incoming: Incoming | None = None
        self._pushed = log.written
        self.push_at_s = _NEVER
        self.round_at_s = now_s + options.round_s * draw.random()
        self._told = log.tail.total
        self._busy_rounds = 0
        self._asked_peer: Origin | None = None
        self._asked_at_s = -_NEVER

    @property
    def next_deadline_s(self) -> float:
        """When to be woken at the latest."""
        return min(self.push_at_s, self.round_at_s)

    def wait_s(self, peer: Origin) -> float:
        """Return for how long what a peer was sent is on its way; the peer is up."""
        return self._answers.wait_s(peer)

    def must_hear(self, peer: Origin) -> bool:
        """Whether a peer's digest is waited for, be it the same as ours."""
        return self._retiring.must_hear(peer)

    def handle(self, event: Event, now_s: float, *, now_ms: int = 0) -> list[Effect]:
        """Return what is to be done after an event, in that order.

        Args:
            event: what happened.
            now_s: the node's monotonic clock.
            now_ms: its wall's, to see stamps from too far ahead; 0: unknown.
        """
        effects = self._respond(event, now_s, now_ms)
        if self.log.written > self._pushed and self.push_at_s == _NEVER:
            self.push_at_s = now_s + self.options.push_s
        # Not while others write: many writes in one turn go out together.
        if not isinstance(event, Wrote):
            if now_s >= self.push_at_s:
                effects += self._push()
            if now_s >= self.round_at_s:
                effects += self._round(now_s)
        if self.log.tail.total != self._told:
            self._hasten(now_s)
        return effects

    def _hasten(self, now_s: float) -> None:
        """Tell of news by some rounds that come sooner."""
        self._told = self.log.tail.total
        self._answers.note(now_s)
        self._busy_rounds = self.options.busy_rounds
        interval_s = self._interval_s(self.options.busy_round_s)
        self.round_at_s = min(self.round_at_s, now_s + interval_s)

    def _interval_s(self, interval_s: float) -> float:
        # Not all nodes at the same time, for ever.
        return interval_s * (0.9 + 0.2 * self._draw.random()) + self.put_off_s

    def _respond(self, event: Event, now_s: float, now_ms: int) -> list[Effect]:
        match event:
            case Received():
                return self._receive(event, now_s, now_ms)
            case PeerUp(peer):
                return self._peer_up(peer, now_s)
            case PeerDown(peer):
                self._forget_peer(peer)
            case Quorum(is_held):
                self._retiring.quorum(now_s, is_held=is_held)
            case Gone(origin):
                self._retiring.gone(origin)
            case Wrote() | Woke():
                pass
        return []

    # --- peers ----------------------------------------------------------------------

    def _peer_up(self, peer: Origin, now_s: float) -> list[Effect]:
        if peer in self.peers or peer == self.log.origin:
            return []
        for older in [p for p in self.peers if p.name == peer.name]:
            self._forget_peer(older)
        self.peers[peer] = VersionVector()
        self._answers.peer_up(peer)
        self._retiring.back(peer)
        return [Send(peer, digest_of(self.log, is_answer=False))]

    def _forget_peer(self, peer: Origin) -> None:
        self.peers.pop(peer, None)
        self._answers.peer_down(peer)
        self._outgoing.drop(peer)
        if self._incoming is not None and self._incoming.peer == peer:
            self._incoming = None
        if self._asked_peer == peer:
            self._asked_at_s = -_NEVER

    # --- pushes and rounds ----------------------------------------------------------

    def _push(self) -> list[Effect]:
        self.push_at_s = _NEVER
        log, options = self.log, self.options
        batch = Batch(options.batch_events, options.batch_bytes)
        # What is more than one frame comes with the rounds, at the pace of each peer.
        events = log.tail.own_since(log.origin, self._pushed, batch).events
        self._pushed = log.written
        push = Push(events)
        return [Send(peer, push) for peer in self._targets()] if events else []

    def _targets(self) -> list[Origin]:
        peers = list(self.peers)
        if len(peers) <= self.options.push_all:
            return peers
        return self._draw.sample(peers, self.options.push_some)

    def _round(self, now_s: float) -> list[Effect]:
        options = self.options
        self._busy_rounds = max(0, self._busy_rounds - 1)
        interval_s = options.busy_round_s if self._busy_rounds else options.round_s
        self.round_at_s = now_s + self._interval_s(interval_s)
        self._outgoing.drop_unused(now_s)
        effects = self._retiring.check(self.peers, now_s)
        effects += self._ask_again(now_s)
        peers = list(self.peers)
        digest = digest_of(self.log, is_answer=False)
        chosen = self._draw.sample(peers, min(options.fanout, len(peers)))
        return effects + [Send(peer, digest) for peer in chosen]

    # --- frames ---------------------------------------------------------------------

    def _receive(self, event: Received, now_s: float, now_ms: int) -> list[Effect]:
        sender, frame = event.sender, event.frame
        if sender == self.log.origin:
            return [Suspicious(sender, "it has our name and boot id")]
        if self._retiring.must_reset(now_s):
            return [MustReset(self.log.origin)]
        if isinstance(frame, Reset):
            return [MustReset(sender)] if frame.origin == self.log.origin else []
        return self._read(sender, frame, now_s, now_ms)

    def _read(
        self,
        sender: Origin,
        frame: Push | Events | Digest | AskSnapshot | SnapshotPart,
        now_s: float,
        now_ms: int,
    ) -> list[Effect]:
        match frame:
            case Push(events):
                return self._take(sender, self.log.receive(events, now_ms=now_ms))
            case Events():
                return self._take_answer(sender, frame, now_s, now_ms)
            case Digest():
                return self._answer(sender, frame, now_s)
            case AskSnapshot():
                return self._outgoing.answer(sender, frame, now_s)
            case SnapshotPart():
                return self._take_part(sender, frame, now_s)

    def _take(self, sender: Origin, took: Took) -> list[Effect]:
        counts = self.received
        counts["applied"] += len(took.applied)
        counts["known"] += took.known
        counts["dropped"] += took.dropped
        counts["refused"] += took.refused
        effects: list[Effect] = []
        if took.applied:
            effects.append(Applied(took.applied))
        if took.refused:
            effects.append(Suspicious(sender, f"refused {took.refused} of its events"))
        return effects

    def _take_answer(
        self, sender: Origin, frame: Events, now_s: float, now_ms: int
    ) -> list[Effect]:
        took = self.log.receive(frame.events, now_ms=now_ms)
        effects = self._take(sender, took)
        if sender == self._asked_peer:
            self._asked_at_s = -_NEVER
        if frame.more and took.applied:
            effects.append(self._ask(sender, now_s))
        return effects

    def _ask(self, peer: Origin, now_s: float) -> Effect:
        self._asked_peer, self._asked_at_s = peer, now_s
        return Send(peer, digest_of(self.log, is_answer=True))

    def _answer(self, peer: Origin, digest: Digest, now_s: float) -> list[Effect]:
        log = self.log
        known = vector = VersionVector(dict(digest.vector))
        if self._retiring.was_away(peer, vector):
            return [Send(peer, Reset(peer))]
        if digest.retired:
            known |= VersionVector(dict(digest.retired))
        if peer in self.peers:
            self.peers[peer] = known
            self._retiring.heard(peer)
            self._answers.heard(peer, known, now_s)
        self._retiring.learn(digest.retired, self.peers)
        if vector == log.vector:
            return self._compare(peer, vector, digest.state_hash, now_s)
        effects = self._send_missing(peer, known, now_s)
        if not digest.is_answer and self.lacks(vector) and self._may_ask(peer, now_s):
            effects.append(self._ask(peer, now_s))
        return effects

    def _compare(
        self, peer: Origin, vector: VersionVector, state_hash: int, now_s: float
    ) -> list[Effect]:
        """See that a peer that knows the same holds the same."""
        if not self.log.diverges(vector, state_hash):
            return []
        diverged = Diverged(peer, self.log.state_hash, state_hash)
        return [diverged, *self._offer(peer, now_s)]

    def _send_missing(
        self, peer: Origin, known: VersionVector, now_s: float
    ) -> list[Effect]:
        answer = self._answers.missing(peer, known, now_s)
        if answer is None:
            return self._offer(peer, now_s, known=known)
        return [Send(peer, answer)] if answer.events else []

    def lacks(self, vector: VersionVector) -> bool:
        """Return whether a vector has anything that is not known here."""
        seen, retired = self.log.seen.vector, self.log.retired
        return any(
            seq > seen.get(origin, 0) and origin not in retired
            for origin, seq in vector.items()
        )

    def _may_ask(self, peer: Origin, now_s: float) -> bool:
        # All peers of a node that begins with nothing say that they have more.
        is_waiting = now_s - self._asked_at_s < self.options.ask_s
        return not is_waiting or peer == self._asked_peer

    # --- snapshots ------------------------------------------------------------------

    def _offer(
        self, peer: Origin, now_s: float, *, known: VersionVector | None = None
    ) -> list[Effect]:
        outgoing = self._outgoing
        if outgoing.is_fetching(peer, now_s):
            return []
        offer = None if known is None else outgoing.offer_again(peer, known, now_s)
        if offer is None:
            chunks = self.log.snapshot(chunk_bytes=self.options.chunk_bytes)
            offer = outgoing.offer(peer, chunks, now_s)
        return [offer]

    def _take_part(
        self, sender: Origin, part: SnapshotPart, now_s: float
    ) -> list[Effect]:
        vector = VersionVector(dict(part.chunk.vector))
        if self._retiring.was_away(sender, vector):
            return [Send(sender, Reset(sender))]
        try:
            return self._add_part(sender, part, now_s)
        except MalformedError as error:
            self._incoming = None
            return [Suspicious(sender, str(error))]

    def _add_part(
        self, sender: Origin, part: SnapshotPart, now_s: float
    ) -> list[Effect]:
        incoming = self._incoming
        if incoming is None or incoming.is_older_than(sender, part):
            ours = self.log.replicas()
            incoming = Incoming.begin(sender, part, self.options, now_s, ours=ours)
        if incoming.peer != sender or incoming.number != part.snapshot:
            return []
        self._incoming = incoming
        if not incoming.add(part.chunk, now_s):
            return []
        if not incoming.assembly.is_whole:
            return [incoming.ask(now_s)]
        self._incoming = None
        took = self.log.adopt(incoming.assembly)
        # What was written since is in its log.
        return [Joined(sender), *self._take(sender, took), self._ask(sender, now_s)]

    def _ask_again(self, now_s: float) -> list[Effect]:
        incoming = self._incoming
        if incoming is None or not incoming.is_due(now_s):
            return []
        if incoming.tries >= self.options.retries:
            self._incoming = None
            return []
        return [incoming.ask_again(now_s)]
