"""Several processes open one database in the same moment."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from atomr_infer.store.opening import open_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# No wait of SQLite's own: as where it does not wait whatever it was told.
STATEMENTS = ("PRAGMA busy_timeout = 0", "CREATE TABLE IF NOT EXISTS t (x)")


def locked(where: str) -> sqlite3.Connection:
    other = sqlite3.connect(where, check_same_thread=False, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    return other


def test_one_that_is_locked_for_a_moment_is_opened(tmp_path: Path) -> None:
    where = str(tmp_path / "a.sqlite")
    with closing(locked(where)) as other:
        release = threading.Timer(0.1, other.execute, ["COMMIT"])
        release.start()
        with closing(open_database(where, STATEMENTS)) as database:
            assert database.execute("SELECT count(*) FROM t").fetchone() == (0,)
        release.join()


def test_one_that_stays_locked_is_refused(tmp_path: Path) -> None:
    where = str(tmp_path / "a.sqlite")
    with (
        closing(locked(where)),
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        open_database(where, STATEMENTS)


def test_what_is_wrong_otherwise_is_told_at_once(tmp_path: Path) -> None:
    run = []

    class Statements(tuple[str, ...]):
        __slots__ = ()

        def __iter__(self) -> Iterator[str]:
            run.append(self)
            return super().__iter__()

    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        open_database(str(tmp_path / "a.sqlite"), Statements(["SELECT x FROM none"]))
    assert len(run) == 1
