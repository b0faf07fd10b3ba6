"""Actors that compute: in a process of their own, where a GPU is."""

from __future__ import annotations

import pytest

from atomr_infer.actors import ask, deployment_of
from atomr_infer.cluster import Cluster
from atomr_infer.errors import EngineStartError
from tests.actors.own import Greedy, Powers, Words

# A process starts, on a machine that may be busy.
pytestmark = pytest.mark.slow


async def test_it_computes_in_a_process_of_its_own() -> None:
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(deployment_of(Powers, "powers", 3))
        await cluster.deploy(deployment_of(Words, "words"))
        found = await ask(cluster.lookup("powers", Powers), [1.0, 2.0])
        [replica] = await cluster.replicas("powers")
        assert replica.engine_pid is not None
        told = await ask(cluster.lookup("words", Words), "one two")

    assert found == [1.0, 8.0]
    assert told == "onetwo"


async def test_without_its_gpus_it_does_not_start_and_says_what_helps() -> None:
    async with Cluster.connect("inproc://app") as cluster:
        with pytest.raises(EngineStartError, match="needs 64 GPUs, and this process"):
            await cluster.deploy(deployment_of(Greedy, "greedy"))

        assert cluster.models() == ()
