"""The operators' routes beside the clients' on one address, for this machine alone.

By composition: hypercorn serves both, and the path says whose a request is.
Plain HTTP/1.1 is our own tier's until a path of the operators' is asked for
(``Http1Settings.hypercorn_prefix``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.errors import ConfigError
from atomr_infer.gateway.admin.address import is_from_here

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from atomr_infer.gateway.admin.everywhere import Everywhere
    from atomr_infer.gateway.exchanges.exchange import Exchange
    from atomr_infer.gateway.listening.asgi_exchange import Receive, Scope, Send
    from atomr_infer.gateway.listening.listener import Application
    from atomr_infer.model.secret import Secret
    from atomr_infer.serving.shared import Serving

_FORBIDDEN = 403
_ELSEWHERE = (
    b'{"error":{"message":"operators ask from the gateway\'s own machine, or at '
    b'[gateway] admin_bind","type":"admin_error","param":null,"code":"not_from_here"}}'
)

ADMIN_PREFIX = "/admin/"
"""The paths of the operators' routes begin with it."""


class BesideAdmin:
    """Two applications as one.

    Attributes:
        handle: serves one HTTP request of a client's.
        admin: the operators' routes; None: there are none now.
    """

    def __init__(self, clients: Application, admin: Everywhere | None) -> None:
        # Not a method of ours: it would be one more call for each request.
        self.handle: Callable[[Exchange], Coroutine[Any, Any, None]] = clients.handle
        self.admin = admin
        self._clients = clients

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request, whosever it is."""
        is_admins = scope["type"] == "http" and scope["path"].startswith(ADMIN_PREFIX)
        admin = self.admin if is_admins else None
        if admin is not None and not is_from_here(scope):
            await _refuse(send)
            return
        await (self._clients if admin is None else admin)(scope, receive, send)


async def _refuse(send: Send) -> None:
    head = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": _FORBIDDEN, "headers": head})
    await send({"type": "http.response.body", "body": _ELSEWHERE})


def open_admin(
    serving: Serving, key: Secret, *, clients: tuple[Secret, ...]
) -> Everywhere:
    """Return the operators' routes.

    Args:
        serving: what they show and steer.
        key: opens them.
        clients: the keys that open the gateway.

    Raises:
        ConfigError: the key is a client's too, or quart-trio is not installed.
    """
    if key in clients:
        raise ConfigError(
            "the admin key is one of the gateway's keys, so each client could use "
            "it; give the operators one of their own"
        )
    try:
        # Here: a gateway without these routes does not wait for quart's import.
        from atomr_infer.gateway.admin.app import AdminApp  # noqa: PLC0415
        from atomr_infer.gateway.admin.everywhere import Everywhere  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the admin routes need {error.name}: pip install 'atomr-infer[admin]'"
        ) from error
    return Everywhere(AdminApp(serving, key), serving, key)
