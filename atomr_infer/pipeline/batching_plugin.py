"""The runtime ``batching``."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from atomr_infer.pipeline.batching import BatchingOptions
from atomr_infer.pipeline.batching_runner import BatchingRunner, open_batching
from atomr_infer.pipeline.options import from_table
from atomr_infer.pipeline.plugins import refuse_models_own
from atomr_infer.runtimes.contract import Host, RuntimePlugin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.runtimes.contract import RunnerContext


class BatchingPlugin(RuntimePlugin):
    """Deployments that ask another one for many requests at once."""

    name = "batching"
    summary = "another deployment, asked for the texts of many requests at once"
    host = Host.IN_PROCESS

    def asks(self, deployment: Deployment) -> tuple[str, ...]:
        """Return the model that is asked."""
        return (_options(deployment).model,)

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
    ) -> AsyncIterator[BatchingRunner]:
        """Open a runner for which nobody waits yet."""
        assert context.others is not None, "who composes is given the others"
        async with open_batching(_options(deployment), context.others) as runner:
            yield runner


def _options(deployment: Deployment) -> BatchingOptions:
    return from_table(BatchingOptions, deployment.options, where="options")


BATCHING = BatchingPlugin()
