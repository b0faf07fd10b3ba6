"""The deployments of a node that has no others: asked and told as in a cluster.

There is no catalogue and no node is chosen: what is deployed runs here, on the GPUs
that are free, a key in the program is as good as a variable's name, and whoever asks is
told at once.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, TypeAlias

import attrs

from atomr.otp import call
from atomr_infer.errors import ConfigError
from atomr_infer.policy.lifecycle.placement import Placed
from atomr_infer.serving.deployments.deploying import keeps_none
from atomr_infer.serving.names import MANAGER
from atomr_infer.serving.placing.orders import Orders
from atomr_infer.serving.placing.seating import HERE
from atomr_infer.serving.placing.status import local_status
from atomr_infer.serving.replicas import messages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping
    from contextlib import AbstractContextManager

    from atomr_infer.errors import InferenceError
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.serving.deployments.sources import Sources
    from atomr_infer.serving.placing.leaving import Move
    from atomr_infer.serving.placing.records import Facts
    from atomr_infer.serving.placing.seating import Seating
    from atomr_infer.serving.placing.status import DeploymentStatus
    from atomr_infer.serving.replicas.replica import ReplicaState
    from atomr_infer.serving.shared import Serving


class LocalOrders:
    """What :class:`Orders` does, on a node that has no others."""

    def __init__(
        self,
        serving: Serving,
        facts: Callable[[], Facts],
        sources: Sources,
        seating: Seating,
    ) -> None:
        self._serving = serving
        self._seating = seating
        self._facts = facts
        self._sources = sources

    def nodes(self) -> Mapping[str, Facts]:
        """Return what this node is, by its name."""
        return {self._serving.node.name: self._facts()}

    def statuses(self) -> tuple[DeploymentStatus, ...]:
        """Return all deployments, by name."""
        return local_status(self._serving)

    async def deploy(
        self,
        deployment: Deployment,
        *,
        progress: Callable[[ReplicaState], None] | None = None,
        expected: Iterable[str] = (),
        wait: bool = True,
        keeps: Callable[[InferenceError], bool] = keeps_none,
    ) -> None:
        """Start serving a deployment; see ``Serving.deploy``.

        Raises:
            ConfigError: it cannot work as written; nothing was changed.
            InferenceError: it could not be started; it was removed again, unless
                ``keeps`` says that it stays and is tried again.
        """
        await self._seating.look([deployment])
        if deployment.name in self._serving.deployments:
            seated: AbstractContextManager[None] = nullcontext()  # the manager says no
        else:
            seated = self._seating.seated(deployment)
        with seated:
            if wait:
                await self._serving.deploy(
                    deployment, progress=progress, expected=expected, keeps=keeps
                )
                return
            asked = messages.Deploy(deployment, frozenset(expected))
            refused = await call(MANAGER, asked, timeout_s=None)
            if refused is not None:
                raise refused

    @asynccontextmanager
    async def seated(self, deployments: Iterable[Deployment]) -> AsyncIterator[None]:
        """Give all of some new deployments their GPUs, before the first one starts.

        Each for itself would take what another one needs as a whole.

        Raises:
            NoRoomError: there are too few GPUs for all; nothing was changed.
        """
        wanted = tuple(deployments)
        await self._seating.look(wanted)
        with self._seating.seated(*wanted):
            yield

    async def replace(
        self,
        *deployments: Deployment,
        expected: Iterable[str] = (),
        wait: bool = True,
    ) -> None:
        """Take other deployments for those of their names; see ``Serving.replace``.

        Args:
            deployments: the other ones.
            expected: names of those that come together with them.
            wait: without effect: they are replaced when they serve.

        Raises:
            ConfigError: there is none of a name, or one cannot work as written.
            InferenceError: an engine could not be opened; all is as it was.
        """
        await self._seating.look(deployments)
        with self._seating.seated(*deployments):
            await self._serving.replace(*deployments, expected=expected)

    async def change(self, deployment: Deployment) -> None:
        """Take another for the deployment of its name; see ``Serving.change``.

        Raises:
            ConfigError: there is none, or it cannot become that one in place.
            NotReadyError: it is loading.
        """
        await self._serving.change(deployment)

    async def scale(self, name: str, replicas: int, *, wait: bool = True) -> None:
        """Have so many replicas of a deployment run.

        Raises:
            ConfigError: there is no deployment of that name, or no such number.
            InferenceError: it is loading, or being replaced.
        """
        now = self._serving.deployments.get(name)
        if now is None:
            raise ConfigError(f"there is no deployment {name!r}")
        try:
            serving = attrs.evolve(now.serving, replicas=replicas)
        except ValueError as error:
            raise ConfigError(f"deployment {name!r}: {error}") from error
        await self.replace(attrs.evolve(now, serving=serving), wait=wait)

    async def undeploy(
        self, name: str, *, wait: bool = True, drain_s: float = 0.0
    ) -> bool:
        """Stop serving a deployment; see ``Serving.undeploy``.

        Args:
            name: the deployment's.
            wait: without effect: it is answered when it has ended.
            drain_s: how long its requests may still take, in seconds.
        """
        return await self._serving.undeploy(name, drain_s=drain_s)

    def begin_leaving(self) -> tuple[Move, ...]:
        """Return that all stays: there is nobody to take over."""
        return ()

    def stay(self) -> None:
        """Do nothing: nobody was told that it goes."""

    async def leave(self) -> None:
        """Return: there is nobody to take over."""

    def goes(self, _: str) -> bool:
        """Return that nothing goes elsewhere."""
        return False

    def explain(self, deployment: Deployment) -> Placed:
        """Return that a deployment would run here, or that its GPUs are not free.

        GPUs are looked for when the first deployment that asks for some is served;
        until then nobody knows of one that is not free.

        Raises:
            ConfigError: it cannot work as written.
        """
        self._sources.plugin(deployment)
        name = self._serving.node.name
        found = self._seating.explain(deployment)
        if found is None:
            replicas = ((),) * deployment.serving.replicas
            return Placed(deployment=deployment.name, nodes={name: replicas})
        return attrs.evolve(
            found,
            nodes={name: found.nodes[HERE]} if found.nodes else {},
            passed=tuple(attrs.evolve(each, node=name) for each in found.passed),
        )


AnyOrders: TypeAlias = Orders | LocalOrders
"""What a node is asked for, whether it has others or not."""
