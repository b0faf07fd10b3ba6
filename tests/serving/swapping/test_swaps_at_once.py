"""Nodes that begin one swap at once, and one that is left alone with it: one leads.

In virtual time, over maps of a model that nodes share; what is asked of the cluster is
noted and not done.
"""

from __future__ import annotations

from math import inf
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import attrs
import pytest
import trio

from atomr.errors import CallError
from atomr_infer.config.deployment_table import deployment_table, table_deployment
from atomr_infer.errors import NotReadyError
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.swap_plan import SwapPlan
from atomr_infer.policy.lifecycle.hot_swap import Phase
from atomr_infer.serving.placing.records import digest_of
from atomr_infer.serving.swapping.board import SwapBoard
from atomr_infer.serving.swapping.hot_swaps import HotSwaps
from atomr_infer.serving.swapping.left import LeftSwap
from atomr_infer.serving.swapping.records import SwapRecord
from tests.serving.placing.world import ModelReplicator, World

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    from atomr.cluster.replicator import Replicator


def plain(version: str) -> Deployment:
    """A deployment as other nodes have it: from a table."""
    made = Deployment(name="m", runtime="mock", options={"reply": version})
    return table_deployment(deployment_table(made))


OLD, NEW = plain("old"), plain("new")
PLAN = SwapPlan(probe=None)


@attrs.define(eq=False)
class Cluster:
    """What all nodes serve, and what was asked of it."""

    served: dict[str, Deployment] = attrs.field(factory=lambda: {"m": OLD})
    asked: list[str] = attrs.field(factory=list)
    fails: dict[str, float] = attrs.field(factory=dict)

    def picture(self) -> Any:
        known = {n: SimpleNamespace(deployment=d) for n, d in self.served.items()}
        return SimpleNamespace(catalogue=known)

    def nodes(self) -> set[str]:
        return {"a", "b"}

    async def deploy(self, wanted: Deployment) -> None:
        self.asked.append(f"deploy {wanted.name}")
        await trio.sleep_forever()  # it loads for longer than a test looks

    async def replace(self, wanted: Deployment) -> None:
        self._fail("replace")
        self.served[wanted.name] = wanted

    async def undeploy(self, name: str) -> None:
        self._fail("undeploy")
        del self.served[name]

    def _fail(self, what: str) -> None:
        self.asked.append(what)
        left = self.fails.get(what, 0)
        if left > 0:
            self.fails[what] = left - 1
            raise CallError("manager", what)


class Node:
    """One node's swaps, in a nursery in place of their supervisor."""

    def __init__(
        self, world: World, cluster: Cluster, name: str, nursery: trio.Nursery
    ) -> None:
        world.begin(name)
        replicator = ModelReplicator(world, name)
        self.board = SwapBoard(cast("Replicator", replicator))
        node = SimpleNamespace(name=name, replicator=replicator, is_alone=False)
        self.serving: Any = SimpleNamespace(node=node, orders=cluster, has_met=True)
        self.swaps = HotSwaps(cast("Any", self.serving))
        self.swaps.declared = cast("Any", Nothing())
        self.swaps._trimmer = cast("Any", Nothing())
        self.started = 0

        async def start(_: str, run: Callable[[], Awaitable[None]]) -> None:
            self.started += 1
            nursery.start_soon(run)

        cast("Any", self.swaps)._start = start

    async def begin(self) -> str:
        """Begin the swap; return how it stands then, or why it does not."""
        try:
            swap = await self.swaps.begin(NEW, PLAN, None)
        except NotReadyError as error:
            return str(error)
        return swap.status.phase.value


class Nothing:
    """No file says anything, and nothing is old."""

    names = ()

    def look(self, _: trio.Nursery) -> None:
        """Do nothing."""

    def forget(self, _: object) -> None:
        """Forget nothing."""

    def trim(self, _: object) -> tuple[str, ...]:
        """Trim nothing."""
        return ()


async def both(a: Node, b: Node, *, after_s: float = 0.0) -> dict[str, str]:
    """Begin at two nodes, at the second one a little later."""
    found: dict[str, str] = {}

    async def one(name: str, node: Node, wait_s: float) -> None:
        await trio.sleep(wait_s)
        found[name] = await node.begin()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, "a", a, 0.0)
        nursery.start_soon(one, "b", b, after_s)
    return found


@pytest.mark.parametrize("heard_after_s", [0.01, 0.3, 0.9])
async def test_of_two_that_begin_at_once_one_leads_and_the_other_is_refused(
    autojump_clock: MockClock, heard_after_s: float
) -> None:
    world, cluster = World(), Cluster()
    async with trio.open_nursery() as nursery:
        a, b = (Node(world, cluster, name, nursery) for name in "ab")
        world.cut("a")  # neither hears of the other one yet

        async def heal() -> None:
            await trio.sleep(heard_after_s)
            world.heal()

        nursery.start_soon(heal)
        found = await both(a, b, after_s=0.005)
        assert found == {
            "a": "m is being swapped by b, which began at the same time; "
            "ask again when it is done",
            "b": "loading",
        }
        await trio.sleep(5)
        assert (a.started, b.started) == (0, 1)
        assert cluster.asked == ["deploy m:next"]
        for node in (a, b):
            [status] = node.swaps.statuses()
            assert (status.node, status.phase) == ("b", Phase.LOADING)
        nursery.cancel_scope.cancel()


async def test_one_that_is_heard_of_is_refused_at_once(
    autojump_clock: MockClock,
) -> None:
    world, cluster = World(), Cluster()
    async with trio.open_nursery() as nursery:
        a, b = (Node(world, cluster, name, nursery) for name in "ab")
        found = await both(a, b, after_s=0.1)
        assert found["a"] == "loading"
        assert found["b"] == "m is being swapped; ask again when it is done"
        nursery.cancel_scope.cancel()


async def test_two_that_could_not_hear_each_other_are_one_when_they_can(
    autojump_clock: MockClock,
) -> None:
    world, cluster = World(), Cluster()
    async with trio.open_nursery() as nursery:
        a, b = (Node(world, cluster, name, nursery) for name in "ab")
        world.cut("a")
        assert await both(a, b, after_s=0.1) == {"a": "loading", "b": "loading"}
        await trio.sleep(1)
        swaps = {node: node.swaps._swaps["m"] for node in (a, b)}
        world.heal()
        for _ in range(4):
            for node in (a, b):
                await node.swaps._look(nursery)
                await trio.sleep(0.1)
        ended = [node for node, swap in swaps.items() if swap.ended.is_set()]
        assert len(ended) == 1
        [leads] = [node for node in (a, b) if node not in ended]
        name = leads.serving.node.name
        status = swaps[ended[0]].status
        assert (status.phase, status.reason) == (
            Phase.ROLLED_BACK,
            f"{name} swaps it, too, and leads",
        )
        # What the other one leads is as it was, and all know of that alone.
        assert cluster.asked == ["deploy m:next"] * 2
        for node in (a, b):
            [known] = node.swaps.statuses()
            assert (known.node, known.phase) == (name, Phase.LOADING)
        nursery.cancel_scope.cancel()


async def test_who_is_cancelled_before_it_leads_leaves_the_way_free(
    autojump_clock: MockClock,
) -> None:
    world, cluster = World(), Cluster()
    async with trio.open_nursery() as nursery:
        a, b = (Node(world, cluster, name, nursery) for name in "ab")
        with trio.move_on_after(0.5):
            await a.begin()
        [status] = b.swaps.statuses()
        assert (status.phase, status.reason) == (Phase.ROLLED_BACK, "it has not begun")
        # It is no answer to a file that says the same.
        assert b.board.records()["m"].after == ""
        assert await b.begin() == "loading"
        assert (a.started, b.started) == (0, 1)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("is_client", [True, False])
async def test_a_node_alone_judges_a_file_by_the_engine_that_it_has(
    is_client: bool,
) -> None:
    patient = attrs.evolve(
        OLD, timeouts=attrs.evolve(OLD.timeouts, idle_s=7.0), hot_swap=PLAN
    )
    async with trio.open_nursery() as nursery:
        a = Node(World(), Cluster(), "a", nursery)
        source = SimpleNamespace(is_client=is_client)
        a.serving.blueprint = {"m": SimpleNamespace(source=source)}.__getitem__
        assert a.swaps.is_swapped(OLD, patient) is is_client


# --- the end of one whose leader is gone -------------------------------------------


def left(cluster: Cluster, node: Node, *, asked: Deployment) -> LeftSwap:
    """A swap that stood where ``asked`` was served."""
    cluster.served = {"m": asked, "m:next": attrs.evolve(NEW, name="m:next")}
    record = SwapRecord(
        id="1",
        node="b",
        life="2",
        phase=Phase.ROLLING_BACK,
        reason="a is gone",
        before=deployment_table(OLD),
        after=digest_of(deployment_table(NEW)),
        asked=(digest_of(deployment_table(asked)),),
    )
    node.board.put("m", record)
    return LeftSwap(node.serving, node.board, "m", record)


HALF = attrs.evolve(OLD, serving=attrs.evolve(OLD.serving, weight=0.5))


@pytest.mark.parametrize(
    ("asked", "fails", "served", "end"),
    [
        (HALF, {}, ["m"], (Phase.ROLLED_BACK, "a is gone")),
        (HALF, {"replace": 3}, ["m"], (Phase.ROLLED_BACK, "a is gone")),
        (HALF, {"undeploy": 3}, ["m"], (Phase.ROLLED_BACK, "a is gone")),
        (NEW, {"undeploy": 2}, ["m"], (Phase.SWAPPED, "a is gone")),
        (
            HALF,
            {"replace": inf},
            ["m", "m:next"],
            (Phase.ROLLED_BACK, "a is gone; then: {replace}; m:next is left"),
        ),
        (
            NEW,
            {"undeploy": inf},
            ["m", "m:next"],
            (Phase.SWAPPED, "a is gone; then: m:next is left: {undeploy}"),
        ),
    ],
)
async def test_what_a_lost_leader_has_left_is_ended_and_tried_again(
    autojump_clock: MockClock,
    asked: Deployment,
    fails: dict[str, float],
    served: list[str],
    end: tuple[Phase, str],
) -> None:
    cluster = Cluster(fails=dict(fails))
    async with trio.open_nursery() as nursery:
        b = Node(World(), cluster, "b", nursery)
        swap = left(cluster, b, asked=asked)
        began_at = trio.current_time()
        await swap.finish()
        took_s = trio.current_time() - began_at
    [status] = b.swaps.statuses()
    words = {what: str(CallError("manager", what)) for what in ("replace", "undeploy")}
    assert (status.phase, status.reason) == (end[0], end[1].format(**words))
    assert sorted(cluster.served) == served
    if inf not in fails.values():
        assert cluster.served["m"] == (NEW if asked is NEW else OLD)
        assert took_s == {0: 0.0, 2: 1.5, 3: 3.5}[int(sum(fails.values(), 0.0))]
    else:
        assert took_s == pytest.approx(61.5)


async def test_all_know_why_the_end_lasts(autojump_clock: MockClock) -> None:
    cluster = Cluster(fails={"replace": 2})
    async with trio.open_nursery() as nursery:
        b = Node(World(), cluster, "b", nursery)
        nursery.start_soon(left(cluster, b, asked=HALF).finish)
        await trio.sleep(1)
        [status] = b.swaps.statuses()
        assert status.phase is Phase.ROLLING_BACK
        assert status.reason == f"a is gone; then: {CallError('manager', 'replace')}"


@pytest.mark.parametrize("fails", ["replace", "undeploy", ""])
async def test_a_newer_swap_is_not_touched_by_who_ends_the_lost_one(
    autojump_clock: MockClock, fails: str
) -> None:
    cluster = Cluster(fails={fails: inf})
    newer = SwapRecord(id="2", node="a", life="1", before=deployment_table(OLD))
    async with trio.open_nursery() as nursery:
        b = Node(World(), cluster, "b", nursery)
        swap = left(cluster, b, asked=HALF)
        if fails:
            nursery.start_soon(swap.finish)
            await trio.sleep(1)
            b.board.put("m", newer)
            cluster.fails, asked = {}, list(cluster.asked)
        else:
            b.board.put("m", newer)
            asked = []
            await swap.finish()
    assert cluster.asked == asked
    assert b.board.records() == {"m": newer}


async def test_what_somebody_else_has_changed_stays(autojump_clock: MockClock) -> None:
    cluster = Cluster()
    other = plain("other")
    async with trio.open_nursery() as nursery:
        b = Node(World(), cluster, "b", nursery)
        swap = left(cluster, b, asked=HALF)
        cluster.served["m"] = other
        await swap.finish()
    assert cluster.served == {"m": other}
    assert cluster.asked == ["undeploy"]
