"""The processes of a node's part in a cluster, and in what order they depend."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from atomr.cluster.members.links_process import Doors, LinksProcess
from atomr.cluster.members.member_server import MemberServer
from atomr.cluster.members.seeking import seek
from atomr.core.child_spec import ChildSpec, Restart
from atomr.core.supervision import Strategy
from atomr.otp import Supervisor
from atomr.process import PlainProcess

if TYPE_CHECKING:
    from atomr.cluster.members.station import Station

OPENING_TIMEOUT_S = 10.0


def cluster_spec(station: Station) -> ChildSpec:
    """Return the specification of the root: see :mod:`atomr.cluster.service`.

    It is temporary: what its end means is for :func:`~atomr.cluster.open_cluster` to
    say.
    """
    peers = station.switchboard.peers
    begun: list[ChildSpec] = []
    after: list[ChildSpec] = []
    for service in station.services:
        (begun if service.shares_life else after).append(service.child(peers))
    life = [
        ChildSpec(id="links", start=partial(LinksProcess, station)),
        ChildSpec(id="members", start=partial(MemberServer, station)),
        *begun,
    ]
    children = [
        # The end of one is the end of all, and of what comes after: a new life.
        ChildSpec(id="life", start=lambda: Supervisor(life, max_restarts=0)),
        *after,
        ChildSpec(
            id="doors",
            start=partial(Doors, station),
            init_timeout_s=OPENING_TIMEOUT_S,
        ),
        ChildSpec(id="discovery", start=lambda: PlainProcess(seek, station)),
    ]
    return ChildSpec(
        id="cluster",
        start=lambda: Supervisor(children, strategy=Strategy.REST_FOR_ONE),
        restart=Restart.TEMPORARY,
    )
