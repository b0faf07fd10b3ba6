"""A cache: requests that are the same have one answer, and are asked once.

What is asked of the other deployment is a :class:`Flight`: a generation in a task of
the cache, whose chunks any number of requests read, each at its own pace.  The first
one begins it; others that come meanwhile join, and get what there is from its start.
A flight ends early when its last reader has left.

Who joins late must have the whole answer, so a flight is kept in memory while it may
be joined.  One that grows larger than the cache is no longer joined, its beginning is
let go when all have read it, and its upstream waits for the slowest reader.
"""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.errors import InferenceError, NotReadyError
from atomr_infer.model.capabilities import Capabilities, Feature
from atomr_infer.model.embeddings import Embeddings, Vector
from atomr_infer.model.usage import Usage
from atomr_infer.pipeline.asking.runner import CAPABILITIES, AskingRunner
from atomr_infer.pipeline.asking.sameness import is_deterministic, key_of, key_of_input
from atomr_infer.pipeline.asking.tasks import open_tasks
from atomr_infer.pipeline.caching.answer_cache import (
    AnswerCache,
    size_of_chunk,
    size_of_vector,
)
from atomr_infer.pipeline.caching.vector_flights import VectorFlight, is_of_who_began
from atomr_infer.serving.replicas.fresh_error import fresh

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.model.embeddings import EmbedRequest
    from atomr_infer.pipeline.caching.options import CacheOptions
    from atomr_infer.pipeline.caching.vector_flights import Inputs
    from atomr_infer.runtimes.others import Asking, Others

_CAPABILITIES: Capabilities = attrs.evolve(
    CAPABILITIES, features=CAPABILITIES.features | {Feature.EMBEDDINGS}
)


@attrs.define(eq=False)
class Reader:
    """How far one request has read."""

    position: int = 0


class Flight:
    """One generation, as those see it that read it.

    Attributes:
        size_bytes: about how much has come.
        whole: True when all of it has come.
        joinable: False when its beginning may be gone.
    """

    def __init__(self) -> None:
        self._chunks: list[TokenChunk] = []
        self._gone = 0  # chunks that all have read, and that are let go
        self._readers: set[Reader] = set()
        self._changed = trio.lowlevel.ParkingLot()
        self._read = trio.lowlevel.ParkingLot()
        self._failure: InferenceError | None = None
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self.size_bytes = 0
        self.whole = False
        self.joinable = True

    @property
    def chunks(self) -> tuple[TokenChunk, ...]:
        """What has come, of a flight that may be joined."""
        return tuple(self._chunks)

    async def run(self, others: Others, batch: ExecuteBatch, max_bytes: int) -> None:
        """Ask, and hold what comes; never raises what is asked's errors."""
        try:
            with self._scope:
                async with others.asking() as asking:
                    await self._fill(asking, batch, max_bytes)
        except InferenceError as error:
            self._failure = error
        finally:
            if not self.whole and self._failure is None:
                self._failure = NotReadyError("the cache was stopped")
            self.joinable = self.joinable and self.whole
            self._ended.set()
            self._changed.unpark_all()

    async def _fill(self, asking: Asking, batch: ExecuteBatch, max_bytes: int) -> None:
        async for chunk in asking.generate(batch):
            self._chunks.append(chunk)
            self.size_bytes += size_of_chunk(chunk)
            self._changed.unpark_all()
            if self.size_bytes > max_bytes:
                self.joinable = False
                await self._let_go()
        self.whole = True

    async def _let_go(self) -> None:
        """Wait until all have read what there is, and let it go."""
        while self._readers:
            read = min(reader.position for reader in self._readers)
            if read >= self._gone + len(self._chunks):
                break
            await self._read.park()
        self._gone += len(self._chunks)
        self._chunks.clear()

    def join(self) -> Reader:
        """Become one of those that read it, until :meth:`leave`."""
        reader = Reader()
        self._readers.add(reader)
        return reader

    async def read(self, reader: Reader) -> AsyncGenerator[TokenChunk, None]:
        """Yield the chunks from the first one on.

        Raises:
            InferenceError: the generation failed.
        """
        while True:
            while reader.position < self._gone + len(self._chunks):
                chunk = self._chunks[reader.position - self._gone]
                reader.position += 1
                self._read.unpark_all()
                yield chunk
            if self._ended.is_set():
                break
            await self._changed.park()
        if self._failure is not None:
            # Each reader's own: raising adds to an error.
            error = fresh(self._failure)
            error.final = True
            raise error

    async def leave(self, reader: Reader) -> None:
        """Read no more; end the generation if nobody else reads it."""
        self._readers.discard(reader)
        self._read.unpark_all()
        if not self._readers:
            self.joinable = self.joinable and self.whole
            self._scope.cancel()
            with trio.CancelScope(shield=True):
                await self._ended.wait()


class CacheRunner(AskingRunner):
    """Answers from what is there, joins what is under way, or asks."""

    def __init__(
        self, options: CacheOptions, others: Others, nursery: trio.Nursery
    ) -> None:
        super().__init__(others)
        self._options = options
        self._nursery = nursery
        self._answers: AnswerCache[tuple[TokenChunk, ...]]
        self._answers = AnswerCache(options.max_bytes, options.ttl_s)
        self._vectors: AnswerCache[Vector]
        self._vectors = AnswerCache(options.max_bytes, options.ttl_s)
        self._flights: dict[bytes, Flight] = {}
        self._texts: dict[bytes, VectorFlight] = {}

    @property
    def capabilities(self) -> Capabilities:
        """Everything: who is asked says what it cannot do."""
        return _CAPABILITIES

    @asynccontextmanager
    async def _answer(
        self, batch: ExecuteBatch, asking: Asking
    ) -> AsyncIterator[AsyncIterator[TokenChunk]]:
        batch = attrs.evolve(batch, model=self._options.model)
        if self._options.requests != "all" and not is_deterministic(batch):
            yield asking.generate(batch)
            return
        key = key_of(batch, shared_by=self._options.shared_by)
        kept = self._answers.get(key, trio.current_time())
        if kept is not None:
            asking.note(batch.model, "hit")
            async with aclosing(_replayed(kept)) as chunks:
                yield chunks
            return
        flight = self._flights.get(key)
        if flight is not None and flight.joinable:
            asking.note(batch.model, "joined")
        else:
            flight = self._flights[key] = Flight()
            # Its readers have bounds of their own, and one who leaves is not all.
            asked = attrs.evolve(batch, timeout_s=None)
            self._nursery.start_soon(self._fly, key, flight, asked)
        reader = flight.join()
        try:
            async with aclosing(flight.read(reader)) as chunks:
                yield chunks
        finally:
            await flight.leave(reader)

    async def _fly(self, key: bytes, flight: Flight, batch: ExecuteBatch) -> None:
        try:
            await flight.run(self._others, batch, self._options.max_bytes)
        finally:
            if self._flights.get(key) is flight:
                del self._flights[key]
        if flight.whole and flight.joinable and _is_complete(flight.chunks):
            now = trio.current_time()
            self._answers.put(key, flight.chunks, flight.size_bytes, now)

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Return vectors, of which only those are asked for that are not there.

        What another request asks for already is waited for.  Texts that are to be
        classified are asked for each time: a vector alone does not say its labels.

        Raises:
            InferenceError: that of who is asked.

        Cancellation: ends what is asked, unless others wait for it, too.
        """
        request = attrs.evolve(request, model=self._options.model)
        if request.classifies:
            async with self._others.asking() as asking:
                return await asking.embed(request)
        key = key_of(request, shared_by=self._options.shared_by)
        keys = [key_of_input(key, each) for each in request.inputs]
        wanted = dict(zip(keys, request.inputs, strict=True))
        now = trio.current_time()
        kept = {k: self._vectors.get(k, now) for k in wanted}
        found = {k: vector for k, vector in kept.items() if vector is not None}
        lacking = {k: each for k, each in wanted.items() if k not in found}
        run = _Vectors(found)
        async with self._others.asking() as asking:
            if lacking:
                await self._ask_for(lacking, request, run, asking)
            else:
                asking.note(request.model, "hit")
        return Embeddings(
            vectors=tuple(run.found[k] for k in keys), usage=run.usage, model=run.model
        )

    async def _ask_for(
        self, lacking: Inputs, request: EmbedRequest, run: _Vectors, asking: Asking
    ) -> None:
        """Wait for what others ask for already, and ask for the rest meanwhile."""
        known = {k: self._texts[k] for k in lacking if k in self._texts}
        joined = {k: flight for k, flight in known.items() if not flight.is_left}
        rest = {k: each for k, each in lacking.items() if k not in joined}
        own = [self._begin(rest, request)] if rest else []
        others = list(dict.fromkeys(joined.values()))
        for flight in others:
            flight.join()
        try:
            if others:
                asking.note(request.model, "joined")
            for flight in others:
                try:
                    run.found |= (await flight.result())[1]
                except InferenceError as error:
                    if not is_of_who_began(error):
                        raise
            again = {k: lacking[k] for k in joined if k not in run.found}
            if again:
                own.append(self._begin(again, request))
            for flight in own:
                run.take(*await flight.result())
        finally:
            for flight in (*others, *own):
                await flight.leave()

    def _begin(self, wanted: Inputs, request: EmbedRequest) -> VectorFlight:
        """Ask for some texts, in a task of the cache; joined."""
        flight = VectorFlight(wanted)
        flight.join()
        self._texts.update(dict.fromkeys(wanted, flight))
        self._nursery.start_soon(self._fly_for, flight, request)
        return flight

    async def _fly_for(self, flight: VectorFlight, request: EmbedRequest) -> None:
        try:
            await flight.run(self._others, request, self._keep)
        finally:
            for key in flight.wanted:
                if self._texts.get(key) is flight:
                    del self._texts[key]

    def _keep(self, vectors: Mapping[bytes, Vector]) -> None:
        now = trio.current_time()
        for key, vector in vectors.items():
            self._vectors.put(key, vector, size_of_vector(vector), now)


@attrs.define(eq=False)
class _Vectors:
    """The vectors of one request, as far as they are there.

    Attributes:
        found: them, by what their texts are known by.
        usage: what was used to have them.
        model: the model that served.
    """

    found: dict[bytes, Vector]
    usage: Usage = attrs.field(factory=Usage)
    model: str | None = None

    def take(self, new: Embeddings, vectors: Mapping[bytes, Vector]) -> None:
        """Take what was asked for."""
        # What the upstream says of the price is lost where there is none to add to.
        self.usage = new.usage if self.usage == Usage() else self.usage + new.usage
        self.model = new.model
        self.found |= vectors


@asynccontextmanager
async def open_cache(
    options: CacheOptions, others: Others
) -> AsyncIterator[CacheRunner]:
    """Return a block with an empty cache; its end ends what it asks."""
    async with open_tasks() as nursery:
        yield CacheRunner(options, others, nursery)


async def _replayed(chunks: tuple[TokenChunk, ...]) -> AsyncGenerator[TokenChunk, None]:
    for chunk in chunks:
        await trio.lowlevel.checkpoint()
        yield chunk


def _is_complete(chunks: tuple[TokenChunk, ...]) -> bool:
    """Whether every choice that has begun has ended: a cut answer is not kept."""
    begun = {chunk.index for chunk in chunks if chunk.has_content}
    ended = {chunk.index for chunk in chunks if chunk.finish_reason is not None}
    return bool(ended) and begun <= ended
