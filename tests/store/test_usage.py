"""The usage ledger's file."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from atomr_infer.store.trouble import StoreError
from atomr_infer.store.usage import UsageRow, UsageStore, UsageSum

ROOT = Path(__file__).parents[2]


def row(at_s: int = 1_000, **more: object) -> UsageRow:
    given: dict[str, object] = {
        "key": None,
        "team": None,
        "deployment": "d",
        "model": "m",
        "input_tokens": 10,
        "output_tokens": 5,
        "microusd": 7,
        **more,
    }
    return UsageRow(at_s, **given)  # type: ignore[arg-type]


def test_sums_are_by_name_and_the_dearest_comes_first() -> None:
    with closing(UsageStore()) as store:
        store.add([row(team="a"), row(team="b", microusd=9), row(), row(team="a")])
        assert store.sums("team", 0) == [
            UsageSum("a", 2, 20, 10, 14, 0),
            UsageSum("b", 1, 10, 5, 9, 0),
            UsageSum("", 1, 10, 5, 7, 0),
        ]


def test_requests_that_cost_less_than_a_microdollar_are_summed_exactly() -> None:
    third = row(microusd=0, picousd=333_333)
    with closing(UsageStore()) as store:
        store.add([third] * 4)
        [total] = store.sums("deployment", 0)
    assert total == UsageSum("d", 4, 40, 20, 1, 0, picousd=333_332)
    assert f"{total.plus(total).usd:f}" == "0.000002666664"


def test_a_file_of_the_version_that_rounded_up_is_read_and_written(
    tmp_path: Path,
) -> None:
    path = tmp_path / "usage.sqlite"
    with closing(sqlite3.connect(path)) as old:
        old.execute(
            "CREATE TABLE usage (number INTEGER PRIMARY KEY AUTOINCREMENT,"
            " at_s INTEGER NOT NULL, key TEXT, team TEXT, deployment TEXT NOT NULL,"
            " model TEXT NOT NULL, input_tokens INTEGER NOT NULL,"
            " output_tokens INTEGER NOT NULL, microusd INTEGER) STRICT"
        )
        old.execute("INSERT INTO usage VALUES (1, 1000, NULL, NULL, 'd', 'm', 1, 1, 7)")
        old.commit()
    for _ in range(2):
        with closing(UsageStore(path)) as store:
            store.add([row(microusd=0, picousd=250_000)])
    with closing(UsageStore(path)) as store:
        assert store.sums("deployment", 0) == [
            UsageSum("d", 3, 21, 11, 7, 0, picousd=500_000)
        ]


def test_what_has_no_known_cost_is_counted_apart() -> None:
    with closing(UsageStore()) as store:
        store.add([row(), row(microusd=None)])
        assert store.sums("deployment", 0) == [UsageSum("d", 2, 20, 10, 7, 1)]


def test_only_what_came_since_is_summed() -> None:
    with closing(UsageStore()) as store:
        store.add([row(1_000), row(2_000)])
        assert store.sums("model", 2_000) == [UsageSum("m", 1, 10, 5, 7, 0)]


def test_what_is_too_old_or_too_much_goes() -> None:
    with closing(UsageStore(max_age_s=100, max_rows=3)) as store:
        store.add([row(1_000), row(1_500)])
        assert store.sums("model", 0)[0].requests == 1
        store.add([row(1_500)] * 5)
        assert store.sums("model", 0)[0].requests == 3


def test_what_was_written_is_there_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "usage.sqlite"
    program = (
        "import os, signal, sys\n"
        "from tests.store.test_usage import row\n"
        "from atomr_infer.store.usage import UsageStore\n"
        "from pathlib import Path\n"
        "store = UsageStore(Path(sys.argv[1]))\n"
        "store.add([row(), row()])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], cwd=ROOT, check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    with closing(UsageStore(path)) as store:
        assert store.sums("deployment", 0)[0].requests == 2


def test_a_file_of_something_else_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "usage.sqlite"
    path.write_bytes(b"this is no database, and it is long enough" * 100)
    with pytest.raises(StoreError, match="move it away"):
        UsageStore(path)
    other = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(other)) as database:
        database.execute("CREATE TABLE usage (what TEXT)")
        database.commit()
    with pytest.raises(StoreError, match="cannot be opened"):
        UsageStore(other)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_says_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="this user must be able to write"):
        UsageStore(tmp_path / "usage.sqlite")
