"""A socket stream that a stalled client cannot hold for ever.

hypercorn sends under a shield, so that a half-written chunk is never cut by a
cancellation.  Without a bound of our own, a client that stops reading would
keep its engine slot, and the server's shutdown, waiting without end.
"""

from __future__ import annotations

import socket

import trio

STREAM = "atomr_infer.stream"
"""The key of a connection's :class:`GuardedStream` in the ASGI scope's state."""

_ESTABLISHED = 1  # the kernel's TCP_ESTABLISHED


class GuardedStream:
    """The part of ``trio.SocketStream`` that hypercorn uses, with a write bound."""

    def __init__(
        self, stream: trio.SocketStream, *, first: bytes, write_timeout_s: float
    ) -> None:
        """Take a stream over.

        Args:
            stream: the client's.
            first: what was read of it already.
            write_timeout_s: a client that reads nothing for so long is dropped.
        """
        self._stream = stream
        self._first = first
        self._write_timeout_s = write_timeout_s

    @property
    def socket(self) -> trio.socket.SocketType:
        """The socket below, for its addresses."""
        return self._stream.socket

    def client_closed(self) -> bool:
        """Whether the kernel knows that the client has closed its side.

        Reading cannot tell while bytes of a next request lie in between.
        """
        if not hasattr(socket, "TCP_INFO"):
            return False
        try:
            info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        except OSError:
            return True  # closed on our side
        return info[0] != _ESTABLISHED

    async def send_all(self, data: bytes) -> None:
        """Send everything, or close the connection after the write timeout.

        Raises:
            trio.BrokenResourceError: the client did not read in time, or left.
        """
        with trio.move_on_after(self._write_timeout_s) as scope:
            await self._stream.send_all(data)
        if scope.cancelled_caught:
            await trio.aclose_forcefully(self._stream)
            raise trio.BrokenResourceError(
                f"the client read nothing for {self._write_timeout_s} s"
            )

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the next bytes; b"" at the client's end of file."""
        if self._first:
            await trio.lowlevel.checkpoint()
            first, self._first = self._first, b""
            return first
        return await self._stream.receive_some(max_bytes)

    async def send_eof(self) -> None:
        """Half-close our side."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close the socket; safe to call twice."""
        await self._stream.aclose()

    def close(self) -> None:
        """Close the socket at once, under whoever uses it."""
        self._stream.socket.close()
