"""Writes of a replicator's file that are broken off, or fail where somebody waits."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing

from atomr.cluster.replicator import (
    Replicator,
    ReplicatorOptions,
    ShardStoreError,
    StoreOptions,
)
from atomr.core.child_spec import Restart
from atomr.crdt import Origin
from atomr.process import open_node, wait_exit
from tests.atomr.cluster.replicator.lab import LabPeers
from tests.atomr.http2.conftest import until

if TYPE_CHECKING:
    from pathlib import Path

    from atomr.core.child_spec import ChildSpec


def stored(path: Path) -> Replicator:
    return Replicator(ReplicatorOptions(shards=2), store=StoreOptions(path))


def spec_of(replicator: Replicator) -> ChildSpec:
    spec = replicator.child(LabPeers(Origin("a", 1)))
    return attrs.evolve(spec, restart=Restart.TEMPORARY)


async def test_who_is_cancelled_while_it_waits_for_the_disk_takes_nothing_from_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "shards.db"
    replicator, again = stored(path), stored(path)
    async with open_node() as node:
        await node.start(spec_of(replicator))
        durability = replicator.running()._durability
        assert durability is not None
        limiter = durability._thread
        numbers = replicator.open_map("m")
        numbers.put("k", 1)
        await replicator.sync()
        numbers.put("k", 2)
        # The thread is at work, so the write has to wait for it.
        await limiter.acquire_on_behalf_of("others")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(replicator.sync)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            limiter.release_on_behalf_of("others")
        numbers.put("k", 3)
        await replicator.sync()
    async with open_node() as node:
        await node.start(spec_of(again))
        assert again.open_map("m").value == {"k": 3}


async def test_a_failure_that_sync_meets_first_ends_the_process_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replicator = stored(tmp_path / "shards.db")
    async with open_node() as node:
        pid = await node.start(spec_of(replicator))
        durability = replicator.running()._durability
        assert durability is not None
        assert durability._store is not None
        path = durability._store.path

        def refuse(*_: object) -> None:
            raise ShardStoreError(path, "its disk refuses")

        monkeypatch.setattr(durability._store, "write", refuse)
        replicator.open_map("m").put("k", 1)
        with pytest.raises(ShardStoreError):
            await replicator.sync()
        with trio.fail_after(30.0):
            reason = await wait_exit(pid)
        assert isinstance(reason, ShardStoreError)


async def test_a_start_that_is_broken_off_lets_go_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "shards.db"
    replicator = stored(path)
    kept = []

    async def stand_still(durability: object, *_: object) -> None:
        kept.append(durability)
        await trio.sleep_forever()

    monkeypatch.setattr(
        "atomr.cluster.replicator.durable.Durability._load", stand_still
    )
    async with open_node() as node, trio.open_nursery() as nursery:
        nursery.start_soon(node.start, spec_of(replicator))
        await until(lambda: bool(kept))
        nursery.cancel_scope.cancel()
    sqlite3.connect(path).execute("BEGIN IMMEDIATE")


async def test_a_sync_with_nothing_to_write_holds_up_no_later_write(
    tmp_path: Path,
) -> None:
    replicator = stored(tmp_path / "shards.db")
    async with open_node() as node:
        await node.start(spec_of(replicator))
        await replicator.sync()
        replicator.open_map("m").put("k", 1)
        durability = replicator.running()._durability
        assert durability is not None
        await until(lambda: not durability._journal)


async def test_threads_that_wait_for_a_resolver_hold_up_no_write(
    tmp_path: Path,
) -> None:
    replicator = stored(tmp_path / "shards.db")
    limiter = trio.to_thread.current_default_thread_limiter()
    tokens = limiter.total_tokens
    async with open_node() as node:
        await node.start(spec_of(replicator))
        replicator.open_map("m").put("k", 1)
        await limiter.acquire_on_behalf_of("others")
        limiter.total_tokens = 1
        try:
            with trio.fail_after(30.0):
                await replicator.sync()
        finally:
            limiter.total_tokens = tokens
            limiter.release_on_behalf_of("others")
