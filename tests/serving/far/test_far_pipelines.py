"""A pipeline that another node runs: its answer, its stages, and what it costs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr_infer.errors import InferenceError, InternalError
from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.model.embeddings import EmbedRequest
from atomr_infer.model.prices import Price, Rates
from atomr_infer.policy.routing.composition import MAX_DEPTH
from atomr_infer.serving.requests.stages import CURRENT, Stage
from atomr_infer.serving.requests.whole_calls import embed
from tests.serving.far.nodes import until
from tests.serving.far.test_far import Counter, M, at_rest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.serving.limits.gates import Gate
    from atomr_infer.serving.requests.served import Served
    from tests.serving.far.conftest import OpenFar
    from tests.serving.far.nodes import FarTree

STAGES: list[Any] = [{"model": "small", "min_chars": 99}, {"model": "large"}]
CASCADE = Deployment(
    name="m",
    runtime="cascade",
    options={"stages": STAGES},
    retry=RetryPolicy(max_attempts=1),
)
# A dollar for a thousand tokens: a tenth of a cent for each.
PRICE = Price(rates=Rates(input=1000.0, output=1000.0))


async def cascaded(
    a: FarTree, b: FarTree, *, exhausted: str = "answer", **large: Any
) -> None:
    """Let ``b`` run a cascade that both know; only ``b`` knows what it asks."""
    small = Deployment(name="small", runtime="mock", price=PRICE)
    dear = attrs.evolve(
        small,
        name="large",
        serves=("large",),
        options={"reply": "yes", **large},
        retry=RetryPolicy(max_attempts=1),
    )
    asked = attrs.evolve(CASCADE, options={"stages": STAGES, "exhausted": exhausted})
    with b.here():
        for deployment in (small, dear, asked):
            await b.serving.deploy(deployment)
    a.know(asked)
    await a.sees(1)


def as_told(served: Served | None) -> list[str]:
    """Return stages in words, without the time that they took."""
    assert served is not None
    return [" ".join(w for w in s.split() if w[-1:] != "s") for s in served.stages]


async def test_a_cascade_of_another_node_answers_and_is_paid_there(
    open_far: OpenFar,
) -> None:
    async with open_far("ab") as (a, b):
        await cascaded(a, b)
        far = await a.ask()
        near = await b.ask()
        assert [*far.texts] == [*near.texts] == ["yes"]
        assert CURRENT.get() is None
        rows = [s for f in b.serving.usage.waiting for s in f.spent]
        assert [row.deployment for row in rows] == ["small", "large"] * 2
        # Who asks another node for it pays nothing beside.
        assert [s for f in a.serving.usage.waiting for s in f.spent] == []
        await at_rest(a, b)


async def test_the_gates_of_requests_are_passed_by_its_stages_alone(
    open_far: OpenFar,
) -> None:
    passed: list[tuple[str, str]] = []

    def watch(tree: FarTree) -> Callable[[ExecuteBatch], Iterable[Gate]]:
        def gates_of(batch: ExecuteBatch) -> Iterable[Gate]:
            passed.append((tree.name, batch.model))
            return ()

        return gates_of

    async with open_far("ab") as (a, b):
        await cascaded(a, b)
        for tree in (a, b):
            tree.serving.gates.add_for_requests(watch(tree))
        await a.ask()
        assert passed == [("b", "small"), ("b", "large")]


async def test_its_stages_and_its_cost_are_those_that_its_own_node_would_tell(
    open_far: OpenFar,
) -> None:
    async with open_far("ab") as (a, b):
        await cascaded(a, b)
        for stream in (True, False):
            far, near = await a.ask(stream=stream), await b.ask(stream=stream)
            assert as_told(far.served[0]) == as_told(near.served[0])
            assert as_told(far.result) == as_told(near.result)
            assert as_told(far.result) == [
                "small mock $0.004 (refused: chars=7)",
                "large mock $0.003",
            ]
            assert far.result is not None
            assert near.result is not None
            assert far.result.cost == near.result.cost
            assert far.result.cost is not None
            assert far.result.cost.usd_text == "0.007"
        await at_rest(a, b)


async def test_a_pipeline_of_pipelines_is_told_with_what_is_inside(
    open_far: OpenFar,
) -> None:
    async with open_far("ab") as (a, b):
        await cascaded(a, b)
        outer = Deployment(
            name="outer",
            runtime="cascade",
            options={"stages": [{"model": "m", "min_chars": 99}, {"model": "large"}]},
        )
        with b.here():
            await b.serving.deploy(outer)
        a.know(outer)
        await a.sees(1, "outer")
        far = await a.ask(model="outer")
        near = await b.ask(model="outer")
        assert as_told(far.result) == as_told(near.result)
        assert far.result is not None
        assert far.result.cost == (near.result and near.result.cost)
        assert "[small mock" in far.result.stages[0]


async def test_how_deep_a_request_is_inside_others_holds_over_nodes(
    open_far: OpenFar,
) -> None:
    async with open_far("ab") as (a, b):
        await cascaded(a, b)
        token = CURRENT.set(Stage("outer", MAX_DEPTH))
        try:
            with pytest.raises(InternalError, match=f"each other, {MAX_DEPTH} deep"):
                await a.ask()
        finally:
            CURRENT.reset(token)
        await at_rest(a, b)


async def test_a_cascade_that_fails_over_there_tells_what_it_cost(
    open_far: OpenFar, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_far("ab") as (a, b):
        await cascaded(a, b, fail_after=0, exhausted="error")
        caplog.set_level(logging.INFO, "atomr_infer")
        with pytest.raises(InferenceError):
            await a.ask()
        told = [r.getMessage() for r in caplog.records if r.name.endswith(".report")]
        [line] = [line for line in told if " model=m " in line and "request a-" in line]
        assert "cost=$0.004 stages=[small mock" in line
        assert "(failed)" in line
        await at_rest(a, b)


async def test_a_client_that_leaves_ends_the_stages_over_there(
    open_far: OpenFar,
) -> None:
    async with open_far("ab") as (a, b):
        await cascaded(a, b, hang_after=0)
        with trio.move_on_after(0.5):
            await a.ask()
        await at_rest(a, b)
        [large] = b.serving.replicas("large")
        await until(lambda: large.outstanding == 0)


async def test_a_node_that_is_lost_leaves_a_cost_that_nobody_knows(
    open_far: OpenFar, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_far("ab") as (a, b):
        await cascaded(a, b, hang_after=0)
        caplog.set_level(logging.INFO, "atomr_infer")

        async def ask() -> None:
            with pytest.raises(InferenceError):
                await a.ask()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            large = b.serving.replicas("large")
            await until(lambda: [r.outstanding for r in large] == [1], "it is asked")
            a.cut(b)
        told = [r.getMessage() for r in caplog.records if r.name.endswith(".report")]
        [line] = [line for line in told if " model=m " in line and "request a-" in line]
        assert "cost=unknown stages=[m" in line
        assert "(lost)" in line


async def test_stages_of_vectors_are_told_as_well(open_far: OpenFar) -> None:
    async with open_far("ab") as (a, b):
        await b.deploy(attrs.evolve(M, name="v", serves=("v",), price=PRICE), Counter())
        cache = Deployment(name="kept", runtime="cache", options={"model": "v"})
        with b.here():
            await b.serving.deploy(cache)
        a.know(cache)
        await a.sees(1, "kept")
        found = []
        for number in range(2):
            request = EmbedRequest(
                request_id=f"e-{number}", model="kept", inputs=("x",)
            )
            with a.here():
                found.append((await embed(a.serving, request)).served)

        assert [as_told(served) for served in found] == [["v lab $0.005"], ["v (hit)"]]
        assert [s.cost and s.cost.usd_text for s in found] == ["0.005", "0"]
        await at_rest(a, b)
