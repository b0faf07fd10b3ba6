"""Actors of another node, asked by name as those of this one are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from atomr_infer.actors import ask, deployment_of
from atomr_infer.errors import DeadlineError, InvalidRequestError
from atomr_infer.model.deployment import Deployment
from atomr_infer.serving.requests.programs import Requests
from tests.actors.own import Counter, Fragile, Plan, Task, plan, relayed
from tests.serving.far.test_far import Adder, M, X, at_rest

if TYPE_CHECKING:
    from tests.serving.far.conftest import OpenFar
    from tests.serving.far.nodes import FarTree

SMALL = Deployment(name="small", runtime="mock")


async def run_on(b: FarTree, a: FarTree, *deployments: Deployment) -> None:
    """Let ``b`` run deployments of which ``a`` knows."""
    for deployment in deployments:
        with b.here():
            await b.serving.deploy(deployment)
        a.know(deployment)
        await a.sees(1, deployment.name)


def program(tree: FarTree) -> Requests:
    return Requests(tree.serving, tree.node)


async def test_a_program_finds_an_actor_and_a_model_of_another_node(
    open_far: OpenFar,
) -> None:
    async with open_far("ab") as (a, b):
        await run_on(b, a, SMALL, deployment_of(plan, "plan"))
        found = await ask(program(a).lookup("plan", plan), Task("go on", 2))
        said = await ask(program(a).lookup("small"), "hello")

        assert found == Plan(steps=("go on", "go on"), style="plain")
        assert said == "hello"
        await at_rest(a, b)


async def test_an_actor_finds_a_model_of_another_node(open_far: OpenFar) -> None:
    async with open_far("ab") as (a, b):
        await run_on(b, a, SMALL)
        with a.here():
            await a.serving.deploy(deployment_of(plan, "plan"))
        found = await ask(program(a).lookup("plan", plan), Task("go on"))

        assert found == Plan(steps=("go on",), style="plain")
        await at_rest(a, b)


async def test_an_actor_asks_a_model_of_another_node_for_tensors(
    open_far: OpenFar,
) -> None:
    async with open_far("ab") as (a, b):
        await b.deploy(M, Adder())
        a.know(M)
        await a.sees(1)
        with a.here():
            await a.serving.deploy(deployment_of(relayed, "relayed"))
        of_actor = await ask(program(a).lookup("relayed", relayed), [1, 2])
        of_program = await program(a).lookup("m").infer(X)
        with pytest.raises(InvalidRequestError, match=r"'x' is INT8 \[1\]"):
            await ask(program(a).lookup("relayed", relayed), [1])

        assert of_actor == of_program.output("y").values() == [1, 2]
        await at_rest(a, b)


async def test_the_state_of_an_actor_is_one_for_all_nodes(open_far: OpenFar) -> None:
    async with open_far("ab") as (a, b):
        await run_on(b, a, deployment_of(Counter, "counter"))
        counts = [
            await ask(program(tree).lookup("counter", Counter), 1) for tree in (a, b, a)
        ]

        assert counts == [1, 2, 3]
        await at_rest(a, b)


async def test_what_it_says_of_a_request_comes_back_as_it_was_said(
    open_far: OpenFar,
) -> None:
    async with open_far("ab") as (a, b):
        await run_on(b, a, deployment_of(Counter, "counter"))
        with pytest.raises(InvalidRequestError, match="takes JSON of int"):
            await ask(program(a).lookup("counter"), "four")
        await at_rest(a, b)


async def test_who_waits_too_long_ends_its_work_over_there(open_far: OpenFar) -> None:
    async with open_far("ab") as (a, b):
        await run_on(b, a, deployment_of(Fragile, "fragile"))
        fragile = program(a).lookup("fragile", Fragile)
        with trio.fail_after(60), pytest.raises(DeadlineError):
            await ask(fragile, "hang", timeout_s=0.3)
        # One at a time: it has its place back, if it had come so far.
        assert await ask(fragile, "well") in (1, 2)
        await at_rest(a, b)
