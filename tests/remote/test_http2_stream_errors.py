"""A mistake on one stream of HTTP/2 ends that stream, and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events
import pytest
import trio
from h2.errors import ErrorCodes

from atomr_infer.errors import UpstreamProtocolError
from atomr_infer.remote.http.client import HttpClient
from atomr_infer.remote.http.http2.frames import Http2Error
from atomr_infer.remote.http.http2.protocol import WINDOW_BYTES, Http2Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

OK = b"\x88"
"""``:status: 200``, as HPACK's table has it."""

FIELDS = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":authority", b"h"),
    (b":path", b"/"),
]


def _frame(kind: int, payload: bytes, flags: int = 0, stream_id: int = 1) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags])
    return head + stream_id.to_bytes(4, "big") + payload


def _head(*fields: tuple[bytes, bytes], start: bytes = OK, ends: bool = False) -> bytes:
    """A HEADERS frame whose fields are literals, in no table."""
    block = start + b"".join(
        b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value
        for name, value in fields
    )
    return _frame(1, block, flags=5 if ends else 4)


def _data(data: bytes, *, ends: bool = False) -> bytes:
    return _frame(0, data, flags=int(ends))


MALFORMED = [
    pytest.param(_head((b"Upper", b"case")), id="name in upper case"),
    pytest.param(_head((b"connection", b"close")), id="field of HTTP/1.1"),
    pytest.param(_head((b"a", b"b\r\nc: d")), id="line end in a value"),
    pytest.param(_head((b"x", b"y"), start=b""), id="no status"),
    pytest.param(_head((b":path", b"/")), id="pseudo-header of a request"),
    pytest.param(_head((b"content-length", b"many")), id="length that is none"),
    pytest.param(
        _head((b"content-length", b"1"), (b"content-length", b"2")), id="two lengths"
    ),
    pytest.param(
        _head((b"content-length", b"2")) + _data(b"four"), id="longer than it said"
    ),
    pytest.param(
        _head((b"content-length", b"9")) + _data(b"four", ends=True),
        id="shorter than it said",
    ),
    pytest.param(_head() + _head((b"late", b"1")), id="trailers that do not end it"),
    pytest.param(_data(b"four"), id="data before the head"),
    pytest.param(_head((b":status", b"103"), start=b"", ends=True), id="1xx that ends"),
    pytest.param(
        _head() + _head((b":status", b"103"), start=b""), id="1xx behind the head"
    ),
]


async def _get(client: HttpClient) -> bytes:
    async with client.request("POST", "/x") as answer:
        return await answer.read()


class _RawPeer:
    """The peer's side: h2 reads, and what is written is ours."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False)
        )
        self.resets: list[tuple[int, int]] = []
        self.asked: list[int] = []

    async def read_until(self, done: Callable[[], bool]) -> None:
        while not done():
            data = await self.stream.receive_some(65536)
            if not data:
                raise EOFError
            for event in self.h2.receive_data(bytes(data)):
                if isinstance(event, h2.events.StreamReset):
                    self.resets.append((event.stream_id, int(event.error_code)))
                if isinstance(event, h2.events.StreamEnded):
                    self.asked.append(event.stream_id)

    async def write(self, data: bytes) -> None:
        await self.stream.send_all(self.h2.data_to_send() + data)


def _serves(
    bad: bytes, peers: list[_RawPeer], *, begin: bytes = b""
) -> Callable[[trio.abc.Stream], Awaitable[None]]:
    """Answer the first stream with ``bad``, and the second well when it is reset."""

    async def serve(stream: trio.abc.Stream) -> None:
        peer = _RawPeer(stream)
        peers.append(peer)
        peer.h2.initiate_connection()
        await peer.write(b"")
        try:
            await peer.read_until(lambda: len(peer.asked) == 1)
            await peer.write(begin)
            await peer.read_until(lambda: len(peer.asked) == 2)
            await peer.write(bad)
            await peer.read_until(lambda: bool(peer.resets))
            # What was on its way when the reset came is nobody's fault.
            late = _data(b"late") + _head((b"late", b"1"), start=b"", ends=True)
            good = _frame(1, OK, 4, stream_id=3) + _frame(0, b"good", 1, stream_id=3)
            await peer.write(late + good)
            await peer.read_until(lambda: len(peer.asked) == 3)
            await peer.write(_frame(1, OK, 4, stream_id=5) + _frame(0, b"!", 1, 5))
            await peer.read_until(lambda: False)
        except EOFError:
            return

    return serve


async def _ask_both(base_url: str) -> tuple[Exception, bytes, bytes]:
    """Ask twice at once, and once more; the first is the one that breaks."""
    broken: list[Exception] = []
    got: list[bytes] = []

    async def first(client: HttpClient) -> None:
        with pytest.raises(UpstreamProtocolError) as caught:
            await _get(client)
        broken.append(caught.value)

    async def second(client: HttpClient) -> None:
        got.append(await _get(client))

    with trio.fail_after(5):
        async with HttpClient(base_url, http2="prior-knowledge") as client:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(first, client)
                await trio.testing.wait_all_tasks_blocked(0.01)
                nursery.start_soon(second, client)
            got.append(await _get(client))
            assert client.active == 0
    return (broken[0], got[0], got[1])


@pytest.mark.parametrize("bad", MALFORMED)
async def test_malformed_answer_is_reset_and_the_other_streams_go_on(
    open_peer: Any, bad: bytes
) -> None:
    peers: list[_RawPeer] = []
    async with open_peer(_serves(bad, peers)) as peer:
        error, good, third = await _ask_both(peer.base_url)
        assert (good, third) == (b"good", b"!")
    assert "its frames are malformed (PROTOCOL_ERROR)" in str(error)
    assert [peer.resets for peer in peers] == [[(1, ErrorCodes.PROTOCOL_ERROR)]]


@pytest.mark.parametrize("bad", MALFORMED[:2])
async def test_malformed_answer_that_is_over_needs_no_reset(
    open_peer: Any, bad: bytes
) -> None:
    resets: list[int] = []

    async def serve(stream: trio.abc.Stream) -> None:
        peer = _RawPeer(stream)
        peer.h2.initiate_connection()
        await peer.write(b"")
        await peer.read_until(lambda: len(peer.asked) == 1)
        await peer.write(bad[:4] + b"\x05" + bad[5:])
        await peer.read_until(lambda: len(peer.asked) == 2)
        await peer.write(_frame(1, OK, 5, stream_id=3))
        resets.append(len(peer.resets))

    async with (
        open_peer(serve) as peer,
        HttpClient(peer.base_url, http2="prior-knowledge") as client,
    ):
        with pytest.raises(UpstreamProtocolError, match="PROTOCOL_ERROR"):
            await _get(client)
        assert await _get(client) == b""
    assert resets == [0]


async def test_stream_that_overruns_its_window_is_reset_and_the_others_go_on(
    open_peer: Any,
) -> None:
    peers: list[_RawPeer] = []
    flood = _data(bytes(16384)) * (WINDOW_BYTES // 16384) + _data(b"x")
    async with (
        open_peer(_serves(flood, peers, begin=_head())) as peer,
        HttpClient(peer.base_url, http2="prior-knowledge") as client,
    ):
        with trio.fail_after(5):
            async with client.request("POST", "/x") as unread:
                assert await _get(client) == b"good"
                with pytest.raises(UpstreamProtocolError, match="FLOW_CONTROL_ERROR"):
                    await unread.read()
            assert await _get(client) == b"!"
    assert [peer.resets for peer in peers] == [[(1, ErrorCodes.FLOW_CONTROL_ERROR)]]


def _opened(count: int) -> Http2Protocol:
    client = Http2Protocol()
    client.receive(_frame(4, b"", stream_id=0))
    for _ in range(count):
        client.open(FIELDS, b"")
    client.to_send()
    return client


def test_peer_that_overruns_the_connections_window_ends_the_connection() -> None:
    client = _opened(70)
    pieces = [
        _frame(1, OK, 4, stream_id) + _frame(0, bytes(16384), 0, stream_id) * 16
        for stream_id in range(1, 140, 2)
    ]
    with pytest.raises(Http2Error, match="FLOW_CONTROL_ERROR"):
        client.receive(b"".join(pieces))


def test_bytes_of_a_broken_stream_are_given_back_to_the_connection() -> None:
    client = _opened(520)
    length_of_one = b"\x0f\x0d\x011"  # content-length, from HPACK's table
    for stream_id in range(1, 1041, 2):
        head = _frame(1, OK + length_of_one, 4, stream_id)
        client.receive(head + _frame(0, bytes(16384), 0, stream_id))
        assert isinstance(client.streams[stream_id].error, Http2Error)
    assert _frame(8, b"", stream_id=0)[3:] in client.to_send()
