"""One generation: a thread that iterates, a trio task that reads.

mistral.rs has no asynchronous interface and no abort.  A generation is a
blocking iterator, and dropping the last reference to it is the cancellation.
So one thread per generation holds the only reference, and lets it go when the
reader has left.

Chunks cross into the event loop one by one; a semaphore keeps a reader that is
slow from piling them up.  (The engine itself runs ahead of the thread, as far
as ``max_tokens`` allows: it cannot be slowed down.)
"""

from __future__ import annotations

import math
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from atomr_infer.errors import OUT_OF_MEMORY, EngineError, InferenceError
from atomr_infer.model.batch import TokenChunk
from atomr_infer_mistralrs.faults import to_inference_error
from atomr_infer_mistralrs.translate import EngineChunk, chunk_from_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from atomr_infer_mistralrs.figures import Counting

WINDOW = 64
"""Unread chunks; a second or so of a small model's output."""


class Generation:
    """An answer that is being made.

    Args:
        counting: is given each piece in the event loop, when the engine tells it.
        on_prefilled: called once in the event loop when the prompt is in the
            cache: at the first chunk, or at an end that comes before it.
        on_ended: called once in the event loop when the engine's iterator has
            been dropped.

    Attributes:
        ended: set when the engine's iterator has been dropped.
        error: why it failed; known once it has ended, None when it did not fail.
    """

    def __init__(
        self,
        *,
        counting: Counting,
        on_prefilled: Callable[[], None],
        on_ended: Callable[[Generation], None],
    ) -> None:
        self.ended = trio.Event()
        self._counting = counting
        self._on_prefilled = on_prefilled
        self._on_ended = on_ended
        self._prefilled = False
        self._token = trio.lowlevel.current_trio_token()
        self._send, self._receive = trio.open_memory_channel[TokenChunk](math.inf)
        self._room = threading.Semaphore(WINDOW)
        self._left = threading.Event()
        self.error: InferenceError | None = None

    # --- the reader's side: trio ---------------------------------------------

    def __aiter__(self) -> Generation:
        return self

    async def __anext__(self) -> TokenChunk:
        """Return the next chunk.

        Raises:
            StopAsyncIteration: the answer is complete.
            InferenceError: it failed.
        """
        try:
            chunk = await self._receive.receive()
        except trio.EndOfChannel:
            if self.error is not None:
                raise self.error from None
            raise StopAsyncIteration from None
        self._room.release()
        return chunk

    def leave(self) -> None:
        """Have the thread drop the iterator at the next token."""
        self._left.set()
        self._room.release()

    def start(self, send: Callable[[], Iterator[EngineChunk]]) -> None:
        """Begin in a thread; ``send`` gives the engine the request.

        A thread that cannot be started ends the generation at once, with an error.
        """
        try:
            trio.lowlevel.start_thread_soon(lambda: self._run(send), lambda _: None)
        except RuntimeError as error:
            why = f"no thread for the generation: {error}"
            self._end(EngineError(why, code=OUT_OF_MEMORY))

    # --- the engine's side: a thread -----------------------------------------

    def _run(self, send: Callable[[], Iterator[EngineChunk]]) -> None:
        error: InferenceError | None = None
        try:
            self._iterate(send())
        except BaseException as raised:  # noqa: BLE001  the thread's boundary: all of it is reported
            # A Rust panic is no Exception.  Nothing gets past here: trio would
            # drop it, and the generation would never end.
            # It is not kept: its traceback would keep the iterator.
            error = to_inference_error(raised)
        self._call(self._end, error)

    def _iterate(self, chunks: Iterator[EngineChunk]) -> None:
        finished = False
        for received in chunks:
            chunk = chunk_from_engine(received)
            self._call(self._note, chunk)
            finished = finished or chunk.finish_reason is not None
            self._room.acquire()
            if self._left.is_set():
                return
            self._call(self._send.send_nowait, chunk)
        if not finished:
            raise EngineError("mistral.rs ended the answer without saying why")

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        # After the event loop's end there is nobody to tell.
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(function, *arguments)

    def _end(self, error: InferenceError | None) -> None:
        self.error = error
        self._note_prefilled()
        self._on_ended(self)
        self.ended.set()
        self._send.close()

    def _note(self, chunk: TokenChunk) -> None:
        self._note_prefilled()
        self._counting.take(chunk)

    def _note_prefilled(self) -> None:
        if not self._prefilled:
            self._prefilled = True
            self._on_prefilled()
