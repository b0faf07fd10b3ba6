"""Continuous batching: sequences join and leave the batch at each step.

The engine works in steps.  In one step, every sequence whose prompt has been read
gets its next token, and one prompt that is being read gets its next piece.  Between
two steps, requests that ended or were left are gone, and others are admitted, first
come, first served, while there are rows (``max_seqs``) and room in the cache
(``cache_tokens``) for the worst that they may become.  So nothing is ever put aside
for want of memory.

A step runs in a worker thread, one at a time; what is shared belongs to the
event loop between steps and to the thread in them.  A request that is left in
mid-step is out of the engine when the step is.

What a step does is for who inherits from :class:`Engine`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs
import trio

from atomr_infer.errors import (
    EngineCrashedError,
    InferenceError,
    NotReadyError,
    decode,
    encode,
)
from atomr_infer.model import figures
from atomr_infer.model.batch import TokenChunk
from atomr_infer.runtimes.decoding.answer import Answer
from atomr_infer.runtimes.decoding.generation import Generation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from atomr_infer.model.figures import Figure
    from atomr_infer.runtimes.decoding.sampling import Logits

PlaceT = TypeVar("PlaceT")
"""Where an engine has a sequence."""


@attrs.frozen(kw_only=True)
class Bounds:
    """How much the engine takes on.

    Attributes:
        max_seqs: sequences that are decoded together.
        prefill_tokens: tokens of a prompt that are read in one step.
        cache_tokens: tokens of all sequences together.
    """

    max_seqs: int
    prefill_tokens: int
    cache_tokens: int


@attrs.define(eq=False)
class Running(Generic[PlaceT]):
    """An answer whose prompt is in the cache."""

    generation: Generation
    answer: Answer
    place: PlaceT


@attrs.define(eq=False)
class Reading(Generic[PlaceT]):
    """A generation whose prompt is being read; ``done``: tokens that are."""

    generation: Generation
    place: PlaceT
    done: int = 0

    @property
    def is_read(self) -> bool:
        """Whether all of the prompt is in the cache."""
        return self.done == len(self.generation.prompt)


@attrs.define
class Outcome:
    """What a step gave."""

    chunks: list[tuple[Generation, TokenChunk]] = attrs.field(factory=list)
    failed: list[tuple[Generation, InferenceError]] = attrs.field(factory=list)

    def take(self, generation: Generation, answer: Answer, logits: Logits) -> None:
        """Have an answer choose its next token; what it costs is its own."""
        try:
            chunk = answer.take(logits)
        except InferenceError as error:  # the others are well
            self.failed.append((generation, error))
            return
        self.tell(generation, chunk)

    def tell(self, generation: Generation, chunk: TokenChunk | None) -> None:
        """Note what is new of an answer; None: nothing is."""
        if chunk is not None:
            self.chunks.append((generation, chunk))

    def fail(self, generations: Iterable[Generation], error: InferenceError) -> None:
        """Note that generations ended by what happened to all of them."""
        told = encode(error)
        for generation in set(generations):
            # An error of its own for each: one that many raise mixes tracebacks.
            self.failed.append((generation, decode(told)))


class Engine(ABC, Generic[PlaceT]):
    """One model, and the sequences in it.

    Attributes:
        steps: steps that were made.
        crashed: set when it can make no more.
        crash: why.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.steps = 0
        self.crashed = trio.Event()
        self.crash: EngineCrashedError | None = None
        self._bounds = bounds
        self._waiting: deque[Generation] = deque()
        self._reading: Reading[PlaceT] | None = None
        self._running: list[Running[PlaceT]] = []
        self._work = trio.Event()
        self._turn = trio.CapacityLimiter(1)
        self._closed = False

    @property
    def bounds(self) -> Bounds:
        """How much it takes on."""
        return self._bounds

    @property
    def generations(self) -> set[Generation]:
        """Those that wait or are worked on."""
        inside = {one.generation for one in self._running}
        if self._reading is not None:
            inside.add(self._reading.generation)
        inside.update(self._waiting)
        return {one for one in inside if not one.ended.is_set()}

    def figures(self) -> tuple[Figure, ...]:
        """Return how it stands; a cache is taken for the worst that may come."""
        held = {one.generation for one in self._running}
        if self._reading is not None:
            held.add(self._reading.generation)
        taken = sum(generation.cache_tokens for generation in held)
        return (
            figures.running(len(held)),
            figures.waiting(len(self._waiting)),
            figures.cache_used(taken / self._bounds.cache_tokens),
            figures.steps(self.steps),
        )

    def submit(self, generation: Generation) -> None:
        """Take a generation; it waits for its turn.

        Raises:
            EngineCrashedError: the engine can serve no more.
            NotReadyError: it is closed.
        """
        if self.crash is not None:
            raise decode(encode(self.crash))
        # Its prompt was read while the engine was closed: nobody would end it.
        if self._closed:
            raise NotReadyError("the engine is closed")
        self._waiting.append(generation)
        self._work.set()

    def wake(self) -> None:
        """Look again whether there is something to do."""
        self._work.set()

    async def run(self) -> None:
        """Make steps while there is work; wait while there is none.

        Cancellation: at the end of the current step.
        """
        try:
            while self.crash is None:
                self._turn_over()
                if self._reading is None and not self._awake():
                    self._work = trio.Event()
                    await self._work.wait()
                    continue
                outcome = await trio.to_thread.run_sync(
                    self._step, self._awake(), limiter=self._turn
                )
                self._deliver(outcome)
        finally:
            self._closed = True
            closed = NotReadyError("the engine is closed")
            gone = encode(closed if self.crash is None else self.crash)
            for generation in self.generations:
                generation.end(decode(gone))

    # --- between steps ------------------------------------------------------------

    def _turn_over(self) -> None:
        """Let go of what has ended, and admit what fits."""
        for generation in self.generations:
            if generation.left:
                generation.end()
        self._waiting = deque(g for g in self._waiting if not g.ended.is_set())
        if self._reading is not None and self._reading.generation.ended.is_set():
            self._let_go(self._reading.place)
            self._reading = None
        running, self._running = self._running, []
        for one in running:
            if one.generation.ended.is_set() or one.answer.finished:
                self._let_go(one.place)
            else:
                self._running.append(one)
        if self._reading is None and self._waiting and self._fits(self._waiting[0]):
            generation = self._waiting.popleft()
            place = self._place(generation)
            self._reading = Reading(generation, place, done=generation.cached)

    def _fits(self, generation: Generation) -> bool:
        held = {one.generation for one in self._running}
        rows = len(self._running) + len(generation.answers)
        tokens = sum(other.cache_tokens for other in held) + generation.cache_tokens
        return rows <= self._bounds.max_seqs and tokens <= self._bounds.cache_tokens

    def _awake(self) -> list[Running[PlaceT]]:
        return [one for one in self._running if not one.generation.rests]

    def _deliver(self, outcome: Outcome) -> None:
        self.steps += 1
        for generation, chunk in outcome.chunks:
            generation.deliver(chunk)
        for generation, error in outcome.failed:
            generation.end(error)
            if isinstance(error, EngineCrashedError):
                self.crash = EngineCrashedError(error.message, code=error.code)
                self.crashed.set()
        for generation in self.generations:
            if all(answer.finished for answer in generation.answers):
                generation.end()

    # --- what an engine adds ----------------------------------------------------------

    @abstractmethod
    def _place(self, generation: Generation) -> PlaceT:
        """Return where a prompt will be read; between steps.

        What of it is there already, it notes as the generation's ``cached``.
        """

    @abstractmethod
    def _let_go(self, place: PlaceT) -> None:
        """Free what a sequence held; between steps."""

    @abstractmethod
    def _step(self, awake: Sequence[Running[PlaceT]]) -> Outcome:
        """Give each of ``awake`` a token, and read on; in the thread."""
