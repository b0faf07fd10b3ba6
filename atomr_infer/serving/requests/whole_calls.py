"""Requests whose answer is one value: embeddings, tensors, a count of tokens.

They take the same way as a generation: a process of the ``requests`` supervisor,
the queue and its permits, the breaker, retries and fallbacks.  Only there is no
stream, so a failed attempt can always be made again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs
import trio

from atomr_infer.errors import (
    EndpointUnsupportedError,
    InferenceError,
    UpstreamTimeoutError,
)
from atomr_infer.model.batch import ExecuteBatch, Usage
from atomr_infer.model.capabilities import Feature, needs_fetching
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.model.selectors import refuse_selectors
from atomr_infer.model.tensors import (
    Inferred,
    InferRequest,
    check_tensors,
)
from atomr_infer.policy.estimates.token_estimate import estimate_input_tokens
from atomr_infer.policy.limits.demand import TokenBound
from atomr_infer.runtimes.contract import (
    Embedder,
    ModelRunner,
    TensorRunner,
    TokenCounter,
    capabilities_of,
)
from atomr_infer.serving.replicas.fresh_error import fresh
from atomr_infer.serving.requests.inlining import inlined
from atomr_infer.serving.requests.journey import Journey
from atomr_infer.serving.requests.served import Served
from atomr_infer.wire.nodes.frames import Kind

if TYPE_CHECKING:
    from atomr.refs import Pid
    from atomr_infer.serving.requests.held import AnyHeld
    from atomr_infer.serving.requests.leg import Leg
    from atomr_infer.serving.shared import Serving

T = TypeVar("T")


@attrs.frozen
class Found(Generic[T]):
    """What a call found, and who found it.

    Attributes:
        value: the answer.
        served: who answered.
        took_s: seconds from the first attempt, queue included, to the answer.
    """

    value: T
    served: Served
    took_s: float = 0.0


async def embed(serving: Serving, request: EmbedRequest) -> Found[Embeddings]:
    """Return the vectors of some texts.

    Args:
        serving: the tree that serves.
        request: what is asked; its ``model`` is the public name.

    Raises:
        InferenceError: it failed; also when the model embeds nothing.

    Cancellation: ends the request.
    """
    bound = None if serving.gates.is_empty else bound_of(request)
    asks = vectors_of(request)
    call = _Call(serving, batch_of(request), asks, bound, whole=request)
    return await call.run()


async def infer(serving: Serving, request: InferRequest) -> Found[Inferred]:
    """Run a model on tensors, or say what it takes.

    Args:
        serving: the tree that serves.
        request: what is asked; its ``model`` is the public name.

    Raises:
        InferenceError: it failed; also when the model takes no tensors, or none like
            these.

    Cancellation: ends the request.
    """
    asks = tensors_of(request)
    call = _Call(serving, batch_of(request), asks, NO_TOKENS, whole=request)
    return await call.run()


def batch_of(request: EmbedRequest | InferRequest) -> ExecuteBatch:
    """Return what the queue and the plan want to know of what is no generation."""
    return ExecuteBatch(
        request_id=request.request_id,
        model=request.model,
        messages=(),
        priority=request.priority,
        timeout_s=request.timeout_s,
        asker=request.asker,
    )


def bound_of(request: EmbedRequest | InferRequest) -> TokenBound:
    """Return the most tokens that texts to embed have; tensors have none."""
    if isinstance(request, InferRequest):
        return NO_TOKENS
    query = 0 if request.query is None else estimate_input_tokens(request.query)
    return TokenBound(sum(query + estimate_input_tokens(x) for x in request.inputs))


async def count_tokens(serving: Serving, batch: ExecuteBatch) -> Found[int]:
    """Return how many tokens a request's prompt has, as its model counts them.

    Raises:
        InferenceError: it failed.
        UnsupportedFeatureError: the model's runtime cannot count.

    Cancellation: ends the request.
    """
    call = _Call(serving, batch, TOKENS, NO_TOKENS)
    return await call.run()


@attrs.frozen
class Asks(Generic[T]):
    """What is asked of a runner.

    Attributes:
        ask: asks for a batch.
        usage_of: what its answer used; None: nothing.
    """

    ask: Callable[[ModelRunner, ExecuteBatch], Awaitable[T]]
    usage_of: Callable[[T], Usage | None] = lambda _: None


def vectors_of(request: EmbedRequest) -> Asks[Embeddings]:
    """Return how the vectors of some texts are asked for."""

    async def ask(runner: ModelRunner, batch: ExecuteBatch) -> Embeddings:
        if not isinstance(runner, Embedder):
            raise _unsupported("embeddings")
        model = batch.model
        can = capabilities_of(runner, model)
        if request.query is not None and Feature.RERANK not in can.features:
            raise _unsupported(Feature.RERANK.value)
        if request.classifies and Feature.CLASSIFY not in can.features:
            raise _unsupported(Feature.CLASSIFY.value)
        if request.dialect in can.extra_of:
            refuse_selectors(request.extra, can.selectors)
        return await runner.embed(attrs.evolve(request, model=model))

    return Asks(ask, lambda found: found.usage)


def tensors_of(request: InferRequest) -> Asks[Inferred]:
    """Return how a model is asked for tensors, or for what it takes."""

    async def ask(runner: ModelRunner, batch: ExecuteBatch) -> Inferred:
        can = capabilities_of(runner, batch.model)
        if not isinstance(runner, TensorRunner) or Feature.INFER not in can.features:
            raise _unsupported(Feature.INFER.value)
        # None: it is another node's, which looks at it there.
        if can.signature is not None:
            if request.describes:
                return Inferred(signature=can.signature)
            check_tensors(request, can.signature)
        return await runner.infer(attrs.evolve(request, model=batch.model))

    return Asks(ask, lambda found: found.usage)


async def _count(runner: ModelRunner, batch: ExecuteBatch) -> int:
    if not isinstance(runner, TokenCounter):
        raise _unsupported("counting tokens")
    return await runner.count_tokens(batch)


TOKENS = Asks(_count)
"""How the tokens of a prompt are asked for."""

NO_TOKENS = TokenBound(0)
"""What counting uses."""


async def once(leg: Leg, held: AnyHeld, asks: Asks[T]) -> T:
    """Ask, for as long as a first token may take.

    Raises:
        InferenceError: it failed.

    Cancellation: ends the request.
    """
    lease = held.lease
    can = capabilities_of(lease.runner, leg.batch.model)
    if needs_fetching(leg.batch, can) and isinstance(lease.runner, TokenCounter):
        # Before the time runs: a slow URL is no upstream's silence.
        leg.batch = await inlined(leg.batch, can)
    bound_s = leg.deployment.timeouts.first_token_s
    with trio.move_on_after(bound_s) as silence, lease.life.hold(silence):
        held.attempt = leg.attempt = leg.attempted()
        value = await asks.ask(lease.runner, leg.batch)
        held.attempt.usage = asks.usage_of(value) or Usage()
        return value
    if lease.life.error is not None:
        raise fresh(lease.life.error)
    name = leg.deployment.name
    raise UpstreamTimeoutError(f"{name} did not answer within {bound_s:g} s")


def _unsupported(what: str) -> EndpointUnsupportedError:
    return EndpointUnsupportedError(
        f"this model does not support {what}", code="unsupported", param="model"
    )


_KINDS = {
    type(None): Kind.COUNT,
    EmbedRequest: Kind.EMBED,
    InferRequest: Kind.INFER,
}


class _Call(Generic[T]):
    """One request over its attempts."""

    def __init__(
        self,
        serving: Serving,
        batch: ExecuteBatch,
        asks: Asks[T],
        bound: TokenBound | None,
        *,
        whole: EmbedRequest | InferRequest | None = None,
    ) -> None:
        self._journey = Journey(serving, batch, bound=bound)
        self._asks = asks
        self._whole = whole
        self._under_way = False

    async def run(self) -> Found[T]:
        """Make attempts until one succeeds or nothing is left to do."""
        report = self._journey.report
        try:
            async with self._journey.under_way() as pid:
                report.asked_at = trio.current_time()
                value = await self._until_done(pid)
                self._under_way = False
                took_s = trio.current_time() - report.asked_at
                self._journey.answered(self._asks.usage_of(value))
        finally:
            if self._under_way:
                self._journey.broken_off()
            self._journey.stop()
        return Found(value, self._served(), took_s)

    async def _until_done(self, pid: Pid) -> T:
        journey = self._journey
        while True:
            leg = journey.leg
            leg.attempt, leg.whole = None, self._whole
            leg.kind = _KINDS[type(self._whole)]
            held: AnyHeld | None = None
            try:
                may_wait = journey.plan.may_wait
                async with leg.lease(pid, may_wait=may_wait) as held:
                    self._under_way = True
                    return await once(leg, held, self._asks)
            except InferenceError as error:
                self._under_way = False
                # A node that was lost may have begun.
                admitted = held is not None or leg.attempt is not None
                await journey.turn(error, admitted=admitted)

    def _served(self) -> Served:
        journey = self._journey
        attempt = journey.leg.attempt
        route = b"" if attempt is None else attempt.route
        return Served(
            request_id=journey.batch.request_id,
            deployment=journey.leg.deployment.name,
            model=journey.leg.batch.model,
            attempts=tuple(journey.report.tried),
            downgraded=journey.report.downgraded,
            spent=tuple(journey.report.spent),
            cost=journey.report.cost,
            asked_at=journey.report.asked_at,
            route=journey.report.told_route(route),
            stages=tuple(map(str, journey.report.stages)),
        )
