"""A node's cluster services where it has no others: the same code alone and together.

::

    replicator = Replicator(store=StoreOptions(folder / "values.sqlite"))
    async with open_node("a"), open_alone("a", [replicator]):
        replicator.open_map("catalogue").put("tiny", {"port": 1})

There are no links, no certificates and no port; nobody else is ever up.  What the
services have stored is there for the cluster that the node joins later.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from atomr.cluster.members.boot_file import draw_boot
from atomr.cluster.members.linked_peers import LinkedPeers
from atomr.cluster.standing import Standing
from atomr.core.checks import check_text
from atomr.core.child_spec import ChildSpec, Restart
from atomr.core.supervision import Strategy
from atomr.crdt.origin import Origin
from atomr.gossip.membership import Member, Status
from atomr.otp import GenServer, Supervisor
from atomr.process import current_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from atomr.cluster.peers import Peers
    from atomr.cluster.service import ClusterService

_NO_ADDRESS = "127.0.0.1:0"


class _Life(GenServer):
    """Begins a life of the node: a boot id above all that it had."""

    def __init__(self, peers: LinkedPeers, boot_file: Path | None) -> None:
        self._peers = peers
        self._boot_file = boot_file

    async def init(self) -> None:
        """Draw the boot id.

        Raises:
            OSError: the file cannot be read or written.
            ValueError: it holds no boot id.
        """
        name, last = self._peers.origin.name, self._peers.origin.boot
        # It is written with fsync.
        boot = await trio.to_thread.run_sync(
            lambda: draw_boot(self._boot_file, last=last)
        )
        origin = Origin(name, boot)
        self._peers.begin(origin, None)
        self._peers.members = {name: Member(origin, _NO_ADDRESS, 0, Status.ALIVE)}


@asynccontextmanager
async def open_alone(
    name: str,
    services: Sequence[ClusterService] = (),
    *,
    boot_file: Path | None = None,
) -> AsyncIterator[Peers]:
    """Run services for the length of the block, which is inside ``open_node``.

    Args:
        name: of the node.
        services: what it does; see :func:`~atomr.cluster.open_cluster`.
        boot_file: where the last boot id is kept; None: the clock alone is trusted.

    Raises:
        StartError: a service did not start.
        ClusterDownError: the processes crashed too often; the body was cancelled.
        NoNodeError: there is no node around.

    Cancellation: the processes end.
    """
    check_text("name", name)
    node = current_node()
    peers = LinkedPeers(Origin(name, 0))
    begun: list[ChildSpec] = []
    after: list[ChildSpec] = []
    for service in services:
        service.services()  # as in a cluster: once for each life, and before all
        (begun if service.shares_life else after).append(service.child(peers))
    life = [ChildSpec(id="begin", start=partial(_Life, peers, boot_file)), *begun]
    children = [
        ChildSpec(id="life", start=lambda: Supervisor(life, max_restarts=0)),
        *after,
    ]
    root = ChildSpec(
        id="cluster",
        start=lambda: Supervisor(children, strategy=Strategy.REST_FOR_ONE),
        restart=Restart.TEMPORARY,
    )
    async with Standing(name).on(node, root):
        yield peers
