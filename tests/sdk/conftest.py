"""A gateway, and a client of each shape in front of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest

from atomr_infer.cluster import Cluster
from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.model.secret import Secret
from atomr_infer.serving.replicas.replica import ReplicaState
from atomr_infer.testing.upstream import FakeUpstream, open_openai_upstream
from tests.sdk.clients import AsyncioClient, Client, SyncClient, TrioClient

if TYPE_CHECKING:
    from atomr_infer.testing.upstream_script import Behaviour

UPSTREAM_KEY = "sk-upstream-9876543210"

# The SDK leaves its own generators to the garbage collector; trio says so.
SDK_GENERATORS = "ignore:Async generator '(openai|httpx2|httpcore2):ResourceWarning"

_QUICK = RetryPolicy(max_attempts=2, backoff_s=0.001)


@attrs.frozen
class Served:
    """A gateway in this process, one deployment, and the client under test.

    Attributes:
        url: what a client is given as its base URL.
        client: of the shape that the test runs with.
        replica: the deployment's one replica, live.
    """

    url: str
    client: Client
    replica: ReplicaState


@attrs.frozen
class Chain(Served):
    """A gateway whose deployment is the openai runtime on a fake upstream."""

    upstream: FakeUpstream


ServeMock = Callable[..., AbstractAsyncContextManager[Served]]
ServeUpstream = Callable[..., AbstractAsyncContextManager[Chain]]


@pytest.fixture(params=[SyncClient, AsyncioClient, TrioClient])
def shape(request: pytest.FixtureRequest) -> Callable[[str], Client]:
    make: Callable[[str], Client] = request.param
    return make


@asynccontextmanager
async def _open(deployment: Deployment) -> AsyncIterator[tuple[str, ReplicaState]]:
    async with Cluster.connect("inproc://sdk") as cluster:
        await cluster.deploy(deployment)
        gateway = await cluster.serve("127.0.0.1:0")
        (replica,) = await cluster.replicas(deployment.name)
        yield f"{gateway.url}/v1", replica


@pytest.fixture
def serve_mock(shape: Callable[[str], Client]) -> ServeMock:
    """Serve the mock runtime under the name m; keywords are its options."""

    @asynccontextmanager
    async def open_it(
        retry: RetryPolicy = _QUICK,
        serves: tuple[str, ...] = ("m",),
        **options: str | float,
    ) -> AsyncIterator[Served]:
        deployment = Deployment(
            name="m", runtime="mock", serves=serves, options=options, retry=retry
        )
        async with _open(deployment) as (url, replica):
            yield Served(url, shape(url), replica)

    return open_it


@pytest.fixture
def serve_upstream(shape: Callable[[str], Client]) -> ServeUpstream:
    """Serve a fake upstream under the name m; its script are the arguments."""

    @asynccontextmanager
    async def open_it(
        *script: Behaviour,
        otherwise: Behaviour | None = None,
        retry: RetryPolicy = _QUICK,
    ) -> AsyncIterator[Chain]:
        async with open_openai_upstream(
            script, otherwise=otherwise, api_key=UPSTREAM_KEY
        ) as upstream:
            deployment = Deployment(
                name="m",
                runtime="openai",
                credential=Secret(UPSTREAM_KEY),
                options={"endpoint": upstream.base_url},
                retry=retry,
            )
            async with _open(deployment) as (url, replica):
                yield Chain(url, shape(url), replica, upstream)

    return open_it
