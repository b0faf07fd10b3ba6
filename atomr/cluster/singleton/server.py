"""The process of a singleton's election: frames, times and ends in, orders out.

::

    singleton NAME  (rest for one)
      server   the election; never waits
      runner   starts and stops, and waits for it
      stage    what the singleton runs under

When the server ends, the stage ends with it: without an election nothing may run.
When the lease has ended and the singleton has not, the stage is killed.
"""

from __future__ import annotations

import logging
import random
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol, TypeAlias

import attrs

from atomr import telemetry
from atomr.cluster.clock import SleeplessClock, wall_us
from atomr.cluster.peers import PeerDown, PeerEvent, PeerUp
from atomr.cluster.singleton.frames import Here, Said
from atomr.cluster.singleton.reasons import Standing
from atomr.cluster.singleton.runner import Begin, Begun, End, Ended, Ready
from atomr.cluster.wake_timer import WakeTimer
from atomr.crdt.origin import Origin
from atomr.gossip import voting
from atomr.http2 import Lane
from atomr.otp import GenServer
from atomr.process import (
    current_node,
    kill,
    self_pid,
    send,
    send_after,
    whereis,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from atomr.cluster.peers import Peers
    from atomr.core.exits import ExitReason
    from atomr.refs import Pid

_log = logging.getLogger("atomr.cluster")

_REST = 1.0
"""Of a lease: a node that gave it away, or could not use it, leaves it to others."""

_GRAIN_S = 0.001
"""No timer is shorter: two clocks that round otherwise must not go round in circles."""


@attrs.frozen
class Heard:
    """A node has said something.

    Attributes:
        sender: its name.
        said: what.
    """

    sender: str
    said: Said


@attrs.frozen
class HandOver:
    """Let another node run it.

    Attributes:
        to: which; empty: any.
    """

    to: str


@attrs.frozen
class Rested:
    """The node may stand again."""


Message: TypeAlias = (
    Heard | HandOver | Rested | voting.Woke | PeerEvent | Ready | Begun | Ended
)


@attrs.frozen
class Names:
    """What the processes of a singleton are registered as.

    Attributes:
        singleton: the process that the user wrote.
        server: the election.
        runner: starts and stops.
        stage: what it runs under.
    """

    singleton: str
    server: str
    runner: str
    stage: str

    @classmethod
    def of(cls, name: str) -> Names:
        """Return those of a singleton."""
        base = f"singleton {name}"
        return cls(base, f"{base} server", f"{base} runner", f"{base} stage")


class RemoteNames(Protocol):
    """Who finds processes of other nodes by their names."""

    def name_of(self, node: str, name: str) -> Pid | None:
        """Return the address of whoever has a name on a node, this one too."""
        ...


class SingletonServer(GenServer):
    """One node's part in the election of a singleton.

    Args:
        terms: of its lease.
        peers: the other nodes.
        remote: finds processes of other nodes.
        stands: whether this node would run it.
        prefer: who shall have it next, best first.
        wake: called when somebody may be known to run it who was not before.
    """

    def __init__(
        self,
        terms: voting.Terms,
        peers: Peers,
        remote: RemoteNames,
        *,
        stands: bool,
        prefer: tuple[str, ...],
        wake: Callable[[], None],
    ) -> None:
        self.terms = terms
        self._peers = peers
        self._remote = remote
        self._stands = stands
        self._prefer = prefer
        self._wake = wake
        self._names = Names.of(terms.name)
        self._me = peers.origin.name
        self._others: dict[str, Here] = {}
        self._differ: set[str] = set()
        self._problem = ""
        self._epoch = self._runner = 0
        self._watching = ExitStack()

    def init(self) -> None:
        """Take part, with no memory of what was promised before.

        Raises:
            NoNodeError: what finds processes of other nodes does not run.
        """
        self._remote.name_of(self._me, self._names.singleton)
        self._pid = pid = self_pid()
        self._now = SleeplessClock(current_node().now)
        woke = voting.Woke()
        self._timer = WakeTimer(pid, woke, now=self._now, least_s=_GRAIN_S)
        # Each election has a number of its own, so it is none that ran before.
        started = wall_us()
        self._election = voting.Election(
            self.terms,
            Origin(self._me, started),
            draw=random.SystemRandom().random,
            epoch=started,
            now_s=self._now(),
        )
        self._watching.enter_context(self._peers.watch(lambda event: send(pid, event)))
        self._step(voting.Stand() if self._stands else voting.Woke())

    def handle_info(self, message: Message) -> None:
        """Take one step."""
        match message:
            case Heard(sender, said):
                self._hear(sender, said)
            case voting.Woke():
                self._timer.fired()
                self._step(message)
            case PeerUp(peer):
                self._tell(peer.name, self._here(asks=True))
                self._wake()
                self._step(voting.Woke())
            case PeerDown(peer):
                self._others.pop(peer.name, None)
            case Ready(runner):
                self._runner = runner
                self._nothing_runs()
            case Begun(epoch):
                self._begun(epoch)
            case Ended():
                self._ended(message)
            case HandOver(to):
                self._hand_over(to)
            case Rested():
                self._step(voting.Stand())

    def terminate(self, reason: ExitReason) -> None:
        """Give the lease to an heir, if what it was for has ended."""
        self._watching.close()
        if whereis(self._names.stage) is None:
            self._step(voting.Leave(self._heir()))
            self._step(voting.Stopped())

    def format_status(self) -> object:
        """Return how things stand."""
        return attrs.asdict(self.standing(), recurse=False)

    # --- to look at -----------------------------------------------------------------

    @property
    def holder(self) -> str:
        """Who runs it; empty: not known."""
        running = {name: here.epoch for name, here in self._up()}
        running[self._me] = self._epoch
        name = max(running, key=running.__getitem__)
        return name if running[name] else ""

    def _up(self) -> list[tuple[str, Here]]:
        """Return how those stand that are up: one may speak first, and never be."""
        peers = self._peers
        return [(n, h) for n, h in sorted(self._others.items()) if peers.get(n)]

    def token(self) -> int | None:
        """Return the epoch of the term that this node has now; None: none."""
        return self._election.holds(self._now())

    def address(self) -> Pid | None:
        """Return who is called when the singleton is."""
        holder = self.holder
        return self._remote.name_of(holder, self._names.singleton) if holder else None

    def standing(self) -> Standing:
        """Return what is known."""
        reached = {self._me, *(peer.name for peer in self._peers.all())}
        return Standing(
            terms=self.terms,
            node=self._me,
            stands=self._stands,
            phase=self._election.phase,
            holder=self.holder,
            seen=self._election.seen,
            up=tuple(voter for voter in self.terms.voters if voter in reached),
            differ=tuple(sorted(self._differ)),
            problem=self._problem,
        )

    # --- steps ----------------------------------------------------------------------

    def _hear(self, sender: str, said: Said) -> None:
        if isinstance(said, Here):
            self._others[sender] = said
            if said.asks:
                self._tell(sender, self._here())
            self._wake()
        else:
            self._step(voting.Received(sender, said))

    def _step(self, event: voting.Event) -> None:
        self._perform(self._election.handle(event, self._now()))
        self._timer.arm(self._election.next_deadline_s)

    def _perform(self, effects: Iterable[voting.Effect]) -> None:
        for effect in effects:
            match effect:
                case voting.Send(to, frame):
                    self._tell(to, frame)
                case voting.Won(epoch, heir_of):
                    self._won(epoch, heir_of)
                case voting.Stop(epoch, why):
                    self._stop(epoch, why)
                case voting.Lost(epoch):
                    self._lost(epoch)
                case voting.TermsDiffer(voter):
                    self._note_difference(voter)

    def _tell(self, name: str, said: Said) -> None:
        peer = self._peers.get(name)
        if peer is not None:
            self._peers.tell(peer, self._names.singleton, said, lane=Lane.CTL)

    # --- the singleton --------------------------------------------------------------

    def _here(self, *, asks: bool = False) -> Here:
        return Here(asks, self._stands, self._epoch)

    def _announce(self, epoch: int) -> None:
        self._epoch = epoch
        for peer in self._peers.all():
            self._tell(peer.name, self._here())
        self._wake()

    def _won(self, epoch: int, heir_of: str) -> None:
        telemetry.emit(
            ("atomr", "singleton", "won"),
            {"epoch": epoch},
            {"name": self.terms.name, "node": self._me, "heir_of": heir_of},
        )
        self._differ.clear()
        send(self._names.runner, Begin(epoch, self._runner))

    def _stop(self, epoch: int, why: voting.Why) -> None:
        telemetry.emit(
            ("atomr", "singleton", "stop"),
            {"epoch": epoch},
            {"name": self.terms.name, "node": self._me, "reason": why.value},
        )
        send(self._names.runner, End(epoch))

    def _begun(self, epoch: int) -> None:
        if epoch == self._election.epoch:
            self._problem = ""
            self._announce(epoch)

    def _lost(self, epoch: int) -> None:
        """Let nothing go on that only a holder may do."""
        telemetry.emit(
            ("atomr", "singleton", "lost"),
            {"epoch": epoch},
            {"name": self.terms.name, "node": self._me},
        )
        _log.warning(
            "singleton %r: the lease of %s has ended before the work; it is killed",
            self.terms.name,
            self._me,
        )
        kill(self._names.stage)
        self._announce(0)

    def _ended(self, ended: Ended) -> None:
        if ended.problem:
            self._note_failure(ended)
        # Of an earlier term it says nothing about what this one has begun.
        if ended.epoch == self._election.epoch:
            self._nothing_runs()

    def _nothing_runs(self) -> None:
        """Give the lease to another; here it was stopped, has failed, or never was."""
        self._announce(0)
        phase = self._election.phase
        if phase is voting.Phase.HOLDING:
            self._step(voting.Leave(self._heir()))
        if phase in (voting.Phase.HOLDING, voting.Phase.STOPPING):
            self._step(voting.Stopped())
        if self._stands and self._election.phase is voting.Phase.IDLE:
            send_after(_REST * self.terms.lease_s, self._pid, Rested())

    def _hand_over(self, to: str) -> None:
        if self._election.phase is voting.Phase.HOLDING:
            self._step(voting.Leave(to or self._heir()))

    def _heir(self) -> str:
        """Return who shall have it next: a node that is up, and would run it."""
        able = [name for name, here in self._up() if here.runs]
        preferred = [name for name in self._prefer if name in able]
        return next(iter([*preferred, *able]), "")

    # --- telling --------------------------------------------------------------------

    def _note_difference(self, voter: str) -> None:
        if voter not in self._differ:
            self._differ.add(voter)
            _log.warning(
                "singleton %r: %s has other voters or another lease_s, and gives no"
                " vote; all nodes need the same",
                self.terms.name,
                voter,
            )

    def _note_failure(self, ended: Ended) -> None:
        self._problem = ended.problem
        telemetry.emit(
            ("atomr", "singleton", "failed"),
            {"epoch": ended.epoch},
            {"name": self.terms.name, "node": self._me, "reason": ended.problem},
        )
        _log.warning("singleton %r: %s", self.terms.name, ended.problem)
