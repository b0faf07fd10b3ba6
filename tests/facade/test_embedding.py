"""Vectors from code: `Cluster.embed`, and the same from plain threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from atomr_infer import blocking
from atomr_infer.cluster import Cluster
from atomr_infer.errors import EndpointUnsupportedError, ModelNotFoundError
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.embeddings import Embeddings
from atomr_infer.model.usage import Usage

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.facade.waiting import WaitingPlugin

VECTORS = Deployment(name="v", runtime="waiting")
CACHED = Deployment(name="cached", runtime="cache", options={"model": "v"})


async def test_texts_become_vectors_in_their_order(waiting: WaitingPlugin) -> None:
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(VECTORS)
        found = await cluster.embed("v", "abc", "d", dimensions=2)

    assert found == Embeddings(
        vectors=((3.0, 2.0), (1.0, 2.0)), usage=Usage(input_uncached=2)
    )
    assert waiting.embedded == [("abc", "d")]


async def test_the_same_text_is_embedded_once_for_all_who_want_it_from_a_cache(
    waiting: WaitingPlugin, autojump_clock: MockClock
) -> None:
    found: list[Embeddings] = []

    async def ask(cluster: Cluster) -> None:
        found.append(await cluster.embed("cached", "abc"))

    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(VECTORS)
        await cluster.deploy(CACHED)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask, cluster)
        await ask(cluster)

    assert [each.vectors for each in found] == [((3.0, 0.0),)] * 4
    # Who began it has used it; the others have used nothing.
    assert sorted(each.usage.input_uncached for each in found) == [0, 0, 0, 1]
    assert waiting.embedded == [("abc",)]


@pytest.mark.usefixtures("waiting")
async def test_what_embeds_nothing_says_so() -> None:
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(Deployment(name="m", runtime="mock"))
        with pytest.raises(EndpointUnsupportedError, match="not support embeddings"):
            await cluster.embed("m", "abc")
        with pytest.raises(ModelNotFoundError):
            await cluster.embed("n", "abc")
        with pytest.raises(ValueError, match="no text; give it at least one"):
            await cluster.embed("m")
        with pytest.raises(ValueError, match="there is no text"):
            await cluster.lookup("m").embed()


async def test_a_caller_that_leaves_ends_what_it_has_asked_for(
    waiting: WaitingPlugin, autojump_clock: MockClock
) -> None:
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(VECTORS)
        with trio.move_on_after(0.001) as scope:
            await cluster.embed("v", "abc")
        await trio.testing.wait_all_tasks_blocked()
        [replica] = await cluster.replicas("v")
        assert scope.cancelled_caught
        assert replica.outstanding == 0
    assert waiting.embedded == [("abc",)]


@pytest.mark.usefixtures("waiting")
def test_a_plain_thread_embeds_as_well() -> None:
    with blocking.Cluster.connect("inproc://app") as cluster:
        cluster.deploy(VECTORS)
        assert cluster.embed("v", "ab", dimensions=3).vectors == ((2.0, 3.0),)
