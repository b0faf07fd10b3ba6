"""A silent stream gets bytes that keep it open and that no client sees (W3)."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded

from atomr_infer.gateway.exchanges.silences import BUSY, LOOKS, Silences
from atomr_infer.model.deployment import Deployment, Serving, Timeouts
from atomr_infer.testing.upstream_script import (
    ErrorInStream,
    HangBeforeHeaders,
    HangMidStream,
    Happy,
    server_error,
)
from tests.gateway.dialects import ROUTES, Route, provider
from tests.gateway.http import chat_body, parse, unchunk, until
from tests.gateway.http1 import Client, post

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from tests.gateway.conftest import Running, Serve

SOON_S = 0.03

SEEN_AS = {
    "chat": b": keepalive\n\n",
    "completions": b": keepalive\n\n",
    "responses": b": keepalive\n\n",
    "messages": b'event: ping\ndata: {"type":"ping"}\n\n',
    "generateContent": b"\n",
}


class Answer:
    """A streamed answer that counts what it is told to send."""

    def __init__(self) -> None:
        self.quiet = 0
        self.kept_at: list[float] = []

    def keep_alive(self) -> None:
        self.kept_at.append(trio.current_time())


@asynccontextmanager
async def watched(keepalive_s: float) -> AsyncIterator[tuple[Silences, Answer]]:
    silences, answer = Silences(keepalive_s), Answer()
    silences.watched.add(answer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(silences.run)
        yield silences, answer
        nursery.cancel_scope.cancel()


async def test_a_silence_lasts_as_long_as_configured_and_not_longer(
    autojump_clock: MockClock,
) -> None:
    began_at = trio.current_time()
    async with watched(15) as (_, answer):
        await trio.sleep(46)
    assert [at - began_at for at in answer.kept_at] == pytest.approx([15, 30, 45])


async def test_a_piece_ends_a_silence(autojump_clock: MockClock) -> None:
    async with watched(15) as (_, answer):
        for _ in range(20):
            await trio.sleep(9)
            answer.quiet = 0
    assert answer.kept_at == []


async def test_a_piece_that_is_being_sent_is_no_silence(
    autojump_clock: MockClock,
) -> None:
    async with watched(15) as (_, answer):
        answer.quiet = BUSY
        await trio.sleep(100)
    assert answer.kept_at == []


async def test_nothing_is_looked_at_where_it_is_switched_off(
    autojump_clock: MockClock,
) -> None:
    async with watched(0) as (_, answer):
        await trio.sleep(1000)
    assert (answer.kept_at, answer.quiet) == ([], 0)


def events_in(body: bytes) -> list[bytes]:
    """What a client sees: comments, pings and blank lines are not there."""
    return [
        block
        for block in body.split(b"\n\n")
        if block.strip() and not block.startswith((b":", b"event: ping"))
    ]


@asynccontextmanager
async def asking(running: Running, request: bytes) -> AsyncIterator[Client]:
    """A client that has asked; it leaves behind the block."""
    async with await trio.open_tcp_stream("127.0.0.1", running.port) as stream:
        client = Client(stream)
        await client.send(request)
        yield client


async def whole_body(running: Running, request: bytes) -> bytes:
    """The body of the answer to a request that closes its connection."""
    async with asking(running, request) as client:
        return unchunk((await client.rest()).partition(b"\r\n\r\n")[2])


CLOSE = "connection: close"


KINDS = pytest.mark.parametrize(
    ("name", "over"),
    [
        (name, over)
        for name, route in ROUTES.items()
        for over in sorted({route.own, "openai"})
    ],
)


@KINDS
async def test_w3_a_silent_stream_gets_its_dialect_s_bytes_between_events(
    serve: Serve, name: str, over: str
) -> None:
    hangs = HangMidStream(after=2, answer=Happy(tokens=("Hello", " world", "!")))
    async with (
        provider(over, hangs) as (_, deployment),
        serve(deployment, keepalive_s=SOON_S) as running,
    ):
        kept = SEEN_AS[name]
        framed = b"%x\r\n%b\r\n" % (len(kept), kept)
        async with asking(running, ROUTES[name].request(stream=True)) as client:
            await client.read_until(b" world")
            before = await client.read_until(framed)
            assert before.removesuffix(framed).endswith(b"\n\n\r\n"), "a whole event"
            await client.read_until(framed)


@pytest.mark.parametrize("name", ROUTES)
async def test_what_comes_behind_a_silence_is_as_without_it(
    serve: Serve, name: str
) -> None:
    route = ROUTES[name]
    slow = Happy(tokens=("Hello", " world", "!"), delay_s=5 * SOON_S)
    bodies = []
    async with provider(route.own, otherwise=slow) as (_, deployment):
        for keepalive_s in (SOON_S, 0):
            async with serve(deployment, keepalive_s=keepalive_s) as running:
                asked = route.request(CLOSE, stream=True)
                bodies.append(await whole_body(running, asked))
    kept, plain = bodies
    assert SEEN_AS[name] in kept
    if name != "generateContent":
        assert SEEN_AS[name] not in plain
    assert len(kept) > len(plain)
    assert shapes(kept) == shapes(plain)


def shapes(body: bytes) -> list[tuple[str, ...]]:
    """Each event's members; ids and times differ from answer to answer."""
    found = []
    for event in events_in(body):
        data = event.strip().split(b"data: ", 1)[1]
        found.append(("[DONE]",) if data == b"[DONE]" else tuple(json.loads(data)))
    return found


async def test_by_itself_nothing_is_sent_before_the_first_chunk(serve: Serve) -> None:
    late = Happy(tokens=("Hello",), delay_s=5 * SOON_S)
    async with (
        provider("openai", late) as (_, deployment),
        serve(deployment, keepalive_s=SOON_S) as running,
    ):
        route = ROUTES["messages"]
        body = await whole_body(running, route.request(CLOSE, stream=True))
    assert body.startswith(b"event: message_start\n")


async def test_nothing_is_sent_behind_the_end(serve: Serve) -> None:
    async with (
        provider("openai") as (_, deployment),
        serve(deployment, keepalive_s=SOON_S) as running,
        asking(running, ROUTES["chat"].request(stream=True)) as client,
    ):
        await client.answer()
        with trio.move_on_after(4 * SOON_S):
            pytest.fail(f"got {await client.stream.receive_some()!r}")


async def test_an_error_behind_a_silence_is_the_last_event(serve: Serve) -> None:
    answer = Happy(tokens=("Hello", " world"))
    async with (
        provider("openai", ErrorInStream(after=1, answer=answer)) as (_, deployment),
        serve(deployment, keepalive_s=SOON_S) as running,
    ):
        body = await whole_body(running, ROUTES["chat"].request(CLOSE, stream=True))
    assert "error" in json.loads(events_in(body)[-1].removeprefix(b"data: "))
    assert body.endswith(b"}\n\n")


async def test_a_gemini_array_stays_an_array(serve: Serve) -> None:
    slow = Happy(tokens=("Hello", " world", "!"), delay_s=5 * SOON_S)
    contents = [{"role": "user", "parts": [{"text": "hi"}]}]
    route = Route("/v1beta/models/m:streamGenerateContent", {"contents": contents})
    async with (
        provider("openai", slow) as (_, deployment),
        serve(deployment, keepalive_s=SOON_S) as running,
    ):
        body = await whole_body(running, route.request(CLOSE))
    assert b"\n\n" in body, "it was silent"
    items: list[dict[str, Any]] = json.loads(body)
    assert len(items) >= 3


async def test_a_client_that_reads_nothing_gets_nothing_more(serve: Serve) -> None:
    flood = Deployment(
        name="m",
        runtime="mock",
        options={"reply": "w" * 20_000, "tokens": 1000},
    )
    async with serve(flood, keepalive_s=0.003) as running:
        asked = post("/v1/chat/completions", chat_body(stream=True), CLOSE)
        async with asking(running, asked) as client:
            await trio.sleep(0.2)
            body = unchunk((await client.rest()).partition(b"\r\n\r\n")[2])
    assert b"keepalive" not in body
    assert body.endswith(b"data: [DONE]\n\n")


async def test_a_silent_stream_over_http2_is_kept_open_too(serve: Serve) -> None:
    hangs = HangMidStream(after=2, answer=Happy(tokens=("Hello", " world", "!")))
    connection = H2Connection(H2Configuration())
    connection.initiate_connection()
    fields = {":method": "POST", ":path": "/v1/chat/completions"}
    fields |= {":scheme": "http", ":authority": "x"}
    connection.send_headers(1, list(fields.items()))
    connection.send_data(1, chat_body(stream=True), end_stream=True)
    body = b""
    async with (
        provider("openai", hangs) as (_, deployment),
        serve(deployment, keepalive_s=SOON_S) as running,
        asking(running, connection.data_to_send()) as client,
    ):
        with trio.fail_after(10):
            while body.count(b"\n\n: keepalive\n\n") < 1:
                data = await client.stream.receive_some()
                for event in connection.receive_data(data):
                    body += event.data if isinstance(event, DataReceived) else b""
    assert b" world" in body


# --- before the first chunk, for those who ask for it -----------------------------

EARLY = "x-atomr-early-stream: true"


@pytest.mark.parametrize("name", ROUTES)
async def test_who_asks_for_it_hears_of_its_stream_before_the_first_chunk(
    serve: Serve, name: str
) -> None:
    route = ROUTES[name]
    late = Happy(tokens=("Hello", " world"), delay_s=5 * SOON_S)
    bodies = []
    async with provider(route.own, otherwise=late) as (_, deployment):
        for early in (EARLY, "x-atomr-early-stream: no"):
            async with serve(deployment, keepalive_s=SOON_S) as running:
                asked = route.request(CLOSE, early, stream=True)
                bodies.append(await whole_body(running, asked))
    kept, plain = bodies
    assert kept.startswith(SEEN_AS[name])
    assert not plain.startswith(SEEN_AS[name])
    assert shapes(kept) == shapes(plain)


@pytest.mark.parametrize("name", ROUTES)
async def test_a_late_error_is_an_event_of_an_early_stream(
    serve: Serve, name: str, mock_clock: MockClock
) -> None:
    mock_clock.rate = 1
    route = ROUTES[name]
    slow = Timeouts(first_token_s=6 * SOON_S)
    async with (
        provider(route.own, HangBeforeHeaders(), timeouts=slow) as (up, deployment),
        serve(deployment, keepalive_s=SOON_S) as running,
    ):
        mock_clock.rate = 0  # from here on time passes by our leave
        asked = route.request(CLOSE, EARLY, stream=True)
        async with asking(running, asked) as client:
            await up.wait_for_requests(1)
            for _ in range(2 * LOOKS):
                await trio.testing.wait_all_tasks_blocked()
                mock_clock.jump(SOON_S / LOOKS)
            begun = await client.read_until(SEEN_AS[name])
            mock_clock.jump(6 * SOON_S)
            answer = parse(begun + await client.rest())
        mock_clock.rate = 1
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert len(answer.headers["x-request-id"]) == 24
    assert "x-atomr-loading" not in answer.headers  # a provider loads nothing
    assert answer.body.startswith(SEEN_AS[name])
    # The Responses API begins a response before it fails it.
    *_, event = events_in(answer.body)
    told = json.loads(event.strip().split(b"data: ", 1)[1])
    error = told["response"]["error"] if name == "responses" else told["error"]
    # Two bounds of this length end it, the leg's and the connection's.
    assert f"{6 * SOON_S:g} s" in error["message"]


async def test_a_quick_error_keeps_its_status_in_an_early_stream(serve: Serve) -> None:
    async with (
        provider("openai", server_error(500)) as (_, deployment),
        serve(deployment, keepalive_s=15) as running,
    ):
        asked = ROUTES["chat"].request(CLOSE, EARLY, stream=True)
        async with asking(running, asked) as client:
            answer = parse(await client.rest())
    assert answer.status == 502


@pytest.mark.parametrize("name", ["chat", "generateContent"])
async def test_who_waits_for_an_engine_hears_what_it_does(
    name: str, serve: Serve
) -> None:
    rests = Deployment(
        name="m",
        runtime="mock",
        options={"load_s": 0.3},
        serving=Serving(idle_stop_s=0.1),
    )
    async with serve(rests, keepalive_s=SOON_S) as running:
        phases = running.cluster.readiness
        await until(lambda: phases().phases["m"] == "asleep")
        asked = ROUTES[name].request(CLOSE, EARLY, stream=True)
        async with asking(running, asked) as client:
            answer = parse(await client.rest())
    told = "m is waking: reading the script"
    assert answer.headers["x-atomr-loading"] == told
    # A blank line, which Gemini's dialect has for silences, has no place for words.
    comment = f": x-atomr-loading: {told}\n\n: keepalive\n\n"
    assert answer.body.startswith(comment.encode()) == (name == "chat")
    assert (b"x-atomr-loading" in answer.body) == (name == "chat")


async def test_who_leaves_an_early_stream_ends_its_request(serve: Serve) -> None:
    async with (
        provider("openai", HangBeforeHeaders()) as (upstream, deployment),
        serve(deployment, keepalive_s=SOON_S) as running,
    ):
        asked = ROUTES["chat"].request(EARLY, stream=True)
        async with asking(running, asked) as client:
            await client.read_until(b"keepalive")
        with trio.fail_after(10):
            await upstream.requests[0].client_left.wait()


async def test_an_early_stream_over_http2(serve: Serve) -> None:
    late = Happy(tokens=("Hello", " world"), delay_s=4 * SOON_S)
    connection = H2Connection(H2Configuration())
    connection.initiate_connection()
    fields = {":method": "POST", ":path": "/v1/chat/completions"}
    fields |= {":scheme": "http", ":authority": "x", "x-atomr-early-stream": "true"}
    connection.send_headers(1, list(fields.items()))
    connection.send_data(1, chat_body(stream=True), end_stream=True)
    body, ended = b"", False
    async with (
        provider("openai", late) as (_, deployment),
        serve(deployment, keepalive_s=SOON_S) as running,
        asking(running, connection.data_to_send()) as client,
    ):
        with trio.fail_after(10):
            while not ended:
                data = await client.stream.receive_some()
                for event in connection.receive_data(data):
                    body += event.data if isinstance(event, DataReceived) else b""
                    ended = ended or isinstance(event, StreamEnded)
    assert body.startswith(b": keepalive\n\n")
    assert body.endswith(b"data: [DONE]\n\n")
