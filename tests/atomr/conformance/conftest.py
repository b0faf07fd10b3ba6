"""Each test of the suite under several schedules; servers of both kinds, both ways."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio._core._run as trio_run

from atomr.process import Node, PlainProcess, calls, kill, node
from tests.atomr.conformance.kit import KINDS, CleanNode, Kind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SEEDS = [
    *range(3),
    *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 12)),
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


@pytest.fixture(params=SEEDS)
def schedule(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the test under one of several task orders, each reproducible."""
    seed: int = request.param
    monkeypatch.setattr(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    monkeypatch.setattr(trio_run, "_r", random.Random(seed))
    return seed


@pytest.fixture(params=KINDS, ids=["lean", "task"])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Run the test with a server without a task, and with one."""
    chosen: Kind = request.param
    return chosen


@pytest.fixture(params=["inline", "mailbox"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test with calls served on the caller's stack, and without."""
    chosen: str = request.param
    if chosen == "mailbox":
        monkeypatch.setattr(calls, "INLINE_CALLS", 0)
        monkeypatch.setattr(node, "FAIRNESS_MESSAGES", 0)
    return chosen
