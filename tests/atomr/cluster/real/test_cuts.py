"""A real network that is cut, slow and lossy."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.atomr.cluster.real.harness import (
    RealCluster,
    make_certificates,
    open_nodes,
)
from tests.atomr.cluster.real.namespaces import Switch, open_switch, problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

THREE = ("a", "b", "c")
FIVE = (*THREE, "d", "e")
PORT = 4370
SEEN_S = 40.0

pytestmark = pytest.mark.slow


@pytest.fixture
def namespaces() -> None:
    why = problem()
    if why:
        pytest.skip(why)


@pytest.fixture
def netem(namespaces: None) -> None:
    why = problem(netem=True)
    if why:
        pytest.skip(why)


@asynccontextmanager
async def open_apart(
    folder: Path, names: tuple[str, ...], **config: Any
) -> AsyncIterator[tuple[RealCluster, Switch]]:
    """Have nodes with a network each; they run and have met."""
    make_certificates(folder, names)
    async with open_switch(names) as switch, open_nodes() as made:
        addresses = [f"{switch.address(name)}:{PORT}" for name in names]
        for name, address in zip(names, addresses, strict=True):
            made.add(
                name,
                prefix=switch.prefix(name),
                folder=str(folder),
                listen=address,
                seeds=addresses,
                **config,
            )
        await made.cluster.start()
        yield made.cluster, switch


async def test_both_sides_of_a_cut_go_on_and_become_one_again(
    namespaces: None, tmp_path: Path
) -> None:
    async with open_apart(tmp_path, FIVE, voters=FIVE) as (cluster, switch):
        left, right = ("a", "b"), ("c", "d", "e")
        # What is cut off is each alone: the switch has one cable for each.
        await switch.cut(*left)
        for name in left:
            await cluster[name].come_to([], "peers")
        for name in right:
            others = sorted(set(right) - {name})
            await cluster[name].come_to(others, "peers")
        await cluster["a"].ask("put", key="a", value=1)
        await cluster["c"].ask("put", key="c", value=1)
        await cluster["a"].ask("count", by=1)
        await cluster["c"].ask("count", by=10)
        # The larger side has a singleton, and no other node may.
        await _runs_among(cluster, right)
        for name in left:
            assert (await cluster[name].ask("why")).startswith("no majority: of the")

        await switch.mend(*left)
        await cluster.meet()
        for node in cluster.nodes.values():
            await node.come_to(1, "get", key="a")
            await node.come_to(1, "get", key="c")
            await node.come_to(11, "total")


async def _runs_among(cluster: RealCluster, names: tuple[str, ...]) -> None:
    with trio.fail_after(SEEN_S):
        while True:
            found = {await cluster[name].ask("holder") for name in names}
            if len(found) == 1 and found <= set(names):
                return
            await trio.sleep(0.1)


async def test_a_slow_and_lossy_network_makes_nobody_dead(
    netem: None, tmp_path: Path
) -> None:
    async with open_apart(tmp_path, THREE) as (cluster, switch):
        for name in THREE:
            await switch.netem(name, "delay 50ms 20ms loss 5%")
        await trio.sleep(15.0)
        for number in range(10):
            await cluster["a"].ask("put", key=f"k{number}", value=number)
            for node in cluster.nodes.values():
                await node.come_to(number, "get", key=f"k{number}")
        told = [e for node in cluster.nodes.values() for e in node.told("member")]
        assert [event for event in told if event["status"] == "dead"] == []
