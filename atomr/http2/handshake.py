"""How two nodes make sure of each other before a link begins.

TLS first, with both certificates.  Then each side says hello on ``ctl``: the one that
dialed first, the other one when it believes it.  A refusal is a GOAWAY with one word
of ``Reason``, so that an operator reads it on the side that was refused.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import attrs
import trio

from atomr.crdt.origin import Origin
from atomr.errors import LinkRefusedError
from atomr.http2 import frames
from atomr.http2.events import Event, Lane, PeerLeft, Reason
from atomr.http2.identity import SCHEME, Seal, check_name, node_uri, node_uris
from atomr.http2.problems import PeerError
from atomr.http2.protocol import LinkProtocol
from atomr.http2.tls import Credentials, TlsPipe

if TYPE_CHECKING:
    from collections.abc import Callable

_WRITE_BYTES = 65_536


@attrs.frozen
class Greeted:
    """A connection whose both sides believe each other.

    Attributes:
        pipe: moves its bytes.
        protocol: knows what they mean.
        peer: the other node.
        early: what came together with its hello.
    """

    pipe: TlsPipe
    protocol: LinkProtocol
    peer: Origin
    early: tuple[Event, ...]


@attrs.frozen
class Self:
    """Who we are.

    Attributes:
        cluster: our cluster.
        origin: our name and boot id.
        cookie: the cluster's secret.
        credentials: our certificate, and whom we believe.
    """

    cluster: str
    origin: Origin
    cookie: bytes = attrs.field(repr=False)
    credentials: Credentials


async def greet_dialed(
    stream: trio.SocketStream,
    us: Self,
    *,
    node: str | None,
    wanted: Callable[[str], bool] = lambda _: True,
) -> Greeted:
    """Make sure of the node that we have dialed.

    Args:
        stream: the connection; closed where this raises.
        us: who we are.
        node: whom we want; None: whoever it is.
        wanted: asked by name, before we say hello, where ``node`` is None; False:
            there is a link with that node already.

    Raises:
        LinkRefusedError: one side does not believe the other; ``peer`` is its name,
            where its certificate says it.
    """
    greeting = _Greeting(stream, us, dialed=True, peer=node or "an unknown node")
    try:
        uri = await greeting.secure()
        if node is None:
            greeting.peer = name = uri.removeprefix(node_uri(us.cluster, "x")[:-1])
            if name == us.origin.name:
                greeting.refuse(Reason.WRONG_NAME, "it has the name of this node")
            if not wanted(name):
                greeting.refuse(Reason.DUPLICATE, "there is a link with it already")
        elif uri != node_uri(us.cluster, node):
            greeting.refuse(Reason.WRONG_NAME, f"its certificate is for {uri}")
        greeting.say_hello()
        await greeting.write()
        hello, early = await greeting.hear_hello()
    except BaseException:
        greeting.pipe.close()
        raise
    return Greeted(
        greeting.pipe, greeting.protocol, Origin(hello.node, hello.boot), early
    )


async def greet_accepted(
    stream: trio.SocketStream, us: Self, *, admit: Callable[[Origin], Origin | None]
) -> Greeted:
    """Make sure of a node that has dialed us.

    Args:
        stream: the connection; closed where this raises.
        us: who we are.
        admit: asked last; returns the life of that node, this or a later one, with
            which there is a link that stays.

    Raises:
        LinkRefusedError: one side does not believe the other.
    """
    greeting = _Greeting(stream, us, dialed=False, peer="an unknown node")
    try:
        greeting.peer = await greeting.secure()
        await greeting.write()
        hello, early = await greeting.hear_hello()
        peer = Origin(hello.node, hello.boot)
        linked = admit(peer)
        if linked is not None:
            greeting.refuse_for(linked, peer)
        greeting.say_hello()
        await greeting.write()
    except BaseException:
        greeting.pipe.close()
        raise
    return Greeted(greeting.pipe, greeting.protocol, peer, early)


class _Greeting:
    """The handshake of one connection, step by step."""

    def __init__(
        self, stream: trio.SocketStream, us: Self, *, dialed: bool, peer: str
    ) -> None:
        credentials = us.credentials
        context = credentials.dialing if dialed else credentials.accepting
        self.peer = peer
        try:
            self.pipe = TlsPipe(stream, context, dialed=dialed)
        except OSError as error:
            raise self._error(Reason.BROKEN, f"before TLS: {error}") from error
        self._us = us
        self._dialed = dialed
        self._uri = ""

    async def secure(self) -> str:
        """Do the TLS handshake; return the node that the certificate names."""
        try:
            await self.pipe.handshake()
        except ssl.SSLError as error:
            raise self._error(_tls_reason(error), tls_problem(error)) from error
        except OSError as error:
            raise self._error(Reason.BROKEN, f"in the handshake: {error}") from error
        self.protocol = LinkProtocol(dialed=self._dialed, now_s=trio.current_time())
        der, certificate = self.pipe.certificate()
        self._seal = Seal(self._us.cookie, self._us.credentials.certificate, der)
        if not self.pipe.speaks_http2:
            self.refuse(Reason.MALFORMED, "it speaks no HTTP/2")
        uris = node_uris(certificate)
        if len(uris) != 1:
            self.refuse(
                Reason.WRONG_NAME,
                f"its certificate names {len(uris)} nodes ({SCHEME}CLUSTER/NAME as a"
                " URI among the subject alternative names), not one",
            )
        self._uri = uris[0]
        if not self._uri.startswith(node_uri(self._us.cluster, "x")[:-1]):
            self.refuse(Reason.WRONG_CLUSTER, f"its certificate is for {self._uri}")
        return self._uri

    def say_hello(self) -> None:
        """Queue our hello."""
        us = self._us
        boot, node = us.origin.boot, us.origin.name
        proof = self._seal.make(
            dialed=self._dialed, cluster=us.cluster, node=node, boot=boot
        )
        hello = frames.Hello(frames.VERSION, us.cluster, node, boot, proof)
        self.protocol.outlets.put(Lane.CTL, hello)

    async def write(self) -> None:
        """Write what is queued."""
        while data := self.protocol.data_to_send(_WRITE_BYTES):
            try:
                await self.pipe.send(data)
            except OSError as error:
                raise self._error(Reason.BROKEN, str(error)) from error

    async def hear_hello(self) -> tuple[frames.Hello, tuple[Event, ...]]:
        """Wait for the peer's hello, and check it."""
        while True:
            events = await self._read()
            if not events:
                await self.write()
                continue
            first, *early = events
            if isinstance(first, PeerLeft):
                raise self._refused(first)
            if not isinstance(first, frames.Hello):
                self.refuse(Reason.MALFORMED, "its first message is no hello")
            self._check(first)
            return first, tuple(early)

    async def _read(self) -> list[Event]:
        try:
            data = await self.pipe.receive()
        except ssl.SSLError as error:
            raise self._error(_tls_reason(error), tls_problem(error)) from error
        except OSError as error:
            raise self._error(Reason.BROKEN, str(error)) from error
        if not data:
            raise self._error(Reason.PEER_CLOSED, "it left before it said hello")
        try:
            return self.protocol.receive(data, now_s=trio.current_time())
        except PeerError as error:
            reason = Reason.FLOOD if error.flood else Reason.MALFORMED
            self.refuse(reason, str(error))

    def _check(self, hello: frames.Hello) -> None:
        us = self._us
        if hello.version != frames.VERSION:
            self.refuse(
                Reason.WRONG_VERSION, f"it speaks {hello.version}, not {frames.VERSION}"
            )
        if hello.cluster != us.cluster:
            self.refuse(Reason.WRONG_CLUSTER, f"it belongs to {hello.cluster!r}")
        try:
            check_name("node", hello.node)
        except ValueError as error:
            self.refuse(Reason.WRONG_NAME, str(error))
        if node_uri(us.cluster, hello.node) != self._uri:
            self.refuse(
                Reason.WRONG_NAME,
                f"it says {hello.node!r} and its certificate {self._uri}",
            )
        if hello.node == us.origin.name:
            self.refuse(Reason.WRONG_NAME, "it has the name of this node")
        if not self._seal.holds(
            hello.proof,
            dialed=not self._dialed,
            cluster=hello.cluster,
            node=hello.node,
            boot=hello.boot,
        ):
            self.refuse(Reason.WRONG_COOKIE, "it does not know the cluster's cookie")

    def refuse_for(self, linked: Origin, peer: Origin) -> NoReturn:
        """End the handshake, as there is a link with the peer or a later life of it."""
        if linked == peer:
            self.refuse(Reason.DUPLICATE, "there is a link with it already")
        said = f"{Reason.SUPERSEDED} {linked.boot}"
        detail = f"{peer} is over: there is a link with {linked}"
        self.refuse(Reason.SUPERSEDED, detail, said=said)

    def refuse(self, reason: Reason, detail: str, *, said: str = "") -> NoReturn:
        """End the handshake, and tell the peer why in a word."""
        self.protocol.leave(said=said or reason, fault=True)
        with suppress(OSError):
            # It has gone already: there is nobody to tell.
            self.pipe.send_nowait(self.protocol.data_to_send(0))
        raise self._error(reason, detail)

    def _refused(self, left: PeerLeft) -> LinkRefusedError:
        said, _, boot = left.said.partition(" ")
        if said == Reason.SUPERSEDED and boot.isdecimal():
            why = f"the peer has a link with a later life of this node, boot {boot}"
            reason = Reason.SUPERSEDED
            return LinkRefusedError(self.peer, reason, why, later_boot=int(boot))
        if said in tuple(Reason):
            return self._error(Reason(said), "the peer refuses this node")
        return self._error(Reason.PEER_CLOSED, f"the peer left, code {left.code}")

    def _error(self, reason: Reason, detail: str) -> LinkRefusedError:
        return LinkRefusedError(self.peer, reason, detail)


# Verification codes of OpenSSL (x509_vfy.h).
_PROBLEMS = {
    9: "its certificate is not valid yet; look at both machines' clocks",
    10: "its certificate has expired",
    18: "its certificate is self-signed",
    19: "its certificate is of another authority",
    20: "its certificate is of another authority",
}


def _tls_reason(error: ssl.SSLError) -> Reason:
    # Who does not accept a certificate sends an alert first.
    gave_up = isinstance(error, ssl.SSLEOFError)
    return Reason.PEER_CLOSED if gave_up else Reason.WRONG_CERTIFICATE


def tls_problem(error: ssl.SSLError) -> str:
    """Return in words what went wrong in a handshake."""
    if isinstance(error, ssl.SSLCertVerificationError):
        default = f"its certificate cannot be verified: {error.verify_message}"
        return _PROBLEMS.get(error.verify_code, default)
    if isinstance(error, ssl.SSLEOFError):
        return (
            "it closed the connection in the TLS handshake, as one does that has waited"
            " too long, or ends"
        )
    reason = (error.reason or type(error).__name__).lower().replace("_", " ")
    if "alert" in reason:
        return f"it does not accept our certificate: {reason}"
    return f"the TLS handshake failed: {reason}"
