"""Fixtures and a marker for pytest, on top of pytest-trio.

Enabled in the ``conftest.py`` at the top::

    pytest_plugins = ["atomr.testing.pytest_plugin"]

=======================  ====================================================
``node``                 a :class:`~atomr.testing.TestNode` around the test
``probe``                a :class:`~atomr.testing.Probe` on that node
``virtual_clock``        time stands still unless the test moves it
``schedule``             the seed of the order of tasks; one test per seed
``@pytest.mark.seeds``   how many seeds, or which: ``seeds(50)``, ``seeds(3, 17)``
``--seeds N``            at least so many seeds for each such test
=======================  ====================================================

pytest-trio's own ``autojump_clock`` is the other way to have virtual time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from trio.testing import MockClock

from atomr.testing.nodes import TestNode, open_test_node
from atomr.testing.probe import Probe
from atomr.testing.schedules import seeded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

DEFAULT_SEEDS: Final = 8


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--seeds``."""
    parser.addoption(
        "--seeds",
        type=int,
        default=0,
        help="run each test that has seeds under at least so many",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "seeds(n, *more): run the test under n orders of tasks,"
        " or under the seeds listed",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test of each seed."""
    marker = metafunc.definition.get_closest_marker("seeds")
    if marker is not None or "schedule" in metafunc.fixturenames:
        least = metafunc.config.getoption("--seeds", default=0)
        numbers = list(range(max(DEFAULT_SEEDS, least)))
        if marker is not None:
            numbers = _seeds(least, *marker.args, **marker.kwargs)
        ids = [f"seed={number}" for number in numbers]
        metafunc.parametrize("seeded_order", numbers, indirect=True, ids=ids)


def _seeds(least: int, n: int = DEFAULT_SEEDS, *more: int) -> list[int]:
    if more:
        return [n, *more]
    if n < 1:
        raise ValueError(f"seeds({n}): expected at least 1, or nothing is run")
    return list(range(max(n, least)))


# For all, so that a marker is enough; it does nothing for a test without a seed.
@pytest.fixture(autouse=True)
def seeded_order(request: pytest.FixtureRequest) -> Iterator[int | None]:
    """Run the test under the order of its seed, if it has one."""
    seed: int | None = getattr(request, "param", None)
    if seed is None:
        yield None
    else:
        with seeded(seed):
            yield seed


@pytest.fixture
def schedule(seeded_order: int) -> int:
    """Return the seed of the order of tasks that the test runs under."""
    return seeded_order


@pytest.fixture
def virtual_clock() -> MockClock:
    """Let time stand still; move it with ``advance``."""
    return MockClock()


@pytest.fixture
async def node() -> AsyncIterator[TestNode]:
    """Open a node around the test; after it nothing of the node may be left."""
    async with open_test_node() as opened:
        yield opened


@pytest.fixture
async def probe(node: TestNode) -> Probe:
    """Put a probe on the test's node."""
    return Probe()
