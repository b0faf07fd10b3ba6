"""The anthropic fake takes what Anthropic takes, and refuses the rest in its words."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from atomr_infer.testing.upstream_script import Refused
from atomr_infer.testing.upstreams.anthropic import AnthropicDialect
from atomr_infer.testing.upstreams.anthropic_models import signature_of
from atomr_infer.testing.upstreams.call import Media, Operation
from atomr_infer.testing.upstreams.dialect import Reply
from tests.testing_kit.reading import HEADERS, read, understood
from tests.testing_kit.sdks import PNG, SCHEMA

ANTHROPIC = AnthropicDialect()
MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
OLD, NEW = "2023-06-01", "2026-10-21"
HI = {"role": "user", "content": "hi there"}
ENCODED = base64.b64encode(PNG).decode()
USE = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
USED = {"role": "assistant", "content": [USE]}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "ok fine"}
ANSWERED = {"role": "user", "content": [RESULT]}
TOOL = {"name": "f", "input_schema": {"type": "object"}}


def ask(**members: Any) -> dict[str, Any]:
    model = "claude-sonnet-4-5"
    return {"model": model, "max_tokens": 99, "messages": [HI], **members}


def said(*blocks: dict[str, Any], role: str = "user") -> dict[str, Any]:
    turn = {"role": role, "content": list(blocks)}
    return ask(messages=[turn] if role == "user" else [HI, turn, HI])


def image(**source: Any) -> dict[str, Any]:
    plain = {"type": "base64", "media_type": "image/png", "data": ENCODED}
    return said({"type": "image", "source": {**plain, **source}})


def version(value: str | None) -> dict[str, str]:
    without = {k: v for k, v in HEADERS.items() if k != "anthropic-version"}
    return without if value is None else {**without, "anthropic-version": value}


def test_call_is_what_was_asked() -> None:
    picture = {"type": "base64", "media_type": "image/png", "data": ENCODED}
    paper = {"type": "url", "url": "https://x/y.pdf"}
    members = ask(
        system=[{"type": "text", "text": "be brief"}],
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image", "source": picture},
                    {"type": "document", "source": paper},
                    {"type": "text", "text": "what is this"},
                ],
            },
            USED,
            ANSWERED,
        ],
        stream=True,
        stop_sequences=["x"],
        temperature=0.5,
        thinking={"type": "disabled"},
        tools=[TOOL],
        output_config={"format": {"type": "json_schema", "schema": SCHEMA}},
    )
    call = understood(ANTHROPIC, MESSAGES, members)
    assert (call.operation, call.route) == (Operation.GENERATE, "messages")
    assert (call.stream, call.max_tokens, call.stop) == (True, 99, ("x",))
    assert (call.reasoning, call.schema) == (False, SCHEMA)
    assert call.prompt_tokens == 2 + 3 + 2
    assert call.media == (
        Media("image/png", len(PNG)),
        Media("", url="https://x/y.pdf"),
    )


def test_a_beta_makes_its_member_known() -> None:
    members = ask(context_management={"edits": [{"type": "clear_thinking_20251015"}]})
    refused = read(ANTHROPIC, MESSAGES, members)
    assert isinstance(refused, Refused)
    assert refused.message == "context_management: Extra inputs are not permitted"
    betas = {"anthropic-beta": "claude-code-20250219,context-management-2025-06-27"}
    understood(ANTHROPIC, MESSAGES, members, headers={**HEADERS, **betas})


REFUSED: list[tuple[Any, str]] = [
    (b"{", "The body is not valid JSON"),
    (ask(foo=1), "foo: Extra inputs are not permitted"),
    ({"model": "m", "messages": [HI]}, "max_tokens: Field required"),
    ({"max_tokens": 1, "messages": [HI]}, "model: Field required"),
    ({"model": "m", "max_tokens": 1}, "messages: Field required"),
    (ask(max_tokens=0), "max_tokens: Input should be greater than or equal to 1"),
    (ask(messages=[]), "messages: at least one message is required"),
    (ask(messages="hi"), "messages: Input should be a valid list"),
    (ask(messages=[{"role": "user"}]), "messages.0.content: Field required"),
    (
        ask(messages=[{**HI, "name": "x"}]),
        "messages.0.name: Extra inputs are not permitted",
    ),
    (
        ask(messages=[{"role": "system", "content": "x"}, HI]),
        'messages: Unexpected role "system".',
    ),
    (
        ask(messages=[{"role": "tool", "content": "x"}]),
        "messages.0.role: Input should be 'user' or 'assistant'",
    ),
    (
        ask(messages=[{"role": "assistant", "content": "x"}, HI]),
        'messages: first message must use the "user" role',
    ),
    (
        ask(messages=[{"role": "user", "content": ""}]),
        "messages.0: all messages must have non-empty content",
    ),
    (
        ask(messages=[HI, {"role": "assistant", "content": "x "}]),
        "messages: final assistant content cannot end with trailing whitespace",
    ),
    (
        ask(
            model="claude-opus-4-6",
            messages=[HI, {"role": "assistant", "content": "x"}],
        ),
        "This model does not support assistant message prefill.",
    ),
    (said({"type": "text", "text": ""}), "messages: text content blocks must be"),
    (
        said({"type": "image_url"}),
        "messages.0.content.0: Input tag 'image_url' found using 'type' does not match",
    ),
    (said(USE), "messages.0.content.0: Input tag 'tool_use' found"),
    (said(RESULT), "messages.0.content.0: unexpected `tool_use_id` found"),
    (
        ask(messages=[HI, USED]),
        "messages.1: `tool_use` ids were found without `tool_result` blocks"
        " immediately after: t1.",
    ),
    (ask(messages=[HI, USED, HI]), "messages.1: `tool_use` ids were found without"),
    (
        ask(messages=[HI, USED, {"role": "user", "content": [RESULT, RESULT]}]),
        "messages.2.content.1: each tool_use must have a single result. Found"
        " multiple `tool_result` blocks with id: t1",
    ),
    (
        ask(
            messages=[
                HI,
                USED,
                {"role": "user", "content": [{"type": "text", "text": "x"}, RESULT]},
            ]
        ),
        "messages.1: `tool_use` ids were found without",
    ),
    (
        said({**USE, "input": "{}"}, role="assistant"),
        "messages.1.content.0.tool_use.input: Input should be a valid dictionary",
    ),
    (
        said({**USE, "id": "a b"}, role="assistant"),
        "messages.1.content.0.tool_use.id: String should match pattern",
    ),
    (
        said({"type": "thinking", "thinking": "x", "signature": "y"}, role="assistant"),
        "messages.1.content.0: Invalid `signature` in `thinking` block",
    ),
    (
        image(media_type="image/bmp"),
        "messages.0.content.0.image.source.base64.media_type: Input should be",
    ),
    (
        image(media_type="image/gif"),
        "messages.0.content.0.image.source.base64.data: Image does not match the"
        " provided media type image/gif",
    ),
    (
        image(data="!"),
        "messages.0.content.0.image.source.base64.data: Invalid base64 data",
    ),
    (
        image(type="url", url="http://x/y.png"),
        "messages.0.content.0.image.source.url: Only HTTPS URLs are supported.",
    ),
    (ask(temperature=1.5), "temperature: Input should be less than or equal to 1"),
    (ask(top_k=-1), "top_k: Input should be greater than or equal to 0"),
    (ask(top_p="x"), "top_p: Input should be a valid number"),
    (ask(temperature=1, top_p=1), "`temperature` and `top_p` cannot both be specified"),
    (ask(stop_sequences=[" \n"]), "stop_sequences: each stop sequence must contain"),
    (
        ask(output_config={"format": {"type": "json_schema"}}),
        "output_config.format.schema: Field required",
    ),
    (
        ask(
            output_config={
                "format": {"type": "json_schema", "schema": {"type": "object"}}
            }
        ),
        "output_config.format.schema: For 'object' type, 'additionalProperties' must",
    ),
    (ask(output_config={"effort": "minimal"}), "output_config.effort: Input should be"),
    (ask(tools=[{"name": "f"}]), "tools.0.custom.input_schema: Field required"),
    (
        ask(tools=[{"name": "f", "input_schema": {}}]),
        "tools.0.custom.input_schema.type: Input should be 'object'",
    ),
    (
        ask(tools=[{"name": "a b", "input_schema": {"type": "object"}}]),
        "tools.0.custom.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'",
    ),
    (ask(tools=[TOOL, TOOL]), "tools: Tool names must be unique."),
    (ask(tool_choice={"type": "any"}), "tool_choice may only be specified while"),
    (
        ask(tools=[TOOL], tool_choice={"type": "required"}),
        "tool_choice: Input tag 'required' found using 'type' does not match",
    ),
    (
        ask(tools=[TOOL], tool_choice={"type": "tool", "name": "g"}),
        "Tool 'g' not found in provided tools",
    ),
    (
        ask(thinking={"type": "enabled", "budget_tokens": 5}),
        "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024",
    ),
    (
        ask(thinking={"type": "enabled", "budget_tokens": 1024}),
        "`max_tokens` must be greater than `thinking.budget_tokens`.",
    ),
    (
        ask(
            model="claude-opus-4-7",
            max_tokens=2000,
            thinking={"type": "enabled", "budget_tokens": 1024},
        ),
        '"thinking.type.enabled" is not supported for this model.',
    ),
    (
        ask(thinking={"type": "adaptive"}, temperature=0.5),
        "`temperature` may only be set to 1 when thinking is enabled.",
    ),
    (
        ask(thinking={"type": "adaptive"}, tools=[TOOL], tool_choice={"type": "any"}),
        "Thinking may not be enabled when tool_choice forces tool use.",
    ),
    (
        said(
            *[{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}] * 5
        ),
        "A maximum of 4 blocks with cache_control may be provided. Found 5.",
    ),
    (
        said({"type": "text", "text": "x", "cache_control": {"type": "forever"}}),
        "cache_control.ephemeral.ttl: Input should be '5m' or '1h'",
    ),
]


@pytest.mark.parametrize(("members", "words"), REFUSED)
def test_message_is_refused_in_anthropics_words(members: Any, words: str) -> None:
    refused = read(ANTHROPIC, MESSAGES, members)
    assert isinstance(refused, Refused), refused
    assert refused.status == 400
    assert refused.message.startswith(words)


@pytest.mark.parametrize(
    "members",
    [
        ask(messages=[HI, HI]),
        ask(messages=[HI, {"role": "assistant", "content": "x"}]),
        ask(model="claude-opus-4-8", messages=[HI, {"role": "system", "content": "x"}]),
        ask(messages=[HI, USED, ANSWERED]),
        ask(temperature=1.0, thinking={"type": "adaptive"}),
        ask(model="claude-3-5-sonnet-20240620", temperature=1, top_p=0.5),
        said(
            {"type": "thinking", "thinking": "x", "signature": signature_of("x")},
            {"type": "text", "text": "y"},
            role="assistant",
        ),
        said(
            {"type": "thinking", "thinking": "", "signature": signature_of("")},
            {"type": "text", "text": "y"},
            role="assistant",
        ),
    ],
)
def test_message_that_anthropic_takes_is_taken(members: Any) -> None:
    understood(ANTHROPIC, MESSAGES, members)


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_new_version_refuses_sampling_and_the_old_one_takes_it(name: str) -> None:
    members = ask(**{name: 1})
    understood(ANTHROPIC, MESSAGES, members, headers=version(OLD))
    refused = read(ANTHROPIC, MESSAGES, members, headers=version(NEW))
    assert isinstance(refused, Refused)
    assert (refused.status, refused.message) == (
        400,
        f"{name}: Sampling parameters are not supported with anthropic-version {NEW}",
    )


@pytest.mark.parametrize(
    "members",
    [
        said({"type": "text", "text": "x", "citations": [{"type": "char_location"}]}),
        said(
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "x"},
            },
            role="assistant",
        ),
    ],
)
def test_new_version_refuses_documents_and_citations_where_they_do_not_belong(
    members: Any,
) -> None:
    understood(ANTHROPIC, MESSAGES, members, headers=version(OLD))
    assert isinstance(read(ANTHROPIC, MESSAGES, members, headers=version(NEW)), Refused)


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        (version(None), 400, "anthropic-version: header is required"),
        (version("2020-01-01"), 400, 'anthropic-version: "2020-01-01" is not a valid'),
        ({"anthropic-version": NEW}, 401, "x-api-key header is required"),
        ({**version(NEW), "authorization": "Bearer no"}, 401, "invalid x-api-key"),
        # Where both came, Anthropic reads this one.
        ({**version(NEW), "x-api-key": "no"}, 401, "invalid x-api-key"),
    ],
)
def test_key_and_version_are_asked_for(
    headers: dict[str, str], status: int, words: str
) -> None:
    refused = read(ANTHROPIC, MESSAGES, ask(), headers=headers)
    assert isinstance(refused, Refused)
    assert (refused.status, refused.message[: len(words)]) == (status, words)


@pytest.mark.parametrize("key", [{"x-api-key": "k"}, {"authorization": "Bearer k"}])
def test_key_is_taken_from_either_header(key: dict[str, str]) -> None:
    understood(ANTHROPIC, MESSAGES, ask(), headers={"anthropic-version": NEW, **key})


def test_tokens_are_counted_without_max_tokens() -> None:
    call = understood(ANTHROPIC, COUNT, {"model": "m", "messages": [HI], "system": "a"})
    assert (call.operation, call.prompt_tokens) == (Operation.COUNT, 3)
    refused = read(ANTHROPIC, COUNT, ask())
    assert isinstance(refused, Refused)
    assert refused.message == "max_tokens: Extra inputs are not permitted"


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/v1/complete", "POST", 404),
        (MESSAGES, "GET", 405),
        ("/v1/models", "POST", 405),
        ("/v1/models/other", "GET", 404),
    ],
)
def test_path_that_anthropic_does_not_have_is_refused(
    path: str, method: str, status: int
) -> None:
    refused = read(ANTHROPIC, path, ask(), method=method)
    assert isinstance(refused, Refused)
    assert refused.status == status


def test_models_are_listed() -> None:
    listed = read(ANTHROPIC, "/v1/models", method="GET")
    assert isinstance(listed, Reply)
    members: Any = listed.members
    assert [model["id"] for model in members["data"]] == list(ANTHROPIC.models)
    assert (members["first_id"], members["last_id"]) == (
        ANTHROPIC.models[0],
        ANTHROPIC.models[-1],
    )
