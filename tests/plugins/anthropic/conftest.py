"""A runner on a fake upstream: over a real socket, or over memory streams."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing

from atomr_infer.model.batch import (
    ExecuteBatch,
    Message,
    RawChunk,
    Role,
    Sampling,
    TokenChunk,
)
from atomr_infer.model.deployment import Deployment, OptionValue, RetryPolicy, Timeouts
from atomr_infer.model.secret import Secret
from atomr_infer.remote.credentials.keys import fixed
from atomr_infer.testing.upstream import FakeUpstream, open_anthropic_upstream
from atomr_infer.testing.upstreams.anthropic import AnthropicDialect
from atomr_infer_anthropic.runner import AnthropicRunner, open_anthropic_runner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from atomr_infer.remote.http.origin import Origin
    from atomr_infer.testing.upstream_script import Behaviour

KEY = "sk-ant-test-0123456789"
MODEL = "claude-sonnet-4-5"

Open = Callable[..., AbstractAsyncContextManager["Pair"]]
MakeBatch = Callable[..., ExecuteBatch]


@attrs.frozen
class Pair:
    """A runner and the upstream that it talks to."""

    runner: AnthropicRunner
    upstream: FakeUpstream

    async def ask(self, **members: Any) -> list[TokenChunk | RawChunk]:
        """Run one generation to its end."""
        async with self.runner.execute(make_batch(**members)) as chunks:
            return [chunk async for chunk in chunks]


def make_batch(**members: Any) -> ExecuteBatch:
    plain = ExecuteBatch(
        request_id="r-1",
        model=MODEL,
        messages=(Message(Role.USER, "one two three"),),
        sampling=Sampling(max_tokens=100),
    )
    return attrs.evolve(plain, **members)


def deployment(
    endpoint: str,
    *,
    timeouts: Timeouts | None = None,
    idempotent: bool = True,
    **options: OptionValue,
) -> Deployment:
    return Deployment(
        name="up",
        runtime="anthropic",
        serves=(MODEL,),
        options={"endpoint": endpoint, **options},
        timeouts=timeouts or Timeouts(),
        retry=RetryPolicy(idempotent=idempotent),
    )


@asynccontextmanager
async def open_over_socket(
    *script: Behaviour, api_key: str | None = None, **options: Any
) -> AsyncIterator[Pair]:
    async with open_anthropic_upstream(script, api_key=api_key) as upstream:
        wanted = deployment(upstream.base_url, **options)
        async with open_anthropic_runner(wanted, fixed(Secret(KEY))) as runner:
            yield Pair(runner, upstream)


@asynccontextmanager
async def open_in_memory(
    script: Sequence[Behaviour], timeouts: Timeouts
) -> AsyncIterator[Pair]:
    """For virtual time: memory streams have no kernel that the clock ignores."""
    upstream = FakeUpstream(script, dialect=AnthropicDialect())
    async with trio.open_nursery() as nursery:

        async def connect(_: Origin) -> trio.abc.Stream:
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(upstream.serve_stream, theirs)
            return ours

        wanted = deployment("http://memory", timeouts=timeouts)
        async with open_anthropic_runner(
            wanted, fixed(Secret(KEY)), connect=connect
        ) as runner:
            yield Pair(runner, upstream)
        nursery.cancel_scope.cancel()


@pytest.fixture
def key() -> str:
    return KEY


@pytest.fixture
def batch() -> MakeBatch:
    return make_batch


@pytest.fixture
def over_socket() -> Open:
    return open_over_socket


@pytest.fixture
def in_memory() -> Open:
    return open_in_memory
