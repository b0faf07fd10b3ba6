"""What holds for every test."""

from __future__ import annotations

import gc
import os
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import reports
from tests.at_length import times

_CHOSEN_BY = {"slow", "engine", "gpu"}
_LONG_FILES = ("test_wall.py", "test_real_limits.py")

# How long an example takes says how busy the machine is, and nothing of the code.
settings.register_profile(
    "busy",
    deadline=None,
    max_examples=times(60),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("busy")

# No test asks anything outside of this machine: the system's authorities, which each
# client of an SDK would read for a twentieth of a second, are looked for in a folder
# that has none.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)


def pytest_configure(config: pytest.Config) -> None:
    """Make what processes side by side tell each other short."""
    config.pluginmanager.register(reports)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files in which no test is chosen by its marks.

    To import all of them takes each process half a minute.  A test has its marks in
    its own file, or from the ``conftest.py`` beside it.
    """
    if collection_path.suffix != ".py":
        return None
    wanted, unwanted = marks_of(config.getoption("markexpr"))
    if any(has_throughout(collection_path, mark) for mark in unwanted):
        return True
    return None if all(has_mark(collection_path, mark) for mark in wanted) else True


def marks_of(expression: str) -> tuple[list[str], list[str]]:
    """Return the marks without which no test is chosen, and those with which none is.

    >>> marks_of("engine and slow and not gpu")
    (['engine', 'slow'], ['gpu'])
    >>> marks_of("slow or engine and gpu")
    ([], [])
    """
    if " or " in expression or "(" in expression:
        return [], []  # more than one way to be chosen
    terms = [tuple(term.split()) for term in expression.split(" and ")]
    wanted = [term[0] for term in terms if len(term) == 1]
    return wanted, [term[1] for term in terms if len(term) == 2 and term[0] == "not"]


@cache
def has_mark(path: Path, mark: str) -> bool:
    """Tell whether a file, or the ``conftest.py`` beside it, names a mark."""
    beside = path.with_name("conftest.py")
    places = [path, beside] if beside.exists() else [path]
    return any(f"mark.{mark}" in place.read_text() for place in places)


@cache
def has_throughout(path: Path, mark: str) -> bool:
    """Tell whether all tests of a file have a mark, in a line of its own."""
    lines = path.read_text().splitlines()
    return any(
        line.startswith("pytestmark =") and f"mark.{mark}" in line for line in lines
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a mark that a file has without naming it: its test would be left out.

    The longest files come first, or at the end all would wait for them.
    """
    items.sort(key=lambda item: item.path.name not in _LONG_FILES)
    for item in items:
        for mark in _CHOSEN_BY & {mark.name for mark in item.iter_markers()}:
            if not has_mark(item.path, mark):
                raise pytest.UsageError(f"{item.nodeid}: name its mark {mark!r} there")


def pytest_collection_finish() -> None:
    """Keep what pytest holds of thousands of tests out of each collection to come.

    Collections that are asked for cost a tenth with it.
    """
    gc.collect()
    gc.freeze()
