"""Budgets in a real file: what a kill leaves, and files that cannot be used."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from atomr.cluster import open_alone
from atomr.cluster.budgets import (
    BudgetService,
    BudgetTerms,
    DamagedBudgetError,
    Reservation,
    UnknownBudgetError,
)
from atomr.errors import StartError
from atomr.gossip.ledger.frames import Record, encode_record
from atomr.process import open_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[4]
TEAM = BudgetTerms(name="team", units=1_000_000)

PROGRAM = """\
import os, signal, sys
import trio
from tests.atomr.cluster.budgets.test_files import running

async def main():
    async with running(sys.argv[1]) as budgets:
        for _ in range(50):
            reserved = await budgets.reserve("team", 2_000, wait_s=5.0)
            budgets.settle(reserved, 2_000)
            print(2_000, flush=True)
        await budgets.reserve("team", 2_000, wait_s=5.0)
        os.kill(os.getpid(), signal.SIGKILL)

trio.run(main)
"""


@asynccontextmanager
async def running(path: Path | str | None) -> AsyncIterator[BudgetService]:
    budgets = BudgetService(voters=("a",), path=path)
    budgets.open(TEAM)
    async with open_node("a"), open_alone("a", [budgets]):
        yield budgets


def problem_of(error: StartError) -> str:
    """Return what was wrong in the first place."""
    reason: object = error
    while isinstance(reason, StartError):
        reason = reason.reason
    return str(reason)


async def test_what_was_spent_is_spent_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "budgets.sqlite"
    done = await trio.run_process(
        [sys.executable, "-c", PROGRAM, str(path)],
        cwd=ROOT,
        capture_stdout=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    spent = sum(map(int, done.stdout.split()))
    async with running(path) as budgets:
        left = budgets.state("team").remaining
        assert left <= TEAM.units - spent - 2_000  # it may have been charged, too
        assert left >= TEAM.units - spent - 2_000 - 10_000


async def test_a_planned_end_gives_back_what_nobody_holds(tmp_path: Path) -> None:
    path = tmp_path / "budgets.sqlite"
    async with running(path) as budgets:
        reserved = await budgets.reserve("team", 500, wait_s=5.0)
        assert isinstance(reserved, Reservation)
        budgets.settle(reserved, 300)
    async with running(path) as budgets:
        assert budgets.state("team").remaining == TEAM.units - 300


async def test_without_a_file_it_ends_with_the_program() -> None:
    async with running(None) as budgets:
        reserved = await budgets.reserve("team", 500, wait_s=5.0)
        assert isinstance(reserved, Reservation)
        budgets.settle(reserved, 300)
    async with running(None) as budgets:
        assert budgets.state("team").remaining == TEAM.units


async def test_two_processes_do_not_have_one_file(tmp_path: Path) -> None:
    path = tmp_path / "budgets.sqlite"
    async with running(path):
        with pytest.raises(StartError) as failed:
            async with running(path):
                raise AssertionError("it does not start")
        assert "another process has it open" in problem_of(failed.value)


async def test_a_damaged_file_is_no_new_one(tmp_path: Path) -> None:
    path = tmp_path / "budgets.sqlite"
    path.write_bytes(b"this is no database, and it is long enough" * 100)
    with pytest.raises(StartError) as failed:
        async with running(path):
            raise AssertionError("it does not start")
    assert "move it away" in problem_of(failed.value)
    assert path.read_bytes().startswith(b"this is no database")


ROWLESS = msgspec.msgpack.encode((encode_record(Record("a/x", (), {})), None, {}))


@pytest.mark.parametrize("kept", [b"\x93\xc4\x03abc\xc0\x80", b"?", ROWLESS])
async def test_a_damaged_record_is_no_new_one_and_others_go_on(
    tmp_path: Path, kept: bytes
) -> None:
    path = tmp_path / "budgets.sqlite"
    other = BudgetTerms(name="other", units=1_000)
    async with running(path) as budgets:
        budgets.open(other)
        for name in ("team", "other"):
            reserved = await budgets.reserve(name, 500, wait_s=5.0)
            assert isinstance(reserved, Reservation)
            budgets.settle(reserved, 500)
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE budget SET kept = ? WHERE name = 'team'", (kept,))
        database.commit()
    for _ in range(2):  # it is damaged still, after a life that left it alone
        async with running(path) as budgets:
            budgets.open(other)
            with pytest.raises(DamagedBudgetError, match="'team'"):
                budgets.open(TEAM)
            with pytest.raises(UnknownBudgetError):
                budgets.try_reserve("team", 1)
            assert budgets.state("other").remaining == 500


async def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "budgets.sqlite"
    async with running(path):
        pass
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE about SET value = 2 WHERE key = 'format'")
        database.commit()
    with pytest.raises(StartError) as failed:
        async with running(path):
            raise AssertionError("it does not start")
    assert "its format is 2, and ours 1" in problem_of(failed.value)


async def test_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(StartError) as failed:
        async with running(tmp_path / "missing" / "budgets.sqlite"):
            raise AssertionError("it does not start")
    assert "this user must be able to write it" in problem_of(failed.value)


async def test_nothing_is_left_open(tmp_path: Path) -> None:
    path = tmp_path / "budgets.sqlite"
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with running(path) as budgets:
        await budgets.reserve("team", 500, wait_s=5.0)
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert not any(str(path) in each for each in _open_files())


def _open_files() -> set[str]:
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile, as that of the folder
            found.add(os.readlink(f"/proc/self/fd/{fd}"))
    return found


def test_a_file_system_without_room_says_so(tmp_path: Path) -> None:
    """In a process of its own: a limit on files stays."""
    program = (
        "import resource, signal, sys, trio\n"
        "from atomr.cluster.budgets import LedgerStoreError\n"
        "from atomr.cluster.budgets.store import LedgerStore\n"
        "from pathlib import Path\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))\n"
        "try:\n"
        "    LedgerStore(Path(sys.argv[1]))\n"
        "except LedgerStoreError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "budgets.sqlite")],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "budgets' file" in done.stdout, done.stderr
    assert "make room" in done.stdout or "look for room" in done.stdout
