"""The gemini fake takes what Google takes, and refuses the rest in its words."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from atomr_infer.testing.upstream_script import Refused, rate_limited, server_error
from atomr_infer.testing.upstreams.call import Media, Operation
from atomr_infer.testing.upstreams.dialect import Reply
from atomr_infer.testing.upstreams.gemini import REFUSALS, GeminiDialect, error_members
from atomr_infer.testing.upstreams.gemini_turns import SKIP_SIGNATURE, signature_of
from tests.testing_kit.reading import read, understood
from tests.testing_kit.sdks import PNG, SCHEMA

GEMINI = GeminiDialect()
FLASH = "/v1beta/models/gemini-2.5-flash"
GENERATE = f"{FLASH}:generateContent"
PRO = "/v1/models/gemini-3-pro:generateContent"
VERTEX = "/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-flash"
HI = {"role": "user", "parts": [{"text": "hi there"}]}
CALL = {"functionCall": {"name": "f", "args": {"a": 1}}}
CALLED = {"role": "model", "parts": [CALL]}
RESPONSE = {"functionResponse": {"name": "f", "response": {"result": "ok"}}}
ANSWERED = {"role": "user", "parts": [RESPONSE]}
ENCODED = base64.b64encode(PNG).decode()


def ask(**members: Any) -> dict[str, Any]:
    return {"contents": [HI], **members}


def config(**members: Any) -> dict[str, Any]:
    return ask(generationConfig=members)


def parts(*given: dict[str, Any]) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": list(given)}]}


def test_call_is_what_was_asked() -> None:
    blob = {"inlineData": {"mimeType": "image/png", "data": ENCODED}}
    file = {"fileData": {"mimeType": "video/mp4", "fileUri": "gs://x"}}
    members = ask(
        systemInstruction={"parts": [{"text": "be brief"}]},
        contents=[
            {"role": "user", "parts": [{"text": "what is this"}, blob, file]},
            CALLED,
            ANSWERED,
        ],
        generationConfig={
            "candidateCount": 2,
            "maxOutputTokens": 9,
            "stopSequences": ["x"],
            "responseMimeType": "application/json",
            "responseJsonSchema": SCHEMA,
            "responseLogprobs": True,
            "logprobs": 2,
            "thinkingConfig": {"includeThoughts": True},
        },
    )
    call = understood(GEMINI, GENERATE, members)
    assert (call.operation, call.model) == (Operation.GENERATE, "gemini-2.5-flash")
    assert (call.stream, call.n, call.max_tokens, call.stop) == (False, 2, 9, ("x",))
    assert (call.schema, call.top_logprobs, call.reasoning) == (SCHEMA, 2, True)
    assert call.prompt_tokens == 2 + 3 + 1
    assert call.media == (
        Media("image/png", len(PNG)),
        Media("video/mp4", url="gs://x"),
    )


def test_members_are_taken_in_either_case() -> None:
    members = {
        "contents": [HI],
        "system_instruction": {"parts": [{"text": "be brief"}]},
        "generation_config": {"max_output_tokens": 5},
    }
    call = understood(GEMINI, GENERATE, members)
    assert (call.max_tokens, call.prompt_tokens) == (5, 4)


@pytest.mark.parametrize(
    ("query", "route"), [("?alt=sse", "events"), ("", "array"), ("?alt=json", "array")]
)
def test_stream_is_an_array_unless_events_are_asked_for(query: str, route: str) -> None:
    call = understood(GEMINI, f"{FLASH}:streamGenerateContent{query}", ask())
    assert (call.stream, call.route) == (True, route)


UNKNOWN = "Invalid JSON payload received. Unknown name"
REFUSED: list[tuple[Any, str]] = [
    (b"{", "The body is not valid JSON"),
    ({}, "* GenerateContentRequest.contents: contents is not specified"),
    (ask(foo=1), f'{UNKNOWN} "foo": Cannot find field.'),
    (config(foo=1), f"{UNKNOWN} \"foo\" at 'generation_config': Cannot find field."),
    (
        ask(contents=[{**HI, "name": "x"}]),
        f"{UNKNOWN} \"name\" at 'contents[0]': Cannot find field.",
    ),
    (
        ask(
            tools=[
                {
                    "functionDeclarations": [
                        {
                            "name": "f",
                            "parameters": {
                                "type": "OBJECT",
                                "properties": {"a": {"$schema": "x"}},
                            },
                        }
                    ]
                }
            ]
        ),
        f'{UNKNOWN} "$schema" at'
        " 'tools[0].function_declarations[0].parameters.properties[0].value'",
    ),
    (
        ask(contents=[{"role": "assistant", "parts": [{"text": "x"}]}]),
        "Please use a valid role: user, model.",
    ),
    (
        ask(contents=[{"role": "user", "parts": []}]),
        "* GenerateContentRequest.contents[0].parts: contents.parts must not be empty.",
    ),
    (parts({}), "* GenerateContentRequest.contents[0].parts[0].data: required oneof"),
    (
        parts({"text": "x", **CALL}),
        "* GenerateContentRequest.contents[0].parts[0].data: required oneof",
    ),
    (
        parts({"inlineData": {"data": ENCODED}}),
        "* GenerateContentRequest.contents[0].parts[0].inline_data.mime_type:",
    ),
    (parts({"inlineData": {"mimeType": "image/png", "data": "!"}}), "Invalid base64"),
    (
        ask(
            contents=[
                HI,
                CALLED,
                {"parts": [{"functionResponse": {"name": "f", "response": "ok"}}]},
            ]
        ),
        "Invalid value at 'GenerateContentRequest.contents[2].parts[0]"
        ".function_response.response'",
    ),
    (
        ask(contents=[HI, HI]),
        "Please ensure that multiturn requests alternate between user and model.",
    ),
    (
        ask(contents=[{"role": "model", "parts": [{"text": "x"}]}, HI]),
        "Please ensure that multiturn requests begin and end with a user role",
    ),
    (ask(contents=[HI, CALLED]), "Please ensure that multiturn requests begin and end"),
    (
        ask(contents=[HI, CALLED, HI]),
        "Please ensure that the number of function response parts is equal to",
    ),
    (
        ask(contents=[ANSWERED]),
        "Please ensure that function response turn comes immediately after",
    ),
    (
        ask(
            contents=[
                HI,
                CALLED,
                {"parts": [{"functionResponse": {"name": "g", "response": {}}}]},
            ]
        ),
        "Please ensure that function response parts have the names",
    ),
    (
        config(temperature=3),
        "* GenerateContentRequest.generation_config.temperature: temperature must be in"
        " the range [0.0, 2.0].",
    ),
    (
        config(topP="x"),
        "Invalid value at 'generation_config.top_p' (TYPE_FLOAT), \"x\"",
    ),
    (
        config(maxOutputTokens=0),
        "* GenerateContentRequest.generation_config.max_output_tokens:",
    ),
    (
        config(candidateCount=9),
        "* GenerateContentRequest.generation_config.candidate_count: candidate_count"
        " must be in the range [1, 8].",
    ),
    (
        config(stopSequences=list("abcdef")),
        "* GenerateContentRequest.generation_config.stop_sequences: must have at",
    ),
    (config(stopSequences=[1]), "Invalid value at 'generation_config.stop_sequences'"),
    (
        config(responseSchema={"type": "OBJECT"}),
        "* GenerateContentRequest.generation_config.response_schema: only allowed",
    ),
    (config(logprobs=1), "* GenerateContentRequest.generation_config.logprobs: only"),
    (
        config(thinkingConfig={"thinkingBudget": 1, "thinkingLevel": "low"}),
        "You can only set only one of thinking budget and thinking level.",
    ),
    (
        ask(tools=[{"functionDeclarations": [{"name": "1f"}]}]),
        "* GenerateContentRequest.tools[0].function_declarations[0].name: Invalid",
    ),
    (
        ask(tools=[{"functionDeclarations": [{"name": "f"}, {"name": "f"}]}]),
        "Duplicate function declaration found",
    ),
    (
        ask(toolConfig={"functionCallingConfig": {"mode": "REQUIRED"}}),
        "Invalid value at 'tool_config.function_calling_config.mode'",
    ),
    (
        ask(toolConfig={"functionCallingConfig": {"allowedFunctionNames": ["f"]}}),
        "Allowed function names can only be set when mode is ANY.",
    ),
    (
        ask(
            toolConfig={
                "functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}
            }
        ),
        "allowed_function_names must be declared functions",
    ),
]


@pytest.mark.parametrize(("members", "words"), REFUSED)
def test_content_is_refused_in_googles_words(members: Any, words: str) -> None:
    refused = read(GEMINI, GENERATE, members)
    assert isinstance(refused, Refused), refused
    assert refused.status == 400
    assert refused.message.startswith(words), refused.message


@pytest.mark.parametrize(
    "members",
    [
        parts({"text": "x"}),
        {"contents": [{"parts": [{"text": "no role"}]}]},
        ask(contents=[HI, CALLED, {"role": "function", "parts": [RESPONSE]}]),
        ask(tools=[{"googleSearch": {}}]),
        ask(
            tools=[
                {
                    "functionDeclarations": [
                        {"name": "f", "parametersJsonSchema": {"$schema": "any"}}
                    ]
                }
            ]
        ),
        config(responseMimeType="application/json"),
    ],
)
def test_content_that_google_takes_is_taken(members: Any) -> None:
    understood(GEMINI, GENERATE, members)


def signed(signature: str | None) -> dict[str, Any]:
    part = CALL if signature is None else {**CALL, "thoughtSignature": signature}
    return ask(contents=[HI, {"role": "model", "parts": [part, CALL]}, TWICE])


TWICE = {"role": "user", "parts": [RESPONSE, RESPONSE]}


@pytest.mark.parametrize("signature", [signature_of("f", {"a": 1}), SKIP_SIGNATURE])
def test_signed_call_comes_back(signature: str) -> None:
    understood(GEMINI, PRO, signed(signature))


@pytest.mark.parametrize(
    ("signature", "words"),
    [
        (None, "Function call is missing a thought_signature in functionCall parts."),
        (signature_of("g", {"a": 1}), "Thought signature is not valid"),
    ],
)
def test_call_that_lost_its_signature_is_refused_from_gemini_3_on(
    signature: str | None, words: str
) -> None:
    understood(GEMINI, GENERATE, signed(None))
    refused = read(GEMINI, PRO, signed(signature))
    assert isinstance(refused, Refused)
    assert refused.message.startswith(words)


def test_calls_before_the_users_last_words_need_no_signature() -> None:
    done = {"role": "model", "parts": [{"text": "done"}]}
    members = ask(contents=[*signed(None)["contents"], done, HI])
    understood(GEMINI, PRO, members)


# --- other methods ----------------------------------------------------------


@pytest.mark.parametrize("path", [FLASH, VERTEX])
@pytest.mark.parametrize("members", [ask(), {"generateContentRequest": ask()}])
def test_tokens_are_counted(path: str, members: Any) -> None:
    call = understood(GEMINI, f"{path}:countTokens", members)
    assert (call.operation, call.prompt_tokens) == (Operation.COUNT, 2)


TEXT = {"parts": [{"text": "one two"}]}


@pytest.mark.parametrize(
    ("path", "members", "count"),
    [
        (f"{FLASH}:embedContent", {"content": TEXT}, 1),
        (
            f"{FLASH}:batchEmbedContents",
            {"requests": [{"model": "models/gemini-2.5-flash", "content": TEXT}] * 2},
            2,
        ),
        (f"{VERTEX}:predict", {"instances": [{"content": "one two"}] * 3}, 3),
    ],
)
def test_texts_are_embedded(path: str, members: Any, count: int) -> None:
    call = understood(GEMINI, path, members)
    assert (call.operation, call.prompt_tokens) == (Operation.EMBED, 2 * count)
    assert len(call.members["requests"]) == count


@pytest.mark.parametrize(
    ("path", "members", "words"),
    [
        (f"{FLASH}:embedContent", {}, "* EmbedContentRequest.content:"),
        (f"{FLASH}:batchEmbedContents", {}, "* EmbedContentRequest.content:"),
        (
            f"{FLASH}:batchEmbedContents",
            {"requests": [{"model": "models/other", "content": TEXT}]},
            "* BatchEmbedContentsRequest.requests[0].model:",
        ),
    ],
)
def test_embedding_is_refused_in_googles_words(
    path: str, members: Any, words: str
) -> None:
    refused = read(GEMINI, path, members)
    assert isinstance(refused, Refused)
    assert refused.message.startswith(words)


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/v2/models", "GET"),
        (GENERATE, "GET"),
        (FLASH, "POST"),
        (f"{FLASH}:translate", "POST"),
        ("/v1beta/models/other", "GET"),
    ],
)
def test_path_that_google_does_not_have_is_refused(path: str, method: str) -> None:
    refused = read(GEMINI, path, ask(), method=method)
    assert isinstance(refused, Refused)
    assert refused.status == 404


def test_models_are_listed() -> None:
    studio = read(GEMINI, "/v1beta/models", method="GET")
    vertex = read(GEMINI, "/v1beta1/publishers/google/models", method="GET")
    assert isinstance(studio, Reply)
    assert isinstance(vertex, Reply)
    listed: Any = studio.members
    publishers: Any = vertex.members
    assert listed["models"][0]["name"] == "models/gemini-2.5-flash"
    assert publishers["publisherModels"][0]["name"].startswith("publishers/google/")
    assert read(GEMINI, FLASH, method="GET") == Reply(listed["models"][0])


# --- keys -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        (GENERATE, {}, 403, None),
        (GENERATE, {"x-goog-api-key": "no"}, 400, "API_KEY_INVALID"),
        (f"{VERTEX}:generateContent", {}, 401, "CREDENTIALS_MISSING"),
        (f"{VERTEX}:generateContent", {"x-goog-api-key": "k"}, 401, None),
        (
            f"{VERTEX}:generateContent",
            {"authorization": "Bearer no"},
            401,
            "ACCESS_TOKEN_EXPIRED",
        ),
    ],
)
def test_key_is_asked_for_as_google_asks(
    path: str, headers: dict[str, str], status: int, code: str | None
) -> None:
    refused = read(GEMINI, path, ask(), headers=headers)
    assert isinstance(refused, Refused)
    assert refused.status == status
    assert code is None or refused.code == code


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (GENERATE, {"x-goog-api-key": "k"}),
        (f"{GENERATE}?key=k", {}),
        (GENERATE, {"authorization": "Bearer k"}),
        (f"{VERTEX}:generateContent", {"authorization": "Bearer k"}),
    ],
)
def test_key_is_taken_as_google_takes_it(path: str, headers: dict[str, str]) -> None:
    understood(GEMINI, path, ask(), headers=headers)


def assertion(**claims: Any) -> bytes:
    encode = msgspec.json.encode
    head = base64.urlsafe_b64encode(encode({"alg": "RS256"})).rstrip(b"=")
    body = base64.urlsafe_b64encode(encode(claims)).rstrip(b"=")
    return b".".join([head, body, b"signature"])


CLAIMS = {"iss": "a@b", "scope": "s", "aud": "u", "iat": 1, "exp": 2}
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


def test_service_account_trades_its_assertion_for_a_token() -> None:
    form = {"grant_type": GRANT, "assertion": assertion(**CLAIMS)}
    given = read(GEMINI, "/token", urlencode(form).encode(), headers={})
    assert given == Reply(
        {"access_token": "k", "expires_in": 3599, "token_type": "Bearer"}
    )


@pytest.mark.parametrize(
    "form",
    [
        {"grant_type": "password"},
        {"grant_type": GRANT},
        {"grant_type": GRANT, "assertion": "a.!!!.c"},
        {"grant_type": GRANT, "assertion": assertion(iss="a@b")},
    ],
)
def test_token_is_refused_without_an_assertion(form: dict[str, Any]) -> None:
    refused = read(GEMINI, "/token", urlencode(form).encode(), headers={})
    assert isinstance(refused, Refused)
    assert refused.status == 400


# --- errors -----------------------------------------------------------------


def test_wait_is_said_as_retry_info() -> None:
    error: Any = error_members(rate_limited("37"))["error"]
    assert (error["code"], error["status"]) == (429, "RESOURCE_EXHAUSTED")
    assert error["details"][-1] == {
        "@type": "type.googleapis.com/google.rpc.RetryInfo",
        "retryDelay": "37s",
    }
    assert GEMINI.error(rate_limited("37"))[1] == ()
    assert GEMINI.error(rate_limited("soon"))[1] == (("retry-after", "soon"),)


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (500, "INTERNAL"),
        (503, "UNAVAILABLE"),
        (504, "DEADLINE_EXCEEDED"),
        (529, "INTERNAL"),
        (418, "INVALID_ARGUMENT"),
    ],
)
def test_status_has_googles_name(status: int, name: str) -> None:
    error: Any = error_members(server_error(status))["error"]
    assert error["status"] == name


def test_each_refusal_is_an_error_in_googles_shape() -> None:
    for refused in REFUSALS.values():
        error: Any = error_members(refused)["error"]
        assert sorted(error) == ["code", "details", "message", "status"]
