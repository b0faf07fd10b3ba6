"""The time limits of HTTP/2, under a virtual clock and over memory streams."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import h2.config
import h2.connection
import h2.events
import pytest
import trio
import trio.testing

from atomr_infer.errors import StreamCutError, UpstreamTimeoutError
from atomr_infer.remote.http.client import HttpClient
from atomr_infer.remote.http.http2.connection import WRITE_STUCK_S
from atomr_infer.remote.http.idle import IdleLimits
from atomr_infer.remote.http.phases import HttpTimeouts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TIMEOUTS = HttpTimeouts(connect_s=1.0, write_s=2.0, head_s=3.0, idle_s=4.0)
MORE_THAN_A_WINDOW = bytes(100_000)


class Peer:
    """A server of HTTP/2 at the other end of a memory stream."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False)
        )
        self.h2.initiate_connection()
        self.resets = 0
        self.reading = trio.CancelScope()
        self._sending = trio.Lock()

    async def flush(self) -> None:
        async with self._sending:
            try:
                await self.stream.send_all(self.h2.data_to_send())
            except trio.BrokenResourceError:
                # The client went, which is what most of these tests are about.
                return

    async def serve(self, answer: Callable[[Peer, int], Awaitable[None]]) -> None:
        await self.flush()
        async with trio.open_nursery() as nursery:
            self.reading = nursery.cancel_scope
            async for data in self.stream:
                for event in self.h2.receive_data(bytes(data)):
                    if isinstance(event, h2.events.StreamEnded):
                        nursery.start_soon(answer, self, event.stream_id)
                    self.resets += isinstance(event, h2.events.StreamReset)
                await self.flush()


async def _silent(_peer: Peer, _stream_id: int) -> None:
    return


async def _drips(peer: Peer, stream_id: int) -> None:
    await trio.sleep(2.5)
    peer.h2.send_headers(stream_id, [(":status", "200")])
    for _ in range(2):
        await peer.flush()
        await trio.sleep(3.5)
        peer.h2.send_data(stream_id, b"a")
    await peer.flush()


class Link:
    def __init__(
        self,
        nursery: trio.Nursery,
        answer: Callable[[Peer, int], Awaitable[None]] = _silent,
    ) -> None:
        self.peers: list[Peer] = []
        self._nursery = nursery
        self._answer = answer

    async def connect(self, _: object) -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        peer = Peer(theirs)
        self.peers.append(peer)
        self._nursery.start_soon(peer.serve, self._answer)
        return ours

    def client(self, timeouts: HttpTimeouts = TIMEOUTS) -> HttpClient:
        return HttpClient(
            "http://m",
            connect=self.connect,
            timeouts=timeouts,
            http2="prior-knowledge",
            idle=IdleLimits(max_age_s=50.0),
        )


async def _times_out(
    client: HttpClient, code: str, after_s: float, *, body: bytes = b""
) -> None:
    started = trio.current_time()
    with pytest.raises(UpstreamTimeoutError) as caught:
        async with client.request("POST", "/", body=body) as response:
            await response.read()
    assert caught.value.code == code
    assert trio.current_time() - started == pytest.approx(after_s)
    assert client.active == 0


async def test_head_has_its_own_limit(autojump_clock: object) -> None:
    async with trio.open_nursery() as nursery:
        link = Link(nursery)
        async with link.client() as client:
            await _times_out(client, "head_timeout", 3.0)
            await trio.testing.wait_all_tasks_blocked()
            assert link.peers[0].resets == 1


async def test_write_of_a_body_that_no_window_lets_through_has_its_own_limit(
    autojump_clock: object,
) -> None:
    async with trio.open_nursery() as nursery:
        link = Link(nursery)
        async with link.client() as client:
            await _times_out(client, "write_timeout", 2.0, body=MORE_THAN_A_WINDOW)


async def test_silence_inside_the_body_has_its_own_limit(
    autojump_clock: object,
) -> None:
    async with (
        trio.open_nursery() as nursery,
        Link(nursery, _drips).client() as client,
    ):
        await _times_out(client, "body_timeout", 2.5 + 3.5 + 3.5 + 4.0)


async def test_whole_exchange_has_its_own_limit(autojump_clock: object) -> None:
    async with trio.open_nursery() as nursery:
        limits = HttpTimeouts(total_s=5.0)
        async with Link(nursery, _drips).client(limits) as client:
            await _times_out(client, "total_timeout", 5.0)


async def test_reader_who_pauses_is_not_the_upstreams_silence(
    autojump_clock: object,
) -> None:
    async with (
        trio.open_nursery() as nursery,
        Link(nursery, _drips).client() as client,
        client.request("POST", "/") as response,
    ):
        await trio.sleep(1000)
        assert await response.receive() == b"aa"


async def test_connection_without_streams_is_closed_after_its_time(
    autojump_clock: object,
) -> None:
    async def answers(peer: Peer, stream_id: int) -> None:
        peer.h2.send_headers(stream_id, [(":status", "200")], end_stream=True)
        await peer.flush()

    async with trio.open_nursery() as nursery:
        link = Link(nursery, answers)
        async with link.client() as client:
            for wait_s in (49.0, 51.0, 0.0):
                async with client.request("GET", "/") as response:
                    assert await response.read() == b""
                await trio.sleep(wait_s)
            assert len(link.peers) == 2


async def test_peer_that_takes_no_bytes_is_left_at_last(autojump_clock: object) -> None:
    async def connect(_: object) -> trio.abc.Stream:
        # Nobody reads at the other end, and nothing is buffered in between.
        ours, _theirs = trio.testing.lockstep_stream_pair()
        return ours

    never = HttpTimeouts(write_s=math.inf, head_s=math.inf)
    async with HttpClient(
        "http://m", connect=connect, timeouts=never, http2="prior-knowledge"
    ) as client:
        started = trio.current_time()
        with pytest.raises(StreamCutError, match="it took no bytes for 60 s"):
            await client.request("GET", "/").__aenter__()
        assert trio.current_time() - started == pytest.approx(WRITE_STUCK_S)
        assert "0 active, 0 idle, 0 of" in repr(client)


async def test_connection_on_which_nothing_can_be_written_is_closed(
    autojump_clock: object,
) -> None:
    async def answers(peer: Peer, stream_id: int) -> None:
        peer.h2.send_headers(stream_id, [(":status", "200")], end_stream=True)
        await peer.flush()

    async with trio.open_nursery() as nursery:
        link = Link(nursery, answers)
        async with link.client() as client:
            async with client.request("GET", "/"):
                pass
            deaf = link.peers[0].stream
            assert isinstance(deaf, trio.StapledStream)
            link.peers[0].reading.cancel()
            await deaf.receive_stream.aclose()
            async with client.request("GET", "/") as response:
                assert response.status == 200
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BrokenResourceError):
                await deaf.send_stream.send_all(b"x")
            assert len(link.peers) == 2
