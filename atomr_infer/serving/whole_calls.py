"""Requests whose answer is one value: embeddings, a count of tokens.

They take the same way as a generation: a process of the ``requests`` supervisor,
the queue and its permits, the breaker, retries and fallbacks.  Only there is no
stream, so a failed attempt can always be made again.
"""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs
import trio

from atomr.errors import NoProcessError, ProcessKilledError, StartError
from atomr.process import attached
from atomr_infer.errors import (
    DeadlineError,
    InferenceError,
    NotReadyError,
    UnsupportedFeatureError,
    UpstreamTimeoutError,
)
from atomr_infer.model.batch import ExecuteBatch
from atomr_infer.policy.route_plan import Again, Failure, GiveUp, GoTo, Sent, start
from atomr_infer.runtimes.contract import Embedder, TokenCounter
from atomr_infer.serving.fresh_error import fresh
from atomr_infer.serving.leg import Held, Leg
from atomr_infer.serving.names import REQUESTS
from atomr_infer.serving.report import Report, with_chain
from atomr_infer.serving.served import Served, Spent, Tried

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from atomr.refs import Pid
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.model.embeddings import Embeddings, EmbedRequest
    from atomr_infer.model.usage import Usage
    from atomr_infer.runtimes.contract import ModelRunner
    from atomr_infer.serving.shared import Serving

log = logging.getLogger(__name__)

T = TypeVar("T")


@attrs.frozen
class Found(Generic[T]):
    """What a call found, and who found it.

    Attributes:
        value: the answer.
        served: who answered.
    """

    value: T
    served: Served


async def embed(serving: Serving, request: EmbedRequest) -> Found[Embeddings]:
    """Return the vectors of some texts.

    Args:
        serving: the tree that serves.
        request: what is asked; its ``model`` is the public name.

    Raises:
        InferenceError: it failed; also when the model embeds nothing.

    Cancellation: ends the request.
    """

    async def ask(runner: ModelRunner, model: str) -> Embeddings:
        if not isinstance(runner, Embedder):
            raise _unsupported("embeddings")
        return await runner.embed(attrs.evolve(request, model=model))

    # What the queue and the plan want to know of it.
    asked = ExecuteBatch(
        request_id=request.request_id,
        model=request.model,
        messages=(),
        priority=request.priority,
        timeout_s=request.timeout_s,
    )
    return await _Call(serving, asked, ask, usage_of=lambda found: found.usage).run()


async def count_tokens(serving: Serving, batch: ExecuteBatch) -> Found[int]:
    """Return how many tokens a request's prompt has, as its model counts them.

    Raises:
        InferenceError: it failed.
        UnsupportedFeatureError: the model's runtime cannot count.

    Cancellation: ends the request.
    """

    async def ask(runner: ModelRunner, model: str) -> int:
        if not isinstance(runner, TokenCounter):
            raise _unsupported("counting tokens")
        return await runner.count_tokens(attrs.evolve(batch, model=model))

    return await _Call(serving, batch, ask).run()


def _unsupported(what: str) -> UnsupportedFeatureError:
    return UnsupportedFeatureError(
        f"this model does not support {what}", code="unsupported", param="model"
    )


class _Call(Generic[T]):
    """One request over its attempts."""

    def __init__(
        self,
        serving: Serving,
        batch: ExecuteBatch,
        ask: Callable[[ModelRunner, str], Awaitable[T]],
        *,
        usage_of: Callable[[T], Usage | None] = lambda _: None,
    ) -> None:
        self._serving = serving
        self._batch = batch
        self._ask = ask
        self._usage_of = usage_of
        self._report: Report

    async def run(self) -> Found[T]:
        """Make attempts until one succeeds or nothing is left to do."""
        route = self._serving.table.resolve(self._batch.model)
        first = self._serving.deployments[route.deployment]
        self._report = Report(self._batch.request_id, self._batch.model, first.name)
        self._plan = start(self._serving.deployments, first)
        self._go_to(first, route.model)
        bound_s = first.timeouts.total_s
        if self._batch.timeout_s is not None:
            bound_s = min(bound_s, self._batch.timeout_s)
        try:
            async with attached(REQUESTS, id=self._batch.request_id) as pid:
                with trio.move_on_after(bound_s) as scope:
                    found = await self._until_done(pid, scope)
            if scope.cancelled_caught:
                raise DeadlineError(f"the request took longer than {bound_s:g} s")
            self._report.outcome = "completed"
        except (ProcessKilledError, NoProcessError, StartError) as error:
            self._report.outcome = error
            raise NotReadyError("the server is shutting down") from error
        except InferenceError as error:
            self._report.outcome = error
            raise
        except trio.Cancelled:
            self._report.outcome = "cancelled"
            raise
        finally:
            self._report.stop()
        return found

    async def _until_done(self, pid: Pid, scope: trio.CancelScope) -> Found[T]:
        while True:
            held: Held | None = None
            try:
                async with self._leg.lease(pid, may_wait=self._plan.may_wait) as held:
                    value = await self._once(held)
            except InferenceError as error:
                self._report.tried.append(Tried(self._plan.leg.name, error.kind))
                await self._turn(
                    Failure(
                        error=error,
                        admitted=held is not None,
                        sent=Sent.NOTHING,
                        remaining_s=scope.deadline - trio.current_time(),
                    )
                )
            else:
                return self._found(value)

    async def _once(self, held: Held) -> T:
        """Ask, for as long as a first token may take."""
        lease, bound_s = held.lease, self._leg.deployment.timeouts.first_token_s
        with trio.move_on_after(bound_s) as silence, lease.life.hold(silence):
            return await self._ask(lease.runner, self._leg.batch.model)
        if lease.life.error is not None:
            raise fresh(lease.life.error)
        name = self._leg.deployment.name
        raise UpstreamTimeoutError(f"{name} did not answer within {bound_s:g} s")

    async def _turn(self, failure: Failure) -> None:
        self._plan, step = self._plan.after(failure, random.random())
        match step:
            case GiveUp(error=error):
                raise with_chain(error, self._report.tried)
            case Again(wait_s=wait_s):
                self._report.retry(failure.error, wait_s)
                await trio.sleep(wait_s)
            case GoTo(fallback=fallback, reason=reason):
                self._report.fallback(failure.error, fallback.to, reason.value)
                deployment = self._plan.leg
                model = fallback.model or deployment.model or self._batch.model
                self._go_to(deployment, model)

    def _go_to(self, deployment: Deployment, model: str) -> None:
        batch = attrs.evolve(self._batch, model=model)
        self._leg = Leg(self._serving, deployment, batch)
        self._report.deployment = deployment.name

    def _found(self, value: T) -> Found[T]:
        deployment, model = self._leg.deployment.name, self._leg.batch.model
        self._report.tried.append(Tried(deployment))
        usage = self._usage_of(value)
        if usage is not None:
            self._report.usage = usage
            self._report.spent.append(Spent(deployment, model, usage))
        served = Served(
            request_id=self._batch.request_id,
            deployment=deployment,
            model=model,
            attempts=tuple(self._report.tried),
            spent=tuple(self._report.spent),
        )
        return Found(value, served)
