"""Shards that outlive their node, in a file."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr import telemetry
from atomr.cluster.replicator import (
    NotStoredError,
    OnFailure,
    Replicator,
    ReplicatorOptions,
    ShardStoreError,
    StoreOptions,
    durable,
)
from atomr.cluster.replicator.store import ShardStore
from atomr.core.child_spec import Restart
from atomr.crdt import GCounter, Origin
from atomr.errors import StartError
from atomr.process import kill, open_node, wait_exit
from tests.atomr.cluster.replicator.lab import LabPeers, open_lab
from tests.atomr.http2.conftest import Authority, until
from tests.children import or_killed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[4]
SMALL = ReplicatorOptions(shards=2)


def stored(path: Path, **options: Any) -> Replicator:
    return Replicator(SMALL, store=StoreOptions(path, **options))


@asynccontextmanager
async def running(replicator: Replicator, *, boot: int = 1) -> AsyncIterator[Any]:
    """Run a replicator on a node without peers; yield its pid."""
    async with open_node() as node:
        yield await node.start(replicator.child(LabPeers(Origin("a", boot))))


def in_file(path: Path, query: str) -> Any:
    with closing(sqlite3.connect(path)) as database:
        found = database.execute(query).fetchall()
        database.commit()
        return found


async def test_a_restarted_node_reads_its_file_into_a_new_life(tmp_path: Path) -> None:
    path = tmp_path / "shards.db"
    first, second = stored(path), stored(path)
    async with running(first):
        numbers = first.open_map("numbers")
        for number in range(100):
            numbers.put(number, number * number)
        numbers.remove(7)
        first.open(GCounter, "count").write(lambda counter: counter.increment(5))
        before = first.running().core.shards[0].origin
    async with running(second, boot=2):
        numbers = second.open_map("numbers")
        assert numbers.value == {n: n * n for n in range(100) if n != 7}
        count = second.open(GCounter, "count")
        count.write(lambda counter: counter.increment(1))
        numbers.put(8, "other")
        assert second.running().core.shards[0].origin.boot != before.boot
        await second.sync()
    third = stored(path)
    async with running(third, boot=3):
        assert third.open(GCounter, "count").read().value == 6
        assert third.open_map("numbers")[8] == "other"


async def test_what_a_node_owned_before_its_restart_is_hidden(tmp_path: Path) -> None:
    path = tmp_path / "shards.db"
    first, second = stored(path), stored(path)
    async with running(first):
        first.open_owned("presence").put("k", 1)
        assert first.open_owned("presence").get("k") == {Origin("a", 1): 1}
    async with running(second, boot=2):
        assert second.open_owned("presence").get("k") == {}


async def test_a_restarted_node_and_its_peers_bring_each_other_up_to_date(
    authority: Authority, tmp_path: Path
) -> None:
    path = tmp_path / "shards.db"
    first, second, other = stored(path), stored(path), Replicator(SMALL)
    async with open_lab(authority) as lab:
        node = await lab.start("a", first)
        await lab.start("b", other)
        await lab.link("a", "b")
        first.open_map("m").put("both", 1)
        await until(lambda: "both" in other.open_map("m"))
        lab.nodes["a"].cut(lab.nodes["b"])
        first.open_map("m").put("only here", 1)
        await first.sync()
        node.end()
        await until(lambda: first.server is None)
        other.open_map("m").remove("both")
        other.open_map("m").put("only there", 1)
        await lab.start("a", second)
        assert second.open_map("m").value == {"both": 1, "only here": 1}
        await lab.link("a", "b")
        expected = {"only here": 1, "only there": 1}
        maps = second.open_map("m"), other.open_map("m")
        await until(lambda: all(m.value == expected for m in maps))
        await second.sync()
        lab.nodes["a"].end()
        await until(lambda: second.server is None)
        third = stored(path)
        await lab.start("a", third)
        assert third.open_map("m").value == expected


async def test_a_snapshot_of_a_peer_is_stored(
    authority: Authority, tmp_path: Path
) -> None:
    path = tmp_path / "shards.db"
    first, other = stored(path), Replicator(SMALL)
    async with open_lab(authority) as lab:
        await lab.start("b", other)
        for number in range(50):
            other.open_map("m").put(number, number)
        for shard in other.running().core.shards:
            shard.log.tail.cut(shard.log.vector)
        await lab.start("a", first)
        await lab.link("a", "b")
        await until(lambda: len(first.open_map("m")) == 50)
        await first.sync()
        assert in_file_parts(path, first) == {0, 1}


def in_file_parts(path: Path, replicator: Replicator) -> set[int]:
    durability = replicator.running()._durability
    assert durability is not None
    assert durability._store is not None
    rows = durability._store._file.database.execute("SELECT DISTINCT shard FROM part")
    return {shard for (shard,) in rows.fetchall()}


async def test_a_shard_with_many_events_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "LEAST_EVENTS", 100)
    path = tmp_path / "shards.db"
    replicator = stored(path)
    async with running(replicator):
        for number in range(1_000):
            replicator.open_map("m").put(number % 10, number)
            if number % 50 == 0:
                await replicator.sync()
    rows = in_file(path, "SELECT COUNT(*) FROM event")
    assert rows[0][0] <= 6
    again = stored(path)
    async with running(again):
        assert again.open_map("m").value == {n: 990 + n for n in range(10)}


def kill_while_it_writes(path: Path, after_s: float) -> tuple[int, int]:
    """Return how many keys were found, and how many are known to be on the disk."""
    module = "tests.atomr.cluster.replicator.store_process"
    command = [sys.executable, "-m", module, str(path)]
    with (
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child,
        or_killed(child),
    ):
        assert child.stdout is not None
        found = synced = int(child.stdout.readline())
        deadline_s = time.monotonic() + after_s
        while time.monotonic() < deadline_s:
            synced = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        # A line that was cut off by the kill says nothing.
        rest = child.stdout.read().splitlines()[:-1]
    return found, max([synced, *map(int, rest)])


@pytest.mark.slow
async def test_what_was_synced_outlives_a_kill_in_the_middle_of_a_write(
    tmp_path: Path,
) -> None:
    path = tmp_path / "shards.db"
    synced = 0
    for after_s in (0.05, 0.2, 0.011, 0.33):
        found, now_synced = kill_while_it_writes(path, after_s)
        assert found >= synced
        synced = now_synced
    replicator = Replicator(ReplicatorOptions(shards=4), store=StoreOptions(path))
    async with running(replicator):
        numbers = replicator.open_map("numbers").value
        assert len(numbers) >= synced > 37
        assert numbers == {n: {"square": n * n} for n in range(len(numbers))}


async def test_a_damaged_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "shards.db"
    path.write_bytes(b"this is no database, and long enough to be seen as none" * 99)
    with pytest.raises(StartError) as caught:
        async with running(stored(path)):
            raise AssertionError
    error = caught.value.__cause__
    assert isinstance(error, ShardStoreError)
    assert "move it away, and peers fill a new one" in str(error)
    assert path.read_bytes().startswith(b"this is no database")


async def test_a_replicator_that_may_goes_on_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "shards.db"
    path.write_bytes(b"this is no database, and long enough to be seen as none" * 99)
    told: list[Any] = []
    telemetry.attach("k", ("atomr", "replicator"), lambda e, _, d: told.append((e, d)))
    try:
        replicator = stored(path, on_failure=OnFailure.GO_ON)
        async with running(replicator):
            replicator.open_map("m").put("k", 1)
            assert replicator.open_map("m").value == {"k": 1}
            with pytest.raises(NotStoredError):
                await replicator.sync()
    finally:
        telemetry.detach("k")
    assert told[0][0] == ("atomr", "replicator", "store_failed")
    assert "goes on in memory alone" in caplog.text


async def test_a_file_that_another_process_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shards.db"
    holder = ShardStore(path, 2)
    with pytest.raises(StartError) as caught:
        async with running(stored(path)):
            raise AssertionError
    assert "another process has it open" in str(caught.value.__cause__)
    holder.close()
    async with running(stored(path)):
        pass


async def test_a_file_of_another_number_of_shards_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shards.db"
    ShardStore(path, 3).close()
    with pytest.raises(
        ShardStoreError, match="its shards is 3, and the replicator's 2"
    ):
        ShardStore(path, 2)


async def test_a_file_with_a_gap_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shards.db"
    replicator = stored(path)
    async with running(replicator):
        for _ in range(3):
            replicator.open(GCounter, "c").write(lambda counter: counter.increment())
            await replicator.sync()
    in_file(
        path, "DELETE FROM event WHERE number = (SELECT MIN(number) + 1 FROM event)"
    )
    with pytest.raises(StartError) as caught:
        async with running(stored(path)):
            raise AssertionError
    assert "its events have gaps" in str(caught.value.__cause__)


async def test_rows_that_are_nothing_of_ours_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "shards.db"
    ShardStore(path, 2).close()
    in_file(path, "INSERT INTO event (shard, body) VALUES (0, x'c1')")
    with pytest.raises(StartError) as caught:
        async with running(stored(path)):
            raise AssertionError
    assert isinstance(caught.value.__cause__, ShardStoreError)


def fill_disk(replicator: Replicator) -> None:
    """Let the file not grow any more."""
    durability = replicator.running()._durability
    assert durability is not None
    assert durability._store is not None
    database = durability._store._file.database
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages}").fetchall()


async def test_a_full_disk_ends_the_process_with_the_error(tmp_path: Path) -> None:
    replicator = stored(tmp_path / "shards.db")
    async with open_lab_node(replicator) as pid:
        fill_disk(replicator)
        replicator.open_map("m").put("k", "x" * 100_000)
        reason = await wait_exit(pid)
        assert isinstance(reason, ShardStoreError)
        assert str(reason).endswith("database or disk is full; make room on its disk")


@asynccontextmanager
async def open_lab_node(replicator: Replicator) -> AsyncIterator[Any]:
    """Run a replicator that may end."""
    async with open_node() as node:
        spec = replicator.child(LabPeers(Origin("a", 1)))
        yield await node.start(attrs.evolve(spec, restart=Restart.TEMPORARY))


async def test_with_a_full_disk_a_replicator_that_may_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "shards.db"
    replicator = stored(path, on_failure=OnFailure.GO_ON)
    async with running(replicator):
        replicator.open_map("m").put("early", 1)
        await replicator.sync()
        fill_disk(replicator)
        replicator.open_map("m").put("late", "x" * 100_000)
        with pytest.raises(NotStoredError):
            await replicator.sync()
        assert set(replicator.open_map("m")) == {"early", "late"}
    assert "database or disk is full" in caplog.text
    again = stored(path)
    async with running(again):
        assert again.open_map("m").value == {"early": 1}


async def test_a_replicator_that_is_killed_leaves_its_file_to_the_next(
    tmp_path: Path,
) -> None:
    replicator = stored(tmp_path / "shards.db")
    async with open_lab_node(replicator) as pid:
        replicator.open_map("m").put("k", 1)
        kill(pid)
        await wait_exit(pid)
        async with running(replicator, boot=1):
            assert replicator.open_map("m").value == {"k": 1}


async def test_an_old_file_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "shards.db"
    async with running(stored(path)):
        pass
    long_ago_s = int(time.time()) - 9 * 86_400
    in_file(path, f"INSERT OR REPLACE INTO about VALUES ('written_at', {long_ago_s})")
    async with running(stored(path)):
        assert "was last written 9 days ago" in caplog.text


async def test_a_replicator_without_a_file_does_not_say_that_it_stored() -> None:
    replicator = Replicator(SMALL)
    async with running(replicator):
        with pytest.raises(NotStoredError):
            await replicator.sync()


def rows(replicator: Replicator) -> int:
    """Return how many rows of events the file has."""
    durability = replicator.running()._durability
    assert durability is not None
    assert durability._store is not None
    found = durability._store._file.database.execute("SELECT COUNT(*) FROM event")
    return int(found.fetchone()[0])


def has_rows(replicator: Replicator, number: int) -> bool:
    return rows(replicator) >= number


async def test_what_is_written_after_a_sync_is_stored_without_another(
    tmp_path: Path,
) -> None:
    replicator = stored(tmp_path / "shards.db")
    async with running(replicator):
        for number in range(3):
            replicator.open_map("m").put("k", number)
            await replicator.sync()
            replicator.open_map("m").put("k", -number)
            await until(partial(has_rows, replicator, rows(replicator) + 1))


async def test_who_waits_for_a_full_disk_is_told_and_the_process_ends(
    tmp_path: Path,
) -> None:
    replicator = stored(tmp_path / "shards.db", batch_s=0.2)
    async with open_lab_node(replicator) as pid:
        fill_disk(replicator)
        replicator.open_map("m").put("k", "x" * 100_000)
        with pytest.raises(ShardStoreError, match="make room"):
            await replicator.sync()
        replicator.open_map("m").put("k", "more")
        assert isinstance(await wait_exit(pid), ShardStoreError)


async def test_many_that_wait_for_the_disk_share_a_write(tmp_path: Path) -> None:
    replicator = stored(tmp_path / "shards.db")
    async with running(replicator):
        async with trio.open_nursery() as nursery:
            for number in range(100):
                replicator.open_map("m").put(number, number)
                nursery.start_soon(replicator.sync)
        durability = replicator.running()._durability
        assert durability is not None
        assert durability._store is not None
        rows = durability._store._file.database.execute("SELECT COUNT(*) FROM event")
        assert rows.fetchone()[0] <= 4
