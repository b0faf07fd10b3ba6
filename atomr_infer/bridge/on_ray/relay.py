"""The relay: ``python -m atomr_infer.bridge.on_ray.relay FD PARENT_PID``.

It stands between a parent, to which it is the engine's child, and an engine's process
on a node of Ray's.  Bytes pass through it both ways; frames to the parent pass whole,
so that it can say in one of its own what became of the engine.

It ends with the engine's process, or when the parent closes its socket or dies.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from atomr_infer.bridge.on_ray.order import ORDER, Order, read
from atomr_infer.bridge.on_ray.whole_frames import WholeFrames
from atomr_infer.bridge.parent import reasons
from atomr_infer.bridge.protocol.frames import (
    Failed,
    FrameError,
    StartFailed,
    Starting,
    encode,
)
from atomr_infer.bridge.protocol.link import RECEIVE_BYTES
from atomr_infer.bridge.protocol.values import error_to_wire, progress_to_wire
from atomr_infer.bridge.system.lineage import (
    OrphanedError,
    abandon_ship,
    die_with_parent,
    guard_group,
)
from atomr_infer.errors import EngineStartError, InferenceError
from atomr_infer.errors import encode as encode_error
from atomr_infer.runtimes.contract import Progress

if TYPE_CHECKING:
    from atomr_infer.bridge.on_ray.actors import Placed
    from atomr_infer.bridge.on_ray.seat import Ended

TOKEN_BYTES = 32
TOKEN_S = 10.0
"""How long who connects may take to say that it is the engine."""

LINGER_S = 2.0
"""How long the engine's last bytes are awaited when its process is gone, and Ray's
word of its end when its connection is."""

_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)


class Relay:
    """One engine's way to its parent."""

    def __init__(self, parent: trio.SocketStream, order: Order) -> None:
        self._parent = parent
        self._order = order
        self._token = secrets.token_bytes(TOKEN_BYTES)
        self._frames = WholeFrames()
        self._connected = False
        self._drained = trio.Event()

    async def run(self) -> None:
        """Bring the engine up, pass on what both say, and tell of its end."""
        try:
            await self._tell(f"connecting to Ray at {self._order.ray.address!r}")
            # Imported when there is somebody to tell that it cannot be.
            from atomr_infer.bridge.on_ray import actors  # noqa: PLC0415

            await actors.connect(self._order.ray.address)
            host = actors.own_address()
            listener = await _listening(host)
            port = listener.socket.getsockname()[1]
            placed = actors.Placed(self._order, (host, port), self._token)
        except (ImportError, InferenceError) as error:
            await self._refuse(str(error))
            return
        try:
            await self._tell(f"waiting for Ray to give it {self._order.ray.wanted}")
            await self._relay(listener, placed)
        finally:
            placed.end()

    async def _relay(self, listener: trio.SocketListener, placed: Placed) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self._greet, [listener])
            await placed.ended.wait()
            if self._connected:
                with trio.move_on_after(LINGER_S):
                    await self._drained.wait()
            nursery.cancel_scope.cancel()
        await self._tell_end(placed.what_became())

    async def _greet(self, stream: trio.SocketStream) -> None:
        """Pass on what the engine says and hears; anybody else's connection ends."""
        if not await self._is_ours(stream) or self._connected:
            return
        self._connected = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._to_engine, stream)
            await self._to_parent(stream)
            self._drained.set()
            nursery.cancel_scope.cancel()

    async def _is_ours(self, stream: trio.SocketStream) -> bool:
        said = b""
        with trio.move_on_after(TOKEN_S), suppress(*_BROKEN):
            while len(said) < TOKEN_BYTES:
                more = await stream.receive_some(TOKEN_BYTES - len(said))
                if not more:
                    break
                said += bytes(more)
        return secrets.compare_digest(said, self._token)

    async def _to_engine(self, engine: trio.SocketStream) -> None:
        with suppress(*_BROKEN):
            while received := await self._parent.receive_some(RECEIVE_BYTES):
                await engine.send_all(received)
            # The parent is done with us; with our connection, the engine ends.
            abandon_ship()

    async def _to_parent(self, engine: trio.SocketStream) -> None:
        with suppress(*_BROKEN):
            while received := await engine.receive_some(RECEIVE_BYTES):
                await self._parent.send_all(self._frames.receive(bytes(received)))

    # --- our own words ------------------------------------------------------

    async def _tell(self, phase: str) -> None:
        progress = progress_to_wire(Progress(phase))
        await self._parent.send_all(encode(Starting(progress)))

    async def _refuse(self, why: str) -> None:
        await self._send(StartFailed, EngineStartError(why))

    async def _tell_end(self, ended: Ended) -> None:
        if ended.how is None:
            await self._refuse(f"Ray's node cannot run the engine: {ended.refused}")
        elif self._frames.ready:
            await self._send(Failed, reasons.crashed(self._order.name, ended.how))
        else:
            doing = "starting on Ray"
            error = reasons.died_starting(self._order.name, ended.how, doing, ())
            await self._send(StartFailed, error)

    async def _send(
        self, frame: type[Failed | StartFailed], error: InferenceError
    ) -> None:
        with suppress(*_BROKEN):
            wire = error_to_wire(encode_error(error))
            await self._parent.send_all(encode(frame(wire)))


async def _listening(host: str) -> trio.SocketListener:
    """Return where the engine connects to.

    Raises:
        EngineStartError: this machine has no such address, or no port or file left.
    """
    try:
        [listener] = await trio.open_tcp_listeners(0, host=host)
    except OSError as error:
        raise EngineStartError(
            f"the engine cannot connect to this machine at {host!r}, the address by "
            f"which Ray's nodes know it: {error}"
        ) from error
    return listener


async def _main(fd: int, order: Order) -> None:
    os.set_inheritable(fd, False)  # noqa: FBT003  positional-only
    parent = trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=fd)))
    try:
        await Relay(parent, order).run()
    except* FrameError:
        logging.getLogger(__name__).exception("the engine broke the bridge's protocol")
        sys.exit(1)


def main(arguments: list[str]) -> None:
    """Run the relay."""
    fd, parent_pid = map(int, arguments)
    try:
        die_with_parent(parent_pid)
    except OrphanedError:
        abandon_ship()
    guard_group()
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    # Ray's own wish to tell its makers of its use; the operator may allow it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    trio.run(_main, fd, read(os.environ.pop(ORDER)))


if __name__ == "__main__":
    main(sys.argv[1:])
