"""Citations in each dialect's own counts, and what cannot be one."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_infer.model.dialect import Dialect
from atomr_infer.wire.citations import (
    Citation,
    GeminiCitations,
    chat_annotations,
    gemini_members,
    read_annotations,
)
from atomr_infer.wire.unshown import SHOWN

URL = "https://a.example"


def gemini(text: str, *, cited: object = None, grounded: object = None) -> object:
    citations = GeminiCitations()
    for character in text:
        citations.say(character)
    citations.add(msgspec.json.encode(cited), msgspec.json.encode(grounded))
    return citations.end()


@given(
    st.text(max_size=20),
    st.integers(min_value=0, max_value=20),
    st.integers(min_value=0, max_value=20),
)
def test_geminis_bytes_and_our_characters_are_the_same_stretch(
    text: str, one: int, other: int
) -> None:
    start, end = sorted((min(one, len(text)), min(other, len(text))))
    cited = Citation(URL, "", start, end)
    members = gemini_members([cited], text)["citationMetadata"]
    assert gemini(text, cited=members) == (cited,)
    assert read_annotations(chat_annotations([cited])) == (cited,)


@pytest.mark.parametrize(
    ("start", "end", "stretch"),
    [
        (1, 3, (0, 1)),  # in the middle of a character
        (-5, 99, (0, 3)),
        (9, 2, (3, 3)),
    ],
)
def test_a_stretch_that_cannot_be_is_as_near_as_can_be(
    start: int, end: int, stretch: tuple[int, int]
) -> None:
    source = {"startIndex": start, "endIndex": end, "uri": URL}
    cited = {"citations": [source]}
    assert gemini("äöü", cited=cited) == (Citation(URL, "", *stretch),)


def test_what_is_grounded_nowhere_is_said_of_the_whole_text() -> None:
    chunks = [{"web": {"uri": URL, "title": "A"}}, {"maps": {}}]
    supports = [{"groundingChunkIndices": [1, 7]}]
    grounded = {"groundingChunks": chunks, "groundingSupports": supports}
    assert gemini("äöü", grounded=grounded) == (Citation(URL, "A", 0, 3),)


@pytest.mark.parametrize("odd", [[], "x", {"citations": 3}, {"citationSources": [1]}])
def test_what_is_no_metadata_breaks_no_answer(odd: object) -> None:
    assert gemini("a", cited=odd, grounded=odd) == ()


@pytest.mark.parametrize("odd", [b"1", b"[1]", b"{", b'[{"type":"file_citation"}]'])
def test_what_is_no_url_is_no_citation(odd: bytes) -> None:
    assert read_annotations(odd) == ()


def test_citations_that_come_twice_are_told_once() -> None:
    citations = GeminiCitations()
    citations.say("abc")
    source = {"citationSources": [{"endIndex": 2, "uri": URL}]}
    for _ in range(2):
        citations.add(msgspec.json.encode(source), b"null")
    assert citations.end() == (Citation(URL, "", 0, 2),)
    assert gemini_members([], "abc") == {}


def test_each_dialect_says_what_its_answers_hold() -> None:
    assert set(SHOWN) == set(Dialect) - {Dialect.OPEN_INFERENCE}  # writes no text
