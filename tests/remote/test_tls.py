"""TLS: whom the client trusts, and in one sentence why it does not."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events
import pytest
import trio
import trio.testing

from atomr_infer.errors import UpstreamConnectError, UpstreamTimeoutError
from atomr_infer.remote.http.client import HttpClient
from atomr_infer.remote.http.dialing.tcp import tcp_connect
from atomr_infer.remote.http.dialing.tls import verifying_context
from atomr_infer.remote.http.origin import parse_base_url
from atomr_infer.remote.http.phases import HttpTimeouts
from tests.at_once import at_once, stand_still

if TYPE_CHECKING:
    import pathlib

    from trio.testing import MockClock

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def _serve(context: ssl.SSLContext) -> Any:
    async def serve(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, context, server_side=True)
        try:
            while await tls.receive_some():
                await tls.send_all(OK)
        except trio.BrokenResourceError:
            # The client did not like us, and said so.
            return

    return serve


async def _get(client: HttpClient) -> bytes:
    async with client.request("GET", "/") as answer:
        return await answer.read()


def _url(peer: Any) -> str:
    return str(peer.base_url).replace("http:", "https:")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("expired", "its certificate has expired"),
        ("other-host", "its certificate is for another address"),
        ("self-signed", "its certificate is self-signed, and nobody here trusts it"),
    ],
)
async def test_certificate_that_does_not_hold_is_named_in_one_sentence(
    open_peer: Any, certificates: Any, name: str, problem: str
) -> None:
    trusting = verifying_context(ca_file=certificates.authority)
    async with open_peer(_serve(certificates.server(name))) as peer:
        async with HttpClient(_url(peer), ssl_context=trusting) as client:
            with pytest.raises(UpstreamConnectError) as caught:
                await _get(client)
        said = f"no connection to {_url(peer)}: {problem}"
        assert (caught.value.code, caught.value.message) == ("tls", said)


async def test_authority_that_nobody_knows_is_named_with_the_remedy(
    open_peer: Any, certificates: Any
) -> None:
    async with open_peer(_serve(certificates.server("good"))) as peer:
        async with HttpClient(_url(peer)) as client:
            with pytest.raises(UpstreamConnectError, match="SSL_CERT_FILE") as caught:
                await _get(client)
        assert caught.value.code == "tls"


async def test_authorities_are_those_of_the_file_the_environment_names(
    open_peer: Any, certificates: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", certificates.authority)
    async with (
        open_peer(_serve(certificates.server("good"))) as peer,
        HttpClient(_url(peer)) as client,
    ):
        assert await _get(client) == b"ok"


async def test_upstream_that_asks_for_a_certificate_gets_ours(
    open_peer: Any, certificates: Any
) -> None:
    asking = certificates.server("good")
    asking.load_verify_locations(certificates.authority)
    asking.verify_mode = ssl.CERT_REQUIRED
    chain, key = certificates.files("good")
    ours = verifying_context(
        ca_file=certificates.authority, certificate_file=chain, key_file=key
    )
    async with (
        open_peer(_serve(asking)) as peer,
        HttpClient(_url(peer), ssl_context=ours) as client,
    ):
        assert await _get(client) == b"ok"


async def test_name_of_the_host_is_told_in_the_handshake(
    open_peer: Any, certificates: Any
) -> None:
    named: list[str | None] = []
    context = certificates.server("good")
    context.sni_callback = lambda _tls, name, _context: named.append(name)
    trusting = verifying_context(ca_file=certificates.authority)
    async with open_peer(_serve(context)) as peer:
        url = _url(peer).replace("127.0.0.1", "localhost")
        async with HttpClient(url, ssl_context=trusting) as client:
            assert await _get(client) == b"ok"
    assert named == ["localhost"]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 400 Bad\r\n\r\n", "it does not speak TLS; is its URL one of http?"),
        (b"", "it closed the connection in the TLS handshake"),
    ],
)
async def test_peer_without_tls_is_told(
    open_peer: Any, answer: bytes, problem: str
) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        if answer:
            await stream.send_all(answer)

    async with open_peer(serve) as peer, HttpClient(_url(peer)) as client:
        with pytest.raises(UpstreamConnectError) as caught:
            await _get(client)
        said = f"no connection to {_url(peer)}: {problem}"
        assert (caught.value.code, caught.value.message) == ("tls", said)


def test_file_that_holds_no_authorities_or_certificate_is_named(
    tmp_path: pathlib.Path,
) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    with pytest.raises(ValueError, match=r"no authorities in .*empty\.pem"):
        verifying_context(ca_file=str(empty))
    with pytest.raises(ValueError, match=r"no certificate with its key in /not/there"):
        verifying_context(certificate_file="/not/there")


async def _serve_h2(tls: trio.SSLStream[trio.SocketStream]) -> None:
    peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    peer.initiate_connection()
    await tls.send_all(peer.data_to_send())
    while data := bytes(await tls.receive_some()):
        for event in peer.receive_data(data):
            if isinstance(event, h2.events.StreamEnded) and event.stream_id:
                peer.send_headers(event.stream_id, [(":status", "200")])
                peer.send_data(event.stream_id, b"ok", end_stream=True)
        await tls.send_all(peer.data_to_send())


@pytest.mark.parametrize("offered", [["h2", "http/1.1"], ["http/1.1"], []])
async def test_handshake_decides_on_the_version_of_http(
    open_peer: Any, certificates: Any, offered: list[str]
) -> None:
    context = certificates.server("good")
    if offered:
        context.set_alpn_protocols(offered)
    spoken: list[str | None] = []

    async def serve(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        await tls.do_handshake()
        spoken.append(tls.selected_alpn_protocol())
        if spoken[-1] == "h2":
            await _serve_h2(tls)
        else:
            await _serve_http1(tls)

    trusting = verifying_context(ca_file=certificates.authority)
    async with (
        open_peer(serve) as peer,
        HttpClient(_url(peer), http2="alpn", ssl_context=trusting) as client,
    ):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(_get, client)
        assert await _get(client) == b"ok"
    shared = "h2" in offered
    assert peer.connections == (1 if shared else len(spoken))
    assert set(spoken) == {"h2" if shared else "http/1.1" if offered else None}


async def _serve_http1(tls: trio.SSLStream[trio.SocketStream]) -> None:
    while await tls.receive_some():
        await tls.send_all(OK)


async def test_http2_is_not_offered_unless_it_is_asked_for(
    open_peer: Any, certificates: Any
) -> None:
    context = certificates.server("good")
    context.set_alpn_protocols(["h2", "http/1.1"])
    trusting = verifying_context(ca_file=certificates.authority)
    async with (
        open_peer(_serve(context)) as peer,
        HttpClient(_url(peer), ssl_context=trusting) as client,
    ):
        assert await _get(client) == b"ok"


async def test_name_that_does_not_resolve_has_a_code_of_its_own(
    resolver: dict[str, list[str]],
) -> None:
    async with HttpClient("http://nowhere.example") as client:
        with pytest.raises(UpstreamConnectError) as caught:
            await _get(client)
    assert (caught.value.code, caught.value.message) == (
        "dns",
        "no connection to http://nowhere.example: its name does not resolve"
        " (Name or service not known)",
    )


async def test_name_server_that_is_silent_is_a_connect_timeout(
    resolver: dict[str, list[str]],
) -> None:
    async with HttpClient(
        "http://silent.example", timeouts=HttpTimeouts(connect_s=0.05)
    ) as client:
        with pytest.raises(UpstreamTimeoutError) as caught:
            await _get(client)
    assert caught.value.code == "connect_timeout"


async def test_address_that_stalls_does_not_hold_up_the_next_one(
    open_peer: Any, resolver: dict[str, list[str]], mock_clock: MockClock
) -> None:
    mock_clock.rate = 1.0
    answers: list[bytes] = []

    async def get(client: HttpClient) -> None:
        answers.append(await _get(client))

    async def serve(stream: trio.SocketStream) -> None:
        while await stream.receive_some():
            await stream.send_all(OK)

    async with open_peer(serve) as peer:
        port = int(peer.base_url.rpartition(":")[2])
        resolver["two.example"] = ["127.0.0.2", "127.0.0.1"]
        # A listener whose queue is full answers no further connection.
        with socket.socket() as full, socket.socket() as one, socket.socket() as two:
            full.bind(("127.0.0.2", port))
            full.listen(0)
            for filler in (one, two):
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.2", port))
            async with (
                HttpClient(f"http://two.example:{port}") as client,
                trio.open_nursery() as nursery,
            ):
                stand_still(mock_clock)
                nursery.start_soon(get, client)
                await trio.testing.wait_all_tasks_blocked()
                mock_clock.jump(0.2)
                await trio.testing.wait_all_tasks_blocked()
                assert peer.connections == 0
                mock_clock.jump(0.1)
                await at_once(lambda: answers, mock_clock)
    assert answers == [b"ok"]


async def test_small_writes_are_sent_at_once(open_peer: Any) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()

    async with open_peer(serve) as peer:
        stream = await tcp_connect(None)(parse_base_url(peer.base_url).origin)
        assert isinstance(stream, trio.SocketStream)
        assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await stream.aclose()


class _Resolver(trio.abc.HostnameResolver):
    def __init__(self, names: dict[str, list[str]]) -> None:
        self._names = names

    async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name == "silent.example":
            await trio.sleep_forever()
        if name not in self._names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in self._names[name]
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


@pytest.fixture
async def resolver() -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    trio.socket.set_custom_hostname_resolver(_Resolver(names))
    return names
