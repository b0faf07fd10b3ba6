"""The engine's context: the restartable tier of one replica.

It owns what can break: the child process with the weights, or the client with
its connections.  It opens the runner, reports it to the engine core, and ends
with the runner's error; its supervisor then starts a new one.

A start that fails is reported, and not tried again, when the error says that
trying again is useless (a missing file, a refused option) or when the engine
has never run: a deployment that cannot start should say so at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from atomr.core.exits import unwrap
from atomr.otp import cast
from atomr.process import self_pid
from atomr_infer.bridge import open_bridged_runner
from atomr_infer.errors import (
    ConfigError,
    EngineError,
    EngineStartError,
    InferenceError,
    NotReadyError,
)
from atomr_infer.model.deployment import Deployment
from atomr_infer.runtimes.contract import (
    Host,
    ModelRunner,
    Progress,
    RunnerContext,
    RuntimePlugin,
)
from atomr_infer.serving import messages
from atomr_infer.serving.engine_life import EngineLife
from atomr_infer.serving.names import engine_core_name

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

log = logging.getLogger(__name__)


@attrs.frozen(eq=False)
class EngineSource:
    """Everything that is needed to open a deployment's runner, any number of times.

    Attributes:
        plugin: the loaded runtime.
        plugin_ref: ``module:attribute``, for a child process to import.
        deployment: what to run.
        context: credential; its ``progress`` is replaced per start.
        on_failure: told why an engine failed, at once: a message could be lost
            with an engine core that is stopped because of that failure.
    """

    plugin: RuntimePlugin
    plugin_ref: str
    deployment: Deployment
    context: RunnerContext
    on_failure: Callable[[InferenceError], None]

    def open(self, context: RunnerContext) -> AbstractAsyncContextManager[ModelRunner]:
        """Open a runner where the plugin wants it."""
        if self.plugin.host is Host.CHILD_PROCESS:
            return open_bridged_runner(self.plugin_ref, self.deployment, context)
        return self.plugin.open_runner(self.deployment, context)


class EngineContext:
    """A plain process that holds one open runner."""

    def __init__(self, source: EngineSource, number: int) -> None:
        self._source = source
        self._core = engine_core_name(source.deployment.name, number)
        self._has_run = False

    async def __call__(self) -> None:
        """Open, report, wait for the runner's failure, and end with it."""
        context = attrs.evolve(self._source.context, progress=self._report)
        try:
            async with self._source.open(context) as runner:
                self._has_run = True
                failure = await self._live(runner)
        except Exception as raised:  # noqa: BLE001 - a plugin may raise anything
            error = self._typed(unwrap(raised))
            self._source.on_failure(error)
            if self._has_run and error.retryable:
                raise error from error.__cause__
            cast(self._core, messages.ContextFailed(error))
            return
        self._source.on_failure(failure)
        raise failure

    def _typed(self, raised: BaseException) -> InferenceError:
        if isinstance(raised, InferenceError):
            return raised
        log.error("%s: the runtime failed", self._core, exc_info=raised)
        # What the operator wrote wrong is said as it is; the rest is a bug.
        told = isinstance(raised, ConfigError)
        what = str(raised) if told else f"{type(raised).__name__}: {raised}"
        error_class = EngineError if self._has_run else EngineStartError
        error = error_class(what if told else f"the runtime failed: {what}")
        error.__cause__ = raised
        return error

    async def _live(self, runner: ModelRunner) -> InferenceError:
        """Report the runner, and end its generations before it is closed."""
        life = EngineLife()
        name = self._source.deployment.name
        try:
            cast(self._core, messages.ContextUp(self_pid(), runner, life))
            failure = await runner.failed()
            life.end(failure)
            return failure
        finally:
            life.end(NotReadyError(f"{name} was stopped"))

    def _report(self, progress: Progress) -> None:
        cast(self._core, messages.ContextProgress(progress))
