"""HTTP/2 against a scripted peer on real sockets, and what it does wrong."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import h2.config
import h2.connection
import h2.events
import pytest
import trio
import trio.testing
from h2.errors import ErrorCodes
from h2.settings import SettingCodes, Settings

from atomr_infer.errors import (
    OverloadedError,
    StreamCutError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
)
from atomr_infer.remote.http.client import HttpClient
from atomr_infer.remote.http.dialing.tls import verifying_context
from atomr_infer.remote.http.http2.protocol import WINDOW_BYTES
from atomr_infer.remote.http.idle import IdleLimits
from atomr_infer.remote.http.phases import HttpTimeouts
from tests.at_once import at_once, stand_still

if TYPE_CHECKING:
    import ssl

    from trio.testing import MockClock

E = TypeVar("E", bound=h2.events.Event)

BIG = bytes(range(256)) * 4000


class Peer2:
    """The peer's side of one connection; keeps what it was told."""

    def __init__(self, stream: trio.abc.Stream, number: int) -> None:
        self.stream = stream
        self.number = number
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        self.events: list[h2.events.Event] = []
        self.at_eof_at = math.inf

    async def begin(self, settings: dict[SettingCodes, int] | None = None) -> None:
        self.h2.local_settings = Settings(client=False, initial_values=settings or {})
        self.h2.initiate_connection()
        await self.flush()

    async def flush(self, extra: bytes = b"") -> None:
        await self.stream.send_all(self.h2.data_to_send() + extra)

    async def next(self, kind: type[E]) -> E:
        """Read on to the next event of a kind; what comes before it is kept."""
        while True:
            for position, event in enumerate(self.events):
                if isinstance(event, kind):
                    del self.events[position]
                    return event
            data = bytes(await self.stream.receive_some(65536))
            if not data:
                self.at_eof_at = trio.current_time()
                raise EOFError
            self.events += self.h2.receive_data(data)
            await self.flush()

    async def request(self) -> int:
        """Read a request to its end; return its stream."""
        ended = await self.next(h2.events.StreamEnded)
        assert ended.stream_id is not None
        return ended.stream_id

    async def head(self, stream_id: int, *, ends: bool = False) -> None:
        self.h2.send_headers(
            stream_id, [(":status", "200"), ("x", "y")], end_stream=ends
        )
        await self.flush()

    async def body(self, stream_id: int, data: bytes, *, ends: bool = True) -> None:
        self.h2.send_data(stream_id, data, end_stream=ends)
        await self.flush()

    async def answer(self, stream_id: int, data: bytes = b"ok") -> None:
        await self.head(stream_id)
        await self.body(stream_id, data)

    async def read_to_the_end(self) -> None:
        with pytest.raises(EOFError):
            await self.next(h2.events.PushedStreamReceived)


Script = Callable[[Peer2], Awaitable[None]]


@pytest.fixture
def open_peer2(open_peer: Any) -> Any:
    def open_(*scripts: Script, tls: ssl.SSLContext | None = None) -> Any:
        peers: list[Peer2] = []

        async def serve(stream: trio.abc.Stream) -> None:
            if tls is not None:
                stream = trio.SSLStream(
                    stream, tls, server_side=True, https_compatible=True
                )
            peer = Peer2(stream, len(peers))
            peers.append(peer)
            try:
                await scripts[min(peer.number, len(scripts) - 1)](peer)
            except (EOFError, trio.BrokenResourceError):
                peer.at_eof_at = trio.current_time()

        return open_peer(serve)

    return open_


def _client(base_url: str, **options: Any) -> HttpClient:
    return HttpClient(base_url, http2="prior-knowledge", **options)


async def _get(client: HttpClient, **options: Any) -> bytes:
    async with client.request("POST", "/x", **options) as answer:
        assert (answer.status, answer.headers["x"]) == (200, "y")
        return await answer.read()


async def _answers(peer: Peer2) -> None:
    await peer.begin()
    while True:
        await peer.answer(await peer.request())


async def test_request_and_answer_are_whole(open_peer2: Any) -> None:
    seen: list[Any] = []

    async def script(peer: Peer2) -> None:
        await peer.begin()
        received = await peer.next(h2.events.RequestReceived)
        data = await peer.next(h2.events.DataReceived)
        seen.append((received.headers, data.data))
        stream_id = await peer.request()
        await peer.answer(stream_id, b"hello")
        await peer.read_to_the_end()

    async with open_peer2(script) as peer:
        headers = [("Authorization", "Bearer k"), ("connection", "x")]
        async with (
            _client(peer.base_url + "/v1", headers=headers) as client,
            client.request("POST", "/x?y=1", headers=[("A", "b")], body=b"{}") as got,
        ):
            assert (got.status, got.headers) == (200, {"x": "y"})
            assert [await got.receive(), await got.receive()] == [b"hello", None]
    authority = peer.base_url.removeprefix("http://")
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", authority),
        (":path", "/v1/x?y=1"),
        ("authorization", "Bearer k"),
        ("a", "b"),
        ("content-length", "2"),
    ]
    assert seen == [(fields, b"{}")]


async def test_requests_at_once_share_one_connection(open_peer2: Any) -> None:
    got: list[bytes] = []

    async def script(peer: Peer2) -> None:
        await peer.begin()
        ids = [await peer.request() for _ in range(20)]
        for stream_id in reversed(ids):
            await peer.answer(stream_id, b"%d" % stream_id)
        await peer.read_to_the_end()

    async def ask(client: HttpClient) -> None:
        got.append(await _get(client, body=b"{}"))

    async with open_peer2(script) as peer, _client(peer.base_url) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask, client)
        assert sorted(map(int, got)) == list(range(1, 41, 2))
        assert (peer.connections, client.active) == (1, 0)
        assert repr(client).endswith(
            "0 active, 0 idle, 1 of 1024 connections (1 shared), 0 waiting>"
        )


async def test_peers_limit_of_streams_is_kept_on_a_second_connection(
    open_peer2: Any,
) -> None:
    most: dict[int, int] = {}

    async def script(peer: Peer2) -> None:
        await peer.begin({SettingCodes.MAX_CONCURRENT_STREAMS: 2})
        while True:
            await peer.next(h2.events.RequestReceived)
            most[peer.number] = max(
                most.get(peer.number, 0), peer.h2.open_inbound_streams
            )
            await trio.testing.wait_all_tasks_blocked(0.001)
            await peer.answer(await peer.request())

    async with (
        open_peer2(script) as peer,
        _client(peer.base_url, max_connections=2) as client,
    ):
        await _get(client)
        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(_get, client)
        assert client.active == 0
        assert peer.connections == 2
    assert all(count <= 2 for count in most.values())


async def test_request_beyond_all_streams_waits_no_longer_than_the_connect_limit(
    open_peer2: Any,
) -> None:
    async def script(peer: Peer2) -> None:
        await peer.begin({SettingCodes.MAX_CONCURRENT_STREAMS: 1})
        await peer.answer(await peer.request())
        await peer.read_to_the_end()

    async with (
        open_peer2(script) as peer,
        _client(
            peer.base_url, max_connections=1, timeouts=HttpTimeouts(connect_s=0.1)
        ) as client,
    ):
        await _get(client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_get, client)
            await trio.testing.wait_all_tasks_blocked(0.01)
            with pytest.raises(OverloadedError) as caught:
                await _get(client)
            nursery.cancel_scope.cancel()
        assert caught.value.code == "pool_timeout"
        assert client.active == 0


async def test_big_body_goes_through_the_peers_windows(open_peer2: Any) -> None:
    got: list[bytes] = []
    body_sent = BIG[:70_000]

    async def script(peer: Peer2) -> None:
        smaller: dict[SettingCodes | int, int] = {SettingCodes.INITIAL_WINDOW_SIZE: 999}
        await peer.begin()
        peer.h2.update_settings(smaller)
        await peer.flush()
        body = b""
        while len(body) < len(body_sent):
            data = await peer.next(h2.events.DataReceived)
            body += data.data or b""
            peer.h2.acknowledge_received_data(
                data.flow_controlled_length or 0, data.stream_id or 0
            )
            await peer.flush()
        got.append(body)
        await peer.answer(await peer.request())
        await peer.read_to_the_end()

    async with open_peer2(script) as peer, _client(peer.base_url) as client:
        assert await _get(client, body=body_sent) == b"ok"
    assert got == [body_sent]


async def test_big_body_is_sent_on_while_the_window_is_wide(open_peer2: Any) -> None:
    async def script(peer: Peer2) -> None:
        await peer.begin()
        wide: dict[SettingCodes | int, int] = {
            SettingCodes.INITIAL_WINDOW_SIZE: 2**24,
        }
        peer.h2.update_settings(wide)
        peer.h2.increment_flow_control_window(2**24)
        await peer.answer(await peer.request())
        await peer.answer(await peer.request(), b"second")
        await peer.answer(await peer.request(), b"third")
        await peer.read_to_the_end()

    got: list[bytes] = []

    async def ask(client: HttpClient) -> None:
        got.append(await _get(client, body=BIG))

    async with open_peer2(script) as peer, _client(peer.base_url) as client:
        assert await _get(client) == b"ok"
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, client)
                nursery.start_soon(ask, client)
    assert sorted(got) == [b"second", b"third"]


async def test_slow_reader_stops_its_upstream_and_no_other_stream(
    open_peer2: Any,
) -> None:
    sent: list[int] = []

    async def script(peer: Peer2) -> None:
        await peer.begin()
        slow = await peer.request()
        await peer.head(slow)
        while (window := peer.h2.local_flow_control_window(slow)) > 0:
            await peer.body(slow, bytes(min(window, 16384)), ends=False)
            sent.append(min(window, 16384))
        await peer.answer(await peer.request())
        while peer.h2.local_flow_control_window(slow) == 0:
            await peer.next(h2.events.WindowUpdated)
        await peer.body(slow, b"end")
        await peer.read_to_the_end()

    async with open_peer2(script) as peer, _client(peer.base_url) as client:
        async with client.request("POST", "/x") as slow:
            first = await slow.receive()
            assert await _get(client) == b"ok"
            assert sum(sent) == WINDOW_BYTES
            rest = await slow.read()
        assert len((first or b"") + rest) == WINDOW_BYTES + 3
        assert peer.connections == 1


async def test_going_away_peer_finishes_what_it_takes_and_the_rest_goes_elsewhere(
    open_peer2: Any,
) -> None:
    got: list[bytes] = []

    async def first(peer: Peer2) -> None:
        await peer.begin()
        one, two = await peer.request(), await peer.request()
        assert (one, two) == (1, 3)
        await peer.head(one)
        goaway = bytes.fromhex("00000c0700000000000000000100000000") + b"late"
        # In pieces, so that nobody takes it for whole too early.
        await peer.flush(goaway[:5])
        await trio.testing.wait_all_tasks_blocked(0.01)
        await peer.flush(goaway[5:])
        await trio.testing.wait_all_tasks_blocked(0.01)
        await peer.body(one, b"first")
        await peer.read_to_the_end()

    async def second(peer: Peer2) -> None:
        await peer.begin()
        await peer.answer(await peer.request(), b"second")
        await peer.answer(await peer.request(), b"third")
        await peer.read_to_the_end()

    async def ask(client: HttpClient) -> None:
        got.append(await _get(client, replay=False))

    async with open_peer2(first, second) as peer, _client(peer.base_url) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(ask, client)
        assert sorted(got) == [b"first", b"second"]
        assert await _get(client) == b"third"
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert peer.connections == 2
        assert "1 of 1024 connections" in repr(client)


async def test_peer_that_goes_away_and_closes_cuts_only_what_it_had_taken(
    open_peer2: Any,
) -> None:
    async def first(peer: Peer2) -> None:
        await peer.begin()
        await peer.answer(await peer.request())
        await peer.request()
        peer.h2.close_connection(last_stream_id=3)
        await peer.flush()

    async with open_peer2(first, _answers) as peer, _client(peer.base_url) as client:
        await _get(client)
        with pytest.raises(StreamCutError) as caught:
            await _get(client, replay=False)
        assert caught.value.code == "no_response"
        assert await _get(client) == b"ok"


async def test_refused_stream_is_asked_again_on_another_connection(
    open_peer2: Any,
) -> None:
    async def refuses(peer: Peer2) -> None:
        await peer.begin()
        while True:
            stream_id = await peer.request()
            peer.h2.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
            await peer.flush()

    async with open_peer2(refuses, _answers) as peer, _client(peer.base_url) as client:
        assert await _get(client, replay=False) == b"ok"
        assert peer.connections == 2
    async with open_peer2(refuses) as peer, _client(peer.base_url) as client:
        with pytest.raises(OverloadedError) as caught:
            await _get(client)
        assert (caught.value.code, peer.connections) == ("refused_stream", 2)
        assert client.active == 0


async def test_kept_connection_that_dies_without_an_answer_is_replaced(
    open_peer2: Any,
) -> None:
    async def dies(peer: Peer2) -> None:
        await peer.begin()
        await peer.answer(await peer.request())
        await peer.request()

    async with open_peer2(dies, _answers) as peer, _client(peer.base_url) as client:
        assert [await _get(client), await _get(client)] == [b"ok", b"ok"]
        assert peer.connections == 2
    async with open_peer2(dies, _answers) as peer, _client(peer.base_url) as client:
        await _get(client)
        with pytest.raises(StreamCutError) as caught:
            await _get(client, replay=False)
        assert caught.value.code == "no_response"


async def test_death_of_the_connection_cuts_all_its_streams(open_peer2: Any) -> None:
    async def script(peer: Peer2) -> None:
        await peer.begin()
        for _ in range(3):
            stream_id = await peer.request()
            await peer.head(stream_id)
            await peer.body(stream_id, b"half", ends=False)

    got: list[Any] = []

    async def ask(client: HttpClient) -> None:
        async with client.request("POST", "/x") as answer:
            got.append(await answer.receive())
            for _ in range(2):
                with pytest.raises(StreamCutError, match="broke off its answer"):
                    await answer.receive()
            got.append("cut")

    async with open_peer2(script) as peer, _client(peer.base_url) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask, client)
        assert sorted(got, key=str) == [b"half"] * 3 + ["cut"] * 3
        assert repr(client).endswith(
            "0 active, 0 idle, 0 of 1024 connections, 0 waiting>"
        )


@pytest.mark.parametrize("inside", [False, True])
async def test_stream_that_the_peer_resets_is_cut_alone(
    open_peer2: Any, inside: bool
) -> None:
    async def script(peer: Peer2) -> None:
        await peer.begin()
        stream_id = await peer.request()
        if inside:
            await peer.head(stream_id)
        peer.h2.reset_stream(stream_id, ErrorCodes.INTERNAL_ERROR)
        await peer.flush()
        await peer.answer(await peer.request())
        await peer.read_to_the_end()

    async with open_peer2(script) as peer, _client(peer.base_url) as client:
        with pytest.raises(StreamCutError, match="INTERNAL_ERROR") as caught:
            await _get(client)
        assert caught.value.code == (None if inside else "no_response")
        assert await _get(client) == b"ok"
        assert peer.connections == 1


async def test_early_answer_ends_the_sending_and_is_not_lost(open_peer2: Any) -> None:
    resets: list[Any] = []

    async def script(peer: Peer2) -> None:
        await peer.begin()
        received = await peer.next(h2.events.RequestReceived)
        await peer.answer(received.stream_id or 0, b"too large")
        resets.append((await peer.next(h2.events.StreamReset)).error_code)
        await peer.answer(await peer.request())
        await peer.read_to_the_end()

    async with open_peer2(script) as peer, _client(peer.base_url) as client:
        assert await _get(client, body=BIG) == b"too large"
        assert await _get(client) == b"ok"
        assert peer.connections == 1
    assert resets == [ErrorCodes.CANCEL]


async def test_ping_is_answered_while_nobody_waits(open_peer2: Any) -> None:
    async def script(peer: Peer2) -> None:
        await peer.begin()
        await peer.answer(await peer.request())
        peer.h2.ping(b"12345678")
        await peer.flush()
        answered.append((await peer.next(h2.events.PingAckReceived)).ping_data)
        pinged.set()
        await peer.read_to_the_end()

    answered: list[Any] = []
    pinged = trio.Event()
    async with open_peer2(script) as peer, _client(peer.base_url) as client:
        await _get(client)
        with trio.fail_after(5):
            await pinged.wait()
    assert answered == [b"12345678"]


def _frame(kind: int, payload: bytes, stream_id: int = 0, flags: int = 0) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags])
    return head + stream_id.to_bytes(4, "big") + payload


BAD = [
    pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 3, id="HTTP/1.1"),
    pytest.param(_frame(6, b"12345678") * 3000, id="pings"),
    pytest.param(_frame(4, b"") * 3000, id="settings"),
    pytest.param(_frame(0, b"", stream_id=1) * 3000, id="empty data"),
    pytest.param(_frame(9, b"", stream_id=1), id="continuation of nothing"),
    pytest.param(_frame(5, bytes(4), stream_id=1, flags=4), id="push"),
    pytest.param(_frame(8, bytes(4)), id="window of zero"),
    pytest.param(_frame(0, bytes(20_000), stream_id=1), id="frame too long"),
    pytest.param(_frame(7, b"abc"), id="short goaway"),
    pytest.param(_frame(7, bytes(17_000)), id="long goaway"),
    pytest.param(_frame(1, b"\xff\xff\xff", stream_id=1, flags=4), id="bad hpack"),
    pytest.param(
        b"".join(
            _frame(1 if number == 0 else 9, b"\x40\x01a\x7f" + b"x" * 127, stream_id=1)
            for number in range(2000)
        ),
        id="endless headers",
    ),
    pytest.param(_frame(1, b"\x88", stream_id=2, flags=5), id="stream of its own"),
]


@pytest.mark.parametrize("data", BAD)
async def test_peer_that_violates_the_protocol_is_told_and_left(
    open_peer2: Any, data: bytes
) -> None:
    async def script(peer: Peer2) -> None:
        await peer.begin()
        await peer.request()
        await peer.flush(data)
        await peer.read_to_the_end()

    async with open_peer2(script) as peer, _client(peer.base_url) as client:
        with trio.fail_after(5), pytest.raises(UpstreamProtocolError) as caught:
            await _get(client)
        assert type(caught.value) is UpstreamProtocolError
        assert f"{peer.base_url} does not speak HTTP/2: " in caught.value.message
        assert repr(client).endswith(
            "0 active, 0 idle, 0 of 1024 connections, 0 waiting>"
        )


@pytest.mark.parametrize("status", ["20", "abc", "999", ""])
async def test_status_that_is_none_breaks_its_stream_alone(
    open_peer2: Any, status: str
) -> None:
    async def script(peer: Peer2) -> None:
        await peer.begin()
        stream_id = await peer.request()
        peer.h2.send_headers(stream_id, [(":status", status)])
        await peer.flush()
        assert (await peer.next(h2.events.StreamReset)).stream_id == stream_id
        await peer.answer(await peer.request())
        await peer.read_to_the_end()

    async with open_peer2(script) as peer, _client(peer.base_url) as client:
        with pytest.raises(UpstreamProtocolError):
            await _get(client)
        assert await _get(client) == b"ok"


async def test_limit_of_the_peer_that_shrinks_is_kept(open_peer2: Any) -> None:
    async def first(peer: Peer2) -> None:
        await peer.begin()
        stream_id = await peer.request()
        fewer: dict[SettingCodes | int, int] = {SettingCodes.MAX_CONCURRENT_STREAMS: 1}
        peer.h2.update_settings(fewer)
        await peer.head(stream_id)
        await peer.next(h2.events.SettingsAcknowledged)
        shrunk.set()
        await peer.read_to_the_end()

    shrunk = trio.Event()
    async with open_peer2(first, _answers) as peer, _client(peer.base_url) as client:
        async with client.request("POST", "/x"):
            await shrunk.wait()
            assert await _get(client) == b"ok"
        assert peer.connections == 2


async def test_silence_on_a_stream_is_a_timeout_and_a_dead_connection_is_left(
    open_peer2: Any,
) -> None:
    async def silent(peer: Peer2) -> None:
        await peer.begin()
        await peer.read_to_the_end()

    limits = HttpTimeouts(head_s=0.05)
    async with (
        open_peer2(silent, _answers) as peer,
        _client(peer.base_url, timeouts=limits) as client,
    ):
        with pytest.raises(UpstreamTimeoutError) as caught:
            await _get(client)
        assert caught.value.code == "head_timeout"
        await trio.testing.wait_all_tasks_blocked(0.01)
        with pytest.raises(UpstreamTimeoutError):
            await _get(client)
        assert await _get(client, timeouts=HttpTimeouts()) == b"ok"


async def test_connection_without_streams_is_closed_when_it_is_old(
    open_peer2: Any,
) -> None:
    async with (
        open_peer2(_answers) as peer,
        _client(peer.base_url, idle=IdleLimits(max_age_s=0.05)) as client,
    ):
        await _get(client)
        assert "1 of 1024" in repr(client)
        await trio.sleep(0.1)
        assert "0 of 1024" in repr(client)
        await _get(client)
        assert peer.connections == 2


PHASES = ["write", "head", "body", "inside the body"]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("tls", [False, True])
async def test_cancelled_stream_is_reset_at_once_and_the_connection_goes_on(
    open_peer2: Any, certificates: Any, mock_clock: MockClock, phase: str, tls: bool
) -> None:
    mock_clock.rate = 1.0
    reached, was_reset = trio.Event(), trio.Event()

    async def script(peer: Peer2) -> None:
        await peer.begin()
        received = await peer.next(h2.events.RequestReceived)
        stream_id = received.stream_id or 0
        if phase in ("body", "inside the body"):
            await peer.head(stream_id)
        if phase == "inside the body":
            await peer.body(stream_id, b"half", ends=False)
        if phase != "write":
            await peer.request()
        reached.set()
        reset = await peer.next(h2.events.StreamReset)
        was_reset.set()
        assert (reset.stream_id, reset.error_code) == (stream_id, ErrorCodes.CANCEL)
        await peer.answer(await peer.request())
        await peer.read_to_the_end()

    theirs = certificates.server("good") if tls else None
    ours = verifying_context(ca_file=certificates.authority)
    async with open_peer2(script, tls=theirs) as peer:
        url = peer.base_url.replace("http:", "https:") if tls else peer.base_url
        async with _client(url, ssl_context=ours) as client:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_read, client, BIG if phase == "write" else b"")
                await reached.wait()
                await trio.testing.wait_all_tasks_blocked(0.01)
                stand_still(mock_clock)
                nursery.cancel_scope.cancel()
            assert client.active == 0
            await at_once(was_reset.is_set, mock_clock)
            mock_clock.rate = 1.0
            assert await _get(client) == b"ok"
        assert peer.connections == 1


async def _read(client: HttpClient, body: bytes) -> None:
    async with client.request("POST", "/x", body=body) as answer:
        await answer.read()


async def test_client_that_ends_tells_its_peer(open_peer2: Any) -> None:
    ended: list[h2.events.Event] = []
    done = trio.Event()

    async def script(peer: Peer2) -> None:
        await peer.begin()
        await peer.answer(await peer.request())
        ended.append(await peer.next(h2.events.ConnectionTerminated))
        await peer.read_to_the_end()
        done.set()

    async with open_peer2(script) as peer:
        async with _client(peer.base_url) as client:
            await _get(client)
        with trio.fail_after(5):
            await done.wait()
    assert len(ended) == 1


async def test_secret_header_is_in_no_text(
    open_peer2: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    headers = [("authorization", "Bearer sk-hidden"), ("x-api-key", "sk-hidden")]
    async with (
        open_peer2(_answers) as peer,
        _client(peer.base_url, headers=headers) as client,
    ):
        assert await _get(client, headers=[("x-goog-api-key", "sk-hidden")]) == b"ok"
        assert "sk-hidden" not in repr(client)
    assert "sk-hidden" not in caplog.text


def test_unknown_way_to_choose_http2_is_refused() -> None:
    with pytest.raises(ValueError, match="always"):
        HttpClient("http://h", http2="always")
