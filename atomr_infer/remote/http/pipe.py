"""How the bytes of a connection move: a socket by hand, any other stream by trio.

On a socket the request is written where it stands, and the answer is waited
for before it is read: right behind a request it cannot be there yet, so a try
to read would be a system call and an exception for nothing.  TLS over a socket
is the standard library's, on the socket itself: ``trio.SSLStream`` works over
any stream, and costs three times as much as the rest of an exchange.

No timeouts here: whoever finds a wait too long closes the pipe from outside,
and the waiter gets ``trio.ClosedResourceError``.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
from typing import Protocol

import trio

READ_BYTES = 65536
"""One read.  A whole streamed event fits, and so do many small answers."""

RECORD_BYTES = 16384
"""The most that TLS puts into one record."""


class Pipe(Protocol):
    """A byte stream with what an exchange needs."""

    @property
    def alpn(self) -> str | None:
        """The protocol that a TLS handshake agreed on; None: none."""

    def send_nowait(self, data: memoryview) -> int:
        """Write what can be written at once; return how many bytes that was.

        The next write must begin with the rest.

        Raises:
            OSError: the peer takes no more.
        """

    async def send(self, data: memoryview) -> None:
        """Write all of it.

        Raises:
            OSError: the peer takes no more.
            trio.BrokenResourceError: the same.

        Cancellation: an unknown part may have been written.
        """

    async def wait_writable(self) -> None:
        """Wait until a write might not block; can be cancelled without loss."""

    async def receive(self) -> bytes:
        """Wait for bytes; ``b""`` at the peer's end."""

    def is_readable(self) -> bool:
        """True when an idle connection has something to read: its end, mostly."""

    async def close(self) -> None:
        """Close at once, without farewell; safe to call in a cancelled scope."""


def open_pipe(stream: trio.abc.Stream | TlsPipe) -> Pipe:
    """Return the fastest pipe for a stream, and take the stream over."""
    if isinstance(stream, TlsPipe):
        return stream
    if type(stream) is trio.SocketStream:
        return SocketPipe(stream)
    return StreamPipe(stream)


class SocketPipe:
    """A connected TCP or Unix socket."""

    alpn: str | None = None

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._fd = stream.socket.fileno()
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def send_nowait(self, data: memoryview) -> int:
        """See :meth:`Pipe.send_nowait`."""
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0

    async def send(self, data: memoryview) -> None:
        """See :meth:`Pipe.send`."""
        await self._stream.send_all(data)

    async def wait_writable(self) -> None:
        """See :meth:`Pipe.wait_writable`."""
        await self._stream.wait_send_all_might_not_block()

    async def receive(self) -> bytes:
        """See :meth:`Pipe.receive`."""
        while True:
            if self._fd < 0:
                raise trio.ClosedResourceError("the connection was closed here")
            await trio.lowlevel.wait_readable(self._fd)
            try:
                return os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                continue

    def is_readable(self) -> bool:
        """See :meth:`Pipe.is_readable`."""
        return bool(self._poll.poll(0))

    async def close(self) -> None:
        """See :meth:`Pipe.close`."""
        # The number may be another file's from here on.
        self._fd = -1
        self._stream.socket.close()


class TlsPipe:
    """TLS over a connected socket.

    A write that has to wait is tried again with the same bytes, as OpenSSL
    wants it; so no write is longer than one record.
    """

    def __init__(
        self, stream: trio.SocketStream, context: ssl.SSLContext, *, host: str
    ) -> None:
        """Take over a socket; :meth:`handshake` must follow.

        Args:
            stream: the connection; it is of no use afterwards.
            context: how the peer is verified.
            host: whom the certificate must name.
        """
        plain = socket.socket(fileno=stream.socket.detach())
        plain.settimeout(0)
        try:
            self._socket = context.wrap_socket(
                plain, server_hostname=host, do_handshake_on_connect=False
            )
        except BaseException:
            plain.close()
            raise
        self._fd = self._socket.fileno()
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    @property
    def alpn(self) -> str | None:
        """See :class:`Pipe`."""
        return self._socket.selected_alpn_protocol()

    async def handshake(self) -> None:
        """Agree with the peer on keys, and verify it.

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

    def send_nowait(self, data: memoryview) -> int:
        """See :meth:`Pipe.send_nowait`."""
        sent = 0
        try:
            while sent < len(data):
                sent += self._socket.send(data[sent : sent + RECORD_BYTES])
        except ssl.SSLWantWriteError:
            return sent
        except OSError:
            if not sent:
                raise
            # The next write meets it again.
        return sent

    async def send(self, data: memoryview) -> None:
        """See :meth:`Pipe.send`."""
        data = data[self.send_nowait(data) :]
        while data:
            await self.wait_writable()
            data = data[self.send_nowait(data) :]

    async def wait_writable(self) -> None:
        """See :meth:`Pipe.wait_writable`."""
        if self._fd < 0:
            raise trio.ClosedResourceError("the connection was closed here")
        await trio.lowlevel.wait_writable(self._fd)

    async def receive(self) -> bytes:
        """See :meth:`Pipe.receive`."""
        while True:
            if self._fd < 0:
                raise trio.ClosedResourceError("the connection was closed here")
            # A read takes a whole record, so none is left inside OpenSSL.
            await trio.lowlevel.wait_readable(self._fd)
            try:
                return self._socket.recv(READ_BYTES)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                # A ticket, or new keys: nothing for us yet.
                continue

    def is_readable(self) -> bool:
        """See :meth:`Pipe.is_readable`; a ticket of a session is nothing to read."""
        if not self._poll.poll(0):
            return False
        try:
            self._socket.recv(READ_BYTES)
        except ssl.SSLWantReadError:
            return False
        except OSError:
            # Broken is more than readable.
            return True
        return True

    async def close(self) -> None:
        """See :meth:`Pipe.close`."""
        if self._fd >= 0:
            trio.lowlevel.notify_closing(self._fd)
            self._fd = -1
            self._socket.close()


class StreamPipe:
    """Any other stream: one in memory, or TLS over something else than a socket."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.alpn: str | None = None
        if isinstance(stream, trio.SSLStream):
            self.alpn = stream.selected_alpn_protocol()

    def send_nowait(self, data: memoryview) -> int:
        """Write nothing: a stream of trio has no write that cannot wait."""
        return 0

    async def send(self, data: memoryview) -> None:
        """See :meth:`Pipe.send`."""
        await self._stream.send_all(data)

    async def wait_writable(self) -> None:
        """See :meth:`Pipe.wait_writable`."""
        await self._stream.wait_send_all_might_not_block()

    async def receive(self) -> bytes:
        """See :meth:`Pipe.receive`."""
        return bytes(await self._stream.receive_some(READ_BYTES))

    def is_readable(self) -> bool:
        """Ask the socket below, if there is one; else the failing exchange tells."""
        stream: object = self._stream
        if isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        return isinstance(stream, trio.SocketStream) and stream.socket.is_readable()

    async def close(self) -> None:
        """See :meth:`Pipe.close`."""
        # Shielded, so that a cancelled caller closes all that it has to.
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(self._stream)
