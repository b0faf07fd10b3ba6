"""What the processes of a node's part in a cluster share, over all of its lives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

import attrs
import trio

from atomr.cluster.members.switchboard import SERVICE, Redialing, Switchboard
from atomr.cluster.options import ClusterOptions
from atomr.cluster.service import ClusterService
from atomr.crdt.origin import Origin
from atomr.errors import ClusterError, SupersededError
from atomr.gossip.membership.draw import Draw
from atomr.http2 import Credentials, LinkOptions, Links

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from atomr.http2 import Service


@attrs.define
class Station:
    """One node's part in a cluster.

    Attributes:
        options: what the node was told.
        services: what is plugged into it.
        draw: its generator.
        fail: ends the cluster, with that error.
        credentials: in use now.
        switchboard: between membership and links.
        port: that the node listens on; 0 before it does.
        boot: of the present life; 0 before the first.
        links: of the present life.
        known: addresses of the members of the life before, to join by.
        doors: set when all services have started.
        opened: set when connections are accepted.
    """

    options: ClusterOptions
    services: Sequence[ClusterService]
    draw: Draw
    fail: Callable[[ClusterError], None]
    credentials: Credentials
    switchboard: Switchboard
    port: int
    boot: int = 0
    links: Links | None = None
    known: tuple[str, ...] = ()
    doors: trio.Event = attrs.field(factory=trio.Event)
    opened: trio.Event = attrs.field(factory=trio.Event)

    @property
    def origin(self) -> Origin:
        """The node in its present life."""
        return Origin(self.options.name, self.boot)

    @property
    def address(self) -> str:
        """Where others reach it."""
        return self.options.advertised(self.port)

    def link_options(self) -> LinkOptions:
        """Return what its links need."""
        options = self.options
        return LinkOptions(
            cluster=options.cluster,
            origin=self.origin,
            cookie=options.cookie,
            credentials=self.credentials,
            heartbeat_interval_s=options.heartbeat_interval_s,
            heartbeat_timeout_s=options.heartbeat_timeout_s,
            handshake_timeout_s=options.handshake_timeout_s,
        )

    def link_services(self) -> dict[str, Service[Any]]:
        """Return what is done for peers, by name.

        Raises:
            ValueError: two services have one name.
        """
        found: dict[str, Service[Any]] = {SERVICE: self.switchboard.service()}
        for service in self.services:
            given: Mapping[str, Service[Any]] = service.services()
            for name in given:
                if name in found:
                    raise ValueError(
                        f"services of {service!r}: the name {name!r} is taken"
                    )
            found |= given
        return found

    def begin(self, links: Links) -> None:
        """Begin a life."""
        self.links = links
        self.doors, self.opened = trio.Event(), trio.Event()
        self.switchboard.begin(self.origin, links)
        self.switchboard.superseded = self._superseded

    def end(self) -> None:
        """End it; whom it knew is where the next one begins."""
        members = self.switchboard.peers.members.values()
        self.known = tuple(m.address for m in members if m.status.is_live)
        self.links = None
        self.switchboard.end()

    def _superseded(self, by: Origin) -> None:
        self.fail(SupersededError(self.origin, by))

    def reload(self, credentials: Credentials) -> None:
        """Use other certificates from the next handshake on.

        Raises:
            ValueError: they are another node's; the old ones stay.
        """
        self.options.check_credentials(credentials)
        self.credentials = credentials
        if self.links is not None:
            self.links.reload(credentials)


def make_station(
    options: ClusterOptions,
    services: Sequence[ClusterService],
    *,
    draw: Draw,
    now: Callable[[], float],
    fail: Callable[[ClusterError], None],
) -> Station:
    """Return a station that has had no life yet."""
    redialing = Redialing(options.redial_s, options.max_redial_s)
    return Station(
        options=options,
        services=services,
        draw=draw,
        fail=fail,
        credentials=options.credentials,
        switchboard=Switchboard(options.name, now=now, draw=draw, redialing=redialing),
        port=options.listen_at.port,
    )


def cluster_id(name: str) -> int:
    """Return the 64 bits that stand for a cluster's name in each frame."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")
