"""The runtime ``pool``."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from atomr_infer.pipeline.options import from_table
from atomr_infer.pipeline.plugins import refuse_models_own
from atomr_infer.pipeline.pool import PoolOptions
from atomr_infer.pipeline.pool_runner import ModelReplicaPool
from atomr_infer.runtimes.contract import Host, RuntimePlugin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.runtimes.contract import RunnerContext


class PoolPlugin(RuntimePlugin):
    """Deployments that ask one of several others."""

    name = "pool"
    summary = "one of several deployments, by turns or by load; who fails is left alone"
    host = Host.IN_PROCESS

    def asks(self, deployment: Deployment) -> tuple[str, ...]:
        """Return the members."""
        return _options(deployment).asks()

    def validate(self, deployment: Deployment) -> None:
        """Refuse options that nothing reads, and what belongs to who is asked.

        Raises:
            ConfigError: names the option, its value and what is allowed.
        """
        refuse_models_own(deployment)
        _options(deployment)

    @asynccontextmanager
    async def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AsyncIterator[ModelReplicaPool]:
        """Open a pool all of whose members are well."""
        assert context.others is not None, "who composes is given the others"
        yield ModelReplicaPool(deployment.name, _options(deployment), context.others)


def _options(deployment: Deployment) -> PoolOptions:
    return from_table(PoolOptions, deployment.options, where="options")


POOL = PoolPlugin()
