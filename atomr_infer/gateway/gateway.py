"""A running gateway: its listener, its process, and how it is drained."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

import trio

from atomr.core.child_spec import ChildSpec, Restart
from atomr.errors import CallError, ChildNotFoundError
from atomr.otp import count_children, start_child, terminate_child
from atomr.process import PlainProcess
from atomr_infer.gateway.app import GatewayApp, GatewayLimits
from atomr_infer.serving.names import GATEWAYS, REQUESTS

if TYPE_CHECKING:
    from atomr.refs import Pid
    from atomr_infer.gateway.listener import Listener
    from atomr_infer.serving.shared import Serving

# After the drain's time is up, each client is told; this is for the bytes to
# leave, not for more work.
_TELL_S = 2.0


class Gateway:
    """One address that is served."""

    def __init__(
        self, url: str, serving: Serving, listener: Listener, pid: Pid
    ) -> None:
        self.url = url
        self._serving = serving
        self._listener = listener
        self._pid = pid
        self._closed = False

    async def running(self) -> int:
        """Count the requests that are being answered."""
        return (await count_children(REQUESTS)).active

    async def drain(self, timeout_s: float) -> None:
        """Stop accepting, let running answers finish, tell the others, close.

        A gateway that is closed already stays so.

        Args:
            timeout_s: how long running answers may take, in seconds.

        Cancellation: cuts the wait short; the gateway is closed all the same.
        """
        if self._closed:
            return
        self._serving.draining = True
        await self._listener.stop_accepting()
        try:
            with trio.move_on_after(timeout_s):
                await self._listener.connections_done()
                return
            await self._serving.stop_requests()
            with trio.move_on_after(_TELL_S):
                await self._listener.connections_done()
        finally:
            self._closed = True
            with trio.CancelScope(shield=True):
                await self._listener.close()
                # It may have ended by itself, or with a tree that gave up.
                with contextlib.suppress(CallError, ChildNotFoundError):
                    await terminate_child(GATEWAYS, self._pid)


async def open_gateway(
    serving: Serving, listener: Listener, limits: GatewayLimits
) -> Gateway:
    """Serve ``listener``'s sockets in a process of the serving tree."""
    app = GatewayApp(serving, limits)
    host, port = listener.address
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{port}"
    serve = partial(listener.serve, app)
    spec = ChildSpec(
        id=url,
        start=partial(PlainProcess, serve),
        restart=Restart.TRANSIENT,  # it ends normally when it has been drained
    )
    pid = await start_child(GATEWAYS, spec)
    return Gateway(url=url, serving=serving, listener=listener, pid=pid)
