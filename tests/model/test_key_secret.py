"""The secrets of virtual keys: how they look, and what is kept."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis.strategies import binary, integers, sampled_from

from atomr_infer.model.key_secret import (
    PREFIX,
    SECRET_BYTES,
    digest_of,
    is_ours,
    is_whole,
    make_secret,
    shown,
)

RANDOM = binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES)
LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@given(random=RANDOM)
def test_a_secret_is_found_by_what_scanners_look_for(random: bytes) -> None:
    secret = make_secret(random)
    assert re.fullmatch(r"sk-atomr-[0-9A-Za-z]{49}", secret)
    assert is_ours(secret)
    assert is_whole(secret)


@given(one=RANDOM, other=RANDOM)
def test_other_bytes_are_another_secret(one: bytes, other: bytes) -> None:
    assert (make_secret(one) == make_secret(other)) is (one == other)
    assert (digest_of(make_secret(one)) == digest_of(make_secret(other))) is (
        one == other
    )


@given(random=RANDOM, at=integers(len(PREFIX), 57), letter=sampled_from(LETTERS))
def test_a_mistyped_letter_is_noticed(random: bytes, at: int, letter: str) -> None:
    secret = make_secret(random)
    mistyped = f"{secret[:at]}{letter}{secret[at + 1 :]}"
    assert is_whole(mistyped) is (mistyped == secret)


@pytest.mark.parametrize(
    "text",
    ["", PREFIX, make_secret(bytes(32))[:-1], make_secret(bytes(32)) + "0", "sk-" * 20],
    ids=["empty", "prefix", "cut", "long", "another's"],
)
def test_what_is_cut_or_anothers_is_not_whole(text: str) -> None:
    assert not is_whole(text)


def test_it_is_made_of_enough_randomness_or_not_at_all() -> None:
    with pytest.raises(ValueError, match="made of 32 bytes, not 16"):
        make_secret(bytes(16))


def test_what_is_shown_is_four_characters_of_it() -> None:
    secret = make_secret(bytes(range(32)))
    assert shown(secret) == secret[:13] + "..."


def test_the_digest_is_one_that_is_known() -> None:
    assert len(digest_of("k")) == 32
    assert digest_of("k") != digest_of("K")
