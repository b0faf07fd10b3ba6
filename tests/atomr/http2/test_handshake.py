"""Who is let in, who is not, and what either side is told."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from atomr.crdt.origin import Origin
from atomr.errors import LinkRefusedError
from atomr.http2 import Credentials, LinkOptions, Reason, frames, node_uri
from atomr.http2.events import Lane
from atomr.http2.handshake import Self, greet_dialed
from atomr.http2.protocol import LinkProtocol
from atomr.http2.tls import TlsPipe
from atomr_infer.cli.certificates import make_node
from tests.atomr.http2.conftest import (
    CLUSTER,
    COOKIE,
    WITHIN_S,
    Authority,
    Files,
    Get,
    Node,
    Shelf,
    dial,
    refused,
    until,
)

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from tests.atomr.http2.conftest import OpenNode


async def test_a_certificate_of_another_authority_is_refused_by_both_sides(
    open_node: OpenNode, stranger: Authority
) -> None:
    async with (
        open_node("a", credentials=stranger.credentials("a")) as a,
        open_node("b") as b,
    ):
        error = await refused(a, b)
        assert error.reason == "wrong_certificate"
        assert error.detail == "its certificate is of another authority"
        await until(lambda: b.refused)
        assert b.refused == ["wrong_certificate"]
        error = await refused(b, a)
        assert error.reason == "wrong_certificate"


async def test_a_node_whose_certificate_is_not_believed_learns_it(
    open_node: OpenNode, stranger: Authority, authority: Authority
) -> None:
    # It believes the other side, and is not believed itself.
    alien = stranger.files("a")
    mixed = Files(authority.file, alien.certificate, alien.key).load()
    async with open_node("a", credentials=mixed) as a, open_node("b") as b:
        error = await refused(a, b)
        assert error.reason == "wrong_certificate"
        assert error.detail.startswith("it does not accept our certificate: ")
        await until(lambda: b.refused)
        assert b.refused == ["wrong_certificate"]


async def test_an_expired_certificate_is_refused(
    open_node: OpenNode, authority: Authority
) -> None:
    old = authority.credentials("old", days=-1)
    async with open_node("old", credentials=old) as a, open_node("b") as b:
        assert (await refused(b, a)).detail == "its certificate has expired"
        assert (await refused(a, b)).reason == "wrong_certificate"


async def test_the_right_authority_with_another_name_is_refused(
    open_node: OpenNode, authority: Authority
) -> None:
    async with (
        open_node("a") as a,
        open_node("b", credentials=authority.credentials("c")) as b,
    ):
        # The one that dials looks at the certificate before it says a word.
        error = await refused(a, b)
        assert error.reason == "wrong_name"
        assert error.detail == "its certificate is for node:test/c"
        # The one that is dialed compares it with the hello, and tells.
        error = await refused(b, a)
        assert error.reason == "wrong_name"
        assert error.detail == "the peer refuses this node"
        await until(lambda: "wrong_name" in a.refused)
        assert (len(a.links.all()), len(b.links.all())) == (0, 0)


async def test_another_cookie_is_refused_by_whoever_is_dialed(
    open_node: OpenNode,
) -> None:
    async with (
        open_node("a", cookie=b"another cookie of 16 bytes") as a,
        open_node("b") as b,
    ):
        for one, other in ((a, b), (b, a)):
            error = await refused(one, other)
            assert error.reason == "wrong_cookie"
            await until(lambda other=other: other.refused == ["wrong_cookie"])  # type: ignore[misc]
            assert one.links.all() == ()


async def test_trap_17_a_certificate_for_another_cluster_is_refused(
    open_node: OpenNode, authority: Authority
) -> None:
    credentials = authority.credentials("a", cluster="prod")
    async with (
        open_node("a", cluster="prod", credentials=credentials) as a,
        open_node("b") as b,
    ):
        error = await refused(a, b)
        assert error.reason == "wrong_cluster"
        assert error.detail == "its certificate is for node:test/b"
        assert (await refused(b, a)).reason == "wrong_cluster"


async def test_trap_17_a_hello_for_another_cluster_than_the_certificates_is_refused(
    open_node: OpenNode, authority: Authority
) -> None:
    async with open_node("b") as b:
        pipe, protocol = await connect(b, authority.credentials("a"))
        protocol.outlets.put(
            Lane.CTL, frames.Hello(frames.VERSION, "prod", "a", 1, b"x" * 32)
        )
        await pipe.send(protocol.data_to_send(65_536))
        await until(lambda: b.refused)
        assert b.refused == ["wrong_cluster"]
        pipe.close()


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (frames.Hello(2, CLUSTER, "a", 1, b"x" * 32), "wrong_version"),
        (frames.Hello(1, CLUSTER, "b", 1, b"x" * 32), "wrong_name"),
        (frames.Hello(1, CLUSTER, "A/../b", 1, b"x" * 32), "wrong_name"),
        (frames.Hello(1, CLUSTER, "a", 1, b"x" * 32), "wrong_cookie"),
        (frames.Cancel(1), "malformed"),
        (frames.Goodbye("gone"), "malformed"),
    ],
)
async def test_a_first_message_that_is_no_good_hello_is_refused(
    open_node: OpenNode, authority: Authority, frame: frames.Frame, reason: str
) -> None:
    async with open_node("b") as b:
        pipe, protocol = await connect(b, authority.credentials("a"))
        protocol.outlets.put(Lane.CTL, frame)
        await pipe.send(protocol.data_to_send(65_536))
        await until(lambda: b.refused)
        assert b.refused == [reason]
        assert b.links.all() == ()
        pipe.close()


async def test_a_hello_that_was_heard_elsewhere_opens_nothing(
    open_node: OpenNode, authority: Authority
) -> None:
    # What "a" sends to a node that it trusts, that node cannot use at another one.
    heard: list[frames.Hello] = []
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    us = Self(CLUSTER, Origin("a", 1), COOKIE, authority.credentials("a"))

    async def listen() -> None:
        stream = await listener.accept()
        mallory = authority.credentials("mallory")
        pipe = TlsPipe(stream, mallory.accepting, dialed=False)
        await pipe.handshake()
        protocol = LinkProtocol(dialed=False, now_s=0.0)
        while not heard:
            events = protocol.receive(await pipe.receive(), now_s=0.0)
            heard.extend(e for e in events if isinstance(e, frames.Hello))
        pipe.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        port = listener.socket.getsockname()[1]
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        with pytest.raises(LinkRefusedError):
            await greet_dialed(stream, us, node="mallory")
    await listener.aclose()

    async with open_node("b") as b:
        for name, expected in (("mallory", "wrong_name"), ("a", "wrong_cookie")):
            pipe, protocol = await connect(b, authority.credentials(name))
            protocol.outlets.put(Lane.CTL, heard[0])
            await pipe.send(protocol.data_to_send(65_536))
            await until(lambda expected=expected: expected in b.refused)  # type: ignore[misc]
            pipe.close()


async def test_a_node_does_not_link_with_its_own_name(open_node: OpenNode) -> None:
    async with open_node("a") as a, open_node("a", boot=2) as twin:
        error = await refused(a, twin)
        assert error.reason == "wrong_name"
        await until(lambda: twin.refused)


@pytest.mark.parametrize("uris", [(), ("node:test/a", "node:test/b")])
async def test_a_certificate_names_exactly_one_node(
    open_node: OpenNode, authority: Authority, tmp_path: Path, uris: tuple[str, ...]
) -> None:
    made = with_uris(authority, uris)
    (tmp_path / "x.pem").write_bytes(made[0])
    (tmp_path / "x.key").write_bytes(made[1])
    files = Files(authority.file, tmp_path / "x.pem", tmp_path / "x.key")
    async with open_node("a", credentials=files.load()) as a, open_node("b") as b:
        error = await refused(a, b)
        assert error.reason == "wrong_name"
        await until(lambda: b.refused)
        assert b.refused == ["wrong_name"]


async def test_a_peer_without_a_certificate_is_refused(open_node: OpenNode) -> None:
    async with open_node("b") as b:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        stream = await trio.open_tcp_stream("127.0.0.1", b.port)
        pipe = TlsPipe(stream, context, dialed=True)
        await pipe.handshake()
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
            await pipe.receive()
        await until(lambda: b.refused)
        assert b.refused == ["wrong_certificate"]
        pipe.close()


async def test_tls_before_1_3_is_refused(
    open_node: OpenNode, authority: Authority
) -> None:
    async with open_node("b") as b:
        old = authority.credentials("a").dialing
        old.minimum_version = ssl.TLSVersion.TLSv1_2
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        stream = await trio.open_tcp_stream("127.0.0.1", b.port)
        pipe = TlsPipe(stream, old, dialed=True)
        with pytest.raises(ssl.SSLError):
            await pipe.handshake()
        await until(lambda: b.refused)
        pipe.close()


@pytest.mark.parametrize(
    "words", [b"GET / HTTP/1.1\r\nhost: b\r\n\r\n", b"\0" * 100, b"\x16\x03\x01"]
)
async def test_a_peer_that_speaks_no_tls_is_refused(
    open_node: OpenNode, words: bytes
) -> None:
    async with open_node("b", handshake_timeout_s=0.3) as b:
        stream = await trio.open_tcp_stream("127.0.0.1", b.port)
        await stream.send_all(words)
        await until(lambda: b.refused)
        assert b.refused[0] in {"wrong_certificate", "too_slow"}
        await stream.aclose()


async def test_a_peer_that_gives_up_in_the_handshake_is_not_one_without_certificate(
    open_node: OpenNode, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_node("b") as b:
        # As of a node that stood still for longer than its peers wait.
        stream = await trio.open_tcp_stream("127.0.0.1", b.port)
        await stream.send_all(b"\x16\x03\x01")
        await stream.aclose()
        await until(lambda: b.refused)
        assert b.refused == ["peer_closed"]
    assert "closed the connection in the TLS handshake, as one does" in caplog.text


async def test_a_peer_that_says_nothing_is_dropped_in_time(
    open_node: OpenNode, authority: Authority, mock_clock: MockClock
) -> None:
    mock_clock.rate = 1
    async with open_node("b", handshake_timeout_s=60.0) as b:
        silent = await trio.open_tcp_stream("127.0.0.1", b.port)
        half, _ = await connect(b, authority.credentials("a"))
        await until(lambda: b.links._handshakes == 2)
        assert b.refused == []
        mock_clock.jump(60.0)
        await until(lambda: len(b.refused) == 2)
        assert b.refused == ["too_slow", "too_slow"]
        with trio.fail_after(WITHIN_S):
            assert await silent.receive_some() == b""
        half.close()
        await silent.aclose()


async def test_dialing_a_peer_that_says_nothing_ends_in_time(
    open_node: OpenNode,
) -> None:
    async with open_node("a", handshake_timeout_s=0.1) as a:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        port = listener.socket.getsockname()[1]
        with pytest.raises(LinkRefusedError) as caught:
            await a.links.dial("b", "127.0.0.1", port)
        assert caught.value.reason == Reason.TOO_SLOW
        await listener.aclose()


async def test_a_dial_to_where_nobody_is_says_what_the_system_says(
    open_node: OpenNode,
) -> None:
    async with open_node("a") as a:
        with socket.socket() as bound:
            # Nobody else gets the port, and nobody listens there.
            bound.bind(("127.0.0.1", 0))
            port = bound.getsockname()[1]
            with pytest.raises(LinkRefusedError) as caught:
                await a.links.dial("b", "127.0.0.1", port)
        assert caught.value.reason == Reason.UNREACHABLE
        told = f"nobody answers at 127.0.0.1:{port} (Connection refused)"
        assert caught.value.detail == told
        trio.socket.set_custom_hostname_resolver(_NoNames())
        with pytest.raises(LinkRefusedError, match=r"\(Name or service not known\)"):
            await a.links.dial("b", "no.such.name.invalid", port)


class _NoNames(trio.abc.HostnameResolver):
    """As the system's for a name that is not; nobody outside of here is asked."""

    async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, *_: Any) -> Any:
        raise NotImplementedError


async def test_a_crowd_in_the_handshake_does_not_grow_without_a_bound(
    open_node: OpenNode, mock_clock: MockClock
) -> None:
    mock_clock.rate = 1
    async with open_node("a") as a, open_node("b", handshake_timeout_s=60.0) as b:
        crowd = [await trio.open_tcp_stream("127.0.0.1", b.port) for _ in range(64)]
        await until(lambda: b.links._handshakes == 64)
        late = await trio.open_tcp_stream("127.0.0.1", b.port)
        with trio.fail_after(WITHIN_S):
            assert await late.receive_some() == b""
        assert b.refused == []
        mock_clock.jump(60.0)
        await until(lambda: len(b.refused) == 64)
        await dial(a, b)
        for stream in (*crowd, late):
            await stream.aclose()


async def test_certificates_are_replaced_without_dropping_a_link(
    open_node: OpenNode, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(authority.pem.certificate + stranger.pem.certificate)
    shelf = Shelf()
    async with (
        open_node("a") as a,
        open_node("b", {"shelf": shelf.service()}) as b,
        open_node("c", credentials=stranger.credentials("c")) as c,
    ):
        link = await dial(a, b)
        assert (await refused(c, b)).reason == "wrong_certificate"
        # First everybody believes the new authority too, then certificates change.
        files = stranger.files("b")
        b.links.reload(Files(both, files.certificate, files.key).load())
        assert await link.call("shelf", Get("x"), returns=int | None) is None
        assert link.down is None
        other = await dial(c, b)
        assert await other.call("shelf", Get("x"), returns=int | None) is None
        await link.close()
        # The old authority's nodes do not believe the new certificate of "b".
        assert (await refused(a, b)).reason == "wrong_certificate"


def test_files_that_are_no_credentials_are_named(
    authority: Authority, tmp_path: Path
) -> None:
    good = authority.files("a")
    other = authority.files("b")
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for files, named in (
        (Files(empty, good.certificate, good.key), empty),
        (Files(good.ca, empty, good.key), empty),
        (Files(good.ca, good.certificate, other.key), other.key),
        (Files(good.ca, tmp_path / "none.pem", good.key), tmp_path / "none.pem"),
    ):
        with pytest.raises(ValueError, match=str(named)):
            files.load()


def test_options_that_cannot_work_are_refused(authority: Authority) -> None:
    credentials = authority.credentials("a")
    origin = Origin("a", 1)
    with pytest.raises(ValueError, match="at least 16"):
        LinkOptions(CLUSTER, origin, b"short", credentials)
    with pytest.raises(ValueError, match="node 'a/b'"):
        LinkOptions(CLUSTER, Origin("a/b", 1), COOKIE, credentials)
    with pytest.raises(ValueError, match="cluster ''"):
        LinkOptions("", origin, COOKIE, credentials)
    with pytest.raises(ValueError, match="heartbeat_interval_s"):
        LinkOptions(CLUSTER, origin, COOKIE, credentials, heartbeat_interval_s=0.0)


def test_no_secret_is_shown(authority: Authority) -> None:
    options = LinkOptions(CLUSTER, Origin("a", 1), COOKIE, authority.credentials("a"))
    assert COOKIE.decode() not in repr(options)


async def connect(node: Node, credentials: Credentials) -> tuple[TlsPipe, LinkProtocol]:
    """Return a connection that has said nothing after TLS but the preface."""
    stream = await trio.open_tcp_stream("127.0.0.1", node.port)
    pipe = TlsPipe(stream, credentials.dialing, dialed=True)
    await pipe.handshake()
    protocol = LinkProtocol(dialed=True, now_s=0.0)
    await pipe.send(protocol.data_to_send(65_536))
    return pipe, protocol


def with_uris(authority: Authority, uris: tuple[str, ...]) -> tuple[bytes, bytes]:
    """Return a certificate with these URIs, which no command of ours makes."""
    template = make_node(authority.pem, node_uri(CLUSTER, "x"))
    old = x509.load_pem_x509_certificate(template.certificate)
    signer = serialization.load_pem_private_key(authority.pem.key, password=None)
    names = [x509.UniformResourceIdentifier(uri) for uri in uris]
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .public_key(old.public_key())
        .serial_number(old.serial_number)
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(old.not_valid_after_utc)
        .add_extension(
            x509.SubjectAlternativeName([*names, x509.DNSName("localhost")]),
            critical=False,
        )
    )
    made = builder.sign(signer, hashes.SHA256())  # type: ignore[arg-type]
    return made.public_bytes(serialization.Encoding.PEM), template.key
