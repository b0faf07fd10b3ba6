"""What a draft proposes changes how fast an answer comes, and never which one."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import pytest

from atomr_infer.errors import EngineError
from atomr_infer.runtimes.decoding.sampling import Sampler, Settings
from atomr_infer.runtimes.decoding.speculation import (
    SpeculativeDecoder,
    acceptance,
    residual,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr_infer.runtimes.decoding.sampling import Logits

# A model here knows the logits behind each token, and no more: four tokens.
Model = np.ndarray[Any, np.dtype[np.float32]]

BROKEN: Model = np.full((4, 4), np.nan, np.float32)
VERIFIER: Model = np.array(
    [[1.0, 0.0, 2.0, -1.0], [0.5, 0.7, 0.0, 1.5], [2.0, 1.0, 0.0, 0.3], [0, 1, 2, 3]],
    np.float32,
)
_SHIFTS: Model = np.sin(np.arange(16, dtype=np.float32)).reshape(4, 4)
NEAR: Model = VERIFIER + np.float32(0.7) * _SHIFTS
FAR: Model = VERIFIER[:, ::-1].copy()
SURE: Model = np.where(np.eye(4) > 0, np.float32(9), np.float32(0)).astype(np.float32)


@attrs.define
class Made:
    """An answer, and how it came."""

    tokens: list[int] = attrs.field(factory=list)
    runs: int = 0
    drafted: int = 0
    accepted: int = 0


def speculated(
    verifier: Model, draft: Model, sampler: Sampler, *, most: int, length: int
) -> Made:
    """Return an answer behind the token 0, as an engine makes it."""
    made, last = Made(), 0
    drafts = SpeculativeDecoder(sampler, most=most)
    while len(made.tokens) < length:
        proposed: list[int] = []
        for _ in range(drafts.wanted(length - len(made.tokens))):
            proposed.append(drafts.propose(draft[[last, *proposed][-1]]))
        made.runs += 1
        for token in proposed:
            choice = drafts.judge(verifier[last])
            last = choice.token
            made.tokens.append(last)
            if last != token:
                break
        else:
            last = sampler.choose(verifier[last]).token
            made.tokens.append(last)
    made.drafted, made.accepted = drafts.drafted, drafts.accepted
    return made


def alone(verifier: Model, sampler: Sampler, *, length: int) -> list[int]:
    """Return an answer as it is made without a draft."""
    last, tokens = 0, []
    for _ in range(length):
        last = sampler.choose(verifier[last]).token
        tokens.append(last)
    return tokens


def shares_of(logits: Logits, settings: Settings, before: Sequence[int]) -> Logits:
    """The distribution behind some tokens, written down without the sampler."""
    scores = logits.astype(np.float64).copy()
    for token, count in Counter(before).items():
        scores[token] -= settings.presence_penalty
        scores[token] -= settings.frequency_penalty * count
    if settings.top_k:
        scores[scores < np.sort(scores)[-settings.top_k]] = -np.inf
    shares = np.exp(scores / settings.temperature)
    shares /= shares.sum()
    if settings.top_p < 1:
        order = np.argsort(-shares)
        kept = order[
            : int(np.searchsorted(np.cumsum(shares[order]), settings.top_p)) + 1
        ]
        cut = np.zeros_like(shares)
        cut[kept] = shares[kept]
        shares = cut / cut.sum()
    return shares.astype(np.float32)


def expected(settings: Settings, length: int) -> dict[tuple[int, ...], float]:
    """The probability of each answer of a length."""
    found = {}
    for tokens in product(range(4), repeat=length):
        probability, last = 1.0, 0
        for at, token in enumerate(tokens):
            probability *= float(
                shares_of(VERIFIER[last], settings, tokens[:at])[token]
            )
            last = token
        found[tokens] = probability
    return found


def chi_square(
    counted: Counter[tuple[int, ...]], wanted: dict[tuple[int, ...], float]
) -> tuple[float, int]:
    """Return the statistic and its degrees of freedom; rare ones are one class."""
    total = counted.total()
    often = {each: p for each, p in wanted.items() if p * total >= 5}
    pairs = [(counted[each], p * total) for each, p in often.items()]
    rest = total - sum(count for count, _ in pairs)
    rest_wanted = total * (1 - sum(often.values()))
    if rest_wanted >= 5:
        pairs.append((rest, rest_wanted))
    return sum((count - w) ** 2 / w for count, w in pairs), len(pairs) - 1


def critical(degrees: int, z: float = 3.09) -> float:
    """What chi-square exceeds once in a thousand times (Wilson and Hilferty)."""
    part = 2 / (9 * degrees)
    return degrees * float((1 - part + z * part**0.5) ** 3)


ANSWERS = 1200
LENGTH = 3


@pytest.mark.parametrize(
    ("draft", "settings"),
    [
        (NEAR, Settings()),
        (SURE, Settings()),
        (BROKEN, Settings()),
        (FAR, Settings(temperature=0.6)),
        (FAR, Settings(top_k=3)),
        (FAR, Settings(top_p=0.8)),
        (FAR, Settings(presence_penalty=0.8, frequency_penalty=0.5)),
    ],
    ids=[
        "near",
        "sure",
        "broken",
        "far-cold",
        "far-top-k",
        "far-top-p",
        "far-penalties",
    ],
)
def test_answers_have_the_verifiers_distribution_whatever_the_draft_is(
    draft: Model, settings: Settings
) -> None:
    counted: Counter[tuple[int, ...]] = Counter()
    for seed in range(ANSWERS):
        sampler = Sampler(settings, (), (seed, 0))
        made = speculated(VERIFIER, draft, sampler, most=2, length=LENGTH)
        counted[tuple(made.tokens)] += 1
    wanted = expected(settings, LENGTH)
    assert not [tokens for tokens in counted if wanted[tokens] == 0]
    statistic, degrees = chi_square(counted, wanted)
    assert statistic < critical(degrees)


def test_the_statistic_tells_a_wrong_distribution() -> None:
    counted: Counter[tuple[int, ...]] = Counter()
    for seed in range(ANSWERS):
        # The draft is believed: what a rule that accepts all would give.
        sampler = Sampler(Settings(), (), (seed, 0))
        counted[tuple(alone(NEAR, sampler, length=LENGTH))] += 1
    statistic, degrees = chi_square(counted, expected(Settings(), LENGTH))
    assert statistic > critical(degrees)


@pytest.mark.parametrize("draft", [VERIFIER, NEAR, FAR], ids=["same", "near", "far"])
@pytest.mark.parametrize(
    "settings",
    [
        Settings(temperature=0.0),
        Settings(temperature=0.0, frequency_penalty=0.9),
        Settings(temperature=0.0, repetition_penalty=1.4),
        Settings(top_k=1),
    ],
    ids=["greedy", "frequency", "repetition", "top-k"],
)
def test_greedy_answers_are_the_verifiers_token_for_token(
    draft: Model, settings: Settings
) -> None:
    made = speculated(
        VERIFIER, draft, Sampler(settings, (0,), (1, 0)), most=4, length=40
    )
    assert made.tokens == alone(VERIFIER, Sampler(settings, (0,), (2, 0)), length=40)


def test_a_draft_that_is_the_verifier_is_accepted_always() -> None:
    made = speculated(
        VERIFIER, VERIFIER, Sampler(Settings(), (), (3, 0)), most=3, length=40
    )
    # Three of the draft's and one of the verifier's own, each time.
    assert (made.runs, made.drafted, made.accepted) == (10, 30, 30)


def test_how_many_are_drafted_follows_how_many_are_accepted() -> None:
    never = np.array([[0, 0, 9], [0, 0, 9], [0, 0, 9]], np.float32)
    always = np.array([[9, 0, 0], [9, 0, 0], [9, 0, 0]], np.float32)
    greedy = Sampler(Settings(temperature=0.0), (), (1, 0))
    drafts = SpeculativeDecoder(greedy, most=4)
    asked = []
    for draft in [never] * 5 + [always] * 4:
        asked.append(drafts.wanted(100))
        for _ in range(asked[-1]):
            drafts.propose(draft[0])
        for _ in range(asked[-1]):
            if drafts.judge(always[0]).token != int(draft[0].argmax()):
                break
    assert asked == [4, 3, 2, 1, 1, 1, 2, 3, 4]


@pytest.mark.parametrize(("left", "wanted"), [(1, 0), (2, 1), (5, 4), (9, 4)])
def test_no_more_is_drafted_than_the_answer_may_still_get(
    left: int, wanted: int
) -> None:
    drafts = SpeculativeDecoder(Sampler(Settings(), (), (1, 0)), most=4)
    assert drafts.wanted(left) == wanted


def test_what_was_drafted_behind_a_rejected_token_is_forgotten() -> None:
    never = np.array([0, 0, 9], np.float32)
    drafts = SpeculativeDecoder(Sampler(Settings(temperature=0.0), (), (1, 0)), most=4)
    for _ in range(3):
        drafts.propose(never)
    assert drafts.judge(np.array([9, 0, 0], np.float32)).token == 0
    assert (drafts.drafted, drafts.accepted) == (1, 0)
    # The next round begins with its own.
    assert drafts.propose(np.array([0, 9, 0], np.float32)) == 1
    assert drafts.judge(np.array([0, 9, 0], np.float32)).token == 1


def test_probabilities_that_are_reported_are_the_verifiers_own() -> None:
    settings = Settings(temperature=0.0, top_logprobs=1)
    drafts = SpeculativeDecoder(Sampler(settings, (), (1, 0)), most=1)
    drafts.propose(np.array([0, 0, 9], np.float32))
    choice = drafts.judge(np.log(np.array([0.25, 0.75], np.float32)).repeat(2)[:3])
    assert choice.token == 2
    assert choice.logprob == pytest.approx(np.log(0.75 / 1.25))


def test_a_verifier_whose_output_is_no_number_is_an_error() -> None:
    drafts = SpeculativeDecoder(Sampler(Settings(), (), (1, 0)), most=1)
    drafts.propose(np.zeros(2, np.float32))
    with pytest.raises(EngineError, match="not a number"):
        drafts.judge(np.array([np.nan, 0], np.float32))


def test_distributions_that_differ_by_rounding_only_leave_no_hole() -> None:
    shares = np.array([0.3, 0.7])
    assert residual(shares + 1e-12, shares).tolist() == [0.3, 0.7]
    assert acceptance(0, shares, shares) == 1.0
