"""How many connections there are, who waits for one, and what is told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from atomr import telemetry
from atomr_infer.errors import OverloadedError, UpstreamConnectError
from atomr_infer.remote.http.client import HttpClient
from atomr_infer.remote.http.idle import IdleLimits
from atomr_infer.remote.http.phases import HttpTimeouts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
BYE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"


class Link:
    """Memory streams as connections; keeps the peers' ends."""

    def __init__(self) -> None:
        self.peers: list[trio.abc.Stream] = []
        self.refuse = False

    async def connect(self, _: object) -> trio.abc.Stream:
        await trio.sleep(1)
        if self.refuse:
            raise OSError("refused")
        ours, theirs = trio.testing.memory_stream_pair()
        self.peers.append(theirs)
        return ours


def _client(link: Link, **options: Any) -> HttpClient:
    return HttpClient("http://m", connect=link.connect, **options)


async def _get(client: HttpClient, done: list[str], name: str) -> None:
    async with client.request("GET", "/") as answer:
        assert await answer.read() == b"ok"
    done.append(name)


def _state(client: HttpClient) -> str:
    return repr(client).removeprefix("<HttpClient http://m: ").removesuffix(">")


async def test_request_beyond_the_limit_waits_for_the_connection_of_another(
    autojump_clock: object,
) -> None:
    link = Link()
    done: list[str] = []
    async with (
        _client(link, max_connections=1) as client,
        trio.open_nursery() as nursery,
    ):
        for name in ("a", "b", "c"):
            nursery.start_soon(_get, client, done, name)
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(2)
        assert _state(client) == "3 active, 0 idle, 1 of 1 connections, 2 waiting"
        for expected in ("a", "b", "c"):
            await link.peers[0].send_all(OK)
            await trio.testing.wait_all_tasks_blocked()
            assert done.pop() == expected
        assert len(link.peers) == 1
        assert _state(client) == "0 active, 1 idle, 1 of 1 connections, 0 waiting"


async def test_who_waits_gets_the_room_of_a_connection_that_is_closed(
    autojump_clock: object,
) -> None:
    link = Link()
    done: list[str] = []
    async with (
        _client(link, max_connections=1) as client,
        trio.open_nursery() as nursery,
    ):
        for name in ("a", "b"):
            nursery.start_soon(_get, client, done, name)
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(2)
        await link.peers[0].send_all(BYE)
        await trio.sleep(2)
        assert (done, len(link.peers)) == (["a"], 2)
        await link.peers[1].send_all(OK)
        await trio.testing.wait_all_tasks_blocked()
        assert done == ["a", "b"]
        assert _state(client) == "0 active, 1 idle, 1 of 1 connections, 0 waiting"


async def test_who_waits_gets_the_room_of_a_connection_that_could_not_be_made(
    autojump_clock: object,
) -> None:
    link = Link()
    link.refuse = True
    refused: list[str] = []

    async def ask(client: HttpClient) -> None:
        with pytest.raises(UpstreamConnectError) as caught:
            await client.request("GET", "/").__aenter__()
        refused.append(caught.value.message)

    async with _client(link, max_connections=1) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask, client)
        assert refused == ["no connection to http://m: refused"] * 3
        assert _state(client) == "0 active, 0 idle, 0 of 1 connections, 0 waiting"


async def test_waiting_for_a_connection_is_bounded_and_is_not_the_upstreams_fault(
    autojump_clock: object,
) -> None:
    link = Link()
    limits = HttpTimeouts(connect_s=3.0)
    async with (
        _client(link, max_connections=1, timeouts=limits) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_get, client, [], "a")
        await trio.testing.wait_all_tasks_blocked()
        started = trio.current_time()
        with pytest.raises(OverloadedError) as caught:
            await client.request("GET", "/").__aenter__()
        assert trio.current_time() - started == pytest.approx(3.0)
        assert caught.value.code == "pool_timeout"
        assert not caught.value.breaker_failure
        assert caught.value.message == (
            "no connection to http://m was free within 3 s: all 1 are in use"
        )
        assert _state(client) == "1 active, 0 idle, 1 of 1 connections, 0 waiting"
        nursery.cancel_scope.cancel()


async def test_who_is_cancelled_while_waiting_leaves_the_queue(
    autojump_clock: object,
) -> None:
    link = Link()
    done: list[str] = []
    async with (
        _client(link, max_connections=1) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_get, client, done, "a")
        await trio.sleep(2)
        with trio.move_on_after(1):
            await _get(client, done, "b")
        nursery.start_soon(_get, client, done, "c")
        await trio.testing.wait_all_tasks_blocked()
        await link.peers[0].send_all(OK)
        await trio.testing.wait_all_tasks_blocked()
        await link.peers[0].send_all(OK)
        await trio.testing.wait_all_tasks_blocked()
        assert done == ["a", "c"]
        assert _state(client) == "0 active, 1 idle, 1 of 1 connections, 0 waiting"


async def test_connecting_that_is_cancelled_gives_its_room_back(
    autojump_clock: object,
) -> None:
    async with _client(Link(), max_connections=1) as client:
        for _ in range(2):
            with trio.move_on_after(0.5):
                await client.request("GET", "/").__aenter__()
            assert _state(client) == "0 active, 0 idle, 0 of 1 connections, 0 waiting"


async def test_connection_that_is_too_old_takes_no_further_request(
    autojump_clock: object,
) -> None:
    link = Link()
    idle = IdleLimits(max_age_s=1000.0, max_life_s=10.0)
    async with _client(link, idle=idle) as client:
        for number, wait_s in enumerate((5.0, 7.0)):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_get, client, [], "a")
                await trio.sleep(wait_s)
                await link.peers[0].send_all(OK)
            assert client.idle == 1 - number
        assert (len(link.peers), client.idle) == (1, 0)


def test_limit_below_one_connection_is_refused() -> None:
    with pytest.raises(ValueError, match="max_connections is 0"):
        HttpClient("http://h", max_connections=0)


Told = list[tuple[str, dict[str, object]]]


@pytest.fixture
def told() -> Iterator[Told]:
    events: Told = []

    def note(
        event: tuple[str, ...],
        measurements: Mapping[str, float],
        metadata: Mapping[str, object],
    ) -> None:
        assert metadata["origin"] == "http://m"
        events.append(
            (event[2], {**measurements, **metadata, "origin": metadata["origin"]})
        )

    telemetry.attach("test", ("atomr_infer", "connection"), note)
    yield events
    telemetry.detach("test")


async def test_telemetry_hears_of_opened_reused_and_closed_connections(
    autojump_clock: object, told: Told
) -> None:
    link = Link()
    async with _client(link) as client, trio.open_nursery() as nursery:
        for answer in (OK, BYE):
            nursery.start_soon(_get, client, [], "a")
            await trio.sleep(2)
            await link.peers[0].send_all(answer)
            await trio.testing.wait_all_tasks_blocked()
    origin = {"origin": "http://m"}
    assert told == [
        ("open", {"connect_s": 1.0, "protocol": "http/1.1", **origin}),
        ("reuse", {"exchanges": 1, **origin}),
        ("close", {"lifetime_s": 3.0, "exchanges": 1, "reason": "left", **origin}),
    ]


async def test_telemetry_hears_of_a_request_that_is_sent_once_more(
    autojump_clock: object, told: Told
) -> None:
    link = Link()
    async with _client(link) as client, trio.open_nursery() as nursery:
        nursery.start_soon(_get, client, [], "a")
        await trio.sleep(2)
        await link.peers[0].send_all(OK)
        await trio.testing.wait_all_tasks_blocked()
        await link.peers[0].aclose()
        nursery.start_soon(_get, client, [], "b")
        await trio.sleep(2)
        await link.peers[1].send_all(OK)
    assert [(name, facts.get("reason")) for name, facts in told] == [
        ("open", None),
        ("reuse", None),
        ("close", "failed"),
        ("retry", "no_response"),
        ("open", None),
        ("close", "client"),
    ]
