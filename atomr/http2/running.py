"""The three tasks that move a link: one reads, one writes, one keeps the time."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import trio

from atomr.http2 import frames
from atomr.http2.core import FLUSH_BYTES
from atomr.http2.events import Lane, Reason
from atomr.http2.heartbeat import Beat
from atomr.http2.problems import PeerError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr.http2.core import Core
    from atomr.http2.events import Event
    from atomr.http2.link import Link

GONE_ERRORS = (
    ConnectionResetError,
    BrokenPipeError,
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
)


async def run_link(core: Core, link: Link, early: Iterable[Event]) -> None:
    """Run a link until it ends.

    Args:
        core: of the link.
        link: the same.
        early: what came together with the handshake's end.

    Cancellation: the link is closed, and the peer told.
    """
    try:
        async with trio.open_nursery() as nursery:
            core.nursery = nursery
            if core.is_down:
                # Another one took its place before this one began.
                return
            nursery.start_soon(_read, core, link, early)
            nursery.start_soon(_write, core, link)
            nursery.start_soon(_keep, core)
    finally:
        core.end(Reason.CLOSED, "what it was part of ended here")


async def _read(core: Core, link: Link, early: Iterable[Event]) -> None:
    with _Ends(core):
        _handle(core, link, early)
        while not core.is_down:
            data = await core.pipe.receive()
            if not data:
                core.end(Reason.PEER_CLOSED, "its end of the connection was closed")
                return
            now_s = trio.current_time()
            _handle(core, link, core.protocol.receive(data, now_s=now_s))
            # An answer to a PING goes out with that to the probe behind it.
            if core.protocol.waits and not core.probed:
                core.wakeup.set()


def _handle(core: Core, link: Link, events: Iterable[Event]) -> None:
    for event in events:
        if core.is_down:
            return
        link.dispatch.handle(event)


async def _write(core: Core, link: Link) -> None:
    with _Ends(core):
        while True:
            await core.wakeup.wait()
            while data := core.unsent or core.protocol.data_to_send(FLUSH_BYTES):
                core.unsent = data
                await core.pipe.send(data)
                core.unsent = b""
                _wrote(core, link)
                if not core.protocol.outlets.wait:
                    break
                # Whoever is ready may have something urgent.
                await trio.lowlevel.checkpoint()
            # What was sent at once may be what somebody waits for.
            _wrote(core, link)


def _wrote(core: Core, link: Link) -> None:
    if link.dispatch.streams:
        link.dispatch.streams.written()
    core.drained.wake()


async def _keep(core: Core) -> None:
    while True:
        due_at = min(core.heartbeat.due_at, core.calls.due_at)
        if not core.probed:
            with trio.CancelScope(deadline=due_at) as core.keeper:
                await trio.sleep_forever()
        now_s = trio.current_time()
        for number in core.probed:
            core.queue(Lane.CTL, frames.Probed(number))
        core.probed.clear()
        for pending in core.calls.expire(now_s, peer=core.peer):
            core.queue(Lane.MSG, frames.Cancel(pending.number))
        _beat(core, now_s)
        if not core.is_down:
            core.send_now()


def _beat(core: Core, now_s: float) -> None:
    match core.heartbeat.step(now_s):
        case Beat(number, seen):
            core.protocol.ping(number)
            took_us = int((core.heartbeat.round_trip_s or 0.0) * 1e6)
            core.queue(Lane.CTL, frames.Probe(number, seen, took_us))
        case Reason.NO_PONG:
            core.end(Reason.NO_PONG, "no HTTP/2 PING came back")
        case Reason.STALLED:
            core.end(Reason.STALLED, "its process answers no probe")
        case _:
            return


class _Ends:
    """Ends the link with what its block raises, and keeps that in."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def __enter__(self) -> None:
        return

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        core = self._core
        match error:
            case PeerError():
                reason = Reason.FLOOD if error.flood else Reason.MALFORMED
                core.end(reason, str(error), fault=True)
            case frames.FrameError():
                core.end(Reason.MALFORMED, str(error), fault=True)
            case trio.ClosedResourceError():
                core.end(Reason.CLOSED, "it was closed here")
            case _ if isinstance(error, GONE_ERRORS):
                core.end(Reason.PEER_CLOSED, "its end of the connection is gone")
            case OSError():
                core.end(Reason.BROKEN, str(error))
            case _:
                return False
        return True
