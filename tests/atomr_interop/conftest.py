"""What the interop tests share: a node that leaves neither tasks nor threads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

import pytest
import trio

from atomr.interop import abandoned_threads
from atomr.process import Node, open_node
from atomr.testing import seeded

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]


@asynccontextmanager
async def _clean_node() -> AsyncIterator[Node]:
    tasks_before = trio.lowlevel.current_statistics().tasks_living
    async with open_node("test") as node:
        yield node
    assert node.processes == {}
    assert node.names == {}
    assert node.timers.size == 0
    assert trio.lowlevel.current_statistics().tasks_living == tasks_before
    assert abandoned_threads() == ()


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
