"""Membership as one state machine: events in, frames and facts out.

Each step answers in order: was I away myself (then nobody is accused for it),
what was heard, and, when woken, what is due.

What it never does: take itself for dead, stop because it sees few others, or
forget its seeds.  Both sides of a cut stay up, and find each other again.

Pure: the clock and the generator are arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from atomr.gossip.membership.beliefs import Beliefs
from atomr.gossip.membership.events import (
    Event,
    ForeignCluster,
    Leave,
    LinkReset,
    MetaChanged,
    Received,
    SeedsChanged,
    Woke,
)
from atomr.gossip.membership.frames import (
    Ack,
    Digest,
    Nack,
    Ping,
    PingRequest,
    Table,
)
from atomr.gossip.membership.health import Health
from atomr.gossip.membership.member import Member, Status
from atomr.gossip.membership.options import MembershipOptions
from atomr.gossip.membership.prober import Prober
from atomr.gossip.membership.roster import Roster
from atomr.gossip.membership.speaker import Speaker
from atomr.gossip.membership.updates import UpdateQueue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from atomr.crdt.origin import Origin
    from atomr.gossip.membership.draw import Draw
    from atomr.gossip.membership.events import Effect
    from atomr.gossip.membership.frames import Frame

_NEVER = float("inf")

_COALESCE_S = 0.01
"""How long the first update waits for others that belong to it."""

_FOREIGN_S = 10.0
"""Nodes of other clusters are told of that seldom."""

_SEEDS_AT_ONCE = 3

_FIRST_SYNC_S = 0.5
"""After a start, and after a cut, tables are compared often, then ever less."""

_replace = msgspec.structs.replace


class Membership:
    """Who is in the cluster, as this node sees it."""

    __slots__ = (
        "_beliefs",
        "_cluster",
        "_dead_at",
        "_deadline",
        "_draw",
        "_foreign_at",
        "_gossip_at",
        "_health",
        "_is_over",
        "_join_at",
        "_now_s",
        "_options",
        "_prober",
        "_queue",
        "_roster",
        "_seeds",
        "_speaker",
        "_sync_at",
        "_sync_s",
    )

    def __init__(  # noqa: PLR0913 - all but two by keyword
        self,
        origin: Origin,
        address: str,
        *,
        cluster: int,
        draw: Draw,
        seeds: Sequence[str] = (),
        options: MembershipOptions | None = None,
        meta: int = 0,
    ) -> None:
        """Start alone.

        Args:
            origin: the node's name, and a boot id greater than in all its earlier
                lives: milliseconds of the wall clock in the upper bits will do.
            address: where others reach it.
            cluster: 64-bit id; nodes of others are not answered.
            draw: the node's own generator.
            seeds: addresses to join by; the node's own among them does no harm.
            options: how fast all is.
            meta: 64-bit hash of what the node says of itself elsewhere.
        """
        self._options = options = options or MembershipOptions()
        me = Member(origin, address, 0, Status.ALIVE, meta)
        self._cluster = cluster
        self._draw = draw
        self._seeds = tuple(seed for seed in seeds if seed != address)
        self._roster = Roster(me, draw)
        self._health = Health(options.max_health)
        self._queue = UpdateQueue(options.retransmit_mult)
        self._speaker = Speaker(
            cluster, self._roster, self._queue, max_updates=options.max_updates
        )
        self._prober = Prober(options, self._roster, self._speaker, self._health)
        self._beliefs = Beliefs(
            options,
            self._roster,
            self._queue,
            speaker=self._speaker,
            prober=self._prober,
            health=self._health,
            draw=draw,
        )
        self._now_s = 0.0
        self._sync_s = options.sync_s
        self._gossip_at = self._sync_at = self._dead_at = self._join_at = _NEVER
        self._foreign_at = -_NEVER
        self._deadline: float | None = None
        self._is_over = False

    # --- to look at -----------------------------------------------------------------

    @property
    def members(self) -> Mapping[str, Member]:
        """All that is known by name: this node, live members, dead ones, left ones."""
        return self._roster.members

    @property
    def me(self) -> Member:
        """This node's own record."""
        return self._roster.me

    @property
    def health(self) -> int:
        """How unwell this node takes itself to be; 0: well."""
        return self._health.score

    @property
    def next_deadline_s(self) -> float | None:
        """When the next :class:`Woke` is due; None: at no time."""
        return self._deadline

    def digest(self) -> int:
        """Return a 64-bit hash that is equal on all nodes that know the same."""
        return self._roster.digest()

    # --- steps ----------------------------------------------------------------------

    def start(self, now_s: float) -> list[Effect]:
        """Join by the seeds, and begin to probe; once, before all else.

        Args:
            now_s: monotonic seconds of this node, as in each step.
        """
        self._now_s, options, draw = now_s, self._options, self._draw.random
        # Nodes that start together shall not probe together for ever.
        self._prober.next_at = now_s + options.probe_s * draw()
        self._hasten_sync()
        self._dead_at = now_s + options.dead_probe_s * (0.5 + draw())
        self._join_at = now_s if self._seeds else _NEVER
        return self.handle(Woke(), now_s)

    def handle(self, event: Event, now_s: float) -> list[Effect]:
        """Take an event; return what is to be sent, and what has changed.

        Nothing happens after :class:`Leave`.
        """
        if self._is_over:
            return []
        out: list[Effect] = []
        self._speaker.out = out
        self._now_s = now_s
        self._notice_lag()
        match event:
            case Received():
                self._receive(event.sender, event.frame)
            case Woke():
                self._due()
            case LinkReset():
                self._link_reset(event.peer)
            case MetaChanged():
                self._say(meta=event.meta)
            case SeedsChanged():
                self._reseed(event.seeds)
            case Leave():
                self._leave()
        self._deadline = self._next_deadline()
        return out

    def _notice_lag(self) -> None:
        """Blame nobody for the time in which this node itself did nothing."""
        if self._deadline is None:
            return
        lag_s = self._now_s - self._deadline
        if lag_s > self._options.lag_s:
            self._health.worsen()
            self._beliefs.shift(lag_s)
            self._prober.shift(lag_s)

    def _link_reset(self, peer: Origin) -> None:
        known = self._roster.members.get(peer.name)
        if known is self.me:
            return  # a node may have dialled itself, by a seed
        if known is not None and known.origin == peer and known.status.is_live:
            self._beliefs.accuse(peer.name, self._now_s)
            self._prober.hurry(peer.name, self._now_s)

    def _say(self, **changed: object) -> None:
        me = self.me
        said = _replace(me, incarnation=me.incarnation + 1, **changed)
        self._beliefs.believe(said, self._now_s)

    def _reseed(self, seeds: Sequence[str]) -> None:
        self._seeds = tuple(seed for seed in seeds if seed != self.me.address)
        if self._seeds and not self._roster.live:
            self._join_at = self._now_s
            self._due()

    def _leave(self) -> None:
        self._say(status=Status.LEFT)
        for name in self._roster.live:
            self._speaker.tell(self._roster.members[name].address)
        self._is_over = True

    # --- hearing --------------------------------------------------------------------

    def _receive(self, sender: str, frame: Frame) -> None:
        said = frame.me
        if frame.cluster != self._cluster:
            self._refuse(sender, frame.cluster)
            return
        known = self._roster.members.get(said.origin.name)
        if said != known or said.status is not Status.ALIVE:
            if not self._is_credible(sender, said, known):
                return
            self._beliefs.hear(said, self._now_s)
        for update in frame.updates:
            self._beliefs.hear(update, self._now_s)
        self._answer(sender, frame)
        if known is not None and known.status is Status.DEAD:
            self._seen_again(sender, said)

    def _refuse(self, sender: str, cluster: int) -> None:
        if self._now_s >= self._foreign_at:
            self._foreign_at = self._now_s + _FOREIGN_S
            self._speaker.out.append(ForeignCluster(sender, cluster))

    def _is_credible(self, sender: str, said: Member, known: Member | None) -> bool:
        """Whether the sender may speak; one that is over is told so."""
        if said.name == self._roster.name:
            # This node by way of its own address, or another life of it.
            self._beliefs.hear(said, self._now_s)
            if said.origin.boot < self.me.origin.boot:
                self._speaker.tell(sender)
            return False
        if known is None or said.status is not Status.ALIVE:
            return said.status in (Status.ALIVE, Status.LEFT)
        if known.origin.boot > said.origin.boot or (
            known.status is Status.LEFT and known.origin == said.origin
        ):
            self._speaker.tell(sender, known)
            return False
        return True

    def _answer(self, sender: str, frame: Frame) -> None:
        name = frame.me.name
        match frame:
            case Ping():
                if frame.target == self._roster.name:
                    self._speaker.ack(sender, name, frame.number, self.me.origin)
            case Ack():
                self._prober.acked(frame)
            case PingRequest():
                self._prober.requested(sender, frame, self._now_s)
            case Nack():
                self._prober.nacked(name, frame.number)
            case Digest():
                if frame.digest != self._roster.digest():
                    self._speaker.table(sender, self._now_s, wants=True)
            case Table():
                if frame.wants:
                    self._speaker.table(sender, self._now_s, wants=False)

    def _seen_again(self, sender: str, said: Member) -> None:
        """Compare tables with one that was held dead: a whole side may be back."""
        known = self._roster.members[said.name]
        if known.status is Status.ALIVE:
            self._speaker.table(sender, self._now_s, wants=True)
            self._hasten_sync()
        else:
            self._speaker.tell(sender, known)

    # --- time -----------------------------------------------------------------------

    def _due(self) -> None:
        now_s, options = self._now_s, self._options
        self._beliefs.due(now_s)
        failed = self._prober.due(now_s)
        if failed is not None:
            self._accuse(failed)
        if now_s >= self._gossip_at:
            self._gossip()
        if now_s >= self._sync_at:
            self._sync()
        if now_s >= self._join_at:
            self._join()
        if now_s >= self._dead_at:
            self._dead_at = now_s + options.dead_probe_s
            self._try_again()

    def _accuse(self, failed: Member) -> None:
        known = self._roster.members.get(failed.name)
        # It may have restarted meanwhile, and another life is another matter.
        if known is not None and known.origin == failed.origin:
            self._beliefs.accuse(failed.name, self._now_s)

    def _gossip(self) -> None:
        for member in self._roster.sample(self._options.fanout):
            if not self._queue.waiting:
                break
            self._speaker.gossip(member)
        self._gossip_at = self._now_s + self._options.gossip_s

    def _hasten_sync(self) -> None:
        self._sync_s = min(_FIRST_SYNC_S, self._options.sync_s)
        self._sync_at = self._now_s + self._sync_s * (0.5 + self._draw.random())

    def _sync(self) -> None:
        self._sync_s = min(2 * self._sync_s, self._options.sync_s)
        self._sync_at = self._now_s + self._sync_s
        for member in self._roster.sample(1):
            self._speaker.digest(member.address, self._roster.digest())

    def _join(self) -> None:
        """Ask some seeds for their tables until there is anyone."""
        if self._roster.live:
            self._join_at = _NEVER
            return
        self._join_at = self._now_s + self._options.join_s
        number = min(_SEEDS_AT_ONCE, len(self._seeds))
        for seed in self._draw.sample(self._seeds, number):
            self._speaker.table(seed, self._now_s, wants=True)

    def _try_again(self) -> None:
        """Ask one dead member, and one seed that is nobody's address, if they are up.

        That is how two sides find each other after a cut, however long it was.
        """
        self._roster.forget(self._now_s - self._options.forget_s)
        dead = self._roster.dead()
        if dead is not None:
            self._speaker.ping(dead.name, dead.address, 0)
        live = [self._roster.members[name].address for name in self._roster.live]
        silent = [seed for seed in self._seeds if seed not in live]
        if silent:
            self._speaker.table(self._draw.choice(silent), self._now_s, wants=True)

    def _next_deadline(self) -> float | None:
        if self._is_over:
            return None
        if not (self._queue.waiting and self._roster.live):
            self._gossip_at = _NEVER
        elif self._gossip_at == _NEVER:
            self._gossip_at = self._now_s + _COALESCE_S
        # Compared one by one, as this is done for each frame.
        at = self._prober.due_at()
        for other_at in (
            self._beliefs.due_at(),
            self._gossip_at,
            self._sync_at,
            self._dead_at,
            self._join_at,
        ):
            if other_at < at:
                at = other_at
        return at
