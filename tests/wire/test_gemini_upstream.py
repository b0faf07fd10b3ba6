"""What a Gemini upstream is sent."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec
import pytest

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
    FileId,
    FilePart,
    ImagePart,
    Inline,
    RawPart,
    ReasoningPart,
    RefusalPart,
    Signature,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Url,
)
from atomr_infer.wire.gemini.thinking import Thinking
from atomr_infer.wire.gemini.upstream import Rules, encode_count, encode_request
from atomr_infer.wire.gemini.upstream_contents import UNSIGNED
from atomr_infer.wire.in_words import WARNING, json_in_words

HI = Message(Role.USER, "hi")
OWN = Signature("c2ln", Dialect.GEMINI)
FOREIGN = Signature("c2ln", Dialect.ANTHROPIC)
PNG = "iVBORw0KGgoAAAANSUhEUg=="


def _batch(*messages: Message, **members: Any) -> ExecuteBatch:
    plain = ExecuteBatch(
        request_id="r-1", model="gemini-2.5-flash", messages=messages or (HI,)
    )
    return attrs.evolve(plain, **members)


def _sent(batch: ExecuteBatch, **options: Any) -> Any:
    return msgspec.json.decode(encode_request(batch, **options).body)


def _contents(*messages: Message, **options: Any) -> Any:
    return _sent(_batch(*messages), **options)["contents"]


def _parts(*parts: Any, **options: Any) -> Any:
    [turn] = _contents(Message(Role.USER, parts), **options)
    return turn["parts"]


def _model_parts(*parts: Any, **options: Any) -> Any:
    """Return how an assistant's turn is written, between two of the user's."""
    turn = Message(Role.ASSISTANT, parts)
    sent = _contents(HI, turn, Message(Role.USER, "go"), **options)
    return sent[1]["parts"] if len(sent) == 3 else None


def _call(call_id: str, name: str = "f", **members: Any) -> ToolCallPart:
    return ToolCallPart(id=call_id, name=name, arguments="{}", **members)


def _result(call_id: str, text: str = "ok", **members: Any) -> ToolResultPart:
    return ToolResultPart(call_id=call_id, content=(TextPart(text),), **members)


# --- section 9: system ------------------------------------------------------


def test_plain_request_has_its_contents_alone() -> None:
    assert encode_request(_batch()).body == (
        b'{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}'
    )


def test_system_and_developer_messages_become_the_instruction_in_order() -> None:
    sent = _sent(
        _batch(Message(Role.SYSTEM, "a"), Message(Role.DEVELOPER, "b"), HI),
    )
    assert sent == {
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
        "systemInstruction": {"parts": [{"text": "a"}, {"text": "b"}]},
    }


def test_system_message_in_the_middle_is_folded_and_never_dropped() -> None:
    encoded = encode_request(
        _batch(
            HI,
            Message(Role.ASSISTANT, "yes?"),
            Message(Role.SYSTEM, "be brief"),
            Message(Role.USER, "go"),
        )
    )
    assert msgspec.json.decode(encoded.body)["contents"][2] == {
        "role": "user",
        "parts": [{"text": "be brief"}, {"text": "go"}],
    }
    assert encoded.warnings == ("messages[2] became part of the user's turn",)


def test_instruction_alone_is_asked_as_a_turn() -> None:
    assert _sent(_batch(Message(Role.SYSTEM, "a"))) == {
        "contents": [{"role": "user", "parts": [{"text": "a"}]}]
    }


# --- section 9: alternation -------------------------------------------------


def test_neighbours_of_one_role_become_one_turn_without_empty_texts() -> None:
    contents = _contents(
        Message(Role.USER, "a"),
        Message(Role.USER, (TextPart(""), TextPart("b"))),
        Message(Role.ASSISTANT, "c"),
        Message(Role.ASSISTANT, None),
        Message(Role.USER, ""),
        Message(Role.ASSISTANT, "d"),
        Message(Role.USER, "e"),
    )
    assert contents == [
        {"role": "user", "parts": [{"text": "a"}, {"text": "b"}]},
        {"role": "model", "parts": [{"text": "c"}, {"text": "d"}]},
        {"role": "user", "parts": [{"text": "e"}]},
    ]


def test_first_turn_is_the_users() -> None:
    contents = _contents(Message(Role.ASSISTANT, "hello"), HI)
    assert contents[0] == {"role": "user", "parts": [{"text": "."}]}
    assert [turn["role"] for turn in contents] == ["user", "model", "user"]


def test_trailing_assistant_is_refused_clearly() -> None:
    with pytest.raises(UnsupportedFeatureError) as caught:
        encode_request(_batch(HI, Message(Role.ASSISTANT, "I")))
    assert caught.value.param == "messages"
    assert "cannot continue" in caught.value.message


def test_conversation_without_a_word_is_refused() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        encode_request(_batch(Message(Role.USER, "")))
    assert caught.value.param == "messages"


# --- section 3: tools -------------------------------------------------------


def test_t6_results_are_objects_named_by_their_calls() -> None:
    contents = _contents(
        HI,
        Message(Role.ASSISTANT, (_call("1", "f"), _call("2", "g"), _call("3", "h"))),
        Message(Role.TOOL, (_result("2", "plain"),)),
        Message(Role.TOOL, (_result("1", ' {"a": 1}\n'),)),
        Message(Role.TOOL, (_result("3", "bad", is_error=True),)),
        Message(Role.USER, "go"),
    )
    assert contents[2] == {
        "role": "user",
        "parts": [
            {
                "functionResponse": {
                    "id": "2",
                    "name": "g",
                    "response": {"result": "plain"},
                }
            },
            {"functionResponse": {"id": "1", "name": "f", "response": {"a": 1}}},
            {
                "functionResponse": {
                    "id": "3",
                    "name": "h",
                    "response": {"error": "bad"},
                }
            },
            {"text": "go"},
        ],
    }


@pytest.mark.parametrize(
    ("text", "is_error", "response"),
    [
        ("", False, {"result": ""}),
        ("[1]", False, {"result": "[1]"}),
        ("{broken", False, {"result": "{broken"}),
        ("3", False, {"result": "3"}),
        ('{"error":"e"}', True, {"error": "e"}),
        ('{"a":1}', True, {"error": '{"a":1}'}),
    ],
)
def test_t6_what_is_no_object_is_wrapped(
    text: str, is_error: bool, response: Any
) -> None:
    contents = _contents(
        HI,
        Message(Role.ASSISTANT, (_call("1"),)),
        Message(Role.TOOL, (_result("1", text, is_error=is_error),)),
    )
    assert contents[2]["parts"][0]["functionResponse"]["response"] == response


@pytest.mark.parametrize(("wanted", "sent"), [(9, 5), (5, 5)])
def test_limit_beyond_the_model_is_lowered_and_says_so(wanted: int, sent: int) -> None:
    batch = attrs.evolve(_batch(HI), sampling=Sampling(max_tokens=wanted))
    encoded = encode_request(batch, rules=Rules(max_output_tokens=5))
    config = msgspec.json.decode(encoded.body)["generationConfig"]
    assert config == {"maxOutputTokens": sent}
    lowered = ("max_tokens was lowered to 5",)
    assert encoded.warnings == (lowered if wanted == 9 else ())


def test_picture_of_a_tool_is_part_of_its_result() -> None:
    picture = ImagePart(source=Inline("", PNG))
    result = ToolResultPart(call_id="1", content=(TextPart("see"), picture))
    messages = (
        HI,
        Message(Role.ASSISTANT, (_call("1"),)),
        Message(Role.TOOL, (result,)),
    )
    shown = {"inlineData": {"mimeType": "image/png", "data": PNG}}
    [part] = _contents(*messages)[2]["parts"]
    assert part["functionResponse"]["parts"] == [shown]


def test_picture_of_a_tool_is_beside_its_result_for_models_before_gemini_3() -> None:
    picture = ImagePart(source=Inline("", PNG))
    result = ToolResultPart(call_id="1", content=(TextPart("see"), picture))
    batch = _batch(
        HI, Message(Role.ASSISTANT, (_call("1"),)), Message(Role.TOOL, (result,))
    )
    encoded = encode_request(batch, rules=Rules(media_in_results=False))
    told, shown = msgspec.json.decode(encoded.body)["contents"][2]["parts"]
    assert told["functionResponse"]["response"] == {"result": "see"}
    assert "parts" not in told["functionResponse"]
    assert shown == {"inlineData": {"mimeType": "image/png", "data": PNG}}


def test_result_that_nobody_asked_for_is_refused_unless_it_is_named() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        encode_request(_batch(Message(Role.TOOL, (_result("9"),))))
    assert caught.value.param == "messages[0].content"
    [turn] = _contents(Message(Role.TOOL, (_result("9", name="f"),)))
    assert turn["parts"][0]["functionResponse"]["name"] == "f"


def test_t8_ids_are_sent_as_they_are() -> None:
    [part] = _model_parts(_call("toolu_01|Ä"))
    assert part["functionCall"] == {"id": "toolu_01|Ä", "name": "f", "args": {}}


@pytest.mark.parametrize("arguments", ["[1]", "{", "nope", '"x"'])
def test_t5_arguments_that_are_no_object_name_the_message(arguments: str) -> None:
    bad = ToolCallPart(id="1", name="f", arguments=arguments)
    with pytest.raises(InvalidRequestError) as caught:
        encode_request(_batch(HI, Message(Role.ASSISTANT, (bad,)), HI))
    assert caught.value.param == "messages[1].content"


def test_arguments_keep_their_order_and_nothing_is_an_object() -> None:
    written = ToolCallPart(id="1", name="f", arguments='{"b": 1.0, "a": 2}')
    empty = ToolCallPart(id="2", name="g", arguments="")
    batch = _batch(HI, Message(Role.ASSISTANT, (written, empty)), HI)
    body = encode_request(batch).body
    assert b'"args":{"b": 1.0, "a": 2}' in body
    assert b'"name":"g","args":{}' in body


def test_t6_schemas_go_as_json_schema_byte_for_byte() -> None:
    schema = b'{"$schema": "x", "type":"object","additionalProperties" :false}'
    tools = (
        Tool(name="f", description="d", parameters=schema, strict=True),
        Tool(name="g"),
    )
    body = encode_request(_batch(tools=tools)).body
    assert b'"parametersJsonSchema":' + schema in body
    assert msgspec.json.decode(body)["tools"] == [
        {
            "functionDeclarations": [
                {
                    "name": "f",
                    "description": "d",
                    "parametersJsonSchema": msgspec.json.decode(schema),
                },
                {"name": "g"},
            ]
        }
    ]


def test_geminis_own_tools_stand_beside_the_functions() -> None:
    own = RawTool("googleSearch", b'{"googleSearch":{}}')
    batch = _batch(tools=(own, Tool(name="f")), dialect=Dialect.GEMINI)
    assert _sent(batch)["tools"] == [
        {"functionDeclarations": [{"name": "f"}]},
        {"googleSearch": {}},
    ]


def test_tool_of_another_provider_is_refused() -> None:
    batch = _batch(tools=(RawTool("web_search", b'{"type":"web_search"}'),))
    with pytest.raises(UnsupportedFeatureError, match="web_search"):
        encode_request(batch)


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        (ToolChoice(), {"mode": "AUTO"}),
        (ToolChoice(names=("f",)), {"mode": "AUTO"}),
        (ToolChoice(mode=ToolMode.REQUIRED), {"mode": "ANY"}),
        (ToolChoice(mode=ToolMode.NONE), {"mode": "NONE"}),
        (
            ToolChoice(mode=ToolMode.REQUIRED, names=("f",)),
            {"mode": "ANY", "allowedFunctionNames": ["f"]},
        ),
    ],
)
def test_t6_choice_of_tools(choice: ToolChoice, config: Any) -> None:
    sent = _sent(_batch(tools=(Tool(name="f"),), tool_choice=choice))
    assert sent["toolConfig"] == {"functionCallingConfig": config}


def test_choice_without_tools_is_left_out() -> None:
    assert "toolConfig" not in _sent(_batch(tool_choice=ToolChoice()))


def test_ban_on_parallel_calls_is_left_out_with_a_warning() -> None:
    batch = _batch(tools=(Tool(name="f"),), parallel_tool_calls=False)
    assert encode_request(batch).warnings == (
        "parallel_tool_calls was left out: Gemini has no such switch",
    )


# --- signatures -------------------------------------------------------------


def test_own_signatures_go_back_on_their_parts_and_foreign_ones_do_not() -> None:
    assert _model_parts(
        ReasoningPart(text="own", signature=OWN),
        ReasoningPart(text="theirs", signature=FOREIGN),
        ReasoningPart(data=FOREIGN),
        ReasoningPart(text="unsigned"),
        TextPart("a", signature=OWN),
        TextPart("b", signature=FOREIGN),
        TextPart("", signature=OWN),
        _call("1", signature=OWN),
        _call("2", signature=FOREIGN),
    ) == [
        {"text": "own", "thought": True, "thoughtSignature": "c2ln"},
        {"text": "a", "thoughtSignature": "c2ln"},
        {"text": "b"},
        {"text": "", "thoughtSignature": "c2ln"},
        {
            "functionCall": {"id": "1", "name": "f", "args": {}},
            "thoughtSignature": "c2ln",
        },
        {"functionCall": {"id": "2", "name": "f", "args": {}}},
    ]


def test_turn_of_foreign_thoughts_alone_vanishes() -> None:
    assert _model_parts(ReasoningPart(text="t", signature=FOREIGN)) is None


def test_model_that_wants_signed_calls_is_told_of_unsigned_ones() -> None:
    rules = Rules(signed_calls=True)
    parts = _model_parts(_call("1"), _call("2"), rules=rules)
    assert [part.get("thoughtSignature") for part in parts] == [UNSIGNED, None]
    [signed] = _model_parts(_call("1", signature=OWN), rules=rules)
    assert signed["thoughtSignature"] == "c2ln"


# --- media ------------------------------------------------------------------


def test_inline_media_say_the_type_that_they_are() -> None:
    assert _parts(
        ImagePart(source=Inline("image/jpeg", PNG)),
        ImagePart(source=Inline("image/x-mine", "AAAA")),
        AudioPart(source=Inline("audio/wav", "AAAA")),
        FilePart(source=Inline("", "JVBERi0xLjQK")),
    ) == [
        {"inlineData": {"mimeType": "image/png", "data": PNG}},
        {"inlineData": {"mimeType": "image/x-mine", "data": "AAAA"}},
        {"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}},
        {"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0xLjQK"}},
    ]


def test_media_of_no_known_type_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="no media type"):
        _parts(FilePart(source=Inline("", "AAAA")))


def test_urls_that_google_fetches_are_passed_on() -> None:
    files = "https://generativelanguage.googleapis.com/v1beta/files/abc"
    assert _parts(
        ImagePart(source=Url("gs://b/x.png", media_type="image/png")),
        FilePart(source=Url(files)),
        FilePart(source=FileId("files/abc")),
    ) == [
        {"fileData": {"fileUri": "gs://b/x.png", "mimeType": "image/png"}},
        {"fileData": {"fileUri": files}},
        {"fileData": {"fileUri": files}},
    ]


def test_other_urls_and_other_providers_files_are_refused() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        _parts(ImagePart(source=Url("https://example.com/x.png")))
    assert (caught.value.code, caught.value.param) == (
        "unfetched_url",
        "messages[0].content",
    )
    with pytest.raises(UnsupportedFeatureError, match="file-abc"):
        _parts(FilePart(source=FileId("file-abc")))


def test_raw_part_reaches_its_own_dialect_only() -> None:
    part = RawPart("executableCode", b'{"executableCode":{"code":"1"}}')
    message = Message(Role.USER, (part,))
    sent = _sent(_batch(message, dialect=Dialect.GEMINI))
    assert sent["contents"][0]["parts"] == [{"executableCode": {"code": "1"}}]
    with pytest.raises(UnsupportedFeatureError, match="executableCode"):
        encode_request(_batch(message))


def test_refusal_of_an_earlier_turn_is_text() -> None:
    assert _model_parts(RefusalPart("no")) == [{"text": "no"}]


# --- generationConfig -------------------------------------------------------


def test_sampling_has_geminis_names() -> None:
    sampling = Sampling(
        temperature=0.0,
        top_p=0.5,
        top_k=3,
        max_tokens=9,
        stop=("a", "b"),
        seed=2**40 + 5,
        presence_penalty=1.0,
        frequency_penalty=-1.0,
        n=2,
        top_logprobs=4,
    )
    assert _sent(_batch(sampling=sampling))["generationConfig"] == {
        "temperature": 0.0,
        "topP": 0.5,
        "topK": 3,
        "maxOutputTokens": 9,
        "stopSequences": ["a", "b"],
        "seed": 5,
        "presencePenalty": 1.0,
        "frequencyPenalty": -1.0,
        "candidateCount": 2,
        "responseLogprobs": True,
        "logprobs": 4,
    }


def test_top_k_that_means_all_of_them_is_not_sent() -> None:
    sent = _sent(_batch(sampling=Sampling(top_k=-1, seed=1)))
    assert sent["generationConfig"] == {"seed": 1}


@pytest.mark.parametrize("seed", [-(2**31), -1, 0, 2**31 - 1])
def test_seed_that_fits_is_sent_as_it_is(seed: int) -> None:
    sent = _sent(_batch(sampling=Sampling(seed=seed)))
    assert sent["generationConfig"]["seed"] == seed


def test_logprobs_of_the_tokens_alone_ask_for_no_others() -> None:
    sent = _sent(_batch(sampling=Sampling(top_logprobs=0)))
    assert sent["generationConfig"] == {"responseLogprobs": True}


def test_more_than_five_stops_are_refused() -> None:
    batch = _batch(sampling=Sampling(stop=tuple("abcdef")))
    with pytest.raises(InvalidRequestError) as caught:
        encode_request(batch)
    assert caught.value.param == "stop"


@pytest.mark.parametrize(
    ("form", "config"),
    [
        (ResponseFormat(), None),
        (
            ResponseFormat(kind=FormatKind.JSON_OBJECT),
            {"responseMimeType": "application/json"},
        ),
        (
            ResponseFormat(
                kind=FormatKind.JSON_SCHEMA, schema=b'{"type":"object"}', name="x"
            ),
            {
                "responseMimeType": "application/json",
                "responseJsonSchema": {"type": "object"},
            },
        ),
    ],
)
def test_json_schema_is_responseJsonSchema(  # noqa: N802
    form: ResponseFormat, config: Any
) -> None:
    assert _sent(_batch(response_format=form)).get("generationConfig") == config


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (ResponseFormat(kind=FormatKind.JSON_OBJECT), json_in_words()),
        (
            ResponseFormat(kind=FormatKind.JSON_SCHEMA, schema=b'{"type":"object"}'),
            json_in_words(b'{"type":"object"}'),
        ),
    ],
)
def test_json_beside_tools_is_asked_for_in_words_where_a_model_takes_one_only(
    form: ResponseFormat, words: str
) -> None:
    system = Message(Role.SYSTEM, "s")
    batch = _batch(system, HI, response_format=form, tools=(Tool(name="f"),))
    encoded = encode_request(batch, rules=Rules(json_beside_tools=False))
    sent = msgspec.json.decode(encoded.body)
    assert sent["systemInstruction"] == {"parts": [{"text": "s"}, {"text": words}]}
    assert "generationConfig" not in sent
    assert encoded.warnings == (WARNING,)


def test_json_without_tools_or_beside_them_is_a_member_where_it_can_be() -> None:
    form = ResponseFormat(kind=FormatKind.JSON_OBJECT)
    alone = _batch(response_format=form)
    beside = _batch(response_format=form, tools=(Tool(name="f"),))
    for batch, takes_both in ((alone, False), (beside, True)):
        encoded = encode_request(batch, rules=Rules(json_beside_tools=takes_both))
        sent = msgspec.json.decode(encoded.body)
        assert sent["generationConfig"] == {"responseMimeType": "application/json"}
        assert "systemInstruction" not in sent
        assert encoded.warnings == ()


LEVELS = Thinking(
    style=ThinkingStyle.EFFORT, levels=(Effort.LOW, Effort.HIGH), can_be_off=False
)
BUDGET = Thinking(style=ThinkingStyle.BUDGET, min_budget=128, max_budget=32_768)
ALWAYS = attrs.evolve(BUDGET, can_be_off=False)


@pytest.mark.parametrize(
    ("thinking", "reasoning", "config"),
    [
        (LEVELS, Reasoning(effort=Effort.NONE), {"thinkingLevel": "LOW"}),
        (LEVELS, Reasoning(effort=Effort.MINIMAL), {"thinkingLevel": "LOW"}),
        (LEVELS, Reasoning(effort=Effort.MEDIUM), {"thinkingLevel": "LOW"}),
        (LEVELS, Reasoning(effort=Effort.HIGH), {"thinkingLevel": "HIGH"}),
        (LEVELS, Reasoning(effort=Effort.MAX), {"thinkingLevel": "HIGH"}),
        (LEVELS, Reasoning(budget_tokens=0), {"thinkingLevel": "LOW"}),
        (LEVELS, Reasoning(budget_tokens=20_000), {"thinkingLevel": "HIGH"}),
        (LEVELS, Reasoning(budget_tokens=-1), None),
        (LEVELS, Reasoning(adaptive=True), None),
        (LEVELS, Reasoning(include=True), {"includeThoughts": True}),
        (BUDGET, Reasoning(effort=Effort.NONE), {"thinkingBudget": 0}),
        (BUDGET, Reasoning(effort=Effort.LOW), {"thinkingBudget": 1024}),
        (BUDGET, Reasoning(effort=Effort.MEDIUM), {"thinkingBudget": 8192}),
        (BUDGET, Reasoning(effort=Effort.XHIGH), {"thinkingBudget": 24_576}),
        (BUDGET, Reasoning(budget_tokens=5), {"thinkingBudget": 128}),
        (BUDGET, Reasoning(budget_tokens=10**6), {"thinkingBudget": 32_768}),
        (BUDGET, Reasoning(budget_tokens=-1), {"thinkingBudget": -1}),
        (BUDGET, Reasoning(adaptive=True), {"thinkingBudget": -1}),
        (
            BUDGET,
            Reasoning(effort=Effort.LOW, budget_tokens=2000, include=False),
            {"thinkingBudget": 2000, "includeThoughts": False},
        ),
        (ALWAYS, Reasoning(effort=Effort.NONE), {"thinkingBudget": 128}),
        (Thinking(), Reasoning(effort=Effort.HIGH, include=True), None),
    ],
)
def test_reasoning_becomes_what_the_model_takes(
    thinking: Thinking, reasoning: Reasoning, config: Any
) -> None:
    batch = _batch(reasoning=reasoning, dialect=Dialect.GEMINI)
    sent = _sent(batch, rules=Rules(thinking=thinking))
    assert sent.get("generationConfig", {}).get("thinkingConfig") == config


@pytest.mark.parametrize(
    ("reasoning", "shown"),
    [
        (Reasoning(effort=Effort.LOW), True),
        (Reasoning(budget_tokens=2000), True),
        (Reasoning(adaptive=True), True),
        (Reasoning(effort=Effort.LOW, include=False), False),
        (Reasoning(effort=Effort.NONE), None),
        (Reasoning(budget_tokens=0), None),
    ],
)
def test_who_asks_for_thinking_elsewhere_sees_the_thoughts(
    reasoning: Reasoning, shown: bool | None
) -> None:
    sent = _sent(_batch(reasoning=reasoning), rules=Rules(thinking=BUDGET))
    config = sent["generationConfig"]["thinkingConfig"]
    assert config.get("includeThoughts") is shown


# --- extra ------------------------------------------------------------------


def test_raw_members_of_its_own_dialect_are_laid_under_what_is_said() -> None:
    batch = _batch(
        dialect=Dialect.GEMINI,
        sampling=Sampling(temperature=1.0),
        tools=(Tool(name="f"),),
        tool_choice=ToolChoice(),
        extra={
            "labels": b'{"a":"b"}',
            "generationConfig": b'{"speechConfig":{"x":1}}',
            "toolConfig": b'{"functionCallingConfig":{"mode":"VALIDATED"}}',
        },
    )
    sent = _sent(batch)
    assert sent["labels"] == {"a": "b"}
    assert sent["generationConfig"] == {"temperature": 1.0, "speechConfig": {"x": 1}}
    assert sent["toolConfig"] == {"functionCallingConfig": {"mode": "VALIDATED"}}


def test_members_of_another_dialect_are_not_sent() -> None:
    batch = _batch(extra={"logit_bias": b"{}"}, user="u")
    assert list(_sent(batch)) == ["contents"]


def test_defaults_are_for_requests_that_have_none() -> None:
    defaults = {"safetySettings": b"[1]", "cachedContent": b'"x"'}
    batch = _batch(dialect=Dialect.GEMINI, extra={"safetySettings": b"[2]"})
    sent = _sent(batch, defaults=defaults)
    assert (sent["safetySettings"], sent["cachedContent"]) == ([2], "x")
    assert _sent(_batch(), defaults=defaults)["safetySettings"] == [1]


# --- counting ---------------------------------------------------------------


def test_count_has_the_prompt_and_the_tools_and_nothing_else() -> None:
    batch = _batch(
        Message(Role.SYSTEM, "s"),
        HI,
        tools=(Tool(name="f"),),
        sampling=Sampling(temperature=1.0),
    )
    inner = {
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
        "systemInstruction": {"parts": [{"text": "s"}]},
        "tools": [{"functionDeclarations": [{"name": "f"}]}],
    }
    assert msgspec.json.decode(encode_count(batch, model=None)) == inner
    assert msgspec.json.decode(encode_count(batch, model="models/x")) == {
        "generateContentRequest": {"model": "models/x", **inner}
    }
