"""A running gateway: its listener, its process, and how it is drained."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import trio

from atomr.core.child_spec import ChildSpec, Restart
from atomr.errors import CallError, ChildNotFoundError
from atomr.otp import start_child, terminate_child
from atomr.process import PlainProcess, whereis
from atomr_infer.gateway.admin.beside import BesideAdmin
from atomr_infer.gateway.app import GatewayApp
from atomr_infer.serving.names import GATEWAYS

if TYPE_CHECKING:
    from atomr_infer.gateway.admin.everywhere import Everywhere
    from atomr_infer.gateway.cors import Cors
    from atomr_infer.gateway.door import Door
    from atomr_infer.gateway.listener import Application, Listener
    from atomr_infer.gateway.reading import GatewayLimits
    from atomr_infer.serving.shared import Serving
    from atomr_infer.store.responses import ResponseStore

# After the drain's time is up, each client is told; this is for the bytes to
# leave, not for more work.
_TELL_S = 2.0


Stop = Callable[[], Awaitable[None]]


class Gateway:
    """One address that is served."""

    def __init__(
        self, url: str, app: GatewayApp, listener: Listener, stop: Stop
    ) -> None:
        self.url = url
        self._app = app
        self._listener = listener
        self._stop = stop
        self._closed = False

    @property
    def running(self) -> int:
        """Requests that are being answered."""
        return self._app.running

    async def drain(self, timeout_s: float, *, grace_s: float = 0.0) -> None:
        """Stop accepting, let running answers finish, tell the others, close.

        ``/readyz`` says 503 at once.  A gateway that is closed already stays so.

        Args:
            timeout_s: how long running answers may take, in seconds.
            grace_s: how long requests are still taken before that, so that
                whoever sends them can see that they should go elsewhere.

        Cancellation: cuts the wait short; the gateway is closed all the same.
        """
        if self._closed:
            return
        self._app.draining = True
        try:
            if grace_s:
                await trio.sleep(grace_s)
            await self._listener.stop_accepting()
            with trio.move_on_after(timeout_s):
                await self._listener.connections_done()
                return
            self._app.end_all()
            with trio.move_on_after(_TELL_S):
                await self._listener.connections_done()
        finally:
            self._closed = True
            with trio.CancelScope(shield=True):
                await self._listener.close()
                # It may have ended by itself, or with a tree that gave up.
                with contextlib.suppress(CallError, ChildNotFoundError):
                    await self._stop()
            self._app.close()


async def open_gateway(  # noqa: PLR0913 - most by keyword, with a default
    serving: Serving,
    listener: Listener,
    limits: GatewayLimits,
    *,
    door: Door | None = None,
    store: ResponseStore | None = None,
    cors: Cors | None = None,
    admin: Everywhere | None = None,
) -> Gateway:
    """Serve ``listener``'s sockets in a process of the serving tree."""
    app = GatewayApp(serving, limits, door, store, cors=cors)
    host, port = listener.address
    shown = f"[{host}]" if ":" in host else host
    scheme = "http" if listener.tls is None else "https"
    url = f"{scheme}://{shown}:{port}"
    served = app if admin is None else BesideAdmin(app, admin)
    serve = partial(_serve, listener, app, served)
    spec = ChildSpec(
        id=url,
        start=partial(PlainProcess, serve),
        restart=Restart.TRANSIENT,  # it ends normally when it has been drained
    )
    supervisor = whereis(GATEWAYS) or GATEWAYS
    pid = await start_child(supervisor, spec)
    # By pid: whoever drains may belong to no node, or to another one.
    stop = partial(terminate_child, supervisor, pid)
    return Gateway(url=url, app=app, listener=listener, stop=stop)


async def _serve(listener: Listener, app: GatewayApp, served: Application) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.silences.run)
        await listener.serve(served)
        nursery.cancel_scope.cancel()
