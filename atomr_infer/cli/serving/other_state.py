"""What a state folder holds that is not read: of one process, or of several workers.

A single process keeps its state in the folder itself, and each worker in a folder of
its own in it.  Who goes from the one to the other begins with no virtual keys and with
whole budgets, so he is told before somebody misses them.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from atomr_infer.cli.serving.seat import worker_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from atomr_infer.cli.plan import ServePlan

_KEYS_MARK = b"virtual keys"
_MAX_READ_BYTES = 64 * 1024 * 1024
_VALUES = ("values.sqlite", "values.sqlite-wal")


def other_state(plan: ServePlan, *, workers: int) -> Iterator[str]:
    """Yield what is not read, one sentence for each folder.

    Args:
        plan: what is served.
        workers: how many processes serve it.
    """
    node = plan.node
    if node.state_dir is None:
        return
    folder = Path(node.state_dir)
    theirs = range(1, workers + 1) if workers > 1 else ()
    own = {worker_name(node.own_name, number) for number in theirs}
    if workers > 1:
        yield from _told(folder, "a single process", "this one runs workers")
    why = f"this one runs {workers} of them" if workers > 1 else "this is one process"
    for other in _of_workers(folder, node.own_name):
        if other.name not in own:
            yield from _told(other, "a worker", why)


def _of_workers(folder: Path, name: str) -> Iterable[Path]:
    pattern = re.compile(rf"{re.escape(name)}-[0-9]+")
    try:
        found = [each for each in folder.iterdir() if pattern.fullmatch(each.name)]
    except OSError:
        return ()  # it is not there yet, or the node says what is wrong with it
    return sorted(each for each in found if each.is_dir())


def _told(folder: Path, whose: str, why: str) -> Iterator[str]:
    found = list(_held(folder))
    if found:
        yield (
            f"{folder} holds the {' and '.join(found)} of {whose}, and {why}: they are "
            "not read; serve as before to have them, or move the folder's files away"
        )


def _held(folder: Path) -> Iterator[str]:
    if any(_has_keys(folder / name) for name in _VALUES):
        yield "virtual keys"
    for file, table, what in (
        ("budgets.sqlite", "budget", "budgets"),
        ("usage.sqlite", "usage", "usage"),
    ):
        if _has_rows(folder / file, table):
            yield what


def _has_keys(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _KEYS_MARK in file.read(_MAX_READ_BYTES)
    except OSError:
        return False


def _has_rows(path: Path, table: str) -> bool:
    """Whether a database has something; one that cannot be read is taken to."""
    if not path.is_file():
        return False
    try:
        uri = f"{path.resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as database:
            row = database.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()
    except sqlite3.Error:
        return True
    return row is not None
