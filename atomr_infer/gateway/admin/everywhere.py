"""The operators' routes of all nodes at once: ``?nodes=all``.

What stands in front is one node; the request is performed there, and by the others
over the links of the cluster.  The answer has each node's own, under its name::

    {"nodes": {"a": {"status": 200, "answer": {...}}, "b": {"status": 502, ...}}}

Its status is that of the first node that could not, so that a script notices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlencode

import msgspec
import trio

from atomr_infer.serving.steering import Done, Order, refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from atomr_infer.gateway.listening.asgi_exchange import Receive, Scope, Send
    from atomr_infer.model.secret import Secret
    from atomr_infer.serving.shared import Serving

    App = Callable[[Scope, Receive, Send], Awaitable[None]]

ALL_NODES = "cluster"
"""Who asks, in place of an address, where all nodes are asked."""

_NODES = "nodes"
_ALL = "all"
_TIMEOUT_S = 30.0
_RELOAD = "/admin/reload"
# A model that is new may take minutes to load.
_RELOAD_S = 3600.0
_EACH_ITS_OWN = ("/admin/breakers/", "/admin/credentials/", _RELOAD, "/admin/drain")
"""What is a process' own: the rest is the cluster's, whichever node is asked."""

_FIGURES = ("/admin/metrics", "/metrics")
_GOOD = range(200, 300)
_UNAUTHORIZED = 401
_TOO_LARGE = 413
_MAX_BODY_BYTES = 512 * 1024


class Everywhere:
    """Operators' routes that answer for all nodes where that is asked."""

    def __init__(self, app: App, serving: Serving, key: Secret) -> None:
        """Make them; :meth:`perform` is for orders of peers.

        Args:
            app: the routes of this node, as an ASGI application.
            serving: the tree below.
            key: what opens them.
        """
        self._app = app
        self._serving = serving
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        query = str(scope.get("query_string", b""), "ascii", "replace")
        pairs = parse_qsl(query, keep_blank_values=True)
        # Figures are no JSON: their route asks the others by itself.
        is_all = (_NODES, _ALL) in pairs and scope["path"] not in _FIGURES
        if not (is_all or self._is_for_workers(scope)):
            await self._app(scope, receive, send)
            return
        body = await _body(receive)
        if len(body) > _MAX_BODY_BYTES:
            problem = f"a body of more than {_MAX_BODY_BYTES} bytes"
            await _answer(send, refusal(_TOO_LARGE, "body_too_large", problem))
            return
        order = Order(
            method=scope["method"],
            path=_path(scope),
            query=urlencode([pair for pair in pairs if pair[0] != _NODES]),
            body=body,
        )
        done = await self._run(order, scope["headers"])
        if is_all and done.status != _UNAUTHORIZED:
            done = await self._with_others(order, done)
        elif not is_all and done.status in _GOOD:
            done = await self._with_workers(order, done)
        await _answer(send, done)

    def _is_for_workers(self, scope: Scope) -> bool:
        """Whether others that answer on the same port have to do it too.

        Whoever asks cannot say which of them takes the connection.
        """
        if not self._serving.node.shares_port or scope["method"] != "POST":
            return False
        return str(scope["path"]).startswith(_EACH_ITS_OWN)

    async def _with_workers(self, order: Order, here: Done) -> Done:
        """Have the others do it, and answer as one; the first that could not."""
        others = await self._elsewhere(order)
        bad = [done for done in others.values() if done.status not in _GOOD]
        return bad[0] if bad else here

    async def _elsewhere(self, order: Order) -> dict[str, Done]:
        timeout_s = _RELOAD_S if order.path == _RELOAD else _TIMEOUT_S
        steering = self._serving.node.steering
        return await steering.elsewhere(order, timeout_s=timeout_s)

    async def _with_others(self, order: Order, here: Done) -> Done:
        node = self._serving.node
        others = await self._elsewhere(order)
        all_done = {node.name: here, **others}
        bad = [done.status for done in all_done.values() if done.status not in _GOOD]
        shown = {
            name: {"status": done.status, "answer": msgspec.Raw(done.body or b"null")}
            for name, done in sorted(all_done.items())
        }
        status = bad[0] if bad else here.status
        return Done(status, msgspec.json.encode({_NODES: shown}))

    async def perform(self, order: Order) -> Done:
        """Do what a peer's operator asks; the peer has checked who it is."""
        bearer = f"Bearer {self._key.reveal()}".encode()
        return await self._run(order, [(b"authorization", bearer)])

    async def _run(self, order: Order, headers: list[tuple[bytes, bytes]]) -> Done:
        scope = _scope(order, headers)
        sent = [{"type": "http.request", "body": order.body, "more_body": False}]
        status, body = 500, b""

        async def receive() -> dict[str, Any]:
            if not sent:
                # A disconnect would end what the route is still at work on.
                await trio.sleep_forever()
            return sent.pop()

        async def send(message: dict[str, Any]) -> None:
            nonlocal status, body
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                body += message.get("body", b"")

        await self._app(scope, receive, send)
        return Done(status, body)


def _scope(order: Order, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": order.method,
        "scheme": "http",
        "path": unquote(order.path),
        "raw_path": order.path.encode(),
        "query_string": order.query.encode(),
        "root_path": "",
        "headers": [(b"host", b"cluster"), *_kept(headers)],
        "client": (ALL_NODES, 0),
        "server": ("cluster", 0),
        "extensions": {},
        "state": {},
    }


def _kept(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [
        (name, value)
        for name, value in headers
        if name.lower() in (b"authorization", b"content-type")
    ]


def _path(scope: Scope) -> str:
    raw = scope.get("raw_path") or scope["path"].encode()
    return str(raw, "ascii", "replace").partition("?")[0]


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body
        body += bytes(message.get("body", b""))
        if len(body) > _MAX_BODY_BYTES or not message.get("more_body"):
            return body


async def _answer(send: Send, done: Done) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(done.body)).encode()),
    ]
    start = {"type": "http.response.start", "status": done.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": done.body, "more_body": False})
