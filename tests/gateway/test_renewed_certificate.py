"""A certificate is another one for who comes from now on; who is there stays."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from atomr_infer.cluster import Cluster
from atomr_infer.config.gateway import GatewayConfig
from atomr_infer.gateway.listening.server_tls import server_context
from tests.gateway.http import head, parse

if TYPE_CHECKING:
    from pathlib import Path


def issue(authority: trustme.CA, folder: Path) -> ssl.SSLContext:
    """A server's context, with a certificate of an authority's."""
    folder.mkdir()
    issued = authority.issue_cert("127.0.0.1")
    chain, key = folder / "chain.pem", folder / "key.pem"
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(chain), append=True)
    issued.private_key_pem.write_to_path(str(key))
    return server_context(str(chain), str(key))


async def connect(
    port: int, authority: trustme.CA
) -> trio.SSLStream[trio.SocketStream]:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.set_alpn_protocols(["http/1.1"])
    tcp = await trio.open_tcp_stream("127.0.0.1", port)
    stream = trio.SSLStream(
        tcp, context, server_hostname="127.0.0.1", https_compatible=True
    )
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError:
        await tcp.aclose()
        raise
    return stream


async def healthy(stream: trio.SSLStream[trio.SocketStream]) -> bool:
    """Whether a connection is answered; it is its last request."""
    await stream.send_all(head("GET", "/healthz", 0))
    answer = parse(b"".join([piece async for piece in stream]))
    return answer.status == 200


async def test_who_connects_sees_the_new_one_and_who_is_there_is_served(
    tmp_path: Path,
) -> None:
    old, new = trustme.CA(), trustme.CA()
    async with Cluster.connect("inproc://tls") as cluster:
        tls = issue(old, tmp_path / "old")
        gateway = await cluster.serve("127.0.0.1:0", tls=tls)
        port = int(gateway.url.rpartition(":")[2])
        before = await connect(port, old)
        renewed = issue(new, tmp_path / "new")
        gateway.change(cluster.setup(GatewayConfig(), tls=renewed))
        async with before, await connect(port, new) as after:
            assert await healthy(before)
            assert await healthy(after)
        with pytest.raises(trio.BrokenResourceError):
            await connect(port, old)


async def test_tls_begins_with_the_next_connection(tmp_path: Path) -> None:
    authority = trustme.CA()
    async with Cluster.connect("inproc://tls") as cluster:
        gateway = await cluster.serve("127.0.0.1:0")
        assert gateway.url.startswith("http://")
        tls = issue(authority, tmp_path / "tls")
        gateway.change(cluster.setup(GatewayConfig(), tls=tls))
        assert gateway.url.startswith("https://")
        port = int(gateway.url.rpartition(":")[2])
        async with await connect(port, authority) as stream:
            assert await healthy(stream)
