"""A Messages request that is told at a glance is one that is read whole, the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_infer.wire.anthropic.glance import glance_at_messages
from atomr_infer.wire.anthropic.request import parse_request
from atomr_infer.wire.anthropic.traits import ModelTraits
from atomr_infer.wire.anthropic.upstream_turns import check_prefill, fit_as_they_are
from atomr_infer.wire.anthropic.versions import NEW, OLD
from atomr_infer.wire.ingress import Asked, Call

USER = {"role": "user", "content": "hi"}
TEXT = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
IMAGE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
}
TOOL = {"name": "f", "description": "does", "input_schema": {"type": "object"}}
CALL = {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": [TEXT, IMAGE]}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "c2lnbmVk"}
HIDDEN = {"type": "redacted_thinking", "data": "aGlkZGVu"}

USUAL: list[dict[str, Any]] = [
    {},
    {"stream": True, "system": "be brief"},
    {"system": [TEXT], "stop_sequences": ["x"], "metadata": {"user_id": "u"}},
    {"messages": [{"role": "user", "content": [TEXT, IMAGE]}]},
    {
        "messages": [
            USER,
            {"role": "assistant", "content": [THOUGHT, HIDDEN, TEXT, CALL]},
            {"role": "user", "content": [RESULT]},
        ],
        "tools": [TOOL, {**TOOL, "type": "custom", "strict": True}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    },
    {"thinking": {"type": "enabled", "budget_tokens": 2000}},
    {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
    {"output_config": {"format": {"type": "json_schema", "schema": {}}}},
    {"service_tier": "auto", "context_management": {"edits": []}},
    {"tools": [{**TOOL, "input_schema": {"properties": {"model": {}}}}]},
]


def body(**members: Any) -> bytes:
    return json.dumps(
        {"model": "claude-x", "max_tokens": 9, "messages": [USER], **members}
    ).encode()


def call(data: bytes, version: str | None = NEW, action: str | None = None) -> Call:
    headers = {"anthropic-beta": "b"}
    if version is not None:
        headers["anthropic-version"] = version
    return Call(request_id="r", body=data, headers=headers, action=action)


def known(asked: Asked) -> tuple[object, ...]:
    """What both ways of reading must agree on."""
    batch = asked.batch
    return (
        batch.request_id,
        batch.model,
        batch.stream,
        batch.sampling.n,
        batch.dialect,
        batch.source,
        batch.client_headers,
    )


def agree(asked: Asked | None, whole: Call) -> None:
    """Whoever tells a request at a glance says what is read in it."""
    if asked is None:
        return
    read = parse_request(whole)
    assert known(asked) == known(read)
    # And what it does not hold is nothing that a model may have to be asked otherwise.
    strictest = ModelTraits(max_output_tokens=9, context_tokens=9)
    check_prefill(read.batch, strictest)
    assert fit_as_they_are(read.batch, strictest)


@pytest.mark.parametrize("version", [NEW, OLD, None])
@pytest.mark.parametrize("members", USUAL)
def test_usual_requests_are_told_at_a_glance(
    members: dict[str, Any], version: str | None
) -> None:
    whole = call(body(**members), version)
    asked = glance_at_messages(whole)
    assert asked is not None
    assert asked.batch.messages == ()
    agree(asked, whole)


def test_members_that_the_new_version_removed_are_told_in_the_old_one() -> None:
    for name, value in (("temperature", 0.5), ("top_p", 0), ("top_k", 3)):
        data = body(**{name: value})
        assert glance_at_messages(call(data, OLD)) is not None
        assert glance_at_messages(call(data, NEW)) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"model": "m", "max_tokens": 1}',
        body(model=""),
        body(model="a\nb"),
        body(max_tokens=None),
        body(messages=[]),
        body(messages=[{"role": "system", "content": "x"}, USER]),
        body(messages=[USER, {"role": "assistant", "content": "{"}]),
        body(messages=[{"role": "assistant", "content": [RESULT]}, USER]),
        body(messages=[{"role": "user", "content": [{"type": "document"}]}]),
        body(
            messages=[
                {
                    "role": "assistant",
                    "content": [{**THOUGHT, "signature": "atomr:gemini:x"}],
                },
                USER,
            ]
        ),
        body(
            messages=[
                {"role": "assistant", "content": [{**THOUGHT, "signature": ""}]},
                USER,
            ]
        ),
        body(messages=[{"role": "user", "content": [{**TEXT, "citations": [{}]}]}]),
        body(tools=[{"type": "web_search_20260209", "name": "web_search"}]),
        body(tool_choice={"type": "odd"}),
        body(thinking={"type": "enabled"}),
        body(stop_sequences=[" "]),
        body(container="c"),
        body(
            messages=[{"role": "assistant", "content": [{**HIDDEN, "data": ""}]}, USER]
        ),
        body(messages=[{"role": "assistant", "content": [{**CALL, "input": 5}]}, USER]),
        body(temperature=None),
        body(tools=[{**TOOL, "input_schema": []}]),
        body(tools=[{**TOOL, "type": "odd"}]),
        body(thinking={"type": "enabled", "budget_tokens": 0}),
        body(thinking={"type": "enabled", "budget_tokens": 9, "display": "odd"}),
        body(output_config={"format": {"type": "json_schema", "schema": []}}),
        body(Model="other"),
        b"[" * 10_000,
    ],
)
def test_what_may_be_wrong_is_read_whole(data: bytes) -> None:
    assert glance_at_messages(call(data)) is None


def test_a_version_that_is_none_is_read_whole() -> None:
    assert glance_at_messages(call(body(), "latest")) is None


def test_what_is_to_be_counted_is_read_whole() -> None:
    assert glance_at_messages(call(body(), action="count_tokens")) is None


def test_the_model_is_renamed_where_it_is_the_requests() -> None:
    tool = {**TOOL, "input_schema": {"model": "claude-x"}}
    for data in (
        json.dumps({"tools": [tool], **json.loads(body())}).encode(),
        body(tools=[tool]),
        body(),
    ):
        asked = glance_at_messages(call(data))
        assert asked is not None
        assert asked.batch.source is not None
        renamed = asked.batch.source.renamed("new")
        assert renamed is not None
        assert json.loads(renamed) == {**json.loads(data), "model": "new"}


def test_of_two_models_neither_is_passed_on() -> None:
    rest = '"max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]'
    for data in (
        f'{{"model": "a", "model": "b", {rest}}}'.encode(),
        f'{{"\\u006dodel": "a", "model": "b", {rest}}}'.encode(),
    ):
        asked = glance_at_messages(call(data))
        assert asked is not None
        assert asked.batch.source is not None
        assert asked.batch.source.renamed("c") is None


ODD = st.sampled_from(["hi", "", " ", "ü", 5, None, ["x"], {"a": 1}, True])
CACHE = st.sampled_from([{}, {"ttl": "1h"}, {"ttl": 5}, 5, None])
BLOCK = st.one_of(
    st.sampled_from([TEXT, IMAGE, CALL, RESULT, THOUGHT, HIDDEN]),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "tool_use", "tool_result", "odd"])},
        optional={
            "text": ODD,
            "id": ODD,
            "name": ODD,
            "input": ODD,
            "tool_use_id": ODD,
            "content": st.one_of(
                ODD, st.lists(st.sampled_from([TEXT, IMAGE, CALL, {"type": "odd"}]))
            ),
            "is_error": ODD,
            "citations": st.sampled_from([None, [], [{}]]),
            "cache_control": CACHE,
        },
    ),
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["thinking", "redacted_thinking"]),
            "thinking": ODD,
        },
        optional={
            "signature": st.sampled_from(["", "x", "atomr:gemini:x", "atomr:x", 5]),
            "data": st.sampled_from(["", "x", "atomr:gemini:x", "\natomr:", 5]),
        },
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("image"),
            "source": st.fixed_dictionaries(
                {"type": st.sampled_from(["base64", "url", "file", "odd"])},
                optional={"data": ODD, "url": ODD, "media_type": ODD, "file_id": ODD},
            ),
        }
    ),
)
MESSAGE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "user", "system", "odd"]),
        "content": st.one_of(ODD, st.lists(BLOCK, max_size=3)),
    }
)
MEMBERS: dict[str, st.SearchStrategy[Any]] = {
    "max_tokens": st.sampled_from([0, 1, -1, 1.5, None, "1", 2**40]),
    "system": st.one_of(ODD, st.lists(BLOCK, max_size=2)),
    "stream": ODD,
    "stop_sequences": st.one_of(ODD, st.lists(ODD, max_size=2)),
    "temperature": st.sampled_from([0, 1, 1.5, -1, None, "1", True]),
    "top_p": st.sampled_from([0, 0.5, 2, None]),
    "top_k": st.sampled_from([-1, 0, 1, 1.5, None]),
    "metadata": st.sampled_from([{}, {"user_id": "u"}, {"user_id": 5}, {"x": 1}, 5]),
    "tools": st.one_of(
        ODD,
        st.lists(
            st.fixed_dictionaries(
                {"name": ODD},
                optional={
                    "type": st.sampled_from(["custom", "odd", None, 5]),
                    "input_schema": st.sampled_from([{}, [], None, "x"]),
                    "description": ODD,
                    "strict": ODD,
                    "cache_control": CACHE,
                },
            ),
            max_size=2,
        ),
    ),
    "tool_choice": st.fixed_dictionaries(
        {"type": st.sampled_from(["auto", "any", "none", "tool", "odd"])},
        optional={"name": ODD, "disable_parallel_tool_use": ODD},
    ),
    "thinking": st.fixed_dictionaries(
        {"type": st.sampled_from(["enabled", "disabled", "adaptive", "odd"])},
        optional={
            "budget_tokens": st.sampled_from([0, 1, 2000, None, "1"]),
            "display": st.sampled_from(["summarized", "omitted", "odd", None, 5]),
        },
    ),
    "output_config": st.fixed_dictionaries(
        {},
        optional={
            "effort": st.sampled_from(["low", "minimal", "none", "odd", None, 5]),
            "format": st.sampled_from(
                [
                    None,
                    {"type": "json_schema", "schema": {}},
                    {"type": "json_schema", "schema": []},
                    {"type": "text"},
                ]
            ),
        },
    ),
    "service_tier": ODD,
    "mcp_servers": ODD,
}


@settings(max_examples=400, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "model": st.sampled_from(["claude-x", "a/b", "", 5, "x" * 257]),
            "max_tokens": st.just(5),
            "messages": st.lists(MESSAGE, max_size=3),
        },
        optional={k: v for k, v in MEMBERS.items() if k != "max_tokens"},
    ),
    st.sampled_from([NEW, OLD, None]),
)
def test_what_is_told_at_a_glance_is_read_whole_with_the_same_result(
    request: dict[str, Any], version: str | None
) -> None:
    whole = call(json.dumps(request).encode(), version)
    agree(glance_at_messages(whole), whole)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(MEMBERS)).flatmap(
        lambda name: st.tuples(st.just(name), MEMBERS[name])
    ),
    st.sampled_from(USUAL),
    st.sampled_from([NEW, OLD]),
)
def test_one_odd_member_among_usual_ones_changes_nothing_of_that(
    odd: tuple[str, Any], usual: dict[str, Any], version: str
) -> None:
    whole = call(body(**{**usual, odd[0]: odd[1]}), version)
    agree(glance_at_messages(whole), whole)


@settings(max_examples=400, deadline=None)
@given(st.lists(BLOCK, min_size=1, max_size=2), st.sampled_from(["user", "assistant"]))
def test_a_usual_turn_with_any_block_changes_nothing_of_that(
    blocks: list[Any], role: str
) -> None:
    turns = [{"role": role, "content": blocks}, USER]
    whole = call(body(messages=turns))
    agree(glance_at_messages(whole), whole)
