"""Stored responses: kept whole or not at all, found by their owner, bounded."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import attrs
import pytest

from atomr_infer.errors import ConfigError
from atomr_infer.store.responses import ResponseStore, StoredResponse
from tests.children import or_killed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def response(name: str, *, owner: bytes = b"", created_s: int = 100) -> StoredResponse:
    return StoredResponse(
        id=name, owner=owner, created_s=created_s, items=b"[1]", body=b"{}"
    )


@pytest.fixture
def store() -> Iterator[ResponseStore]:
    kept = ResponseStore(max_responses=3, max_age_s=50)
    yield kept
    kept.close()


async def test_a_response_is_found_as_it_was_put_until_it_is_deleted(
    store: ResponseStore,
) -> None:
    await store.put(response("a"))
    assert await store.get("a", owner=b"", now_s=100) == response("a")
    assert await store.delete("a", owner=b"")
    assert not await store.delete("a", owner=b"")
    assert await store.get("a", owner=b"", now_s=100) is None


async def test_a_response_is_its_owners_alone(store: ResponseStore) -> None:
    await store.put(response("a", owner=b"ann"))
    assert await store.get("a", owner=b"bob", now_s=100) is None
    assert not await store.delete("a", owner=b"bob")
    assert await store.get("a", owner=b"ann", now_s=100) is not None


async def test_the_oldest_go_when_there_are_too_many(store: ResponseStore) -> None:
    for name in "abcd":
        await store.put(response(name))
    kept = [name for name in "abcd" if await store.get(name, owner=b"", now_s=100)]
    assert kept == ["b", "c", "d"]


async def test_the_oldest_go_when_they_are_too_large(tmp_path: Path) -> None:
    for path in (None, tmp_path / "r.db"):
        store = ResponseStore(path, max_bytes=1_000_000)
        for number in range(50):
            large = attrs.evolve(response(str(number)), items=b"x" * 200_000)
            await store.put(large)
        names = [str(number) for number in range(50)]
        kept = [n for n in names if await store.get(n, owner=b"", now_s=100)]
        store.close()
        assert kept == ["46", "47", "48", "49"]


async def test_one_that_is_too_large_alone_is_not_kept() -> None:
    store = ResponseStore(max_bytes=100_000)
    await store.put(attrs.evolve(response("a"), items=b"x" * 200_000))
    assert await store.get("a", owner=b"", now_s=100) is None
    await store.put(response("b"))
    assert await store.get("b", owner=b"", now_s=100) == response("b")
    store.close()


async def test_what_is_too_old_is_not_there(store: ResponseStore) -> None:
    await store.put(response("a"))
    assert await store.get("a", owner=b"", now_s=150) is not None
    assert await store.get("a", owner=b"", now_s=151) is None
    await store.put(response("b", created_s=151))
    assert await store.get("a", owner=b"", now_s=100) is None, "it was deleted"


async def test_a_file_outlives_its_store(tmp_path: Path) -> None:
    first = ResponseStore(tmp_path / "r.db")
    await first.put(response("a"))
    first.close()
    second = ResponseStore(tmp_path / "r.db")
    assert await second.get("a", owner=b"", now_s=100) == response("a")
    second.close()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    with pytest.raises(ConfigError) as caught:
        ResponseStore(folder / "r.db")
    assert str(caught.value) == (
        f"the response store {folder}/r.db has no folder; make it: mkdir -p {folder}"
    )


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(ConfigError, match=r"r\.db cannot be opened"):
        ResponseStore(path)


WRITER = """
import sys, trio
from atomr_infer.store.responses import ResponseStore, StoredResponse

async def main():
    store = ResponseStore(sys.argv[1])
    for number in range(10**9):
        await store.put(StoredResponse(
            id=f"r{number}", owner=b"", created_s=100, items=b"[1]", body=b"x" * 4096,
        ))
        print(number, flush=True)

trio.run(main)
"""


def test_what_was_confirmed_before_a_kill_is_there_after_it(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    command = [sys.executable, "-c", WRITER, str(path)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer,
        or_killed(writer),
    ):
        assert writer.stdout is not None
        while int(writer.stdout.readline()) < 20:
            pass
        os.kill(writer.pid, signal.SIGKILL)
        confirmed = [int(line) for line in writer.stdout if line.endswith("\n")]
    last = confirmed[-1] if confirmed else 20
    database = sqlite3.connect(path)
    rows = database.execute("SELECT id, length(body) FROM response ORDER BY number")
    found = rows.fetchall()
    database.close()
    assert len(found) >= last + 1
    assert found == [(f"r{number}", 4096) for number in range(len(found))]


async def test_names_are_their_owners_bounded_and_forgotten_with_age() -> None:
    store = ResponseStore(max_names=3, max_age_s=50)
    for number, name in enumerate("abcd"):
        await store.remember([name], owner=b"ann", now_s=100 + number)
    await store.remember(["d"], owner=b"ann", now_s=104)
    anns = await store.unknown("abcd", owner=b"ann", now_s=152)
    bobs = await store.unknown("d", owner=b"bob", now_s=110)
    later = await store.unknown("cd", owner=b"ann", now_s=153)
    store.close()
    assert (anns, bobs, later) == (frozenset("ab"), frozenset("d"), frozenset("c"))
