"""What a cluster of real processes does together, while some of them come and go."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
import trio

from tests.atomr.cluster.real.harness import (
    NodeFailedError,
    RealCluster,
    RealNode,
    open_real_cluster,
)

if TYPE_CHECKING:
    from pathlib import Path

THREE = ("a", "b", "c")
RESTARTS = 20
FIVE = (*THREE, "d", "e")
LEASE_S = 3.0
LAPSE_S = 3.4

pytestmark = pytest.mark.slow


async def test_a_registered_server_is_called_from_each_node(tmp_path: Path) -> None:
    async with open_real_cluster(tmp_path, THREE) as cluster:
        await cluster.start()
        await cluster["a"].ask("register", names=["lobby"])
        for node in cluster.nodes.values():
            await node.come_to(["lobby"], "names")
            assert await node.ask("ask", name="lobby", request="hi") == ["hi", "a"]

        await cluster["a"].kill()
        for node in cluster.others("a"):
            await node.come_to([], "names")
            with pytest.raises(NodeFailedError, match="NoProcessError"):
                await node.ask("ask", name="lobby", request="hi")


async def test_values_are_equal_after_nodes_stood_still_and_came_anew(
    tmp_path: Path,
) -> None:
    async with open_real_cluster(tmp_path, THREE) as cluster:
        await cluster.start()
        for node in cluster.nodes.values():
            await node.ask("count", by=1)
        cluster["c"].signal(signal.SIGSTOP)
        await cluster["a"].ask("put", key="x", value="while c stood still")
        await cluster["a"].ask("count", by=10)
        cluster["c"].signal(signal.SIGCONT)
        await _equal(cluster, total=13, x="while c stood still")

        await cluster["b"].kill()
        await cluster["c"].ask("put", key="x", value="while b was away")
        await cluster["c"].ask("count", by=100)
        await cluster["b"].start()
        await _equal(cluster, total=113, x="while b was away")


async def _equal(cluster: RealCluster, *, total: int, x: str) -> None:
    for node in cluster.nodes.values():
        await node.come_to(total, "total")
        await node.come_to(x, "get", key="x")


async def test_twenty_rolling_restarts_lose_no_name(tmp_path: Path) -> None:
    options = {"voters": FIVE, "lease_s": LEASE_S}
    async with open_real_cluster(tmp_path, FIVE, **options) as cluster:
        await cluster.start()
        names = {name: [f"{name}{number}" for number in range(5)] for name in FIVE}
        for name, node in cluster.nodes.items():
            await node.ask("register", names=names[name])
        every = sorted(name for some in names.values() for name in some)
        for node in cluster.nodes.values():
            await node.come_to(every, "names")
        for number in range(RESTARTS):
            name = FIVE[number % 5]
            stay = set(every) - set(names[name])
            async with trio.open_nursery() as nursery:
                watcher = cluster.others(name)[0]
                nursery.start_soon(_never_lost, watcher, stay)
                await cluster[name].leave()
                await cluster[name].start()
                await cluster[name].ask("register", names=names[name])
                for node in cluster.nodes.values():
                    await node.come_to(every, "names")
                nursery.cancel_scope.cancel()
        assert [node.told("crash") for node in cluster.nodes.values()] == [[]] * 5
        # Where they start faster than a lease ends, no voter votes before now; so that
        # there is something to compare, one more leaves.
        holder = await _holder(cluster, *FIVE)
        await cluster[holder].leave()
        left = [name for name in FIVE if name != holder]
        await _holder(cluster, *left, but=holder)
        _one_after_the_other(cluster)


def _one_after_the_other(cluster: RealCluster) -> None:
    """Check that the singleton began nowhere before it had ended elsewhere."""
    said = [e for node in cluster.nodes.values() for e in node.events]
    lives = sorted((e["at_s"], e["event"]) for e in said if "billing" in e["event"])
    kinds = [event for _, event in lives]
    print(f"the singleton began {kinds.count('billing begins')} times")
    turns = ["billing begins", "billing ends"] * len(kinds)
    assert kinds == turns[: len(kinds)], lives
    # Else nothing was compared.
    assert kinds.count("billing begins") >= 2


async def _never_lost(node: RealNode, stay: set[str]) -> None:
    """Ask all the time for the names of nodes that stay."""
    while True:
        found = set(await node.ask("names"))
        assert stay <= found, f"{node.name} lost {stay - found}"
        await trio.sleep(0.02)


# --- a singleton ----------------------------------------------------------------------


async def test_a_singleton_moves_when_its_node_is_killed(tmp_path: Path) -> None:
    options = {"voters": THREE, "lease_s": LEASE_S}
    async with open_real_cluster(tmp_path, THREE, **options) as cluster:
        await cluster.start()
        holder = await _holder(cluster, *THREE)
        at_s = cluster[holder].signal(signal.SIGKILL)
        await cluster[holder].kill()
        left = [name for name in THREE if name != holder]
        heir = await _holder(cluster, *left)

        [won] = cluster[heir].told("singleton won")
        gap_s = won["at_s"] - at_s
        print(f"a killed holder is followed after {gap_s:.1f} s of {LAPSE_S} s")
        # It had asked for its votes up to a third of a lease before.
        assert LAPSE_S * 0.6 < gap_s < 30.0
        assert won["heir_of"] == ""
        assert heir != holder


async def test_a_singleton_is_handed_over_when_its_node_leaves(tmp_path: Path) -> None:
    options = {"voters": THREE, "lease_s": LEASE_S}
    async with open_real_cluster(tmp_path, THREE, **options) as cluster:
        await cluster.start()
        holder = await _holder(cluster, *THREE)
        await trio.sleep(LAPSE_S)  # a voter that has just started is none
        await cluster[holder].leave()
        left = [name for name in THREE if name != holder]
        heir = await _holder(cluster, *left)

        [stop] = cluster[holder].told("closed")
        [won] = cluster[heir].told("singleton won")
        print(f"an heir follows {(won['at_s'] - stop['at_s']) * 1e3:.0f} ms after")
        # By its first try, which no lapse of a vote was waited for.
        assert won["heir_of"] == holder
        [first] = cluster[holder].told("singleton won")
        assert first["heir_of"] == ""


async def test_a_holder_that_stood_still_loses_its_singleton_and_knows_it(
    tmp_path: Path,
) -> None:
    options = {"voters": THREE, "lease_s": LEASE_S}
    async with open_real_cluster(tmp_path, THREE, **options) as cluster:
        await cluster.start()
        holder = await _holder(cluster, *THREE)
        cluster[holder].signal(signal.SIGSTOP)
        left = [name for name in THREE if name != holder]
        heir = await _holder(cluster, *left, but=holder)
        at_s = cluster[holder].signal(signal.SIGCONT)

        lost = await cluster[holder].until(
            lambda: cluster[holder].told("singleton lost")
        )
        print(f"it knows {(lost[0]['at_s'] - at_s) * 1e3:.1f} ms after it goes on")
        for name in THREE:
            await cluster[name].come_to(heir, "holder")
            assert await cluster[name].ask("bill") == ["bill", heir]


async def _holder(cluster: RealCluster, *names: str, but: str = "") -> str:
    """Wait until these nodes agree on who runs it."""
    found: set[str | None] = set()
    with trio.fail_after(60.0):
        while len(found) != 1 or found & {None, but}:
            found = {await cluster[name].ask("holder") for name in names}
            await trio.sleep(0.05)
    [holder] = found
    assert holder is not None
    return holder
