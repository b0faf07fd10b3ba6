"""The engine's context: the restartable tier of one replica.

It owns what can break: the child process with the weights, or the client with
its connections.  It opens the runner, reports it to the engine core, and ends
with the runner's error; its supervisor then starts a new one.  Where its starts come
to nothing time after time, it ends the replica, as its supervisor does when they do so
fast (:mod:`atomr_infer.serving.replicas.failed_starts`).

A start that fails is reported at once when the error says that trying again is
useless (a missing file, a refused option) or when the engine has never run: who
deploys it is told, and takes it away.  Where it is left, it is tried again, later and
later: the file may be there then, and the memory that others had.

A replica whose deployment is changed gets another context beside this one.  When
the core has taken that one's runner, this one's life is retired, and it ends with
the last request that runs on it.

A client whose key is refused is no failed start: it waits for another key, and serves
with that (:mod:`atomr_infer.serving.replicas.key_check`).

One whose life dozes closes its runner, waits until it is woken, and opens another
one.  Where that fails it goes on waiting: memory that others have now may be free
the next time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

import attrs
import trio

from atomr.core.exits import Shutdown, unwrap
from atomr.core.supervision import GaveUp
from atomr.otp import cast
from atomr.process import self_pid, stop
from atomr_infer.bridge import BridgedRunner, open_bridged_runner
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
from atomr_infer.serving.names import engine_core_name, replica_name
from atomr_infer.serving.replicas import messages
from atomr_infer.serving.replicas.engine_life import EngineLife
from atomr_infer.serving.replicas.failed_starts import MAX_RESTARTS, FailedStarts
from atomr_infer.serving.replicas.key_check import await_key
from atomr_infer.serving.replicas.probing import Probing

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

log = logging.getLogger(__name__)

_CHILD = "context"

_AGAIN_S = 5.0
_MAX_AGAIN_S = 300.0


def _no_gpus(_: int) -> tuple[str, ...]:
    return ()


@attrs.frozen(eq=False)
class EngineSource:
    """Everything that is needed to open a deployment's runner, any number of times.

    Attributes:
        plugin: the loaded runtime.
        plugin_ref: ``module:attribute``, for a child process to import.
        deployment: what to run.
        context: credential; its ``progress`` is replaced per start.
        endpoint: whom the runner asks; None: nobody that others ask too.
        on_failure: told why an engine failed, at once: a message could be lost
            with an engine core that is stopped because of that failure.
        asks: the models that its runners ask other deployments for.
        gpus_of: returns the GPUs of a replica by its number, as a context takes them.
    """

    plugin: RuntimePlugin
    plugin_ref: str
    deployment: Deployment
    context: RunnerContext
    endpoint: str | None
    on_failure: Callable[[InferenceError], None]
    asks: tuple[str, ...] = ()
    gpus_of: Callable[[int], tuple[str, ...]] = _no_gpus

    @property
    def is_client(self) -> bool:
        """Whether its runners are clients in this process."""
        return self.plugin.host is Host.IN_PROCESS

    def open(self, context: RunnerContext) -> AbstractAsyncContextManager[ModelRunner]:
        """Open a runner where the plugin wants it."""
        if self.plugin.host is Host.CHILD_PROCESS:
            return open_bridged_runner(self.plugin_ref, self.deployment, context)
        return self.plugin.open_runner(self.deployment, context)


class EngineContext:
    """A plain process that holds one open runner.

    Attributes:
        source: what it opens.
        version: which context of its replica it is; a newer one has a higher one.
        decided: set when it has opened its first runner, or cannot.
        error: why it cannot, for now or for good.
        life: that of its last runner; None: it has opened none.
    """

    def __init__(self, source: EngineSource, number: int, version: int) -> None:
        self.source = source
        self.version = version
        self.decided = trio.Event()
        self.error: InferenceError | None = None
        self.life: EngineLife | None = None
        self._ran = False
        self._starts = FailedStarts()
        self._again_s = _AGAIN_S
        self._runner: ModelRunner | None = None
        self._number = number
        self._replica = replica_name(source.deployment.name, number)
        self._core = engine_core_name(source.deployment.name, number)
        self._probing = Probing(self._core, source.deployment)

    @property
    def child_id(self) -> str:
        """What it is called under its replica's supervisor."""
        return _CHILD if self.version == 0 else f"{_CHILD}-{self.version}"

    def reread(self, source: EngineSource) -> None:
        """Take a source with which its engine is what it is to be."""
        self.source = source
        self._probing.reread(source.deployment)
        self._tell_runner()

    def _tell_runner(self) -> None:
        if isinstance(self._runner, BridgedRunner):
            self._runner.reread(self.source.deployment)

    def follows(self, child_id: str) -> bool:
        """Whether it has taken the place of another child of its supervisor.

        Args:
            child_id: what the other one is called.
        """
        if child_id == _CHILD:
            return self.version > 0
        name, _, version = child_id.partition("-")
        return name == _CHILD and int(version) < self.version

    async def __call__(self) -> None:
        """Open, report, wait for the runner's failure, and end with it."""
        nap: trio.Event | None = None
        while not self._is_retired():  # restarted with its core, it is of no use
            # None after a start that failed: then it is no rest that this one ends.
            nap = await self._run_once(before=None if nap is None else self.life)
            if nap is None:
                return
            await nap.wait()

    async def _run_once(self, before: EngineLife | None) -> trio.Event | None:
        """Open a runner and live with it.

        Args:
            before: the life that dozed; None: it is no rest that this ends.

        Returns:
            What tells the end of the rest that follows; None: the context ends.
        """
        last = self.life
        gpus = self.source.gpus_of(self._number)
        context = attrs.evolve(self.source.context, progress=self._report, gpus=gpus)
        try:
            async with self.source.open(context) as runner:
                await self._await_key(runner)
                failure = None if self._is_retired() else await self._live(runner)
        except Exception as raised:  # noqa: BLE001 - a plugin may raise anything
            error = self._typed(unwrap(raised))
            self._note(error)
            if self._is_retired():
                return None
            if before is not None and self.life is before:
                return self._stays_asleep(before, error)
            if self.life is not None and error.retryable:
                if self.life is last:
                    self._starts = self._starts.after_failure()
                await self._escalate(error)
                raise error from error.__cause__
            self._cannot_open(error)
            return await self._wait_again()
        if failure is not None:
            self._note(failure)
            if not self._is_retired():
                await self._escalate(failure)
                raise failure
        return None if self.life is None or self._is_retired() else self.life.nap

    async def _escalate(self, error: InferenceError) -> None:
        """End the replica where one more start is of no use; it takes us along."""
        if not self._starts.too_many:
            return
        said = "%s: %d starts in a row ended before anybody was answered: %s"
        log.error(said, self._core, self._starts.count, error)
        reason = GaveUp(self.child_id, error, MAX_RESTARTS, inf)
        await stop(self._replica, Shutdown(reason))

    async def _await_key(self, runner: ModelRunner) -> None:
        """Wait until a provider takes the key; as long as it refuses, say so."""

        def tell(refusal: InferenceError) -> None:
            if self.error is None or self.error.message != refusal.message:
                self._note(refusal)
                # The last life is over: for who replaces it, it has never run.
                self.life = None
                self._cannot_open(refusal)

        await await_key(
            runner,
            self.source.deployment,
            self.source.context.credentials,
            tell=tell,
            is_over=self._is_retired,
        )
        self.error = None

    def _stays_asleep(self, before: EngineLife, error: InferenceError) -> trio.Event:
        nap = before.nap = trio.Event()
        cast(self._core, messages.StaysAsleep(error, self.version))
        return nap

    async def _wait_again(self) -> trio.Event | None:
        """Wait until a start that failed is worth another one.

        Returns:
            An event that is set; None: who opened it beside another one is told.
        """
        if self.version and not self._ran:
            return None
        # Whoever ran on it has ended: for who replaces it, it has never run.
        self.life = None
        await trio.sleep(self._again_s)
        # Said now and not before: who deploys it may have taken it away, and ended.
        log.info("%s: is tried again, %g s after it failed", self._core, self._again_s)
        self._again_s = min(2 * self._again_s, _MAX_AGAIN_S)
        now = trio.Event()
        now.set()
        return now

    def _is_retired(self) -> bool:
        return self.life is not None and self.life.retired

    def _note(self, error: InferenceError) -> None:
        if self._is_retired():
            # Nobody is served by it any more but those who began there.
            log.warning("%s: an engine that was replaced failed: %s", self._core, error)
        elif self._ran or self.version == 0:
            # Who opens one beside another is told, and the other one serves.
            self.source.on_failure(error)

    def _cannot_open(self, error: InferenceError) -> None:
        self.error = error
        self.decided.set()
        cast(self._core, messages.ContextFailed(error, self.version))

    def _typed(self, raised: BaseException) -> InferenceError:
        if isinstance(raised, InferenceError):
            return raised
        log.error("%s: the runtime failed", self._core, exc_info=raised)
        # What the operator wrote wrong is said as it is; the rest is a bug.
        told = isinstance(raised, ConfigError)
        what = str(raised) if told else f"{type(raised).__name__}: {raised}"
        error_class = EngineStartError if self.life is None else EngineError
        error = error_class(what if told else f"the runtime failed: {what}")
        error.__cause__ = raised
        return error

    async def _live(self, runner: ModelRunner) -> InferenceError | None:
        """Report the runner, and end its generations before it is closed.

        Returns:
            Why it failed; None: it is not used any more, or not for now.
        """
        life, self._runner = EngineLife(), runner
        began_at = trio.current_time()
        # It may have been reread while this one was opened.
        self._tell_runner()
        self.life = life
        self._ran, self._again_s = True, _AGAIN_S
        name, model = self.source.deployment.name, self.source.deployment.model
        try:
            up = messages.ContextUp(self_pid(), runner, life, self.version, model)
            cast(self._core, up)
            self.decided.set()
            with life.serves:
                failure = await self._probing.failed(runner, life, self._fails)
                self._starts = self._starts.after_life(
                    answered=life.answered,
                    asked=life.uses > 0,
                    lived_s=trio.current_time() - began_at,
                )
                return failure
            return None
        finally:
            self._runner = None
            if life.answered:
                # It may have gone to rest, too: who fails next is the first in a row.
                self._starts = FailedStarts()
            life.end(NotReadyError(f"{name} was stopped"))

    def _fails(self, failure: InferenceError) -> None:
        # Before it is closed: who asks meanwhile is to wait for the next one.
        cast(self._core, messages.ContextFails(failure, self.version))
        assert self.life is not None
        self.life.end(failure)

    def _report(self, progress: Progress) -> None:
        cast(self._core, messages.ContextProgress(progress, self.version))
