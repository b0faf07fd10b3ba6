"""Swaps that ended are forgotten by all: counted in the maps that nodes share."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio

from atomr_infer.model.swap_plan import SwapPlan
from atomr_infer.policy.lifecycle.hot_swap import Phase
from atomr_infer.serving.swapping import trimming
from atomr_infer.serving.swapping.board import SwapBoard
from atomr_infer.serving.swapping.records import ENDS, SWAPS, SwapRecord
from atomr_infer.serving.swapping.trimming import KEPT_S, UNDEPLOYED_S, Trimmer
from tests.serving.placing.world import ModelReplicator, World
from tests.serving.swapping.test_hot_swap import NEW, OLD

if TYPE_CHECKING:
    from trio.testing import MockClock

    from atomr.cluster.replicator import Replicator
    from tests.serving.conftest import OpenTree

MINUTE_S = 60.0
QUICK = SwapPlan(steps=(), step_s=0.0, min_requests=0)


@pytest.fixture
def way() -> str:
    """One way of making requests is enough here: nobody asks."""
    return "ordinary"


class Node:
    """One of two nodes, of which the first by name keeps the maps."""

    def __init__(self, world: World, name: str) -> None:
        world.begin(name)
        self.replicator = ModelReplicator(world, name)
        self.board = SwapBoard(cast("Replicator", self.replicator))
        self.deployed = {"m0", "m1"}
        self.has_met = True
        self.name = name
        self.trimmer = Trimmer(
            cast("Any", SimpleNamespace(has_met=True, orders=self)), self.board
        )

    def picture(self) -> Any:
        return SimpleNamespace(
            me=self.name,
            facts={"a": None, "b": None},
            away=frozenset(),
            catalogue=self.deployed,
        )

    def trim(self) -> tuple[str, ...]:
        records = self.board.records()
        return self.trimmer.trim([r.status(n) for n, r in records.items()])

    def counted(self) -> tuple[int, int]:
        """How many entries the two maps have."""
        maps = (self.replicator.open_map(which) for which in (SWAPS, ENDS))
        swaps, ends = (len(each.items()) for each in maps)
        return swaps, ends


def record(number: int, phase: Phase) -> SwapRecord:
    return SwapRecord(
        id=f"id{number}",
        node="a",
        life="1",
        phase=phase,
        before={"name": f"m{number}"},
        after="f00",
        asked=("f00",),
    )


async def test_what_is_known_of_swaps_is_bounded_by_age_and_by_what_is_deployed(
    autojump_clock: MockClock,
) -> None:
    world = World()
    a, b = Node(world, "a"), Node(world, "b")
    for number in range(20):
        a.board.put(f"m{number}", record(number, Phase.ROLLED_BACK))
        b.board.end(f"m{number}", f"id{number}")
    a.board.put("m0", record(0, Phase.SHIFTING))
    a.board.end("m0", "id0")
    assert (b.trim(), a.trim()) == ((), ())
    assert a.counted() == (20, 1)  # the order to go back of the one that runs
    await trio.sleep(UNDEPLOYED_S - MINUTE_S)
    assert (a.trim(), a.counted()) == ((), (20, 1))
    await trio.sleep(MINUTE_S)
    assert len(b.trim()) == 18
    assert b.counted() == (20, 1)  # not its affair
    assert len(a.trim()) == 18
    assert sorted(b.board.records()) == ["m0", "m1"]
    await trio.sleep(KEPT_S - UNDEPLOYED_S)
    assert a.trim() == ("id1",)
    assert sorted(b.board.records()) == ["m0"]
    assert b.counted() == (1, 1)


async def test_the_record_of_one_that_ended_is_small(
    autojump_clock: MockClock,
) -> None:
    a = Node(World(), "a")
    a.board.put("m0", record(0, Phase.SHIFTING))
    assert a.board.records()["m0"].before == {"name": "m0"}
    a.board.put("m0", record(0, Phase.SWAPPED))
    found = a.board.records()["m0"]
    assert (found.before, found.asked, found.after) == ({}, (), "f00")


async def test_a_later_swap_is_not_forgotten_for_an_old_one(
    autojump_clock: MockClock,
) -> None:
    a = Node(World(), "a")
    a.deployed = set()
    a.board.put("m0", record(0, Phase.SWAPPED))
    a.trim()
    await trio.sleep(UNDEPLOYED_S - MINUTE_S)
    a.board.put("m0", record(7, Phase.SWAPPED))
    a.trim()
    await trio.sleep(MINUTE_S)
    assert a.trim() == ()
    a.board.remove("m0", "id0")  # said late by another node
    assert a.board.records()["m0"].id == "id7"


async def test_a_node_alone_forgets_what_it_has_led(
    open_tree: OpenTree, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trimming, "KEPT_S", 5 * MINUTE_S)
    async with open_tree(OLD) as tree:
        swaps = tree.serving.hot_swaps
        assert (await swaps.swap(NEW, QUICK)).phase is Phase.SWAPPED
        await trio.sleep(3 * MINUTE_S)
        assert len(swaps.statuses()) == 1
        await trio.sleep(4 * MINUTE_S)
        assert (swaps.statuses(), swaps._swaps) == ((), {})
