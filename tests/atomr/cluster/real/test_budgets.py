"""A budget that real nodes spend at once, through a cut and a kill."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from tests.atomr.cluster.real.harness import NodeFailedError
from tests.atomr.cluster.real.test_cuts import namespaces, open_apart

if TYPE_CHECKING:
    from pathlib import Path

    from tests.atomr.cluster.real.harness import RealCluster, RealNode

NAMES = ("a", "b", "c", "d")
UNITS = 10_000_000  # $10.00
CALL = 20_000

pytestmark = pytest.mark.slow

__all__ = ["namespaces"]


def charged(folder: Path) -> int:
    """Return what the provider has charged, by its own account."""
    return sum(
        int(line) for log in folder.glob("*.log") for line in log.read_text().split()
    )


async def spend(
    node: RealNode, folder: Path, units: int, *, calls: int, tasks: int = 8
) -> int:
    """Let a node make calls; return how many were refused."""
    log = str(folder / f"{node.name}.log")
    order = {"log": log, "units": units, "calls": calls, "tasks": tasks}
    refused = await node.ask("spend", **order, seed=NAMES.index(node.name) + units)
    return int(refused)


async def spend_rest(cluster: RealCluster, folder: Path) -> None:
    """Spend what is left, in ever smaller calls.

    One of each task at a time: those that are refused have waited for seconds.
    """
    units = CALL
    while units >= 100:
        before = charged(folder)
        async with trio.open_nursery() as nursery:
            for node in cluster.nodes.values():
                nursery.start_soon(partial(spend, node, folder, units, calls=8))
        if charged(folder) == before:
            units //= 4


async def test_ten_dollars_are_spent_to_the_last_percent_and_never_beyond(
    namespaces: None, tmp_path: Path
) -> None:
    async with open_apart(
        tmp_path,
        NAMES,
        budget_voters=NAMES,
        budget_units=UNITS,
    ) as (cluster, switch):
        for node in cluster.nodes.values():
            with trio.fail_after(20.0):
                while (await node.ask("budget"))["minted"] != UNITS:  # noqa: ASYNC110
                    await trio.sleep(0.05)
        async with trio.open_nursery() as nursery:
            for name in NAMES:

                async def work(node: RealNode = cluster[name]) -> None:
                    try:
                        await spend(node, tmp_path, CALL, calls=100, tasks=4)
                    except NodeFailedError:
                        assert node.name == "d", "it is the one that is killed"

                nursery.start_soon(work)
            await trio.sleep(0.3)
            await switch.cut("a", "b")
            await trio.sleep(0.2)
            await cluster["d"].kill()
        assert charged(tmp_path) <= UNITS
        await switch.mend("a", "b")
        await cluster["d"].start()
        await cluster.meet()
        await spend_rest(cluster, tmp_path)
        spent = charged(tmp_path)
        assert 0.99 * UNITS <= spent <= UNITS, f"{spent} of {UNITS} microdollars"
        for node in cluster.nodes.values():
            state = await node.ask("budget")
            assert (state["reserved"], state["overrun"]) == (0, 0)
