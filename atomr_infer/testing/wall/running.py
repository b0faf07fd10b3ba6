"""One cell of the wall, run: two upstreams, a gateway, and a client."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import attrs
import trio

from atomr import telemetry
from atomr_infer.cluster import Cluster
from atomr_infer.model.cost import Cost
from atomr_infer.model.deployment import Deployment, Jitter, RetryPolicy, Timeouts
from atomr_infer.model.failover import BreakerPolicy, Fallback
from atomr_infer.model.prices import Price
from atomr_infer.model.secret import Secret
from atomr_infer.serving.requests.served import Spent
from atomr_infer.testing import upstream as kit
from atomr_infer.testing.wall.asking import MODEL, ask
from atomr_infer.testing.wall.heard import hear
from atomr_infer.testing.wall.judging import FALLBACK, PRIMARY, Observed, Verdict, judge
from atomr_infer.testing.wall.scenarios import (
    MAX_ATTEMPTS,
    PRICES,
    Cell,
    Dialect,
    Unreachable,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

_KEY = "sk-wall-0123456789"
_SETTLE_S = 5.0

_PATIENT = Timeouts(connect_s=5.0, first_token_s=5.0, idle_s=5.0, total_s=9.0)
# For a primary that falls silent: what is waited for makes the wall slow.
_HASTY = attrs.evolve(_PATIENT, first_token_s=0.25, idle_s=0.25)
_RETRY = RetryPolicy(max_attempts=MAX_ATTEMPTS, backoff_s=0.001, jitter=Jitter.NONE)

_OPEN = {
    Dialect.OPENAI: kit.open_openai_upstream,
    Dialect.ANTHROPIC: kit.open_anthropic_upstream,
    Dialect.GEMINI: kit.open_gemini_upstream,
}
_MODELS = {
    Dialect.OPENAI: "gpt-4o",
    # Of the generation that refuses prefill.
    Dialect.ANTHROPIC: "claude-opus-4-8",
    Dialect.GEMINI: "gemini-2.5-flash",
}


async def run_cell(cell: Cell) -> Verdict:
    """Run a cell, and return whether it stands.

    Cancellation: closes everything that was opened for it.
    """
    with _bill() as bill:
        async with open_cell(cell) as (cluster, upstreams):
            gateway = await cluster.serve("127.0.0.1:0")
            address = urlsplit(gateway.url)
            assert address.hostname is not None, "a gateway has an address"
            assert address.port is not None, "a gateway has a port"
            reply = await ask(cell, address.hostname, address.port)
            held = await _settle(cluster, upstreams)
            observed = Observed(
                heard=hear(cell.dialect, reply, stream=cell.stream),
                status=reply.status,
                served_by=reply.headers.get("x-atomr-deployment", ""),
                asked={name: len(up.requests) for name, up in upstreams.items()},
                spent=bill.spent,
                cost=bill.cost,
                cost_told=reply.headers.get("x-atomr-cost-usd"),
                stopped=bill.stops,
                held=held,
                open_upstream=sum(map(_open_answers, upstreams.values())),
            )
    return judge(cell, observed)


@asynccontextmanager
async def open_cell(
    cell: Cell, *, breaker: BreakerPolicy | None = None
) -> AsyncIterator[tuple[Cluster, Mapping[str, kit.FakeUpstream]]]:
    """Open the cell's upstreams, and a cluster with both deployments.

    Args:
        cell: which one.
        breaker: the primary's; None: the usual one.
    """
    scenario = cell.scenario
    async with AsyncExitStack() as stack:
        tls = None
        if scenario.unreachable is Unreachable.TLS:
            tls = kit.make_tls().server
        open_primary, open_fallback = _OPEN[cell.provider], _OPEN[cell.other_provider]
        primary = await stack.enter_async_context(
            open_primary(otherwise=scenario.primary, api_key=_KEY, tls=tls)
        )
        fallback = await stack.enter_async_context(
            open_fallback(otherwise=scenario.fallback, api_key=_KEY)
        )
        endpoint = primary.base_url
        if scenario.unreachable is Unreachable.REFUSED:
            origin = stack.enter_context(kit.refused_origin())
            endpoint = primary.dialect.base_url(origin)
        cluster = await stack.enter_async_context(Cluster.connect("inproc://wall"))
        await cluster.deploy(
            _deployment(FALLBACK, cell.other_provider, fallback.base_url)
        )
        first = _deployment(PRIMARY, cell.provider, endpoint)
        await cluster.deploy(
            attrs.evolve(
                first,
                serves=(MODEL,),
                timeouts=_HASTY if scenario.falls_silent else _PATIENT,
                on_cut=scenario.on_cut,
                breaker=breaker or BreakerPolicy(),
                fallbacks=[Fallback(to=FALLBACK, on=scenario.reasons)],
            )
        )
        yield cluster, {PRIMARY: primary, FALLBACK: fallback}


def _deployment(name: str, dialect: Dialect, endpoint: str) -> Deployment:
    return Deployment(
        name=name,
        runtime=dialect.value,
        model=_MODELS[dialect],
        credential=Secret(_KEY),
        options={"endpoint": endpoint},
        timeouts=_PATIENT,
        retry=_RETRY,
        price=Price(rates=PRICES[name]),
    )


# --- what is left, and what it cost -----------------------------------------


async def _settle(cluster: Cluster, upstreams: Mapping[str, kit.FakeUpstream]) -> int:
    """Wait until nothing is under way; return the permits that are still held."""
    held = 0
    with trio.move_on_after(_SETTLE_S):
        while True:
            held = 0
            for name in upstreams:
                replicas = await cluster.replicas(name)
                held += sum(r.running + r.waiting + r.arriving for r in replicas)
            if not held and not any(map(_open_answers, upstreams.values())):
                return 0
            await trio.sleep(0.005)
    return held


def _open_answers(upstream: kit.FakeUpstream) -> int:
    return sum(request.open for request in upstream.requests)


@attrs.define
class _Bill:
    """What telemetry said of requests.

    Attributes:
        spent: what each attempt cost.
        cost: what they cost together; None: nobody knows, or nobody has said.
        stops: ends of requests.
    """

    cost: Cost | None = None
    spent: list[Spent] = attrs.field(factory=list)
    stops: int = 0

    def note(
        self,
        event: telemetry.Event,
        _: Mapping[str, float],
        metadata: Mapping[str, object],
    ) -> None:
        """Take an event."""
        if event[-1] != "stop":
            return
        self.stops += 1
        spent = metadata.get("spent")
        assert isinstance(spent, tuple), "the end of a request says what it cost"
        self.spent += spent
        cost = metadata.get("cost")
        assert isinstance(cost, Cost | None), "a cost is one, or is not known"
        self.cost = cost


@contextmanager
def _bill() -> Iterator[_Bill]:
    bill = _Bill()
    telemetry.attach("wall", ("atomr_infer", "request"), bill.note)
    try:
        yield bill
    finally:
        telemetry.detach("wall")
