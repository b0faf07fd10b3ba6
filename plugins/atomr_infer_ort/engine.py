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
from atomr_infer_ort.causal import Abilities, Causal, Part, Rows
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
        self._bring_together(together)
        tokens = [[one.answer.token] for one in together]
        pads = [one.place.pad for one in together]
        logits, cache = self._model.run(Rows(tokens, together[0].place.cache, pads))
        for row, one in enumerate(together):
            one.place = Part(cache, row, pads[row])
            outcome.take(one.generation, one.answer, logits[row])

    def _bring_together(self, together: Sequence[Running[Part]]) -> None:
        first = together[0].place.cache
        stay = first.rows == len(together) and all(
            one.place.cache is first and one.place.row == row
            for row, one in enumerate(together)
        )
        if stay:
            return
        cache = self._model.gather([one.place for one in together])
        for row, one in enumerate(together):
            one.place = Part(cache, row, cache.width - one.place.length)

    def _read_on(self, reading: Reading[Part], outcome: Outcome) -> None:
        generation, done = reading.generation, reading.done
        upto = len(generation.prompt)
        if self._abilities.pieces:
            upto = min(upto, done + self._bounds.prefill_tokens)
        piece = generation.prompt[done:upto]
        try:
            logits, cache = self._model.run(Rows([piece], reading.place.cache, [0]))
            reading.place, reading.done = Part(cache), upto
            if reading.is_read:
                self._begin(reading, logits[0], outcome)
        except Exception as error:  # noqa: BLE001  as in _step
            outcome.failed.append((generation, step_error(error)))

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
