"""One end of the bridge's socket: frames in, frames out.

Sending never waits: a frame is put into a queue that one task writes out.  So
no request task can be held up by a peer that does not read, and no lock is
needed.  The queue is bounded by what is sent, not here: a stream has at most
its credit of chunks on the way, and a handful of control frames.

Each token of a lone stream is a write here and a read there, so both are done by
hand: a write is tried where it stands, and a read is tried when there is something
to read.  ``trio.SocketStream`` tries first, and lets the other tasks have a turn
for each.

Owns its socket.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from typing import Generic, TypeVar

import trio

from atomr.waking import Parked
from atomr_infer.bridge.protocol.frames import (
    MAX_FRAME_BYTES,
    ChildFrame,
    FrameReader,
    ParentFrame,
    encode,
)

RECEIVE_BYTES = 256 * 1024
"""Read at once; a socketpair's buffer holds about that much on Linux."""

_F = TypeVar("_F")


class Link(Generic[_F]):
    """Frames over a connected stream socket.

    Attributes:
        heard: set when anything arrives; the watch clears it.
    """

    def __init__(
        self,
        stream: trio.SocketStream,
        reader: FrameReader[_F],
        *,
        max_frame_bytes: int = MAX_FRAME_BYTES,
    ) -> None:
        self._stream = stream
        self._fd = stream.socket.fileno()
        self._room = bytearray(RECEIVE_BYTES)
        self._reader = reader
        self._max_frame_bytes = max_frame_bytes
        self._outgoing: deque[bytes] = deque()
        self._writer = Parked()
        self._idle = trio.Event()
        self._idle.set()
        self.heard = False

    def send_nowait(self, frame: ParentFrame | ChildFrame) -> None:
        """Queue a frame.

        Raises:
            FrameError: it cannot be encoded; nothing is queued.
        """
        self._outgoing.append(encode(frame, max_bytes=self._max_frame_bytes))
        if self._idle.is_set():
            self._idle = trio.Event()
        self._writer.wake()

    async def write_forever(self) -> None:
        """Write queued frames until cancelled or until the peer is gone.

        A peer that is gone is no error here: the reading side sees it too, and
        knows what it means.
        """
        while True:
            while not self._outgoing:
                await self._writer.wait()
            pending = b"".join(self._outgoing)
            self._outgoing.clear()
            try:
                await self._write(pending)
            except (OSError, trio.ClosedResourceError):
                self._idle.set()
                return
            if not self._outgoing:
                self._idle.set()

    async def _write(self, pending: bytes) -> None:
        """Write all; a checkpoint only where the socket's buffer is full."""
        left = memoryview(pending)
        while True:
            with suppress(BlockingIOError):
                left = left[os.write(self._descriptor(), left) :]
            if not left:
                return
            await trio.lowlevel.wait_writable(self._descriptor())

    def _descriptor(self) -> int:
        if self._fd < 0:
            raise trio.ClosedResourceError("the link was closed here")
        return self._fd

    async def flush(self) -> None:
        """Wait until everything queued is with the kernel, or the peer is gone."""
        await self._idle.wait()

    async def receive(self) -> list[_F] | None:
        """Return the frames that the next bytes complete, perhaps none.

        Returns:
            None when the peer has closed its end, or is gone.

        Raises:
            FrameError: it sent something that is no frame.
        """
        try:
            received = await self._read()
        except (OSError, trio.ClosedResourceError):
            # A peer that dies with unread bytes resets a socket pair.
            return None
        if not received:
            return None
        self.heard = True
        return self._reader.receive(received)

    async def _read(self) -> memoryview:
        while True:
            await trio.lowlevel.wait_readable(self._descriptor())
            try:
                size = os.readv(self._descriptor(), [self._room])
            except BlockingIOError:
                continue
            return memoryview(self._room)[:size]

    async def aclose(self) -> None:
        """Close the socket; the peer reads end-of-file."""
        # The number may be another file's from here on.
        self._fd = -1
        await trio.aclose_forcefully(self._stream)
