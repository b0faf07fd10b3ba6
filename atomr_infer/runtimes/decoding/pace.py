"""How many tokens are worth drafting: from what runs took, and what was accepted.

A round drafts *k* tokens, one run of the draft for each, and judges them in one run of
the verifier.  Where each is accepted with the probability *a*, the answer gets
1 + a + ... + a^k tokens by it, for *k* times what a draft's run takes, and what the
verifier's run takes over *k* + 1 tokens.  The *k* that gives most tokens a second is
taken; where none gives more than steps without a draft, nothing is drafted::

    some plain steps ─ some rounds ─┬─ pays: rounds, a plain step now and then
                                    └─ does not: plain steps; an answer now and then
                                       is drafted again, to see

What runs take depends on how many sequences share them, so all is known for some
numbers of them apart.  Of the last times the median counts: a machine that is busy for
a moment changes nothing.

Pure: the times are passed in.

Source: Leviathan, Kalman, Matias, "Fast Inference from Transformers via Speculative
Decoding" (2023), section 3.5, with measured times in place of a constant ratio.
"""

from __future__ import annotations

import statistics
from collections import defaultdict, deque

import attrs

_LEAST = 3
"""Times of each kind that are measured before a count is chosen by them."""

_WINDOW = 9
"""Times of each kind that are remembered; without so many, it is not given up."""

_HOPELESS = 0.5
"""Where the best count is that slow, it is given up before."""

_FIRST = 2
"""Tokens that are drafted while nothing is known."""

_PLAIN_EVERY = 32
"""Rounds after which a plain step is measured again, for a machine's load changes."""

_TRY_EVERY = 16
"""Answers after which one is drafted again where it did not pay."""

_MOST_MIXED = 512
"""Rounds beside sequences without a draft, one after the other, until it is given up:
they take a run more, and are there to come to rounds of all."""

_HOPE = 0.8
"""How likely a token is thought to be accepted before any was judged."""

_FORGETS = 1 / 64
"""How much one judged token counts against all before."""


def _times() -> deque[float]:
    return deque(maxlen=_WINDOW)


@attrs.define
class _Known:
    """Seconds that were measured with some number of sequences.

    Attributes:
        plain: of steps without a draft.
        draft: of rounds' drafts, for each token.
        more: that judging takes beyond a plain step, for each drafted token.
        rounds: that were chosen since the last plain step, whether they were timed
            or not.
        mixed: rounds beside sequences without a draft since the last one of all.
        left: whether drafting was given up.
        answers: that began since then.
    """

    plain: deque[float] = attrs.field(factory=_times)
    draft: deque[float] = attrs.field(factory=_times)
    more: deque[float] = attrs.field(factory=_times)
    rounds: int = 0
    mixed: int = 0
    left: bool = False
    answers: int = 0


def tokens_of(likely: float, count: int) -> float:
    """Return how many tokens an answer gets by a round, on average.

    Args:
        likely: the probability that a drafted token is accepted.
        count: how many are drafted.

    >>> tokens_of(1.0, 3), tokens_of(0.5, 2), tokens_of(0.0, 4)
    (4.0, 1.75, 1.0)
    """
    return float(sum(likely**n for n in range(count + 1)))


class Pace:
    """What is drafted in one engine.

    Args:
        most: tokens that are drafted at once, at most.

    Attributes:
        likely: how likely a drafted token is accepted, of late.
        gain: how many times as fast a round is as plain steps, for the best count and
            for what is accepted of late, as was found last; 0: it was not measured yet.
    """

    def __init__(self, most: int) -> None:
        self.likely = _HOPE
        self.gain = 0.0
        self._most = most
        self._known: defaultdict[int, _Known] = defaultdict(_Known)

    def begins(self, rows: int) -> bool:
        """Return whether the draft is to read the prompt of an answer that begins.

        Args:
            rows: sequences that share runs then.
        """
        known = self._known[_kind(rows)]
        if not known.left:
            return True
        known.answers += 1
        if known.answers < _TRY_EVERY:
            return False
        known.left, known.answers, known.mixed = False, 0, 0
        known.draft.clear()  # what has changed is to be seen
        known.more.clear()
        return True

    def count(self, rows: int, likely: float) -> int | None:
        """Return how many tokens are drafted now; None: it does not pay for these.

        Only where it would not pay with what is accepted of late either, the next
        answers are made without: one odd answer says nothing of others.

        Args:
            rows: sequences that share the step.
            likely: how likely each of their drafted tokens is accepted, from 0 to 1.
        """
        known = self._known[_kind(rows)]
        if known.left:
            return None
        if len(known.plain) < _LEAST:
            return 0
        few = min(_FIRST, self._most)
        if len(known.more) < _LEAST:
            return few
        best, gain = self._best(known, likely)
        _, self.gain = self._best(known, self.likely)
        if gain <= 1:
            is_sure = len(known.more) == _WINDOW or gain < _HOPELESS
            known.left = is_sure and self.gain <= 1
            return None if is_sure else few
        if known.rounds >= _PLAIN_EVERY:
            known.rounds = 0
            return 0
        known.rounds += 1
        return best

    def _best(self, known: _Known, likely: float) -> tuple[int, float]:
        """Return the count that gives most tokens a second, and its gain."""
        plain_s, draft_s, more_s = map(
            statistics.median, (known.plain, known.draft, known.more)
        )

        def gain(count: int) -> float:
            round_s = plain_s + count * (draft_s + more_s)
            return tokens_of(likely, count) * plain_s / round_s

        best = max(range(1, self._most + 1), key=gain)
        return best, gain(best)

    # --- what was measured -----------------------------------------------------------

    def stepped(self, rows: int, took_s: float) -> None:
        """Note a step without a draft."""
        self._known[_kind(rows)].plain.append(took_s)

    def drafted(
        self,
        rows: int,
        count: int,
        draft_s: float,
        judge_s: float,
        *,
        is_mixed: bool = False,
    ) -> None:
        """Note a round.

        Args:
            rows: sequences that shared the step.
            count: tokens that were drafted for each.
            draft_s: what that took.
            judge_s: what judging took.
            is_mixed: whether some of them have no draft, and had a run of their own.
                The times are less than a round of all takes then: where they do not
                pay, that would not.
        """
        known = self._known[_kind(rows)]
        known.mixed = known.mixed + 1 if is_mixed else 0
        known.left = known.left or known.mixed >= _MOST_MIXED
        known.draft.append(draft_s / count)
        if known.plain:
            beyond = judge_s - statistics.median(known.plain)
            known.more.append(max(0.0, beyond / count))

    def judged(self, accepted: int, rejected: int) -> None:
        """Note what became of drafted tokens."""
        for was in (*[1.0] * accepted, *[0.0] * rejected):
            self.likely += _FORGETS * (was - self.likely)


def _kind(rows: int) -> int:
    """Numbers of sequences that are known together: 1, 2 to 3, 4 to 7, and so on."""
    return rows.bit_length()
