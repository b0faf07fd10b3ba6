"""Clients that leave, stall or are told to go, in the middle of their request."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing

from atomr_infer.gateway.exchanges.exchange import Exchange
from atomr_infer.gateway.http1.connection import Http1Settings
from atomr_infer.model.deployment import Deployment, Serving
from tests.at_once import at_once, no_time
from tests.gateway.http import chat_body, parse, until
from tests.gateway.http1 import Client, connected, get, post, served

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.gateway.conftest import Running, Serve

# From the client's leaving to the cancellation of its work.


@attrs.define(eq=False)
class Working:
    """A handler whose work ends by a cancellation, or by :attr:`go_on`.

    Attributes:
        before: done before the work waits.
        begun: the work waits.
        ended_at: when it was cancelled; None when it was not.
        told: how often it told its client that it was interrupted.
    """

    before: Callable[[Exchange], Awaitable[None]] | None = None
    begun: trio.Event = attrs.field(factory=trio.Event)
    go_on: trio.Event = attrs.field(factory=trio.Event)
    ended_at: float | None = None
    told: int = 0
    exchange: Exchange | None = None

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.read_body(limit_bytes=1000, timeout_s=5)
        self.exchange = exchange

        async def work() -> None:
            try:
                if self.before is not None:
                    await self.before(exchange)
                self.begun.set()
                await self.go_on.wait()
                await exchange.answer(200, b"done")
            except trio.Cancelled:
                self.ended_at = trio.current_time()
                raise

        async def stopped() -> None:
            self.told += 1
            if exchange.started:
                await exchange.end(b"stopped")
            else:
                await exchange.answer(503, b"stopped")

        await exchange.run(work, stopped=stopped)


async def begin_stream(exchange: Exchange) -> None:
    await exchange.start(200, [])
    await exchange.write(b"begun")


async def close(client: Client) -> None:
    await client.stream.aclose()


async def half_close(client: Client) -> None:
    await client.stream.send_eof()


async def reset(client: Client) -> None:
    await client.reset()


@pytest.mark.parametrize("leave", [close, half_close, reset])
@pytest.mark.parametrize("behind", [b"", get("/next"), b"GET /half HTTP/1.1\r\nho"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_work_ends_when_its_client_leaves(
    leave: Callable[[Client], Awaitable[None]],
    behind: bytes,
    mock_clock: MockClock,
    *,
    streamed: bool,
) -> None:
    mock_clock.rate = 1.0
    working = Working(begin_stream if streamed else None)
    async with served(working) as listener, connected(listener) as client:
        await client.send(post("/", b"x") + behind)
        await working.begun.wait()
        if streamed:
            await client.read_until(b"begun")
        with no_time(mock_clock):
            await leave(client)
            await at_once(lambda: working.ended_at is not None, mock_clock)
        await until(lambda: listener.connections == 0)
    assert working.told == 0


async def test_pipelined_bytes_are_no_disconnect() -> None:
    working = Working()
    async with served(working) as listener, connected(listener) as client:
        await client.send(post("/", b"x"))
        await working.begun.wait()
        await client.send(post("/", b"y"))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert working.ended_at is None
        working.go_on.set()
        assert [(await client.answer()).body for _ in range(2)] == [b"done", b"done"]


async def test_a_client_that_left_before_its_work_began_has_none_begun() -> None:
    working = Working()
    may_work = trio.Event()

    async def later(exchange: Exchange) -> None:
        await may_work.wait()
        await working(exchange)

    async with served(later) as listener, connected(listener) as client:
        await client.send(post("/", b"x"))
        await client.stream.send_eof()
        await trio.testing.wait_all_tasks_blocked(0.01)
        may_work.set()
        assert await client.rest() == b""
        assert not working.begun.is_set()


async def test_a_client_that_leaves_in_its_body_ends_the_request() -> None:
    working = Working()
    async with served(working) as listener, connected(listener) as client:
        await client.send(post("/", b"xx")[:-1])
        await client.stream.send_eof()
        assert await client.rest() == b""
        assert not working.begun.is_set()


async def test_an_end_that_comes_with_the_last_bytes_is_seen() -> None:
    working = Working()
    working.go_on.set()
    async with served(working) as listener, connected(listener) as client:
        await client.send(post("/", b"x"))
        await client.answer()
        await trio.testing.wait_all_tasks_blocked(0.01)
        # At once, so that the server is told of both by one event.
        number = client.stream.socket.fileno()
        with socket.fromfd(number, socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.sendall(post("/", b"xx")[:-1])
            sock.shutdown(socket.SHUT_WR)
        await until(lambda: listener.connections == 0)


async def test_a_client_that_reads_nothing_loses_its_work() -> None:
    async def flood(exchange: Exchange) -> None:
        await exchange.start(200, [])
        while True:
            await exchange.write(b"x" * 100_000)

    working = Working(flood)
    settings = Http1Settings(write_timeout_s=0.1)
    async with served(working, settings) as listener, connected(listener) as client:
        await client.send(post("/", b"x"))
        await until(lambda: listener.connections == 0)
        assert working.ended_at is not None


async def test_a_client_that_reads_fast_lets_other_tasks_run() -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.start(200, [])
        while True:
            await exchange.write(b"x")

    working = Working(endless)
    async with served(working) as listener, connected(listener) as client:
        await client.send(post("/", b"x"))
        await client.read_until(b"1\r\nx\r\n" * 100)
        await close(client)
        await until(lambda: listener.connections == 0)
        assert working.ended_at is not None


async def test_an_interrupted_client_is_told_and_its_connection_ends() -> None:
    for before, told in ((None, b"\r\n\r\nstopped"), (begin_stream, b"0\r\n\r\n")):
        working = Working(before)
        async with served(working) as listener, connected(listener) as client:
            await client.send(post("/", b"x") + get("/next"))
            await working.begun.wait()
            assert working.exchange is not None
            working.exchange.interrupt()
            answer = await client.rest()
            assert answer.endswith(told)
            assert answer.count(b"HTTP/1.1") == 1
            assert working.told == 1


async def test_what_a_stalled_client_is_told_follows_a_whole_chunk() -> None:
    size = 20_000_000

    async def much(exchange: Exchange) -> None:
        await exchange.start(200, [])
        working.begun.set()
        await exchange.write(b"x" * size)

    working = Working(much)
    async with served(working) as listener, connected(listener) as client:
        await client.send(post("/", b"x"))
        await working.begun.wait()
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert working.exchange is not None
        working.exchange.interrupt()
        assert parse(await client.rest()).body == b"x" * size + b"stopped"


async def test_an_answer_that_has_ended_is_not_interrupted() -> None:
    working = Working()
    async with served(working) as listener, connected(listener) as client:
        await client.send(post("/", b"x"))
        await working.begun.wait()
        working.go_on.set()
        assert (await client.answer()).body == b"done"
        assert working.exchange is not None
        working.exchange.interrupt()
        await client.send(post("/", b"x"))
        assert (await client.answer()).body == b"done"


async def test_a_stop_ends_the_idle_and_lets_answers_end() -> None:
    working = Working()
    async with (
        served(working) as listener,
        connected(listener) as client,
        connected(listener) as idle,
    ):
        await client.send(post("/", b"x"))
        await working.begun.wait()
        await listener.stop_accepting()
        assert await idle.rest() == b""
        working.go_on.set()
        answer = parse(await client.rest())
        assert (answer.headers["connection"], answer.body) == ("close", b"done")
        await listener.connections_done()


async def test_a_close_ends_whatever_is_done() -> None:
    working = Working(begin_stream)
    async with served(working) as listener, connected(listener) as client:
        await client.send(post("/", b"x"))
        await working.begun.wait()
        await listener.close()
        assert not (await client.rest()).endswith(b"0\r\n\r\n")
        assert working.ended_at is not None
        assert working.told == 0


def one_at_a_time(**options: Any) -> Deployment:
    serving = Serving(max_concurrency=1, max_queue=1)
    return Deployment(name="m", runtime="mock", options=options, serving=serving)


async def ask(running: Running, client: Client, *, stream: bool) -> None:
    await client.send(post("/v1/chat/completions", chat_body(stream=stream)))


@pytest.mark.parametrize("leave", [close, half_close, reset])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("hang_after", [0, 1])
async def test_a_permit_and_a_place_come_back_when_their_clients_leave(
    serve: Serve,
    leave: Callable[[Client], Awaitable[None]],
    *,
    stream: bool,
    hang_after: int,
) -> None:
    async with serve(one_at_a_time(hang_after=hang_after)) as running:
        replica = (await running.cluster.replicas("m"))[0]
        clients = [
            Client(await trio.open_tcp_stream("127.0.0.1", running.port))
            for _ in range(2)
        ]
        await ask(running, clients[0], stream=stream)
        await until(lambda: replica.running == 1)
        await ask(running, clients[1], stream=stream)
        await until(lambda: replica.waiting == 1)
        # The one that waits first, so that it does not run.
        for client, left in ((clients[1], (1, 0)), (clients[0], (0, 0))):
            await leave(client)
            await until(
                lambda left=left: (replica.running, replica.waiting) == left  # type: ignore[misc]
            )
        assert replica.outstanding == 0
        for client in clients:
            await trio.aclose_forcefully(client.stream)
