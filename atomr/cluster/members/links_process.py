"""The process that has the links: it listens, dials who is due, and says goodbye.

Each start of it is a new life of the node: a new boot id, new links.  It listens from
the start on, so that the port is known, but accepts and dials only once the doors are
open; until then connections wait in the socket's backlog.
"""

from __future__ import annotations

import errno
from math import inf
from typing import TYPE_CHECKING

import attrs
import trio

from atomr.cluster.members.boot_file import draw_boot
from atomr.core.exits import NORMAL, ExitReason
from atomr.errors import LinkRefusedError
from atomr.http2 import open_links
from atomr.otp import GenServer
from atomr.process import Startable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr.cluster.members.dial_plan import Target
    from atomr.cluster.members.station import Station
    from atomr.http2 import Links
    from atomr.process.process import Process
    from atomr.process.task_process import TaskProcess


class LinksProcess(Startable):
    """One life of the node's links."""

    def __init__(self, station: Station) -> None:
        self._station = station
        self._running = trio.CancelScope()
        self._sleeping = trio.CancelScope()
        self._reason: ExitReason = NORMAL

    async def run_process(self, process: TaskProcess) -> ExitReason:
        """Have links until the process is to stop."""
        station = self._station
        file, last = station.options.boot_file, station.boot
        # It is written with fsync.
        station.boot = await trio.to_thread.run_sync(lambda: draw_boot(file, last=last))
        listeners = await self._listen()
        try:
            await self._live(process, listeners)
        finally:
            station.end()
            for listener in listeners:
                listener.socket.close()
        return self._reason

    def stops_gracefully(self, process: Process) -> bool:
        """Whether it is asked: always, as it says goodbye."""
        return True

    def ask_to_stop(self, process: Process, reason: ExitReason) -> None:
        """Let it close the links and end."""
        self._reason = reason
        self._running.cancel()

    async def _listen(self) -> Sequence[trio.SocketListener]:
        station = self._station
        given = station.options.listen_at
        try:
            listeners = await self._listen_at(given.host, station.port)
        except OSError as error:
            listen = str(attrs.evolve(given, port=station.port))
            raise _not_listening(listen, error) from error
        # The next life has the same one.
        station.port = int(listeners[0].socket.getsockname()[1])
        return listeners

    async def _listen_at(self, host: str, port: int) -> Sequence[trio.SocketListener]:
        try:
            return await trio.open_tcp_listeners(port, host=host)
        except OSError as error:
            is_any = self._station.options.listen_at.port == 0
            if not (port and is_any and error.errno == errno.EADDRINUSE):
                raise
        # Somebody has taken the last life's port; others are told of the new one.
        return await trio.open_tcp_listeners(0, host=host)

    async def _live(
        self, process: TaskProcess, listeners: Sequence[trio.SocketListener]
    ) -> None:
        station = self._station
        switchboard = station.switchboard
        async with (
            open_links(
                station.link_options(),
                station.link_services(),
                observer=switchboard.observe,
            ) as links,
            trio.open_nursery() as dials,
        ):
            station.begin(links)
            switchboard.wake_dialer = self._wake
            process.started()
            try:
                with self._running:
                    await station.doors.wait()
                    await links.serve(listeners)
                    station.opened.set()
                    await self._dial_when_due(dials)
                dials.cancel_scope.cancel()
                # Unless the membership has: it may have crashed.
                switchboard.leave()
                await _close_all(links)
            finally:
                # Where all is cancelled at once, nobody has.
                switchboard.leave()

    def _wake(self) -> None:
        self._sleeping.deadline = -inf

    async def _dial_when_due(self, dials: trio.Nursery) -> None:
        plan = self._station.switchboard.plan
        while True:
            with trio.CancelScope(deadline=plan.due_at) as self._sleeping:
                await trio.sleep_forever()
            for target in plan.due(trio.current_time()):
                dials.start_soon(self._dial, target)

    async def _dial(self, target: Target) -> None:
        switchboard = self._station.switchboard
        try:
            link = await switchboard.dial(target)
        except (LinkRefusedError, ValueError) as error:
            switchboard.failed(target, error)
        else:
            switchboard.dialed(target, link)


def _not_listening(listen: str, error: OSError) -> OSError:
    remedy = _REMEDIES.get(error.errno or 0, "")
    problem = f"listen={listen!r}: {error.strerror or error}{remedy}"
    return OSError(error.errno, problem)


_REMEDIES = {
    errno.EADDRINUSE: "; stop what listens there, or choose another port (0: any)",
    errno.EADDRNOTAVAIL: (
        "; listen on an address of this machine, and say as advertise= where others"
        " reach it"
    ),
}


class Doors(GenServer):
    """Lets peers in, once all that serves them has started."""

    def __init__(self, station: Station) -> None:
        self._station = station

    async def init(self) -> None:
        """Open."""
        station = self._station
        station.doors.set()
        await station.opened.wait()


async def _close_all(links: Links) -> None:
    """Send what was told, say goodbye, and end; at most for a second."""
    async with trio.open_nursery() as nursery:
        for link in links.all():
            nursery.start_soon(link.close)
