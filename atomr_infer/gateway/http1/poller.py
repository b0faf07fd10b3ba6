"""One epoll set for all connections of a listener, and one task that waits on it.

trio arms a socket anew for each wait, and cannot be asked to report a hang-up
without reading.  Here a socket is added once, edge-triggered, for as long as
it lives: waiting for the next request costs no system call, and a client that
leaves in the middle of its request is reported without a task that watches it,
whatever of its bytes is still unread.

Source: epoll(7); ``trio.lowlevel.wait_readable`` takes the set itself, which
is readable while it has events.
"""

from __future__ import annotations

import select
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    import socket

# Reported without being asked for: EPOLLHUP and EPOLLERR.
_WATCHED = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_ENDED = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR

_TICK_S = 1.0


class Polled(Protocol):
    """What a socket's events are for.

    Attributes:
        due_at: when :meth:`expire` is due; it may come two ticks late.
    """

    due_at: float

    def wake(self, *, ended: bool) -> None:
        """Take note that there is something to read; ``ended``: an end, too."""
        ...

    def expire(self) -> None:
        """Take note that the time is up."""
        ...


class Poller:
    """Tells the owners of sockets about their clients and the time.

    Attributes:
        now: monotonic time in seconds, not older than a tick.
        date: the field of that name for an answer's head.
    """

    def __init__(self, *, tick_s: float = _TICK_S) -> None:
        self._epoll = select.epoll()
        self._owners: dict[int, Polled] = {}
        self._tick_s = tick_s
        self._read_clocks()

    async def run(self) -> None:
        """Report events until it is cancelled."""
        with self._epoll:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tick)
                await self._report()

    def add(self, sock: socket.socket, owner: Polled) -> None:
        """Report what happens to a socket, from what has happened already on.

        Nothing is reported any more where `run` has ended: the owner, which a stop
        lets end what it does, is told by its own cancellation.
        """
        self._owners[sock.fileno()] = owner
        if not self._epoll.closed:
            self._epoll.register(sock, _WATCHED)

    def remove(self, sock: socket.socket) -> None:
        """Report nothing more; call it before the socket is closed."""
        del self._owners[sock.fileno()]
        if not self._epoll.closed:
            self._epoll.unregister(sock)

    async def _report(self) -> None:
        owners = self._owners
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            for number, events in self._epoll.poll(0):
                owners[number].wake(ended=bool(events & _ENDED))

    async def _tick(self) -> None:
        while True:
            self._read_clocks()
            for owner in list(self._owners.values()):
                if owner.due_at <= self.now:
                    owner.expire()
            await trio.sleep(self._tick_s)

    def _read_clocks(self) -> None:
        self.now = time.monotonic()
        self.date = b"date: %b\r\n" % formatdate(usegmt=True).encode()
