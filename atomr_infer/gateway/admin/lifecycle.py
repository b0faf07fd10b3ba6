"""The operators' routes for the configuration and the end of a node."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from quart import request

from atomr_infer.gateway.admin.refused import RefusedError, json_answer
from atomr_infer.gateway.admin.shown import shown_deployment
from atomr_infer.gateway.admin.standing import shown_standing
from atomr_infer.gateway.admin.swaps import shown_swaps

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from quart import Response

    from atomr_infer.serving.lifecycle import Lifecycle
    from atomr_infer.serving.shared import Serving

    View = Callable[..., Awaitable[Response]]

log = logging.getLogger(__name__)

_CONFLICT = 409
_YES = ("1", "true", "yes")


class LifecycleRoutes:
    """How a node is, and what it is told as a whole."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def routes(self) -> Iterator[tuple[str, str, View]]:
        """Return each route: method, path, what serves it."""
        yield "GET", "/admin/status", self._status
        yield "POST", "/admin/reload", self._reload
        yield "POST", "/admin/drain", self._drain
        yield "POST", "/admin/drain/undo", self._take_again

    async def _status(self) -> Response:
        serving = self._serving
        program = serving.lifecycle
        return json_answer(
            {
                "node": serving.node.name,
                "ready": serving.readiness().ready,
                **({} if program is None else program.shown()),
                "deployments": [
                    shown_deployment(serving, d) for d in serving.deployments.values()
                ],
                "ending": sorted(serving.draining),
                "swaps": shown_swaps(serving.hot_swaps.statuses()),
                **shown_standing(serving),
            }
        )

    async def _reload(self) -> Response:
        dry_run = request.args.get("dry_run", "").lower() in _YES
        done = await self._program().reload(
            f"admin at {request.remote_addr}", dry_run=dry_run
        )
        if done["reason"] is None:
            return json_answer(dict(done))
        error = {
            "message": f"the configuration is not taken: {done['reason']}",
            "type": "admin_error",
            "param": None,
            "code": "configuration_refused",
        }
        return json_answer({"error": error, **done}, _CONFLICT)

    async def _drain(self) -> Response:
        log.info("admin at %s drains this node", request.remote_addr)
        return json_answer(dict(self._program().drain()))

    async def _take_again(self) -> Response:
        if not self._program().take_again():
            raise RefusedError(_CONFLICT, "not_draining", "this node does not drain")
        log.info("admin at %s has requests taken again", request.remote_addr)
        return json_answer({"draining": False})

    def _program(self) -> Lifecycle:
        if self._serving.lifecycle is None:
            problem = (
                "nothing here reloads or drains: deployments are still loading, or "
                "this gateway is part of a program of its own"
            )
            raise RefusedError(_CONFLICT, "no_lifecycle", problem)
        return self._serving.lifecycle
