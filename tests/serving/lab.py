"""A runtime whose runners a test can hold, break and refuse to open."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import attrs
import trio

from atomr_infer.runtimes.contract import (
    Host,
    ModelRunner,
    Progress,
    RunnerContext,
    RuntimePlugin,
)
from atomr_infer.testing.mock import MockRunner
from atomr_infer.testing.mock_script import MockScript

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer.model.deployment import Deployment

Step: TypeAlias = MockScript | ModelRunner | Exception
"""What a start does: run a script, give this runner, or fail."""


@attrs.define
class LabPlugin(RuntimePlugin):
    """Opens mock runners by a list of scripts or runners; errors fail the start.

    Attributes:
        plan: what the next starts do.
        runners: the mock runners that were opened.
        opened: how many runners were.
        closed: how many of them were closed.
        refusal: what ``validate`` raises.
        close_s: how long closing a runner takes, whatever happens.
    """

    plan: list[Step] = attrs.field(factory=list)
    runners: list[MockRunner] = attrs.field(factory=list)
    opened: int = 0
    closed: int = 0
    refusal: Exception | None = None
    close_s: float = 0.0

    name = "lab"
    summary = "for tests"
    host = Host.IN_PROCESS

    def endpoint(self, deployment: Deployment) -> str | None:
        """What the test says, as an option."""
        endpoint = deployment.options.get("endpoint")
        return None if endpoint is None else str(endpoint)

    def validate(self, deployment: Deployment) -> None:
        """Anything goes, unless the test says otherwise."""
        if self.refusal is not None:
            raise self.refusal

    @asynccontextmanager
    async def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AsyncIterator[ModelRunner]:
        context.progress(Progress("opening", 1, 2))
        step = self.plan.pop(0) if self.plan else MockScript()
        if isinstance(step, Exception):
            raise step
        self.opened += 1
        runner: ModelRunner
        if isinstance(step, MockScript):
            await trio.sleep(step.load_s)
            runner = MockRunner(step)
            self.runners.append(runner)
        else:
            runner = step
        try:
            yield runner
        finally:
            self.closed += 1
            with trio.CancelScope(shield=True):
                await trio.sleep(self.close_s)


PLUGIN = LabPlugin()
