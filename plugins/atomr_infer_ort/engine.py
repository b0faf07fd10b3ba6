"""ONNX Runtime's steps: all sequences in one run of the model, a prompt in another.

A sequence is wherever its :class:`Part` says.  Those of a run that stay together
find their cache as the run left it; when one leaves or joins, the others are
gathered into a new one.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from atomr_infer.runtimes.decoding.engine import (
    Bounds,
    Engine,
    Outcome,
    Reading,
    Running,
)
from atomr_infer_ort.causal import Abilities, Causal, Part, Rows, in_one_cache
from atomr_infer_ort.faults import step_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr_infer.runtimes.decoding.generation import Generation
    from atomr_infer.runtimes.decoding.sampling import Logits


class OrtEngine(Engine[Part]):
    """One model on ONNX Runtime, and the sequences in it."""

    def __init__(self, model: Causal, abilities: Abilities, bounds: Bounds) -> None:
        super().__init__(bounds)
        self._model = model
        self._abilities = abilities

    def _place(self, generation: Generation) -> Part:
        return Part(self._model.empty())

    def _let_go(self, place: Part) -> None:
        """A cache goes with the last who refers to it."""

    # --- in the thread --------------------------------------------------------------

    def _step(self, awake: Sequence[Running[Part]]) -> Outcome:
        outcome = Outcome()
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

    def _set_aside(self, resting: Sequence[Running[Part]]) -> None:
        """Give sequences that rest caches of their own.

        They would keep the cache that they shared, of all those beside them.
        """
        for one in resting:
            if one.place.cache.rows > 1:
                one.place = Part(self._model.gather([one.place]))

    def _runs(self, awake: Sequence[Running[Part]]) -> list[list[Running[Part]]]:
        if not awake:
            return []
        if self._abilities.pads:
            return [list(awake)]
        by_length: dict[int, list[Running[Part]]] = defaultdict(list)
        for one in awake:
            by_length[one.place.length].append(one)
        return list(by_length.values())

    def _decode(self, together: Sequence[Running[Part]], outcome: Outcome) -> None:
        parts = in_one_cache(self._model, [one.place for one in together])
        tokens = [[one.answer.token] for one in together]
        pads = [part.pad for part in parts]
        logits, cache = self._model.run(Rows(tokens, parts[0].cache, pads))
        for row, (one, part) in enumerate(zip(together, parts, strict=True)):
            one.place = part.moved(cache, row, part.pad)
            outcome.take(one.generation, one.answer, logits[row])

    def _read_on(self, reading: Reading[Part], outcome: Outcome) -> None:
        generation, done = reading.generation, reading.done
        upto = len(generation.prompt)
        if self._abilities.pieces:
            upto = min(upto, done + self._bounds.prefill_tokens)
        piece = generation.prompt[done:upto]
        try:
            logits = self._read(reading, piece)
            reading.done = upto
            if reading.is_read:
                self._begin(reading, logits, outcome)
        except Exception as error:  # noqa: BLE001  as in _step
            outcome.failed.append((generation, step_error(error)))

    def _read(self, reading: Reading[Part], piece: Sequence[int]) -> Logits:
        """Read a piece of a prompt; return the logits behind it."""
        place = reading.place
        logits, cache = self._model.run(Rows([piece], place.cache, [place.pad]))
        reading.place = place.moved(cache, place.row, place.pad)
        behind: Logits = logits[0]
        return behind

    def _begin(self, reading: Reading[Part], logits: Logits, outcome: Outcome) -> None:
        """All answers go on from the one prompt."""
        generation = reading.generation
        self._reading = None
        for answer in generation.answers:
            self._running.append(Running(generation, answer, reading.place))
            outcome.take(generation, answer, logits)


def _fail(
    outcome: Outcome, together: Sequence[Running[Part]], error: Exception
) -> None:
    outcome.fail((one.generation for one in together), step_error(error))
