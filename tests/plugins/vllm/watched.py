"""The plugin, which also says how many requests its engine has, and its steps.

It is asked by counting the tokens of a request for the model :data:`UNFINISHED`, or
:data:`STEPS`: whoever is at the other end of a bridge sees nothing else of the engine.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from atomr_infer_vllm.plugin import VllmPlugin
from atomr_infer_vllm.runner import VllmRunner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.runtimes.contract import ModelRunner, RunnerContext

UNFINISHED = "unfinished"
STEPS = "steps"


class WatchedPlugin(VllmPlugin):
    """vLLM, with a view into its engine."""

    @asynccontextmanager
    async def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AsyncIterator[ModelRunner]:
        async with super().open_runner(deployment, context) as runner:
            assert isinstance(runner, VllmRunner)
            count = runner.count_tokens

            async def look_or_count(batch: ExecuteBatch) -> int:
                if batch.model == STEPS:
                    return runner.steps
                if batch.model != UNFINISHED:
                    return await count(batch)
                return runner._life.engine.get_num_unfinished_requests()

            runner.count_tokens = look_or_count  # type: ignore[method-assign] # as above
            yield runner


PLUGIN = WatchedPlugin()
