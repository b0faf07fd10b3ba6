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
    Role,
    TokenChunk,
)
from atomr_infer.model.deployment import Deployment, RetryPolicy, Timeouts
from atomr_infer.model.secret import Secret
from atomr_infer.remote.credentials.keys import fixed
from atomr_infer.testing.upstream import FakeUpstream, open_openai_upstream
from atomr_infer_openai.runner import OpenAIRunner, open_openai_runner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from atomr_infer.remote.http.origin import Origin
    from atomr_infer.testing.upstream_script import Behaviour

KEY = "sk-test-0123456789"

Open = Callable[..., AbstractAsyncContextManager["Pair"]]
MakeBatch = Callable[..., ExecuteBatch]


@attrs.frozen
class Pair:
    """A runner and the upstream that it talks to."""

    runner: OpenAIRunner
    upstream: FakeUpstream

    async def ask(self, **members: Any) -> list[TokenChunk]:
        """Run one generation to its end."""
        async with self.runner.execute(make_batch(**members)) as chunks:
            return [c async for c in chunks if isinstance(c, TokenChunk)]


def make_batch(**members: Any) -> ExecuteBatch:
    plain = ExecuteBatch(
        request_id="r-1",
        model="gpt-test",
        messages=(Message(Role.USER, "one two three"),),
    )
    return attrs.evolve(plain, **members)


def deployment(
    base_url: str, *, timeouts: Timeouts | None = None, idempotent: bool = True
) -> Deployment:
    return Deployment(
        name="up",
        runtime="openai",
        options={"endpoint": base_url},
        timeouts=timeouts or Timeouts(),
        retry=RetryPolicy(idempotent=idempotent),
    )


@asynccontextmanager
async def open_over_socket(
    *script: Behaviour, api_key: str | None = None, idempotent: bool = True
) -> AsyncIterator[Pair]:
    async with open_openai_upstream(script, api_key=api_key) as upstream:
        wanted = deployment(upstream.base_url, idempotent=idempotent)
        async with open_openai_runner(wanted, fixed(Secret(KEY))) as runner:
            yield Pair(runner, upstream)


@asynccontextmanager
async def open_in_memory(
    script: Sequence[Behaviour], timeouts: Timeouts
) -> AsyncIterator[Pair]:
    """For virtual time: memory streams have no kernel that the clock ignores."""
    upstream = FakeUpstream(script)
    async with trio.open_nursery() as nursery:

        async def connect(_: Origin) -> trio.abc.Stream:
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(upstream.serve_stream, theirs)
            return ours

        wanted = deployment("http://memory/v1", timeouts=timeouts)
        async with open_openai_runner(
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
