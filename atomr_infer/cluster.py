"""`Cluster`: the facade that programs use.

::

    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(Deployment(name="tiny", runtime="mistralrs", ...))
        reply = await cluster.chat("tiny", "Why is the sky blue?")
        async with cluster.stream("tiny", "Tell me a story.") as chunks:
            async for chunk in chunks:
                print(chunk.text, end="")

Everything that a cluster starts belongs to the ``async with`` block: leaving
it ends the requests, the gateways and the engines, in this order.

Importing this module loads no web server; :meth:`Cluster.serve` does.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Unpack

import trio

from atomr.process import current_node
from atomr_infer.config.gateway import GatewayConfig, GatewayOptions
from atomr_infer.errors import ConfigError
from atomr_infer.model.conversation import ChatReply, Conversation, SamplingOptions
from atomr_infer.model.deployment import AUTO
from atomr_infer.model.validation import InvalidValueError
from atomr_infer.runtimes.by_model import with_runtime
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.requests.programs import Requests

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping
    from pathlib import Path

    from atomr.process import Node
    from atomr_infer.gateway.gateway import Gateway
    from atomr_infer.gateway.setup import Setup
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.model.secret import Secret
    from atomr_infer.policy.lifecycle.placement import Placed
    from atomr_infer.serving.lifecycle import Lifecycle
    from atomr_infer.serving.limits.breakers import Guard
    from atomr_infer.serving.node import ServingNode
    from atomr_infer.serving.placing.alone import AnyOrders
    from atomr_infer.serving.placing.status import DeploymentStatus
    from atomr_infer.serving.replicas.readiness import Readiness
    from atomr_infer.serving.replicas.replica import ReplicaState
    from atomr_infer.serving.shared import Serving

__all__ = ["ChatReply", "Cluster", "Conversation", "SamplingOptions"]

_SCHEME = "inproc://"


class Cluster(Requests):
    """Deployments, and requests to them (:class:`Requests`), in this process.

    Its methods may be called from any task, and several clusters may be open.

    Attributes:
        budgets: what may be spent, by all nodes together.
        key_ring: virtual keys: made, rotated, revoked, and heard of from other nodes.
        hot_swaps: what is taken over step by step; :meth:`at_home` in a task of before.
    """

    def __init__(self, serving: Serving, node: Node) -> None:
        self.budgets = serving.budgets
        self.key_ring = serving.key_ring
        self.hot_swaps = serving.hot_swaps
        super().__init__(serving, node)
        self._gateways: list[Gateway] = []

    @staticmethod
    @asynccontextmanager
    async def connect(
        address: str,
        *,
        environ: Mapping[str, str] | None = None,
        node: ServingNode | None = None,
    ) -> AsyncIterator[Cluster]:
        """Open the cluster at ``address`` for the length of the block.

        Args:
            address: ``inproc://NAME``: a cluster of this process alone.
            environ: where credentials are looked up; None: ``os.environ``.
            node: the node that it stands on, which may be one of several, as
                ``serving.node.make_node`` makes it; None: one alone, of no memory.

        Raises:
            ConfigError: the address is of another kind, or the node cannot be opened.
            NotReadyError: the node fell, and with it the tree; the body was cancelled.
        """
        if not address.startswith(_SCHEME) or address == _SCHEME:
            raise ConfigError(f"cannot connect to {address!r}; use {_SCHEME}NAME")
        async with open_serving(environ=environ, node=node) as serving:
            cluster = Cluster(serving, current_node())
            try:
                yield cluster
            finally:
                with trio.CancelScope(shield=True), cluster.at_home():
                    for gateway in cluster._gateways:
                        await gateway.drain(0)

    @property
    def address(self) -> str | None:
        """Where other nodes reach this one; None: it has no others."""
        opened = self._serving.node.cluster
        return None if opened is None else opened.address

    async def deploy(
        self,
        deployment: Deployment,
        *,
        progress: Callable[[ReplicaState], None] | None = None,
        expected: Iterable[str] = (),
        wait: bool = True,
    ) -> None:
        """Have a deployment served, by all nodes of the cluster; wait until it is.

        Args:
            deployment: what to serve.
            progress: called about ten times a second while it loads here.
            expected: names of deployments that come, which it may fall back to.
            wait: False: return when it is certain that it can work as written.

        Raises:
            ConfigError: it cannot work as written, or no node can run it; nothing was
                changed.
            InferenceError: it could not be started; it was removed again.

        Cancellation: removes it again.
        """
        wanted = await _with_runtime(deployment)
        with self.at_home():
            await self._serving.orders.deploy(
                wanted, progress=progress, expected=expected, wait=wait
            )

    async def change(self, deployment: Deployment) -> None:
        """Take another deployment for the one of its name, which serves on.

        It may differ in names, fallbacks, costs, and how it is tried again and hedged.

        Raises:
            ConfigError: it differs in more, or there is none of its name.
            NotReadyError: it is loading.
        """
        wanted = await _with_runtime(deployment)
        with self.at_home():
            await self._serving.orders.change(wanted)

    async def replace(
        self, *deployments: Deployment, expected: Iterable[str] = ()
    ) -> None:
        """Take other deployments for those of their names; they serve meanwhile.

        They may differ in anything but the name: endpoint, keys, engine, replicas.
        Requests that run keep the client or the engine that they began with.

        All of them become true, or none; those ``expected`` come with them.

        Raises:
            ConfigError: there is none of a name, or one cannot work as written.
            InferenceError: an engine could not be opened.
        """
        wanted = [await _with_runtime(deployment) for deployment in deployments]
        with self.at_home():
            await self._serving.orders.replace(*wanted, expected=expected)

    async def undeploy(self, name: str, *, drain_s: float = 0.0) -> bool:
        """Stop serving a deployment: its name is nobody's at once.

        Args:
            name: the deployment's.
            drain_s: how long its requests may still take; what is left then ends
                with an error.  In a cluster: as long as they have anyway.

        Returns:
            False when there is no deployment of that name.
        """
        with self.at_home():
            return await self._serving.orders.undeploy(name, drain_s=drain_s)

    async def scale(self, name: str, replicas: int) -> None:
        """Have so many replicas of a deployment run.

        Raises:
            ConfigError: there is no deployment of that name, or no such number.
            InferenceError: it could not be done.
        """
        with self.at_home():
            await self._serving.orders.scale(name, replicas)

    @property
    def orders(self) -> AnyOrders:
        """What this node is asked for: its own deployments, or those of a cluster."""
        return self._serving.orders

    def deployments(self) -> tuple[DeploymentStatus, ...]:
        """All deployments of all nodes: where they run, and why not elsewhere."""
        return self._serving.orders.statuses()

    def explain(self, deployment: Deployment) -> Placed:
        """Where a deployment would run, and why not elsewhere; nothing is changed.

        Raises:
            ConfigError: it cannot work as written.
        """
        return self._serving.orders.explain(with_runtime(deployment))

    def renew_credentials(self, deployment: str) -> bool:
        """Read a deployment's keys anew; False when it is not there or has none."""
        return self._serving.renew_credentials(deployment)

    def models(self) -> tuple[str, ...]:
        """The public model names that are served, patterns included."""
        return self._serving.table.names()

    def readiness(self) -> Readiness:
        """Whether this node can be sent requests, and how far each deployment is."""
        return self._serving.readiness()

    def breakers(self) -> Mapping[str, Guard]:
        """The circuit breakers by endpoint: their state, and how to force them."""
        return self._serving.breakers.guards

    async def replicas(self, deployment: str) -> tuple[ReplicaState, ...]:
        """The replicas of a deployment: phase, load, engine process."""
        return self._serving.replicas(deployment)

    def setup(
        self,
        config: GatewayConfig,
        *,
        keys: tuple[Secret, ...] = (),
        admin_key: Secret | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> Setup:
        """Return settings for ``gateway.change``; the arguments are :meth:`serve`'s.

        It takes all of it in one step but the address and the responses' file.

        Raises:
            ConfigError: the keys do not go together.
        """
        from atomr_infer.gateway.opening import prepare  # noqa: PLC0415

        return prepare(self._serving, config, keys=keys, admin_key=admin_key, tls=tls)

    @property
    def lifecycle(self) -> Lifecycle | None:
        """What reloads and drains when operators ask; None: nothing does."""
        return self._serving.lifecycle

    @lifecycle.setter
    def lifecycle(self, lifecycle: Lifecycle | None) -> None:
        self._serving.lifecycle = lifecycle

    async def serve(
        self,
        bind: str = "127.0.0.1:8080",
        *,
        keys: Iterable[Secret] = (),
        admin_key: Secret | None = None,
        response_store: Path | None = None,
        tls: ssl.SSLContext | None = None,
        sockets: Iterable[socket.socket] = (),
        **options: Unpack[GatewayOptions],
    ) -> Gateway:
        """Serve the deployments over HTTP, in the background.

        Args:
            bind: ``host:port``; port 0 takes a free one.
            keys: each opens the gateway; none: it is open to everyone.
            admin_key: opens the operators' routes, ``/admin/...``, and nothing
                else; None: there are none.
            response_store: the SQLite file that keeps responses; None: memory.
            tls: a context of ``gateway.server_tls``; None: HTTP without TLS.
            sockets: that listen already, for ``bind``; they become the gateway's.
            **options: those of the configuration's ``[gateway]`` table that are
                no files, under the same names and with the same defaults.

        Returns:
            The gateway; ``gateway.url`` is its address.

        Raises:
            ConfigError: the address cannot be bound, or a value is not allowed.
        """
        from atomr_infer.gateway.opening import open_on  # noqa: PLC0415

        try:
            config = GatewayConfig(bind=bind, **options)
        except InvalidValueError as error:
            raise ConfigError(f"serve(): {error}") from error
        with self.at_home():
            gateway = await open_on(
                self._serving,
                config,
                keys=tuple(keys),
                admin_key=admin_key,
                response_store=response_store,
                tls=tls,
                sockets=tuple(sockets),
            )
        self._gateways.append(gateway)
        return gateway


async def _with_runtime(deployment: Deployment) -> Deployment:
    """Return a deployment that says its runtime; most do, and take no thread."""
    if deployment.runtime != AUTO:
        return deployment
    return await trio.to_thread.run_sync(with_runtime, deployment)
