"""A request that comes to one node is answered by a replica of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from atomr_infer.model.deployment import Deployment, Jitter, RetryPolicy
from atomr_infer.serving.served import Tried
from tests.serving.acts import Player, says
from tests.serving.far.nodes import until

if TYPE_CHECKING:
    from tests.serving.far.conftest import OpenFar
    from tests.serving.far.nodes import FarTree

RETRY = RetryPolicy(max_attempts=3, backoff_s=0.01, jitter=Jitter.NONE)
M = Deployment(name="m", runtime="lab", retry=RETRY)


async def at_rest(*trees: FarTree) -> None:
    """Wait until no node holds anything of any request."""
    for tree in trees:
        serving = tree.serving
        await until(
            lambda serving=serving: all(
                replica.outstanding == replica.tokens == 0
                for replica in serving.replicas("m")
            ),
            f"{tree.name} holds {serving.replicas('m')}",
        )
        with trio.fail_after(30):
            while await tree.requests():  # noqa: ASYNC110 - it has no event
                await trio.sleep(0.005)
        for far in serving.far_replicas.get("m", ()):
            assert far.link is None or len(far.link.dispatch.streams) == 0


async def test_an_answer_of_another_node_is_the_same_and_says_whose_it_is(
    open_far: OpenFar,
) -> None:
    async with open_far("ab") as (a, b):
        await b.deploy(M, Player([says("Hello", " you")] * 2))
        a.know(M)
        await a.sees(1)
        far = await a.ask()
        near = await b.ask()
        assert far.chunks == near.chunks
        assert [*far.texts] == ["Hello", " you"]
        assert far.result is not None
        assert far.result.attempts == (Tried("m"),)
        assert far.result.route == b"node=b; replica=0; reason=only; candidates=1"
        await at_rest(a, b)
