"""Tokens become text at the boundaries of characters, and stop strings hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_infer.runtimes.decoding.text import Detokenizer, StopFinder, Told
from tests.plugins.ort.models import byte_tokenizer

TOKENIZER = byte_tokenizer()


def decode(tokens: list[int]) -> str:
    return str(TOKENIZER.decode(tokens, skip_special_tokens=True))


def pieces(tokens: list[int]) -> list[str]:
    words = Detokenizer(decode)
    return [*(words.push(token) for token in tokens), words.flush()]


@given(st.text())
def test_a_text_comes_in_whole_characters_whatever_its_bytes(text: str) -> None:
    told = pieces(TOKENIZER.encode(text).ids)
    assert "".join(told) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in told)


def test_a_character_of_four_bytes_comes_with_its_last() -> None:
    assert pieces(TOKENIZER.encode("a😀b").ids) == ["a", "", "", "", "😀", "b", ""]


@given(st.lists(st.integers(4, 259), max_size=30))
def test_garbage_comes_out_as_a_decoder_shows_it(tokens: list[int]) -> None:
    assert "".join(pieces(tokens)) == decode(tokens)


def test_a_character_that_is_never_completed_comes_at_the_end() -> None:
    *first, _ = TOKENIZER.encode("a😀").ids
    assert pieces(first) == ["a", "", "", "", "\ufffd"]


def test_garbage_without_an_end_is_told_as_it_is() -> None:
    lead = TOKENIZER.encode("é").ids[0]
    told = pieces([lead] * 600)
    assert "".join(told) == "\ufffd" * 600
    assert max(map(len, told)) <= 4


def test_special_tokens_say_nothing() -> None:
    assert pieces([1, *TOKENIZER.encode("ab").ids, 2]) == ["", "a", "b", "", ""]


def told(stops: list[str], texts: list[str]) -> list[Told]:
    finder = StopFinder(stops)
    return [finder.push(text) for text in texts]


@pytest.mark.parametrize(
    ("stops", "texts", "shown"),
    [
        ([], ["a", "b"], [Told("a"), Told("b")]),
        (["END"], ["xEN", "D y"], [Told("x"), Told("", "END")]),
        (["END"], ["xE", "a"], [Told("x"), Told("Ea")]),
        (["END"], ["E", "N", "X"], [Told(""), Told(""), Told("ENX")]),
        (["b", "bc"], ["abc"], [Told("a", "bc")]),
        (["c", "b"], ["abc"], [Told("a", "b")]),
        (["\n\n"], ["a\n", "b\n", "\nc"], [Told("a"), Told("\nb"), Told("", "\n\n")]),
        (["aab"], ["aa", "ab"], [Told(""), Told("a", "aab")]),
    ],
)
def test_a_stop_string_is_found_across_pieces(
    stops: list[str], texts: list[str], shown: list[Told]
) -> None:
    assert told(stops, texts) == shown


@given(
    st.lists(st.text("ab", min_size=1, max_size=3), max_size=3),
    st.lists(st.text("ab", max_size=3), max_size=8),
)
def test_pieces_show_what_the_whole_text_would(
    stops: list[str], texts: list[str]
) -> None:
    finder, shown = StopFinder(stops), ""
    whole = "".join(texts)
    ends = [whole.find(stop) for stop in stops if stop in whole]
    for text in texts:
        piece = finder.push(text)
        shown += piece.text
        if piece.stop is not None:
            assert shown == whole[: min(ends)] or shown == whole[: len(shown)]
            assert not any(stop in shown for stop in stops)
            return
    assert shown + finder.flush() == whole
    assert ends == []
