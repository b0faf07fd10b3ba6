"""A client's socket, read and written by one task.

Reading and writing are tried at once and wait only when the kernel says so;
the wait for bytes is the poller's wake-up.  A task that never has to wait
still lets the others run now and then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from atomr_infer.gateway.exchanges.exchange import ClientGoneError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

READ_BYTES = 65536

# Sends in a row without letting another task run: some 30 us each, so that
# nobody waits longer than a millisecond for a client that reads fast.
_SENDS_IN_A_ROW = 32


class ClientSocket:
    """A non-blocking socket that is in a :class:`Poller`'s set.

    Attributes:
        ended: the client has closed its side, or reset the connection.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        write_timeout_s: float,
        lost: Callable[[], None],
    ) -> None:
        """Take a socket over.

        Args:
            sock: non-blocking.
            write_timeout_s: a client that reads nothing for so long is lost.
            lost: called when nothing can be sent any more; it cancels.
        """
        self._sock = sock
        self._write_timeout_s = write_timeout_s
        self._lost = lost
        self._readable = True
        self._parked: trio.lowlevel.Task | None = None
        self._unsent: memoryview | None = None
        self._sends = 0
        self.ended = False

    def wake(self, *, ended: bool) -> None:
        """Take note that there is something to read."""
        self._readable = True
        self.ended = self.ended or ended
        task = self._parked
        if task is not None:
            self._parked = None
            trio.lowlevel.reschedule(task)

    async def receive(self) -> bytes:
        """Return the next bytes; b"" when the client has sent all it will."""
        while True:
            if self._readable:
                try:
                    data = self._sock.recv(READ_BYTES)
                except BlockingIOError:
                    self._readable = False
                except OSError:
                    return b""  # reset
                else:
                    # A short read has emptied the socket, so the next bytes are
                    # a new edge.  An end of file that is here already is not.
                    if len(data) < READ_BYTES and not self.ended:
                        self._readable = False
                    return data
            await self._park()

    async def send(self, data: bytes) -> None:
        """Send everything.

        Raises:
            ClientGoneError: it cannot be sent, and ``lost`` has not cancelled.

        Cancellation: what is not sent yet goes out before the next piece.
        """
        if self._unsent is not None:
            data = bytes(self._unsent) + data
            self._unsent = None
        sent = self._try(data)
        if sent == len(data) and self._sends < _SENDS_IN_A_ROW:
            self._sends += 1
            await trio.lowlevel.checkpoint_if_cancelled()
        elif sent == len(data):
            self._sends = 0
            await trio.lowlevel.checkpoint()
        elif sent is None or not await self._send_rest(memoryview(data)[sent:]):
            self._unsent = None
            self._lost()
            await trio.lowlevel.checkpoint()
            raise ClientGoneError

    def nudge(self, data: bytes, *, needed: bool = False) -> None:
        """Send what fits now, when nothing is on its way; does not wait.

        Of data that has begun to leave, the rest goes out before the next piece.

        Args:
            data: nothing that is missed.
            needed: it is missed: what does not fit goes out before the next piece.
        """
        if self._unsent is not None:
            return
        sent = self._try(data)
        if sent is None:
            self._lost()
        elif sent < len(data) and (sent or needed):
            self._unsent = memoryview(data)[sent:]

    def _try(self, data: bytes | memoryview) -> int | None:
        """Send what fits now; None when nothing ever will."""
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return None

    async def _send_rest(self, rest: memoryview) -> bool:
        """Send as the client reads; False when it does not."""
        while rest:
            self._unsent = rest
            with trio.move_on_after(self._write_timeout_s) as stall:
                await trio.lowlevel.wait_writable(self._sock)
            sent = None if stall.cancelled_caught else self._try(rest)
            if sent is None:
                return False
            rest = rest[sent:]
        self._unsent = None
        self._sends = 0
        return True

    async def _park(self) -> None:
        self._parked = trio.lowlevel.current_task()
        self._sends = 0
        await trio.lowlevel.wait_task_rescheduled(self._unpark)

    def _unpark(self, _: object) -> trio.lowlevel.Abort:
        self._parked = None
        return trio.lowlevel.Abort.SUCCEEDED
