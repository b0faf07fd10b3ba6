"""Whoever is looked up may be asked for tensors, by a program and by an actor."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing

from atomr.process import current_node
from atomr_infer.actors import ask, deployment_of
from atomr_infer.errors import (
    DeadlineError,
    EndpointUnsupportedError,
    InvalidRequestError,
    UpstreamError,
)
from atomr_infer.model.asker import Asker
from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.model.tensors import Tensor
from atomr_infer.serving.requests.programs import Requests
from tests.actors.own import doubled
from tests.pipeline.conftest import PRICE, TensorsRunner, Tree, model, open_tree

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.pipeline.conftest import OpenTree

__all__ = ["open_tree"]

T = Deployment(
    name="t", runtime="tensors", price=PRICE, retry=RetryPolicy(max_attempts=3)
)
ACTOR = deployment_of(doubled, "doubled")
X = Tensor.of("x", array("f", [1.0, 2.5]))


def program(tree: Tree) -> Requests:
    return Requests(tree.serving, current_node())


def runner(tree: Tree) -> TensorsRunner:
    found = tree.runners["t"]
    assert isinstance(found, TensorsRunner)
    return found


async def test_a_program_gets_what_its_facade_gives(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(T) as tree:
        whole = await program(tree).lookup("t").infer(X)
        one = await program(tree).lookup("t").infer(X, outputs=["z"])

        assert whole == await program(tree).infer("t", X)
        assert [each.name for each in whole.outputs] == ["y", "z"]
        assert [each.name for each in one.outputs] == ["z"]
        assert [each.outputs for each in runner(tree).inferred] == [(), ("z",), ()]


async def test_an_actor_asks_for_tensors_as_a_stage_of_its_request(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(T, ACTOR) as tree:
        asker = Asker("key_1")
        heard = await tree.ask("[1.0, 2.5]", model="doubled", priority=3, asker=asker)
        [asked] = runner(tree).inferred
        assert heard.done is not None

        assert heard.text == "[2.0,5.0]"
        assert (asked.priority, asked.asker) == (3, asker)
        assert asked.request_id.startswith("r0+")
        [stage] = heard.done.stages
        assert stage == "t tensors 1.000s $0.002"
        assert tree.ledger() == [("t", 2)]


async def test_tensors_that_a_model_does_not_take_are_told_and_asked_once(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(T, model("small"), ACTOR) as tree:
        found = program(tree).lookup("t")
        with pytest.raises(InvalidRequestError, match="'w' is no input; the model ta"):
            await found.infer(Tensor.of("w", array("f", [1.0])))
        with pytest.raises(InvalidRequestError, match="'v' is no output; the model gi"):
            await found.infer(X, outputs=["v"])
        with pytest.raises(EndpointUnsupportedError, match="raw tensors"):
            await program(tree).lookup("small").infer(X)

        assert runner(tree).inferred == []


async def test_tensors_are_tried_as_often_as_their_own_deployment_says(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    again = attrs.evolve(ACTOR, retry=RetryPolicy(max_attempts=2))
    async with open_tree(T, again) as tree:
        with pytest.raises(UpstreamError, match="it breaks"):
            await tree.ask("[-1.0]", model="doubled")

        assert len(runner(tree).inferred) == 3


async def test_who_leaves_an_actor_ends_the_run_that_it_asked_for(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(T, ACTOR) as tree:
        actor = program(tree).lookup("doubled", doubled)
        with trio.move_on_after(0.5) as scope:
            await ask(actor, [1.0])
        assert scope.cancelled_caught
        assert runner(tree).ended == 1
        with pytest.raises(DeadlineError):
            await ask(actor, [1.0], timeout_s=0.5)
        assert runner(tree).ended == 2
        assert [each.outstanding for each in tree.serving.replicas("t")] == [0]

        assert await ask(actor, [1.5], timeout_s=2.0) == [3.0]
