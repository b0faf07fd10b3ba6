"""What an operator asks of one node, asked of the others too.

An order is a request of the operators' routes (:mod:`atomr_infer.gateway.admin`); this
carries it, and knows nothing of routes.  A node that has none says so.

Who may give orders is checked where they come in: a peer has proved that it is of the
cluster.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import trio

from atomr.core.child_spec import ChildSpec
from atomr.errors import LinkError
from atomr.http2 import Service
from atomr.process import PlainProcess

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from atomr.cluster import Peers
    from atomr.crdt import Origin
    from atomr.http2 import Link

_SERVICE = "steer"
_NOT_SERVED = 501
_UNREACHABLE = 502


class Order(msgspec.Struct, frozen=True):
    """A request of an operator.

    Attributes:
        method: in upper case.
        path: below the gateway's root, percent-encoded.
        query: behind the question mark, without what chose the nodes.
        body: as it came.
    """

    method: str
    path: str
    query: str = ""
    body: bytes = b""


class Done(msgspec.Struct, frozen=True):
    """What came of it.

    Attributes:
        status: of HTTP.
        body: JSON.
    """

    status: int
    body: bytes


class Steering:
    """A part of a node: performs orders of peers, and asks them.

    Attributes:
        perform: does an order here; None: this node has no operators' routes.
    """

    shares_life: ClassVar[bool] = False

    def __init__(self) -> None:
        self.perform: Callable[[Order], Awaitable[Done]] | None = None
        self._peers: Peers | None = None

    def services(self) -> Mapping[str, Service[Any]]:
        """Return what is done with peers' messages."""
        return {_SERVICE: Service(Order, answer=self._answer)}

    def child(self, peers: Peers) -> ChildSpec:
        """Return its process, which has nothing to do."""
        self._peers = peers
        start = partial(PlainProcess, trio.sleep_forever)
        return ChildSpec(id=_SERVICE, start=start)

    async def elsewhere(self, order: Order, *, timeout_s: float) -> dict[str, Done]:
        """Have an order performed by all nodes that are up, but for this one.

        Args:
            order: what to do.
            timeout_s: how long one may take.

        Returns:
            What came of it, by the node's name, in its order; 502 where a node did
            not answer.
        """
        assert self._peers is not None, "the node is open"
        found: dict[str, Done] = {}

        async def ask(peer: Origin) -> None:
            found[peer.name] = await self._ask(peer, order, timeout_s)

        async with trio.open_nursery() as nursery:
            for peer in self._peers.all():
                nursery.start_soon(ask, peer)
        return dict(sorted(found.items()))

    async def _ask(self, peer: Origin, order: Order, timeout_s: float) -> Done:
        assert self._peers is not None, "the node is open"
        try:
            return await self._peers.call(
                peer, _SERVICE, order, returns=Done, timeout_s=timeout_s
            )
        except LinkError as error:
            return refusal(_UNREACHABLE, "node_unreachable", str(error))

    async def _answer(self, _: Link, order: Order) -> Done:
        if self.perform is None:
            problem = "the node has no operators' routes; give it an admin_key"
            return refusal(_NOT_SERVED, "no_operators_routes", problem)
        return await self.perform(order)


def refusal(status: int, code: str, message: str) -> Done:
    """Return an order that was not performed, as the operators' routes say it.

    >>> refusal(502, "node_unreachable", "it is gone").status
    502
    """
    error = {"message": message, "type": "admin_error", "param": None, "code": code}
    return Done(status, msgspec.json.encode({"error": error}))
