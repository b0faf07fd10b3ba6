"""``GET /admin/metrics``: all figures of a node, in Prometheus' text format.

==================  ==========================================================
``?nodes=this``     of this node alone
``?nodes=all``      of all nodes that are up, with the label ``node``
neither             of this node, and of those that answer on the same port
==================  ==========================================================

Whoever asks workers that share a port cannot say which of them takes the connection,
so any of them answers for all.  Where the operators have an address of their own,
``/metrics`` is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quart import Response, request

from atomr_infer.gateway.admin.metrics.engines import add_engines
from atomr_infer.gateway.admin.metrics.requests import add_requests
from atomr_infer.gateway.admin.metrics.standing import add_process, add_standing
from atomr_infer.gateway.admin.metrics.table import Table
from atomr_infer.gateway.admin.refused import RefusedError
from atomr_infer.serving.steering import Order
from atomr_infer.wire.prometheus import CONTENT_TYPE, encode, joined

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from atomr_infer.serving.shared import Serving

    View = Callable[..., Awaitable[Response]]

PATH = "/admin/metrics"
SHORT_PATH = "/metrics"

ELSEWHERE_S = 3.0
"""How long another node has; a scrape has ten seconds, as a rule."""

_OK = 200


class MetricsRoutes:
    """The route over one serving tree."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def routes(self) -> Iterator[tuple[str, str, View]]:
        """Yield each route's method, path and view."""
        yield "GET", PATH, self._all
        yield "GET", SHORT_PATH, self._all

    async def _all(self) -> Response:
        nodes = request.args.get("nodes")
        if nodes not in {None, "this", "all"}:
            problem = f"nodes is {nodes!r}; it is this or all"
            raise RefusedError(400, "bad_nodes", problem)
        text = await own_figures(self._serving)
        if nodes == "all" or (nodes is None and self._serving.node.shares_port):
            text = await self._with_others(text)
        return Response(text, content_type=CONTENT_TYPE.decode())

    async def _with_others(self, own: bytes) -> bytes:
        node = self._serving.node
        order = Order("GET", PATH, "nodes=this")
        others = await node.steering.elsewhere(order, timeout_s=ELSEWHERE_S)
        table = Table(node.name)
        texts = [own]
        for name, done in others.items():
            is_there = done.status == _OK
            told = "Whether another node that is up has told its figures."
            table.gauge("node_told", told, is_there, of=name)
            if is_there:
                texts.append(done.body)
        return joined([*texts, encode(table.families())])


async def own_figures(serving: Serving) -> bytes:
    """Return all figures of a node, as text."""
    serving.meters.keep(serving.deployments)
    table = Table(serving.node.name)
    add_standing(table, serving)
    add_requests(table, serving.meters)
    await add_engines(table, serving)
    add_process(table)
    return encode(table.families())
