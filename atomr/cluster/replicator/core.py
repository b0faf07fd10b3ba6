"""What a replicator does, without doing it: frames and news in, frames and facts out.

For each peer there is one hello each way, which says in which life each of its logs
is; then the machines of the shards speak.  A peer whose shards are of another number
is left alone: keys would be looked for in the wrong places.

Nothing waits for an answer, and whatever is lost is said again by a later digest; a
hello that could not be sent is due until it is, and one that did not come is asked for.

Pure: the clocks, the generator and the boot ids are arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from atomr.cluster.replicator.facts import Alarm, Neighbour, Out, Reborn, Tell
from atomr.cluster.replicator.frames import Carried, Hello, Message, Overview, lives_of
from atomr.cluster.replicator.overviews import Overviews
from atomr.cluster.replicator.pace import NEVER, TICK_S, Pace
from atomr.cluster.replicator.shard import Shard
from atomr.crdt import Origin
from atomr.crdt.wire import pack
from atomr.gossip.replication import (
    Applied,
    Diverged,
    Effect,
    Joined,
    MustReset,
    Retired,
    Send,
    SnapshotPart,
    Suspicious,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from atomr.cluster.replicator.changes import Changed
    from atomr.cluster.replicator.journal import Journal
    from atomr.cluster.replicator.options import ReplicatorOptions
    from atomr.crdt import Event, Key, Replicated
    from atomr.gossip.membership.draw import Draw
    from atomr.gossip.replication import Frame

ASK_S = 1.0
"""A peer is asked for its hello no more often than that."""


class Core:
    """The state of a replicator.

    Attributes:
        node: this node, in its present life.
        shards: by their numbers.
        neighbours: the nodes that are up, by name.
        dropped: frames that were not of a life that is known.
        journal: notes what is to be stored; None: nothing is.
    """

    def __init__(
        self,
        node: Origin,
        options: ReplicatorOptions,
        *,
        draw: Draw,
        new_boot: Callable[[], int],
        now_s: float,
    ) -> None:
        self.node = node
        self.neighbours: dict[str, Neighbour] = {}
        self.dropped = 0
        self.journal: Journal | None = None
        self._options = options
        self._new_boot = new_boot
        self._out: list[Out] = []
        self._changes: list[Changed] = []
        self._pace = Pace(now_s)
        self._has_quorum = True
        origin = Origin(node.name, new_boot())
        self.shards = tuple(
            Shard(number, origin, options, draw=draw, now_s=now_s)
            for number in range(options.shards)
        )
        self._overviews = Overviews(self.shards, options, draw=draw, now_s=now_s)
        self._check_quorum(now_s)

    # --- what there is --------------------------------------------------------------

    @property
    def next_deadline_s(self) -> float:
        """When to be woken at the latest."""
        return self._pace.due_at_s

    def shard_of(self, name: str, key: Key | None = None) -> Shard:
        """Return where a value is, or a key of a value that is divided.

        It is the same on all nodes, in each life, and in each version.
        """
        shards = self.shards
        if len(shards) == 1:
            return shards[0]
        return shards[crc32(pack((name, key))) % len(shards)]

    def node_of(self, shard: Shard, owner: Origin) -> Origin | None:
        """Return the node of a life of a log; None where it is out of sight."""
        if owner == shard.origin:
            return self.node
        node = shard.nodes.get(owner)
        if node is None or self.neighbours[node.name].is_suspect:
            return None
        return node

    def take(self) -> list[Out]:
        """Return what is to be done, in that order, and forget it."""
        out, self._out = self._out, []
        return out

    def take_changes(self) -> list[Changed]:
        """Return what watchers are to be told, and forget it."""
        changes, self._changes = self._changes, []
        return changes

    # --- what is watched ------------------------------------------------------------

    def watch(self, kind: type[Replicated], name: str, shards: Iterable[Shard]) -> None:
        """Tell of changes of a value from now on."""
        for shard in shards:
            sight = {
                owner: node
                for owner in (shard.origin, *shard.nodes)
                if (node := self.node_of(shard, owner)) is not None
            }
            shard.watch(kind, name, sight)

    def keep_views(self, wanted: Container[tuple[str, str]]) -> None:
        """Remember no longer what nobody watches.

        Args:
            wanted: kinds and names of what somebody does.
        """
        for shard in self.shards:
            for crdt_id, view in list(shard.views.items()):
                if (view.replica.KIND, view.name) not in wanted:
                    del shard.views[crdt_id]

    # --- what happens ---------------------------------------------------------------

    def wake(self, now_s: float) -> None:
        """Do what is due."""
        put_off_s = self._pace.put_off_s(now_s)
        hello_at_s = self._say_hellos(now_s)
        self._out += self._overviews.due(self.neighbours.values(), now_s)
        round_at_s = min(hello_at_s, self._overviews.at_s)
        push_at_s = NEVER
        for shard in self.shards:
            shard.machine.put_off_s = put_off_s
            if now_s >= shard.next_deadline_s:
                self._perform(shard, shard.wake(now_s), now_s)
                if shard.is_refilled(now_s):
                    self._changes += shard.joined()
            machine = shard.machine
            round_at_s = min(round_at_s, machine.round_at_s)
            push_at_s = min(push_at_s, machine.push_at_s)
        self._pace.woken(now_s, round_at_s=round_at_s, push_at_s=push_at_s)

    def wake_soon(self, now_s: float) -> None:
        """Have it woken at the next tick."""
        self._pace.round_by(now_s + TICK_S)

    def wrote(self, shard: Shard, now_s: float) -> bool:
        """Note that a replica of a shard was written to.

        Returns:
            Whether the deadline is another one now.
        """
        before_s = self._pace.due_at_s
        self._perform(shard, shard.wrote(now_s), now_s)
        self._pace.push_by(shard.machine.push_at_s)
        return self._pace.due_at_s < before_s

    def peer_up(self, node: Origin, now_s: float) -> None:
        """Begin to replicate with a node."""
        before = self.neighbours.get(node.name)
        if before is not None:
            if before.node.boot >= node.boot:
                return  # known, or a late word of an earlier life
            self.peer_down(before.node, now_s)
        neighbour = self.neighbours[node.name] = Neighbour(node)
        self._ask(neighbour, now_s)
        self._pace.round_by(now_s + ASK_S)
        self._check_quorum(now_s)

    def peer_down(self, node: Origin, now_s: float) -> None:
        """Replicate with it no longer; what it owns goes out of sight."""
        neighbour = self._find(node)
        if neighbour is not None:
            self._leave(neighbour, now_s)
            del self.neighbours[node.name]
            self._check_quorum(now_s)

    def judged(self, node: Origin, *, is_suspect: bool) -> None:
        """Note whether the membership suspects a node."""
        neighbour = self._find(node)
        if neighbour is None or neighbour.is_suspect == is_suspect:
            return
        neighbour.is_suspect = is_suspect
        for shard, log in zip(self.shards, neighbour.logs or (), strict=False):
            self._changes += shard.seen(log, None if is_suspect else node)

    def receive(
        self, node: Origin, message: Message, *, now_s: float, now_ms: int
    ) -> None:
        """Take a message of another node's replicator.

        Args:
            node: its present life, as the link knows it.
            message: decoded.
            now_s: our clock.
            now_ms: the wall's, to see stamps from too far ahead; 0: unknown.
        """
        neighbour = self._find(node)
        if neighbour is None:
            self.dropped += 1
        elif isinstance(message, Hello):
            self._greeted(neighbour, message, now_s)
        elif isinstance(message, Overview):
            self._compare(neighbour, message, now_s)
        else:
            self._carry(neighbour, message, now_s, now_ms)

    def unsaid(self, tell: Tell, now_s: float) -> None:
        """Note that a message could not be sent: a hello is due, the rest is lost."""
        neighbour = self._find(tell.to)
        if neighbour is not None and isinstance(tell.message, Hello):
            neighbour.unsaid = tell.message
            self.wake_soon(now_s)

    # --- hellos ---------------------------------------------------------------------

    def _find(self, node: Origin) -> Neighbour | None:
        neighbour = self.neighbours.get(node.name)
        return neighbour if neighbour is not None and neighbour.node == node else None

    def _hello(self, *, is_answer: bool) -> Hello:
        return Hello(tuple([shard.origin.boot for shard in self.shards]), is_answer)

    def _say(self, neighbour: Neighbour, hello: Hello) -> None:
        neighbour.unsaid = None
        self._out.append(Tell(neighbour.node, hello))

    def _say_hellos(self, now_s: float) -> float:
        """Say hello to whom it is due; return when it is the next time."""
        next_s = NEVER
        for neighbour in self.neighbours.values():
            if neighbour.unsaid is not None:
                self._say(neighbour, neighbour.unsaid)
            elif neighbour.logs is None:
                self._ask(neighbour, now_s)
                next_s = min(next_s, neighbour.asked_at_s + ASK_S)
        return next_s

    def _ask(self, neighbour: Neighbour, now_s: float) -> None:
        if now_s - neighbour.asked_at_s >= ASK_S:
            neighbour.asked_at_s = now_s
            self._say(neighbour, self._hello(is_answer=False))

    def _greeted(self, neighbour: Neighbour, hello: Hello, now_s: float) -> None:
        if len(hello.boots) != len(self.shards):
            self._leave(neighbour, now_s)
            problem = (
                f"it has {len(hello.boots)} shards, this node {len(self.shards)}: give"
                " all nodes the same ReplicatorOptions(shards=...)"
            )
            self._out.append(
                Alarm(None, neighbour.node, Suspicious(neighbour.node, problem))
            )
            return
        if not hello.is_answer:
            self._say(neighbour, self._hello(is_answer=True))
        before = neighbour.logs or (None,) * len(self.shards)
        name = neighbour.node.name
        neighbour.logs = tuple([Origin(name, boot) for boot in hello.boots])
        for shard, old, new in zip(self.shards, before, neighbour.logs, strict=True):
            if old != new:
                if old is not None:
                    self._part(shard, old, now_s)
                self._meet(shard, new, neighbour, now_s)

    def _meet(
        self, shard: Shard, log: Origin, neighbour: Neighbour, now_s: float
    ) -> None:
        node = neighbour.node
        self._perform(shard, shard.peer_up(log, node, now_s), now_s)
        self._changes += shard.seen(log, None if neighbour.is_suspect else node)

    def _part(self, shard: Shard, log: Origin, now_s: float) -> None:
        self._perform(shard, shard.peer_down(log, now_s), now_s)
        self._changes += shard.seen(log, None)

    def _leave(self, neighbour: Neighbour, now_s: float) -> None:
        logs, neighbour.logs = neighbour.logs, None
        for shard, log in zip(self.shards, logs or (), strict=False):
            self._part(shard, log, now_s)

    def _check_quorum(self, now_s: float) -> None:
        has_quorum = self._options.has_quorum({self.node.name, *self.neighbours})
        if has_quorum != self._has_quorum:
            self._has_quorum = has_quorum
            for shard in self.shards:
                self._perform(shard, shard.quorum(now_s, is_held=has_quorum), now_s)

    # --- frames ---------------------------------------------------------------------

    def _compare(self, neighbour: Neighbour, overview: Overview, now_s: float) -> None:
        logs = neighbour.logs
        if (
            logs is None
            or len(overview.marks) != len(logs)
            or overview.lives != lives_of(logs)
        ):
            self.dropped += 1
            self._ask(neighbour, now_s)
            return
        for shard, effects in self._overviews.compare(neighbour, overview, now_s):
            self._perform(shard, effects, now_s)

    def _carry(
        self, neighbour: Neighbour, carried: Carried, now_s: float, now_ms: int
    ) -> None:
        number, logs = carried.shard, neighbour.logs
        if logs is None or number >= len(logs) or logs[number].boot != carried.boot:
            # Of a life that is over, or of one whose hello was lost.
            self.dropped += 1
            self._ask(neighbour, now_s)
            return
        shard = self.shards[number]
        effects = shard.receive(logs[number], carried.frame, now_s, now_ms)
        self._perform(shard, effects, now_s)

    def _perform(self, shard: Shard, effects: list[Effect], now_s: float) -> None:
        is_joined = False
        for effect in effects:
            match effect:
                case Send(to, frame):
                    self._send(shard, to, frame)
                case MustReset(peer):
                    # What else the old life wanted is of no use any more.
                    self._reset(shard, peer, now_s)
                    break
                case Joined():
                    is_joined = True
                    self._rewrite(shard)
                    self._changes += shard.joined()
                case Retired():
                    self._rewrite(shard)
                case Diverged(peer) | Suspicious(peer):
                    self._out.append(Alarm(shard.number, peer, effect))
                case Applied():
                    pass
        news = shard.tail.take_news()
        if news or is_joined:
            self._take_news(shard, news, now_s, is_joined=is_joined)
        self._pace.round_by(shard.machine.round_at_s)

    def _take_news(
        self, shard: Shard, news: list[Event], now_s: float, *, is_joined: bool
    ) -> None:
        self._changes += shard.changes(news)
        if self.journal is not None and news:
            self.journal.add(shard.number, news)
        if shard.heal(news, is_joined=is_joined):
            self.wrote(shard, now_s)

    def _send(self, shard: Shard, to: Origin, frame: Frame) -> None:
        node = shard.nodes.get(to)
        if node is not None:
            carried = Carried(shard.number, shard.origin.boot, frame)
            self._out.append(Tell(node, carried, isinstance(frame, SnapshotPart)))

    def _rewrite(self, shard: Shard) -> None:
        if self.journal is not None:
            self.journal.rewrite(shard.number)

    def _reset(self, shard: Shard, peer: Origin, now_s: float) -> None:
        before = shard.origin
        effects = shard.reset(self._new_boot(), now_s)
        self._out.append(Reborn(shard.number, peer))
        self._rewrite(shard)
        # Before its frames: they would be taken for those of a life that is unknown.
        for neighbour in self.neighbours.values():
            self._say(neighbour, self._hello(is_answer=True))
        self._changes += shard.seen(before, None)
        self._changes += shard.seen(shard.origin, self.node)
        self._pace.push_by(now_s)
        self._perform(shard, effects, now_s)
