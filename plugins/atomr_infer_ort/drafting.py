"""Two models in one engine: a small one drafts, and the large one judges.

In a round the draft makes some tokens, one run for each, and the verifier has one
run over all of them (:mod:`atomr_infer.runtimes.decoding.speculation` decides).  Each
model has a cache of its own.  What was computed of tokens that are not accepted is
cut off; where all were accepted, the draft lacks the last one, and reads two in its
next run.

Sequences that draft equally many share their rounds; one that drafts nothing has an
ordinary step: its answer is constrained or at its end, or the draft does not pay, or
it is measured what a step takes (:mod:`atomr_infer.runtimes.decoding.pace`).

Beside a constrained answer, paced ones draft nothing: its step is there anyway, and
takes them with it.  Beside one that could draft and began without, they do, for so the
draft comes back where there is always somebody.
"""

from __future__ import annotations

import time
from collections import defaultdict
from statistics import fmean
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import InferenceError
from atomr_infer.model import figures
from atomr_infer.runtimes.decoding.engine import Running
from atomr_infer.runtimes.decoding.speculation import SpeculativeDecoder
from atomr_infer_ort.causal import Part, Rows, in_one_cache
from atomr_infer_ort.engine import OrtEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from atomr_infer.model.figures import Figure
    from atomr_infer.runtimes.decoding.engine import Bounds, Outcome, Reading
    from atomr_infer.runtimes.decoding.generation import Generation
    from atomr_infer.runtimes.decoding.pace import Pace
    from atomr_infer.runtimes.decoding.sampling import Logits
    from atomr_infer_ort.causal import Abilities, Cache, Causal, Scores

_MOST_LACKED = 32
"""Tokens that a draft lacks, at most: to read more takes longer than they would win."""


@attrs.frozen
class Pair(Part):
    """A sequence in the verifier's cache, and in the draft's.

    Attributes:
        draft: where the draft has it, of which it may lack the end; None: nothing is
            drafted for it any more.
        recent: the tokens that the verifier has read last: those that the draft
            lacks, and at least one.
    """

    draft: Part | None = attrs.field(kw_only=True)
    recent: tuple[int, ...] = attrs.field(kw_only=True, default=())

    @property
    def lacks(self) -> int:
        """How many of its tokens the draft has not read."""
        return 0 if self.draft is None else self.length - self.draft.length

    def read(self, *tokens: int) -> Pair:
        """Return it with tokens that the verifier has read now."""
        return attrs.evolve(self, recent=(*self.recent, *tokens)[-max(1, self.lacks) :])


@attrs.frozen
class _Drafting:
    """A sequence that drafts, as a round sees it."""

    running: Running[Part]
    pair: Pair
    draft: Part
    decoder: SpeculativeDecoder
    proposed: list[int] = attrs.field(factory=list)


class DraftingEngine(OrtEngine):
    """A model, a smaller one with the same tokens, and the sequences in both.

    Args:
        model: the verifier, and what it can do.
        draft: the smaller one, and what it can do.
        bounds: how much the engine takes on.
        pace: says how many tokens are drafted; None: as many as each answer likes.
        clock: seconds; what runs take is measured by it.

    Attributes:
        drafted: tokens that were drafted and judged.
    """

    def __init__(
        self,
        model: tuple[Scores, Abilities],
        draft: tuple[Causal, Abilities],
        bounds: Bounds,
        *,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__(*model, bounds)
        self.drafted = 0
        self._verifier = model[0]
        self._draft, of_draft = draft
        # Attention that knows no padding may know no rows of several new tokens.
        self._drafts_rows, self._judges_rows = of_draft.pads, model[1].pads
        self._pace = pace
        self._clock = clock

    def figures(self) -> tuple[Figure, ...]:
        """Return how it stands, and whether the draft is worth it."""
        told = super().figures()
        drafted = figures.Figure(
            "drafted_tokens",
            figures.Kind.COUNTER,
            self.drafted,
            "Tokens that the draft has proposed and the model has judged.",
        )
        if self._pace is None:
            return (*told, drafted)
        gain = figures.Figure(
            "draft_gain_ratio",
            figures.Kind.GAUGE,
            self._pace.gain,
            "Times as fast as without the draft, as measured; up to 1: it rests.",
        )
        return (*told, drafted, gain)

    def _place(self, generation: Generation) -> Pair:
        decoder = generation.answers[0].drafts
        beside = self._running if self._judges_rows else []  # those in its runs
        rows = len(beside) + len(generation.answers)
        drafts = decoder is not None and (
            self._pace is None
            or decoder.is_steady
            # Beside one that never drafts, it would rest.
            or (not _is_beside_one_without(beside) and self._pace.begins(rows))
        )
        draft = Part(self._draft.empty()) if drafts else None
        return Pair(self._model.empty(), draft=draft)

    # --- in the thread --------------------------------------------------------------

    def _set_aside(self, resting: Sequence[Running[Part]]) -> None:
        for one in resting:
            pair = _pair(one.place)
            if pair.cache.rows > 1:
                pair = pair.moved(self._model.gather([pair]), 0, 0)
            if pair.draft is not None and pair.draft.cache.rows > 1:
                draft = pair.draft.moved(self._draft.gather([pair.draft]), 0, 0)
                pair = attrs.evolve(pair, draft=draft)
            one.place = pair

    def _read(self, reading: Reading[Part], piece: Sequence[int]) -> Logits:
        behind = super()._read(reading, piece)
        pair = _pair(reading.place)
        if pair.draft is not None:
            _, cache = self._draft.run(Rows([piece], pair.draft.cache, [0]))
            pair = attrs.evolve(pair, draft=Part(cache))
        reading.place = pair.read(piece[-1])
        return behind

    def _decode(self, together: Sequence[Running[Part]], outcome: Outcome) -> None:
        plain: list[Running[Part]] = []
        rounds: dict[int, list[_Drafting]] = defaultdict(list)
        steady = self._steady(together)
        others = len(together) - len(steady)
        counts = steady | self._paced(together, others)
        for one in together:
            pair, decoder = _pair(one.place), one.answer.drafts
            count = counts.get(one, 0)
            if pair.draft is None or decoder is None or not count:
                plain.append(one)
                continue
            rounds[count].append(_Drafting(one, pair, pair.draft, decoder))
        if plain:
            self._plainly(plain, outcome)
        for count, drafting in rounds.items():
            # Rows that are not judged in one run are, all of them, one round.
            runs = [drafting] if self._judges_rows else [[each] for each in drafting]
            took = [self._round(each, count, outcome) for each in runs]
            is_paced = any(each.running not in steady for each in drafting)
            if self._pace is not None and is_paced:
                draft_s, judge_s = map(sum, zip(*took, strict=True))
                self._pace.drafted(
                    others, count, draft_s, judge_s, is_mixed=bool(plain)
                )

    def _steady(self, together: Sequence[Running[Part]]) -> dict[Running[Part], int]:
        """Return how many tokens are drafted for each that has its own count."""
        counts: dict[Running[Part], int] = {}
        for one in together:
            decoder = one.answer.drafts
            if decoder is None or _pair(one.place).draft is None:
                continue
            if self._pace is None or decoder.is_steady:
                count = decoder.wanted(one.answer.left)
                if count:
                    counts[one] = count
        return counts

    def _paced(
        self, together: Sequence[Running[Part]], rows: int
    ) -> dict[Running[Part], int]:
        """Return how many tokens are drafted for those that draft what pays, equally.

        Args:
            together: all that share the step.
            rows: how many of them would share a plain step.
        """
        paced: dict[Running[Part], SpeculativeDecoder] = {}
        for one in together:
            decoder = one.answer.drafts
            if decoder is None or decoder.is_steady:
                continue
            if _pair(one.place).draft is not None:
                paced[one] = decoder
        if self._pace is None or not paced:
            return {}
        likely = fmean(each.likely(self._pace.likely) for each in paced.values())
        count = self._pace.count(rows, likely)
        for one in paced:
            pair = _pair(one.place)
            if count is None or pair.lacks > _MOST_LACKED:
                one.place = attrs.evolve(pair, draft=None)
        if count is None or _is_beside_one_without(together):
            return {}
        count = min(count, *(each.answer.left - 1 for each in paced))
        return dict.fromkeys(paced, count)

    def _plainly(self, plain: Sequence[Running[Part]], outcome: Outcome) -> None:
        tokens = [one.answer.token for one in plain]
        began_at = self._clock()
        super()._decode(plain, outcome)
        if self._pace is not None:
            self._pace.stepped(len(plain), self._clock() - began_at)
        for one, token in zip(plain, tokens, strict=True):
            one.place = _pair(one.place).read(token)

    def _round(
        self, drafting: Sequence[_Drafting], count: int, outcome: Outcome
    ) -> tuple[float, float]:
        """Draft and judge; return what each took, in seconds."""
        began_at = self._clock()
        if self._drafts_rows:
            drafted = self._propose(drafting, count)
        else:
            drafted = [self._propose([each], count)[0] for each in drafting]
        proposed_at = self._clock()
        parts = in_one_cache(self._verifier, [each.pair for each in drafting])
        tokens = [[each.running.answer.token, *each.proposed] for each in drafting]
        rows = Rows(tokens, parts[0].cache, [part.pad for part in parts])
        logits, cache = self._verifier.score(rows)
        for row, each in enumerate(drafting):
            accepted = self._judge(each, logits[row], outcome)
            read = parts[row].moved(cache, row, parts[row].pad)
            length = parts[row].length + 1 + accepted
            draft = drafted[row]
            each.running.place = attrs.evolve(
                read.shortened(length),
                draft=draft.shortened(min(draft.length, length)),
                recent=(tokens[row][accepted],),
            )
        return proposed_at - began_at, self._clock() - proposed_at

    def _judge(
        self, drafting: _Drafting, logits: Sequence[Logits], outcome: Outcome
    ) -> int:
        decoder = drafting.decoder
        drafted, was = decoder.drafted, decoder.accepted
        accepted = _judge(drafting, logits, outcome)
        judged, kept = decoder.drafted - drafted, decoder.accepted - was
        self.drafted += judged
        if self._pace is not None:
            self._pace.judged(kept, judged - kept)
        return accepted

    def _propose(self, drafting: Sequence[_Drafting], count: int) -> list[Part]:
        """Have the draft propose; return where it has the sequences then."""
        drafts = [self._caught_up(each) for each in drafting]
        lengths = [each.pair.length for each in drafting]
        new = 1 + max(
            n - draft.length for n, draft in zip(lengths, drafts, strict=True)
        )
        known = [
            draft.shortened(n + 1 - new)
            for n, draft in zip(lengths, drafts, strict=True)
        ]
        parts = in_one_cache(self._draft, known)
        tokens = [
            [each.pair.recent[-1], each.running.answer.token][-new:]
            for each in drafting
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

    def _caught_up(self, drafting: _Drafting) -> Part:
        """Have the draft read what came by plain steps, but for the last token."""
        lacks = drafting.pair.lacks
        if lacks < 2:
            return drafting.draft
        [draft] = in_one_cache(self._draft, [drafting.draft])
        tokens = drafting.pair.recent[-lacks:-1]
        _, cache = self._draft.run(Rows([tokens], draft.cache, [draft.pad]))
        return draft.moved(cache, 0, draft.pad)


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


def _is_beside_one_without(running: Sequence[Running[Part]]) -> bool:
    """Whether one of them never drafts, for its answer is constrained."""
    return any(one.answer.drafts is None for one in running)


def _all_moved(parts: Sequence[Part], cache: Cache) -> list[Part]:
    return [part.moved(cache, row, part.pad) for row, part in enumerate(parts)]


def _pair(place: Part) -> Pair:
    assert isinstance(place, Pair), "places are made here"
    return place
