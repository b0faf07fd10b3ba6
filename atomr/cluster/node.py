"""A node's part in a cluster, as one ``async with`` block inside ``open_node``."""

from __future__ import annotations

import random
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from atomr.cluster.members.station import make_station
from atomr.cluster.running import cluster_spec
from atomr.cluster.standing import Standing
from atomr.errors import ClusterTimeoutError
from atomr.gossip.membership import Status
from atomr.process import current_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from atomr.cluster.members.station import Station
    from atomr.cluster.options import ClusterOptions
    from atomr.cluster.peers import PeerEvent, Peers
    from atomr.cluster.service import ClusterService
    from atomr.crdt.origin import Origin
    from atomr.http2 import Credentials


@attrs.frozen
class MemberRow:
    """What this node holds of a node of the cluster; itself is one.

    Attributes:
        name: the same in each life.
        boot: of the life.
        address: where others reach it.
        status: alive, suspect, dead or left.
    """

    name: str
    boot: int
    address: str
    status: Status


class Cluster:
    """This node's part in a cluster; see :func:`open_cluster`."""

    def __init__(self, station: Station) -> None:
        self._station = station

    def __repr__(self) -> str:
        return f"<Cluster {self.origin} with {len(self.peers.all())} peers>"

    @property
    def origin(self) -> Origin:
        """This node, in its present life."""
        return self._station.origin

    @property
    def address(self) -> str:
        """Where others reach it."""
        return self._station.address

    @property
    def peers(self) -> Peers:
        """The other nodes."""
        return self._station.switchboard.peers

    def members(self) -> tuple[MemberRow, ...]:
        """Return all nodes that are known, the dead of the last day too, by name."""
        members = self._station.switchboard.peers.members
        return tuple(
            MemberRow(name, member.origin.boot, member.address, member.status)
            for name, member in sorted(members.items())
        )

    def reload(self, credentials: Credentials) -> None:
        """Use other certificates from the next handshake on; links stay as they are.

        Raises:
            ValueError: they are another node's; the old ones stay.
        """
        self._station.reload(credentials)

    async def wait_for(self, nodes: int, *, timeout_s: float) -> None:
        """Wait until so many nodes are up, this one among them.

        Args:
            nodes: how many, at least.
            timeout_s: how long, in seconds.

        Raises:
            ClusterTimeoutError: fewer were.
        """
        changed = trio.Event()

        def look(_: PeerEvent) -> None:
            changed.set()

        # First: who need not wait needs no time.
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(timeout_s), self.peers.watch(look):
            while 1 + len(self.peers.all()) < nodes:
                changed = trio.Event()
                await changed.wait()
            return
        up = sorted((self.origin.name, *(peer.name for peer in self.peers.all())))
        raise ClusterTimeoutError(nodes, tuple(up), timeout_s)


@asynccontextmanager
async def open_cluster(
    options: ClusterOptions, services: Sequence[ClusterService] = ()
) -> AsyncIterator[Cluster]:
    """Be part of a cluster for the length of the block, which is inside ``open_node``.

    The node listens, joins by whom its discoveries find, and is seen by the others.
    Leaving the block says goodbye to them.

    Args:
        options: who the node is, and how it finds others.
        services: what it does with them.

    Raises:
        StartError: something did not start: the address is in use, the boot file
            cannot be written.
        SupersededError: another process has the node's name; the body was cancelled.
        ClusterDownError: the processes crashed too often; the body was cancelled.
        NoNodeError: there is no node around.

    Cancellation: the processes end; the others are told.
    """
    node = current_node()
    standing = Standing(options.name)
    draw = random.Random(secrets.randbits(64))
    station = make_station(
        options, services, draw=draw, now=node.now, fail=standing.fail
    )
    async with standing.on(node, cluster_spec(station)):
        yield Cluster(station)
