"""Cables between nodes on loopback, which a test can pull out two by two.

In front of each node is a proxy that others reach it by.  Who dials is told by whose
socket the other end is, as Linux knows it.
"""

from __future__ import annotations

import os
import time
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

_LOOKS = 20
_LOOK_S = 0.05
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


@attrs.define(eq=False)
class Cables:
    """The proxies of all nodes.

    Attributes:
        ports: where each node is reached by others.
        behind: where each node listens.
        pids: the processes of the nodes, by name.
    """

    ports: dict[str, int] = attrs.field(factory=dict)
    behind: dict[str, int] = attrs.field(factory=dict)
    pids: dict[str, int] = attrs.field(factory=dict)
    _cut: set[frozenset[str]] = attrs.field(factory=set)
    _open: dict[frozenset[str], set[trio.CancelScope]] = attrs.field(factory=dict)

    def cut(self, names: Iterable[str], others: Iterable[str]) -> None:
        """Pull out the cables between some and others."""
        for name in names:
            for other in others:
                pair = frozenset((name, other))
                self._cut.add(pair)
                for scope in self._open.pop(pair, set()):
                    scope.cancel()

    def mend(self) -> None:
        """Put all of them in again."""
        self._cut.clear()

    async def carry(self, to: str, dialed: trio.SocketStream) -> None:
        """Carry a connection to a node, as long as there is a cable."""
        async with dialed:
            port = dialed.socket.getpeername()[1]
            dialer = await trio.to_thread.run_sync(self._dialer, port)
            pair = frozenset((dialer, to))
            if pair in self._cut:
                return
            try:
                there = await trio.open_tcp_stream("127.0.0.1", self.behind[to])
            except OSError:
                return
            async with there:
                if pair in self._cut:  # pulled out meanwhile
                    return
                with trio.CancelScope() as scope:
                    self._open.setdefault(pair, set()).add(scope)
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_copy, dialed, there, scope)
                        nursery.start_soon(_copy, there, dialed, scope)

    def _dialer(self, port: int) -> str:
        # What changes while Linux tells of it may be left out: it is asked again.
        for _ in range(_LOOKS):
            inode = _inode_of(port)
            for name, pid in dict(self.pids).items():
                if inode in _sockets_of(pid):
                    return name
            time.sleep(_LOOK_S)
        return ""  # it has left


def _inode_of(port: int) -> str:
    wanted = f"0100007F:{port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == wanted:
            return fields[9]
    return ""


def _sockets_of(pid: int) -> set[str]:
    found = set()
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                target = os.readlink(entry.path)
                if target.startswith("socket:["):
                    found.add(target[8:-1])
    return found


async def _copy(
    source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
) -> None:
    with suppress(*_GONE):
        async for data in source:
            await sink.send_all(data)
    scope.cancel()


@asynccontextmanager
async def open_cables(behind: dict[str, int]) -> AsyncIterator[Cables]:
    """Have a proxy in front of each node."""
    cables = Cables(behind=behind)
    async with trio.open_nursery() as nursery:
        for name in behind:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            cables.ports[name] = listeners[0].socket.getsockname()[1]
            carry = partial(cables.carry, name)
            nursery.start_soon(trio.serve_listeners, carry, listeners)
        yield cables
        nursery.cancel_scope.cancel()
