"""A request: from the model's name to the last chunk, over as many attempts.

A request runs in its client's own task, as a process of the ``requests``
supervisor: it is seen in the tree, it can be killed, and its end, by whatever
way, gives back what it holds.  Chunks go straight from the runner to the
caller's sink; no mailbox is in between.

The waits of one attempt and who bounds them:

===============  =============================================
in the queue     the engine core, ``serving.queue_timeout_s``
first chunk      here, ``timeouts.first_token_s``
between chunks   here, ``timeouts.idle_s``
all of it        here, ``timeouts.total_s``
===============  =============================================
"""

from __future__ import annotations

import logging
import math
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

import attrs
import trio

from atomr import telemetry
from atomr.errors import (
    NoProcessError,
    ProcessKilledError,
    ServerDownError,
    StartError,
)
from atomr.otp import call, cast
from atomr.process import attached
from atomr_infer.errors import (
    DeadlineError,
    InferenceError,
    NotReadyError,
    StreamCutError,
    UpstreamTimeoutError,
)
from atomr_infer.model.batch import TokenChunk
from atomr_infer.model.capabilities import check_request
from atomr_infer.policy.retry import Attempt, retry_wait_s
from atomr_infer.runtimes.contract import capabilities_of
from atomr_infer.serving import messages
from atomr_infer.serving.fresh_error import fresh
from atomr_infer.serving.names import REQUESTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr.refs import Pid
    from atomr_infer.model.batch import ExecuteBatch, RawChunk, Usage
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.serving.replica import Lease, ReplicaState
    from atomr_infer.serving.routing_table import RoutingTable
    from atomr_infer.serving.shared import Serving

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Served:
    """Who answers a request.

    Attributes:
        request_id: the request's.
        deployment: the deployment's name.
        model: the model that serves, as the client should see it.
        attempts: tries so far, the one that answers included.
        ignored: request members that have no effect on this model.
    """

    request_id: str
    deployment: str
    model: str
    attempts: int
    ignored: tuple[str, ...] = ()


class Sink(Protocol):
    """Where an answer goes."""

    async def begin(self, served: Served) -> None:
        """Take the news that an answer starts; once, before the first chunk."""
        ...

    async def chunk(self, chunk: TokenChunk | RawChunk) -> None:
        """Take a chunk; returning late is back-pressure.

        Raw ones come only for a request with a ``source``.
        """
        ...


async def run_request(serving: Serving, batch: ExecuteBatch, sink: Sink) -> None:
    """Run one request to its end.

    Args:
        serving: the tree that serves.
        batch: what is asked; its ``model`` is the public name.
        sink: where the answer goes.

    Raises:
        InferenceError: the request failed; when ``sink.begin`` was called, the
            answer is incomplete.

    Cancellation: ends the generation before it passes on.
    """
    try:
        route = serving.table.resolve(batch.model)
        deployment = serving.deployment(route.deployment)
    except InferenceError as error:
        log.info("request %s refused: %s", batch.request_id, error)
        raise
    routing = serving.routing(route.deployment)
    routed = attrs.evolve(batch, model=route.model)
    request = _Request(deployment, routing, routed, sink)
    request.public_model = batch.model
    try:
        async with attached(REQUESTS, id=batch.request_id) as pid:
            await request.run(pid)
        request.outcome = "completed"
    except (ProcessKilledError, NoProcessError, StartError) as error:
        request.outcome = error
        raise NotReadyError("the server is shutting down") from error
    except InferenceError as error:
        request.outcome = error
        raise
    except trio.Cancelled:
        request.outcome = "cancelled"
        raise
    finally:
        request.report()


class _Request:
    """The state of one request over its attempts."""

    def __init__(
        self,
        deployment: Deployment,
        routing: RoutingTable,
        batch: ExecuteBatch,
        sink: Sink,
    ) -> None:
        self._deployment = deployment
        self._routing = routing
        self._batch = batch
        self._sink = sink
        self._attempts = 0
        self._begun = False
        self._failed_on: frozenset[ReplicaState] = frozenset()
        self._started_at = trio.current_time()
        self._first_chunk_at: float | None = None
        self._model: str | None = None
        self._usage: Usage | None = None
        self.public_model = batch.model
        self.outcome: Exception | str = "failed"

    async def run(self, pid: Pid) -> None:
        total_s = self._deployment.timeouts.total_s
        with trio.move_on_after(total_s) as scope:
            await self._attempts_until_done(pid, scope)
        if scope.cancelled_caught:
            raise DeadlineError(f"the request took longer than {total_s:g} s")

    async def _attempts_until_done(self, pid: Pid, scope: trio.CancelScope) -> None:
        while True:
            try:
                async with self._lease(pid) as lease:
                    self._attempts += 1
                    await self._attempt(lease)
            except InferenceError as error:
                wait_s = self._wait_before_retry(error, scope)
                if wait_s is None:
                    raise
                log.warning(
                    "request %s: attempt %d failed (%s), next one in %.2f s",
                    self._batch.request_id,
                    self._attempts,
                    error,
                    wait_s,
                )
                await trio.sleep(wait_s)
            else:
                return

    def _wait_before_retry(
        self, error: InferenceError, scope: trio.CancelScope
    ) -> float | None:
        if self._attempts == 0:
            return None  # not admitted: the queue has waited for us already
        attempt = Attempt(
            number=self._attempts,
            content_sent=self._begun,
            remaining_s=scope.deadline - trio.current_time(),
        )
        return retry_wait_s(
            self._deployment.retry,
            attempt,
            error,
            random.random(),
        )

    @asynccontextmanager
    async def _lease(self, pid: Pid) -> AsyncIterator[Lease]:
        """Hold a permit on some replica of the deployment."""
        replica = self._routing.pick(self._failed_on)
        replica.arriving += 1
        try:
            lease = await call(replica.core, messages.Admit(pid), timeout_s=None)
        except (NoProcessError, ServerDownError) as error:
            raise NotReadyError(f"{self._deployment.name} is restarting") from error
        finally:
            replica.arriving -= 1
        if isinstance(lease, InferenceError):
            raise lease
        try:
            yield lease
        except InferenceError:
            self._failed_on |= {replica}
            raise
        finally:
            cast(lease.core, messages.Release(lease.ref))

    async def _attempt(self, lease: Lease) -> None:
        capabilities = capabilities_of(lease.runner, self._batch.model)
        ignored = check_request(self._batch, capabilities)
        timeouts = self._deployment.timeouts
        finished = False
        silence = _Silence(timeouts.first_token_s, "its first token")
        with silence.scope, lease.life.hold(silence.scope):
            async with lease.runner.execute(self._batch) as chunks:
                async for chunk in chunks:
                    silence.pause()
                    finished = finished or chunk.finish_reason is not None
                    await self._pass_on(chunk, ignored)
                    silence.expect(timeouts.idle_s, "the next token")
        if silence.scope.cancelled_caught:
            if lease.life.error is not None:
                raise fresh(lease.life.error)
            raise silence.error(self._deployment.name)
        if not (self._begun and finished):
            raise StreamCutError(f"{self._deployment.name} ended its answer too early")

    async def _pass_on(
        self, chunk: TokenChunk | RawChunk, ignored: tuple[str, ...]
    ) -> None:
        self._model = chunk.model or self._model
        if not _says_something(chunk):
            return  # an early error must still find the answer unbegun
        if not self._begun:
            await self._begin(ignored)
        if chunk.usage is not None:
            self._usage = chunk.usage
        await self._sink.chunk(chunk)

    async def _begin(self, ignored: tuple[str, ...]) -> None:
        self._begun = True
        self._first_chunk_at = trio.current_time()
        served = Served(
            request_id=self._batch.request_id,
            deployment=self._deployment.name,
            model=self._model or self.public_model,
            attempts=self._attempts,
            ignored=ignored,
        )
        await self._sink.begin(served)

    def report(self) -> None:
        """Tell log and telemetry how the request went."""
        now = trio.current_time()
        first = self._first_chunk_at
        ttft_s = math.nan if first is None else first - self._started_at
        usage = self._usage
        measurements: dict[str, float] = {
            "duration_s": now - self._started_at,
            "ttft_s": ttft_s,
            "attempts": self._attempts,
            "prompt_tokens": 0 if usage is None else usage.prompt_tokens,
            "output_tokens": 0 if usage is None else usage.output_tokens,
        }
        outcome = self.outcome if isinstance(self.outcome, str) else "failed"
        telemetry.emit(
            ("atomr_infer", "request", "stop"),
            measurements,
            {
                "request_id": self._batch.request_id,
                "deployment": self._deployment.name,
                "model": self.public_model,
                "outcome": outcome,
            },
        )
        log.info(
            "request %s model=%s deployment=%s outcome=%s attempts=%d "
            "ttft=%s total=%.3fs prompt=%d output=%d%s",
            self._batch.request_id,
            self.public_model,
            self._deployment.name,
            outcome,
            self._attempts,
            "none" if first is None else f"{ttft_s:.3f}s",
            measurements["duration_s"],
            measurements["prompt_tokens"],
            measurements["output_tokens"],
            "" if isinstance(self.outcome, str) else f" error={self.outcome}",
        )


def _says_something(chunk: TokenChunk | RawChunk) -> bool:
    if chunk.has_content or chunk.finish_reason or chunk.usage:
        return True
    # A logprob or a choice's member alone is nothing that a reader has seen.
    return isinstance(chunk, TokenChunk) and bool(chunk.choice_extra or chunk.logprobs)


class _Silence:
    """A bound on how long an engine or upstream may say nothing.

    One cancel scope per attempt, its deadline moved with each chunk: a scope
    per chunk would cost more than the chunk.  While the sink takes a chunk the
    bound is off, since a slow client is not a silent engine.
    """

    def __init__(self, bound_s: float, awaited: str) -> None:
        self.scope = trio.CancelScope(deadline=trio.current_time() + bound_s)
        self._bound_s = bound_s
        self._awaited = awaited

    def pause(self) -> None:
        self.scope.deadline = math.inf

    def expect(self, bound_s: float, awaited: str) -> None:
        self._bound_s = bound_s
        self._awaited = awaited
        self.scope.deadline = trio.current_time() + bound_s

    def error(self, deployment: str) -> UpstreamTimeoutError:
        return UpstreamTimeoutError(
            f"{deployment} was silent for {self._bound_s:g} s before {self._awaited}"
        )
