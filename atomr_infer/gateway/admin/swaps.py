"""The operators' routes for deployments that are taken over step by step.

==========  ======================  ==============================================
``GET``     ``/admin/swaps``        how each stands, or how its last one ended
``POST``    ``/admin/swaps/NAME``   begin: ``{"deployment": {...}, "plan": {...}}``
``DELETE``  ``/admin/swaps/NAME``   have it go back
==========  ======================  ==============================================

A deployment is sent with the members that its table in a configuration has, and a plan
with those of :class:`~atomr_infer.model.swap_plan.SwapPlan`; left out, it is the
deployment's own ``hot_swap``.  Any node of a cluster answers for all swaps.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
from quart import Response, request

from atomr_infer.config.deployment_table import table_deployment
from atomr_infer.errors import ConfigError, InferenceError
from atomr_infer.gateway.admin.refused import RefusedError, json_answer
from atomr_infer.model.swap_plan import SwapPlan
from atomr_infer.model.validation import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from atomr_infer.gateway.admin.shown import Shown
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.serving.shared import Serving
    from atomr_infer.serving.swapping.records import SwapStatus

    View = Callable[..., Awaitable[Response]]

log = logging.getLogger(__name__)

_PATH = "/admin/swaps"


class SwapRoutes:
    """The routes over one node's swaps."""

    def __init__(self, serving: Serving) -> None:
        self._swaps = serving.hot_swaps

    def routes(self) -> Iterator[tuple[str, str, View]]:
        """Yield each route's method, path and view."""
        yield "GET", _PATH, self._all
        yield "POST", f"{_PATH}/<path:name>", self._begin
        yield "DELETE", f"{_PATH}/<path:name>", self._cancel

    async def _all(self) -> Response:
        return json_answer({"swaps": shown_swaps(self._swaps.statuses())})

    async def _begin(self, name: str) -> Response:
        try:
            wanted, plan = asked(name, await request.get_data())
            swap = await self._swaps.begin(wanted, plan, None)
        except ConfigError as error:
            raise RefusedError(400, "cannot_work", str(error)) from error
        except InferenceError as error:
            raise RefusedError(409, "cannot_now", error.message) from error
        log.info("admin at %s swaps %s", request.remote_addr, name)
        return json_answer({"swap": _shown(swap.status)}, 201)

    async def _cancel(self, name: str) -> Response:
        swap_id = self._swaps.cancel(name)
        if swap_id is None:
            problem = f"{name!r} is not being swapped"
            raise RefusedError(404, "swap_not_found", problem)
        log.info("admin at %s has %s go back", request.remote_addr, name)
        return json_answer({"deployment": name, "cancelled": True, "id": swap_id})


def asked(name: str, body: str | bytes) -> tuple[Deployment, SwapPlan]:
    """Return what a body asks for, of a deployment of that name.

    Raises:
        ConfigError: it asks for nothing that could be.
    """
    try:
        members = msgspec.json.decode(body, type=dict[str, dict[str, Any]])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the body is no JSON of tables: {error}") from error
    unknown = sorted(members.keys() - {"deployment", "plan"})
    if unknown or "deployment" not in members:
        raise ConfigError('the body is not {"deployment": {...}, "plan": {...}}')
    wanted = table_deployment(members["deployment"])
    if wanted.name != name:
        raise ConfigError(f"the body is of {wanted.name!r}, the path of {name!r}")
    if "plan" not in members:
        return wanted, wanted.hot_swap or SwapPlan()
    return wanted, _plan(members["plan"])


def _plan(given: dict[str, Any]) -> SwapPlan:
    known = [field.name for field in attrs.fields(SwapPlan)]
    for member in given:
        if member not in known:
            raise ConfigError(
                f"plan: nothing reads {member!r}; known: {', '.join(known)}"
            )
    try:
        return SwapPlan(**given)
    except (InvalidValueError, TypeError) as error:
        raise ConfigError(f"plan: {error}") from error


def shown_swaps(statuses: tuple[SwapStatus, ...]) -> list[Shown]:
    """Return how swaps stand."""
    return [_shown(status) for status in statuses]


def _shown(status: SwapStatus) -> Shown:
    return {**attrs.asdict(status), "phase": status.phase.value}
