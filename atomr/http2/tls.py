"""TLS 1.3 between nodes: who may be at the other end, and how its bytes move.

Both sides show a certificate of the cluster's authority.  TLS runs on the socket
itself, in the standard library: ``trio.SSLStream`` works over any stream, and costs
several times as much for each message (decision 17).
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from pathlib import Path

import attrs
import trio

from atomr.http2.identity import node_uris

READ_BYTES = 65_536
RECORD_BYTES = 16_384
"""The most that TLS puts into one record."""

UNSENT_BYTES = 131_072
"""What the kernel takes beyond what is on the wire: what is urgent waits behind it."""

CLOSED = "the connection was closed here"


@attrs.frozen
class Credentials:
    """What a node shows, and whom it believes; see :meth:`load`.

    Attributes:
        certificate: our own, DER.
        dialing: for connections that we open.
        accepting: for those that we take.
    """

    certificate: bytes = attrs.field(repr=False)
    dialing: ssl.SSLContext
    accepting: ssl.SSLContext

    @staticmethod
    def load(
        *, ca_file: str | Path, certificate_file: str | Path, key_file: str | Path
    ) -> Credentials:
        """Read the files, all PEM.

        Args:
            ca_file: the cluster's authority; several while it is replaced.
            certificate_file: our certificate, and whatever is between.
            key_file: its key, without a password.

        Raises:
            ValueError: a file cannot be used; it is named.
        """
        files = (ca_file, certificate_file, key_file)
        try:
            text = Path(certificate_file).read_text(encoding="ascii")
            first = text[: text.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)]
            certificate = ssl.PEM_cert_to_DER_cert(first[first.index(ssl.PEM_HEADER) :])
        except (OSError, ValueError) as error:
            raise ValueError(
                f"no certificate in {certificate_file}: {error}"
            ) from error
        return Credentials(
            certificate=certificate,
            dialing=_context(ssl.PROTOCOL_TLS_CLIENT, *files),
            accepting=_context(ssl.PROTOCOL_TLS_SERVER, *files),
        )

    def own_uris(self) -> tuple[str, ...] | None:
        """Return the nodes that our certificate names.

        The standard library reads a certificate in a handshake alone, so this is
        one, with ourselves, in memory.

        Returns:
            None: our own authority does not accept it, as when it has expired; others
            say so.
        """
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self.dialing.wrap_bio(to_client, to_server)
        server = self.accepting.wrap_bio(to_server, to_client, server_side=True)
        try:
            # Hello; the server's certificate, which the client verifies.
            for side in (client, server, client):
                with suppress(ssl.SSLWantReadError):
                    side.do_handshake()
        except ssl.SSLError:
            return None
        return node_uris(client.getpeercert() or {})


def _context(
    protocol: ssl._SSLMethod,
    ca_file: str | Path,
    certificate_file: str | Path,
    key_file: str | Path,
) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # The name is in a URI, which OpenSSL does not look at: see identity.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    if protocol is ssl.PROTOCOL_TLS_SERVER:
        # A session that is taken up again would skip the look at the certificate.
        context.num_tickets = 0
    try:
        context.load_verify_locations(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"no authority in {ca_file}: {error}") from error
    try:
        # Without a password: a question on the terminal would hang a node.
        context.load_cert_chain(certificate_file, key_file, password="")
    except (OSError, ssl.SSLError) as error:
        raise ValueError(
            f"no certificate in {certificate_file} with its key in {key_file}: {error}"
        ) from error
    return context


class TlsPipe:
    """TLS over a connected socket.

    A write that has to wait is tried again with the same bytes, as OpenSSL wants it.
    No timeouts here: whoever finds a wait too long closes the pipe from outside, and
    the waiter gets ``trio.ClosedResourceError``.
    """

    def __init__(
        self, stream: trio.SocketStream, context: ssl.SSLContext, *, dialed: bool
    ) -> None:
        """Take over a socket; :meth:`handshake` must follow.

        Args:
            stream: the connection; it is of no use afterwards.
            context: of our :class:`Credentials`.
            dialed: we opened the connection.

        Raises:
            OSError: the peer has left already; the socket is closed.
        """
        plain = socket.socket(fileno=stream.socket.detach())
        try:
            plain.settimeout(0)
            # One that was reset has no name; the standard library would leak it.
            plain.getpeername()
            # Linux: writable only while little is unsent, so that what is urgent is
            # not behind megabytes of bulk in the kernel.
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
            self._socket = context.wrap_socket(
                plain, server_side=not dialed, do_handshake_on_connect=False
            )
        except BaseException:
            plain.close()
            raise
        self._fd = self._socket.fileno()

    async def handshake(self) -> None:
        """Agree with the peer on keys, and verify its certificate.

        Raises:
            ssl.SSLError: it cannot be trusted, or does not speak TLS.
            OSError: the connection was lost.

        Cancellation: the pipe must be closed.
        """
        while True:
            try:
                self._socket.do_handshake()
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(self._fd)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(self._fd)
            else:
                return

    @property
    def speaks_http2(self) -> bool:
        """True when the handshake agreed on HTTP/2."""
        return self._socket.selected_alpn_protocol() == "h2"

    def certificate(self) -> tuple[bytes, dict[str, object]]:
        """Return the peer's certificate, DER and read."""
        der = self._socket.getpeercert(binary_form=True) or b""
        return der, dict(self._socket.getpeercert() or {})

    async def send(self, data: bytes) -> None:
        """Write all of it.

        Raises:
            OSError: the peer takes no more.
            trio.ClosedResourceError: the pipe was closed meanwhile.

        Cancellation: an unknown part may have been written.
        """
        left = memoryview(data)
        left = left[self.send_nowait(left) :]
        while left:
            if self._fd < 0:
                raise trio.ClosedResourceError(CLOSED)
            await trio.lowlevel.wait_writable(self._fd)
            left = left[self.send_nowait(left) :]

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Write what the socket takes at once; the next write begins with the rest.

        Returns:
            How many bytes that was.

        Raises:
            OSError: the peer takes no more.
        """
        left, sent = memoryview(data), 0
        try:
            while sent < len(left):
                sent += self._socket.send(left[sent : sent + RECORD_BYTES])
        except ssl.SSLWantWriteError:
            return sent
        except OSError:
            if not sent:
                raise
            # The next write meets it again.
        return sent

    async def receive(self) -> bytes:
        """Wait for bytes; ``b""`` at the peer's end.

        Raises:
            OSError: the connection was lost.
            trio.ClosedResourceError: the pipe was closed meanwhile.
        """
        while True:
            if self._fd < 0:
                raise trio.ClosedResourceError(CLOSED)
            # A read takes a whole record, so none is left inside OpenSSL.
            await trio.lowlevel.wait_readable(self._fd)
            try:
                data = self._socket.recv(READ_BYTES)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                continue
            return data if len(data) < RECORD_BYTES else data + self._more()

    def _more(self) -> bytes:
        """Read on behind a full record: to wait for each would cost more."""
        pieces: list[bytes] = []
        try:
            for _ in range(READ_BYTES // RECORD_BYTES - 1):
                pieces.append(self._socket.recv(READ_BYTES))  # noqa: PERF401 - raises
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        return b"".join(pieces)

    def close(self) -> None:
        """Close at once, without farewell."""
        if self._fd >= 0:
            trio.lowlevel.notify_closing(self._fd)
            self._fd = -1
            self._socket.close()
