"""A request that cannot be served is refused before it starts."""

from __future__ import annotations

import attrs
import pytest

from atomr_infer.errors import UnsupportedFeatureError
from atomr_infer.model.asks import (
    FormatKind,
    RawTool,
    ResponseFormat,
    Tool,
    ToolChoice,
    ToolMode,
)
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
from atomr_infer.model.capabilities import (
    ALL_SAMPLING,
    Capabilities,
    Feature,
    check_request,
    needs_fetching,
)
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    Inline,
    Part,
    RawPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Url,
)
from atomr_infer.model.source import Source

ASK = ExecuteBatch(request_id="r", model="m", messages=(Message(Role.USER, "hi"),))
PLAIN = Capabilities()
ALL = Capabilities(
    features=frozenset(Feature),
    sampling=ALL_SAMPLING,
    extra_of=frozenset({Dialect.OPENAI_CHAT}),
)
PNG = Inline("image/png", "AA==")
TOOLS = (Tool(name="f"),)


def with_part(part: Part) -> ExecuteBatch:
    return attrs.evolve(
        ASK,
        messages=(
            Message(Role.SYSTEM, "look"),
            Message(Role.USER, (TextPart("what is it?"), part)),
        ),
    )


def with_format(kind: FormatKind) -> ExecuteBatch:
    return attrs.evolve(ASK, response_format=ResponseFormat(kind=kind))


def with_extra(name: str, value: bytes) -> ExecuteBatch:
    return attrs.evolve(ASK, extra={name: value})


@pytest.mark.parametrize(
    ("batch", "param"),
    [
        (attrs.evolve(ASK, tools=TOOLS), "tools"),
        (attrs.evolve(ASK, tools=(RawTool("web_search", b"{}"),)), "tools"),
        (with_extra("functions", b'[{"name":"f"}]'), "functions"),
        (with_extra("web_search_options", b"{}"), "web_search_options"),
        (with_extra("mcp_servers", b'[{"type":"url"}]'), "mcp_servers"),
        (with_extra("cachedContent", b'"cachedContents/1"'), "cachedContent"),
        (with_extra("cached_content", b'"cachedContents/1"'), "cached_content"),
        (with_format(FormatKind.JSON_OBJECT), "response_format"),
        (with_format(FormatKind.JSON_SCHEMA), "response_format"),
        (attrs.evolve(ASK, sampling=Sampling(top_logprobs=0)), "logprobs"),
        (attrs.evolve(ASK, sampling=Sampling(n=2)), "n"),
        (with_part(ImagePart(source=PNG)), "messages[1].content"),
        (with_part(AudioPart(source=PNG)), "messages[1].content"),
        (with_part(FilePart(source=PNG)), "messages[1].content"),
        (with_part(RawPart("video_url", b"{}")), "messages[1].content"),
        (
            with_part(ToolCallPart(id="c", name="f", arguments="{}")),
            "messages[1].content",
        ),
        (
            with_part(ToolResultPart(call_id="c", content=(ImagePart(source=PNG),))),
            "messages[1].content",
        ),
    ],
)
def test_what_a_plain_model_lacks_is_refused_and_a_full_one_serves(
    batch: ExecuteBatch, param: str
) -> None:
    with pytest.raises(UnsupportedFeatureError) as raised:
        check_request(batch, PLAIN)

    assert raised.value.param == param
    assert check_request(batch, ALL) == ()


@pytest.mark.parametrize(
    "batch",
    [
        with_format(FormatKind.TEXT),
        attrs.evolve(ASK, tools=TOOLS, tool_choice=ToolChoice(mode=ToolMode.NONE)),
        with_extra("user", b'"me"'),
        with_extra("stream_options", b"{}"),
        with_extra("mcp_servers", b"[]"),
        with_extra("cachedContent", b"null"),
    ],
)
def test_asking_for_the_default_asks_for_nothing(batch: ExecuteBatch) -> None:
    assert check_request(batch, PLAIN) == ()


def test_a_picture_in_a_tool_result_needs_a_model_that_sees() -> None:
    batch = with_part(ToolResultPart(call_id="c", content=(ImagePart(source=PNG),)))
    tools_only = Capabilities(features=frozenset({Feature.CHAT, Feature.TOOLS}))

    with pytest.raises(UnsupportedFeatureError, match="images"):
        check_request(batch, tools_only)


def test_what_will_have_no_effect_is_named() -> None:
    batch = attrs.evolve(
        ASK,
        sampling=Sampling(temperature=0.5, seed=1, max_tokens=5, top_k=4),
        extra={"logit_bias": b"{}", "metadata": b"{}"},
    )

    # "metadata" asks for nothing that could be missed.
    assert check_request(batch, PLAIN) == (
        "logit_bias",
        "seed",
        "temperature",
        "top_k",
    )
    assert check_request(batch, ALL) == ()


def test_an_unknown_member_that_the_model_takes_has_an_effect() -> None:
    batch = attrs.evolve(ASK, extra={"min_p": b"0.1", "mirostat": b"2"})
    assert check_request(batch, PLAIN) == ("min_p", "mirostat")
    takes = attrs.evolve(PLAIN, members=frozenset({"min_p"}))
    assert check_request(batch, takes) == ("mirostat",)


def test_of_an_object_that_was_half_understood_the_rest_is_named() -> None:
    rest = b'{"responseModalities":["TEXT"],"speechConfig":{}}'
    batch = attrs.evolve(ASK, extra={"generationConfig": rest})
    assert check_request(batch, PLAIN) == (
        "generationConfig.responseModalities",
        "generationConfig.speechConfig",
    )


def test_a_chat_model_takes_a_bare_prompt_as_a_message_and_says_so() -> None:
    batch = attrs.evolve(ASK, prompt="hi")

    assert check_request(batch, PLAIN) == (
        "prompt as bare text (it was sent as a message)",
    )
    assert check_request(batch, ALL) == ()


def test_only_a_url_that_the_provider_does_not_fetch_is_fetched() -> None:
    by_url = with_part(ImagePart(source=Url("https://x/y.png")))

    assert needs_fetching(by_url, PLAIN)
    assert not needs_fetching(by_url, ALL)
    assert not needs_fetching(with_part(ImagePart(source=PNG)), PLAIN)


def test_nothing_is_fetched_for_a_request_that_is_passed_on() -> None:
    by_url = with_part(ImagePart(source=Url("https://x/y.png")))
    source = Source(Dialect.GEMINI, b"{}", None)
    passed_on = attrs.evolve(by_url, source=source)
    passing = attrs.evolve(PLAIN, passes=frozenset({Dialect.GEMINI}))

    assert not needs_fetching(passed_on, passing)
    assert needs_fetching(passed_on, PLAIN)
    assert needs_fetching(by_url, passing)
