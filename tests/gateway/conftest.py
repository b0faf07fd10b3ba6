"""A cluster with a gateway on a loopback port, and clients to talk to it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs
import pytest

from atomr_infer.cluster import Cluster
from atomr_infer.gateway.gateway import Gateway
from atomr_infer.model.deployment import Deployment


@attrs.frozen
class Running:
    """A served cluster."""

    cluster: Cluster
    gateway: Gateway

    @property
    def url(self) -> str:
        return self.gateway.url

    @property
    def port(self) -> int:
        return int(self.gateway.url.rpartition(":")[2])


Serve = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def serve() -> Serve:
    @asynccontextmanager
    async def open_it(
        *deployments: Deployment, max_body_bytes: int = 1 << 20, **settings: Any
    ) -> AsyncIterator[Running]:
        async with Cluster.connect("inproc://test") as cluster:
            for deployment in deployments:
                await cluster.deploy(deployment)
            gateway = await cluster.serve(
                "127.0.0.1:0", max_body_bytes=max_body_bytes, **settings
            )
            yield Running(cluster, gateway)

    return open_it
