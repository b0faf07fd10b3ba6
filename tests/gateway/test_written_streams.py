"""What a stream looks like on the wire, in every dialect: the rules W1 to W10.

``docs/reference/protocol-rules.md`` says them.
"""

from __future__ import annotations

import json
import re
import socket
from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr_infer.model.deployment import Deployment
from atomr_infer.model.secret import Secret
from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstream import open_openai_upstream
from tests.gateway.dialects import ROUTES, Route
from tests.gateway.http import Answer, chat, events, parse, unchunk
from tests.gateway.http1 import Client

if TYPE_CHECKING:
    from tests.gateway.conftest import Running, Serve

EACH = pytest.mark.parametrize("name", ROUTES)

CLOSE = "connection: close"
NASTY = "one\n\ntwo: three\r\ndata: {}\u2028four\u2029five\x85six"

# A name, where the dialect has them, and one line of JSON behind one space.
FRAME = re.compile(rb'(?:event: ([a-z_.]+)\n)?data: ([\[{"][^\r\n]*)\n\n')


def mock(**options: Any) -> Deployment:
    return Deployment(name="m", runtime="mock", options=options)


async def streamed(running: Running, route: Route, *fields: str) -> Answer:
    stream = await trio.open_tcp_stream("127.0.0.1", running.port)
    async with stream:
        await stream.send_all(route.request(CLOSE, *fields, stream=True))
        return parse(b"".join([piece async for piece in stream]))


def frames(body: bytes) -> list[tuple[bytes, bytes]]:
    """The frames of a stream: nothing else stands in it."""
    found, at = [], 0
    while at < len(body):
        frame = FRAME.match(body, at)
        assert frame is not None, body[at : at + 80]
        found.append((frame[1] or b"", frame[2]))
        at = frame.end()
    return found


@EACH
async def test_w1_a_stream_has_the_headers_of_one_and_is_not_compressed(
    serve: Serve, name: str
) -> None:
    async with serve(mock()) as running:
        answer = await streamed(running, ROUTES[name], "accept-encoding: gzip, br")
    headers = answer.headers
    assert answer.status == 200
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    assert re.fullmatch(r"[0-9a-f]{24}", headers["x-request-id"])
    assert {"content-length", "content-encoding"} & set(headers) == set()


@EACH
async def test_w1_each_event_is_sent_when_it_is_made(serve: Serve, name: str) -> None:
    reads: list[bytes] = []
    async with serve(mock(delay_s=0.03)) as running:
        stream = await trio.open_tcp_stream("127.0.0.1", running.port)
        async with stream:
            await stream.send_all(ROUTES[name].request(CLOSE, stream=True))
            reads = [bytes(piece) async for piece in stream]
    # Each read is whole chunks, and no event waits for the one behind it.
    first = reads[0].partition(b"\r\n\r\n")[2]
    bodies = [unchunk(piece) for piece in (first, *reads[1:]) if piece]
    assert all(body.endswith(b"\n\n") for body in bodies if body)
    with_words = [b for b in bodies if re.search(rb"one|two|three", b)]
    assert len(with_words) >= 3


async def test_w1_the_kernel_holds_no_event_back(serve: Serve) -> None:
    async with serve(mock()) as running:
        stream = await trio.open_tcp_stream("127.0.0.1", running.port)
        async with stream:
            client = Client(stream)
            await client.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            await client.answer()
            [connection] = running.gateway._listener._open
            sock = connection._sock  # type: ignore[attr-defined] # ours, HTTP/1.1
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@EACH
async def test_w2_each_event_is_one_line_of_json_whatever_is_said(
    serve: Serve, name: str
) -> None:
    async with serve(mock(reply=NASTY)) as running:
        answer = await streamed(running, ROUTES[name])
    written = [data for _, data in frames(answer.body) if data != b"[DONE]"]
    assert [json.loads(data) for data in written]
    text = b"".join(written).decode()
    assert "\u2028" in text or "\\u2028" in text


@EACH
async def test_w4_frames_of_named_dialects_have_the_name_of_their_type(
    serve: Serve, name: str
) -> None:
    async with serve(mock()) as running:
        answer = await streamed(running, ROUTES[name])
    for event, data in frames(answer.body):
        named = name in {"messages", "responses"}
        assert event.decode() == (json.loads(data)["type"] if named else "")


LAST = {
    "chat": b"[DONE]",
    "completions": b"[DONE]",
    "responses": b"response.completed",
    "messages": b"message_stop",
    "generateContent": b"STOP",
}


@EACH
async def test_w5_a_stream_ends_as_its_dialect_ends_one(
    serve: Serve, name: str
) -> None:
    async with serve(mock()) as running:
        answer = await streamed(running, ROUTES[name])
    event, data = frames(answer.body)[-1]
    if name in {"chat", "completions"}:
        assert data == b"[DONE]"
    elif name == "generateContent":
        assert b"[DONE]" not in answer.body
        assert json.loads(data)["candidates"][0]["finishReason"] == "STOP"
    else:
        assert event == LAST[name]


@EACH
async def test_w6_a_stream_that_breaks_ends_with_an_error_and_no_end(
    serve: Serve, name: str
) -> None:
    async with serve(mock(fail_after=2)) as running:
        answer = await streamed(running, ROUTES[name])
    assert answer.status == 200
    event, data = frames(answer.body)[-1]
    last = json.loads(data)
    if name == "messages":
        assert (event, last["type"], set(last["error"]) >= {"type", "message"}) == (
            b"error",
            "error",
            True,
        )
    elif name == "responses":
        assert event == b"response.failed"
    elif name == "generateContent":
        assert set(last["error"]) >= {"code", "message", "status"}
    else:
        assert set(last["error"]) == {"message", "type", "param", "code"}
    ends = (b"[DONE]", b"message_stop", b"response.completed", b'"STOP"', b'"stop"')
    assert not any(end in answer.body for end in ends)


async def test_w7_the_first_chunk_has_the_role_and_all_have_one_id(
    serve: Serve,
) -> None:
    async with serve(mock()) as running:
        answer = await chat(running.port, stream=True)
    *chunks, done = events(answer)
    parsed = [json.loads(chunk) for chunk in chunks]
    assert done == "[DONE]"
    assert parsed[0]["choices"][0]["delta"]["role"] == "assistant"
    assert all("role" not in c["choices"][0]["delta"] for c in parsed[1:])
    same = {(c["id"], c["created"], c["model"], c["object"]) for c in parsed}
    request_id = answer.headers["x-request-id"]
    [(name, created, model, kind)] = same
    assert (name, model) == (f"chatcmpl-{request_id}", "m")
    assert kind == "chat.completion.chunk"
    assert created > 1_700_000_000


async def test_w8_usage_is_the_last_chunk_of_who_asked_and_nobody_elses(
    serve: Serve,
) -> None:
    async with serve(mock()) as running:
        asked = await chat(
            running.port, stream=True, stream_options={"include_usage": True}
        )
        unasked = await chat(running.port, stream=True)
    *chunks, last, done = events(asked)
    assert done == "[DONE]"
    assert [json.loads(chunk)["usage"] for chunk in chunks] == [None] * len(chunks)
    assert json.loads(last)["choices"] == []
    assert json.loads(last)["usage"]["total_tokens"] == 6
    *chunks, done = events(unasked)
    for chunk in chunks:
        assert "usage" not in json.loads(chunk)
        assert len(json.loads(chunk)["choices"]) == 1


async def test_w10_members_that_newer_sdks_know_are_passed_on(serve: Serve) -> None:
    def event(delta: str, finish: str) -> bytes:
        return (
            b'data: {"id":"c","object":"chat.completion.chunk","created":1,'
            b'"model":"gpt-test","service_tier":"priority","system_fingerprint":"fp",'
            b'"obfuscation":"x7","moderation":{"flagged":false},"choices":[{"index":0,'
            b'"delta":' + delta.encode() + b',"finish_reason":' + finish.encode()
        ) + b"}]}\n\n"

    body = event('{"role":"assistant","content":"hi"}', "null") + event("{}", '"stop"')
    raw = script.RawAnswer(
        content_type="text/event-stream", body=body + b"data: [DONE]\n\n"
    )
    async with open_openai_upstream([raw]) as upstream:
        deployment = Deployment(
            name="m",
            runtime="openai",
            credential=Secret("k"),
            options={"endpoint": upstream.base_url},
        )
        async with serve(deployment) as running:
            answer = await chat(running.port, stream=True)
    assert answer.body == body + b"data: [DONE]\n\n"


async def test_s10_a_stream_is_asked_for_uncompressed(serve: Serve) -> None:
    async with open_openai_upstream() as upstream:
        deployment = Deployment(
            name="m",
            runtime="openai",
            credential=Secret("k"),
            options={"endpoint": upstream.base_url},
        )
        async with serve(deployment) as running:
            route = ROUTES["chat"]
            await streamed(running, route, "accept-encoding: gzip")
        assert upstream.requests[0].headers["accept-encoding"] == "identity"
