"""TLS in front of the same routes, on a port that then takes nothing else."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trustme

from atomr_infer.cluster import Cluster
from atomr_infer.errors import ConfigError
from atomr_infer.gateway.listening.server_tls import server_context
from tests.gateway.http import head, parse
from tests.gateway.http1 import Client
from tests.gateway.test_lanes import ask_h2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from atomr_infer.gateway.gateway import Gateway


@attrs.frozen
class Pair:
    """A certificate for 127.0.0.1, its key, and who signed it."""

    authority: trustme.CA
    certificate: str
    private_key: str

    def client_context(self, protocol: str) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        context.set_alpn_protocols([protocol])
        return context


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    chain, key = folder / "chain.pem", folder / "key.pem"
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(chain), append=True)
    issued.private_key_pem.write_to_path(str(key))
    return Pair(authority, str(chain), str(key))


@pytest.fixture
async def gateway(pair: Pair) -> AsyncIterator[Gateway]:
    context = server_context(pair.certificate, pair.private_key)
    async with Cluster.connect("inproc://tls") as cluster:
        yield await cluster.serve("127.0.0.1:0", tls=context)


def port_of(gateway: Gateway) -> int:
    return int(gateway.url.rpartition(":")[2])


async def connect(
    gateway: Gateway, pair: Pair, protocol: str
) -> trio.SSLStream[trio.SocketStream]:
    stream = await trio.open_tcp_stream("127.0.0.1", port_of(gateway))
    tls = trio.SSLStream(
        stream,
        pair.client_context(protocol),
        server_hostname="127.0.0.1",
        https_compatible=True,
    )
    await tls.do_handshake()
    assert tls.selected_alpn_protocol() == protocol
    return tls


async def test_http11_is_answered_behind_tls(gateway: Gateway, pair: Pair) -> None:
    assert gateway.url.startswith("https://127.0.0.1:")
    async with await connect(gateway, pair, "http/1.1") as stream:
        await stream.send_all(head("GET", "/healthz", 0))
        with trio.fail_after(10):
            answer = parse(b"".join([piece async for piece in stream]))
    assert (answer.status, answer.json) == (200, {"status": "alive"})


async def test_http2_is_answered_behind_tls(gateway: Gateway, pair: Pair) -> None:
    async with await connect(gateway, pair, "h2") as stream:
        with trio.fail_after(10):
            body = await ask_h2(Client(stream), in_pieces=False, path="/healthz")  # type: ignore[arg-type]
    assert body == b'{"status":"alive"}'


async def test_clear_text_is_refused_where_tls_is_served(gateway: Gateway) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", port_of(gateway))
    async with stream:
        await stream.send_all(head("GET", "/healthz", 0))
        answer = parse(await Client(stream).rest())
    assert answer.status == 400
    assert answer.json["error"]["message"] == "this port takes TLS only: use https"


async def test_a_handshake_that_fails_leaves_the_others_alone(
    gateway: Gateway, pair: Pair
) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", port_of(gateway))
    async with stream:
        await stream.send_all(b"\x16\x03\x01\x00\x05hello")
        await Client(stream).rest()
    await test_http11_is_answered_behind_tls(gateway, pair)


@pytest.mark.parametrize("missing", ["certificate", "private_key"])
def test_a_file_that_is_not_there_is_one_clear_sentence(
    pair: Pair, missing: str, tmp_path: Path
) -> None:
    files = {"certificate": pair.certificate, "private_key": pair.private_key}
    files[missing] = str(tmp_path / "none.pem")
    with pytest.raises(ConfigError, match="No such file or directory"):
        server_context(**files)


def test_a_key_of_another_certificate_is_refused(pair: Pair, tmp_path: Path) -> None:
    other = tmp_path / "key.pem"
    trustme.CA().issue_cert("a").private_key_pem.write_to_path(str(other))
    with pytest.raises(ConfigError, match=r"(?i)key values mismatch"):
        server_context(pair.certificate, str(other))
