"""The ``mock`` runtime: a real plugin whose model is a script.

It keeps the whole runtime contract, passes the conformance suite, and needs no
model, no network and no thread, so that everything above a runtime can be run
with it: under a virtual clock in tests, and from a configuration file to try
out a gateway.  By default it answers with the last user message.

A test that wants to look inside makes its own plugin::

    runners: list[MockRunner] = []
    plugin = MockPlugin(on_open=runners.append)
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.errors import InferenceError
from atomr_infer.model.batch import ExecuteBatch, TokenChunk
from atomr_infer.model.capabilities import Capabilities
from atomr_infer.runtimes.contract import Host, Progress, RunnerContext
from atomr_infer.testing.mock_script import (
    MockScript,
    count_usage,
    plan_answer,
    script_from_options,
)

if TYPE_CHECKING:
    from atomr_infer.model.deployment import Deployment

# A gateway may run on the mock for days; a test never looks further back.
_BATCHES_KEPT = 1024


def _ignore(_: MockRunner) -> None:
    """Take a runner that nobody looks at."""


class MockRunner:
    """A runner that answers as its script says, and remembers what it was asked.

    Attributes:
        script: how it behaves.
        peak_active: the most generations that ran at once.
        left_early: generations whose block was left before their last chunk,
            by cancellation, by an error or by choice.
    """

    def __init__(self, script: MockScript | None = None) -> None:
        self.script = script if script is not None else MockScript()
        self.peak_active = 0
        self.left_early = 0
        self._active = 0
        self._batches: deque[ExecuteBatch] = deque(maxlen=_BATCHES_KEPT)
        self._failure: InferenceError | None = None
        self._failed = trio.Event()
        self._capabilities = Capabilities(
            features=self.script.features,
            sampling=frozenset({"max_tokens", "stop", "n"}),
            max_concurrency=self.script.max_concurrency,
        )

    @property
    def capabilities(self) -> Capabilities:
        """It honours ``max_tokens``, ``stop`` and ``n``, and what the script says."""
        return self._capabilities

    @property
    def active(self) -> int:
        """Generations whose block is open."""
        return self._active

    @property
    def batches(self) -> tuple[ExecuteBatch, ...]:
        """What it was asked, oldest first; the last 1024."""
        return tuple(self._batches)

    def fail(self, error: InferenceError) -> None:
        """Break the runner for good: running and later generations raise ``error``.

        The first failure counts; a broken runner cannot break again.
        """
        if self._failure is None:
            self._failure = error
            self._failed.set()

    async def failed(self) -> InferenceError:
        """Wait until :meth:`fail` was called, and return its error."""
        while self._failure is None:
            await self._failed.wait()
        return self._failure

    @asynccontextmanager
    async def execute(
        self, batch: ExecuteBatch
    ) -> AsyncIterator[AsyncIterator[TokenChunk]]:
        """Answer ``batch`` as the script says.

        Raises:
            InferenceError: what the script or :meth:`fail` says.
        """
        self._raise_failure()
        self._batches.append(batch)
        self._active += 1
        self.peak_active = max(self.peak_active, self._active)
        ended = trio.Event()
        try:
            async with aclosing(self._answer(batch, ended)) as chunks:
                yield chunks
        finally:
            self._active -= 1
            self.left_early += not ended.is_set()

    async def _answer(
        self, batch: ExecuteBatch, ended: trio.Event
    ) -> AsyncGenerator[TokenChunk, None]:
        answer = plan_answer(self.script, batch)
        indices = range(batch.sampling.n)
        try:
            sent = 0
            for sent, piece in enumerate(answer.pieces(), start=1):
                await self._before_token(sent - 1)
                for index in indices:
                    yield attrs.evolve(piece, index=index) if index else piece
            await self._before_end(sent)
        except InferenceError:
            ended.set()
            raise
        for index in indices:
            yield TokenChunk(index=index, finish_reason=answer.finish_reason)
        ended.set()
        yield TokenChunk(usage=count_usage(batch, len(indices), answer))

    async def _before_token(self, position: int) -> None:
        await self._before_end(position)
        with trio.move_on_after(self.script.delay_s):
            await self._failed.wait()
        self._raise_failure()

    async def _before_end(self, sent: int) -> None:
        if sent == self.script.fail_after:
            raise self.script.error()
        if sent == self.script.hang_after:
            await self._failed.wait()
        await trio.lowlevel.checkpoint()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


@attrs.frozen
class MockPlugin:
    """The plugin behind ``runtime = "mock"``.

    Attributes:
        on_open: called with each runner that is opened, so that a test can
            look at it and break it.
    """

    on_open: Callable[[MockRunner], None] = _ignore

    @property
    def name(self) -> str:
        """``mock``."""
        return "mock"

    @property
    def summary(self) -> str:
        """One line for lists."""
        return "answers from a script, for tests and for trying out a gateway"

    @property
    def host(self) -> Host:
        """The gateway's own process."""
        return Host.IN_PROCESS

    def missing(self) -> tuple[str, ...]:
        """Nothing: it needs the base install only."""
        return ()

    def validate(self, deployment: Deployment) -> None:
        """Refuse options that are not a :class:`MockScript`'s.

        Raises:
            ConfigError: names the option, its value and what is allowed.
        """
        script_from_options(deployment.options)

    @asynccontextmanager
    async def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AsyncIterator[MockRunner]:
        """Open a runner after the script's ``load_s``; it needs no credential."""
        context.progress(Progress("reading the script"))
        runner = MockRunner(script_from_options(deployment.options))
        await trio.sleep(runner.script.load_s)
        self.on_open(runner)
        yield runner

    def environment_deployments(
        self, environ: Mapping[str, str]
    ) -> tuple[Deployment, ...]:
        """Nothing: a mock is never served unasked."""
        return ()

    def demo_deployment(self) -> Deployment | None:
        """Nothing: a made-up answer is no demonstration."""
        return None


PLUGIN = MockPlugin()
