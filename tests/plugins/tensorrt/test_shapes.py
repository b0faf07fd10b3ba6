"""A plan takes shapes inside its profiles, and says of others what it takes."""

from __future__ import annotations

import pytest

from atomr_infer.errors import InvalidRequestError
from atomr_infer_tensorrt.shapes import (
    InputShape,
    Range,
    causal_profiles,
    check_profile,
    choose_profile,
    rows_profile,
    rows_that_fit,
    takes_rows,
    texts_profiles,
)

SMALL = {"x": Range((1, 3, 8), (2, 3, 8), (4, 3, 8))}
LARGE = {"x": Range((1, 3, 64), (1, 3, 64), (2, 3, 64))}
IDS = [
    InputShape(name=name, sizes=("rows", "tokens"))
    for name in ("input_ids", "attention_mask")
]


def test_the_first_profile_that_takes_all_shapes_is_used() -> None:
    assert choose_profile([SMALL, LARGE], {"x": (4, 3, 8)}) == 0
    assert choose_profile([SMALL, LARGE], {"x": (2, 3, 64)}) == 1


def test_a_shape_outside_of_all_profiles_is_told_with_what_is_taken() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        choose_profile([SMALL, LARGE], {"x": (4, 3, 64)})
    assert str(caught.value) == (
        "'x' has the shape [4, 3, 64]; the plan takes [1 to 4, 3, 8] or [1 to 2, 3, 64]"
    )
    assert caught.value.param == "x"


def test_a_shape_with_another_number_of_dimensions_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"'x' has the shape \[3, 8\]"):
        choose_profile([SMALL], {"x": (3, 8)})


def test_shapes_that_no_one_profile_takes_together_are_told_together() -> None:
    profiles = [
        {"a": Range((1,), (1,), (4,)), "b": Range((1,), (1,), (4,))},
        {"a": Range((8,), (8,), (9,)), "b": Range((8,), (8,), (9,))},
    ]
    with pytest.raises(InvalidRequestError) as caught:
        choose_profile(profiles, {"a": (2,), "b": (8,)})
    assert str(caught.value) == (
        "the shapes 'a' [2], 'b' [8] do not belong together; the plan takes "
        "'a' [1 to 4], 'b' [1 to 4] or 'a' [8 to 9], 'b' [8 to 9]"
    )


@pytest.mark.parametrize(
    ("shapes", "problem"),
    [
        (((1,), (1, 2), (4,)), "different numbers of dimensions"),
        (((1,), (8,), (4,)), "a dimension is 1, 8, 4"),
        (((-1,), (1,), (4,)), "a dimension is -1, 1, 4"),
    ],
    ids=["ranks", "order", "negative"],
)
def test_a_range_that_is_none_is_refused(
    shapes: tuple[tuple[int, ...], ...], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        Range(*shapes)


def test_a_run_has_as_many_rows_as_the_widest_profile_for_their_length() -> None:
    assert rows_that_fit([SMALL, LARGE], {"x": (100, 3, 8)}) == 4
    assert rows_that_fit([SMALL, LARGE], {"x": (100, 3, 64)}) == 2
    with pytest.raises(InvalidRequestError, match=r"\[100, 3, 65\]"):
        rows_that_fit([SMALL, LARGE], {"x": (100, 3, 65)})


# --- profiles of their own ------------------------------------------------------


def test_texts_have_a_profile_for_many_short_and_one_for_few_long() -> None:
    profiles = texts_profiles(IDS, max_batch=32, context_tokens=512, batch_tokens=4096)
    assert [str(profile["input_ids"]) for profile in profiles] == [
        "[1 to 32, 1 to 128]",
        "[1 to 8, 1 to 512]",
    ]
    assert profiles[0]["attention_mask"] == profiles[0]["input_ids"]


def test_one_profile_is_enough_where_many_long_texts_fit() -> None:
    [profile] = texts_profiles(IDS, max_batch=4, context_tokens=64, batch_tokens=4096)
    assert str(profile["input_ids"]) == "[1 to 4, 1 to 64]"


def test_a_text_of_any_length_has_a_row_at_least() -> None:
    profiles = texts_profiles(IDS, max_batch=32, context_tokens=512, batch_tokens=16)
    for length in (1, 100, 512):
        shapes = {one.name: (40, length) for one in IDS}
        assert rows_that_fit(profiles, shapes) >= 1


def test_the_sizes_of_a_causal_profile_belong_together_at_each_point() -> None:
    cache = "past_key_values.0.key"
    inputs = [*IDS, InputShape(name=cache, sizes=("rows", 3, "past", 64))]
    for profile in causal_profiles(
        inputs, max_seqs=16, prefill_tokens=256, context_tokens=2048, heads=(3, 64)
    ):
        for point in ("least", "usual", "most"):
            rows, new = getattr(profile["input_ids"], point)
            assert getattr(profile[cache], point)[:2] == (rows, 3)
            past = getattr(profile[cache], point)[2]
            assert getattr(profile["attention_mask"], point) == (rows, past + new)


def test_a_causal_model_has_a_profile_for_next_tokens_and_one_for_prompts() -> None:
    steps, reads = causal_profiles(
        IDS, max_seqs=16, prefill_tokens=256, context_tokens=2048, heads=(3, 64)
    )
    assert str(steps["input_ids"]) == "[1 to 16, 1]"
    assert str(reads["input_ids"]) == "[1, 1 to 256]"


def test_rows_alone_vary_in_the_profile_of_another_model() -> None:
    inputs = [
        InputShape(name="x", sizes=("n", 3, 224)),
        InputShape(name="scale", sizes=(1,)),
        InputShape(name="threshold", sizes=()),
    ]
    profile = rows_profile(inputs, 8)
    assert profile is not None
    assert {name: str(span) for name, span in profile.items()} == {
        "x": "[1 to 8, 3, 224]",
        "scale": "[1]",
        "threshold": "[]",
    }


def test_other_sizes_that_vary_have_no_profile_of_their_own() -> None:
    assert rows_profile([InputShape(name="x", sizes=("n", None))], 8) is None


@pytest.mark.parametrize(
    ("profile", "problem"),
    [
        ({"x": Range((1, 3), (2, 3), (4, 3))}, None),
        ({"y": Range((1,), (1,), (1,))}, "there is no input 'y'; the model has x, z"),
        ({}, "the input 'x' [n, 3] is missing"),
        (
            {"x": Range((1, 4), (2, 4), (4, 4))},
            "'x' is [1 to 4, 4], and the model declares 'x' [n, 3]",
        ),
        (
            {"x": Range((1,), (2,), (4,))},
            "'x' is [1 to 4], and the model declares 'x' [n, 3]",
        ),
    ],
    ids=["fits", "unknown", "missing", "fixed", "rank"],
)
def test_a_profile_that_does_not_fit_the_model_is_told(
    profile: dict[str, Range], problem: str | None
) -> None:
    inputs = [
        InputShape(name="x", sizes=("n", 3)),
        InputShape(name="z", sizes=(2,)),
    ]
    assert check_profile(profile, inputs) == problem


def test_a_run_has_the_rows_that_one_of_the_profiles_takes() -> None:
    small, large = {"x": (1, 3, 8)}, {"x": (1, 3, 64)}
    assert [takes_rows([SMALL, LARGE], small, rows) for rows in (4, 5)] == [True, False]
    assert [takes_rows([SMALL, LARGE], large, rows) for rows in (2, 3)] == [True, False]
    assert not takes_rows([SMALL], large, 1)
