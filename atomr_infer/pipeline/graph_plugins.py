"""The runtimes ``hybrid`` and ``tiers``."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from atomr_infer.pipeline.graphs import HybridOptions, TierOptions
from atomr_infer.pipeline.hybrid import HybridGraph
from atomr_infer.pipeline.options import from_table
from atomr_infer.pipeline.plugins import refuse_models_own
from atomr_infer.pipeline.tiers import TieredRouter
from atomr_infer.runtimes.contract import Host, RuntimePlugin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.runtimes.contract import RunnerContext


class HybridPlugin(RuntimePlugin):
    """Deployments that answer here, and plan elsewhere."""

    name = "hybrid"
    summary = "a local router and executor, a remote planner, and fallbacks for both"
    host = Host.IN_PROCESS

    def asks(self, deployment: Deployment) -> tuple[str, ...]:
        """Return the router, the executor, the planner and the fallbacks."""
        return _hybrid(deployment).asks()

    def validate(self, deployment: Deployment) -> None:
        """Refuse options that nothing reads, and what belongs to who is asked.

        Raises:
            ConfigError: names the option, its value and what is allowed.
        """
        refuse_models_own(deployment)
        _hybrid(deployment)

    @asynccontextmanager
    async def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AsyncIterator[HybridGraph]:
        """Open a runner, which has nothing to load."""
        assert context.others is not None, "who composes is given the others"
        yield HybridGraph(_hybrid(deployment), context.others)


class TiersPlugin(RuntimePlugin):
    """Deployments that ask the best model that a request can pay."""

    name = "tiers"
    summary = "the best of several models that a request's budget allows"
    host = Host.IN_PROCESS

    def asks(self, deployment: Deployment) -> tuple[str, ...]:
        """Return the models of its tiers."""
        return _tiers(deployment).asks()

    def validate(self, deployment: Deployment) -> None:
        """Refuse options that nothing reads, and what belongs to its tiers.

        Raises:
            ConfigError: names the option, its value and what is allowed.
        """
        refuse_models_own(deployment)
        _tiers(deployment)

    @asynccontextmanager
    async def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AsyncIterator[TieredRouter]:
        """Open a runner, which has nothing to load."""
        assert context.others is not None, "who composes is given the others"
        yield TieredRouter(_tiers(deployment), context.others)


def _hybrid(deployment: Deployment) -> HybridOptions:
    return from_table(HybridOptions, deployment.options, where="options")


def _tiers(deployment: Deployment) -> TierOptions:
    return from_table(TierOptions, deployment.options, where="options")


HYBRID = HybridPlugin()
TIERS = TiersPlugin()
