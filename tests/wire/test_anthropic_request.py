"""Reading Messages requests: what is kept, what is refused, and how it says so."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_infer.errors import InvalidRequestError
from atomr_infer.model.asks import (
    Effort,
    FormatKind,
    RawTool,
    Reasoning,
    ResponseFormat,
    Tool,
    ToolChoice,
    ToolMode,
)
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import (
    CacheHint,
    FileId,
    FilePart,
    ImagePart,
    Inline,
    Part,
    RawPart,
    ReasoningPart,
    Signature,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Url,
)
from atomr_infer.model.source import Source
from atomr_infer.wire.anthropic.ingress import MESSAGES
from atomr_infer.wire.ingress import Asked, Call

USER = {"role": "user", "content": "hi"}
OLD = {"anthropic-version": "2023-06-01"}
NEW = {"anthropic-version": "2026-10-21"}
EPHEMERAL = {"type": "ephemeral"}


def call(body: Any, **members: Any) -> Call:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Call(request_id="r-1", body=data, **members)


def ask(headers: dict[str, str] | None = None, **members: Any) -> Asked:
    body = {"model": "m", "max_tokens": 7, "messages": [USER], **members}
    return MESSAGES.parse(call(body, headers=headers or {}))


def parse(headers: dict[str, str] | None = None, **members: Any) -> ExecuteBatch:
    return ask(headers, **members).batch


def turn(role: str, *blocks: dict[str, Any], **members: Any) -> tuple[Part, ...]:
    batch = parse(messages=[USER, {"role": role, "content": list(blocks)}], **members)
    return batch.messages[-1].content


def refusal(headers: dict[str, str] | None = None, **members: Any) -> tuple[str, str]:
    with pytest.raises(InvalidRequestError) as caught:
        ask(headers, **members)
    return caught.value.param or "", caught.value.message


def test_a_plain_request_is_read_whole() -> None:
    body = b'{"model":"m","max_tokens":7,"messages":[{"role":"user","content":"hi"}]}'
    assert MESSAGES.parse(call(body)) == Asked(
        batch=ExecuteBatch(
            request_id="r-1",
            model="m",
            messages=(Message(Role.USER, "hi"),),
            sampling=Sampling(max_tokens=7),
            stream=False,
            dialect=Dialect.ANTHROPIC,
            source=Source(Dialect.ANTHROPIC, body, "m"),
        )
    )


def test_every_member_that_has_a_canonical_form_gets_it() -> None:
    batch = parse(
        stream=True,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        stop_sequences=["END"],
        metadata={"user_id": "u-1"},
    )
    assert batch.stream
    assert batch.sampling == Sampling(
        temperature=0.5, top_p=0.9, top_k=40, max_tokens=7, stop=("END",)
    )
    assert batch.user == "u-1"


def test_unknown_members_stay_as_they_came() -> None:
    batch = parse(service_tier="auto", container={"id": "c"}, mcp_servers=[])
    assert batch.extra == {
        "service_tier": b'"auto"',
        "container": b'{"id": "c"}',
        "mcp_servers": b"[]",
    }


def test_version_and_betas_go_along_and_no_other_header_does() -> None:
    headers = {**NEW, "anthropic-beta": "a,b", "x-api-key": "k", "cookie": "c"}
    assert parse(headers).client_headers == {**NEW, "anthropic-beta": "a,b"}


# --- system and roles ---------------------------------------------------------


def test_system_may_be_a_text_or_blocks_with_cache_borders() -> None:
    assert parse(system="be").messages[0] == Message(Role.SYSTEM, "be")
    blocks = [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b", "cache_control": {**EPHEMERAL, "ttl": "1h"}},
    ]
    assert parse(system=blocks).messages[0] == Message(
        Role.SYSTEM, (TextPart("a"), TextPart("b", cache=CacheHint(ttl="1h")))
    )


def test_system_message_inside_the_conversation_keeps_its_place() -> None:
    messages = [USER, {"role": "system", "content": "be"}, USER]
    roles = [message.role for message in parse(messages=messages).messages]
    assert roles == [Role.USER, Role.SYSTEM, Role.USER]


def test_results_of_tools_become_messages_of_their_own() -> None:
    results = [
        {"type": "tool_result", "tool_use_id": "t1", "content": "one"},
        {"type": "tool_result", "tool_use_id": "t2", "is_error": True},
        {"type": "text", "text": "go on"},
    ]
    batch = parse(messages=[{"role": "user", "content": results}])
    assert batch.messages == (
        Message(
            Role.TOOL,
            (
                ToolResultPart(call_id="t1", content=(TextPart("one"),)),
                ToolResultPart(call_id="t2", is_error=True),
            ),
        ),
        Message(Role.USER, "go on"),
    )


# --- blocks ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            {"type": "base64", "media_type": "image/png", "data": "AAAA"},
            Inline("image/png", "AAAA"),
        ),
        ({"type": "url", "url": "https://x/y.png"}, Url("https://x/y.png")),
        ({"type": "file", "file_id": "file_1"}, FileId("file_1")),
    ],
)
def test_pictures_come_from_three_places(source: Any, expected: Any) -> None:
    block = {"type": "image", "source": source, "cache_control": EPHEMERAL}
    assert turn("user", block) == (ImagePart(source=expected, cache=CacheHint()),)


def test_documents_are_files_with_a_title() -> None:
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
    text = {"type": "text", "media_type": "text/plain", "data": "grüß"}
    assert turn(
        "user",
        {"type": "document", "source": pdf, "title": "t.pdf"},
        {"type": "document", "source": text},
    ) == (
        FilePart(source=Inline("application/pdf", "JVBERi0="), filename="t.pdf"),
        FilePart(
            source=Inline("text/plain", base64.b64encode("grüß".encode()).decode())
        ),
    )


@pytest.mark.parametrize("content", [[], ""])
def test_turn_without_content_is_kept(content: Any) -> None:
    batch = parse(messages=[{"role": "user", "content": content}])
    assert batch.messages[0].role is Role.USER
    assert batch.messages[0].text == ""


def test_picture_whose_source_is_of_blocks_stays_raw() -> None:
    image = {"type": "image", "source": {"type": "content"}}
    (part,) = turn("user", image)
    assert part == RawPart("image", json.dumps(image).encode())


def test_signature_that_only_looks_like_ours_is_the_providers() -> None:
    block = {"type": "thinking", "thinking": "hm", "signature": "atomr:x:y"}
    (part,) = turn("assistant", block)
    signature = Signature("atomr:x:y", Dialect.ANTHROPIC)
    assert part == ReasoningPart(text="hm", signature=signature)


def test_result_whose_words_are_no_utf8_is_made_readable() -> None:
    body = (
        b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":'
        b'[{"type":"tool_result","tool_use_id":"t","content":'
        b'[{"type":"odd","title":"a\xff"}]}]}]}'
    )
    (part,) = MESSAGES.parse(call(body)).batch.messages[0].content
    assert isinstance(part, ToolResultPart)
    assert part.text == '{"type":"odd","title":"a\ufffd"}'


def test_input_that_is_no_utf8_is_refused() -> None:
    body = (
        b'{"model":"m","max_tokens":1,"messages":[{"role":"assistant","content":'
        b'[{"type":"tool_use","id":"t","name":"f","input":{"a":"\xff"}}]}]}'
    )
    with pytest.raises(InvalidRequestError) as caught:
        MESSAGES.parse(call(body))
    assert caught.value.param == "messages[0].content[0].input"


def test_document_made_of_blocks_stays_raw() -> None:
    document = {"type": "document", "source": {"type": "content", "content": "x"}}
    (part,) = turn("user", document)
    assert part == RawPart("document", json.dumps(document).encode())


def test_thoughts_keep_their_signatures() -> None:
    assert turn(
        "assistant",
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "ZGF0YQ=="},
        {"type": "thinking", "thinking": "unsigned", "signature": ""},
        {"type": "text", "text": "a"},
    ) == (
        ReasoningPart(text="hm", signature=Signature("c2ln", Dialect.ANTHROPIC)),
        ReasoningPart(data=Signature("ZGF0YQ==", Dialect.ANTHROPIC)),
        ReasoningPart(text="unsigned"),
        TextPart("a"),
    )


def test_signature_of_another_provider_comes_back_as_that_providers() -> None:
    block = {"type": "thinking", "thinking": "hm", "signature": "atomr:gemini:a:b"}
    (part,) = turn("assistant", block)
    assert part == ReasoningPart(text="hm", signature=Signature("a:b", Dialect.GEMINI))


def test_t8_tool_ids_and_arguments_stay_as_they_came() -> None:
    block = {"type": "tool_use", "id": "functions.f:0", "name": "f", "input": {"a": 1}}
    assert turn("assistant", block) == (
        ToolCallPart(id="functions.f:0", name="f", arguments='{"a": 1}'),
    )


def test_blocks_of_an_unknown_kind_stay_raw() -> None:
    block = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    (part,) = turn("assistant", block)
    assert part == RawPart("server_tool_use", json.dumps(block).encode())


def test_results_hold_text_pictures_documents_and_the_words_of_anything_else() -> None:
    found = {"type": "search_result", "title": "t", "content": []}
    image = {"type": "image", "source": {"type": "url", "url": "https://x"}}
    result = {
        "type": "tool_result",
        "tool_use_id": "t",
        "content": [{"type": "text", "text": "a"}, image, found],
    }
    assert turn("user", result) == (
        ToolResultPart(
            call_id="t",
            content=(
                TextPart("a"),
                ImagePart(source=Url("https://x")),
                TextPart(json.dumps(found)),
            ),
        ),
    )


def test_members_without_a_canonical_form_are_named() -> None:
    text = {"type": "text", "text": "a", "citations": [{"type": "x"}], "odd": 1}
    call_block = {
        "type": "tool_use",
        "id": "t",
        "name": "f",
        "input": {},
        "caller": {"type": "direct"},
    }
    messages = [USER, {"role": "assistant", "content": [text, call_block]}, USER]
    asked = ask(messages=messages, output_config={"task_budget": 1})
    assert asked.warnings == (
        "messages[1].content[0].citations was dropped",
        "messages[1].content[0].odd was dropped",
        "output_config.task_budget was dropped",
    )


# --- asks -----------------------------------------------------------------------


def test_tools_of_ones_own_and_of_the_provider() -> None:
    schema = {"type": "object"}
    web = {"type": "web_search_20260209", "name": "web_search"}
    tools = [
        {
            "name": "f",
            "description": "d",
            "input_schema": schema,
            "strict": True,
            "cache_control": EPHEMERAL,
        },
        {"type": "custom", "name": "g", "input_schema": schema},
        web,
    ]
    assert parse(tools=tools).tools == (
        Tool(
            name="f",
            description="d",
            parameters=b'{"type": "object"}',
            strict=True,
            cache=CacheHint(),
        ),
        Tool(name="g", parameters=b'{"type": "object"}'),
        RawTool("web_search_20260209", json.dumps(web).encode()),
    )


@pytest.mark.parametrize(
    ("written", "choice", "parallel"),
    [
        ({"type": "auto"}, ToolChoice(), None),
        ({"type": "any"}, ToolChoice(mode=ToolMode.REQUIRED), None),
        ({"type": "none"}, ToolChoice(mode=ToolMode.NONE), None),
        (
            {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
            ToolChoice(mode=ToolMode.REQUIRED, names=("f",)),
            False,
        ),
        ({"type": "auto", "disable_parallel_tool_use": False}, ToolChoice(), True),
    ],
)
def test_tool_choice(written: Any, choice: ToolChoice, parallel: bool | None) -> None:
    batch = parse(tool_choice=written)
    assert (batch.tool_choice, batch.parallel_tool_calls) == (choice, parallel)


@pytest.mark.parametrize(
    ("members", "reasoning"),
    [
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2048}},
            Reasoning(budget_tokens=2048, include=True),
        ),
        (
            {"thinking": {"type": "disabled"}},
            Reasoning(effort=Effort.NONE, budget_tokens=0),
        ),
        (
            {
                "thinking": {"type": "adaptive", "display": "omitted"},
                "output_config": {"effort": "max"},
            },
            Reasoning(effort=Effort.MAX, include=False, adaptive=True),
        ),
        (
            {"thinking": {"type": "adaptive", "display": "summarized"}},
            Reasoning(include=True, adaptive=True),
        ),
        ({"output_config": {"effort": "low"}}, Reasoning(effort=Effort.LOW)),
    ],
)
def test_thinking_and_effort(members: Any, reasoning: Reasoning) -> None:
    assert parse(**members).reasoning == reasoning


def test_output_format_is_a_schema() -> None:
    form = {"type": "json_schema", "schema": {"type": "object"}}
    assert parse(output_config={"format": form}).response_format == ResponseFormat(
        kind=FormatKind.JSON_SCHEMA, schema=b'{"type": "object"}', strict=True
    )


# --- versions ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_new_version_has_no_sampling_members(name: str) -> None:
    assert refusal(NEW, **{name: 1})[0] == name
    assert parse(OLD, **{name: 1}).sampling.given() == {name, "max_tokens"}


def test_new_version_refuses_documents_of_the_assistant() -> None:
    source = {"type": "url", "url": "https://x/y.pdf"}
    document = {"type": "document", "source": source}
    messages = [USER, {"role": "assistant", "content": [document]}]
    assert refusal(NEW, messages=messages)[0] == "messages[1].content[0]"
    assert parse(OLD, messages=messages).messages[1].role is Role.ASSISTANT


def test_new_version_refuses_citations_in_a_users_text() -> None:
    cited = {"type": "text", "text": "a", "citations": [{"type": "char_location"}]}
    messages = [{"role": "user", "content": [cited]}]
    assert refusal(NEW, messages=messages)[0] == "messages[0].content[0].citations"
    assert parse(OLD, messages=messages).messages == (Message(Role.USER, "a"),)
    answered = [USER, {"role": "assistant", "content": [cited]}, USER]
    assert len(parse(NEW, messages=answered).messages) == 3


def test_version_that_is_no_date_is_refused() -> None:
    param, message = refusal({"anthropic-version": "latest"})
    assert param == "anthropic-version"
    assert "'latest'" in message


# --- bad input --------------------------------------------------------------------


def test_counting_needs_no_max_tokens() -> None:
    body = {"model": "m", "messages": [USER]}
    asked = MESSAGES.parse(call(body, action="count_tokens"))
    assert asked.batch.sampling == Sampling()
    with pytest.raises(InvalidRequestError) as caught:
        MESSAGES.parse(call(body))
    assert caught.value.param == "max_tokens"


def test_max_tokens_of_zero_only_fills_the_cache() -> None:
    assert parse(max_tokens=0).sampling.max_tokens == 0


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"model": ""}, "model"),
        ({"model": 1}, "model"),
        ({"model": "x" * 300}, "model"),
        ({"model": "a\nb"}, "model"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "7"}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": [USER] * 100_001}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"system": [{"type": "image"}]}, "system[0].source"),
        ({"system": 1}, "system"),
        ({"system": [{"type": "odd"}]}, "system"),
        ({"temperature": 1.5}, "temperature"),
        ({"stop_sequences": [" "]}, "stop_sequences"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"stream": 1}, "stream"),
        ({"metadata": {"user_id": 1}}, "metadata.user_id"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [{"name": "", "input_schema": {}}]}, "tools[0].name"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"thinking": {"type": "on"}}, "thinking.type"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "adaptive", "display": "x"}}, "thinking.display"),
        ({"output_config": {"effort": "none"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "x"}}}, "output_config.format.type"),
        (
            {"output_config": {"format": {"type": "json_schema"}}},
            "output_config.format.schema",
        ),
    ],
)
def test_bad_member_is_named(members: dict[str, Any], param: str) -> None:
    assert refusal(**members)[0] == param


@pytest.mark.parametrize(
    ("role", "block", "place"),
    [
        ("user", {"type": "tool_use", "id": "t", "name": "f", "input": {}}, ""),
        ("assistant", {"type": "tool_result", "tool_use_id": "t"}, ""),
        ("user", {"type": "thinking", "thinking": "x"}, ""),
        (
            "assistant",
            {"type": "tool_use", "id": "t", "name": "f", "input": 1},
            ".input",
        ),
        ("user", {"type": "image"}, ".source"),
        ("user", {"type": "image", "source": {"type": "x"}}, ".source.type"),
        ("user", {"text": "x"}, ".type"),
    ],
)
def test_bad_block_is_named(role: str, block: dict[str, Any], place: str) -> None:
    messages = [USER, {"role": role, "content": [block]}]
    assert refusal(messages=messages)[0] == f"messages[1].content[0]{place}"


def test_result_inside_a_result_is_refused_however_deep() -> None:
    inner: Any = "x"
    for _ in range(400):
        inner = [{"type": "tool_result", "tool_use_id": "t", "content": inner}]
    param, message = refusal(messages=[{"role": "user", "content": inner}])
    assert param == "messages[0].content[0].content[0].type"
    assert message.endswith("'tool_result' cannot be inside a tool_result")


def test_body_that_is_no_json_object_is_refused() -> None:
    for body in (b"", b"[]", b"{", b'{"a": "\xff"}', b"[" * 5000):
        with pytest.raises(InvalidRequestError):
            MESSAGES.parse(call(body))


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "text",
                    "role",
                    "content",
                    "source",
                    "data",
                    "id",
                    "name",
                    "input",
                ]
            )
            | st.text(max_size=5),
            inner
            | st.sampled_from(
                [
                    "text",
                    "image",
                    "tool_use",
                    "tool_result",
                    "thinking",
                    "user",
                    "base64",
                ]
            ),
            max_size=5,
        )
    ),
    max_leaves=12,
)
_members = st.dictionaries(
    st.sampled_from(
        [
            "model",
            "max_tokens",
            "messages",
            "system",
            "tools",
            "tool_choice",
            "thinking",
            "output_config",
            "stop_sequences",
            "metadata",
            "temperature",
            "stream",
        ]
    ),
    _json,
)


@given(_members)
def test_any_json_is_read_or_refused_and_nothing_else(members: dict[str, Any]) -> None:
    body = {"model": "m", "max_tokens": 1, "messages": [USER], **members}
    with contextlib.suppress(InvalidRequestError):
        MESSAGES.parse(call(body, headers=NEW))


@given(st.lists(_json, min_size=1, max_size=3), st.sampled_from(["user", "assistant"]))
def test_any_blocks_are_read_or_refused_and_nothing_else(
    blocks: list[Any], role: str
) -> None:
    with contextlib.suppress(InvalidRequestError):
        ask(messages=[USER, {"role": role, "content": blocks}])


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_and_nothing_else(body: bytes) -> None:
    with contextlib.suppress(InvalidRequestError):
        MESSAGES.parse(call(body))
