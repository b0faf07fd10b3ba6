"""Addresses that a client does not get through to."""

from __future__ import annotations

import ssl

import openai
import pytest
import trio

from atomr_infer.testing.upstream import make_tls, open_openai_upstream, refused_origin
from tests.testing_kit.sdks import QUIET, Ask, chat_trio

pytestmark = pytest.mark.filterwarnings(QUIET)


async def test_client_that_does_not_know_the_authority_fails_in_the_handshake() -> None:
    async with open_openai_upstream(tls=make_tls().server) as fake:
        assert fake.origin.startswith("https://127.0.0.1:")
        with pytest.raises(openai.APIConnectionError):
            await chat_trio(fake.base_url, Ask())
        port = int(fake.origin.rpartition(":")[2])
        stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", port)
        with pytest.raises(trio.BrokenResourceError) as caught:
            await stream.do_handshake()
        assert "CERTIFICATE_VERIFY_FAILED" in repr(caught.value.__cause__)
        await trio.aclose_forcefully(stream)
        assert (fake.connections, fake.requests) == (0, [])


async def test_client_that_knows_the_authority_is_served() -> None:
    tls = make_tls()
    async with open_openai_upstream(tls=tls.server, api_key="k") as fake:
        host, _, port = fake.origin.removeprefix("https://").partition(":")
        stream = await trio.open_ssl_over_tcp_stream(
            host, int(port), ssl_context=tls.client, https_compatible=True
        )
        async with stream:
            await stream.send_all(
                b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\n\r\n"
            )
            assert (await stream.receive_some(15)) == b"HTTP/1.1 200 OK"


async def test_client_that_speaks_no_tls_is_dropped_and_others_are_served() -> None:
    tls = make_tls()
    async with open_openai_upstream(tls=tls.server) as fake:
        port = int(fake.origin.rpartition(":")[2])
        async with await trio.open_tcp_stream("127.0.0.1", port) as plain:
            await plain.send_all(b"GET / HTTP/1.1\r\n\r\n")
            with trio.fail_after(5):
                assert b"HTTP" not in await plain.receive_some()
        secure = await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", port, ssl_context=tls.client
        )
        await secure.do_handshake()
        await trio.aclose_forcefully(secure)


async def test_held_port_refuses_connections() -> None:
    with refused_origin() as origin:
        port = int(origin.rpartition(":")[2])
        with pytest.raises(OSError, match=r"refused|failed"):
            await trio.open_tcp_stream("127.0.0.1", port)


def test_authority_of_one_pair_is_not_that_of_another() -> None:
    assert isinstance(make_tls().client, ssl.SSLContext)
    assert make_tls().client.get_ca_certs() != make_tls().client.get_ca_certs()
