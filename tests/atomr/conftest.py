"""What the process tests share: a node that leaves nothing, seeded schedules."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

import pytest

from atomr.process import Node
from atomr.testing import open_test_node, seeded
from atomr.testing import settle as settle_all

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]


@asynccontextmanager
async def _clean_node() -> AsyncIterator[Node]:
    # These tests are about crashes: each says itself what it expects.
    async with open_test_node(allow_crashes=True) as test:
        yield test.node


@pytest.fixture
def clean_node() -> CleanNode:
    """Open a node; after the block nothing of it may be left."""
    return _clean_node


@pytest.fixture(params=range(8))
def schedule(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run the test under one of several task orders, each reproducible."""
    seed: int = request.param
    with seeded(seed):
        yield seed


@pytest.fixture
def settle() -> Callable[[], object]:
    """Wait until every task of the run is blocked."""
    return settle_all
