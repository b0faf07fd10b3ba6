"""The end of a swap that was left, told although the replicator was away just then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import attrs
import trio

from atomr.cluster.replicator import NotReplicatingError
from atomr_infer.config.deployment_table import deployment_table
from atomr_infer.policy.lifecycle.hot_swap import Phase
from atomr_infer.serving.placing.records import digest_of
from atomr_infer.serving.swapping.records import SwapRecord
from tests.serving.placing.world import World
from tests.serving.swapping.test_swaps_at_once import HALF, NEW, OLD, Cluster, Node

if TYPE_CHECKING:
    from trio.testing import MockClock


@attrs.define(eq=False)
class Flighty:
    """A node's handle of a map, for which the replicator may be away."""

    there: Any
    is_away: bool = False

    def __getattr__(self, name: str) -> Any:
        if self.is_away:
            raise NotReplicatingError("replicator")
        return getattr(self.there, name)


async def led_on_while_away(nursery: trio.Nursery, cluster: Cluster) -> Node:
    """Let a node bring a swap to its end while its replicator is away."""
    node = Node(World(), cluster, "a", nursery)
    swaps = Flighty(node.board._swaps)
    node.swaps._board._swaps = cast("Any", swaps)
    cluster.served = {"m": HALF, "m:next": attrs.evolve(NEW, name="m:next")}
    record = SwapRecord(
        id="1",
        node="z",  # which is gone
        life="2",
        phase=Phase.SHIFTING,
        before=deployment_table(OLD),
        after=digest_of(deployment_table(NEW)),
        asked=(digest_of(deployment_table(HALF)),),
    )
    node.board.put("m", record)
    cluster.fails = {"undeploy": 1}
    await node.swaps._look(nursery)
    await trio.sleep(0.1)
    swaps.is_away = True
    await trio.sleep(1.0)
    assert cluster.served == {"m": OLD}
    swaps.is_away = False
    assert [each.phase for each in node.swaps.statuses()] == [Phase.ROLLING_BACK]
    return node


async def test_the_end_is_told_when_the_replicator_is_back(
    autojump_clock: MockClock,
) -> None:
    cluster = Cluster()
    async with trio.open_nursery() as nursery:
        node = await led_on_while_away(nursery, cluster)

        assert await node.swaps._look(nursery)

        [status] = node.swaps.statuses()
        assert (status.phase, status.share) == (Phase.ROLLED_BACK, 0.0)
        assert status.reason == "z, which led it, ended in the middle of it"
        assert not await node.swaps._look(nursery)
        assert node.started == 1
        nursery.cancel_scope.cancel()


async def test_it_is_not_told_where_a_newer_swap_has_begun_meanwhile(
    autojump_clock: MockClock,
) -> None:
    cluster = Cluster()
    newer = SwapRecord(id="2", node="b", life="1", before=deployment_table(OLD))
    async with trio.open_nursery() as nursery:
        node = await led_on_while_away(nursery, cluster)
        node.board.put("m", newer)

        await node.swaps._look(nursery)

        assert node.board.records() == {"m": newer}
        nursery.cancel_scope.cancel()
