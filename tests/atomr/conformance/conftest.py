"""Each test of the suite under several schedules; servers of each kind, both ways."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from atomr.process import Node, PlainProcess, calls, kill, node
from atomr.testing import seeded
from tests.at_length import times
from tests.atomr.conformance.kit import KINDS, CleanNode, Kind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SEEDS = [
    *range(3),
    *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 3 + times(4))),
]


@pytest.fixture
def clean_node(clean_node: CleanNode) -> CleanNode:
    """Open a node; after the block nothing of it may be left."""

    # Who traps exits and goes on receiving would be waited for.
    @asynccontextmanager
    async def without_collectors() -> AsyncIterator[Node]:
        async with clean_node() as node:
            yield node
            for process in tuple(node.processes.values()):
                if process.trapping and isinstance(process.behaviour, PlainProcess):
                    kill(process.pid)

    return without_collectors


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave most orders of dormant servers to the long run."""
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            params = item.callspec.params
            kind = params.get("kind", params.get("machine"))
            if kind == "dormant" and params.get("schedule", 0):
                item.add_marker(pytest.mark.slow)


@pytest.fixture(params=SEEDS)
def schedule(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run the test under one of several task orders, each reproducible."""
    seed: int = request.param
    with seeded(seed):
        yield seed


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Run the test with a server without a task, with one, and with one put away."""
    return KINDS[request.param]


@pytest.fixture(params=["inline", "mailbox"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test with calls served on the caller's stack, and without."""
    chosen: str = request.param
    if chosen == "mailbox":
        monkeypatch.setattr(calls, "INLINE_CALLS", 0)
        monkeypatch.setattr(node, "FAIRNESS_MESSAGES", 0)
    return chosen
