"""What a node does while nothing happens: it must not creep back to be much.

A node that is woken costs more than what it then does, so turns of tasks are counted.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import trio

from atomr.cluster.groups import ProcessGroups
from atomr.cluster.pubsub import ClusterPubSub
from atomr.cluster.registry import ClusterRegistry
from atomr.cluster.remote import RemoteProcesses
from atomr.cluster.replicator import Replicator
from atomr.gossip.membership import MembershipOptions
from tests.atomr.cluster.members.conftest import WITHIN_S
from tests.atomr.http2.conftest import until

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.atomr.cluster.members.conftest import OpenMember

USUAL = {
    "membership": MembershipOptions(),
    "heartbeat_interval_s": 1.0,
    "heartbeat_timeout_s": 5.0,
}
SETTLE_S = 15.0
MEASURED_S = 20.0
MOST_TURNS_PER_S = 24.0
"""Of a node with two others; it is about 16, and was 80 with a timer for each thing."""


class Turns(trio.abc.Instrument):
    """Counts the turns of tasks, by their names."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.counts[task.name] += 1


def services() -> tuple[list[Any], Replicator]:
    """Return all that a node may have, and its replicator."""
    remote, replicator = RemoteProcesses(), Replicator()
    registry = ClusterRegistry(replicator, remote)
    groups = ProcessGroups(replicator, remote)
    news = ClusterPubSub("news", replicator, messages=str)
    return [remote, replicator, registry, groups, news], replicator


async def test_nodes_with_all_services_are_woken_seldom(
    open_member: OpenMember, mock_clock: MockClock
) -> None:
    mock_clock.rate = 1.0
    made = {name: services() for name in "abc"}
    async with (
        open_member("a", services=made["a"][0], **USUAL) as a,
        open_member("b", a.address, services=made["b"][0], **USUAL) as b,
        open_member("c", a.address, services=made["c"][0], **USUAL) as c,
    ):
        for node in (a, b, c):
            await node.wait_for(3, timeout_s=WITHIN_S)
        maps = [replicator.open_map("notes") for _, replicator in made.values()]
        for number in range(100):
            maps[number % 3].put(number, "x")
        await until(lambda: all(len(notes) == 100 for notes in maps))
        mock_clock.rate = 0.0
        # What is on its way through a socket shall come before the next timer.
        mock_clock.autojump_threshold = 0.001
        await trio.sleep(SETTLE_S)
        turns = Turns()
        trio.lowlevel.add_instrument(turns)
        await trio.sleep(MEASURED_S)
        trio.lowlevel.remove_instrument(turns)
        mock_clock.autojump_threshold = float("inf")
        mock_clock.rate = 1.0
        assert all(len(node.peers.all()) == 2 for node in (a, b, c))
    per_s = turns.counts.total() / MEASURED_S / 3
    assert 2.0 < per_s < MOST_TURNS_PER_S, turns.counts.most_common(12)
