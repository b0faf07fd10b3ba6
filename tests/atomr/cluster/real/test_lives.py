"""Nodes in processes of their own that are killed, stopped and restarted."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.atomr.cluster.real.harness import open_real_cluster

if TYPE_CHECKING:
    from pathlib import Path

THREE = ("a", "b", "c")
FIVE = (*THREE, "d", "e")

pytestmark = pytest.mark.slow


async def test_a_node_that_is_killed_is_seen_by_all_at_once(tmp_path: Path) -> None:
    async with open_real_cluster(tmp_path, FIVE) as cluster:
        await cluster.start()
        at_s = cluster["c"].signal(signal.SIGKILL)
        seen_s = await cluster.seen_after("c", "down", since_s=at_s)
        print(f"SIGKILL, seen by all of 5 after {seen_s * 1e3:.0f} ms")

        # At once, so by the end of its connection, and by no heartbeat.
        for node in cluster.others("c"):
            assert node.told("down", peer="c", reason="peer_closed")
        await cluster["c"].kill()
        await cluster["c"].start()
        await cluster.meet()


async def test_a_node_that_is_stopped_is_seen_and_comes_back_as_it_was(
    tmp_path: Path,
) -> None:
    async with open_real_cluster(tmp_path, FIVE) as cluster:
        await cluster.start()
        [opened] = cluster["c"].told("open")
        at_s = cluster["c"].signal(signal.SIGSTOP)
        seen_s = await cluster.seen_after("c", "down", since_s=at_s)
        print(f"SIGSTOP, seen by all of 5 after {seen_s:.1f} s")

        cluster["c"].signal(signal.SIGCONT)
        await cluster.meet()
        for node in cluster.others("c"):
            assert node.told("up", peer="c")[-1]["boot"] == opened["boot"]
