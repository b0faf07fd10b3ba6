"""The operators' routes for deployments of the whole cluster.

==========  ====================================  ===============================
``GET``     ``/admin/placement``                  all nodes and deployments
``GET``     ``/admin/placement/NAME``             one deployment, or all that
                                                  serve a model of that name
``POST``    ``/admin/placement/explain``          where one would run
``POST``    ``/admin/placement``                  deploy
``PUT``     ``/admin/placement/NAME``             change
``PUT``     ``/admin/placement/NAME/replicas``    scale
``DELETE``  ``/admin/placement/NAME``             remove, after what runs
==========  ====================================  ===============================

A deployment is sent as JSON, with the members that its table in a configuration has.
The answer comes when all nodes are told, and not when it serves: the first two routes
show how far it is.  A node that has no others takes and shows the same.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import trio
from quart import Response, request

from atomr_infer.config.deployment_table import table_deployment
from atomr_infer.errors import ConfigError, InferenceError, ModelNotFoundError
from atomr_infer.gateway.admin.refused import RefusedError, json_answer
from atomr_infer.runtimes.by_model import why_runtime

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from atomr_infer.gateway.admin.shown import Shown
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.policy.lifecycle.placement import Placed
    from atomr_infer.serving.placing.alone import AnyOrders
    from atomr_infer.serving.placing.records import Facts
    from atomr_infer.serving.placing.status import DeploymentStatus
    from atomr_infer.serving.shared import Serving

    View = Callable[..., Awaitable[Response]]

log = logging.getLogger(__name__)

_PATH = "/admin/placement"


class PlacementRoutes:
    """The routes over one node's orders."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    @property
    def _orders(self) -> AnyOrders:
        return self._serving.orders

    def routes(self) -> Iterator[tuple[str, str, View]]:
        """Yield each route's method, path and view."""
        yield "GET", _PATH, self._all
        yield "GET", f"{_PATH}/<path:name>", self._one
        yield "POST", f"{_PATH}/explain", self._explain
        yield "POST", _PATH, self._deploy
        yield "PUT", f"{_PATH}/<path:name>/replicas", self._scale
        yield "PUT", f"{_PATH}/<path:name>", self._change
        yield "DELETE", f"{_PATH}/<path:name>", self._remove

    async def _all(self) -> Response:
        nodes = self._orders.nodes()
        return json_answer(
            {
                "node": self._serving.node.name,
                "nodes": [shown_node(name, nodes[name]) for name in sorted(nodes)],
                "deployments": await self._shown(self._orders.statuses()),
            }
        )

    async def _one(self, name: str) -> Response:
        found = [s for s in self._orders.statuses() if s.name in self._meant(name)]
        if not found:
            problem = f"there is no deployment and no model {name!r}"
            raise RefusedError(404, "deployment_not_found", problem)
        return json_answer({"deployments": await self._shown(found)})

    async def _shown(self, statuses: Iterable[DeploymentStatus]) -> list[Shown]:
        known = self._serving.deployments
        found = [(status, known.get(status.name)) for status in statuses]

        def show() -> list[Shown]:
            return [
                shown_status(status, "" if each is None else why_runtime(each))
                for status, each in found
            ]

        # Plugins are asked, which look at files.
        return await trio.to_thread.run_sync(show)

    def _meant(self, name: str) -> set[str]:
        """Return the deployments that a name means: its own, or a model's."""
        if any(status.name == name for status in self._orders.statuses()):
            return {name}
        try:
            route = self._serving.table.resolve(name)
        except ModelNotFoundError:
            return set()
        return {each.deployment for each in route.group}

    async def _explain(self) -> Response:
        with _refusals():
            deployment = await _deployment()
            return json_answer(shown_placed(self._orders.explain(deployment)))

    async def _deploy(self) -> Response:
        with _refusals():
            deployment = await _deployment()
            await self._orders.deploy(deployment, wait=False)
        return self._done("deployed", deployment.name, 201)

    async def _change(self, name: str) -> Response:
        with _refusals():
            deployment = await _deployment()
            if deployment.name != name:
                problem = f"the body is of {deployment.name!r}, the path of {name!r}"
                raise ConfigError(problem)
            await self._orders.replace(deployment, wait=False)
        return self._done("changed", name)

    async def _scale(self, name: str) -> Response:
        with _refusals():
            members = await _members()
            if set(members) != {"replicas"}:
                raise ConfigError('the body is not {"replicas": N}')
            await self._orders.scale(name, members["replicas"], wait=False)
        return self._done("scaled", name)

    async def _remove(self, name: str) -> Response:
        with _refusals():
            if not await self._orders.undeploy(name, wait=False):
                problem = f"there is no deployment {name!r}"
                raise RefusedError(404, "deployment_not_found", problem)
        return self._done("removed", name)

    def _done(self, did: str, name: str, status: int = 200) -> Response:
        log.info("admin at %s %s %s", request.remote_addr, did, name)
        return json_answer({"deployment": name, did: True}, status)


async def _members() -> dict[str, Any]:
    try:
        return msgspec.json.decode(await request.get_data(), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the body is no JSON object: {error}") from error


async def _deployment() -> Deployment:
    return table_deployment(await _members())


@contextmanager
def _refusals() -> Iterator[None]:
    """Answer what cannot work with what is wrong about it."""
    try:
        yield
    except ConfigError as error:
        raise RefusedError(400, "cannot_work", str(error)) from error
    except InferenceError as error:
        raise RefusedError(409, "cannot_now", error.message) from error


def shown_node(name: str, facts: Facts) -> Shown:
    """Return a node: what it is, as placement sees it."""
    return {"name": name, **msgspec.to_builtins(facts)}


def shown_status(status: DeploymentStatus, runtime_because: str) -> Shown:
    """Return a deployment: its state, where it runs, and why not elsewhere.

    Args:
        status: the deployment's.
        runtime_because: why its model tells its runtime; "": it tells another, or none.
    """
    return {
        "name": status.name,
        "runtime": status.runtime,
        "runtime_because": runtime_because,
        "serves": list(status.serves),
        "state": status.state.value,
        "reason": status.reason,
        "replicas": status.replicas,
        "everywhere": status.everywhere,
        "missing": status.missing,
        "revision": status.revision,
        "by": status.by,
        "nodes": [
            {
                "node": share.node,
                "state": share.state.value,
                "replicas": share.replicas,
                "serving": share.serving,
                "gpus": [list(gpus) for gpus in share.gpus],
                "reason": share.reason,
                "in_sight": share.in_sight,
            }
            for share in status.shares
        ],
        "passed": [
            {"node": passed.node, "why": passed.why.value, "detail": passed.detail}
            for passed in status.passed
        ],
        "conflicts": list(status.conflicts),
    }


def shown_placed(placed: Placed) -> Shown:
    """Return where a deployment would run, and why not elsewhere."""
    return {
        "name": placed.deployment,
        "nodes": [
            {"node": node, "replicas": len(gpus), "gpus": [list(g) for g in gpus]}
            for node, gpus in sorted(placed.nodes.items())
        ],
        "missing": placed.missing,
        "passed": [
            {"node": passed.node, "why": passed.why.value, "detail": passed.detail}
            for passed in placed.passed
        ],
    }
