"""The operators' routes at an address of their own: ``[gateway] admin_bind``."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING

from atomr.core.child_spec import ChildSpec, Restart
from atomr.errors import CallError, ChildNotFoundError
from atomr.otp import start_child, terminate_child
from atomr.process import PlainProcess, whereis
from atomr_infer.gateway.http1.connection import Http1Settings
from atomr_infer.serving.names import GATEWAYS

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from atomr_infer.gateway.admin.everywhere import Everywhere
    from atomr_infer.gateway.exchanges.exchange import Exchange
    from atomr_infer.gateway.listening.asgi_exchange import Receive, Scope, Send
    from atomr_infer.gateway.listening.listener import Listener

OPERATORS = Http1Settings(hypercorn_prefix="/")
"""How connections there are served: every path is hypercorn's."""

_NOT_FOUND = 404


def is_from_here(scope: Scope) -> bool:
    """Whether a request comes from this machine.

    >>> is_from_here({"client": ("127.0.0.1", 4)})
    True
    >>> is_from_here({"client": ("::ffff:10.0.0.1", 4)})
    False
    """
    client = scope.get("client")
    if not client:
        return False
    try:
        address = ip_address(client[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


class AdminAlone:
    """The operators' routes and nothing else, as what a listener serves.

    Attributes:
        admin: the routes; None: there are none now.
    """

    def __init__(self, admin: Everywhere | None) -> None:
        self.admin = admin

    async def handle(self, exchange: Exchange) -> None:
        """Refuse what has no path."""
        await exchange.answer(_NOT_FOUND, b'{"error":{"message":"there is nothing"}}')

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request; refuse a WebSocket."""
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
        elif self.admin is not None:
            await self.admin(scope, receive, send)
        else:
            head = {"type": "http.response.start", "status": _NOT_FOUND, "headers": []}
            await send(head)
            await send({"type": "http.response.body", "body": b""})


class AdminAddress:
    """A listener that is served, for operators."""

    def __init__(
        self,
        served: AdminAlone,
        listener: Listener,
        stop: Callable[[], Awaitable[None]],
    ) -> None:
        self.served = served
        self.listener = listener
        self._stop = stop

    def change(self, admin: Everywhere | None, tls: ssl.SSLContext | None) -> None:
        """Take other routes, and another certificate for new connections."""
        self.served.admin = admin
        self.listener.change(OPERATORS, tls)

    async def close(self) -> None:
        """Close it with all its connections."""
        await self.listener.stop_accepting()
        await self.listener.close()
        # It may have ended by itself, or with a tree that gave up.
        with suppress(CallError, ChildNotFoundError):
            await self._stop()


async def open_address(listener: Listener, admin: Everywhere) -> AdminAddress:
    """Serve a listener's sockets in a process of the serving tree.

    Args:
        listener: bound.
        admin: the operators' routes.
    """
    served = AdminAlone(admin)
    host, port = listener.address
    spec = ChildSpec(
        id=f"operators at {host}:{port}",
        start=partial(PlainProcess, partial(listener.serve, served)),
        restart=Restart.TRANSIENT,
    )
    supervisor = whereis(GATEWAYS) or GATEWAYS
    pid = await start_child(supervisor, spec)
    return AdminAddress(served, listener, partial(terminate_child, supervisor, pid))
