"""From a step's logits to the next token.

In this order: penalties, temperature, ``top_k``, ``top_p``, a draw.  What is
reported as a token's probability is the model's own, before any of these.

Pure: the generator of random numbers is made from a seed that is passed in.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import numpy as np

from atomr_infer.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from atomr_infer.model.batch import Sampling

Logits = np.ndarray[Any, np.dtype[np.float32]]
"""One number for each token of the vocabulary."""

Shares = np.ndarray[Any, np.dtype[np.float64]]
"""The probability of each token of the vocabulary."""

_NUCLEUS = 1024
"""Likeliest tokens that are sorted first for ``top_p``: seldom are more needed,
and a sort of a whole vocabulary takes milliseconds."""

_GREEDY = 1e-4
"""Below this temperature, any token but the likeliest has a share of nothing."""


@attrs.frozen(kw_only=True)
class Settings:
    """How one sequence's tokens are chosen, with nothing left to a default.

    Attributes:
        temperature: 0: the likeliest token.
        top_p: nucleus mass, above 0 up to 1.
        top_k: how many tokens are considered; 0: all.
        presence_penalty: taken once from what the answer holds already.
        frequency_penalty: taken for each time that the answer holds it.
        repetition_penalty: divides what the prompt or the answer holds; 1: off.
        top_logprobs: alternatives to report; None: no probabilities.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    top_logprobs: int | None = None


@attrs.frozen
class Choice:
    """A token, and what it competed with.

    Attributes:
        token: its number.
        logprob: its log-probability; None: not asked for.
        top: the likeliest tokens with their log-probabilities.
    """

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


def defaults_of(generation: Mapping[str, Any]) -> Settings:
    """Return what a model's ``generation_config.json`` advises."""
    if generation.get("do_sample") is False:
        return Settings(temperature=0.0)
    advised = {
        name: generation[name]
        for name in ("temperature", "top_p", "top_k", "repetition_penalty")
        if isinstance(generation.get(name), int | float)
    }
    return Settings(**advised)


def settings_of(sampling: Sampling, defaults: Settings) -> Settings:
    """Return a request's settings; what it does not say is the model's default."""
    said = {
        name: getattr(sampling, name)
        for name in (
            "temperature",
            "top_p",
            "top_k",
            "presence_penalty",
            "frequency_penalty",
        )
        if getattr(sampling, name) is not None
    }
    if sampling.top_k == -1:
        said["top_k"] = 0  # both say "all": vLLM and Hugging Face differ
    return attrs.evolve(defaults, top_logprobs=sampling.top_logprobs, **said)


class Constraint(Protocol):
    """What an answer must be like: which token may come next."""

    def allows(self, token: int) -> bool:
        """Whether a token may."""
        ...

    def masked(self, logits: Logits) -> Logits:
        """Return logits, those of tokens that may not at minus infinity."""
        ...

    def accept(self, token: int) -> None:
        """Go on behind a token, which may come."""
        ...


class Sampler:
    """Chooses the tokens of one sequence.

    Args:
        settings: how.
        prompt: the prompt's tokens, for the repetition penalty.
        seed: numbers that make its draws repeatable.
        constraint: what the answer must be like; None: anything.
    """

    def __init__(
        self,
        settings: Settings,
        prompt: Iterable[int],
        seed: tuple[int, ...],
        constraint: Constraint | None = None,
    ) -> None:
        self._settings = settings
        self._constraint = constraint
        self._random = np.random.Generator(np.random.PCG64(seed))
        self._counts: Counter[int] = Counter()
        penal = settings.repetition_penalty != 1.0
        self._seen: set[int] = set(prompt) if penal else set()

    def choose(self, logits: Logits) -> Choice:
        """Return the next token, and remember it.

        Raises:
            EngineError: the model's output is no numbers.
        """
        _check(logits)
        return self.keep(self._allowed(self._penalized(logits)), logits)

    def keep(self, token: int, logits: Logits) -> Choice:
        """Take a token for the next one, and remember it."""
        self._counts[token] += 1
        if self._settings.repetition_penalty != 1.0:
            self._seen.add(token)
        if self._settings.top_logprobs is None:
            return Choice(token)
        return _reported(token, logits, self._settings.top_logprobs)

    @property
    def is_constrained(self) -> bool:
        """Whether what comes next depends on more than logits and settings."""
        return self._constraint is not None

    def shares(self, logits: Logits, behind: Sequence[int] = ()) -> Shares:
        """Return what :meth:`choose` draws from, where nothing constrains it.

        Args:
            logits: the model's.
            behind: tokens that would be there and are not kept yet.

        Raises:
            EngineError: the model's output is no numbers.
        """
        _check(logits)
        logits = self._penalized(logits, behind)
        dense: Shares = np.zeros(len(logits))
        tokens, shares = self._weighed(logits)
        dense[slice(None) if tokens is None else tokens] = shares
        dense /= dense.sum()
        return dense

    def draw(self, shares: Shares) -> int:
        """Draw a token."""
        return _drawn(shares, self.roll())

    def roll(self) -> float:
        """Draw a number from 0 up to 1."""
        return float(self._random.random())

    def _allowed(self, logits: Logits) -> int:
        token = self._pick(logits)
        if self._constraint is None:
            return token
        # To look at one is cheap; to look at all of them takes milliseconds.
        if not self._constraint.allows(token):
            masked = self._constraint.masked(logits)
            if masked.max() == -np.inf:
                raise EngineError("the model has no token that the schema allows")
            token = self._pick(masked)
        self._constraint.accept(token)
        return token

    def _penalized(self, logits: Logits, behind: Sequence[int] = ()) -> Logits:
        settings = self._settings
        presence, frequency = settings.presence_penalty, settings.frequency_penalty
        held = self._counts + Counter(behind) if behind else self._counts
        if held and (presence or frequency):
            logits = logits.copy()
            tokens = np.fromiter(held.keys(), np.int64)
            counts = np.fromiter(held.values(), np.float32)
            logits[tokens] -= presence + frequency * counts
        if settings.repetition_penalty != 1.0 and (self._seen or behind):
            logits = logits.copy()
            tokens = np.fromiter(self._seen.union(behind), np.int64)
            was, by = logits[tokens], settings.repetition_penalty
            logits[tokens] = np.where(was > 0, was / by, was * by)
        return logits

    def _pick(self, logits: Logits) -> int:
        if self.is_greedy:
            return int(logits.argmax())
        tokens, shares = self._weighed(logits)
        at = _drawn(shares, self.roll())
        return at if tokens is None else int(tokens[at])

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self._settings.temperature < _GREEDY or self._settings.top_k == 1

    def _weighed(self, logits: Logits) -> tuple[_Tokens | None, _Shares]:
        """Return the tokens that may be drawn, None for all, and their weights."""
        settings = self._settings
        if self.is_greedy:
            return np.array([logits.argmax()]), np.ones(1, np.float32)
        tokens, logits = _likeliest(logits, settings.top_k)
        shares = np.exp((logits - logits.max()) / np.float32(settings.temperature))
        shares /= shares.sum()
        if settings.top_p < 1:
            kept = _nucleus(shares, settings.top_p)
            tokens = kept if tokens is None else tokens[kept]
            shares = shares[kept]
        return tokens, shares


def _check(logits: Logits) -> None:
    if not np.isfinite(logits.max()):
        raise EngineError("the model's output is not a number")


_Tokens = np.ndarray[Any, np.dtype[np.int64]]
_Shares = np.ndarray[Any, np.dtype[np.float32]]


def _drawn(weights: _Shares | Shares, roll: float) -> int:
    """Return which of some weights a number from 0 up to 1 falls on."""
    sums = np.cumsum(weights, dtype=np.float64)
    at = int(np.searchsorted(sums, roll * sums[-1], side="right"))
    return min(at, len(sums) - 1)


def _likeliest(logits: Logits, count: int) -> tuple[_Tokens | None, Logits]:
    """Return the ``count`` likeliest tokens; None for all of them."""
    if not 0 < count < len(logits):
        return None, logits
    tokens = np.sort(np.argpartition(logits, -count)[-count:])
    return tokens, logits[tokens]


def _nucleus(shares: _Shares, top_p: float) -> _Tokens:
    """Return the fewest likeliest tokens that have ``top_p`` together, at least one."""
    if len(shares) > _NUCLEUS:
        first = np.argpartition(shares, -_NUCLEUS)[-_NUCLEUS:]
        if shares[first].sum() >= top_p:
            return first[_nucleus_of_all(shares[first], top_p)]
    return _nucleus_of_all(shares, top_p)


def _nucleus_of_all(shares: _Shares, top_p: float) -> _Tokens:
    order = np.argsort(-shares, kind="stable")
    sums = np.cumsum(shares[order], dtype=np.float64)
    return order[: int(np.searchsorted(sums, top_p)) + 1]


def _reported(token: int, logits: Logits, count: int) -> Choice:
    logprobs = logits - logits.max()
    logprobs -= np.log(np.exp(logprobs).sum(dtype=np.float64)).astype(np.float32)
    top: tuple[tuple[int, float], ...] = ()
    if count:
        count = min(count, len(logits))
        best = np.sort(np.argpartition(logits, -count)[-count:])
        best = best[np.argsort(-logprobs[best], kind="stable")]
        top = tuple((int(one), float(logprobs[one])) for one in best)
    return Choice(token, float(logprobs[token]), top)
