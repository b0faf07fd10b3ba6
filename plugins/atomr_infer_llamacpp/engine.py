"""llama.cpp's steps: a token of each sequence in one run, a prompt's piece in another.

A sequence is a number in the context's cache.  The piece has a run of its own, for a
run that is stopped costs all of its sequences: a client who leaves while its prompt
is read stops that, and nobody else.

A sequence that ends leaves its beginning in the cache, for prompts that begin so
(:mod:`~atomr_infer_llamacpp.kept`).  All sequences that are under way have room for the
worst that they may become; what is kept has what they leave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.model import figures
from atomr_infer.runtimes.decoding.engine import (
    Bounds,
    Engine,
    Outcome,
    Reading,
    Running,
)
from atomr_infer_llamacpp.faults import step_error
from atomr_infer_llamacpp.kept import Kept, Place, nearest
from atomr_infer_llamacpp.pieces import Piece

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr_infer.model.figures import Figure
    from atomr_infer.runtimes.decoding.generation import Generation
    from atomr_infer.runtimes.decoding.sampling import Logits
    from atomr_infer_llamacpp.model import LlamaContext


class LlamaEngine(Engine[Place]):
    """One model on llama.cpp, and the sequences in it.

    Args:
        context: the model's.
        bounds: how much it takes on.
        keeps: whether sequences that ended are kept for prompts that begin alike.
    """

    def __init__(
        self, context: LlamaContext, bounds: Bounds, *, keeps: bool = True
    ) -> None:
        super().__init__(bounds)
        self._context = context
        self._free = list(range(bounds.max_seqs))
        self._keeps = keeps
        self._kept = Kept()
        self._asked_tokens = self._found_tokens = 0

    @property
    def sequences(self) -> int:
        """How many sequences are under way."""
        return self._bounds.max_seqs - len(self._free) - len(self._kept.places)

    @property
    def cached_tokens(self) -> int:
        """Tokens in the cache by the library's own count; while no step runs."""
        return sum(map(self._context.holds, range(self._bounds.max_seqs)))

    @property
    def read_tokens(self) -> int:
        """Tokens that were computed."""
        return self._context.read_tokens

    def figures(self) -> tuple[Figure, ...]:
        """Return how it stands, and what its cache was good for."""
        if not self._keeps:
            return super().figures()
        return (
            *super().figures(),
            figures.prefix_asked(self._asked_tokens),
            figures.prefix_hit(self._found_tokens),
        )

    def _place(self, generation: Generation) -> Place:
        prompt, piece = generation.prompt, self._bounds.prefill_tokens
        kept = self._kept.places
        running = [one.place for one in self._running] if self._keeps else []
        source, shared = nearest((*kept, *running), prompt, piece)
        generation.cached = shared
        self._asked_tokens += len(prompt)
        self._found_tokens += shared
        if source is not None and source in kept:
            if len(source.tokens) > shared:
                self._kept.touch(source)
            else:
                # All of it begins the prompt, so it is the prompt's from now on.
                self._kept.take(source)
                self._make_room(generation, places=len(generation.answers) - 1)
                return source
        for gone in self._make_room(
            generation, places=len(generation.answers), but_last=source
        ):
            if gone is source:
                return self._shortened(gone, shared)
        return self._copied(source, shared)

    def _make_room(
        self, generation: Generation, *, places: int, but_last: Place | None = None
    ) -> list[Place]:
        """Free what a generation may need of what is kept; return what went."""
        held = {one.generation for one in self._running} | {generation}
        gone = self._kept.make_room(
            places=places - len(self._free),
            tokens=self._bounds.cache_tokens - sum(each.cache_tokens for each in held),
            but_last=but_last,
        )
        for place in gone:
            if place is not but_last:
                self._free_place(place)
        return gone

    def _copied(self, source: Place | None, length: int) -> Place:
        """Return a new sequence, with the beginning of another."""
        place = Place(self._free.pop())
        if source is not None:
            self._context.copy(source.seq, place.seq, length)
            place.tokens = source.tokens[:length]
        return place

    def _shortened(self, place: Place, length: int) -> Place:
        """Return a sequence with no more than its beginning."""
        self._context.cut(place.seq, length)
        del place.tokens[length:]
        return place

    def _let_go(self, place: Place) -> None:
        piece = self._bounds.prefill_tokens
        length = len(place.tokens) // piece * piece if self._keeps else 0
        if length == 0:
            self._free_place(place)
            return
        # Behind it may be what a run that was stopped has left.
        for useless in self._kept.add(self._shortened(place, length)):
            self._free_place(useless)

    def _free_place(self, place: Place) -> None:
        self._context.cut(place.seq, 0)
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
            Piece(one.place.seq, len(one.place.tokens), (one.answer.token,))
            for one in awake
        ]
        logits = self._context.run(pieces)
        assert logits is not None, "nobody asked it to stop"
        for one, behind in zip(awake, logits, strict=True):
            one.place.tokens.append(one.answer.token)
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
        reading.done = upto
        reading.place.tokens += tokens
        if is_last:
            self._begin(reading, logits[0], outcome)

    def _begin(self, reading: Reading[Place], logits: Logits, outcome: Outcome) -> None:
        """All answers go on from the one prompt."""
        generation, first = reading.generation, reading.place
        self._reading = None
        for answer in generation.answers:
            place = first
            if answer.index:
                place = self._copied(first, len(first.tokens))
            self._running.append(Running(generation, answer, place))
            outcome.take(generation, answer, logits)
