"""Asks one member after the other whether it is there, and asks for others.

::

    Ping ─── again, each retry_s ──────────────────────────┐
       no answer within the timeout                        │
    PingRequest to helpers, each retry_s as well ──────────┤
       no answer by the end of the interval                │ Ack, directly or
       ▼                                                   ▼ from a helper
    the target is accused                           it is there

All times are multiplied by the node's own health.  A helper that gets no answer
either says so (``Nack``): then the blame is the target's.  Helpers that stay
silent too are a sign that the node itself is unwell.

Pure.

Source: SWIM, section 3.1; Lifeguard, section "LHA-Probe", for the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from atomr.crdt.origin import Origin
from atomr.gossip.membership.member import Member

if TYPE_CHECKING:
    from atomr.gossip.membership.frames import Ack, PingRequest
    from atomr.gossip.membership.health import Health
    from atomr.gossip.membership.options import MembershipOptions
    from atomr.gossip.membership.roster import Roster
    from atomr.gossip.membership.speaker import Speaker

_NEVER: Final = float("inf")

_MAX_RELAYS: Final = 256
"""Requests of others that are kept; more than 64 nodes can have at once."""

_NACK_AT: Final = 0.8
"""Of the time that a helper has; the rest is for the way back."""


@attrs.define
class _Probe:
    """The probe that is on its way."""

    target: Member
    number: int
    retry_s: float
    retry_at: float
    helpers_at: float
    ends_at: float
    helpers: list[Member] = attrs.field(factory=list)
    nacked: list[str] = attrs.field(factory=list)
    has_asked: bool = False


@attrs.define
class _Relay:
    """A ping that was asked for by another node."""

    address: str
    requester: str
    number: int
    target: Origin
    nack_at: float
    ends_at: float
    is_nacked: bool = False
    is_acked: bool = False

    @property
    def is_settled(self) -> bool:
        """Whether the requester has been told something."""
        return self.is_acked or self.is_nacked


class Prober:
    """The probes of one node.

    Attributes:
        next_at: when the next probe begins.
    """

    __slots__ = (
        "_health",
        "_number",
        "_options",
        "_probe",
        "_relays",
        "_roster",
        "_speaker",
        "next_at",
    )

    def __init__(
        self,
        options: MembershipOptions,
        roster: Roster,
        speaker: Speaker,
        health: Health,
    ) -> None:
        """Probe nobody until ``next_at`` is set."""
        self.next_at = _NEVER
        self._options = options
        self._roster = roster
        self._speaker = speaker
        self._health = health
        self._probe: _Probe | None = None
        self._relays: dict[int, _Relay] = {}
        self._number = 0

    def due_at(self) -> float:
        """Return when :meth:`due` has something to do."""
        at = self.next_at
        probe = self._probe
        # Compared one by one, as this is done for each frame.
        if probe is not None:
            if probe.retry_at < at:
                at = probe.retry_at
            if probe.ends_at < at:
                at = probe.ends_at
            if probe.helpers_at < at and not probe.has_asked:
                at = probe.helpers_at
        for relay in self._relays.values():
            relay_at = relay.ends_at if relay.is_settled else relay.nack_at
            if relay_at < at:
                at = relay_at
        return at

    def due(self, now_s: float) -> Member | None:
        """Do what is due; return the target of a probe that has failed."""
        if self._relays:
            self._due_relays(now_s)
        failed = None if self._probe is None else self._due_probe(self._probe, now_s)
        if now_s >= self.next_at:
            self._begin(now_s)
        return failed

    def hurry(self, name: str, now_s: float) -> None:
        """Probe a member as soon as the present probe is over."""
        self._roster.hurry(name)
        if self._probe is None:
            self.next_at = now_s

    def shift(self, lag_s: float) -> None:
        """Give those that were asked as much more time as this node was away."""
        probe = self._probe
        if probe is not None:
            probe.helpers_at += lag_s
            probe.ends_at += lag_s
            self.next_at = max(self.next_at, probe.ends_at)
        for relay in self._relays.values():
            relay.nack_at += lag_s
            relay.ends_at += lag_s

    # --- own probes -----------------------------------------------------------------

    def _begin(self, now_s: float) -> None:
        options, slower = self._options, self._health.multiplier
        ends_at = self.next_at = now_s + options.probe_s * slower
        target = self._roster.next_target()
        if target is None:
            return
        retry_s = options.retry_s * slower
        helpers_at = now_s + options.probe_timeout_s * slower
        self._number += 1
        times = retry_s, now_s + retry_s, helpers_at, ends_at
        self._probe = _Probe(target, self._number, *times)
        self._speaker.ping(target.name, target.address, self._number)

    def _due_probe(self, probe: _Probe, now_s: float) -> Member | None:
        known = self._roster.members.get(probe.target.name)
        if known is None or not known.status.is_live:
            self._probe = None
            return None
        if now_s >= probe.ends_at:
            self._probe = None
            if not probe.helpers or len(probe.nacked) < len(probe.helpers):
                self._health.worsen()
            return probe.target
        if not probe.has_asked and now_s >= probe.helpers_at:
            probe.has_asked = True
            probe.helpers = self._roster.sample(
                self._options.helpers, but=probe.target.name
            )
            self._ask(probe)
        if now_s >= probe.retry_at:
            probe.retry_at = now_s + probe.retry_s
            self._speaker.ping(probe.target.name, probe.target.address, probe.number)
            self._ask(probe)
        return None

    def _ask(self, probe: _Probe) -> None:
        for helper in probe.helpers:
            self._speaker.ping_request(helper, probe.number, probe.target)

    def acked(self, ack: Ack) -> None:
        """Take the answer to a ping: of this node, or that another asked for."""
        probe = self._probe
        if (
            probe is not None
            and ack.number == probe.number
            and ack.target == probe.target.origin
        ):
            self._probe = None
            self._health.improve()
            return
        relay = self._relays.get(ack.number)
        if relay is not None and ack.target == relay.target and not relay.is_acked:
            relay.is_acked = True
            self._speaker.ack(
                relay.address, relay.requester, relay.number, relay.target
            )

    def nacked(self, helper: str, number: int) -> None:
        """Take a helper's word that it has no answer either."""
        probe = self._probe
        if probe is not None and number == probe.number and helper not in probe.nacked:
            probe.nacked.append(helper)

    # --- probes for others ----------------------------------------------------------

    def requested(self, sender: str, request: PingRequest, now_s: float) -> None:
        """Ping a member for another node, and answer it again if it asks again."""
        target = self._roster.members.get(request.target.name)
        if target is None or target.origin != request.target:
            self._speaker.nack(sender, request.me.name, request.number)
            return
        number, relay = self._relay_of(sender, request)
        if relay is None:
            if len(self._relays) >= _MAX_RELAYS:
                return
            self._number += 1
            number = self._number
            window_s = self._options.probe_s - self._options.probe_timeout_s
            relay = self._relays[number] = _Relay(
                sender,
                request.me.name,
                request.number,
                request.target,
                nack_at=now_s + window_s * _NACK_AT,
                ends_at=now_s + self._options.probe_s,
            )
        relay.ends_at = now_s + self._options.probe_s
        if relay.is_acked:
            self._speaker.ack(sender, relay.requester, relay.number, relay.target)
            return
        if relay.is_nacked:
            self._speaker.nack(sender, relay.requester, relay.number)
        self._speaker.ping(target.name, target.address, number)

    def _relay_of(self, sender: str, request: PingRequest) -> tuple[int, _Relay | None]:
        for number, relay in self._relays.items():
            if relay.number == request.number and relay.address == sender:
                return number, relay
        return 0, None

    def _due_relays(self, now_s: float) -> None:
        for number, relay in tuple(self._relays.items()):
            if now_s >= relay.ends_at:
                del self._relays[number]
            elif now_s >= relay.nack_at and not relay.is_settled:
                relay.is_nacked = True
                self._speaker.nack(relay.address, relay.requester, relay.number)
