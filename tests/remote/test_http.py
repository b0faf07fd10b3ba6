"""The client against peers that misbehave, on real sockets."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr_infer.errors import (
    StreamCutError,
    UpstreamConnectError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
)
from atomr_infer.remote.http.client import HttpClient
from atomr_infer.remote.http.idle import IdleLimits
from atomr_infer.remote.http.phases import HttpTimeouts

if TYPE_CHECKING:
    import pathlib

Serve = Callable[[trio.SocketStream], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def _read_request(stream: trio.abc.Stream) -> bytes:
    """Read one request with a content-length, or none; b"" at the end."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = await stream.receive_some()
        if not more:
            return b""
        data += bytes(more)
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    while len(body) < length:
        body += bytes(await stream.receive_some())
    return head + b"\r\n\r\n" + body


def _always(answer: bytes) -> Serve:
    async def serve(stream: trio.SocketStream) -> None:
        while await _read_request(stream):
            await stream.send_all(answer)

    return serve


def _once(answer: bytes) -> Serve:
    async def serve(stream: trio.SocketStream) -> None:
        await _read_request(stream)
        await stream.send_all(answer)

    return serve


async def _get(client: HttpClient, **options: Any) -> bytes:
    async with client.request("POST", "/x", body=b"{}", **options) as answer:
        return await answer.read()


async def test_request_is_sent_in_one_piece_with_its_headers(open_peer: Any) -> None:
    seen: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        seen.append(bytes(await stream.receive_some()))
        await stream.send_all(OK)

    async with open_peer(serve) as peer:
        headers = [("authorization", "Bearer k")]
        async with (
            HttpClient(peer.base_url + "/v1/", headers=headers) as client,
            client.request("POST", "/x", headers=[("a", "b")], body=b"{}") as answer,
        ):
            assert answer.status == 200
            assert answer.headers == {"content-length": "2"}
            assert await answer.read() == b"ok"
    host = peer.base_url.removeprefix("http://").encode()
    assert seen == [
        b"POST /v1/x HTTP/1.1\r\nhost: " + host + b"\r\nauthorization: Bearer k\r\n"
        b"a: b\r\ncontent-length: 2\r\n\r\n{}"
    ]


async def test_a_hundred_requests_in_sequence_share_one_connection(
    open_peer: Any,
) -> None:
    async with open_peer(_always(OK)) as peer, HttpClient(peer.base_url) as client:
        for _ in range(100):
            assert await _get(client) == b"ok"
        assert (peer.connections, client.idle, client.active) == (1, 1, 0)


async def test_requests_at_once_use_a_connection_each_and_keep_some(
    open_peer: Any,
) -> None:
    async with (
        open_peer(_always(OK)) as peer,
        HttpClient(peer.base_url, idle=IdleLimits(max_idle=3)) as client,
    ):
        async with trio.open_nursery() as nursery:
            for _ in range(32):
                nursery.start_soon(_get, client)
        assert (client.idle, client.active) == (3, 0)
        assert 3 <= peer.connections <= 32


async def test_block_left_early_closes_the_connection(open_peer: Any) -> None:
    left = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        await _read_request(stream)
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
        assert await stream.receive_some() == b""
        left.set()

    async with open_peer(serve) as peer, HttpClient(peer.base_url) as client:
        async with client.request("GET", "/") as answer:
            assert await answer.receive() == b"half"
        assert (client.idle, client.active) == (0, 0)
        with trio.fail_after(5):
            await left.wait()


async def test_cancellation_while_waiting_for_headers_closes_at_once(
    open_peer: Any,
) -> None:
    asked, left = trio.Event(), trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        await _read_request(stream)
        asked.set()
        assert await stream.receive_some() == b""
        left.set()

    async with open_peer(serve) as peer, HttpClient(peer.base_url) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_get, client)
            await asked.wait()
            nursery.cancel_scope.cancel()
        assert (client.idle, client.active) == (0, 0)
        with trio.fail_after(5):
            await left.wait()


async def test_connection_closed_while_idle_is_not_used_again(open_peer: Any) -> None:
    closed = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        await _read_request(stream)
        await stream.send_all(OK)
        await stream.aclose()
        closed.set()

    async with open_peer(serve) as peer, HttpClient(peer.base_url) as client:
        for _ in range(3):
            assert await _get(client, replay=False) == b"ok"
            await closed.wait()
        assert peer.connections == 3


def _dies_on_second_request(seen: list[bytes]) -> Serve:
    """Answer the first request of the first connection, and close on its second."""

    async def serve(stream: trio.SocketStream) -> None:
        first = not seen
        while request := await _read_request(stream):
            seen.append(request)
            if first and len(seen) == 2:
                return
            await stream.send_all(OK)

    return serve


async def test_request_on_a_stale_connection_is_sent_once_more(open_peer: Any) -> None:
    seen: list[bytes] = []
    async with (
        open_peer(_dies_on_second_request(seen)) as peer,
        HttpClient(peer.base_url) as client,
    ):
        assert [await _get(client), await _get(client)] == [b"ok", b"ok"]
        assert (peer.connections, len(seen)) == (2, 3)


async def test_request_that_must_not_repeat_is_not_sent_once_more(
    open_peer: Any,
) -> None:
    seen: list[bytes] = []
    async with (
        open_peer(_dies_on_second_request(seen)) as peer,
        HttpClient(peer.base_url) as client,
    ):
        await _get(client)
        with pytest.raises(StreamCutError) as caught:
            await _get(client, replay=False)
        assert caught.value.code == "no_response"
        assert (peer.connections, len(seen)) == (1, 2)


async def test_fresh_connection_that_is_closed_is_not_tried_again(
    open_peer: Any,
) -> None:
    async with open_peer(_once(b"")) as peer, HttpClient(peer.base_url) as client:
        with pytest.raises(StreamCutError) as caught:
            await _get(client)
        assert (caught.value.code, peer.connections) == ("no_response", 1)


async def test_kept_connection_that_answers_in_part_is_not_tried_again(
    open_peer: Any,
) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await _read_request(stream)
        await stream.send_all(OK)
        await _read_request(stream)
        await stream.send_all(b"HTTP/1.1 200")

    async with open_peer(serve) as peer, HttpClient(peer.base_url) as client:
        await _get(client)
        with pytest.raises(StreamCutError):
            await _get(client)
        assert peer.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ],
)
async def test_body_that_ends_early_is_cut(open_peer: Any, answer: bytes) -> None:
    async with (
        open_peer(_once(answer)) as peer,
        HttpClient(peer.base_url) as client,
        client.request("GET", "/") as response,
    ):
        assert await response.receive() == b"half"
        for _ in range(2):
            with pytest.raises(StreamCutError):
                await response.receive()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 banana\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: " + b"x" * 70_000,
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    ],
)
async def test_head_that_is_not_http_is_a_protocol_error(
    open_peer: Any, answer: bytes
) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await _read_request(stream)
        await stream.send_all(answer)
        await stream.receive_some()

    async with open_peer(serve) as peer, HttpClient(peer.base_url) as client:
        with pytest.raises(UpstreamProtocolError) as caught:
            await _get(client)
        assert type(caught.value) is UpstreamProtocolError
        assert client.active == 0


async def test_broken_chunk_framing_is_a_protocol_error(open_peer: Any) -> None:
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n"

    async def serve(stream: trio.SocketStream) -> None:
        await _read_request(stream)
        await stream.send_all(answer)
        await stream.receive_some()

    async with (
        open_peer(serve) as peer,
        HttpClient(peer.base_url) as client,
        client.request("GET", "/") as response,
    ):
        with pytest.raises(UpstreamProtocolError) as caught:
            await response.receive()
        assert type(caught.value) is UpstreamProtocolError


async def test_body_beyond_the_cap_is_refused(open_peer: Any) -> None:
    async with (
        open_peer(_always(OK)) as peer,
        HttpClient(peer.base_url) as client,
        client.request("GET", "/") as response,
    ):
        with pytest.raises(UpstreamProtocolError) as caught:
            await response.read(limit_bytes=1)
        assert caught.value.code == "body_too_long"


async def test_body_without_a_length_ends_with_the_connection(open_peer: Any) -> None:
    answer = b"HTTP/1.1 200 OK\r\n\r\nall of it"
    async with open_peer(_once(answer)) as peer, HttpClient(peer.base_url) as client:
        assert await _get(client) == b"all of it"
        assert client.idle == 0


async def test_informational_answers_are_passed_over(open_peer: Any) -> None:
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + OK
    async with open_peer(_always(answer)) as peer, HttpClient(peer.base_url) as client:
        assert [await _get(client), await _get(client)] == [b"ok", b"ok"]
        assert peer.connections == 1


async def test_connection_with_bytes_behind_the_answer_is_not_kept(
    open_peer: Any,
) -> None:
    async with (
        open_peer(_always(OK + b"junk")) as peer,
        HttpClient(peer.base_url) as client,
    ):
        assert [await _get(client), await _get(client)] == [b"ok", b"ok"]
        assert peer.connections == 2


async def test_early_answer_to_a_body_that_the_peer_does_not_read_is_taken(
    open_peer: Any,
) -> None:
    refusal = (
        b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        await stream.send_all(refusal)
        await stream.send_eof()
        await trio.sleep(0.05)

    timeouts = HttpTimeouts(write_s=5.0)
    async with (
        open_peer(serve) as peer,
        HttpClient(peer.base_url, timeouts=timeouts) as client,
        client.request("POST", "/", body=b"x" * 20_000_000) as response,
    ):
        assert response.status == 413


async def test_nobody_listening_is_a_connect_error() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    async with HttpClient(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(UpstreamConnectError) as caught:
            await _get(client)
    assert caught.value.message == (
        f"no connection to http://127.0.0.1:{port}: Connection refused"
    )
    assert caught.value.__cause__ is not None


async def test_name_that_does_not_resolve_is_a_connect_error() -> None:
    async with HttpClient("http://host.invalid") as client:
        with pytest.raises(UpstreamConnectError, match=r"http://host\.invalid"):
            await _get(client)


async def test_tls_to_a_peer_without_it_is_a_connect_error(open_peer: Any) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with (
        open_peer(serve) as peer,
        HttpClient(peer.base_url.replace("http:", "https:")) as client,
    ):
        with pytest.raises(UpstreamConnectError, match=r"(?i)ssl|tls"):
            await _get(client)


async def test_silent_tls_handshake_is_a_connect_timeout(open_peer: Any) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        while await stream.receive_some():
            pass

    timeouts = HttpTimeouts(connect_s=0.05)
    url = "https:"
    async with open_peer(serve) as peer:
        url += peer.base_url.removeprefix("http:")
        async with HttpClient(url, timeouts=timeouts) as client:
            with pytest.raises(UpstreamTimeoutError) as caught:
                await _get(client)
    assert caught.value.code == "connect_timeout"
    assert caught.value.message == f"no connection to {url} within 0.05 s"


async def test_closed_client_takes_no_request() -> None:
    async with HttpClient("http://127.0.0.1:1") as client:
        pass
    with pytest.raises(RuntimeError, match="is closed"):
        await _get(client)


@pytest.mark.parametrize("value", ["sk\nforged: 1", "sk-é", "sk\x00", " sk", "sk\r"])
def test_header_value_that_http_cannot_carry_is_refused_unshown(value: str) -> None:
    with pytest.raises(ValueError, match="authorization") as caught:
        HttpClient("http://h", headers=[("authorization", value)])
    assert value.strip() not in str(caught.value)


def test_path_that_http_cannot_carry_is_refused() -> None:
    async def ask() -> None:
        async with HttpClient("http://127.0.0.1:1") as client:
            await client.request("GET", "/a b").__aenter__()

    with pytest.raises(ValueError, match="/a b"):
        trio.run(ask)


async def test_secret_header_is_in_no_text(
    open_peer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    headers = [("authorization", "Bearer sk-hidden")]
    async with (
        open_peer(_once(b"garbage\r\n\r\n")) as peer,
        HttpClient(peer.base_url, headers=headers) as client,
    ):
        with pytest.raises(UpstreamProtocolError) as caught:
            await _get(client)
        assert "sk-hidden" not in repr(client) + repr(caught.value) + caplog.text


async def test_certificate_that_nobody_vouches_for_is_a_connect_error(
    open_peer: Any, tmp_path: pathlib.Path
) -> None:
    certificate = await _self_signed(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)

    async def serve(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, context, server_side=True)
        try:
            await tls.do_handshake()
            await _read_request(tls)
            await tls.send_all(OK)
        except trio.BrokenResourceError:
            return

    async with open_peer(serve) as peer:
        url = peer.base_url.replace("http:", "https:")
        async with HttpClient(url) as client:
            with pytest.raises(UpstreamConnectError, match=r"(?i)certificate"):
                await _get(client)
        trusting = ssl.create_default_context(cafile=certificate[0])
        async with HttpClient(url, ssl_context=trusting) as client:
            assert await _get(client) == b"ok"


async def _self_signed(folder: pathlib.Path) -> tuple[str, str]:
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    asked = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    named = ["-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", *asked.split(), *named, "-keyout", key, "-out", cert]
    await trio.run_process(command, capture_stderr=True)
    return cert, key
