"""Health by real generation: an engine that lives and does not answer is started anew.

A process whose heart beats may still have an engine that is stuck: in its device, in a
lock, in a queue of its own.  So each engine of a deployment with ``probe_s`` is asked
now and then for the least that it is for, most of them for one token, in turn with its
clients' requests: a probe waits in the queue as they do, and one that finds the queue
full leaves its place to them.

Requests that run well while a probe waits are answer enough.
"""

from __future__ import annotations

import logging
from math import inf
from typing import TYPE_CHECKING

import trio

from atomr.errors import CallError
from atomr.otp import call, cast
from atomr.process import self_pid
from atomr_infer.errors import EngineError, EngineHungError, InferenceError
from atomr_infer.runtimes.little import ask_little
from atomr_infer.serving.replicas import messages
from atomr_infer.serving.replicas.permits import Ended

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.runtimes.contract import ModelRunner
    from atomr_infer.serving.replicas.engine_life import EngineLife
    from atomr_infer.serving.replicas.replica import Lease

log = logging.getLogger(__name__)

_ID = "health-probe"


class Probing:
    """Asks one engine whether it answers."""

    def __init__(self, core: str, deployment: Deployment) -> None:
        """Ask nobody yet.

        Args:
            core: the name of the engine core whose permits a probe uses.
            deployment: how often, and how long an answer may take.
        """
        self._core = core
        self._deployment = deployment
        self._wait = trio.CancelScope()

    def reread(self, deployment: Deployment) -> None:
        """Go by another deployment from now on."""
        self._deployment = deployment
        self._wait.cancel()

    async def failed(
        self,
        runner: ModelRunner,
        life: EngineLife,
        tell: Callable[[InferenceError], None],
    ) -> InferenceError:
        """Wait until a runner is of no use any more: it says so, or does not answer.

        Args:
            runner: the one.
            life: its.
            tell: called with what is returned, before anybody else does anything: a
                permit that comes back is not to be given for it again.

        Cancellation: ends a probe that runs.
        """
        found: list[InferenceError] = []
        async with trio.open_nursery() as nursery:

            def end(error: InferenceError) -> None:
                tell(error)
                found.append(error)
                nursery.cancel_scope.cancel()

            async def say() -> None:
                end(await runner.failed())

            async def probe() -> None:
                end(await self._unanswered(runner, life))

            nursery.start_soon(say)
            nursery.start_soon(probe)
        return found[0]

    async def _unanswered(
        self, runner: ModelRunner, life: EngineLife
    ) -> InferenceError:
        while True:
            probe_s = self._deployment.serving.probe_s
            with trio.CancelScope() as self._wait:
                await trio.sleep(inf if probe_s is None else probe_s)
            if self._wait.cancelled_caught:
                continue  # by another deployment
            error = await self._probe(runner, life)
            if error is not None:
                return error

    async def _probe(
        self, runner: ModelRunner, life: EngineLife
    ) -> InferenceError | None:
        lease = await self._admitted()
        if lease is None or lease.life is not life:
            return None
        try:
            error = await self._asked(runner)
            life.answered |= error is None
            return error
        finally:
            cast(self._core, messages.Release(lease.ref, Ended.OTHERWISE))

    async def _admitted(self) -> Lease | None:
        try:
            asked = messages.Admit(self_pid(), is_probe=True)
            lease = await call(self._core, asked, timeout_s=None)
        except CallError:
            return None  # it is being restarted, and so are we
        return None if isinstance(lease, InferenceError) else lease

    async def _asked(self, runner: ModelRunner) -> InferenceError | None:
        """Return why an engine does not answer; None: it does, or says why not."""
        bound_s = self._deployment.timeouts.first_token_s
        with trio.move_on_after(bound_s):
            try:
                model = self._deployment.model or self._deployment.name
                await ask_little(runner, request_id=_ID, model=model, tokens=1)
            except EngineError as error:
                log.warning("%s: the health probe failed: %s", self._core, error)
                return error
            except InferenceError as error:
                # It answers, and what it says is about the request.
                log.info("%s: the health probe was refused: %s", self._core, error)
            return None
        log.error("%s: no answer to the health probe in %g s", self._core, bound_s)
        return EngineHungError(
            f"the engine did not answer a health probe within {bound_s:g} s"
        )
