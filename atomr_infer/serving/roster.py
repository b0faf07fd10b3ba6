"""The other nodes of the cluster, those that are away too: since when, and why.

What runs is known by its link; what does not is only remembered.  Operators have to be
told of it: what a node that is away has counted is missing from every sum.

A node writes down whom it has seen, so that it knows after a restart who is missing.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import msgspec
import trio

from atomr.cluster.peers import PeerUp
from atomr.core.child_spec import ChildSpec
from atomr.gossip.membership import Status
from atomr.process import PlainProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from atomr.cluster import Peers
    from atomr.cluster.peers import MemberChanged, PeerEvent
    from atomr.http2 import Service

log = logging.getLogger(__name__)

REMEMBERED_S = 400 * 86_400
"""How long a node that is away is remembered: as long as its usage is kept."""

MAX_REMEMBERED = 256
"""How many that are away; those that went first are forgotten first."""

LEFT = "it has left"
NOT_SEEN = "it has not been seen since this node started"

_WHY = {
    "dead": "it does not answer",
    "left": LEFT,
    "goodbye": LEFT,
    "restarted": "it starts anew",
    "closed": "this node began anew",
    "peer_closed": "its process has ended, or its machine closed the connection",
    "broken": "the network broke the connection",
    "no_pong": "it does not answer: the path is cut, or its machine hangs",
    "stalled": "its process does no work",
}


@attrs.frozen
class Away:
    """A node that is not there.

    Attributes:
        name: the node's.
        since_s: since when it is not in sight, Unix time.
        why: as people read it.
    """

    name: str
    since_s: int
    why: str

    @property
    def has_left(self) -> bool:
        """Whether it said goodbye: it does nothing any more."""
        return self.why == LEFT


class _Note(msgspec.Struct):
    """What is known of another node.

    Attributes:
        since_s: since when it is away; None: it is in sight.
        why: it is away.
    """

    since_s: int | None = None
    why: str = ""


_decode = msgspec.json.Decoder(dict[str, _Note]).decode


class Roster:
    """A part of a node: knows who is there, and who should be.

    Attributes:
        quiet: whether nobody is told when a node comes or goes.
    """

    shares_life: ClassVar[bool] = False

    def __init__(
        self,
        path: Path | None,
        *,
        expected: Callable[[], Iterable[str]],
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        """Make a roster of those that an earlier process has seen.

        Args:
            path: of its file; None: there is none.
            expected: names of nodes that should always be there.
            wall_s: the wall's clock.
        """
        self.quiet = False
        self._path = path
        self._expected = expected
        self._wall_s = wall_s
        self._peers: Peers | None = None
        self._cannot_write = ""
        self._began_s = int(wall_s())
        self._notes = self._read()

    def away(self) -> tuple[Away, ...]:
        """Return the nodes that are not there, by name."""
        if self._peers is None:
            return ()
        mine = self._peers.origin.name
        notes = dict(self._notes)
        for name in self._expected():
            notes.setdefault(name, _Note(self._began_s, NOT_SEEN))
        return tuple(
            Away(name, note.since_s, note.why)
            for name, note in sorted(notes.items())
            if note.since_s is not None and name != mine
        )

    # --- as a part of a cluster -------------------------------------------------------

    def services(self) -> Mapping[str, Service[Any]]:
        """Return what is done with peers' messages: there are none."""
        return {}

    def child(self, peers: Peers) -> ChildSpec:
        """Return how its process is started."""
        self._peers = peers
        return ChildSpec(
            id="roster", start=partial(PlainProcess, partial(self.run, peers))
        )

    async def run(self, peers: Peers) -> None:
        """Follow who comes and goes; never returns."""
        with peers.watch(self._news), peers.watch_members(self._judged):
            await trio.sleep_forever()

    def _news(self, event: PeerEvent) -> None:
        name = event.peer.name
        before = self._notes.get(name, _Note(self._began_s, NOT_SEEN))
        if isinstance(event, PeerUp):
            self._notes[name] = _Note()
            if before.since_s is not None:
                self._tell(f"node {name} is there", before)
        elif before.since_s is None:
            why = _WHY.get(event.reason, event.reason)
            self._notes[name] = _Note(int(self._wall_s()), why)
            self._tell(f"node {name} is away: {why}", None)
        self._write()

    def _judged(self, change: MemberChanged) -> None:
        """Take what the membership finds out of one whose link had ended before."""
        name, note = change.after.name, self._notes.get(change.after.name)
        if note is None or note.since_s is None:
            return
        if change.after.status is Status.LEFT and note.why != LEFT:
            self._notes[name] = _Note(note.since_s, LEFT)
            self._write()

    def _tell(self, news: str, before: _Note | None) -> None:
        if before is not None and before.why != NOT_SEEN:
            assert before.since_s is not None, "it was away"
            news += f" again, after {max(0, int(self._wall_s()) - before.since_s)} s"
        log.log(logging.DEBUG if self.quiet else logging.INFO, "%s", news)

    # --- its file ---------------------------------------------------------------------

    def _read(self) -> dict[str, _Note]:
        if self._path is None:
            return {}
        try:
            found = _decode(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("%s cannot be read, and is made anew: %s", self._path, error)
            return {}
        return {
            name: _Note(self._began_s, NOT_SEEN) if note.since_s is None else note
            for name, note in found.items()
        }

    def _write(self) -> None:
        self._forget()
        if self._path is None:
            return
        draft = self._path.with_name(f"{self._path.name}.new")
        try:
            draft.write_bytes(msgspec.json.encode(self._notes))
            draft.replace(self._path)
        except OSError as error:
            told = error.strerror or str(error)
            if told != self._cannot_write:
                self._cannot_write = told
                log.error("%s cannot be written: %s", self._path, told)  # noqa: TRY400 - it is no bug of ours
        else:
            self._cannot_write = ""

    def _forget(self) -> None:
        """Forget who went too long ago, and the first to go of too many."""
        oldest_s = self._wall_s() - REMEMBERED_S
        away = [(n.since_s, name) for name, n in self._notes.items() if n.since_s]
        away.sort(reverse=True)
        for number, (since_s, name) in enumerate(away):
            if since_s < oldest_s or number >= MAX_REMEMBERED:
                del self._notes[name]
