"""Continuous batching: sequences join and leave the batch at each step.

The engine works in steps.  In one step, every sequence that has its prompt in
the cache gets its next token, all in one run of the model, and one prompt that
is being read gets its next piece.  Between two steps, requests that ended or
were left are gone, and others are admitted, first come, first served, while
there are rows (``max_seqs``) and room in the cache (``cache_tokens``) for the
worst that they may become.  So nothing is ever put aside for want of memory.

A step runs in a worker thread, one at a time; what is shared belongs to the
event loop between steps and to the thread in them.  A request that is left in
mid-step is out of the engine when the step is.

A sequence is wherever its :class:`Part` says.  Those of a run that stay together
find their cache as the run left it; when one leaves or joins, the others are
gathered into a new one.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.errors import (
    EngineCrashedError,
    InferenceError,
    NotReadyError,
    decode,
    encode,
)
from atomr_infer.model.batch import TokenChunk
from atomr_infer.runtimes.decoding.answer import Answer
from atomr_infer.runtimes.decoding.generation import Generation
from atomr_infer_ort.faults import step_error
from atomr_infer_ort.model import Abilities, CausalModel, Part, Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr_infer.runtimes.decoding.sampling import Logits


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
class _Running:
    """An answer whose prompt is in the cache."""

    generation: Generation
    answer: Answer
    part: Part


@attrs.define(eq=False)
class _Reading:
    """A generation whose prompt is being read."""

    generation: Generation
    part: Part

    @property
    def is_read(self) -> bool:
        return self.part.length == len(self.generation.prompt)


@attrs.define
class _Outcome:
    """What a step gave."""

    chunks: list[tuple[Generation, TokenChunk]] = attrs.field(factory=list)
    failed: list[tuple[Generation, InferenceError]] = attrs.field(factory=list)


class Engine:
    """One model, and the sequences in it.

    Attributes:
        steps: steps that were made.
        crashed: set when it can make no more.
        crash: why.
    """

    def __init__(
        self, model: CausalModel, abilities: Abilities, bounds: Bounds
    ) -> None:
        self.steps = 0
        self.crashed = trio.Event()
        self.crash: EngineCrashedError | None = None
        self._model = model
        self._abilities = abilities
        self._bounds = bounds
        self._waiting: deque[Generation] = deque()
        self._reading: _Reading | None = None
        self._running: list[_Running] = []
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

    def submit(self, generation: Generation) -> None:
        """Take a generation; it waits for its turn.

        Raises:
            EngineCrashedError: the engine can serve no more.
            NotReadyError: it is closed.
        """
        if self.crash is not None:
            raise EngineCrashedError(self.crash.message)
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
            self._reading = None
        self._running = [
            one
            for one in self._running
            if not one.generation.ended.is_set() and not one.answer.finished
        ]
        if self._reading is None and self._waiting and self._fits(self._waiting[0]):
            self._reading = _Reading(self._waiting.popleft(), Part(self._model.empty()))

    def _fits(self, generation: Generation) -> bool:
        held = {one.generation for one in self._running}
        rows = len(self._running) + len(generation.answers)
        tokens = sum(other.cache_tokens for other in held) + generation.cache_tokens
        return rows <= self._bounds.max_seqs and tokens <= self._bounds.cache_tokens

    def _awake(self) -> list[_Running]:
        return [one for one in self._running if not one.generation.rests]

    def _deliver(self, outcome: _Outcome) -> None:
        self.steps += 1
        for generation, chunk in outcome.chunks:
            generation.deliver(chunk)
        for generation, error in outcome.failed:
            generation.end(error)
            if isinstance(error, EngineCrashedError):
                self.crash = EngineCrashedError(error.message)
                self.crashed.set()
        for generation in self.generations:
            if all(answer.finished for answer in generation.answers):
                generation.end()

    # --- in the thread --------------------------------------------------------------

    def _step(self, awake: Sequence[_Running]) -> _Outcome:
        outcome = _Outcome()
        resting = [one for one in self._running if one not in set(awake)]
        try:
            self._set_aside(resting)
        except Exception as error:  # noqa: BLE001  the engine's boundary: all of it is told
            _fail(outcome, resting, error)
        for together in self._runs(awake):
            try:
                self._decode(together, outcome)
            except Exception as error:  # noqa: BLE001  as above
                _fail(outcome, together, error)
        if self._reading is not None:
            self._read_on(self._reading, outcome)
        return outcome

    def _set_aside(self, resting: Sequence[_Running]) -> None:
        """Give sequences that rest caches of their own.

        They would keep the cache that they shared, of all those beside them.
        """
        for one in resting:
            if one.part.cache.rows > 1:
                one.part = Part(self._model.gather([one.part]))

    def _runs(self, awake: Sequence[_Running]) -> list[list[_Running]]:
        if not awake:
            return []
        if self._abilities.pads:
            return [list(awake)]
        by_length: dict[int, list[_Running]] = defaultdict(list)
        for one in awake:
            by_length[one.part.length].append(one)
        return list(by_length.values())

    def _decode(self, together: Sequence[_Running], outcome: _Outcome) -> None:
        self._bring_together(together)
        tokens = [[one.answer.token] for one in together]
        pads = [one.part.pad for one in together]
        logits, cache = self._model.run(Rows(tokens, together[0].part.cache, pads))
        for row, one in enumerate(together):
            one.part = Part(cache, row, pads[row])
            self._take(one.generation, one.answer, logits[row], outcome)

    def _bring_together(self, together: Sequence[_Running]) -> None:
        first = together[0].part.cache
        stay = first.rows == len(together) and all(
            one.part.cache is first and one.part.row == row
            for row, one in enumerate(together)
        )
        if stay:
            return
        cache = self._model.gather([one.part for one in together])
        for row, one in enumerate(together):
            one.part = Part(cache, row, cache.width - one.part.length)

    def _read_on(self, reading: _Reading, outcome: _Outcome) -> None:
        generation, done = reading.generation, reading.part.length
        upto = len(generation.prompt)
        if self._abilities.pieces:
            upto = min(upto, done + self._bounds.prefill_tokens)
        piece = generation.prompt[done:upto]
        try:
            logits, cache = self._model.run(Rows([piece], reading.part.cache, [0]))
            reading.part = Part(cache)
            if reading.is_read:
                self._begin(reading, logits[0], outcome)
        except Exception as error:  # noqa: BLE001  as in _step
            self._reading = None
            outcome.failed.append((generation, step_error(error)))

    def _begin(self, reading: _Reading, logits: Logits, outcome: _Outcome) -> None:
        """All answers go on from the one prompt."""
        generation = reading.generation
        self._reading = None
        for answer in generation.answers:
            self._running.append(_Running(generation, answer, reading.part))
            self._take(generation, answer, logits, outcome)

    def _take(
        self,
        generation: Generation,
        answer: Answer,
        logits: Logits,
        outcome: _Outcome,
    ) -> None:
        try:
            chunk = answer.take(logits)
        except InferenceError as error:  # the others are well
            outcome.failed.append((generation, error))
            return
        if chunk is not None:
            outcome.chunks.append((generation, chunk))


def _fail(outcome: _Outcome, together: Sequence[_Running], error: Exception) -> None:
    told = encode(step_error(error))
    for generation in {one.generation for one in together}:
        # An error of its own for each: one that many raise mixes tracebacks.
        outcome.failed.append((generation, decode(told)))
