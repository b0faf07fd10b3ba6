"""Runs generations on a LiteLLM proxy: OpenAI's format, and what it costs.

LiteLLM knows the price that it paid and says it in a header; that figure goes
into the usage, where it beats every price list.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from decimal import Decimal, InvalidOperation
from functools import lru_cache, partial
from typing import TYPE_CHECKING, TypeVar

import attrs

from atomr_infer.model.batch import RawChunk, TokenChunk
from atomr_infer.model.selectors import TAGS
from atomr_infer.remote.upstream import Upstream, open_upstream
from atomr_infer_litellm.config import parse_litellm_options
from atomr_infer_litellm.faults import litellm_fault
from atomr_infer_openai.requests import make_request, models_path
from atomr_infer_openai.runner import OpenAIRunner, place_of, show_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.capabilities import Capabilities
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.remote.http.dialing.tcp import Connect
    from atomr_infer.runtimes.credentials import Credentials

COST_HEADER = "x-litellm-response-cost"

C = TypeVar("C", TokenChunk, RawChunk)


@asynccontextmanager
async def open_litellm_runner(
    deployment: Deployment, credentials: Credentials, *, connect: Connect | None = None
) -> AsyncIterator[LiteLLMRunner]:
    """Open a client for a deployment; no connection is made before it is used.

    Args:
        deployment: whose options and timeouts apply.
        credentials: hands out the proxy's key for each request.
        connect: opens streams; None: TCP and TLS.

    Raises:
        ConfigError: an option is wrong.
    """
    options = parse_litellm_options(deployment)
    upstream = Upstream(
        endpoint=options.openai.endpoint,
        headers=options.headers,
        http2=options.openai.http2,
        show_key=partial(show_key, "authorization"),
        fault=partial(litellm_fault, place=place_of(deployment, options.openai)),
        models_path=models_path(options.openai),
        is_own=False,
    )
    opened = open_upstream(upstream, deployment, credentials, connect=connect)
    async with opened as (client, check):
        yield LiteLLMRunner(
            client, options=options.openai, model=deployment.model or "", check=check
        )


class LiteLLMRunner(OpenAIRunner):
    """One client of a LiteLLM proxy; see ``ModelRunner`` for the contract."""

    def capabilities_for(self, model: str) -> Capabilities:
        """Return what one model can do; tags would choose what answers for it."""
        return _with_tags(super().capabilities_for(model))

    @asynccontextmanager
    async def execute(
        self, batch: ExecuteBatch
    ) -> AsyncIterator[AsyncIterator[TokenChunk | RawChunk]]:
        """Run one generation; the block's end is the generation's end.

        Raises:
            InferenceError: from entering the block or from the iteration.

        Cancellation: leaving the block before the last chunk closes the
            connection before the block's exit returns.
        """
        request = make_request(batch, self._options)
        async with self._client.generation(batch, request) as chunks:
            cost = reported_cost(chunks.headers)
            yield chunks if cost is None else _with_cost(chunks, cost)

    def passage(self, batch: ExecuteBatch, *, total_at: float) -> None:
        """None: what an answer costs stands in a header that ``execute`` reads."""


@lru_cache(maxsize=256)
def _with_tags(capabilities: Capabilities) -> Capabilities:
    return attrs.evolve(capabilities, selectors=capabilities.selectors | TAGS)


async def _with_cost(
    chunks: AsyncIterator[TokenChunk | RawChunk], cost: Decimal
) -> AsyncIterator[TokenChunk | RawChunk]:
    async for chunk in chunks:
        if chunk.usage is None:
            yield chunk
        else:
            usage = attrs.evolve(chunk.usage, reported_usd=cost)
            yield attrs.evolve(chunk, usage=usage)


def reported_cost(headers: Mapping[str, str]) -> Decimal | None:
    """Return what an answer is said to have cost, in dollars; None: not said.

    A stream's head is written before its cost is known: LiteLLM then says 0.

    >>> reported_cost({COST_HEADER: "0.00012"})
    Decimal('0.00012')
    >>> reported_cost({COST_HEADER: "0.0"})
    """
    try:
        cost = Decimal(headers[COST_HEADER])
    except (KeyError, InvalidOperation):
        return None
    return cost if cost.is_finite() and cost > 0 else None
