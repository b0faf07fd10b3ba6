"""Between the membership, which speaks in addresses, and the links, which have names.

A frame goes by the link with the node that it is for.  Where there is none, that is
dialed, and the newest frame for it waits for the link: a dial takes milliseconds, and
the membership sends again by itself.

Of what comes, each frame must be of the life at the other end of its link: a node
speaks for itself only.  Answers go back by the name of that node, so two members that
claim one address do not get each other's.

No trio: the time is asked for, and the sockets are the links'.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs

from atomr import telemetry
from atomr.cluster.discovery.address import parse_address
from atomr.cluster.members.address_book import AddressBook
from atomr.cluster.members.dial_plan import DialPlan, Target
from atomr.cluster.members.linked_peers import LinkedPeers
from atomr.cluster.peers import MemberChanged
from atomr.crdt.origin import Origin
from atomr.errors import LinkBusyError, LinkDownError, LinkMessageError
from atomr.gossip.membership import Frame, LinkReset, Received, Status
from atomr.gossip.membership.frames import Ping
from atomr.http2 import Lane, LinkDown, LinkUp, Reason, Service

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.errors import LinkRefusedError
    from atomr.gossip.membership import Changed, Event, Member
    from atomr.gossip.membership.draw import Draw
    from atomr.http2 import Link, LinkEvent, Links

SERVICE = "members"

_log = logging.getLogger("atomr.cluster")

_RESETS = (Reason.PEER_CLOSED, Reason.GOODBYE)
"""The peer's system has closed the connection; others are left to the probes."""


MAX_SAID = 1024
"""Failures that are not said again; a broken peer may name any address."""


def _nobody(_: object) -> None:
    """Drop what comes between two lives."""


def _nothing() -> None:
    """Do nothing; the same."""


@attrs.frozen
class Redialing:
    """How long to wait before a dial is tried again.

    Attributes:
        first_s: after the first failure; doubles with each.
        most_s: at most.
    """

    first_s: float
    most_s: float


class Switchboard:
    """The links of one node, as its membership needs them.

    Attributes:
        peers: what services see of it.
        plan: whom to dial.
        members: takes what is for the membership.
        wake_dialer: called when somebody is due to be dialed.
        leave: has the membership say goodbye, once.
        superseded: called with a later life of this node that a peer knows.
    """

    def __init__(
        self, name: str, *, now: Callable[[], float], draw: Draw, redialing: Redialing
    ) -> None:
        self._name = name
        self._now = now
        self._draw = draw
        self._redialing = redialing
        self._links: Links | None = None
        self._waiting: dict[Target, Frame] = {}
        self._said: set[tuple[str, str]] = set()
        # Whose goodbye was heard, until the link ends.
        self._leaving: set[Origin] = set()
        self._begin()
        self.peers = LinkedPeers(Origin(name, 0))
        self.members: Callable[[Event], None] = _nobody
        self.wake_dialer: Callable[[], None] = _nothing
        self.leave: Callable[[], None] = _nothing
        self.superseded: Callable[[Origin], None] = _nobody

    def _begin(self) -> None:
        self._book = AddressBook()
        self._waiting.clear()
        self.plan = DialPlan(
            self._name,
            draw=self._draw,
            redial_s=self._redialing.first_s,
            max_redial_s=self._redialing.most_s,
        )

    def begin(self, origin: Origin, links: Links) -> None:
        """Begin a life with these links."""
        self._begin()
        self._links = links
        self.peers.begin(origin, links)

    def end(self) -> None:
        """End it."""
        self.members = _nobody
        self.superseded = _nobody
        self.wake_dialer = self.leave = _nothing
        self._links = None
        self.peers.end()

    # --- from the links ---------------------------------------------------------------

    def service(self) -> Service[Frame]:
        """Return what is done with the frames of peers."""
        return Service(Frame, tell=self._heard)

    def observe(self, event: LinkEvent) -> None:
        """Take that a link came or went."""
        match event:
            case LinkUp(link):
                self.plan.linked(link.peer.name, self._now())
                self._send_waiting(link)
                self.peers.look(link.peer.name)
            case LinkDown(link, error):
                self.plan.unlinked(link.peer.name, self._now())
                # Its last frame may still be in the membership's mailbox.
                has_left = link.peer in self._leaving
                self._leaving.discard(link.peer)
                self.peers.look(link.peer.name, "left" if has_left else error.reason)
                if error.reason in _RESETS:
                    self.members(LinkReset(link.peer))
                self.wake_dialer()
            case _:
                return

    def _heard(self, link: Link, frame: Frame) -> None:
        if frame.me.origin != link.peer:
            detail = f"it speaks as {frame.me.origin}, and is {link.peer}"
            link.end(Reason.MALFORMED, detail, fault=True)
            return
        if frame.me.status is Status.LEFT:
            self._leaving.add(link.peer)
        self.members(Received(f"@{link.peer.name}", frame))

    # --- from the membership ----------------------------------------------------------

    def changed(self, effect: Changed) -> None:
        """Take that a member is no longer what it was held to be."""
        member = effect.after
        telemetry.emit(
            ("atomr", "member", "changed"),
            metadata={"before": effect.before, "after": member},
        )
        if member.name != self._name:
            self._want(member)
        self.peers.changed(MemberChanged(effect.before, member))

    def _want(self, member: Member) -> None:
        if not member.status.is_live:
            self._book.drop(member.name)
            self.plan.release(member.name)
            self._take_waiting(member.name)
            return
        self._book.put(member.name, member.address)
        now_s = self._now()
        self.plan.want(member.name, member.address, now_s)
        if self._link(member.name) is not None:
            self.plan.linked(member.name, now_s)
        else:
            self.wake_dialer()

    def send(self, to: str, frame: Frame) -> None:
        """Send a frame to an address, or have that dialed."""
        if to.startswith("@"):
            self._pass_on(self._link(to[1:]), frame)
            return
        names = self._names(to, frame)
        if self._name in names:
            return
        for name in names:
            link = self._link(name)
            if link is not None:
                self._pass_on(link, frame)
                return
        target = Target(to, names[0] if names else None)
        self._waiting[target] = frame
        self.plan.run_errand(target)
        self.wake_dialer()

    def _names(self, to: str, frame: Frame) -> tuple[str, ...]:
        """Return the nodes that may be meant."""
        if isinstance(frame, Ping):
            return (frame.target,)
        return self._book.whom(to, self._now())

    def _link(self, name: str) -> Link | None:
        return self._links.get(name) if self._links is not None else None

    def _pass_on(self, link: Link | None, frame: Frame) -> None:
        """Send; a table that is too long for ``ctl`` goes with what is bulky."""
        for lane in (Lane.CTL, Lane.BULK):
            if link is None:
                break
            try:
                link.tell(SERVICE, frame, lane=lane)
            except LinkBusyError:
                continue
            except (LinkDownError, LinkMessageError):
                break
            return
        telemetry.emit(("atomr", "member", "frame_lost"), metadata={"frame": frame})

    def _send_waiting(self, link: Link) -> None:
        for frame in self._take_waiting(link.peer.name):
            self._pass_on(link, frame)

    def _take_waiting(self, name: str) -> list[Frame]:
        targets = [target for target in self._waiting if target.name == name]
        return [self._waiting.pop(target) for target in targets]

    # --- from the dialer --------------------------------------------------------------

    async def dial(self, target: Target) -> Link:
        """Dial what was due.

        Raises:
            LinkRefusedError: there is no link; see ``Links.dial``.
            ValueError: its address is none.
        """
        assert self._links is not None, "dialed within a life"
        address = parse_address(target.address)
        return await self._links.dial(target.name, address.host, address.port)

    def dialed(self, target: Target, link: Link) -> None:
        """Take that there is a link."""
        now_s = self._now()
        self._said = {said for said in self._said if said[0] != target.address}
        self._book.found(target.address, link.peer.name, now_s)
        self._over(target, link)

    def failed(self, target: Target, error: LinkRefusedError | ValueError) -> None:
        """Take that there is none; why is said once, until it changes."""
        reason = getattr(error, "reason", "no_address")
        if getattr(error, "peer", None) == self._name:
            self._book.found(target.address, self._name, self._now())
        elif (target.address, reason) not in self._said:
            if len(self._said) >= MAX_SAID:
                self._said.clear()
            self._said.add((target.address, reason))
            detail = getattr(error, "detail", error)
            _log.warning("cannot reach %s (%s): %s", target.address, reason, detail)
        telemetry.emit(
            ("atomr", "peer", "unreachable"),
            metadata={"address": target.address, "reason": reason},
        )
        later_boot = getattr(error, "later_boot", None)
        if later_boot is not None:
            self.superseded(Origin(self._name, later_boot))
        self._over(target, None)

    def _over(self, target: Target, link: Link | None) -> None:
        frame = self._waiting.pop(target, None)
        self.plan.ended(target, self._now())
        if frame is not None and link is not None:
            self._pass_on(link, frame)
        self.wake_dialer()
