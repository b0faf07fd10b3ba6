"""A deployment asks its upstream over HTTP/2 where its options say so.

The upstream is a gateway of ours, which takes HTTP/2 without TLS from who knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from atomr import telemetry
from atomr_infer.cluster import Cluster
from atomr_infer.errors import ConfigError
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RUNTIMES = {
    "openai": "/v1",
    "litellm": "/v1",
    "anthropic": "",
    "gemini": "",
}


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Collect the protocols of connections that are opened to upstreams."""
    found: list[str] = []

    def note(_: Any, __: Any, metadata: Mapping[str, Any]) -> None:
        found.append(metadata["protocol"])

    telemetry.attach("test", ("atomr_infer", "connection", "open"), note)
    yield found
    telemetry.detach("test")


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("http2", "protocol"), [("off", "http/1.1"), ("prior-knowledge", "h2")]
)
async def test_the_option_says_which_http_is_spoken(
    runtime: str, http2: str, protocol: str, opened: list[str]
) -> None:
    async with Cluster.connect("inproc://h2") as cluster:
        await cluster.deploy(Deployment(name="far", runtime="mock"))
        gateway = await cluster.serve("127.0.0.1:0")
        options: dict[str, Any] = {
            "endpoint": gateway.url + RUNTIMES[runtime],
            "http2": http2,
        }
        near = Deployment(
            name="near",
            runtime=runtime,
            model="far",
            credential=Secret("any"),
            options=options,
        )
        await cluster.deploy(near)
        reply = await cluster.chat("near", "hello")
        await cluster.undeploy("near")
    assert reply.text == "hello"
    assert opened == [protocol]


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_another_way_is_refused_with_those_that_there_are(runtime: str) -> None:
    options: dict[str, Any] = {"endpoint": "http://127.0.0.1:1", "http2": "yes"}
    wanted = Deployment(
        name="m", runtime=runtime, credential=Secret("any"), options=options
    )
    async with Cluster.connect("inproc://h2") as cluster:
        with pytest.raises(ConfigError, match="off, alpn, prior-knowledge, not 'yes'"):
            await cluster.deploy(wanted)
