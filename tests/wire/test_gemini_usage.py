"""Counts of tokens, to disjoint buckets and back (section 6)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_infer.model.usage import Usage
from atomr_infer.wire.gemini.usage import decode_usage, usage_members


def _usage(**members: Any) -> Usage | None:
    return decode_usage(msgspec.json.encode(members))


def _details(**counts: int) -> list[dict[str, Any]]:
    return [{"modality": name, "tokenCount": count} for name, count in counts.items()]


def test_section_6_prompt_includes_cached_and_candidates_exclude_thoughts() -> None:
    assert _usage(
        promptTokenCount=10,
        cachedContentTokenCount=4,
        candidatesTokenCount=5,
        thoughtsTokenCount=7,
        toolUsePromptTokenCount=3,
        totalTokenCount=25,
    ) == Usage(
        input_uncached=6, cache_read=4, output_text=5, reasoning=7, tool_prompt=3
    )


def test_section_6_total_shows_thoughts_among_the_candidates() -> None:
    assert _usage(
        promptTokenCount=10,
        candidatesTokenCount=12,
        thoughtsTokenCount=7,
        totalTokenCount=22,
    ) == Usage(input_uncached=10, output_text=5, reasoning=7)


def test_section_6_total_shows_thoughts_that_were_left_out() -> None:
    assert _usage(
        promptTokenCount=10, candidatesTokenCount=5, totalTokenCount=22
    ) == Usage(input_uncached=10, output_text=5, reasoning=7)


def test_modalities_are_told_apart_and_never_exceed_the_total() -> None:
    assert _usage(
        promptTokenCount=20,
        cachedContentTokenCount=8,
        candidatesTokenCount=9,
        promptTokensDetails=_details(TEXT=5, AUDIO=10, IMAGE=5),
        cacheTokensDetails=_details(AUDIO=8),
        candidatesTokensDetails=_details(TEXT=2, AUDIO=7),
    ) == Usage(
        input_uncached=5,
        cache_read=8,
        input_audio=2,
        input_image=5,
        output_text=2,
        output_audio=7,
    )
    assert _usage(
        promptTokenCount=10,
        cachedContentTokenCount=8,
        promptTokensDetails=_details(AUDIO=10, IMAGE=10),
    ) == Usage(cache_read=8, input_audio=2)


def test_counts_as_floats_and_nulls_are_read() -> None:
    assert _usage(promptTokenCount=3.0, candidatesTokenCount=None) == Usage(
        input_uncached=3
    )


@pytest.mark.parametrize(
    "members",
    [
        {"promptTokenCount": -1},
        {"promptTokenCount": 1.5},
        {"promptTokenCount": 2**60},
        {"promptTokenCount": "3"},
        {"promptTokenCount": 3, "promptTokensDetails": [{"tokenCount": -1}, 3]},
    ],
)
def test_what_is_no_count_makes_it_no_usage(members: dict[str, Any]) -> None:
    assert _usage(**members) is None


def test_nothing_said_is_no_usage() -> None:
    assert decode_usage(b"null") is None
    assert decode_usage(b"[]") is None
    assert decode_usage(b"{}") is None
    assert decode_usage(b'{"trafficType":"ON_DEMAND"}') is None


@pytest.mark.parametrize(
    "members",
    [
        {"promptTokensDetails": [], "trafficType": "ON_DEMAND"},
        {"promptTokensDetails": [{"modality": "TEXT", "tokenCount": 5}]},
        {"cachedContentTokenCount": 5},
        {"toolUsePromptTokenCount": 5},
    ],
)
def test_parts_of_counts_that_were_not_said_are_no_usage(
    members: dict[str, Any],
) -> None:
    assert _usage(**members) is None


COUNT = st.integers(0, 1000)
USAGES = st.builds(
    Usage,
    input_uncached=COUNT,
    cache_read=COUNT,
    tool_prompt=COUNT,
    output_text=COUNT,
    reasoning=COUNT,
    output_audio=COUNT,
)


@given(USAGES)
def test_parts_sum_to_the_total(usage: Usage) -> None:
    members: Any = usage_members(usage)
    assert members["totalTokenCount"] == usage.total_tokens
    assert usage.total_tokens == (
        members["promptTokenCount"]
        + members.get("toolUsePromptTokenCount", 0)
        + members["candidatesTokenCount"]
        + members.get("thoughtsTokenCount", 0)
    )
    for name in ("promptTokensDetails", "candidatesTokensDetails"):
        if name in members:
            total = members[name.replace("TokensDetails", "TokenCount")]
            assert sum(each["tokenCount"] for each in members[name]) == total


@given(USAGES)
def test_what_is_written_is_read_back(usage: Usage) -> None:
    assert decode_usage(msgspec.json.encode(usage_members(usage))) == usage


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "promptTokenCount",
                "cachedContentTokenCount",
                "candidatesTokenCount",
                "thoughtsTokenCount",
                "toolUsePromptTokenCount",
                "totalTokenCount",
            ]
        ),
        COUNT,
        min_size=1,
    )
)
def test_no_bucket_is_negative_and_input_is_what_was_said(
    members: dict[str, int],
) -> None:
    usage = _usage(**members)
    parts_alone = {"cachedContentTokenCount", "toolUsePromptTokenCount"}
    assert (usage is None) is (members.keys() <= parts_alone)
    if usage is None:
        return
    assert usage.prompt_tokens == members.get("promptTokenCount", 0) + members.get(
        "toolUsePromptTokenCount", 0
    )
    assert min(usage.input_uncached, usage.output_text, usage.reasoning) >= 0
