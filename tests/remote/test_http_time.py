"""Each phase's limit, under a virtual clock and over memory streams."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from atomr_infer.errors import UpstreamTimeoutError
from atomr_infer.remote.http.client import HttpClient
from atomr_infer.remote.http.idle import IdleLimits
from atomr_infer.remote.http.phases import HttpTimeouts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"
TIMEOUTS = HttpTimeouts(connect_s=1.0, write_s=2.0, head_s=3.0, idle_s=4.0)


class Link:
    """Memory streams as connections; keeps the peers' ends."""

    def __init__(self, opens_in_s: float = 0.0) -> None:
        self.peers: list[trio.abc.Stream] = []
        self._opens_in_s = opens_in_s

    async def connect(self, _: object) -> trio.abc.Stream:
        await trio.sleep(self._opens_in_s)
        ours, theirs = trio.testing.memory_stream_pair()
        self.peers.append(theirs)
        return ours


def _client(
    link: Link, timeouts: HttpTimeouts = TIMEOUTS, **options: Any
) -> HttpClient:
    return HttpClient("http://m", connect=link.connect, timeouts=timeouts, **options)


async def _times_out(client: HttpClient, code: str, after_s: float) -> None:
    started = trio.current_time()
    with pytest.raises(UpstreamTimeoutError) as caught:
        async with client.request("POST", "/", body=b"{}") as response:
            await response.read()
    assert caught.value.code == code
    assert trio.current_time() - started == pytest.approx(after_s)
    assert (client.active, client.idle) == (0, 0)


async def test_connect_has_its_own_limit(autojump_clock: object) -> None:
    async with _client(Link(opens_in_s=math.inf)) as client:
        await _times_out(client, "connect_timeout", 1.0)


async def test_write_has_its_own_limit(autojump_clock: object) -> None:
    async def connect(_: object) -> trio.abc.Stream:
        # A peer that never reads, and no buffer in between.
        ours, _theirs = trio.testing.lockstep_stream_pair()
        return ours

    async with HttpClient("http://m", connect=connect, timeouts=TIMEOUTS) as client:
        await _times_out(client, "write_timeout", 2.0)


async def test_head_has_its_own_limit(autojump_clock: object) -> None:
    async with _client(Link()) as client:
        await _times_out(client, "head_timeout", 3.0)


async def test_head_that_drips_does_not_stretch_its_limit(
    autojump_clock: object,
) -> None:
    link = Link()

    async def drip() -> None:
        await trio.testing.wait_all_tasks_blocked()
        for byte in b"HTTP/1.1 200 OK\r\n" * 10:
            await trio.sleep(0.5)
            try:
                await link.peers[0].send_all(bytes([byte]))
            except trio.BrokenResourceError:
                return

    async with _client(link) as client, trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        await _times_out(client, "head_timeout", 3.0)


async def test_informational_answers_do_not_stretch_the_limit(
    autojump_clock: object,
) -> None:
    link = Link()

    async def stall() -> None:
        await trio.testing.wait_all_tasks_blocked()
        while True:
            await trio.sleep(1)
            try:
                await link.peers[0].send_all(b"HTTP/1.1 102 Processing\r\n\r\n")
            except trio.BrokenResourceError:
                return

    async with _client(link) as client, trio.open_nursery() as nursery:
        nursery.start_soon(stall)
        await _times_out(client, "head_timeout", 3.0)


async def test_silence_inside_the_body_has_its_own_limit(
    autojump_clock: object,
) -> None:
    link = Link()

    async def answer() -> None:
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(2.5)
        await link.peers[0].send_all(HEAD + b"a")
        await trio.sleep(3.5)
        await link.peers[0].send_all(b"b")

    async with _client(link) as client, trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        await _times_out(client, "body_timeout", 2.5 + 3.5 + 4.0)


async def test_infinite_limit_waits_for_ever(autojump_clock: object) -> None:
    link = Link()
    async with (
        _client(link, HttpTimeouts(idle_s=math.inf)) as client,
        trio.open_nursery() as nursery,
    ):

        async def answer() -> None:
            await trio.testing.wait_all_tasks_blocked()
            await link.peers[0].send_all(HEAD + b"ab")
            await trio.sleep(80_000)
            await link.peers[0].send_all(b"cd")

        nursery.start_soon(answer)
        async with client.request("GET", "/") as response:
            assert await response.read() == b"abcd"


async def _answered(client: HttpClient, link: Link, number: int) -> None:
    async with trio.open_nursery() as nursery:

        async def answer() -> None:
            await trio.testing.wait_all_tasks_blocked()
            await link.peers[number].send_all(HEAD + b"abcd")

        nursery.start_soon(answer)
        async with client.request("GET", "/") as response:
            assert await response.read() == b"abcd"


async def test_connection_that_was_idle_too_long_is_closed(
    autojump_clock: object,
) -> None:
    link = Link()
    async with _client(link, idle=IdleLimits(max_age_s=30.0)) as client:
        await _answered(client, link, 0)
        await trio.sleep(29)
        await _answered(client, link, 0)
        await trio.sleep(31)
        await _answered(client, link, 1)
        assert await _rest(link.peers[0])
        assert client.idle == 1


async def _rest(peer: trio.abc.Stream) -> bool:
    """Read to the end; True when the end came."""
    with trio.fail_after(1):
        while await peer.receive_some():
            pass
    return True


async def test_stale_connection_over_any_stream_is_replaced(
    autojump_clock: object,
) -> None:
    link = Link()
    async with _client(link) as client:
        await _answered(client, link, 0)
        await link.peers[0].aclose()
        await _answered(client, link, 1)
        assert len(link.peers) == 2


async def test_rest_of_a_body_is_skipped_only_as_long_as_said(
    autojump_clock: object,
) -> None:
    link = Link()
    async with _client(link) as client, trio.open_nursery() as nursery:

        async def answer() -> None:
            await trio.testing.wait_all_tasks_blocked()
            await link.peers[0].send_all(HEAD + b"ab")

        nursery.start_soon(answer)
        async with client.request("GET", "/") as response:
            assert await response.receive() == b"ab"
            started = trio.current_time()
            await response.skip_rest(limit_bytes=100, within_s=0.5)
            assert trio.current_time() - started == pytest.approx(0.5)
        assert client.idle == 0


async def test_whole_exchange_has_its_own_limit_in_each_phase(
    autojump_clock: object,
) -> None:
    for opens_in_s, answers in ((math.inf, False), (0.0, False), (0.0, True)):
        link = Link(opens_in_s)
        limits = HttpTimeouts(total_s=5.0)

        async def drip(link: Link = link) -> None:
            await link.peers[0].send_all(HEAD)
            for _ in range(3):
                await trio.sleep(2)
                await link.peers[0].send_all(b"a")

        async with _client(link, limits) as client, trio.open_nursery() as nursery:
            if answers:
                nursery.start_soon(_after, 0.0, drip)
            await _times_out(client, "total_timeout", 5.0)
            nursery.cancel_scope.cancel()


async def _after(delay_s: float, run: Callable[[], Awaitable[None]]) -> None:
    await trio.testing.wait_all_tasks_blocked()
    await trio.sleep(delay_s)
    await run()


async def test_request_has_limits_of_its_own(autojump_clock: object) -> None:
    async with _client(Link()) as client:
        started = trio.current_time()
        with pytest.raises(UpstreamTimeoutError) as caught:
            await client.request(
                "GET", "/", timeouts=HttpTimeouts(head_s=7.0)
            ).__aenter__()
        assert trio.current_time() - started == pytest.approx(7.0)
        assert caught.value.message == "no answer from http://m within 7 s"
        await _times_out(client, "head_timeout", 3.0)


async def test_reader_who_pauses_or_gives_up_waiting_is_not_the_upstreams_silence(
    autojump_clock: object,
) -> None:
    link = Link()

    async def answer() -> None:
        await link.peers[0].send_all(HEAD + b"ab")
        await trio.sleep(1000)
        await link.peers[0].send_all(b"cd")

    async with _client(link) as client, trio.open_nursery() as nursery:
        nursery.start_soon(_after, 0.0, answer)
        async with client.request("GET", "/") as response:
            assert await response.receive() == b"ab"
            with trio.move_on_after(2.0):
                await response.receive()
            await trio.sleep(1000)
            assert await response.read() == b"cd"
        assert client.idle == 1


async def test_limits_of_many_exchanges_at_once_are_each_its_own(
    autojump_clock: object,
) -> None:
    ended: list[tuple[float, float]] = []
    started = trio.current_time()

    async def ask(client: HttpClient, head_s: float) -> None:
        with pytest.raises(UpstreamTimeoutError):
            await client.request(
                "GET", "/", timeouts=HttpTimeouts(head_s=head_s)
            ).__aenter__()
        ended.append((head_s, trio.current_time() - started))

    async with _client(Link()) as client, trio.open_nursery() as nursery:
        for head_s in (9.0, 3.0, 6.0, 3.0, 1.0):
            nursery.start_soon(ask, client, head_s)
            await trio.testing.wait_all_tasks_blocked()
    assert [head_s for head_s, _ in ended] == [1.0, 3.0, 3.0, 6.0, 9.0]
    assert [at for _, at in ended] == pytest.approx([1.0, 3.0, 3.0, 6.0, 9.0])


async def test_answer_is_read_inside_its_block_only(autojump_clock: object) -> None:
    link = Link()
    async with _client(link) as client:
        await _answered(client, link, 0)

        async def answer() -> None:
            await link.peers[0].send_all(HEAD + b"abcd")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(_after, 0.0, answer)
            async with client.request("GET", "/") as response:
                assert await response.receive() == b"abcd"
        with pytest.raises(RuntimeError, match="inside its with block"):
            await response.receive()


@pytest.mark.parametrize(
    ("sends", "limits", "code"),
    [
        (b"", HttpTimeouts(head_s=0.05), "head_timeout"),
        (HEAD + b"a", HttpTimeouts(idle_s=0.05), "body_timeout"),
        (HEAD + b"a", HttpTimeouts(total_s=0.05), "total_timeout"),
    ],
)
async def test_limit_on_a_real_socket_closes_it(
    open_peer: Any, sends: bytes, limits: HttpTimeouts, code: str
) -> None:
    left = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        if sends:
            await stream.send_all(sends)
        assert await stream.receive_some() == b""
        left.set()

    async with (
        open_peer(serve) as peer,
        HttpClient(peer.base_url, timeouts=limits) as client,
    ):
        with pytest.raises(UpstreamTimeoutError) as caught:
            async with client.request("GET", "/") as response:
                await response.read()
        assert (caught.value.code, client.active, client.idle) == (code, 0, 0)
        with trio.fail_after(1):
            await left.wait()
