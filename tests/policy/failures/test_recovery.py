"""A second answer takes up where the first one broke, or says that it cannot."""

from __future__ import annotations

from itertools import pairwise

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    RawChunk,
    ReasoningDelta,
    Role,
    Sampling,
    TokenChunk,
    ToolCallDelta,
    Usage,
)
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import Signature
from atomr_infer.policy.failures.recovery import (
    DivergedError,
    Matcher,
    Transcript,
    continued,
)

SIGNATURE = Signature("s", Dialect.ANTHROPIC)
STOP = TokenChunk(finish_reason=FinishReason.STOP)
USAGE = TokenChunk(usage=Usage(input_uncached=1, output_text=2))


def text(said: str, index: int = 0) -> TokenChunk:
    return TokenChunk(text=said, index=index)


def thought(said: str, **more: object) -> TokenChunk:
    return TokenChunk(reasoning=ReasoningDelta(text=said, **more))  # type: ignore[arg-type]


def sent(*chunks: TokenChunk | RawChunk) -> Transcript:
    transcript = Transcript()
    for chunk in chunks:
        transcript.add(chunk)
    return transcript


def new(transcript: Transcript, *chunks: TokenChunk) -> list[TokenChunk]:
    matcher = Matcher(transcript)
    taken = (matcher.take(chunk) for chunk in chunks)
    return [chunk for chunk in taken if chunk is not None]


# --- restart_match ------------------------------------------------------------


def test_what_the_client_has_is_left_out() -> None:
    said = sent(text("Hel"), text("lo"))
    assert new(said, text("Hell"), text("o w"), text("orld"), STOP, USAGE) == [
        text(" w"),
        text("orld"),
        STOP,
        USAGE,
    ]


@given(answer=st.text(min_size=1, max_size=30), data=st.data())
def test_wherever_the_two_are_cut_the_client_gets_the_answer_once(
    answer: str, data: st.DataObject
) -> None:
    def pieces(whole: str) -> list[TokenChunk]:
        cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)))) | {0, len(whole)})
        return [text(whole[a:b]) for a, b in pairwise(cuts)]

    cut_at = data.draw(st.integers(0, len(answer)))
    first = pieces(answer[:cut_at])
    second = new(sent(*first), *pieces(answer), STOP)
    assert "".join(c.text for c in (*first, *second)) == answer
    assert second[-1] == STOP


@given(before=st.text("ab", min_size=1, max_size=6), after=st.text("ab", max_size=8))
def test_another_answer_is_never_taken_for_the_same(before: str, after: str) -> None:
    matcher = Matcher(sent(text(before)))
    chunks = [*(text(letter) for letter in after), STOP]
    try:
        taken = [matcher.take(chunk) for chunk in chunks]
    except DivergedError:
        assert not after.startswith(before)
    else:
        assert after.startswith(before)
        told = "".join(chunk.text for chunk in taken if chunk is not None)
        assert before + told == after


def test_an_answer_that_ends_too_soon_is_another_one() -> None:
    with pytest.raises(DivergedError):
        new(sent(text("Hello")), text("Hel"), STOP)
    with pytest.raises(DivergedError):
        new(sent(text("Hello")), text("Hel"), USAGE)


def test_a_tool_call_instead_of_the_rest_is_another_answer() -> None:
    call = TokenChunk(tool_calls=(ToolCallDelta(id="c", name="f"),))
    with pytest.raises(DivergedError):
        new(sent(text("Hello")), text("Hel"), call)
    assert new(sent(text("Hello")), text("Hello"), call) == [call]


def test_each_choice_is_matched_on_its_own() -> None:
    said = sent(text("a", 0), text("xy", 1))
    got = new(said, text("xyz", 1), text("ab", 0))
    assert got == [text("z", 1), text("b", 0)]


def test_a_choice_that_had_ended_is_not_told_again() -> None:
    end = attrs.evolve(STOP, index=1)
    said = sent(text("a", 0), text("xy", 1), end)
    got = new(said, text("something else", 1), end, text("ab", 0), STOP, USAGE)
    assert got == [text("b", 0), STOP, USAGE]


def test_thoughts_are_matched_like_text() -> None:
    said = sent(thought("hm, "), thought("so"), text("Hi"))
    assert new(said, thought("hm, so"), text("Hi the"), text("re")) == [
        text(" the"),
        text("re"),
    ]
    with pytest.raises(DivergedError):
        new(said, thought("well"))


def test_a_cut_inside_a_thought_goes_on_inside_it() -> None:
    got = new(sent(thought("hm")), thought("hm, so"), text("Hi"))
    assert got == [thought(", so"), text("Hi")]


def test_a_thought_about_what_was_said_already_is_left_out() -> None:
    got = new(sent(text("Hi")), thought("how do I greet?"), text("Hi there"))
    assert got == [text(" there")]


# --- what cannot be taken up --------------------------------------------------


@pytest.mark.parametrize(
    "chunk",
    [
        TokenChunk(tool_calls=(ToolCallDelta(id="c", name="f"),)),
        thought("hm", signature=SIGNATURE),
        thought("", data=SIGNATURE),
        TokenChunk(text="a", logprobs=b"{}"),
        TokenChunk(refusal="no"),
        TokenChunk(extra={"audio": b"{}"}),
        TokenChunk(text="a", choice_extra={"x": b"1"}),
        RawChunk(data=b"data: {}\n\n"),
    ],
    ids=[
        "tool",
        "signed",
        "encrypted",
        "logprobs",
        "refusal",
        "extra",
        "choice",
        "raw",
    ],
)
def test_what_another_attempt_cannot_repeat_fixes_the_answer(
    chunk: TokenChunk | RawChunk,
) -> None:
    assert sent(chunk).fixed
    assert not sent(text("a"), thought("b"), STOP).fixed


# --- continue -----------------------------------------------------------------

BATCH = ExecuteBatch(request_id="r", model="m", messages=(Message(Role.USER, "Hi"),))


def test_the_text_so_far_becomes_the_models_own_beginning() -> None:
    asked = continued(BATCH, sent(text("Hel"), text("lo")))
    assert asked is not None
    assert asked.messages == (*BATCH.messages, Message(Role.ASSISTANT, "Hello"))


@pytest.mark.parametrize(
    ("batch", "transcript"),
    [
        (attrs.evolve(BATCH, sampling=Sampling(n=2)), sent(text("a"))),
        (attrs.evolve(BATCH, prompt="Once"), sent(text("a"))),
        (BATCH, sent(thought("hm"), text("a"))),
        (BATCH, sent(STOP)),
    ],
    ids=["n", "completion", "thought", "no text"],
)
def test_what_no_prefill_can_say_is_not_continued(
    batch: ExecuteBatch, transcript: Transcript
) -> None:
    assert continued(batch, transcript) is None
