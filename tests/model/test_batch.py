"""Small promises of the nouns that everything else relies on."""

from __future__ import annotations

from atomr_infer.model.batch import (
    FinishReason,
    Message,
    RawPart,
    Role,
    Sampling,
    TextPart,
    TokenChunk,
    Usage,
)


def test_a_message_s_text_is_its_text_parts_joined() -> None:
    image = RawPart("image_url", b"{}")

    assert Message(Role.USER, None).text == ""
    assert Message(Role.USER, "plain").text == "plain"
    assert Message(Role.USER, (TextPart("a"), image, TextPart("b"))).text == "ab"


def test_usage_totals_are_the_sums_of_disjoint_buckets() -> None:
    usage = Usage(input_uncached=10, cache_read=5, output_text=3, reasoning=2)

    assert (usage.prompt_tokens, usage.output_tokens, usage.total_tokens) == (15, 5, 20)


def test_given_names_what_differs_from_the_default() -> None:
    assert Sampling().given() == frozenset()
    assert Sampling(temperature=0.0, stop=("x",), n=2).given() == {
        "temperature",
        "stop",
        "n",
    }


def test_only_text_and_deltas_count_as_content() -> None:
    assert TokenChunk(text="x").has_content
    assert TokenChunk(extra={"tool_calls": b"[]"}).has_content
    assert not TokenChunk(finish_reason=FinishReason.STOP).has_content
    assert not TokenChunk(choice_extra={"logprobs": b"{}"}, model="m").has_content
