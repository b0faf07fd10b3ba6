"""Nodes whose processes can talk to each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

import attrs
import pytest

from atomr.cluster.remote import Messages, RemoteProcesses
from tests.atomr.cluster.loopback import LoopbackNode, open_mesh
from tests.atomr.cluster.remote.servers import MESSAGES
from tests.atomr.http2.conftest import Authority


@attrs.frozen
class Nodes:
    """Nodes by name, with what each knows of the others' processes."""

    by_name: dict[str, LoopbackNode]
    remotes: dict[str, RemoteProcesses]

    def __getitem__(self, name: str) -> LoopbackNode:
        return self.by_name[name]


OpenNodes: TypeAlias = Callable[..., AbstractAsyncContextManager[Nodes]]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def open_nodes(authority: Authority) -> OpenNodes:
    """Open nodes that are linked with each other."""

    @asynccontextmanager
    async def opened(
        *names: str, messages: dict[str, Messages] | None = None
    ) -> AsyncIterator[Nodes]:
        known = messages or {}
        remotes = {n: RemoteProcesses(known.get(n, MESSAGES)) for n in names}
        async with open_mesh(authority, names, lambda name: [remotes[name]]) as nodes:
            yield Nodes(nodes, remotes)

    return opened
