"""A runtime whose runners a test can hold, break and refuse to open."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import attrs
import trio

from atomr_infer.errors import InferenceError, UpstreamTimeoutError
from atomr_infer.model.capabilities import check_request
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
    from collections.abc import AsyncGenerator, AsyncIterator

    from atomr_infer.model.batch import ExecuteBatch, RawChunk, TokenChunk
    from atomr_infer.model.deployment import Deployment, Timeouts


class Passed:
    """The straight way to any runner: a passage that is its ``execute``.

    Like a connection it keeps the time itself.
    """

    def __init__(
        self,
        runner: ModelRunner,
        batch: ExecuteBatch,
        *,
        total_at: float,
        timeouts: Timeouts,
    ) -> None:
        self._block = runner.execute(batch)
        self._total_at = total_at
        self._timeouts = timeouts
        self._chunks: AsyncGenerator[TokenChunk | RawChunk, None] | None = None

    async def begin(self) -> AsyncIterator[TokenChunk | RawChunk]:
        """Ask."""
        self._chunks = self._timed(await self._block.__aenter__())
        return self._chunks

    async def _timed(
        self, chunks: AsyncIterator[TokenChunk | RawChunk]
    ) -> AsyncGenerator[TokenChunk | RawChunk, None]:
        bound_s, awaited = self._timeouts.first_token_s, "its first token"
        while True:
            due_at = min(trio.current_time() + bound_s, self._total_at)
            chunk = None
            with trio.move_on_at(due_at) as silence:
                chunk = await anext(chunks, None)
            if silence.cancelled_caught:
                raise UpstreamTimeoutError(
                    f"m was silent for {bound_s:g} s before {awaited}"
                )
            if chunk is None:
                return
            yield chunk
            bound_s, awaited = self._timeouts.idle_s, "the next token"

    async def end(self, error: BaseException | None) -> None:
        """Stop."""
        chunks, self._chunks = self._chunks, None
        if chunks is not None:
            await chunks.aclose()
            kind = None if error is None else type(error)
            await self._block.__aexit__(kind, error, None)


def passage(
    runner: ModelRunner, timeouts: Timeouts, batch: ExecuteBatch, *, total_at: float
) -> Passed | None:
    """Return the straight way for what the runner is able to do."""
    try:
        if check_request(batch, runner.capabilities):
            return None  # it has something to say of it
    except InferenceError:
        return None
    return Passed(runner, batch, total_at=total_at, timeouts=timeouts)


class Provider(MockRunner):
    """A runner whose provider says of the key what it is told to say; then: taken."""

    def __init__(self, *answers: InferenceError, after_s: float = 0.0) -> None:
        super().__init__(MockScript())
        self._answers = list(answers)
        self._after_s = after_s
        self.asked_at: list[float] = []

    async def check_key(self) -> None:
        """Answer, a while later."""
        self.asked_at.append(trio.current_time())
        await trio.sleep(self._after_s)
        if self._answers:
            raise self._answers.pop(0)


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
        failing_s: how long a start takes that fails.
        passes: whether its runners have a straight way.
    """

    plan: list[Step] = attrs.field(factory=list)
    runners: list[MockRunner] = attrs.field(factory=list)
    opened: int = 0
    closed: int = 0
    refusal: Exception | None = None
    close_s: float = 0.0
    failing_s: float = 0.0
    passes: bool = False

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
            await trio.sleep(self.failing_s)
            raise step
        self.opened += 1
        runner: ModelRunner
        if isinstance(step, MockScript):
            await trio.sleep(step.load_s)
            runner = MockRunner(step)
            self.runners.append(runner)
        else:
            runner = step
        if self.passes:
            way = partial(passage, runner, deployment.timeouts)
            runner.passage = way  # type: ignore[attr-defined]
        try:
            yield runner
        finally:
            self.closed += 1
            with trio.CancelScope(shield=True):
                await trio.sleep(self.close_s)


PLUGIN = LabPlugin()
