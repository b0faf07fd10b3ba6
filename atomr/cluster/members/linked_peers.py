"""The peers of one node: those with a link that the membership holds to run.

Two sources are put together here, links and members; whichever has news calls
:meth:`LinkedPeers.look` with the node's name.  What follows is told to the watchers in
one order, the same for all, also where a watcher's own doing is the cause of more.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from atomr import telemetry
from atomr.cluster.peers import MemberChanged, PeerDown, PeerUp
from atomr.errors import LinkBusyError, LinkDownError
from atomr.gossip.membership import Status
from atomr.http2 import Lane, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from atomr.cluster.peers import PeerEvent
    from atomr.crdt.origin import Origin
    from atomr.gossip.membership import Member
    from atomr.http2 import Link, Links

_log = logging.getLogger("atomr.cluster")

_NONE: Mapping[str, Any] = {}


class LinkedPeers:
    """The peers; see :class:`~atomr.cluster.peers.Peers` for what each method does.

    Attributes:
        refused: tells that were not sent, as the peer was down or too much waited.
        members: what the membership knows, by name; its own table, to be read only.
    """

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._links: Links | None = None
        self._up: dict[str, Origin] = {}
        # What the watchers know; behind what is so while some are still being told.
        self._told: dict[str, Origin] = {}
        self._watchers: list[Callable[[PeerEvent], None]] = []
        self._member_watchers: list[Callable[[MemberChanged], None]] = []
        self._news: deque[PeerEvent | MemberChanged] = deque()
        self._telling = False
        self.members: Mapping[str, Member] = _NONE
        self.refused = 0

    # --- for services -----------------------------------------------------------------

    @property
    def origin(self) -> Origin:
        """This node, in its present life."""
        return self._origin

    def all(self) -> tuple[Origin, ...]:
        """Return those that are up, sorted."""
        return tuple(sorted(self._up.values()))

    def get(self, name: str) -> Origin | None:
        """Return the node of that name if it is up."""
        return self._up.get(name)

    def link(self, peer: Origin) -> Link | None:
        """Return the link with a peer; None where that life of it is not up."""
        if self._links is None or self._up.get(peer.name) != peer:
            return None
        link = self._links.get(peer.name)
        return link if link is not None and link.peer == peer else None

    def tell(
        self, peer: Origin, service: str, message: object, *, lane: Lane = Lane.MSG
    ) -> bool:
        """Send a message that nobody answers; does not wait."""
        link = self.link(peer)
        if link is not None:
            try:
                link.tell(service, message, lane=lane)
            except (LinkBusyError, LinkDownError):
                pass
            else:
                return True
        self.refused += 1
        if telemetry.handlers:
            telemetry.emit(
                ("atomr", "peer", "tell_refused"),
                metadata={"peer": peer, "service": service},
            )
        return False

    async def call(
        self,
        peer: Origin,
        service: str,
        message: object,
        *,
        returns: Any,  # noqa: ANN401 - as Link.call, whose overloads the protocol has
        timeout_s: float = 5.0,
    ) -> Any:  # noqa: ANN401 - the same
        """Send a message and wait for its answer.

        Raises:
            LinkDownError: that life of the peer is not up, or its link ended.
            LinkError: another one; see ``Link.call``.
        """
        link = self.link(peer)
        if link is None:
            detail = "no link with that life of it is up"
            raise LinkDownError(peer, Reason.UNREACHABLE, detail)
        return await link.call(service, message, returns=returns, timeout_s=timeout_s)

    @contextmanager
    def watch(self, callback: Callable[[PeerEvent], None]) -> Iterator[None]:
        """Call back for each peer that is up, and whenever one comes or goes."""
        with self._in_order():
            for _, peer in sorted(self._told.items()):
                _tell(callback, PeerUp(peer))
            self._watchers.append(callback)
        try:
            yield
        finally:
            self._watchers.remove(callback)

    @contextmanager
    def watch_members(
        self, callback: Callable[[MemberChanged], None]
    ) -> Iterator[None]:
        """Call back for each member that is known, and whenever one changes."""
        with self._in_order():
            for member in tuple(self.members.values()):
                _tell(callback, MemberChanged(None, member))
            self._member_watchers.append(callback)
        try:
            yield
        finally:
            self._member_watchers.remove(callback)

    # --- for links and membership -----------------------------------------------------

    def begin(self, origin: Origin, links: Links | None) -> None:
        """Begin a life.

        Args:
            origin: the node in it.
            links: None: it has no others.
        """
        self._origin = origin
        self._links = links

    def end(self) -> None:
        """End it: nobody is up any more, and nobody is known."""
        self.members = _NONE
        for name in tuple(self._up):
            self._take_down(name, Reason.CLOSED)
        self._links = None
        self._tell_all()

    def look(self, name: str, reason: str = "") -> None:
        """Find out whether a node is up, and tell.

        Args:
            name: of the node.
            reason: why its link ended, if it did.
        """
        before, now = self._up.get(name), self._found(name)
        if before != now:
            if before is not None:
                self._take_down(name, reason or self._why(before))
            if now is not None:
                self._up[name] = now
                self._news.append(PeerUp(now))
                telemetry.emit(("atomr", "peer", "up"), metadata={"peer": now})
        self._tell_all()

    def changed(self, change: MemberChanged) -> None:
        """Take what the membership has to say."""
        self._news.append(change)
        self.look(change.after.name)

    def _found(self, name: str) -> Origin | None:
        link = self._links.get(name) if self._links is not None else None
        member = self.members.get(name)
        if link is None or member is None or link.down is not None:
            return None
        is_up = member.status.is_live and member.origin == link.peer
        return link.peer if is_up else None

    def _why(self, before: Origin) -> str:
        member = self.members.get(before.name)
        if member is not None and member.origin.boot > before.boot:
            return "restarted"
        left = member is not None and member.status is Status.LEFT
        return "left" if left else "dead"

    def _take_down(self, name: str, reason: str) -> None:
        peer = self._up.pop(name)
        self._news.append(PeerDown(peer, reason))
        telemetry.emit(
            ("atomr", "peer", "down"), metadata={"peer": peer, "reason": reason}
        )

    def _tell_all(self) -> None:
        with self._in_order():
            pass

    @contextmanager
    def _in_order(self) -> Iterator[None]:
        """Tell what is new after the block, unless that is under way around it."""
        if self._telling:
            yield
            return
        self._telling = True
        try:
            yield
            while self._news:
                self._tell_of(self._news.popleft())
        finally:
            self._telling = False

    def _tell_of(self, news: PeerEvent | MemberChanged) -> None:
        watchers: list[Callable[[Any], None]] = self._watchers
        match news:
            case PeerUp():
                self._told[news.peer.name] = news.peer
            case PeerDown():
                del self._told[news.peer.name]
            case MemberChanged():
                watchers = self._member_watchers
        for watcher in tuple(watchers):
            # One may have left meanwhile.
            if watcher in watchers:
                _tell(watcher, news)


def _tell(callback: Callable[[Any], None], news: object) -> None:
    try:
        callback(news)
    except Exception:  # noqa: BLE001 - a boundary: reported
        _log.exception("a watcher of peers failed on %r", news)
