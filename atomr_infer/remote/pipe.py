"""How the bytes of a connection move: a socket by hand, any other stream by trio.

On a socket the request is written where it stands, and the answer is waited
for before it is read: right behind a request it cannot be there yet, so a try
to read would be a system call and an exception for nothing.

No timeouts here: whoever finds a wait too long closes the pipe from outside,
and the waiter gets ``trio.ClosedResourceError``.
"""

from __future__ import annotations

import os
import select
from typing import Protocol

import trio

READ_BYTES = 65536
"""One read.  A whole streamed event fits, and so do many small answers."""


class Pipe(Protocol):
    """A byte stream with what an exchange needs."""

    def send_nowait(self, data: memoryview) -> int:
        """Write what can be written at once; return how many bytes that was.

        Raises:
            OSError: the peer takes no more.
        """

    async def send(self, data: memoryview) -> None:
        """Write all of it.

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


def open_pipe(stream: trio.abc.Stream) -> Pipe:
    """Return the fastest pipe for a stream, and take the stream over."""
    if type(stream) is trio.SocketStream:
        return SocketPipe(stream)
    return StreamPipe(stream)


class SocketPipe:
    """A connected TCP or Unix socket."""

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


class StreamPipe:
    """Any other stream: TLS, or one in memory."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

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
