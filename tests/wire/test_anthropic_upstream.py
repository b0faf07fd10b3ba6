"""Writing requests for the Messages API: what is sent, approximated, refused."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_infer.errors import InvalidRequestError, UnsupportedFeatureError
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
from atomr_infer.model.capabilities import ThinkingStyle
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import (
    AudioPart,
    CacheHint,
    FileId,
    FilePart,
    ImagePart,
    Inline,
    Part,
    RawPart,
    ReasoningPart,
    RefusalPart,
    Signature,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Url,
)
from atomr_infer.wire.anthropic.ingress import MESSAGES
from atomr_infer.wire.anthropic.traits import (
    PLAIN_EFFORTS,
    ModelTraits,
    ThinkingOff,
)
from atomr_infer.wire.anthropic.upstream import Encoded, encode_count, encode_request
from atomr_infer.wire.ingress import Call

NEWEST = ModelTraits(max_output_tokens=1000, context_tokens=10_000, system_turns=True)
OLDER = ModelTraits(
    max_output_tokens=8000,
    context_tokens=10_000,
    sampling=frozenset({"temperature", "top_p", "top_k"}),
    both_of=True,
    prefill=True,
    thinking=ThinkingStyle.BUDGET,
    off=ThinkingOff.OMITTED,
    efforts=(),
    json_schema=False,
)
USER = Message(Role.USER, "hi")
SAID = {"role": "user", "content": [{"type": "text", "text": "hi"}]}
SCHEMA = b'{"type":"object","properties":{"a":{"type":"string"}}}'
TOOL = Tool(name="f", description="d", parameters=SCHEMA)
PNG = "iVBORw0KGgoAAAANSUhEUg=="


def batch(*messages: Message, **members: Any) -> ExecuteBatch:
    plain = ExecuteBatch(
        request_id="r", model="m", messages=messages or (USER,), stream=False
    )
    return attrs.evolve(plain, **members)


def encode(*messages: Message, traits: ModelTraits = NEWEST, **members: Any) -> Encoded:
    return encode_request(batch(*messages, **members), traits)


def sent(*messages: Message, traits: ModelTraits = NEWEST, **members: Any) -> Any:
    return json.loads(encode(*messages, traits=traits, **members).body)


def turns(*messages: Message, **members: Any) -> list[tuple[str, list[Any]]]:
    body = sent(*messages, **members)
    return [(turn["role"], turn["content"]) for turn in body["messages"]]


def block(part: Part, **members: Any) -> Any:
    ((_, (written,)),) = turns(Message(Role.USER, (part,)), **members)
    return written


def said(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def test_a_plain_request() -> None:
    assert encode() == Encoded(
        body=b'{"model":"m","max_tokens":1000,"messages":[{"role":"user",'
        b'"content":[{"type":"text","text":"hi"}]}],"stream":false}',
        version="2026-10-21",
    )


# --- turns (section 9) ----------------------------------------------------------------


def test_system_and_developer_become_system_blocks_in_order() -> None:
    cached = TextPart("b", cache=CacheHint(ttl="1h"))
    body = sent(Message(Role.SYSTEM, "a"), Message(Role.DEVELOPER, (cached,)), USER)
    assert body["system"] == [
        said("a"),
        {**said("b"), "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ]
    assert body["messages"] == [SAID]


def test_system_message_in_the_middle_stays_where_the_model_takes_it() -> None:
    middle = Message(Role.SYSTEM, "be")
    answer = Message(Role.ASSISTANT, "a")
    assert [role for role, _ in turns(USER, middle, answer, USER)] == [
        "user",
        "system",
        "assistant",
        "user",
    ]


@pytest.mark.parametrize("traits", [NEWEST, OLDER])
def test_system_message_without_a_place_is_folded_into_the_next_users_turn(
    traits: ModelTraits,
) -> None:
    conversation = (
        USER,
        Message(Role.ASSISTANT, "a"),
        Message(Role.SYSTEM, "be"),
        USER,
    )
    encoded = encode(*conversation, traits=traits)
    assert json.loads(encoded.body)["messages"][2]["content"] == [
        said("hi"),
        said("<system>\nbe\n</system>"),
    ]
    assert encoded.warnings == (
        "a system message was folded into the next user's turn",
    )


def test_system_message_at_the_end_is_never_dropped() -> None:
    assert turns(USER, Message(Role.SYSTEM, "be"), traits=OLDER) == [
        ("user", [said("hi"), said("<system>\nbe\n</system>")])
    ]


def test_adjacent_turns_are_merged_and_empty_text_is_left_out() -> None:
    assert turns(
        Message(Role.USER, ""),
        USER,
        Message(Role.USER, "you"),
        Message(Role.ASSISTANT, " \n"),
        Message(Role.USER, "there"),
    ) == [("user", [said("hi"), said("you"), said("there")])]


@pytest.mark.parametrize(
    "conversation",
    [(Message(Role.ASSISTANT, "a"), USER), (Message(Role.SYSTEM, "be"),)],
)
def test_first_turn_is_the_users(conversation: tuple[Message, ...]) -> None:
    encoded = encode(*conversation)
    assert json.loads(encoded.body)["messages"][0] == {
        "role": "user",
        "content": [said(".")],
    }
    assert encoded.warnings == (
        "a user's turn was put in front, as the provider wants one",
    )


def test_prefill_is_sent_where_the_model_goes_on_with_it() -> None:
    prefilled = turns(USER, Message(Role.ASSISTANT, "Once \n"), traits=OLDER)
    assert prefilled[-1] == ("assistant", [said("Once")])


@pytest.mark.parametrize("behind", [(), (Message(Role.ASSISTANT, ()),)])
def test_prefill_is_refused_where_the_model_does_not(
    behind: tuple[Message, ...],
) -> None:
    with pytest.raises(UnsupportedFeatureError) as caught:
        encode(USER, Message(Role.ASSISTANT, "Once"), *behind)
    assert caught.value.param == "messages[1]"
    assert "does not continue an assistant's text" in caught.value.message


def test_turn_that_the_provider_paused_is_no_prefill() -> None:
    paused = RawPart("server_tool_use", b'{"type":"server_tool_use"}')
    conversation = (USER, Message(Role.ASSISTANT, (TextPart("a"), paused)))
    last = turns(*conversation, dialect=Dialect.ANTHROPIC)[-1]
    assert last == ("assistant", [said("a"), {"type": "server_tool_use"}])


# --- tools (section 3) ----------------------------------------------------------------


def call(identity: str = "t1", arguments: str = '{"a": 1}') -> Message:
    return Message(
        Role.ASSISTANT, (ToolCallPart(id=identity, name="f", arguments=arguments),)
    )


def result(identity: str = "t1", text: str = "r") -> Message:
    part = ToolResultPart(call_id=identity, content=(TextPart(text),))
    return Message(Role.TOOL, (part,))


def test_t5_results_merge_into_one_users_turn_before_any_text() -> None:
    answered = turns(USER, call(), Message(Role.USER, "so"), result("t1"), result("t2"))
    assert [each["type"] for each in answered[-1][1]] == [
        "tool_result",
        "tool_result",
        "text",
    ]
    assert answered[-1][1][0] == {
        "type": "tool_result",
        "tool_use_id": "t1",
        "content": [said("r")],
    }


def test_t5_a_result_that_stands_there_twice_is_sent_once_and_told() -> None:
    encoded = encode(USER, call(), result(), result())
    sent = json.loads(encoded.body)["messages"][-1]["content"]
    assert [each["tool_use_id"] for each in sent] == ["t1"]
    assert encoded.warnings == ("a tool's result that was sent twice was sent on once",)


def test_t5_two_results_of_a_call_that_differ_are_not_chosen_from() -> None:
    answered = turns(USER, call(), result(text="a"), result(text="b"))
    assert [each["content"] for each in answered[-1][1]] == [[said("a")], [said("b")]]


@pytest.mark.parametrize("arguments", ["[1]", "{", "x", '"a"', "\ud800"])
def test_t5_arguments_that_are_no_object_are_refused_naming_the_message(
    arguments: str,
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        encode(USER, call(arguments=arguments), result())
    assert caught.value.param == "messages[1].content[0]"


def test_t5_arguments_are_sent_as_they_were_written() -> None:
    encoded = encode(USER, call(arguments='{"b": 1.50, "a": {}}'), result())
    assert b'"input":{"b": 1.50, "a": {}}' in encoded.body
    assert b'"input":{}' in encode(USER, call(arguments=""), result()).body


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        (None, None, None),
        (ToolChoice(), None, {"type": "auto"}),
        (ToolChoice(mode=ToolMode.REQUIRED), None, {"type": "any"}),
        (ToolChoice(mode=ToolMode.NONE), False, {"type": "none"}),
        (
            ToolChoice(mode=ToolMode.REQUIRED, names=("f",)),
            None,
            {"type": "tool", "name": "f"},
        ),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            ToolChoice(mode=ToolMode.REQUIRED),
            False,
            {"type": "any", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_t5_tool_choice(
    choice: ToolChoice | None, parallel: bool | None, expected: Any
) -> None:
    body = sent(tools=(TOOL,), tool_choice=choice, parallel_tool_calls=parallel)
    assert body.get("tool_choice") == expected


def test_tool_choice_without_tools_is_left_out() -> None:
    body = sent(tool_choice=ToolChoice(), parallel_tool_calls=False)
    assert "tool_choice" not in body
    assert "tools" not in body


def test_several_allowed_tools_are_the_only_ones_offered() -> None:
    others = (TOOL, Tool(name="g"), Tool(name="h"))
    choice = ToolChoice(mode=ToolMode.REQUIRED, names=("g", "h"))
    body = sent(tools=others, tool_choice=choice)
    assert [tool["name"] for tool in body["tools"]] == ["g", "h"]
    assert body["tool_choice"] == {"type": "any"}


def test_tools_are_written_with_a_schema_of_an_object() -> None:
    bare = Tool(name="g")
    untyped = Tool(name="h", parameters=b'{"properties":{}}', strict=True)
    cached = attrs.evolve(TOOL, cache=CacheHint())
    body = sent(tools=(cached, bare, untyped))
    assert body["tools"] == [
        {
            "name": "f",
            "description": "d",
            "input_schema": json.loads(SCHEMA),
            "cache_control": {"type": "ephemeral"},
        },
        {"name": "g", "input_schema": {"type": "object", "properties": {}}},
        {
            "name": "h",
            "input_schema": {"type": "object", "properties": {}},
            "strict": True,
        },
    ]
    assert "strict" not in sent(tools=(untyped,), traits=OLDER)["tools"][0]
    # Prompt caches are keyed by the bytes.
    spaced = b'{"type" : "object"}'
    assert spaced in encode(tools=(Tool(name="f", parameters=spaced),)).body


def test_tool_of_the_provider_is_sent_raw_and_another_providers_is_refused() -> None:
    web = RawTool("web_search", b'{"type":"web_search"}')
    body = sent(tools=(web,), dialect=Dialect.ANTHROPIC)
    assert body["tools"] == [{"type": "web_search"}]
    with pytest.raises(UnsupportedFeatureError, match="web_search"):
        encode(tools=(web,))


def test_t8_ids_that_the_api_takes_stay_and_others_are_mapped_one_to_one() -> None:
    ids = ("call_a-1", "functions.f:0", "functions_2ef_3a0", "")
    conversation = [USER]
    for identity in ids:
        conversation += [call(identity), result(identity)]
    body = sent(*conversation)
    used = [turn["content"][0]["id"] for turn in body["messages"][1::2]]
    answered = [turn["content"][0]["tool_use_id"] for turn in body["messages"][2::2]]
    assert used == answered
    assert used[0] == "call_a-1"
    assert used[1:3] == ["functions_2ef_3a0", "functions_2ef_3a0_2"]
    assert len(set(used)) == 4


# --- media ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (Url("https://x/y"), {"type": "url", "url": "https://x/y"}),
        (
            Inline("image/jpeg", PNG),
            {"type": "base64", "media_type": "image/png", "data": PNG},
        ),
        (
            Inline("image/heic", "AAAA"),
            {"type": "base64", "media_type": "image/heic", "data": "AAAA"},
        ),
    ],
)
def test_pictures_are_sent_as_what_their_bytes_are(source: Any, expected: Any) -> None:
    assert block(ImagePart(source=source)) == {"type": "image", "source": expected}


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        ("iVBORw0KGgo=", "image/png"),
        ("/9j/4AAQ", "image/jpeg"),
        ("R0lGODlh", "image/gif"),
        ("UklGRgAAAABXRUJQ", "image/webp"),
    ],
)
def test_media_types_are_told_by_the_first_bytes(head: str, media_type: str) -> None:
    written = block(ImagePart(source=Inline("", head)))
    assert written["source"]["media_type"] == media_type


@pytest.mark.parametrize(
    "part",
    [
        ImagePart(source=Inline("", "AAAA")),
        ImagePart(source=Inline("", "!")),
        ImagePart(source=Url("gs://x")),
        ImagePart(source=FileId("file-1")),
        FilePart(source=Inline("text/plain", "/w==")),
        FilePart(source=Inline("text/plain", "!")),
    ],
)
def test_media_that_cannot_be_sent_is_refused(part: Part) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        block(part)
    assert caught.value.param == "messages[0].content[0]"


def test_documents_are_pdf_or_text() -> None:
    pdf = FilePart(source=Inline("", "JVBERi0xLjc="), filename="a.pdf")
    assert block(pdf) == {
        "type": "document",
        "source": {
            "type": "base64",
            "media_type": "application/pdf",
            "data": "JVBERi0xLjc=",
        },
        "title": "a.pdf",
    }
    text = FilePart(source=Inline("text/markdown", "IyBh"))
    assert block(text)["source"] == {
        "type": "text",
        "media_type": "text/plain",
        "data": "# a",
    }
    assert block(FilePart(source=Url("https://x")))["source"]["type"] == "url"
    own = block(FilePart(source=FileId("f")), dialect=Dialect.ANTHROPIC)
    assert own["source"] == {"type": "file", "file_id": "f"}
    with pytest.raises(UnsupportedFeatureError, match="application/zip"):
        block(FilePart(source=Inline("application/zip", "AAAA")))


@pytest.mark.parametrize(
    "part",
    [AudioPart(source=Inline("audio/wav", "AAAA")), RawPart("odd", b"{}")],
)
def test_what_the_model_does_not_take_is_refused(part: Part) -> None:
    with pytest.raises(UnsupportedFeatureError):
        block(part)


def test_detail_of_a_picture_is_left_out() -> None:
    picture = ImagePart(source=Url("https://x"), detail="low")
    encoded = encode(Message(Role.USER, (picture,)))
    assert encoded.warnings == ("the detail of a picture was left out",)


def test_pictures_inside_results_are_sent() -> None:
    part = ToolResultPart(
        call_id="t1", content=(ImagePart(source=Url("https://x")),), is_error=True
    )
    written = turns(USER, call(), Message(Role.TOOL, (part,)))[-1][1]
    assert written == [
        {
            "type": "tool_result",
            "tool_use_id": "t1",
            "content": [
                {"type": "image", "source": {"type": "url", "url": "https://x"}}
            ],
            "is_error": True,
        }
    ]


def test_at_most_four_cache_borders_are_sent_and_they_are_the_last() -> None:
    marked = [TextPart(str(n), cache=CacheHint()) for n in range(6)]
    encoded = encode(Message(Role.USER, tuple(marked)))
    content = json.loads(encoded.body)["messages"][0]["content"]
    assert [each["text"] for each in content if "cache_control" in each] == list("2345")
    assert encoded.warnings == ("only the last 4 cache borders were kept",)


# --- thoughts -------------------------------------------------------------------------


def thoughts(*parts: Part) -> Any:
    conversation = (USER, Message(Role.ASSISTANT, (*parts, TextPart("a"))), USER)
    return turns(*conversation)[1][1][:-1]


def test_signed_thoughts_go_back_in_order() -> None:
    assert thoughts(
        ReasoningPart(text="hm", signature=Signature("s", Dialect.ANTHROPIC)),
        ReasoningPart(data=Signature("d", Dialect.ANTHROPIC)),
    ) == [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "d"},
    ]


def test_foreign_signatures_are_dropped_with_their_thoughts() -> None:
    assert (
        thoughts(
            ReasoningPart(text="hm", signature=Signature("s", Dialect.GEMINI)),
            ReasoningPart(data=Signature("d", Dialect.OPENAI_RESPONSES)),
            ReasoningPart(text="unsigned"),
        )
        == []
    )


def test_refusal_of_an_earlier_turn_is_text() -> None:
    conversation = (USER, Message(Role.ASSISTANT, (RefusalPart("no"),)), USER)
    assert turns(*conversation)[1] == ("assistant", [said("no")])


# --- sampling -------------------------------------------------------------------------


def sampling(**members: Any) -> Sampling:
    return Sampling(**members)


def test_sampling_goes_under_the_old_version_and_only_where_the_model_takes_it() -> (
    None
):
    wanted = sampling(temperature=0.5, top_k=3)
    older = encode(sampling=wanted, traits=OLDER)
    body = json.loads(older.body)
    assert (older.version, body["temperature"], body["top_k"]) == ("2023-06-01", 0.5, 3)
    newer = encode(sampling=wanted)
    assert newer.version == "2026-10-21"
    assert b"temperature" not in newer.body


def test_temperature_is_clamped_to_one() -> None:
    encoded = encode(sampling=sampling(temperature=1.7), traits=OLDER)
    assert json.loads(encoded.body)["temperature"] == 1
    assert encoded.warnings == ("temperature was lowered to 1",)


def test_top_p_gives_way_where_the_model_takes_one_of_both() -> None:
    one = attrs.evolve(OLDER, both_of=False)
    wanted = sampling(temperature=0.5, top_p=0.9)
    encoded = encode(sampling=wanted, traits=one)
    assert "top_p" not in json.loads(encoded.body)
    assert encoded.warnings == ("top_p left out: this model takes it or temperature",)
    assert json.loads(encode(sampling=wanted, traits=OLDER).body)["top_p"] == 0.9


def test_top_k_of_all_is_not_said() -> None:
    assert "top_k" not in sent(sampling=sampling(top_k=-1), traits=OLDER)


def test_max_tokens_is_the_models_most_when_it_is_absent_or_above() -> None:
    assert sent()["max_tokens"] == 1000
    assert sent(sampling=sampling(max_tokens=5))["max_tokens"] == 5
    encoded = encode(sampling=sampling(max_tokens=5000))
    assert json.loads(encoded.body)["max_tokens"] == 1000
    assert encoded.warnings == ("max_tokens was lowered to 1000",)


def test_stop_sequences_of_white_space_are_left_out() -> None:
    encoded = encode(sampling=sampling(stop=("END", " \n")))
    assert json.loads(encoded.body)["stop_sequences"] == ["END"]
    assert encoded.warnings == ("a stop sequence of white space was left out",)


def test_user_goes_into_the_metadata() -> None:
    assert sent(user="u")["metadata"] == {"user_id": "u"}


def test_unknown_members_go_along_only_in_the_same_dialect() -> None:
    extra = {"service_tier": b'"auto"', "model": b'"other"'}
    body = sent(extra=extra, dialect=Dialect.ANTHROPIC)
    assert (body["service_tier"], body["model"]) == ("auto", "m")
    assert "service_tier" not in sent(extra=extra)


# --- thinking -------------------------------------------------------------------------

E_MAX = Reasoning(effort=Effort.MAX)
SHOWN = {"type": "adaptive", "display": "summarized"}


@pytest.mark.parametrize(
    ("asked", "thinking", "effort"),
    [
        (Reasoning(effort=Effort.MINIMAL), SHOWN, "low"),
        (Reasoning(effort=Effort.XHIGH), SHOWN, "xhigh"),
        (Reasoning(budget_tokens=5000), SHOWN, "medium"),
        (Reasoning(budget_tokens=99999), SHOWN, "max"),
        (Reasoning(budget_tokens=-1), SHOWN, None),
        (Reasoning(effort=Effort.NONE), {"type": "disabled"}, None),
        (Reasoning(budget_tokens=0), {"type": "disabled"}, None),
        (Reasoning(adaptive=True, include=True), SHOWN, None),
        (
            Reasoning(adaptive=True, include=False),
            {"type": "adaptive", "display": "omitted"},
            None,
        ),
    ],
)
def test_newer_models_think_adaptively_by_effort(
    asked: Reasoning, thinking: Any, effort: str | None
) -> None:
    body = sent(reasoning=asked)
    assert body["thinking"] == thinking
    assert body.get("output_config", {}).get("effort") == effort


def test_client_of_this_api_that_says_nothing_of_display_has_the_models_own() -> None:
    asked = Reasoning(adaptive=True)
    body = sent(reasoning=asked, dialect=Dialect.ANTHROPIC)
    assert body["thinking"] == {"type": "adaptive"}


def test_effort_is_the_highest_that_the_model_takes() -> None:
    some = attrs.evolve(NEWEST, efforts=PLAIN_EFFORTS)
    assert sent(reasoning=E_MAX, traits=some)["output_config"] == {"effort": "high"}


def test_effort_of_a_client_of_this_api_leaves_thinking_as_it_is() -> None:
    body = sent(reasoning=E_MAX, dialect=Dialect.ANTHROPIC)
    assert body["output_config"] == {"effort": "max"}
    assert "thinking" not in body


@pytest.mark.parametrize(
    ("asked", "max_tokens", "budget"),
    [
        (Reasoning(effort=Effort.LOW), 8000, 2048),
        (Reasoning(effort=Effort.HIGH), 8000, 4000),
        (Reasoning(effort=Effort.HIGH), 1500, 1024),
        (Reasoning(adaptive=True), 8000, 4000),
        (Reasoning(budget_tokens=3000), 8000, 3000),
        (Reasoning(budget_tokens=9000), 8000, 7999),
        (Reasoning(budget_tokens=10), 8000, 1024),
    ],
)
def test_older_models_think_with_a_budget_below_max_tokens(
    asked: Reasoning, max_tokens: int, budget: int
) -> None:
    limit = sampling(max_tokens=max_tokens)
    body = sent(reasoning=asked, sampling=limit, traits=OLDER)
    assert body["thinking"] == {"type": "enabled", "budget_tokens": budget}
    assert "output_config" not in body


def test_older_models_do_not_think_where_there_is_no_room() -> None:
    limit = sampling(max_tokens=1024)
    encoded = encode(reasoning=E_MAX, sampling=limit, traits=OLDER)
    assert b"thinking" not in encoded.body
    assert encoded.warnings == (
        "reasoning was left out: it takes more than 1024 tokens",
    )


def test_thinking_is_switched_off_as_the_model_wants_it() -> None:
    off = Reasoning(effort=Effort.NONE)
    assert "thinking" not in sent(reasoning=off, traits=OLDER)
    always = attrs.evolve(NEWEST, off=ThinkingOff.NEVER)
    encoded = encode(reasoning=off, traits=always)
    body = json.loads(encoded.body)
    assert body["output_config"] == {"effort": "low"}
    assert "thinking" not in body
    assert encoded.warnings == (
        "this model always reasons; it was told the least effort",
    )


def test_sampling_gives_way_to_thinking() -> None:
    limit = sampling(max_tokens=8000, temperature=0.2)
    encoded = encode(reasoning=E_MAX, sampling=limit, traits=OLDER)
    assert b"temperature" not in encoded.body
    assert encoded.warnings == ("temperature left out, as the model reasons",)


def test_thinking_gives_way_to_a_tool_that_must_be_called() -> None:
    must = ToolChoice(mode=ToolMode.REQUIRED)
    encoded = encode(reasoning=E_MAX, tools=(TOOL,), tool_choice=must)
    body = json.loads(encoded.body)
    assert "thinking" not in body
    assert body["output_config"] == {"effort": "max"}
    assert encoded.warnings == ("reasoning was left out, as a tool must be called",)


def test_model_that_cannot_think_is_not_asked_to() -> None:
    never = attrs.evolve(OLDER, thinking=ThinkingStyle.NONE)
    assert "thinking" not in sent(reasoning=E_MAX, traits=never)


# --- a format -------------------------------------------------------------------------

FORM = ResponseFormat(kind=FormatKind.JSON_SCHEMA, schema=SCHEMA)


def test_schema_goes_natively_and_is_closed() -> None:
    encoded = encode(response_format=FORM)
    form = json.loads(encoded.body)["output_config"]["format"]
    assert form == {
        "type": "json_schema",
        "schema": {**json.loads(SCHEMA), "additionalProperties": False},
    }
    assert encoded.json_tool is None


def test_schema_of_a_client_of_this_api_is_sent_as_it_came() -> None:
    encoded = encode(response_format=FORM, dialect=Dialect.ANTHROPIC)
    assert SCHEMA in encoded.body


def test_bounds_that_the_api_does_not_know_are_put_into_words() -> None:
    schema = (
        b'{"type":"object","properties":{"n":{"type":"integer","minimum":1,'
        b'"description":"count"}},"$defs":{"x":{"type":"array","minItems":2,'
        b'"items":{"anyOf":[{"type":"string","maxLength":3},true]}}},'
        b'"additionalProperties":false}'
    )
    form = ResponseFormat(kind=FormatKind.JSON_SCHEMA, schema=schema)
    written = sent(response_format=form)["output_config"]["format"]["schema"]
    assert written["properties"]["n"] == {
        "type": "integer",
        "description": "count (minimum: 1)",
    }
    assert written["$defs"]["x"] == {
        "type": "array",
        "items": {"anyOf": [{"type": "string", "description": "maxLength: 3"}, True]},
        "description": "minItems: 2",
    }


def test_schema_that_is_nested_too_deeply_is_refused() -> None:
    deep = b'{"items":' * 700 + b"{}" + b"}" * 700
    form = ResponseFormat(kind=FormatKind.JSON_SCHEMA, schema=deep)
    with pytest.raises(InvalidRequestError, match="nested too deeply"):
        encode(response_format=form)


def test_older_models_get_the_schema_as_a_tool_that_they_must_call() -> None:
    encoded = encode(response_format=FORM, traits=OLDER)
    body = json.loads(encoded.body)
    assert encoded.json_tool == "json_answer"
    assert body["tool_choice"] == {"type": "tool", "name": "json_answer"}
    (tool,) = body["tools"]
    assert tool["input_schema"] == json.loads(SCHEMA)


@pytest.mark.parametrize(
    "members",
    [
        {"response_format": ResponseFormat(kind=FormatKind.JSON_OBJECT)},
        {"response_format": FORM, "tools": (TOOL,)},
    ],
)
def test_what_has_no_member_is_asked_for_in_words(members: dict[str, Any]) -> None:
    encoded = encode(Message(Role.SYSTEM, "be"), USER, traits=OLDER, **members)
    system = json.loads(encoded.body)["system"]
    assert system[0] == said("be")
    assert system[1]["text"].startswith("Answer with one JSON object")
    assert encoded.warnings == ("the response format was asked for in words",)


# --- counting -------------------------------------------------------------------------


def test_count_has_only_what_is_counted() -> None:
    encoded = encode_count(
        batch(Message(Role.SYSTEM, "be"), USER, tools=(TOOL,), user="u"), OLDER
    )
    assert json.loads(encoded.body).keys() == {"model", "messages", "system", "tools"}


# --- there and back -------------------------------------------------------------------

_text = st.text(min_size=1, max_size=8).filter(str.strip).map(TextPart)
_arguments = st.dictionaries(st.text(max_size=3), st.integers(), max_size=2)
_call = st.builds(
    lambda n, a: ToolCallPart(id=f"t{n}", name="f", arguments=json.dumps(a)),
    st.integers(0, 99),
    _arguments,
)


@st.composite
def _conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    messages = []
    for _ in range(draw(st.integers(1, 3))):
        messages.append(
            Message(Role.USER, tuple(draw(st.lists(_text, min_size=1, max_size=2))))
        )
        calls = draw(st.lists(_call, max_size=2, unique_by=lambda part: part.id))
        texts = draw(st.lists(_text, min_size=1, max_size=2))
        messages.append(Message(Role.ASSISTANT, (*texts, *calls)))
        if calls:
            results = tuple(
                ToolResultPart(call_id=part.id, content=(draw(_text),))
                for part in calls
            )
            messages.append(Message(Role.TOOL, results))
    return (*messages, Message(Role.USER, "last"))


@given(_conversations())
def test_conversation_survives_the_way_there_and_back(
    conversation: tuple[Message, ...],
) -> None:
    body = encode(*conversation).body
    asked = MESSAGES.parse(Call(request_id="r", body=body))
    parts = [part for message in asked.batch.messages for part in message.content]
    assert parts == [part for message in conversation for part in message.content]
