"""Proxies: which one the environment means, and the way through a real one."""

from __future__ import annotations

import re
import ssl
from typing import Any

import attrs
import h2.config
import h2.connection
import h2.events
import pytest
import trio

from atomr_infer.errors import UpstreamConnectError, UpstreamTimeoutError
from atomr_infer.remote.http.client import HttpClient
from atomr_infer.remote.http.dialing.proxy import (
    DIRECT,
    Proxies,
    parse_proxy,
    proxies_from,
)
from atomr_infer.remote.http.origin import Origin
from atomr_infer.remote.http.phases import HttpTimeouts

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
HTTP = Origin("http", "h.example", 80)
HTTPS = Origin("https", "h.example", 443)


@pytest.mark.parametrize(
    ("environ", "http", "https"),
    [
        ({}, None, None),
        ({"HTTP_PROXY": "http://p:1"}, "http://p:1", None),
        ({"http_proxy": "p:1", "HTTP_PROXY": "http://q:2"}, "http://p:1", None),
        ({"https_proxy": "https://p"}, None, "https://p"),
        ({"HTTPS_PROXY": "[::1]:3128/"}, None, "http://[::1]:3128"),
        ({"ALL_PROXY": "p:1", "HTTPS_PROXY": "q:2"}, "http://p:1", "http://q:2"),
        ({"all_proxy": "p:1"}, "http://p:1", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, None, None),
        ({"http_proxy": "p:1", "REQUEST_METHOD": "GET"}, "http://p:1", None),
        ({"HTTPS_PROXY": "", "https_proxy": ""}, None, None),
        ({"ALL_PROXY": "p:1", "NO_PROXY": "*"}, None, None),
        ({"ALL_PROXY": "p:1", "no_proxy": "x, h.example:443"}, "http://p:1", None),
    ],
)
def test_environment_names_the_proxy_of_each_scheme(
    environ: dict[str, str], http: str | None, https: str | None
) -> None:
    proxies = proxies_from(environ)
    found = [proxies.of(origin) for origin in (HTTP, HTTPS)]
    assert [None if proxy is None else str(proxy) for proxy in found] == [http, https]


@pytest.mark.parametrize(
    ("entry", "host", "excluded"),
    [
        ("example.com", "example.com", True),
        ("example.com", "a.example.com", True),
        ("example.com", "badexample.com", False),
        (".example.com", "a.example.com", True),
        ("*.example.com", "a.example.com", True),
        ("EXAMPLE.com", "example.com", True),
        ("example.com:8000", "example.com", True),
        ("example.com:1", "example.com", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:8000", "10.1.2.3", True),
        ("fd00::/8", "fd00::1", True),
        ("[fd00::1]:8000", "fd00::1", True),
        ("fd00::1", "fd00::1", True),
        ("3", "10.1.2.3", False),
        ("*", "anything", True),
    ],
)
def test_entry_of_no_proxy_means_names_addresses_and_networks(
    entry: str, host: str, excluded: bool
) -> None:
    proxies = proxies_from({"all_proxy": "p:1", "NO_PROXY": f"other, {entry} ,"})
    assert (proxies.of(Origin("http", host, 8000)) is None) is excluded


@pytest.mark.parametrize("host", ["localhost", "a.localhost", "127.0.0.2", "::1"])
def test_this_machine_is_never_asked_for_through_a_proxy(host: str) -> None:
    assert proxies_from({"all_proxy": "p:1"}).of(Origin("http", host, 80)) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("socks5://u:sk-hidden@p:1", "its scheme 'socks5' is not http or https"),
        ("http://u:sk-hidden@", "it names no host"),
        ("http://u:sk-hidden@p:x", "it is not a URL"),
        ("http://u:sk-hidden@[p", "it is not a URL"),
    ],
)
def test_variable_that_is_no_url_of_a_proxy_is_named_without_its_password(
    text: str, problem: str
) -> None:
    said = f"the environment's HTTPS_PROXY is not the URL of a proxy: {problem}"
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        proxies_from({"https_proxy": text})
    assert "sk-hidden" not in str(caught.value)


def test_password_of_a_proxy_is_decoded_and_never_shown() -> None:
    proxy = parse_proxy("http://user:p%40ss@p:1")
    assert proxy.authorization is not None
    assert proxy.authorization.reveal() == "Basic dXNlcjpwQHNz"
    assert str(proxy) == "http://p:1"
    assert "dXNlcjp" not in repr(proxy)


@attrs.define
class RealProxy:
    """A proxy on a socket; knows one upstream, whatever it is called."""

    url: str
    upstream: str = ""
    refuses: bytes = b""
    heads: list[bytes] = attrs.field(factory=list)

    async def serve(self, stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            more = bytes(await stream.receive_some())
            if not more:
                return
            head += more
        self.heads.append(head)
        if self.refuses:
            await stream.send_all(self.refuses)
            return
        host, _, port = self.upstream.removeprefix("http://").partition(":")
        async with await trio.open_tcp_stream(host, int(port)) as onward:
            if head.startswith(b"CONNECT"):
                await stream.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                await onward.send_all(head)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_copy, stream, onward, nursery.cancel_scope)
                await _copy(onward, stream, nursery.cancel_scope)


async def _copy(
    source: trio.SocketStream, target: trio.SocketStream, scope: trio.CancelScope
) -> None:
    try:
        async for data in source:
            await target.send_all(data)
    except trio.BrokenResourceError:
        # One side went; the other is closed behind it.
        pass
    scope.cancel()


@pytest.fixture
async def real(open_peer: Any) -> Any:
    proxy = RealProxy("")
    async with open_peer(proxy.serve) as peer:
        proxy.url = peer.base_url
        yield proxy


async def _answers(stream: trio.abc.Stream) -> None:
    while b"\r\n\r\n" in (data := bytes(await stream.receive_some())):
        assert data.startswith(b"GET ")
        await stream.send_all(OK)


async def _get(client: HttpClient) -> bytes:
    async with client.request("GET", "/x?y") as answer:
        return await answer.read()


async def test_request_in_clear_text_is_read_by_the_proxy(
    open_peer: Any, real: RealProxy
) -> None:
    url = real.url.replace("//", "//user:pass@")
    proxies = Proxies(http=parse_proxy(url))
    async with open_peer(_answers) as peer:
        real.upstream = peer.base_url
        async with HttpClient("http://h.example:80/v1", proxies=proxies) as client:
            assert [await _get(client), await _get(client)] == [b"ok", b"ok"]
            assert repr(client).startswith(
                f"<HttpClient http://h.example by {real.url}: 0 active, 1 idle"
            )
    assert real.heads == [
        b"GET http://h.example/v1/x?y HTTP/1.1\r\nhost: h.example\r\n"
        b"proxy-authorization: Basic dXNlcjpwYXNz\r\n\r\n"
    ]


async def test_request_over_tls_goes_through_a_tunnel_that_the_proxy_cannot_read(
    open_peer: Any, real: RealProxy, certificates: Any
) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, certificates.server("good"), server_side=True)
        await _answers(tls)

    url = real.url.replace("//", "//user:pass@")
    async with open_peer(serve) as peer:
        real.upstream = peer.base_url
        context = ssl.create_default_context(cafile=certificates.authority)
        async with HttpClient(
            "https://h.example",
            proxies=Proxies(https=parse_proxy(url)),
            ssl_context=context,
        ) as client:
            assert [await _get(client), await _get(client)] == [b"ok", b"ok"]
    assert real.heads == [
        b"CONNECT h.example:443 HTTP/1.1\r\nhost: h.example:443\r\n"
        b"proxy-authorization: Basic dXNlcjpwYXNz\r\n\r\n"
    ]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (
            b"HTTP/1.1 407 Authenticate\r\ncontent-length: 1000\r\n\r\n",
            "it wants other credentials (status 407)",
        ),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\nwhy", "it answered with status 502"),
        (b"SSH-2.0\r\n\r\n", "the head of its answer is malformed"),
        (b"HTTP/1.1 20", "it closed the connection"),
    ],
)
async def test_proxy_that_refuses_a_tunnel_is_named_and_its_password_is_not(
    real: RealProxy, answer: bytes, problem: str
) -> None:
    real.refuses = answer
    url = real.url.replace("//", "//user:sk-hidden@")
    async with HttpClient(
        "https://h.example", proxies=Proxies(https=parse_proxy(url))
    ) as client:
        with pytest.raises(UpstreamConnectError) as caught:
            await _get(client)
        assert (caught.value.code, caught.value.message) == (
            "proxy",
            f"no connection to https://h.example through the proxy {real.url}:"
            f" {problem}",
        )
        assert "0 of 1024 connections" in repr(client)


async def test_proxy_that_refuses_a_request_in_clear_text_is_no_upstreams_answer(
    real: RealProxy,
) -> None:
    real.refuses = b"HTTP/1.1 407 Authenticate\r\ncontent-length: 0\r\n\r\n"
    async with HttpClient(
        "http://h.example", proxies=Proxies(http=parse_proxy(real.url))
    ) as client:
        with pytest.raises(UpstreamConnectError, match="status 407") as caught:
            await _get(client)
        assert (caught.value.code, client.active, client.idle) == ("proxy", 0, 0)


async def test_proxy_that_is_silent_or_not_there_is_named(open_peer: Any) -> None:
    async def silent(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with open_peer(silent) as peer:
        proxies = Proxies(https=parse_proxy(peer.base_url))
        limits = HttpTimeouts(connect_s=0.05)
        async with HttpClient(
            "https://h.example", proxies=proxies, timeouts=limits
        ) as client:
            with pytest.raises(UpstreamTimeoutError) as late:
                await _get(client)
    named = f"no connection to https://h.example through the proxy {peer.base_url}"
    assert late.value.message == f"{named} within 0.05 s"
    async with HttpClient("https://h.example", proxies=proxies) as client:
        with pytest.raises(UpstreamConnectError, match="refused") as gone:
            await _get(client)
    assert gone.value.message.startswith(named)


async def test_environment_is_read_when_nothing_is_said(
    open_peer: Any, real: RealProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", real.url)
    async with open_peer(_answers) as peer:
        real.upstream = peer.base_url
        async with HttpClient("http://h.example") as client:
            assert await _get(client) == b"ok"
        async with HttpClient(peer.base_url) as client:
            assert await _get(client) == b"ok"
        direct = HttpClient("http://h.example", proxies=DIRECT)
        assert repr(direct).startswith("<HttpClient http://h.example: ")
    assert len(real.heads) == 1


async def test_first_bytes_of_the_upstream_behind_the_proxys_answer_are_not_lost(
    open_peer: Any,
) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        assert (await stream.receive_some(65536)).startswith(b"CONNECT h.example:80 ")
        peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        peer.initiate_connection()
        await stream.send_all(b"HTTP/1.1 200 OK\r\na: b\r\n\r\n" + peer.data_to_send())
        while data := bytes(await stream.receive_some(65536)):
            for event in peer.receive_data(data):
                if isinstance(event, h2.events.StreamEnded) and event.stream_id:
                    peer.send_headers(event.stream_id, [(":status", "200")])
                    peer.send_data(event.stream_id, b"ok", end_stream=True)
            await stream.send_all(peer.data_to_send())

    async with (
        open_peer(serve) as peer,
        HttpClient(
            "http://h.example",
            http2="prior-knowledge",
            proxies=Proxies(http=parse_proxy(peer.base_url)),
        ) as client,
    ):
        # The second one waits for the settings, which are those bytes.
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_get, client)
                nursery.start_soon(_get, client)
        assert peer.connections == 1
