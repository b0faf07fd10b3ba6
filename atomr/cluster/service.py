"""What a part of the cluster is, so that it can be plugged into a node.

::

    cluster  (rest for one)
      life   (ends with any of these)
        links, members, each service with ``shares_life``
      each other service, in order
      doors

All have started before the doors open: no message comes for a service that was not
there yet.  When a service crashes, those after it restart with it; messages for one
that is down are its own affair, as its callbacks outlive its processes.

A service whose memory is tied to the boot id, as the replicator's event numbers are,
*shares the life*: when its process ends, the node begins a new life, under a new boot
id and with new links.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr.cluster.peers import Peers
    from atomr.core.child_spec import ChildSpec
    from atomr.http2 import Service


class ClusterService(Protocol):
    """A part of the cluster: what it does for peers, and the process that does it."""

    @property
    def shares_life(self) -> bool:
        """Whether its restart must be a new life of the node."""
        ...

    def services(self) -> Mapping[str, Service[Any]]:
        """Return what is done with peers' messages, by name.

        Asked once for each life, before there are links.  Each name is one
        service's own.
        """
        ...

    def child(self, peers: Peers) -> ChildSpec:
        """Return how its process is started; asked once.

        ``start`` is called once more at each restart; ``peers.origin`` is the new
        life then.
        """
        ...
