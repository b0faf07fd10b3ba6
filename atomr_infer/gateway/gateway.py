"""A running gateway: its listener, its process, and how it is drained."""

from __future__ import annotations

from functools import partial

import attrs
import trio

from atomr.core.child_spec import ChildSpec
from atomr.otp import count_children, start_child, terminate_child
from atomr.process import PlainProcess
from atomr.refs import Pid
from atomr_infer.gateway.app import GatewayApp, GatewayLimits
from atomr_infer.gateway.listener import Listener
from atomr_infer.serving.application import Serving
from atomr_infer.serving.names import GATEWAYS, REQUESTS

# After the drain's time is up, each client is told; this is for the bytes to
# leave, not for more work.
_TELL_S = 2.0


@attrs.frozen(eq=False)
class Gateway:
    """One address that is served.

    Attributes:
        url: ``http://host:port``, as bound.
    """

    url: str
    _serving: Serving
    _listener: Listener
    _pid: Pid

    async def running(self) -> int:
        """Count the requests that are being answered."""
        return (await count_children(REQUESTS)).active

    async def drain(self, timeout_s: float) -> None:
        """Stop accepting, let running answers finish, tell the others, close.

        Args:
            timeout_s: how long running answers may take, in seconds.

        Cancellation: cuts the wait short; the gateway is closed all the same.
        """
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
            with trio.CancelScope(shield=True):
                await self._listener.close()
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
    pid = await start_child(
        GATEWAYS, ChildSpec(id=url, start=partial(PlainProcess, serve))
    )
    return Gateway(url=url, serving=serving, listener=listener, pid=pid)
