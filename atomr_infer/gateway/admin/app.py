"""The operators' routes: quart-trio, served by hypercorn, behind a key of their own.

They are for people and scripts, so they may cost what a request to a model may
not.  A gateway without an admin key has none of them, and does not load this
module.  The keys that open the gateway do not open these routes, and the admin
key opens nothing else.

Whatever changes something is logged with who asked.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

import msgspec
import trio
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from atomr.otp import supervision_tree
from atomr.process import current_node
from atomr_infer.gateway.access.keys import GatewayKeys, refusal
from atomr_infer.gateway.admin.keys import KeyRoutes
from atomr_infer.gateway.admin.lifecycle import LifecycleRoutes
from atomr_infer.gateway.admin.metrics.routes import MetricsRoutes
from atomr_infer.gateway.admin.placement import PlacementRoutes
from atomr_infer.gateway.admin.refused import RefusedError
from atomr_infer.gateway.admin.shown import (
    Shown,
    shown_circuit,
    shown_deployment,
    shown_tree,
)
from atomr_infer.gateway.admin.spending import SpendingRoutes
from atomr_infer.gateway.admin.swaps import SwapRoutes

if TYPE_CHECKING:
    from atomr_infer.gateway.listening.asgi_exchange import Receive, Scope, Send
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.model.secret import Secret
    from atomr_infer.serving.limits.breakers import Guard
    from atomr_infer.serving.shared import Serving

log = logging.getLogger(__name__)

_OPENS = "the operators' routes"
_FORCED = {"open": "force_open", "close": "force_close"}


class AdminApp:
    """The routes over one serving tree, as an ASGI application."""

    def __init__(self, serving: Serving, key: Secret) -> None:
        self._serving = serving
        self._keys = GatewayKeys((key,))
        self._quart = self._routes(QuartTrio(__name__, static_folder=None))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request of an ASGI server's."""
        answer = _Answer(receive, send)
        await cast("Any", self._quart)(scope, answer.receive, answer.send)

    def _routes(self, app: QuartTrio) -> QuartTrio:
        app.before_request(self._check_key)
        app.register_error_handler(RefusedError, _refused)
        app.register_error_handler(HTTPException, _unserved)
        app.register_error_handler(Exception, _broken)
        deployments = "/admin/deployments"
        for method, path, view in (
            ("GET", deployments, self._all),
            ("GET", f"{deployments}/<path:name>", self._one),
            ("POST", "/admin/breakers/<path:name>/<any(open,close):to>", self._force),
            ("POST", "/admin/credentials/<path:name>/renew", self._renew),
            ("GET", "/admin/tree", self._tree),
            *LifecycleRoutes(self._serving).routes(),
            *KeyRoutes(self._serving).routes(),
            *SpendingRoutes(self._serving).routes(),
            *PlacementRoutes(self._serving).routes(),
            *SwapRoutes(self._serving).routes(),
            *MetricsRoutes(self._serving).routes(),
        ):
            name = f"{method} {path}"
            app.add_url_rule(path, name, cast("Any", view), methods=[method])
        return app

    async def _check_key(self) -> Response | None:
        headers = {name.lower(): text for name, text in request.headers.items()}
        # Not from the query: that is logged by whoever stands in front.
        if self._keys.allow(headers, {}):
            return None
        return _error(401, "invalid_admin_key", refusal(headers, opens=_OPENS))

    async def _all(self) -> Response:
        deployments = self._serving.deployments.values()
        return _json(
            {"deployments": [shown_deployment(self._serving, d) for d in deployments]}
        )

    async def _one(self, name: str) -> Response:
        return _json(shown_deployment(self._serving, self._deployment(name)))

    async def _force(self, name: str, to: str) -> Response:
        guard = self._guard(self._deployment(name))
        if to == "open":
            guard.force_open()
        else:
            guard.force_close()
        _tell("forced the circuit of %s %s", guard.endpoint, to)
        return _json(shown_circuit(guard))

    async def _renew(self, name: str) -> Response:
        self._deployment(name)
        if not self._serving.renew_credentials(name):
            problem = f"{name} has no keys that its requests ask for"
            raise RefusedError(409, "no_credentials", problem)
        _tell("renewed the keys of %s", name)
        return _json({"deployment": name, "renewed": True})

    async def _tree(self) -> Response:
        tree = supervision_tree(current_node())
        assert tree is not None, "a node is its own top"
        return _json(shown_tree(tree))

    def _deployment(self, name: str) -> Deployment:
        deployment = self._serving.deployments.get(name)
        if deployment is None:
            known = ", ".join(self._serving.deployments) or "none"
            problem = f"there is no deployment {name!r}; there are: {known}"
            raise RefusedError(404, "deployment_not_found", problem)
        return deployment

    def _guard(self, deployment: Deployment) -> Guard:
        guard = self._serving.breakers.of(deployment.name)
        if guard is None:
            problem = f"{deployment.name} asks no endpoint, so it has no circuit"
            raise RefusedError(409, "no_circuit", problem)
        return guard


class _Answer:
    """One request's events; no disconnect is reported from inside the last send.

    hypercorn reports one behind every answer, quart-trio takes it for the client's
    leaving and cancels that send, and with it what hypercorn does then: the
    connection would never be closed or used again.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._ended = False

    async def receive(self) -> dict[str, Any]:
        message = await self._receive()
        if self._ended and message["type"] == "http.disconnect":
            await trio.sleep_forever()  # cancelled when the answer is on its way
        return message

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._ended = True
        await self._send(message)


def _tell(did: str, *what: str) -> None:
    log.info(f"admin at %s {did}", request.remote_addr, *what)  # noqa: G004 - a literal


def _json(members: Shown, status: int = 200) -> Response:
    return Response(msgspec.json.encode(members), status, mimetype="application/json")


def _error(status: int, code: str, message: str) -> Response:
    error = {"message": message, "type": "admin_error", "param": None, "code": code}
    return _json({"error": error}, status)


async def _refused(error: RefusedError) -> Response:
    return _error(error.status, error.code, str(error))


async def _unserved(error: HTTPException) -> Response:
    problem = f"{request.method} {request.path}: {error.name}"
    answer = _error(error.code or 500, "not_served", problem)
    for name, text in error.get_headers():
        if name.lower() == "allow":
            answer.headers["allow"] = text
    return answer


async def _broken(error: Exception) -> Response:
    where = f"{request.method} {request.path}"
    log.error("%s: internal error", where, exc_info=error)
    return _error(500, "internal_error", "internal error; the log says more")
