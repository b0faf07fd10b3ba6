"""Logits become tokens as the request says."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from atomr_infer.errors import EngineError
from atomr_infer.model.batch import Sampling
from atomr_infer.runtimes.decoding.sampling import (
    Sampler,
    Settings,
    defaults_of,
    settings_of,
)

LOGITS = np.log(np.array([0.5, 0.25, 0.15, 0.1], np.float32))


def drawn(settings: Settings, times: int = 4000, seed: int = 1) -> dict[int, float]:
    """The share of each token among many first ones."""
    counts = Counter(
        Sampler(settings, (), (seed, number)).choose(LOGITS).token
        for number in range(times)
    )
    return {token: counts[token] / times for token in sorted(counts)}


def test_at_temperature_0_the_likeliest_is_taken() -> None:
    assert drawn(Settings(temperature=0.0), 20) == {0: 1.0}


def test_at_temperature_1_shares_are_the_model_s() -> None:
    assert drawn(Settings()) == pytest.approx(
        {0: 0.5, 1: 0.25, 2: 0.15, 3: 0.1}, abs=0.03
    )


def test_temperature_sharpens() -> None:
    # Squares of the probabilities, made to sum to one.
    assert drawn(Settings(temperature=0.5)) == pytest.approx(
        {0: 0.7246, 1: 0.1812, 2: 0.0652, 3: 0.029}, abs=0.03
    )


def test_a_tiny_temperature_overflows_nothing() -> None:
    assert drawn(Settings(temperature=1e-30), 20) == {0: 1.0}


def test_top_k_keeps_the_likeliest() -> None:
    assert drawn(Settings(top_k=2)) == pytest.approx({0: 2 / 3, 1: 1 / 3}, abs=0.03)


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.01, {0}), (0.49, {0}), (0.6, {0, 1}), (0.89, {0, 1, 2})]
)
def test_top_p_keeps_the_fewest_that_have_it(top_p: float, kept: set[int]) -> None:
    assert set(drawn(Settings(top_p=top_p), 300)) == kept


def test_the_nucleus_of_a_large_vocabulary_is_that_of_a_whole_sort() -> None:
    logits = np.random.default_rng(3).standard_normal(20_000).astype(np.float32) * 4
    flat = np.zeros(20_000, np.float32)
    for values, top_p in ((logits, 0.5), (flat, 0.9)):
        shares = np.exp(values.astype(np.float64))
        shares /= shares.sum()
        sums = np.cumsum(np.sort(shares)[::-1])
        size = int(np.searchsorted(sums, top_p)) + 1
        least = np.sort(shares)[::-1][size - 1]
        for number in range(20):
            token = Sampler(Settings(top_p=top_p), (), (number,)).choose(values).token
            assert shares[token] >= least


def test_a_seed_repeats_a_row_of_draws() -> None:
    def row(seed: int) -> list[int]:
        sampler = Sampler(Settings(), (), (seed, 0))
        return [sampler.choose(LOGITS).token for _ in range(50)]

    assert row(7) == row(7)
    assert row(7) != row(8)


def test_what_was_said_is_made_less_likely() -> None:
    greedy = Settings(temperature=0.0)
    often = Sampler(Settings(temperature=0.0, frequency_penalty=0.4), (), (1,))
    once = Sampler(Settings(temperature=0.0, presence_penalty=0.8), (), (1,))
    # log 2 = 0.69 is what the first is ahead of the second.
    assert [often.choose(LOGITS).token for _ in range(5)] == [0, 0, 1, 0, 1]
    assert [once.choose(LOGITS).token for _ in range(4)] == [0, 1, 0, 0]
    assert [Sampler(greedy, (), (1,)).choose(LOGITS).token] == [0]


def test_a_repetition_penalty_minds_the_prompt() -> None:
    settings = Settings(temperature=0.0, repetition_penalty=3.0)
    assert Sampler(settings, [0], (1,)).choose(LOGITS).token == 1


def test_probabilities_are_the_model_s_own() -> None:
    sampler = Sampler(Settings(temperature=0.0, top_logprobs=2, top_k=1), (), (1,))
    choice = sampler.choose(LOGITS + 3)
    assert choice.token == 0
    assert choice.logprob == pytest.approx(np.log(0.5))
    assert dict(choice.top) == pytest.approx({0: np.log(0.5), 1: np.log(0.25)})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_the_engine_s_failure(value: float) -> None:
    with pytest.raises(EngineError, match="not a number"):
        Sampler(Settings(), (), (1,)).choose(np.full(4, value, np.float32))


def test_what_a_request_does_not_say_is_the_model_s_default() -> None:
    advised = defaults_of(
        {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.1}
    )
    assert settings_of(Sampling(temperature=0.0), advised) == Settings(
        temperature=0.0, top_p=0.9, repetition_penalty=1.1
    )
    assert defaults_of({"do_sample": False, "temperature": 0.6}) == Settings(
        temperature=0.0
    )
    assert defaults_of({}) == Settings()


@pytest.mark.parametrize("said", [0, -1])
def test_all_tokens_are_asked_for_in_two_ways(said: int) -> None:
    advised = defaults_of({"top_k": 50})
    assert settings_of(Sampling(top_k=said), advised) == Settings(top_k=0)
