"""llama.cpp's steps: a token of each sequence in one run, a prompt's piece in another.

A sequence is a number in the context's cache.  The piece has a run of its own, for a
run that is stopped costs all of its sequences: a client who leaves while its prompt
is read stops that, and nobody else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.runtimes.decoding.engine import (
    Bounds,
    Engine,
    Outcome,
    Reading,
    Running,
)
from atomr_infer_llamacpp.faults import step_error
from atomr_infer_llamacpp.model import LlamaContext, Piece

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr_infer.runtimes.decoding.generation import Generation
    from atomr_infer.runtimes.decoding.sampling import Logits


@attrs.define(eq=False)
class Place:
    """A sequence in the cache; ``length``: tokens that it has there."""

    seq: int
    length: int = 0


class LlamaEngine(Engine[Place]):
    """One model on llama.cpp, and the sequences in it."""

    def __init__(self, context: LlamaContext, bounds: Bounds) -> None:
        super().__init__(bounds)
        self._context = context
        self._free = list(range(bounds.max_seqs))

    @property
    def sequences(self) -> int:
        """How many sequences hold a place in the cache."""
        return self._bounds.max_seqs - len(self._free)

    @property
    def cached_tokens(self) -> int:
        """Tokens in the cache by the library's own count; while no step runs."""
        return sum(map(self._context.holds, range(self._bounds.max_seqs)))

    def _place(self, generation: Generation) -> Place:
        return Place(self._free.pop())

    def _let_go(self, place: Place) -> None:
        self._context.drop(place.seq)
        self._free.append(place.seq)

    # --- in the thread --------------------------------------------------------------

    def _step(self, awake: Sequence[Running[Place]]) -> Outcome:
        outcome = Outcome()
        if awake:
            try:
                self._decode(awake, outcome)
            except Exception as error:  # noqa: BLE001  the engine's boundary: all of it is told
                outcome.fail((one.generation for one in awake), step_error(error))
        if self._reading is not None:
            try:
                self._read_on(self._reading, outcome)
            except Exception as error:  # noqa: BLE001  as above
                generation = self._reading.generation
                outcome.failed.append((generation, step_error(error)))
        return outcome

    def _decode(self, awake: Sequence[Running[Place]], outcome: Outcome) -> None:
        pieces = [
            Piece(one.place.seq, one.place.length, (one.answer.token,)) for one in awake
        ]
        logits = self._context.run(pieces)
        assert logits is not None, "nobody asked it to stop"
        for one, behind in zip(awake, logits, strict=True):
            one.place.length += 1
            outcome.take(one.generation, one.answer, behind)

    def _read_on(self, reading: Reading[Place], outcome: Outcome) -> None:
        generation, done = reading.generation, reading.done
        upto = min(len(generation.prompt), done + self._bounds.prefill_tokens)
        is_last = upto == len(generation.prompt)
        tokens = generation.prompt[done:upto]
        piece = Piece(reading.place.seq, done, tokens, wants_logits=is_last)
        logits = self._context.run([piece], lambda: generation.left)
        if logits is None:
            return  # it was left, and is let go of between the steps
        reading.done = reading.place.length = upto
        if is_last:
            self._begin(reading, logits[0], outcome)

    def _begin(self, reading: Reading[Place], logits: Logits, outcome: Outcome) -> None:
        """All answers go on from the one prompt."""
        generation, first = reading.generation, reading.place
        self._reading = None
        for answer in generation.answers:
            place = first
            if answer.index:
                place = Place(self._free.pop(), first.length)
                self._context.copy(first.seq, place.seq)
            self._running.append(Running(generation, answer, place))
            outcome.take(generation, answer, logits)
