"""What an actor asks is a part of the request that it handles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atomr_infer.actors import deployment_of
from atomr_infer.model.asker import Asker
from tests.actors.own import Counter, loud, plan
from tests.pipeline.conftest import model, open_tree

if TYPE_CHECKING:
    from tests.pipeline.conftest import OpenTree

__all__ = ["open_tree"]


async def test_whoever_asks_an_actor_asks_what_it_asks(open_tree: OpenTree) -> None:
    async with open_tree(model("small"), deployment_of(loud, "loud")) as tree:
        asker = Asker("key_1")
        more: dict[str, Any] = {
            "priority": 3,
            "asker": asker,
            "user": "ann",
            "session": "s",
        }
        await tree.ask("hello you", model="loud", **more)
        [asked] = tree.runners["small"].batches

    assert asked.request_id.startswith("r0+")
    assert {name: getattr(asked, name) for name in more} == more


async def test_an_actor_costs_what_it_asks_and_nothing_itself(
    open_tree: OpenTree,
) -> None:
    async with open_tree(model("small"), deployment_of(plan, "plan")) as tree:
        heard = await tree.ask('{"text": "one two"}', model="plan")
        assert heard.done is not None
        [stage] = heard.done.stages
        assert stage.startswith("small seen ")
        assert heard.done.cost is not None
        # Two tokens read, and two written at twice the price.
        assert heard.done.cost.usd_text == "0.006"
        assert tree.ledger() == [("small", 4)]


async def test_an_actor_that_asks_nobody_is_paid_as_a_model(
    open_tree: OpenTree,
) -> None:
    async with open_tree(deployment_of(Counter, "counter")) as tree:
        await tree.ask("5", model="counter")
        assert tree.ledger() == [("counter", 2)]
