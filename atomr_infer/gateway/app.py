"""The gateway's routes over one serving tree, whatever carries a request.

When the client leaves, its request is cancelled, and with it the generation,
whatever it waits for; the exchange sees to that (``Exchange.run``).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import attrs
import msgspec
import trio

from atomr_infer._version import VERSION
from atomr_infer.errors import InferenceError, InternalError, NotReadyError
from atomr_infer.gateway.asgi_exchange import AsgiExchange, Receive, Scope, Send
from atomr_infer.gateway.chat import break_stream, chat_completions
from atomr_infer.gateway.exchange import (
    BodyTooLargeError,
    ClientGoneError,
    Exchange,
)
from atomr_infer.wire.openai import error_body
from atomr_infer.wire.openai.models import model_list, model_object

if TYPE_CHECKING:
    from atomr_infer.serving.shared import Serving

log = logging.getLogger(__name__)

Handler = Callable[[Exchange], Awaitable[None]]


@attrs.frozen(kw_only=True)
class GatewayLimits:
    """What the gateway accepts.

    Attributes:
        max_body_bytes: the largest request body.
        body_timeout_s: longest silence while a body arrives.
    """

    max_body_bytes: int = 32 * 1024 * 1024
    body_timeout_s: float = 30.0


class GatewayApp:
    """The routes, and the requests that are being answered.

    Attributes:
        draining: True makes it say that it is not ready.
    """

    def __init__(self, serving: Serving, limits: GatewayLimits) -> None:
        self._serving = serving
        self._limits = limits
        self._answering: set[Exchange] = set()
        self.draining = False
        self._routes: Mapping[str, Mapping[str, Handler]] = {
            "/": {"GET": self._index},
            "/healthz": {"GET": self._healthz},
            "/readyz": {"GET": self._readyz},
            "/v1/models": {"GET": self._models},
            "/v1/chat/completions": {"POST": self._chat},
        }

    @property
    def running(self) -> int:
        """Requests that are being answered."""
        return len(self._answering)

    def end_all(self) -> None:
        """End every running request with an error that its client is told.

        Does not wait for them: one may be stuck in a send to a client that
        reads nothing, and only closing its socket will free it.
        """
        for exchange in self._answering:
            exchange.interrupt()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request of an ASGI server's; a WebSocket is refused."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # a 403 to the client
            return
        await self.handle(AsgiExchange(scope, receive, send))

    async def handle(self, exchange: Exchange) -> None:
        """Serve one HTTP request."""
        try:
            await self._dispatch(exchange)
        except ClientGoneError:
            log.info("%s %s: the client left", exchange.method, exchange.path)

    async def _dispatch(self, exchange: Exchange) -> None:
        path = exchange.path.rstrip("/") or "/"
        if path.startswith("/chat/"):
            path = "/v1" + path  # clients that were given a base URL without /v1
        methods = self._routes.get(path)
        if methods is None and path.startswith("/v1/models/"):
            methods = {"GET": self._model}
        if methods is None:
            await _refuse(exchange, 404, f"there is no {exchange.path} here")
            return
        method = "GET" if exchange.method == "HEAD" else exchange.method
        handler = methods.get(method)
        if handler is None:
            allow = ", ".join(methods)
            problem = f"{exchange.path} takes {allow}, not {exchange.method}"
            await _refuse(exchange, 405, problem, (b"allow", allow.encode()))
            return
        await handler(exchange)

    # --- what people and operators call -------------------------------------

    async def _index(self, exchange: Exchange) -> None:
        members = {
            "name": "atomr-infer",
            "version": VERSION,
            "models": self._serving.table.names(),
            "endpoints": [
                f"{method} {path}"
                for path, methods in self._routes.items()
                for method in methods
            ],
        }
        await exchange.answer(200, msgspec.json.encode(members))

    async def _healthz(self, exchange: Exchange) -> None:
        await exchange.answer(200, b'{"status":"alive"}')

    async def _readyz(self, exchange: Exchange) -> None:
        readiness = self._serving.readiness()
        ready = readiness.ready and not self.draining
        status = 200 if ready else 503
        members: dict[str, object] = {
            "ready": ready,
            "deployments": readiness.phases,
        }
        if self.draining:
            members["draining"] = True
        await exchange.answer(status, msgspec.json.encode(members))

    async def _models(self, exchange: Exchange) -> None:
        names = self._serving.table.owned_names()
        body = model_list(names, self._serving.started_at_s)
        await exchange.answer(200, body)

    async def _model(self, exchange: Exchange) -> None:
        name = exchange.path.removeprefix("/v1/models/")
        try:
            route = self._serving.table.resolve(name)
        except InferenceError as error:
            await _answer_error(exchange, error)
            return
        body = model_object(name, route.deployment, self._serving.started_at_s)
        await exchange.answer(200, body)

    # --- inference ------------------------------------------------------------

    async def _chat(self, exchange: Exchange) -> None:
        request_id = os.urandom(12).hex()
        try:
            body = await self._body(exchange)
        except BodyTooLargeError as error:
            limit = error.limit_bytes
            await _refuse(exchange, 413, f"the body is larger than {limit} bytes")
            return
        except trio.TooSlowError:
            await _refuse(exchange, 408, "the body did not arrive in time")
            return
        stopped = partial(self._tell_stopped, exchange, request_id)
        self._answering.add(exchange)
        try:
            await exchange.run(
                partial(self._answer_chat, exchange, body, request_id), stopped=stopped
            )
        finally:
            self._answering.discard(exchange)

    async def _tell_stopped(self, exchange: Exchange, request_id: str) -> None:
        stopping = NotReadyError("the server is shutting down")
        await _report(exchange, stopping, request_id)

    async def _answer_chat(
        self, exchange: Exchange, body: bytes, request_id: str
    ) -> None:
        try:
            await chat_completions(self._serving, exchange, body, request_id)
        except InferenceError as error:
            await _report(exchange, error, request_id)
        except Exception:
            # The last boundary before the socket: a bug of ours must reach the
            # client as an explicit error, in a stream too, and us by the log.
            log.exception("request %s: internal error", request_id)
            hidden = InternalError(f"internal error; request id {request_id}")
            await _report(exchange, hidden, request_id)

    async def _body(self, exchange: Exchange) -> bytes:
        return await exchange.read_body(
            limit_bytes=self._limits.max_body_bytes,
            timeout_s=self._limits.body_timeout_s,
        )


async def _report(exchange: Exchange, error: InferenceError, request_id: str) -> None:
    if exchange.started:
        await break_stream(exchange, error)
    else:
        await _answer_error(exchange, error, (b"x-request-id", request_id.encode()))


async def _answer_error(
    exchange: Exchange, error: InferenceError, *more: tuple[bytes, bytes]
) -> None:
    answer = error_body.answer(error)
    await exchange.answer(answer.status, answer.body, [*answer.headers, *more])


async def _refuse(
    exchange: Exchange, status: int, message: str, *more: tuple[bytes, bytes]
) -> None:
    answer = error_body.plain(status, message)
    # Whatever the client still sends of its body is not read: close.
    await exchange.answer(status, answer.body, [(b"connection", b"close"), *more])
