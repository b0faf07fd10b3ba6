"""How many tokens are drafted is what gives most tokens a second."""

from __future__ import annotations

import pytest

from atomr_infer.runtimes.decoding.pace import Pace, tokens_of
from atomr_infer.runtimes.decoding.sampling import Sampler, Settings
from atomr_infer.runtimes.decoding.speculation import SpeculativeDecoder


def measured(
    *, plain_s: float = 10.0, draft_s: float, more_s: float, rows: int = 1
) -> Pace:
    """Return a pace that has measured each as often as it remembers."""
    pace = Pace(8)
    for _ in range(3):
        assert pace.count(rows, 0.9) == 0
        pace.stepped(rows, plain_s)
    for number in range(9):
        if number < 3:
            assert pace.count(rows, 0.9) == 2
        pace.drafted(rows, 8, 8 * draft_s, plain_s + 8 * more_s)
    return pace


@pytest.mark.parametrize("likely", [0.0, 0.3, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("draft_s", [0.1, 1.0, 3.0, 9.0, 20.0])
def test_the_count_is_the_best_of_all(likely: float, draft_s: float) -> None:
    def per_token_s(count: int) -> float:
        round_s = 10.0 + count * (draft_s + 0.5)
        return round_s / tokens_of(likely, count)

    best = min(range(9), key=per_token_s)
    found = measured(draft_s=draft_s, more_s=0.5).count(1, likely)
    assert (found or 0) == best


def test_it_is_known_for_numbers_of_sequences_apart() -> None:
    pace = measured(draft_s=1.0, more_s=0.5)
    for _ in range(3):
        assert pace.count(4, 0.9) == 0
        pace.stepped(4, 10.0)
    for _ in range(9):
        pace.drafted(4, 8, 8 * 12.0, 30.0)
    assert pace.count(4, 0.9) is None
    assert pace.count(7, 0.9) is None
    assert (pace.count(1, 0.9) or 0) > 0
    assert (pace.begins(1), pace.begins(4)) == (True, False)


def test_one_moment_of_a_busy_machine_changes_nothing() -> None:
    pace = measured(draft_s=1.0, more_s=0.5)
    before = pace.count(1, 0.8)
    pace.drafted(1, 8, 900.0, 900.0)
    assert pace.count(1, 0.8) == before


def test_it_is_not_given_up_for_a_few_slow_rounds_unless_it_is_hopeless() -> None:
    for draft_s, tried in ((10.0, 9), (40.0, 3)):
        pace, rounds = Pace(8), 0
        for _ in range(3):
            pace.stepped(1, 10.0)
        while (count := pace.count(1, 0.8)) is not None:
            # What does not pay is tried with few tokens.
            assert count == 2
            pace.drafted(1, count, count * draft_s, 10.0)
            rounds += 1
        assert rounds == tried


def test_a_machine_that_has_become_another_is_noticed() -> None:
    pace = measured(draft_s=1.0, more_s=0.5)
    for _ in range(9):
        pace.drafted(1, 4, 4 * 30.0, 12.0)
    assert pace.count(1, 0.8) is None
    assert pace.gain < 1


def test_plain_steps_are_measured_again_now_and_then() -> None:
    pace = measured(draft_s=1.0, more_s=0.5)
    counts = []
    for _ in range(50):
        count = pace.count(1, 0.9)
        counts.append(count)
        if count:
            pace.drafted(1, count, count * 1.0, 10.0 + count * 0.5)
        else:
            pace.stepped(1, 10.0)
    assert counts.count(0) == 1
    assert None not in counts


def test_what_does_not_pay_is_tried_again_after_some_answers() -> None:
    pace = measured(draft_s=20.0, more_s=0.5)
    assert pace.count(1, 0.9) is None
    assert [pace.begins(1) for _ in range(17)] == [False] * 15 + [True] * 2
    # It is to be measured anew.
    assert pace.count(1, 0.9) == 2


def test_how_likely_a_token_is_accepted_follows_what_is() -> None:
    pace = Pace(4)
    for _ in range(300):
        pace.judged(1, 1)
    assert pace.likely == pytest.approx(0.5, abs=0.02)


def test_one_odd_answer_ends_drafting_for_itself_only() -> None:
    pace = measured(draft_s=3.0, more_s=0.5)
    for _ in range(99):
        pace.judged(9, 1)
    assert pace.count(1, pace.likely)
    assert pace.count(1, 0.2) is None
    assert pace.gain > 1
    assert pace.begins(1)
    assert pace.count(1, pace.likely)


def test_rounds_beside_others_without_a_draft_end_some_time() -> None:
    pace = measured(draft_s=1.0, more_s=0.5, rows=2)
    for rounds in (500, 500, 513):
        for _ in range(rounds):
            pace.drafted(2, 2, 2.0, 11.0, is_mixed=True)
        if rounds == 500:
            assert pace.count(2, 0.9) is not None
            pace.drafted(2, 2, 2.0, 11.0)
    assert pace.count(2, 0.9) is None
    assert not pace.begins(2)


@pytest.mark.parametrize(
    ("accepted", "judged", "goes_on"), [(8, 14, True), (35, 90, False)]
)
def test_an_answer_is_judged_behind_its_beginning(
    accepted: int, judged: int, goes_on: bool
) -> None:
    # A round of one token takes 1.68 plain steps.
    pace = measured(draft_s=6.3, more_s=0.5)
    pace.likely = 0.78
    answer = SpeculativeDecoder(Sampler(Settings(), (), (1,)), most=2)
    answer.drafted, answer.accepted = judged, accepted
    count = pace.count(1, answer.likely(pace.likely))
    assert (count is not None) is goes_on
