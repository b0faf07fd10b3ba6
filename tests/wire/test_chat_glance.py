"""A request that is told at a glance is one that is read whole with the same result."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_infer.model.source import Source
from atomr_infer.wire.ingress import Asked, Call
from atomr_infer.wire.openai.chat_glance import glance_at_chat_request
from atomr_infer.wire.openai.chat_request import parse_chat_request

USER = {"role": "user", "content": "hi"}

TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object"}, "strict": True},
}

USUAL: list[dict[str, Any]] = [
    {},
    {"stream": True},
    {"stream": True, "stream_options": {"include_usage": True}},
    {"temperature": 0.2, "max_tokens": 64, "stop": ["a", "b"], "seed": 7, "n": 3},
    {"messages": [{"role": "system", "content": "be brief"}, USER]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
    {
        "messages": [
            {
                "role": "user",
                "content": [
                    {
                        "type": "image_url",
                        "image_url": {"url": "data:image/png;base64,AAAA"},
                    }
                ],
            }
        ]
    },
    {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False},
    {
        "messages": [
            USER,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "f", "arguments": "{}"},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
        ],
        "tools": [TOOL],
    },
    {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "s", "schema": {"type": "object"}},
        }
    },
    {"seed": 2**64 - 1},
    {"seed": -(2**63)},
    {"reasoning_effort": "low", "user": "me", "service_tier": "auto"},
]


def body(**members: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [USER], **members}).encode()


def glance(data: bytes) -> Asked | None:
    return glance_at_chat_request(Call(request_id="r", body=data))


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
        asked.include_usage,
        asked.warnings,
    )


@pytest.mark.parametrize("members", USUAL)
def test_usual_requests_are_told_at_a_glance(members: dict[str, Any]) -> None:
    asked = glance(body(**members))
    assert asked is not None
    assert asked.batch.messages == ()
    assert asked.batch.source is not None
    assert asked.batch.source.body == body(**members)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"model": "m"}',
        body(model=""),
        body(model="m" * 257),
        body(model="a\nb"),
        body(messages=[]),
        body(messages=[{"role": "user"}]),
        body(messages=[{"role": "user", "content": [{"type": "video"}]}]),
        body(temperature=3),
        body(top_logprobs=2),
        body(stream_options={}),
        body(tools=[{"type": "web_search"}]),
        body(unknown=1),
        body(seed=2**64),
        body(seed=-(2**63) - 1),
        body(Model="other"),
        b'{"model": "a", "model": "b", "messages": [{"role":"user","content":"hi"}]}',
        rb'{"\u006dodel": "a", "model": "b", "messages": '
        rb'[{"role":"user","content":"hi"}]}',
        b"[" * 10_000,
    ],
)
def test_what_may_be_wrong_is_read_whole(data: bytes) -> None:
    assert glance(data) is None


TEXT = st.sampled_from(["hi", "", "ü", '"model"', 5, None, ["x"], {"a": 1}])
FLAG = st.sampled_from([True, False, None, "true", 1])
NUMBER = st.sampled_from([0, 1, 1.5, -1, 2, 2.5, -3, 128, 129, None, "1", True])

PART = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": TEXT}),
    st.fixed_dictionaries(
        {
            "type": st.just("image_url"),
            "image_url": st.fixed_dictionaries(
                {
                    "url": st.sampled_from(
                        ["https://a/b", "data:image/png;base64,AA", "data:,x", 5]
                    )
                }
            ),
        },
        optional={"cache_control": st.sampled_from([{}, {"ttl": "1h"}, 5, None])},
    ),
    st.fixed_dictionaries({"type": st.sampled_from(["refusal", "file", "odd"])}),
)

CALL = st.fixed_dictionaries(
    {"function": st.fixed_dictionaries({"name": TEXT}, optional={"arguments": TEXT})},
    optional={"id": TEXT, "type": st.sampled_from(["function", "custom", None])},
)

MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(
            ["user", "system", "developer", "assistant", "tool", "odd", None]
        ),
        "content": st.one_of(TEXT, st.lists(PART, max_size=2)),
        "name": TEXT,
        "tool_call_id": TEXT,
        "tool_calls": st.one_of(st.none(), st.lists(CALL, max_size=2)),
        "refusal": TEXT,
        "reasoning_content": TEXT,
    },
)

FUNCTION = st.fixed_dictionaries(
    {"name": TEXT},
    optional={
        "description": TEXT,
        "parameters": st.sampled_from([{}, {"type": "object"}, [], None, "x"]),
        "strict": FLAG,
        "cache_control": st.sampled_from([{}, {"ttl": 5}, None]),
    },
)

MEMBERS: dict[str, st.SearchStrategy[Any]] = {
    "stream": FLAG,
    "stream_options": st.sampled_from(
        [None, {}, {"include_usage": True}, {"include_usage": 1}, {"other": 1}]
    ),
    "temperature": NUMBER,
    "top_p": NUMBER,
    "max_tokens": NUMBER,
    "max_completion_tokens": NUMBER,
    "stop": st.one_of(TEXT, st.lists(TEXT, max_size=2)),
    "seed": NUMBER,
    "presence_penalty": NUMBER,
    "frequency_penalty": NUMBER,
    "n": NUMBER,
    "logprobs": FLAG,
    "top_logprobs": NUMBER,
    "tools": st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from(["function", "odd"]), "function": FUNCTION}
        ),
        max_size=2,
    ),
    "tool_choice": st.sampled_from(
        ["auto", "none", "odd", None, {"type": "function", "function": {"name": "f"}}]
    ),
    "parallel_tool_calls": FLAG,
    "response_format": st.sampled_from(
        [
            None,
            {"type": "text"},
            {"type": "odd"},
            {"type": "json_schema"},
            {"type": "json_schema", "json_schema": {"schema": []}},
            {"type": "json_schema", "json_schema": {"schema": {}, "name": 5}},
        ]
    ),
    "reasoning_effort": st.sampled_from(["low", "much", None, 5]),
    "user": TEXT,
    "metadata": TEXT,
    "store": FLAG,
}

REQUEST = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["m", "a/b", "", 5, "x" * 256]),
        "messages": st.lists(MESSAGE, max_size=3),
    },
    optional=MEMBERS,
)


@settings(max_examples=300, deadline=None)
@given(REQUEST)
def test_what_is_told_at_a_glance_is_read_whole_with_the_same_result(
    request: dict[str, Any],
) -> None:
    data = json.dumps(request).encode()
    asked = glance(data)
    if asked is not None:
        assert known(asked) == known(
            parse_chat_request(Call(request_id="r", body=data))
        )


@settings(max_examples=150, deadline=None)
@given(
    st.fixed_dictionaries({}, optional=MEMBERS),
    st.sampled_from([each for each in USUAL if each]),
)
def test_one_odd_member_among_usual_ones_changes_nothing_of_that(
    odd: dict[str, Any], usual: dict[str, Any]
) -> None:
    name = next(iter(odd), None)
    members = usual if name is None else {**usual, name: odd[name]}
    asked = glance(body(**members))
    if asked is not None:
        whole = parse_chat_request(Call(request_id="r", body=body(**members)))
        assert known(asked) == known(whole)
        assert isinstance(asked.batch.source, Source)
