"""A small model guesses the next tokens, and the large one judges them in one run.

The draft proposes some tokens, each drawn from its own distribution *q*.  The verifier
computes its distributions *p* behind all of them at once, which takes little longer
than behind one.  Then, from the first on:

- a token is accepted with the probability min(1, p / q) of it;
- the first that is not is replaced by one that is drawn from what *p* has beyond *q*,
  and what was drafted behind it is forgotten;
- when all are accepted, one more is drawn from the verifier's last distribution.

So the answer has the verifier's distribution exactly, whatever the draft is; at
temperature 0 it is the verifier's, token for token.  A bad draft costs time only: how
many tokens are drafted follows how many of them are accepted.

*p* and *q* are what a token would be drawn from: behind temperature, ``top_k``,
``top_p`` and penalties.

Pure: the generator of random numbers is the sampler's.

Source: Leviathan, Kalman, Matias, "Fast Inference from Transformers via Speculative
Decoding" (2023), algorithm 1 and appendix A.1.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import attrs
import numpy as np

from atomr_infer.runtimes.decoding.sampling import Shares

if TYPE_CHECKING:
    from atomr_infer.runtimes.decoding.sampling import Choice, Logits, Sampler

_WEIGHT = 32
"""Judged tokens of an answer that count as much as what others' were: its beginning
is often harder than the rest."""


@attrs.frozen(eq=False)
class _Drafted:
    """A token, and the distribution that it was drawn from."""

    token: int
    shares: Shares


class SpeculativeDecoder:
    """What is drafted for one answer.

    Args:
        sampler: chooses the answer's tokens.
        most: tokens that are drafted at once, at most.
        is_steady: whether the answer has to be the same again, so that nothing but
            itself may say how many tokens are drafted: which ones are drawn with a
            seed depends on that, though their distribution does not.

    Attributes:
        drafted: tokens that were drafted and judged.
        accepted: those of them that are in the answer.
        is_steady: see above.
    """

    def __init__(self, sampler: Sampler, *, most: int, is_steady: bool = False) -> None:
        self.drafted = 0
        self.accepted = 0
        self.is_steady = is_steady
        self._sampler = sampler
        self._most = most
        self._pace = most
        self._proposed: deque[_Drafted] = deque()

    def wanted(self, left: int) -> int:
        """Return how many tokens are to be drafted now.

        Args:
            left: tokens that the answer may still get; the verifier adds one itself.
        """
        return min(self._pace, left - 1)

    def likely(self, before: float) -> float:
        """Return how likely its next drafted token is accepted.

        Args:
            before: what is thought of it before any was judged.

        >>> from atomr_infer.runtimes.decoding.sampling import Sampler, Settings
        >>> drafts = SpeculativeDecoder(Sampler(Settings(), (), (1,)), most=4)
        >>> drafts.likely(0.75)
        0.75
        """
        return (self.accepted + _WEIGHT * before) / (self.drafted + _WEIGHT)

    def propose(self, logits: Logits) -> int:
        """Draw the next token of the draft.

        Args:
            logits: the draft's, behind what it has proposed so far.
        """
        behind = tuple(each.token for each in self._proposed)
        if np.isfinite(logits.max()):
            shares = self._sampler.shares(logits, behind)
        else:
            # Whatever is proposed is judged: a draft that breaks costs time only.
            shares = np.full(len(logits), 1 / len(logits))
        token = self._sampler.draw(shares)
        self._proposed.append(_Drafted(token, shares))
        return token

    def judge(self, logits: Logits) -> Choice:
        """Return the token that is next in the answer.

        It is the draft's next one, unless that is not accepted; then nothing of the
        draft is left.

        Args:
            logits: the verifier's.

        Raises:
            EngineError: they are no numbers.
        """
        wanted = self._sampler.shares(logits)
        drafted = self._proposed.popleft()
        is_last = not self._proposed
        token = drafted.token
        self.drafted += 1
        if self._sampler.roll() < acceptance(token, drafted.shares, wanted):
            self.accepted += 1
            if is_last:
                self._pace = min(self._most, self._pace + 1)
        else:
            token = self._sampler.draw(residual(drafted.shares, wanted))
            self.forget()
            self._pace = max(1, self._pace - 1)
        return self._sampler.keep(token, logits)

    def forget(self) -> None:
        """Forget what was proposed and not judged: it is behind the answer's end."""
        self._proposed.clear()


def acceptance(token: int, drafted: Shares, wanted: Shares) -> float:
    """Return with which probability a token is accepted.

    >>> drafted, wanted = np.array([0.8, 0.2]), np.array([0.4, 0.6])
    >>> acceptance(0, drafted, wanted), acceptance(1, drafted, wanted)
    (0.5, 1.0)
    """
    return min(1.0, float(wanted[token] / drafted[token]))


def residual(drafted: Shares, wanted: Shares) -> Shares:
    """Return what is drawn from in place of a token that was not accepted.

    >>> residual(np.array([0.8, 0.2]), np.array([0.4, 0.6])).tolist()
    [0.0, 1.0]
    """
    beyond = np.maximum(wanted - drafted, 0.0)
    total = beyond.sum()
    # They are the same but for rounding.
    return wanted if total <= 0 else beyond / total
