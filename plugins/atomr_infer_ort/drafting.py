"""Two models in one engine: a small one drafts, and the large one judges.

In a round the draft makes some tokens, one run for each, and the verifier has one
run over all of them (:mod:`atomr_infer.runtimes.decoding.speculation` decides).  Each
model has a cache of its own.  What was computed of tokens that are not accepted is
cut off; where all were accepted, the draft lacks the last one, and reads two in its
next run.

Sequences that draft equally many share their rounds; one that drafts nothing, for
the answer is constrained or at its end, has an ordinary step.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import InferenceError
from atomr_infer.runtimes.decoding.engine import Running
from atomr_infer.runtimes.decoding.speculation import SpeculativeDecoder
from atomr_infer_ort.causal import Part, Rows, in_one_cache
from atomr_infer_ort.engine import OrtEngine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr_infer.runtimes.decoding.engine import Bounds, Outcome, Reading
    from atomr_infer.runtimes.decoding.generation import Generation
    from atomr_infer.runtimes.decoding.sampling import Logits
    from atomr_infer_ort.causal import Abilities, Cache, Causal, Scores


@attrs.frozen
class Pair(Part):
    """A sequence in the verifier's cache, and in the draft's.

    Attributes:
        draft: where the draft has it: as long, or one token shorter.
        last: the last of its tokens that the verifier has read.
    """

    draft: Part = attrs.field(kw_only=True)
    last: int = attrs.field(kw_only=True, default=-1)


@attrs.frozen
class _Drafting:
    """A sequence that drafts, as a round sees it."""

    running: Running[Part]
    pair: Pair
    decoder: SpeculativeDecoder
    proposed: list[int] = attrs.field(factory=list)


class DraftingEngine(OrtEngine):
    """A model, a smaller one with the same tokens, and the sequences in both."""

    def __init__(
        self, model: Scores, draft: Causal, abilities: Abilities, bounds: Bounds
    ) -> None:
        super().__init__(model, abilities, bounds)
        self._verifier = model
        self._draft = draft

    def _place(self, generation: Generation) -> Pair:
        del generation
        return Pair(self._model.empty(), draft=Part(self._draft.empty()))

    # --- in the thread --------------------------------------------------------------

    def _set_aside(self, resting: Sequence[Running[Part]]) -> None:
        for one in resting:
            pair = _pair(one.place)
            if pair.cache.rows > 1:
                pair = pair.moved(self._model.gather([pair]), 0, 0)
            if pair.draft.cache.rows > 1:
                draft = pair.draft.moved(self._draft.gather([pair.draft]), 0, 0)
                pair = attrs.evolve(pair, draft=draft)
            one.place = pair

    def _read(self, reading: Reading[Part], piece: Sequence[int]) -> Logits:
        behind = super()._read(reading, piece)
        pair = _pair(reading.place)
        if reading.generation.answers[0].drafts is not None:
            _, cache = self._draft.run(Rows([piece], pair.draft.cache, [0]))
            pair = attrs.evolve(pair, draft=Part(cache))
        reading.place = attrs.evolve(pair, last=piece[-1])
        return behind

    def _decode(self, together: Sequence[Running[Part]], outcome: Outcome) -> None:
        plain: list[Running[Part]] = []
        rounds: dict[int, list[_Drafting]] = defaultdict(list)
        for one in together:
            decoder = one.answer.drafts
            count = 0 if decoder is None else decoder.wanted(one.answer.left)
            if decoder is None or count == 0:
                plain.append(one)
            else:
                rounds[count].append(_Drafting(one, _pair(one.place), decoder))
        if plain:
            super()._decode(plain, outcome)
        for count, drafting in rounds.items():
            self._round(drafting, count, outcome)

    def _round(
        self, drafting: Sequence[_Drafting], count: int, outcome: Outcome
    ) -> None:
        drafted = self._propose(drafting, count)
        parts = in_one_cache(self._verifier, [each.pair for each in drafting])
        tokens = [[each.running.answer.token, *each.proposed] for each in drafting]
        rows = Rows(tokens, parts[0].cache, [part.pad for part in parts])
        logits, cache = self._verifier.score(rows)
        for row, each in enumerate(drafting):
            accepted = _judge(each, logits[row], outcome)
            read = parts[row].moved(cache, row, parts[row].pad)
            length = parts[row].length + 1 + accepted
            draft = drafted[row]
            each.running.place = attrs.evolve(
                read.shortened(length),
                draft=draft.shortened(min(draft.length, length)),
                last=tokens[row][accepted],
            )

    def _propose(self, drafting: Sequence[_Drafting], count: int) -> list[Part]:
        """Have the draft propose; return where it has the sequences then."""
        pairs = [each.pair for each in drafting]
        new = 1 + max(pair.length - pair.draft.length for pair in pairs)
        known = [pair.draft.shortened(pair.length + 1 - new) for pair in pairs]
        parts = in_one_cache(self._draft, known)
        tokens = [
            [each.pair.last, each.running.answer.token][-new:] for each in drafting
        ]
        for _ in range(count):
            rows = Rows(tokens, parts[0].cache, [part.pad for part in parts])
            logits, cache = self._draft.run(rows)
            parts = _all_moved(parts, cache)
            tokens = [
                [each.decoder.propose(logits[row])] for row, each in enumerate(drafting)
            ]
            for each, token in zip(drafting, tokens, strict=True):
                each.proposed.extend(token)
        return parts


def _judge(drafting: _Drafting, logits: Sequence[Logits], outcome: Outcome) -> int:
    """Give an answer its next tokens; return how many of the draft's they are."""
    generation, answer = drafting.running.generation, drafting.running.answer
    accepted = 0
    try:
        for token, behind in zip(drafting.proposed, logits, strict=False):
            outcome.tell(generation, answer.put(drafting.decoder.judge(behind)))
            if answer.finished or answer.token != token:
                drafting.decoder.forget()
                return accepted
            accepted += 1
    except InferenceError as error:  # the others are well
        outcome.failed.append((generation, error))
        drafting.decoder.forget()
        return accepted
    outcome.take(generation, answer, logits[accepted])
    return accepted


def _all_moved(parts: Sequence[Part], cache: Cache) -> list[Part]:
    return [part.moved(cache, row, part.pad) for row, part in enumerate(parts)]


def _pair(place: Part) -> Pair:
    assert isinstance(place, Pair), "places are made here"
    return place
