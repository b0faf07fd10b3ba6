"""What a Gemini client asks, in the canonical form."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec
import pytest

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
    AudioPart,
    FileId,
    FilePart,
    ImagePart,
    Inline,
    RawPart,
    ReasoningPart,
    Signature,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Url,
)
from atomr_infer.wire.gemini.ingress import ARRAY_TYPE, GEMINI
from atomr_infer.wire.gemini.request import parse_count
from atomr_infer.wire.gemini.signatures import to_wire
from atomr_infer.wire.ingress import EVENT_STREAM, Asked, Call

USER_HI = {"role": "user", "parts": [{"text": "hi"}]}


def _call(
    action: str = "generateContent", alt: str | None = "sse", **body: Any
) -> Call:
    members = {"contents": [USER_HI], **body}
    return Call(
        request_id="r-1",
        body=msgspec.json.encode(members),
        query={} if alt is None else {"alt": alt},
        model="gemini-2.5-flash",
        action=action,
    )


def _parse(**body: Any) -> ExecuteBatch:
    return GEMINI.parse(_call(**body)).batch


def _parts(*parts: Any) -> Any:
    """Return the canonical parts of one turn of the user."""
    [message] = _parse(contents=[{"role": "user", "parts": list(parts)}]).messages
    return message.content


def _refused(**body: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        GEMINI.parse(_call(**body))
    return caught.value


# --- the route --------------------------------------------------------------


def test_plain_request_is_a_chat_of_one_message() -> None:
    call = _call()
    asked = GEMINI.parse(call)
    source = asked.batch.source
    assert source is not None
    assert (source.dialect, source.body, source.model) == (
        Dialect.GEMINI,
        call.body,
        None,
    )
    assert asked == Asked(
        batch=ExecuteBatch(
            request_id="r-1",
            model="gemini-2.5-flash",
            messages=(Message(Role.USER, "hi"),),
            stream=False,
            dialect=Dialect.GEMINI,
            source=source,
        )
    )


def test_w1_stream_with_alt_sse_is_events() -> None:
    asked = GEMINI.parse(_call("streamGenerateContent"))
    assert (asked.batch.stream, asked.stream_type) == (True, EVENT_STREAM)
    assert asked.batch.source is not None


def test_s9_stream_without_alt_sse_is_an_array_and_is_not_passed_on() -> None:
    asked = GEMINI.parse(_call("streamGenerateContent", alt=None))
    assert (asked.batch.stream, asked.stream_type) == (True, ARRAY_TYPE)
    assert asked.batch.source is None


def test_model_of_the_path_loses_its_collection() -> None:
    call = attrs.evolve(_call(), model="models/gemini/x:1")
    assert GEMINI.parse(call).batch.model == "gemini/x:1"


@pytest.mark.parametrize("model", ["", "models/", "x" * 300, "a\nb"])
def test_model_that_is_no_name_is_refused(model: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        GEMINI.parse(attrs.evolve(_call(), model=model))
    assert caught.value.param == "model"


def test_snake_case_is_read_like_camel_case() -> None:
    config = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40.0,
        "candidate_count": 2,
        "max_output_tokens": 7,
        "stop_sequences": ["x"],
        "presence_penalty": 1,
        "frequency_penalty": -1,
        "response_logprobs": True,
        "thinking_config": {"thinking_budget": 0, "include_thoughts": True},
    }
    batch = _parse(
        system_instruction={"parts": [{"text": "be"}]}, generation_config=config
    )
    assert batch.messages[0] == Message(Role.SYSTEM, "be")
    assert batch.sampling == Sampling(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        n=2,
        max_tokens=7,
        stop=("x",),
        presence_penalty=1.0,
        frequency_penalty=-1.0,
        top_logprobs=0,
    )
    assert batch.reasoning == Reasoning(budget_tokens=0, include=True)
    assert batch.extra == {}


def test_names_of_the_user_keep_their_spelling() -> None:
    call = {"functionCall": {"name": "f", "args": {"snake_case": {"in_ner": 1}}}}
    schema = {"type": "OBJECT", "properties": {"snake_case": {"type": "STRING"}}}
    batch = _parse(
        contents=[USER_HI, {"role": "model", "parts": [call]}],
        tools=[{"function_declarations": [{"name": "f", "parameters": schema}]}],
        labels={"my_label": "x"},
    )
    [part] = batch.messages[1].content
    assert isinstance(part, ToolCallPart)
    assert part.arguments == '{"snake_case":{"in_ner":1}}'
    [tool] = batch.tools
    assert isinstance(tool, Tool)
    assert tool.parameters == (
        b'{"type":"object","properties":{"snake_case":{"type":"string"}}}'
    )
    assert batch.extra == {"labels": b'{"my_label":"x"}'}


# --- messages ---------------------------------------------------------------


@pytest.mark.parametrize("form", ["be", {"role": "system", "parts": [{"text": "be"}]}])
def test_system_instruction_comes_first_whatever_its_form(form: Any) -> None:
    assert _parse(systemInstruction=form).messages == (
        Message(Role.SYSTEM, "be"),
        Message(Role.USER, "hi"),
    )


def test_turn_without_a_role_is_the_users() -> None:
    assert _parse(contents=[{"parts": [{"text": "a"}]}]).messages == (
        Message(Role.USER, "a"),
    )


PNG = "iVBORw0KGgoAAAANSUhEUg=="


def test_media_become_parts_by_their_type() -> None:
    blob = {"inlineData": {"mimeType": "image/png", "data": PNG}}
    sound = {"inlineData": {"mimeType": "audio/wav", "data": "_-8"}}
    pdf = {
        "fileData": {
            "mimeType": "application/pdf",
            "fileUri": "gs://b/x.pdf",
            "displayName": "x",
        }
    }
    named = {"file_data": {"file_uri": "files/abc"}}
    assert _parts(blob, sound, pdf, named) == (
        ImagePart(source=Inline("image/png", PNG)),
        AudioPart(source=Inline("audio/wav", "/+8=")),
        FilePart(
            source=Url("gs://b/x.pdf", media_type="application/pdf"), filename="x"
        ),
        FilePart(source=FileId("files/abc")),
    )


def test_t3_call_and_result_without_ids_are_tied_by_their_order() -> None:
    def call(name: str) -> dict[str, Any]:
        return {"functionCall": {"name": name, "args": {}}}

    def result(name: str, value: str) -> dict[str, Any]:
        return {"functionResponse": {"name": name, "response": {"result": value}}}

    messages = _parse(
        contents=[
            USER_HI,
            {"role": "model", "parts": [call("f"), call("g"), call("f")]},
            {"role": "user", "parts": [result("g", "2"), result("f", "1")]},
            {"role": "function", "parts": [result("f", "3")]},
        ]
    ).messages
    called = [part.id for part in messages[1].tool_calls]
    assert called == ["gemini_call_1", "gemini_call_2", "gemini_call_3"]
    answered = [
        (part.call_id, part.text)
        for message in messages[2:]
        for part in message.content
        if isinstance(part, ToolResultPart)
    ]
    assert answered == [
        ("gemini_call_2", "2"),
        ("gemini_call_1", "1"),
        ("gemini_call_3", "3"),
    ]
    assert [message.role for message in messages[2:]] == [Role.TOOL, Role.TOOL]


@pytest.mark.parametrize("identity", [{"id": "a"}, {}])
def test_t3_result_that_stands_there_twice_is_read_once(
    identity: dict[str, str],
) -> None:
    def answered(value: str) -> dict[str, Any]:
        response = {"name": "f", "response": {"result": value}, **identity}
        return {"role": "user", "parts": [{"functionResponse": response}]}

    called = {"functionCall": {"name": "f", "args": {}, **identity}}
    messages = _parse(
        contents=[
            USER_HI,
            {"role": "model", "parts": [called]},
            answered("1"),
            answered("1"),
            {"role": "model", "parts": [called]},
            answered("1"),
        ]
    ).messages
    assert [message.role for message in messages] == [
        Role.USER,
        Role.ASSISTANT,
        Role.TOOL,
        Role.ASSISTANT,
        Role.TOOL,
    ]


def test_t3_result_that_differs_from_the_one_before_is_kept() -> None:
    results = [
        {"functionResponse": {"id": "a", "name": "f", "response": {"result": value}}}
        for value in "12"
    ]
    calls = [{"functionCall": {"id": "a", "name": "f"}}]
    messages = _parse(
        contents=[
            {"role": "model", "parts": calls},
            {"role": "user", "parts": results},
        ]
    ).messages
    assert [part.text for part in messages[1].content] == ["1", "2"]  # type: ignore[union-attr]


def test_t3_call_that_was_answered_by_its_id_waits_no_more() -> None:
    calls = [{"functionCall": {"id": each, "name": "f"}} for each in "ab"]
    results = [
        {"functionResponse": {"id": "a", "name": "f", "response": {}}},
        {"functionResponse": {"name": "f", "response": {}}},
    ]
    messages = _parse(
        contents=[
            {"role": "model", "parts": calls},
            {"role": "user", "parts": results},
        ]
    ).messages
    assert [part.call_id for part in messages[1].content] == ["a", "b"]  # type: ignore[union-attr]


def test_t8_ids_of_calls_survive() -> None:
    call = {"id": "call_Ä|1", "name": "f", "args": {"a": [1, 2]}}
    response = {"id": "call_Ä|1", "name": "f", "response": {"x": 1}}
    messages = _parse(
        contents=[
            {"role": "model", "parts": [{"functionCall": call}]},
            {"role": "user", "parts": [{"functionResponse": response}]},
        ]
    ).messages
    assert messages == (
        Message(
            Role.ASSISTANT,
            (ToolCallPart(id="call_Ä|1", name="f", arguments='{"a":[1,2]}'),),
        ),
        Message(
            Role.TOOL,
            (
                ToolResultPart(
                    call_id="call_Ä|1", content=(TextPart('{"x":1}'),), name="f"
                ),
            ),
        ),
    )


@pytest.mark.parametrize(
    ("response", "text", "is_error"),
    [
        ({"result": "plain"}, "plain", False),
        ({"error": "broken"}, "broken", True),
        ({"output": "x"}, '{"output":"x"}', False),
        ({"result": {"a": 1}}, '{"result":{"a":1}}', False),
        ({"error": "e", "code": 3}, '{"error":"e","code":3}', True),
        ({}, "{}", False),
    ],
)
def test_tools_answer_is_text_and_says_whether_it_failed(
    response: Any, text: str, is_error: bool
) -> None:
    [part] = _parts({"functionResponse": {"name": "f", "response": response}})
    assert (part.text, part.is_error) == (text, is_error)


def test_turn_of_results_and_words_becomes_messages_in_order() -> None:
    result = {"functionResponse": {"name": "f", "response": {}}}
    parts = [{"text": "a"}, result, result, {"text": "b"}]
    messages = _parse(contents=[{"role": "user", "parts": parts}]).messages
    assert [(m.role, len(m.content)) for m in messages] == [
        (Role.USER, 1),
        (Role.TOOL, 2),
        (Role.USER, 1),
    ]


def test_result_may_hold_a_picture() -> None:
    picture = {"inlineData": {"mimeType": "image/png", "data": PNG}}
    response = {"name": "f", "response": {"result": "see"}, "parts": [picture]}
    [part] = _parts({"functionResponse": response})
    assert part.content == (
        TextPart("see"),
        ImagePart(source=Inline("image/png", PNG)),
    )


def test_signatures_stay_on_their_parts() -> None:
    own = Signature("c2ln", Dialect.GEMINI)
    parts = [
        {"text": "think", "thought": True, "thoughtSignature": "c2ln"},
        {"text": "say", "thought_signature": "c2ln"},
        {"functionCall": {"id": "1", "name": "f"}, "thoughtSignature": "c2ln"},
        {"thoughtSignature": "c2ln"},
        {"thought": True, "thoughtSignature": "c2ln"},
        {},
    ]
    batch = _parse(contents=[{"role": "model", "parts": parts}])
    assert batch.messages[0].content == (
        ReasoningPart(text="think", signature=own),
        TextPart("say", signature=own),
        ToolCallPart(id="1", name="f", arguments="{}", signature=own),
        TextPart("", signature=own),
        ReasoningPart(signature=own),
    )


def test_signatures_of_other_providers_come_back_as_theirs() -> None:
    anthropic = Signature("EqRk/+=", Dialect.ANTHROPIC)
    encrypted = Signature("gAAA", Dialect.OPENAI_RESPONSES)
    parts = [
        {"text": "t", "thought": True, "thoughtSignature": to_wire(anthropic)},
        {
            "text": "",
            "thought": True,
            "thoughtSignature": to_wire(encrypted, encrypted=True),
        },
    ]
    [message] = _parse(contents=[{"role": "model", "parts": parts}]).messages
    assert message.content == (
        ReasoningPart(text="t", signature=anthropic),
        ReasoningPart(data=encrypted),
    )


def test_part_of_an_unknown_kind_stays_raw() -> None:
    part = {"executableCode": {"language": "PYTHON", "code": "1"}}
    assert _parts(part) == (RawPart("executableCode", msgspec.json.encode(part)),)


def test_member_that_says_how_to_read_a_part_is_dropped_with_a_warning() -> None:
    part = {"text": "a", "mediaResolution": {"level": "HIGH"}}
    asked = GEMINI.parse(_call(contents=[{"parts": [part]}]))
    assert asked.warnings == ("contents[0].parts[0].mediaResolution was dropped",)


# --- tools ------------------------------------------------------------------


def test_tools_are_split_into_one_each() -> None:
    schema = {
        "type": "OBJECT",
        "properties": {
            "a": {"type": "STRING", "nullable": True, "enum": ["x"]},
            "b": {"type": "ARRAY", "items": {"type": "INTEGER"}, "minItems": "2"},
        },
        "required": ["a"],
        "propertyOrdering": ["a", "b"],
    }
    batch = _parse(
        tools=[
            {
                "functionDeclarations": [
                    {"name": "f", "description": "d", "parameters": schema},
                    {"name": "g", "parametersJsonSchema": {"type": "object", "x": 1}},
                    {"name": "h"},
                ],
                "googleSearch": {},
            },
            {"code_execution": {}},
        ]
    )
    assert batch.tools == (
        Tool(
            name="f",
            description="d",
            parameters=msgspec.json.encode(
                {
                    "type": "object",
                    "properties": {
                        "a": {"type": ["string", "null"], "enum": ["x", None]},
                        "b": {
                            "type": "array",
                            "items": {"type": "integer"},
                            "minItems": 2,
                        },
                    },
                    "required": ["a"],
                }
            ),
        ),
        Tool(name="g", parameters=b'{"type":"object","x":1}'),
        Tool(name="h"),
        RawTool("googleSearch", b'{"googleSearch":{}}'),
        RawTool("codeExecution", b'{"codeExecution":{}}'),
    )


@pytest.mark.parametrize(
    ("config", "choice", "extra"),
    [
        ({"mode": "AUTO"}, ToolChoice(), {}),
        ({"mode": "any"}, ToolChoice(mode=ToolMode.REQUIRED), {}),
        ({"mode": "NONE"}, ToolChoice(mode=ToolMode.NONE), {}),
        (
            {"mode": "ANY", "allowedFunctionNames": ["f"]},
            ToolChoice(mode=ToolMode.REQUIRED, names=("f",)),
            {},
        ),
        (
            {"mode": "VALIDATED"},
            ToolChoice(),
            {"toolConfig": b'{"functionCallingConfig":{"mode":"VALIDATED"}}'},
        ),
        (
            {"mode": "VALIDATED", "allowedFunctionNames": ["f"]},
            ToolChoice(names=("f",)),
            {
                "toolConfig": b'{"functionCallingConfig":{"mode":"VALIDATED",'
                b'"allowedFunctionNames":["f"]}}'
            },
        ),
    ],
)
def test_t6_choice_of_tools_is_read(
    config: Any, choice: ToolChoice, extra: dict[str, bytes]
) -> None:
    batch = _parse(toolConfig={"functionCallingConfig": config})
    assert batch.tool_choice == choice
    assert batch.extra == extra


def test_what_is_not_modelled_stays_raw_in_its_place() -> None:
    batch = _parse(
        safetySettings=[{"category": "X", "threshold": "OFF"}],
        cachedContent="cachedContents/1",
        toolConfig={"retrievalConfig": {"languageCode": "de"}},
        generationConfig={"temperature": 1, "speechConfig": {"a": 1}},
    )
    assert batch.extra == {
        "safetySettings": b'[{"category":"X","threshold":"OFF"}]',
        "cachedContent": b'"cachedContents/1"',
        "toolConfig": b'{"retrievalConfig":{"languageCode":"de"}}',
        "generationConfig": b'{"speechConfig":{"a":1}}',
    }


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"responseMimeType": "text/plain"}, None),
        (
            {"responseMimeType": "application/json"},
            ResponseFormat(kind=FormatKind.JSON_OBJECT),
        ),
        (
            {
                "responseMimeType": "application/json",
                "responseSchema": {"type": "STRING"},
            },
            ResponseFormat(kind=FormatKind.JSON_SCHEMA, schema=b'{"type":"string"}'),
        ),
        (
            {
                "responseMimeType": "application/json",
                "responseJsonSchema": {"type": "integer"},
            },
            ResponseFormat(kind=FormatKind.JSON_SCHEMA, schema=b'{"type":"integer"}'),
        ),
    ],
)
def test_response_format_is_read(config: Any, wanted: ResponseFormat | None) -> None:
    batch = _parse(generationConfig=config)
    assert batch.response_format == wanted
    assert batch.extra == {}


def test_bare_word_of_an_enum_stays_geminis_own() -> None:
    config = {
        "responseMimeType": "text/x.enum",
        "responseSchema": {"type": "STRING", "enum": ["a"]},
    }
    batch = _parse(generationConfig=config)
    assert batch.response_format is None
    assert msgspec.json.decode(batch.extra["generationConfig"]) == {
        "responseMimeType": "text/x.enum",
        "responseJsonSchema": {"type": "string", "enum": ["a"]},
    }


@pytest.mark.parametrize(
    ("config", "reasoning"),
    [
        ({"thinkingLevel": "low"}, Reasoning(effort=Effort.LOW)),
        ({"thinkingLevel": "XHIGH"}, Reasoning(effort=Effort.XHIGH)),
        ({"thinkingBudget": -1}, Reasoning(budget_tokens=-1)),
        ({"includeThoughts": False}, Reasoning(include=False)),
        ({"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED"}, Reasoning()),
    ],
)
def test_thinking_is_read(config: Any, reasoning: Reasoning) -> None:
    batch = _parse(generationConfig={"thinkingConfig": config})
    assert batch.reasoning == reasoning


# --- counting ---------------------------------------------------------------


def test_count_reads_the_wrapped_request_and_the_bare_one() -> None:
    inner = {"model": "models/other", "contents": [USER_HI], "tools": []}
    wrapped = msgspec.json.encode({"generateContentRequest": inner})
    call = attrs.evolve(_call("countTokens"), body=wrapped)
    assert parse_count(call).batch.messages == (Message(Role.USER, "hi"),)
    assert parse_count(call).batch.model == "gemini-2.5-flash"
    assert parse_count(_call("countTokens")).batch.messages == (
        Message(Role.USER, "hi"),
    )


# --- mistakes ---------------------------------------------------------------


def _model_turn(part: Any) -> dict[str, Any]:
    return {"contents": [{"role": "model", "parts": [part]}]}


def _config(**members: Any) -> dict[str, Any]:
    return {"generationConfig": members}


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"contents": None}, "contents"),
    ({"contents": []}, "contents"),
    ({"contents": "hi"}, "contents"),
    ({"contents": [{"parts": []}]}, "contents"),
    ({"contents": [3]}, "contents[0]"),
    ({"contents": [{"role": "robot", "parts": []}]}, "contents[0].role"),
    ({"contents": [{"parts": [{"text": 3}]}]}, "contents[0].parts[0].text"),
    (
        {"contents": [{"parts": [{"text": "a", "inlineData": {}}]}]},
        "contents[0].parts[0]",
    ),
    (
        {"contents": [{"parts": [{"inlineData": {"mimeType": "x/y"}}]}]},
        "contents[0].parts[0].inlineData.data",
    ),
    (
        {"contents": [{"parts": [{"fileData": {}}]}]},
        "contents[0].parts[0].fileData.fileUri",
    ),
    (
        {"contents": [{"parts": [{"functionCall": None}]}]},
        "contents[0].parts[0].functionCall",
    ),
    (
        _model_turn({"functionCall": {"args": {}}}),
        "contents[0].parts[0].functionCall.name",
    ),
    (
        _model_turn({"functionCall": {"name": "f", "args": "{}"}}),
        "contents[0].parts[0].functionCall.args",
    ),
    (
        _model_turn({"functionResponse": {"name": "f", "response": "x"}}),
        "contents[0].parts[0].functionResponse.response",
    ),
    ({"systemInstruction": 3}, "systemInstruction"),
    (
        {"systemInstruction": {"parts": [{"functionCall": {"name": "f"}}]}},
        "systemInstruction.parts[0]",
    ),
    ({"tools": {}}, "tools"),
    (
        {"tools": [{"functionDeclarations": [{}]}]},
        "tools[0].functionDeclarations[0].name",
    ),
    (
        {"tools": [{"functionDeclarations": [{"name": "f", "parameters": "x"}]}]},
        "tools[0].functionDeclarations[0].parameters",
    ),
    (
        {
            "tools": [
                {
                    "functionDeclarations": [
                        {"name": "f", "parameters": {}, "parametersJsonSchema": {}}
                    ]
                }
            ]
        },
        "tools[0].functionDeclarations[0].parametersJsonSchema",
    ),
    (
        {"toolConfig": {"functionCallingConfig": {"mode": "SOME"}}},
        "toolConfig.functionCallingConfig.mode",
    ),
    (_config(temperature=3), "generationConfig.temperature"),
    (_config(topP="x"), "generationConfig.topP"),
    (_config(topK=0.5), "generationConfig.topK"),
    (_config(candidateCount=0), "generationConfig.candidateCount"),
    (_config(candidateCount=9), "generationConfig.candidateCount"),
    (_config(maxOutputTokens=0), "generationConfig.maxOutputTokens"),
    (_config(stopSequences=[""]), "generationConfig.stopSequences"),
    (_config(seed=2**31), "generationConfig.seed"),
    (_config(logprobs=3), "generationConfig.logprobs"),
    (_config(responseSchema={"type": "STRING"}), "generationConfig.responseSchema"),
    (
        _config(responseMimeType="application/json", responseSchema=[]),
        "generationConfig.responseSchema",
    ),
    (
        _config(thinkingConfig={"thinkingLevel": "WILD"}),
        "generationConfig.thinkingConfig.thinkingLevel",
    ),
    (
        _config(thinkingConfig={"thinkingBudget": -2}),
        "generationConfig.thinkingConfig.thinkingBudget",
    ),
]


@pytest.mark.parametrize(("body", "param"), MISTAKES, ids=[p for _, p in MISTAKES])
def test_mistake_names_its_member(body: dict[str, Any], param: str) -> None:
    error = _refused(**body)
    assert (type(error), error.param) == (InvalidRequestError, param)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        GEMINI.parse(attrs.evolve(_call(), body=body))


def test_schema_without_end_is_refused() -> None:
    deep = b'{"type":"ARRAY","items":' * 300 + b"{}" + b"}" * 300
    body = b'{"contents":[{"parts":[{"text":"a"}]}],"tools":[{"functionDeclarations":'
    body += b'[{"name":"f","parameters":' + deep + b"}]}]}"
    with pytest.raises(InvalidRequestError, match="nested too deeply"):
        GEMINI.parse(attrs.evolve(_call(), body=body))
