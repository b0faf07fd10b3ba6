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
from atomr_infer.gateway.admin.address import open_address
from atomr_infer.gateway.admin.beside import BesideAdmin
from atomr_infer.gateway.app import GatewayApp
from atomr_infer.serving.names import GATEWAYS

if TYPE_CHECKING:
    from atomr_infer.gateway.admin.address import AdminAddress
    from atomr_infer.gateway.admin.everywhere import Everywhere
    from atomr_infer.gateway.listening.listener import Application, Listener
    from atomr_infer.gateway.setup import Setup
    from atomr_infer.serving.far.service import FarInference
    from atomr_infer.serving.shared import Serving
    from atomr_infer.serving.steering import Steering
    from atomr_infer.store.responses import ResponseStore

# After the drain's time is up, each client is told; this is for the bytes to
# leave, not for more work.
_TELL_S = 2.0


Stop = Callable[[], Awaitable[None]]


class Gateway:
    """One address that is served."""

    def __init__(  # noqa: PLR0913 - most by keyword
        self,
        served: BesideAdmin,
        app: GatewayApp,
        *,
        listener: Listener,
        nodes: FarInference,
        operators: AdminAddress | None,
        stop: Stop,
        steering: Steering,
    ) -> None:
        self._served = served
        self._nodes = nodes
        self._operators = operators
        self._app = app
        self._listener = listener
        self._stop = stop
        self._steering = steering
        self._admin: Everywhere | None = None
        self._closed = False
        self._address = listener.address

    @property
    def url(self) -> str:
        """Where it is."""
        return url_of(self._address, tls=self._listener.tls is not None)

    def change(self, setup: Setup) -> None:
        """Take other settings, in one step.

        Requests that have been let in keep theirs; a connection that is open keeps
        its time-outs, and what it began with.
        """
        self._app.change(setup.limits, setup.door, setup.cors)
        self._listener.change(setup.settings, setup.tls)
        self.take_orders(setup.admin)
        if self._operators is None:
            self._served.admin = setup.admin
        else:
            self._operators.change(setup.admin, setup.tls)

    def take_orders(self, admin: Everywhere | None) -> None:
        """Perform what peers' operators ask by these routes; None: by none."""
        before, self._admin = self._admin, admin
        if admin is not None:
            self._steering.perform = admin.perform
        elif before is not None and self._steering.perform == before.perform:
            self._steering.perform = None

    @property
    def admin_url(self) -> str | None:
        """Where the operators' routes are; None: here, or nowhere."""
        if self._operators is None:
            return None
        listener = self._operators.listener
        return url_of(listener.address, tls=listener.tls is not None)

    @property
    def running(self) -> int:
        """Requests that are being answered."""
        return self._app.running

    @property
    def draining(self) -> bool:
        """Whether it says that it is not ready."""
        return self._app.draining

    async def hold_off(self, timeout_s: float, *, grace_s: float = 0.0) -> None:
        """Do as :meth:`drain` does, but go on listening, and answer with errors.

        :meth:`take_again` is the way back.

        Args:
            timeout_s: how long running answers may take, in seconds.
            grace_s: how long requests are still taken before that.

        Cancellation: leaves it where it is.
        """
        self._say_not_ready()
        if grace_s and not self._app.refusing:
            await trio.sleep(grace_s)
        self._app.refusing = True
        with trio.move_on_after(timeout_s):
            await self._app.idle()
            await self._nodes.idle()
            return
        self._app.end_all()

    def take_again(self) -> None:
        """Be ready again; requests that were ended stay so."""
        self._app.draining = self._app.refusing = False
        self._nodes.come_back()

    def _say_not_ready(self) -> None:
        self._app.draining = True
        self._nodes.leave()

    async def drain(self, timeout_s: float, *, grace_s: float = 0.0) -> None:
        """Stop accepting, let running answers finish, tell the others, close.

        ``/readyz`` says 503 at once, and the other nodes send nothing more; what they
        have sent may finish, too.  A gateway that is closed already stays so.

        Args:
            timeout_s: how long running answers may take, in seconds.
            grace_s: how long requests are still taken before that, so that
                whoever sends them can see that they should go elsewhere.

        Cancellation: cuts the wait short; those that are not done are told as at its
        end, within 2 s, and the gateway is closed all the same.
        """
        if self._closed:
            return
        self._say_not_ready()
        try:
            if grace_s and not self._app.refusing:
                await trio.sleep(grace_s)
            await self._listener.stop_accepting()
            with trio.move_on_after(timeout_s):
                await self._listener.connections_done()
                await self._nodes.idle()
        finally:
            self._closed = True
            with trio.CancelScope(shield=True):
                await self._tell_the_rest()
                if self._operators is not None:
                    await self._operators.close()
                await self._listener.close()
                # It may have ended by itself, or with a tree that gave up.
                with contextlib.suppress(CallError, ChildNotFoundError):
                    await self._stop()
            self._app.close()

    async def _tell_the_rest(self) -> None:
        """End what still runs with an error event; who does not read it is cut."""
        await self._listener.stop_accepting()
        self._app.end_all()
        with trio.move_on_after(_TELL_S):
            await self._listener.connections_done()


async def open_gateway(
    serving: Serving,
    listener: Listener,
    setup: Setup,
    *,
    store: ResponseStore | None = None,
    operators: Listener | None = None,
) -> Gateway:
    """Serve ``listener``'s sockets in a process of the serving tree.

    Args:
        serving: the tree.
        listener: bound.
        setup: what it begins with.
        store: keeps responses; None: memory.
        operators: another one, for the operators' routes; None: they are beside.
    """
    app = GatewayApp(serving, setup.limits, setup.door, store, cors=setup.cors)
    own = None
    if operators is not None and setup.admin is not None:
        own = await open_address(operators, setup.admin)
    served = BesideAdmin(app, setup.admin if own is None else None)
    serve = partial(_serve, listener, app, served)
    spec = ChildSpec(
        id=url_of(listener.address, tls=listener.tls is not None),
        start=partial(PlainProcess, serve),
        restart=Restart.TRANSIENT,  # it ends normally when it has been drained
    )
    supervisor = whereis(GATEWAYS) or GATEWAYS
    pid = await start_child(supervisor, spec)
    # By pid: whoever drains may belong to no node, or to another one.
    stop = partial(terminate_child, supervisor, pid)
    gateway = Gateway(
        served,
        app,
        listener=listener,
        nodes=serving.far,
        operators=own,
        stop=stop,
        steering=serving.node.steering,
    )
    gateway.take_orders(setup.admin)
    return gateway


def url_of(address: tuple[str, int], *, tls: bool) -> str:
    """Return the address of a gateway as its clients write it."""
    host, port = address
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{shown}:{port}"


async def _serve(listener: Listener, app: GatewayApp, served: Application) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.silences.run)
        await listener.serve(served)
        nursery.cancel_scope.cancel()
