"""A pipeline that another node runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from atomr_infer.model.deployment import Deployment
from atomr_infer.serving.requests.stages import CURRENT
from tests.serving.far.test_far import at_rest

if TYPE_CHECKING:
    from tests.serving.far.conftest import OpenFar
    from tests.serving.far.nodes import FarTree

STAGES: list[Any] = [{"model": "small", "min_chars": 99}, {"model": "large"}]
CASCADE = Deployment(name="m", runtime="cascade", options={"stages": STAGES})


async def cascaded(a: FarTree, b: FarTree, **large: Any) -> None:
    """Let ``b`` run a cascade that both know."""
    small = Deployment(name="small", runtime="mock")
    dear = Deployment(name="large", runtime="mock", options={"reply": "yes", **large})
    with b.here():
        for deployment in (small, dear, CASCADE):
            await b.serving.deploy(deployment)
    a.know(CASCADE)
    await a.sees(1)


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
        await at_rest(a, b)


async def test_a_client_that_leaves_ends_the_stages_over_there(
    open_far: OpenFar,
) -> None:
    async with open_far("ab") as (a, b):
        await cascaded(a, b, hang_after=0)
        with trio.move_on_after(0.5):
            await a.ask()
        await at_rest(a, b)
        assert [r.outstanding for r in b.serving.replicas("large")] == [0]
