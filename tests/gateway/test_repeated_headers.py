"""A header that stands twice says both things, where it is a list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from atomr_infer.testing.upstream_script import Happy
from tests.gateway.dialects import ROUTES, provider
from tests.gateway.http1 import Client

if TYPE_CHECKING:
    from tests.gateway.conftest import Serve


async def test_each_of_several_beta_headers_reaches_the_provider(serve: Serve) -> None:
    asked = ROUTES["messages"].request(
        "anthropic-beta: a-1,b-1", "anthropic-beta: c-1", "x-other: 1", "x-other: 2"
    )
    async with (
        provider("anthropic", Happy()) as (upstream, deployment),
        serve(deployment) as running,
    ):
        client = Client(await trio.open_tcp_stream("127.0.0.1", running.port))
        await client.send(asked)
        assert (await client.answer()).status == 200
        await client.stream.aclose()
    assert upstream.requests[0].headers["anthropic-beta"] == "a-1,b-1,c-1"
