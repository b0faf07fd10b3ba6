"""Generations on their way over the bridge: one class per side.

Credit is what keeps a slow reader from filling anybody's memory: the child may
send as many chunks of a stream as the parent has granted, and the parent grants
more as its reader takes them.  A reader that stops thereby stops the child's
forwarding, and the runner sees a consumer that does not ask for more.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NoReturn

import trio

from atomr.waking import Parked
from atomr_infer.bridge.protocol.frames import (
    Chunk,
    Credit,
    FrameError,
    Text,
    Told,
)
from atomr_infer.bridge.protocol.values import chunk_from_wire
from atomr_infer.model.batch import TokenChunk

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.errors import InferenceError


AT_ONCE = 8
"""Chunks that a reader gets without a turn for the others, where they are here: a turn
of the loop costs more than a chunk, and eight chunks are some tens of microseconds."""


class ParentStream:
    """What the parent's reader iterates over.

    Attributes:
        number: the stream's number on the wire.
        ended: set when the generation is out of the engine, however it ended.
        left: whether the child was told to stop it.
    """

    computes = True

    def __init__(
        self, number: int, window: int, send: Callable[[Credit], None]
    ) -> None:
        self.number = number
        self.ended = trio.Event()
        self.left = False
        self._window = window
        self._send = send
        self._chunks: deque[TokenChunk] = deque()
        self._credit = window
        self._owed = 0
        self._error: InferenceError | None = None
        self._cut = False
        self._reader = Parked()
        self._at_once = 0

    def __aiter__(self) -> ParentStream:
        return self

    async def __anext__(self) -> TokenChunk:
        """Return the next chunk; a checkpoint where it waits, and now and then else.

        Raises:
            StopAsyncIteration: the generation ended well.
            InferenceError: it failed, or the child died.
        """
        self._at_once += 1
        if self._at_once == AT_ONCE:
            # Chunks that are already here must not starve the other tasks.
            self._at_once = 0
            await trio.lowlevel.checkpoint()
        while not self._chunks or self._cut:
            if self.ended.is_set():
                self._raise_end()
            self._at_once = 0
            await self._reader.wait()
        self._grant()
        return self._chunks.popleft()

    @property
    def has_room(self) -> bool:
        """Whether the child may send more; False: the reader does not read."""
        return self._credit > 0

    def take(self, frame: Told) -> None:
        """Take what the child says of this stream.

        Raises:
            FrameError: it is no chunk, or more than the child may send.
        """
        if isinstance(frame, Text):
            self.push(TokenChunk(text=frame.text, index=frame.index))
            return
        if not isinstance(frame, Chunk):
            raise FrameError(f"{type(frame).__name__} in a stream of chunks")
        self.push(chunk_from_wire(frame.chunk))

    def push(self, chunk: TokenChunk) -> None:
        """Take a chunk from the child.

        Raises:
            FrameError: the child has sent more than it may.
        """
        if self._credit == 0:
            raise FrameError(f"more than {self._window} unread chunks of one stream")
        self._credit -= 1
        self._chunks.append(chunk)
        self._reader.wake()

    def end(self, error: InferenceError | None) -> None:
        """Note the stream's end; the reader gets what has arrived before it."""
        self._error = error
        self.ended.set()
        self._reader.wake()

    def cut(self, error: InferenceError) -> None:
        """End at once; chunks that nobody has read yet are dropped.

        The fewer chunks a client has seen, the likelier may another replica
        take the request over.
        """
        if not self.ended.is_set():
            self._cut = True
            self.end(error)

    def _raise_end(self) -> NoReturn:
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    def _grant(self) -> None:
        """Give credit back in halves of the window: few frames, no stalls."""
        self._owed += 1
        if self._owed * 2 >= self._window and not self.ended.is_set():
            self._credit += self._owed
            self._send(Credit(self.number, self._owed))
            self._owed = 0


class ChildStream:
    """What the child knows of one generation.

    Attributes:
        scope: cancelling it stops the generation.
    """

    def __init__(self, credit: int) -> None:
        self.scope = trio.CancelScope()
        self._credit = credit
        self._more = trio.Event()

    async def take_credit(self) -> None:
        """Wait until one more chunk may be sent; at once, when it may.

        A semaphore would have the other tasks run each time, which the runner does
        for its chunks anyway.
        """
        while not self._credit:
            self._more = trio.Event()
            await self._more.wait()
        self._credit -= 1

    def add_credit(self, chunks: int) -> None:
        """The reader has room for ``chunks`` more."""
        self._credit += chunks
        self._more.set()
