"""The gateway's Gemini routes, byte for byte, before each kind of upstream."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from atomr_infer.cluster import Cluster
from atomr_infer.model.deployment import Deployment, RetryPolicy, Timeouts
from atomr_infer.model.secret import Secret
from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstream import (
    FakeUpstream,
    open_gemini_upstream,
    open_openai_upstream,
)
from tests.at_once import at_once, no_time
from tests.gateway.http import Answer, head, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from atomr_infer.testing.upstream_script import Behaviour

BODY = msgspec.json.encode({"contents": [{"parts": [{"text": "one two three"}]}]})
STREAM = "/v1beta/models/m:streamGenerateContent"
EVENTS = f"{STREAM}?alt=sse"

Serve = Callable[..., Any]

RUNTIMES = pytest.mark.parametrize("runtime", ["gemini", "openai"])


@pytest.fixture
def serve() -> Serve:
    """Open a gateway before an upstream; give its port and the upstream."""

    @asynccontextmanager
    async def open_chain(
        runtime: str, *behaviours: Behaviour
    ) -> AsyncIterator[tuple[int, FakeUpstream]]:
        opening = open_gemini_upstream if runtime == "gemini" else open_openai_upstream
        async with (
            opening(behaviours) as upstream,
            Cluster.connect("inproc://gemini-gateway") as cluster,
        ):
            await cluster.deploy(
                Deployment(
                    name="up",
                    runtime=runtime,
                    model="gemini-2.5-flash",
                    serves=("m",),
                    credential=Secret("AIza-0123456789"),
                    options={"endpoint": upstream.base_url},
                    retry=RetryPolicy(max_attempts=1),
                    timeouts=Timeouts(idle_s=30.0),
                )
            )
            gateway = await cluster.serve("127.0.0.1:0")
            yield int(gateway.url.rpartition(":")[2]), upstream

    return open_chain


def _objects(answer: Answer) -> list[Any]:
    """Return the objects of a stream of events, its framing checked."""
    *frames, rest = answer.body.split(b"\n\n")
    assert rest == b""
    return [msgspec.json.decode(frame.removeprefix(b"data: ")) for frame in frames]


def _text(objects: list[Any]) -> str:
    return "".join(
        part.get("text", "")
        for each in objects
        for candidate in each.get("candidates", ())
        for part in candidate["content"]["parts"]
    )


@RUNTIMES
async def test_w1_w5_stream_is_events_that_end_with_the_body(
    serve: Serve, runtime: str
) -> None:
    async with serve(runtime) as (port, _):
        answer = await request(port, "POST", EVENTS, BODY)
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-accel-buffering"] == "no"
        objects = _objects(answer)
        assert _text(objects) == "Hello from the fake upstream."
        assert objects[-1]["candidates"][0]["finishReason"] == "STOP"
        assert objects[-1]["usageMetadata"]["totalTokenCount"] == 9
        assert b"[DONE]" not in answer.body


@RUNTIMES
async def test_s9_stream_without_alt_sse_is_a_json_array(
    serve: Serve, runtime: str
) -> None:
    async with serve(runtime, script.Happy(), script.CutMidStream()) as (port, _):
        answer = await request(port, "POST", STREAM, BODY)
        assert answer.headers["content-type"] == "application/json; charset=UTF-8"
        assert _text(answer.json) == "Hello from the fake upstream."
        broken = (await request(port, "POST", STREAM, BODY)).json
        assert _text(broken) == "Hello from"
        assert broken[-1]["error"]["status"] == "INTERNAL"


@RUNTIMES
async def test_w6_broken_stream_ends_with_an_error_and_no_finish(
    serve: Serve, runtime: str
) -> None:
    for behaviour in (script.CutMidStream(after=1), script.ErrorInStream(after=1)):
        async with serve(runtime, behaviour) as (port, _):
            answer = await request(port, "POST", EVENTS, BODY)
            *said, last = _objects(answer)
            assert _text(said) == "Hello"
            assert list(last) == ["error"]
            assert (last["error"]["code"], last["error"]["status"]) == (502, "INTERNAL")
            assert b"finishReason" not in answer.body


@RUNTIMES
async def test_section_8_rate_limit_is_told_with_its_wait(
    serve: Serve, runtime: str
) -> None:
    async with serve(runtime, script.rate_limited("37")) as (port, _):
        answer = await request(port, "POST", EVENTS, BODY)
        assert answer.status == 429
        assert answer.headers["retry-after"] == "37"
        assert answer.json["error"]["status"] == "RESOURCE_EXHAUSTED"
        delays = [
            detail.get("retryDelay")
            for detail in answer.json["error"]["details"]
            if detail["@type"].endswith("RetryInfo")
        ]
        assert delays == ["37s"]


@pytest.mark.parametrize(
    ("method", "path", "status", "word"),
    [
        ("POST", "/v1beta/models/nope:generateContent", 404, "NOT_FOUND"),
        ("GET", "/v1beta/models/m:generateContent", 405, "UNIMPLEMENTED"),
        ("POST", "/v1beta/nothing", 404, "NOT_FOUND"),
    ],
)
async def test_section_7_what_is_not_served_is_told_in_its_dialect(
    serve: Serve, method: str, path: str, status: int, word: str
) -> None:
    async with serve("gemini") as (port, _):
        answer = await request(port, method, path, BODY)
        assert answer.status == status
        assert answer.json["error"]["code"] == status
        assert answer.json["error"]["status"] == word


@RUNTIMES
@pytest.mark.parametrize("path", [EVENTS, STREAM, "/v1beta/models/m:generateContent"])
async def test_upstream_is_left_with_the_client(
    serve: Serve, runtime: str, path: str, mock_clock: MockClock
) -> None:
    mock_clock.rate = 1.0
    async with serve(runtime, script.HangMidStream()) as (port, upstream):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(head("POST", path, len(BODY)) + BODY)
        await upstream.wait_for_requests(1)
        if path != "/v1beta/models/m:generateContent":
            await stream.receive_some()
        with no_time(mock_clock):
            await trio.aclose_forcefully(stream)
            await at_once(upstream.requests[0].client_left.is_set, mock_clock)
