"""A runtime whose runners a test can hold, break and refuse to open."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import InferenceError
from atomr_infer.runtimes.contract import Host, Progress, RunnerContext, RuntimePlugin
from atomr_infer.testing.mock import MockRunner
from atomr_infer.testing.mock_script import MockScript

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer.model.deployment import Deployment


@attrs.define
class LabPlugin(RuntimePlugin):
    """Opens mock runners by a list of scripts; errors in it fail the start."""

    plan: list[MockScript | InferenceError] = attrs.field(factory=list)
    runners: list[MockRunner] = attrs.field(factory=list)
    opened: int = 0
    closed: int = 0

    name = "lab"
    summary = "for tests"
    host = Host.IN_PROCESS

    def validate(self, deployment: Deployment) -> None:
        """Anything goes."""

    @asynccontextmanager
    async def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AsyncIterator[MockRunner]:
        context.progress(Progress("opening", 1, 2))
        step = self.plan.pop(0) if self.plan else MockScript()
        if isinstance(step, InferenceError):
            raise step
        self.opened += 1
        runner = MockRunner(step)
        self.runners.append(runner)
        try:
            yield runner
        finally:
            self.closed += 1


PLUGIN = LabPlugin()
