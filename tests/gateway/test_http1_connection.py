"""A connection's requests, answered in order, whatever the handler does."""

from __future__ import annotations

import logging
import socket

import pytest
import trio

from atomr_infer.gateway.exchanges.exchange import BodyTooLargeError, Exchange
from atomr_infer.gateway.http1.connection import Http1Settings
from tests.gateway.http import parse
from tests.gateway.http1 import connected, get, post, served

TEXT = (b"content-type", b"text/plain")


async def echo(exchange: Exchange) -> None:
    """Answer with the body, or the path when there is none."""
    try:
        body = await exchange.read_body(limit_bytes=100_000, timeout_s=5)
    except BodyTooLargeError:
        await exchange.answer(413, b"{}", [(b"connection", b"close")])
        return
    await exchange.answer(200, body or exchange.path.encode())


async def stream(exchange: Exchange) -> None:
    await exchange.start(200, [TEXT])
    await exchange.write(b"one ")
    await exchange.write(b"")
    await exchange.write(b"two ")
    await exchange.end(b"three")


async def test_a_connection_serves_one_request_after_the_other() -> None:
    async with served(echo) as listener, connected(listener) as client:
        for path in ("/a", "/b"):
            await client.send(get(path))
            answer = await client.answer()
            assert (answer.status, answer.body) == (200, path.encode())
            assert set(answer.headers) == {"date", "content-type", "content-length"}
        assert listener.connections == 1


async def test_pipelined_requests_are_answered_in_order() -> None:
    async def slow_first(exchange: Exchange) -> None:
        if exchange.path == "/slow":
            await trio.sleep(0.02)
        await echo(exchange)

    async with served(slow_first) as listener, connected(listener) as client:
        await client.send(get("/slow") + post("/b", b"body") + get("/c"))
        bodies = [(await client.answer()).body for _ in range(3)]
        assert bodies == [b"/slow", b"body", b"/c"]


async def test_a_flood_of_pipelined_requests_lets_others_in() -> None:
    served_paths: list[str] = []

    async def count(exchange: Exchange) -> None:
        if not served_paths:  # the other comes in the middle of the flood
            number = other.stream.socket.fileno()
            with socket.fromfd(number, socket.AF_INET, socket.SOCK_STREAM) as sock:
                sock.sendall(get("/other"))
        served_paths.append(exchange.path)
        await echo(exchange)

    async with (
        served(count) as listener,
        connected(listener) as flood,
        connected(listener) as other,
    ):
        await flood.send(get("/flood") * 1000)  # within one read
        for _ in range(1000):
            await flood.answer()
        assert (await other.answer()).body == b"/other"
    assert served_paths.index("/other") < 200


async def test_a_request_may_come_byte_by_byte() -> None:
    async with served(echo) as listener, connected(listener) as client:
        for byte in post("/", b"body"):
            await client.send(bytes([byte]))
        assert (await client.answer()).body == b"body"


async def test_a_chunked_body_is_read_and_a_stream_is_chunked() -> None:
    chunked = (
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        b"3\r\none\r\n4\r\n two\r\n0\r\n\r\n"
    )
    async with served(echo) as listener, connected(listener) as client:
        await client.send(chunked)
        assert (await client.answer()).body == b"one two"
    async with served(stream) as listener, connected(listener) as client:
        await client.send(get("/"))
        assert (await client.answer()).body == b"one two three"


async def test_head_is_answered_without_a_body() -> None:
    for handler in (echo, stream):
        async with served(handler) as listener, connected(listener) as client:
            await client.send(get("/").replace(b"GET", b"HEAD") + get("/"))
            head = await client.answer(bodiless=True)
            assert (head.status, head.body) == (200, b"")
            assert (await client.answer()).body != b""


async def test_http10_gets_a_body_that_ends_with_the_connection() -> None:
    async with served(stream) as listener, connected(listener) as client:
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        head, _, body = (await client.rest()).partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head
        assert b"connection: close" in head
        assert body == b"one two three"


async def test_http10_may_ask_to_keep_its_connection() -> None:
    async with served(echo) as listener, connected(listener) as client:
        for _ in range(2):
            await client.send(b"GET /a HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
            answer = await client.answer()
            assert (answer.headers["connection"], answer.body) == ("keep-alive", b"/a")


async def test_close_is_said_and_done_when_the_client_asks() -> None:
    async with served(echo) as listener, connected(listener) as client:
        await client.send(get("/a", "connection: close") + get("/b"))
        answer = parse(await client.rest())
        assert (answer.headers["connection"], answer.body) == ("close", b"/a")


async def test_a_client_that_asks_first_is_told_to_go_on() -> None:
    asking = post("/", b"", "expect: 100-continue").replace(b": 0", b": 4")
    async with served(echo) as listener, connected(listener) as client:
        await client.send(asking)
        assert await client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"body")
        assert (await client.answer()).body == b"body"
        # Who does not wait is not told.
        await client.send(asking + b"body")
        assert (await client.answer()).status == 200


async def test_a_client_that_asks_first_is_refused_before_it_sends() -> None:
    async with served(echo) as listener, connected(listener) as client:
        asking = post("/", b"", "expect: 100-continue")
        await client.send(asking.replace(b": 0", b": 999999"))
        assert parse(await client.rest()).status == 413


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_client_that_sends_too_much_still_reads_its_refusal(
    *, chunked: bool
) -> None:
    much = b"x" * 1_000_000
    upload = post("/", much)
    if chunked:
        upload = (
            b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
            b"%x\r\n%b\r\n0\r\n\r\n" % (len(much), much)
        )
    async with served(echo) as listener, connected(listener) as client:
        await client.send(upload)
        answer = parse(await client.rest())
        assert (answer.status, answer.headers["connection"]) == (413, "close")


async def test_a_body_that_nobody_reads_is_passed_over_when_it_is_here() -> None:
    async def deaf(exchange: Exchange) -> None:
        await exchange.answer(200, exchange.path.encode())

    async with served(deaf) as listener, connected(listener) as client:
        await client.send(post("/a", b"GET /hidden HTTP/1.1\r\n\r\n") + get("/b"))
        assert (await client.answer()).body == b"/a"
        assert (await client.answer()).body == b"/b"
        # One that is not all here ends the connection: where would the next start?
        await client.send(post("/c", b"x" * 10)[:-1])
        assert (await client.answer()).body == b"/c"
        await client.send(b"x" + get("/d"))
        assert await client.rest() == b""


async def test_what_is_no_request_is_refused_in_the_envelope_and_closed() -> None:
    async with served(echo) as listener, connected(listener) as client:
        await client.send(get("/a") + b"\x00\r\n\r\n" + get("/b"))
        assert (await client.answer()).body == b"/a"
        answer = parse(await client.rest())
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert answer.json["error"]["message"] == "the request line is malformed"


async def test_a_malformed_chunk_is_refused_whoever_reads_it() -> None:
    bad = (
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        b"3\r\none\r\n-1\r\n"
    )
    async with served(echo) as listener, connected(listener) as client:
        await client.send(bad)
        assert parse(await client.rest()).status == 400
    async with served(stream) as listener, connected(listener) as client:
        await client.send(bad)  # its answer is given before its body is looked at
        assert (await client.answer()).body == b"one two three"
        assert await client.rest() == b""


async def test_a_slow_head_is_a_408_and_an_idle_connection_just_ends() -> None:
    settings = Http1Settings(keep_alive_s=0.1, head_s=0.1)
    async with served(echo, settings) as listener:
        async with connected(listener) as client:
            assert await client.rest() == b""
        async with connected(listener) as client:
            await client.send(get("/a"))
            await client.answer()
            assert await client.rest() == b""
        async with connected(listener) as client:
            await client.send(b"GET /a HTT")
            assert parse(await client.rest()).status == 408


async def test_a_head_that_trickles_in_is_too_late_all_the_same() -> None:
    settings = Http1Settings(head_s=0.1)
    async with (
        served(echo, settings) as listener,
        connected(listener) as client,
        trio.open_nursery() as nursery,
    ):

        async def trickle() -> None:
            for byte in get("/" + "a" * 1000):
                await client.send(bytes([byte]))
                await trio.sleep(0.01)

        nursery.start_soon(trickle)
        assert parse(await client.rest()).status == 408
        nursery.cancel_scope.cancel()


async def test_a_handler_that_fails_is_a_500_and_its_connection_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(exchange: Exchange) -> None:
        if exchange.path == "/late":
            await exchange.start(200, [TEXT])
            await exchange.write(b"half")
        raise KeyError("secret")

    async with served(fail) as listener:
        async with connected(listener) as client:
            await client.send(get("/early"))
            answer = parse(await client.rest())
            assert (answer.status, answer.body) == (500, b"")
        async with connected(listener) as client:
            await client.send(get("/late"))
            assert (await client.rest()).endswith(b"4\r\nhalf\r\n")
    errors = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert [r.getMessage() for r in errors] == [
        "GET /early: internal error",
        "GET /late: internal error",
    ]


async def test_an_answer_that_is_cut_does_not_look_whole() -> None:
    async def cut(exchange: Exchange) -> None:
        if exchange.path == "/short":
            await exchange.start(200, [(b"content-length", b"9")])
            await exchange.end(b"short")
        else:
            await exchange.start(200, [TEXT])
            await exchange.write(b"no end")

    async with served(cut) as listener:
        for path, end in (("/short", b"short"), ("/", b"no end\r\n")):
            async with connected(listener) as client:
                await client.send(get(path))
                assert (await client.rest()).endswith(end)


async def test_an_answer_longer_than_it_said_is_a_bug_of_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def long(exchange: Exchange) -> None:
        await exchange.start(200, [(b"content-length", b"1")])
        await exchange.end(b"12")

    async with served(long) as listener, connected(listener) as client:
        await client.send(get("/"))
        assert await client.rest() == b""
    assert "longer than its content-length" in caplog.text
