"""The openai fake takes what OpenAI takes, and refuses the rest in its words."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from atomr_infer.testing.upstream_script import Refused
from atomr_infer.testing.upstreams.call import Media, Operation
from atomr_infer.testing.upstreams.dialect import Reply
from atomr_infer.testing.upstreams.openai import OpenAIDialect
from atomr_infer.testing.upstreams.openai_responses import encrypted
from tests.testing_kit.reading import read, understood
from tests.testing_kit.sdks import PNG, SCHEMA

OPENAI = OpenAIDialect()
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
HI = {"role": "user", "content": "hi there"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
ANSWERED = {"role": "tool", "tool_call_id": "c1", "content": "ok fine"}
DATA_URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


def chat(**members: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [HI], **members}


def test_a_custom_tools_call_and_output_are_items() -> None:
    tool = {"type": "custom", "name": "patch", "description": "Edits files."}
    call = {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "+"}
    output = {"type": "custom_tool_call_output", "call_id": "c", "output": "done"}
    asked = {"model": "gpt-5.5", "tools": [tool], "client_metadata": {"turn": "1"}}
    understood(OPENAI, RESPONSES, {**asked, "input": [call, output]})
    lonely = read(OPENAI, RESPONSES, {**asked, "input": [call]})
    assert isinstance(lonely, Refused)
    assert lonely.message == "No tool output found for function call c."


def test_call_is_what_was_asked() -> None:
    picture = {"type": "image_url", "image_url": {"url": DATA_URL}}
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    address = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
    parts = [{"type": "text", "text": "what is this"}, picture, sound, address]
    call = understood(
        OPENAI,
        CHAT,
        chat(
            messages=[
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": parts},
                CALLED,
                ANSWERED,
            ],
            stream=True,
            stream_options={"include_usage": True},
            n=2,
            max_completion_tokens=7,
            stop="x",
            logprobs=True,
            top_logprobs=3,
        ),
    )
    assert (call.operation, call.route, call.model) == (
        Operation.GENERATE,
        "chat",
        "gpt-4o",
    )
    assert (call.stream, call.include_usage, call.n) == (True, True, 2)
    assert (call.max_tokens, call.stop, call.top_logprobs) == (7, ("x",), 3)
    assert call.prompt_tokens == 2 + 3 + 2
    assert call.media == (
        Media("image/png", len(PNG)),
        Media("audio/wav", 3),
        Media("", url="https://x/y.png"),
    )


REFUSED_CHATS: list[tuple[Any, str | None, str | None, str]] = [
    (b"{", None, None, "not valid JSON"),
    (b"\xff", None, None, "not valid JSON"),
    ([], None, None, "not a JSON object"),
    ({"messages": [HI]}, None, None, "you must provide a model parameter"),
    ({"model": "m"}, "missing_required_parameter", "messages", "'messages'"),
    (chat(messages=[]), "empty_array", "messages", "empty array"),
    (chat(messages="hi"), "invalid_type", "messages", "got a string"),
    (chat(messages=["hi"]), "invalid_type", "messages[0]", "got a string"),
    (
        chat(messages=[{"content": "x"}]),
        "missing_required_parameter",
        "messages[0].role",
        "role",
    ),
    (
        chat(messages=[{"role": "model", "content": "x"}]),
        "invalid_value",
        "messages[0].role",
        "'model'. Supported values are: 'system', 'assistant', 'user', 'function',"
        " 'tool', and 'developer'",
    ),
    (
        chat(messages=[{"role": "user"}]),
        "invalid_type",
        "messages[0].content",
        "got null instead",
    ),
    (
        chat(messages=[{"role": "user", "content": [{"type": "image"}]}]),
        "invalid_value",
        "messages[0].content[0].type",
        "'image'",
    ),
    (
        chat(messages=[{"role": "user", "content": [{"type": "text"}]}]),
        "missing_required_parameter",
        "messages[0].content[0].text",
        "text",
    ),
    (
        chat(messages=[HI, CALLED]),
        None,
        "messages.[2].role",
        "did not have response messages: c1",
    ),
    (
        chat(messages=[HI, CALLED, HI, ANSWERED]),
        None,
        "messages.[2].role",
        "did not have response messages: c1",
    ),
    (
        chat(messages=[HI, ANSWERED]),
        None,
        "messages.[1].role",
        "must be a response to a preceeding message",
    ),
    (
        chat(messages=[HI, CALLED, ANSWERED, ANSWERED]),
        None,
        "messages.[3].role",
        "must be a response to a preceeding message",
    ),
    (chat(foo=1), None, None, "Unrecognized request argument supplied: foo"),
    (
        chat(temperature=3),
        "decimal_above_max_value",
        "temperature",
        "Expected a value <= 2, but got 3",
    ),
    (chat(top_p=-1), "decimal_below_min_value", "top_p", ">= 0, but got -1"),
    (chat(temperature="x"), "invalid_type", "temperature", "expected a decimal"),
    (chat(n=0), "integer_below_min_value", "n", ">= 1, but got 0"),
    (chat(n=129), "integer_above_max_value", "n", "<= 128, but got 129"),
    (chat(max_tokens=True), "invalid_type", "max_tokens", "got a boolean"),
    (chat(stream="yes"), "invalid_type", "stream", "expected a boolean"),
    (chat(stop=list("abcde")), "array_above_max_length", "stop", "length 5"),
    (chat(stop=[1]), "invalid_type", "stop", "got an array"),
    (chat(top_logprobs=2), None, "top_logprobs", "'logprobs' must be set"),
    (chat(stream_options={"include_usage": True}), None, "stream_options", "only"),
    (chat(tool_choice="required"), None, "tool_choice", "'tools' are specified"),
    (
        chat(tools=[{"function": {}}]),
        "missing_required_parameter",
        "tools[0].type",
        "",
    ),
    (
        chat(tools=[{"type": "function", "function": {}}]),
        "missing_required_parameter",
        "tools[0].function.name",
        "",
    ),
    (chat(reasoning_effort="huge"), "invalid_value", "reasoning_effort", "'huge'"),
    (
        chat(response_format={"type": "json_object"}),
        None,
        "messages",
        "must contain the word 'json'",
    ),
    (
        chat(
            response_format={
                "type": "json_schema",
                "json_schema": {
                    "name": "x",
                    "strict": True,
                    "schema": {"type": "object"},
                },
            }
        ),
        "invalid_json_schema",
        "response_format",
        "'additionalProperties' is required",
    ),
    (
        chat(model="o3-mini", max_tokens=5),
        "unsupported_parameter",
        "max_tokens",
        "Use 'max_completion_tokens' instead",
    ),
    (
        chat(model="gpt-5", temperature=0),
        "unsupported_value",
        "temperature",
        "Only the default (1)",
    ),
]


@pytest.mark.parametrize(("members", "code", "param", "words"), REFUSED_CHATS)
def test_chat_is_refused_in_openais_words(
    members: Any, code: str | None, param: str | None, words: str
) -> None:
    refused = read(OPENAI, CHAT, members)
    assert isinstance(refused, Refused), refused
    assert (refused.status, refused.code, refused.param) == (400, code, param)
    assert words in refused.message


def test_server_that_is_not_openais_takes_members_that_openai_does_not_know() -> None:
    lenient = OpenAIDialect(strict=False)
    assert understood(lenient, CHAT, chat(top_k=5, min_p=0.1)).model == "gpt-4o"
    assert understood(lenient, CHAT, chat(model="gpt-5", max_tokens=5)).max_tokens == 5


# --- responses --------------------------------------------------------------

FUNCTION_CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "ok"}


def response(**members: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "input": "hi there", **members}


def test_response_is_what_was_asked() -> None:
    thought = {"type": "summary_text", "text": "ab"}
    reasoning = {"type": "reasoning", "id": "r", "summary": [thought]}
    call = understood(
        OPENAI,
        RESPONSES,
        response(
            input=[
                {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
                {**reasoning, "encrypted_content": encrypted("ab")},
                FUNCTION_CALL,
                OUTPUT,
            ],
            instructions="be brief",
            max_output_tokens=9,
            text={"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}},
        ),
    )
    assert (call.route, call.max_tokens, call.schema) == ("responses", 9, SCHEMA)
    assert call.prompt_tokens == 2 + 1 + 1


@pytest.mark.parametrize(
    ("members", "code", "param", "words"),
    [
        (response(foo=1), "unknown_parameter", "foo", "Unknown parameter: 'foo'."),
        ({"model": "m"}, "missing_required_parameter", "input", "'input'"),
        (response(input=1), "invalid_type", "input", "got an integer"),
        (response(input=[1]), "invalid_type", "input[0]", ""),
        (response(input=[{"type": "x"}]), "invalid_value", "input[0].type", "'x'"),
        (
            response(input=[{"role": "user", "content": [{"type": "text"}]}]),
            "invalid_value",
            "input[0].content[0].type",
            "'text'",
        ),
        (response(input=[OUTPUT]), None, "input", "No tool call found"),
        (response(input=[FUNCTION_CALL]), None, "input", "No tool output found"),
        (
            response(previous_response_id="resp_other"),
            "previous_response_not_found",
            "previous_response_id",
            "'resp_other' not found",
        ),
        (
            response(
                input=[{"type": "reasoning", "summary": [], "encrypted_content": "x"}]
            ),
            "invalid_encrypted_content",
            "input[0].encrypted_content",
            "could not be verified",
        ),
        (response(max_output_tokens=0), "integer_below_min_value", None, ""),
        (response(reasoning={"effort": "x"}), "invalid_value", "reasoning.effort", ""),
        (response(tools=[{"type": "function"}]), None, "tools[0].name", ""),
    ],
)
def test_response_is_refused_in_openais_words(
    members: Any, code: str | None, param: str | None, words: str
) -> None:
    refused = read(OPENAI, RESPONSES, members)
    assert isinstance(refused, Refused), refused
    assert refused.status == 400
    assert words in refused.message
    assert code is None or refused.code == code
    assert param is None or refused.param == param


def test_output_of_an_earlier_response_needs_no_call_before_it() -> None:
    members = response(input=[OUTPUT], previous_response_id="resp_fake")
    assert understood(OPENAI, RESPONSES, members).prompt_tokens == 1


# --- routes and keys --------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "method", "status", "code"),
    [
        ("/v1/nowhere", "POST", 404, "unknown_url"),
        ("/chat/completions", "POST", 404, "unknown_url"),
        (CHAT, "GET", 405, "method_not_supported"),
        ("/v1/models", "POST", 405, "method_not_supported"),
        ("/v1/models/other", "GET", 404, "model_not_found"),
        # Azure's path without its version.
        ("/openai/deployments/d/chat/completions", "POST", 404, "unknown_url"),
    ],
)
def test_path_that_openai_does_not_have_is_refused(
    path: str, method: str, status: int, code: str
) -> None:
    refused = read(OPENAI, path, chat(), method=method)
    assert isinstance(refused, Refused)
    assert (refused.status, refused.code) == (status, code)


@pytest.mark.parametrize("path", [CHAT, f"/openai{CHAT}"])
@pytest.mark.parametrize("headers", [{"authorization": "Bearer k"}, {"api-key": "k"}])
def test_key_is_taken_as_openai_and_as_azure_write_it(
    path: str, headers: dict[str, str]
) -> None:
    assert understood(OPENAI, path, chat(), headers=headers).model == "gpt-4o"
    refused = read(OPENAI, path, chat(), headers=headers, keys=("other",))
    assert isinstance(refused, Refused)
    assert (refused.status, refused.code) == (401, "invalid_api_key")


def test_azures_deployment_is_the_model() -> None:
    path = "/openai/deployments/mine/chat/completions?api-version=2024-10-21"
    call = understood(OPENAI, path, {"messages": [HI]})
    assert (call.model, call.route) == ("mine", "azure-chat")


def test_models_are_listed() -> None:
    listed = read(OPENAI, "/v1/models", method="GET")
    assert isinstance(listed, Reply)
    model = {"id": "fake-model", "object": "model", "created": 0, "owned_by": "fake"}
    assert listed.members == {"object": "list", "data": [model]}
    assert read(OPENAI, "/v1/models/fake-model", method="GET") == Reply(model)


@pytest.mark.parametrize(
    ("members", "tokens", "n"),
    [
        ({"model": "m", "prompt": "a b"}, 2, 1),
        ({"model": "m", "prompt": ["a b", "c"], "n": 2}, 3, 4),
        ({"model": "m", "prompt": [1, 2, 3]}, 3, 1),
        ({"model": "m", "prompt": [[1, 2], [3]]}, 3, 2),
    ],
)
def test_completion_takes_each_form_of_prompt(
    members: dict[str, Any], tokens: int, n: int
) -> None:
    call = understood(OPENAI, "/v1/completions", members)
    assert (call.prompt_tokens, call.n, call.max_tokens) == (tokens, n, 16)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"model": "m"}, "Missing required parameter: 'input'."),
        ({"model": "m", "input": ""}, "cannot be an empty string"),
        ({"model": "m", "input": []}, "cannot be an empty string"),
        ({"model": "m", "input": "a", "encoding_format": "x"}, "Invalid value: 'x'"),
        ({"model": "m", "input": "a", "n": 2}, "Unrecognized request argument"),
    ],
)
def test_embedding_is_refused_in_openais_words(
    members: dict[str, Any], words: str
) -> None:
    refused = read(OPENAI, "/v1/embeddings", members)
    assert isinstance(refused, Refused)
    assert words in refused.message
