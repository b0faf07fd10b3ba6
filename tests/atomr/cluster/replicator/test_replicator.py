"""Replicators on nodes with real links."""

from __future__ import annotations

import pytest

from atomr.cluster.replicator import NotReplicatingError, Replicator, ReplicatorOptions
from atomr.crdt import GCounter
from tests.atomr.cluster.replicator.lab import open_lab
from tests.atomr.http2.conftest import Authority, until


async def test_what_is_put_on_one_node_is_read_on_the_others(
    authority: Authority,
) -> None:
    replicators = {name: Replicator() for name in "abc"}
    maps = {name: r.open_map("catalogue") for name, r in replicators.items()}
    async with open_lab(authority) as lab:
        for name, replicator in replicators.items():
            await lab.start(name, replicator)
        await lab.link("a", "b", "c")
        maps["a"].put("tiny", {"port": 1})
        maps["b"].put("large", [1, None])
        await until(lambda: all(len(m) == 2 for m in maps.values()))
        assert [m.value for m in maps.values()] == [
            {"tiny": {"port": 1}, "large": [1, None]}
        ] * 3
        maps["c"].remove("tiny")
        await until(lambda: not any("tiny" in m for m in maps.values()))
        counters = [r.open(GCounter, "requests") for r in replicators.values()]
        for counter in counters:
            counter.write(lambda c: c.increment(2))
        await until(lambda: [c.read().value for c in counters] == [6, 6, 6])


async def test_a_replicator_that_does_not_run_says_so() -> None:
    replicator = Replicator(ReplicatorOptions(shards=1))
    with pytest.raises(NotReplicatingError) as caught:
        replicator.open_map("m").put("k", 1)
    assert caught.value.name == "replicator"
