"""Whatever is asked of whatever model, the provider takes what we send."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_infer.errors import UnsupportedFeatureError
from atomr_infer.model.asks import (
    Effort,
    FormatKind,
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
    FilePart,
    ImagePart,
    Inline,
    ReasoningPart,
    Signature,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Url,
)
from atomr_infer.testing.upstreams.anthropic_requests import message_call
from atomr_infer_anthropic.config import AnthropicOptions
from atomr_infer_anthropic.requests import make_count, make_request

MODELS = [
    "claude-fable-5-2",
    "claude-opus-5",
    "claude-sonnet-5",
    "claude-opus-4-8",
    "claude-opus-4-7",
    "claude-sonnet-4-6",
    "claude-opus-4-5",
    "claude-haiku-4-5",
    "claude-opus-4-1",
    "claude-sonnet-4-20250514",
    "claude-3-5-haiku-20241022",
]
PNG = "iVBORw0KGgoAAAANSUhEUg=="
SCHEMA = b'{"type":"object","properties":{"n":{"type":"integer","minimum":1}}}'
TOOL = Tool(name="f", parameters=SCHEMA)

_cache = st.sampled_from([None, None, CacheHint(), CacheHint(ttl="1h")])
_text = st.builds(TextPart, st.text(max_size=4), cache=_cache)
_media = st.sampled_from(
    [
        ImagePart(source=Inline("image/jpeg", PNG)),
        ImagePart(source=Url("https://x/y.png")),
        FilePart(source=Inline("text/plain", "YQ==")),
    ]
)
_thought = st.sampled_from(
    [
        ReasoningPart(text="hm"),
        ReasoningPart(text="hm", signature=Signature("s", Dialect.GEMINI)),
        ReasoningPart(data=Signature("d", Dialect.OPENAI_RESPONSES)),
    ]
)
_ids = st.lists(st.text(max_size=5), max_size=2, unique=True)


@st.composite
def _conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    messages = []
    for _ in range(draw(st.integers(1, 4))):
        role = draw(st.sampled_from([Role.USER, Role.ASSISTANT, Role.SYSTEM]))
        parts: list[Any] = draw(st.lists(_text, max_size=2))
        if role is Role.USER:
            parts += draw(st.lists(_media, max_size=1))
        calls: list[str] = []
        if role is Role.ASSISTANT:
            parts = [*draw(st.lists(_thought, max_size=1)), *parts]
            calls = draw(_ids)
        asked = [ToolCallPart(id=i, name="f", arguments="") for i in calls]
        messages.append(Message(role, (*parts, *asked)))
        messages += [
            Message(Role.TOOL, (ToolResultPart(call_id=i, content=()),)) for i in calls
        ]
    return tuple(messages)


_sampling = st.builds(
    Sampling,
    temperature=st.sampled_from([None, 0.0, 0.7, 2.0]),
    top_p=st.sampled_from([None, 0.9]),
    top_k=st.sampled_from([None, -1, 5]),
    max_tokens=st.sampled_from([None, 1, 1024, 2000, 10**9]),
    stop=st.sampled_from([(), ("END", " ")]),
)
_choice = st.sampled_from(
    [
        None,
        ToolChoice(mode=ToolMode.REQUIRED),
        ToolChoice(mode=ToolMode.NONE),
        ToolChoice(mode=ToolMode.REQUIRED, names=("f",)),
    ]
)
_reasoning = st.none() | st.builds(
    Reasoning,
    effort=st.none() | st.sampled_from(Effort),
    budget_tokens=st.sampled_from([None, -1, 0, 5, 5000, 10**6]),
    include=st.sampled_from([None, True, False]),
    adaptive=st.booleans(),
)
_form = st.sampled_from(
    [
        None,
        ResponseFormat(kind=FormatKind.JSON_OBJECT),
        ResponseFormat(kind=FormatKind.JSON_SCHEMA, schema=SCHEMA),
    ]
)
_batches = st.builds(
    ExecuteBatch,
    request_id=st.just("r"),
    model=st.sampled_from(MODELS),
    messages=_conversations(),
    sampling=_sampling,
    tools=st.sampled_from([(), (TOOL, Tool(name="g", strict=True))]),
    tool_choice=_choice,
    parallel_tool_calls=st.sampled_from([None, True, False]),
    reasoning=_reasoning,
    response_format=_form,
    user=st.sampled_from([None, "u"]),
)


def _version(headers: Any) -> str:
    version: str = dict(headers)["anthropic-version"]
    return version


# The one thing that cannot be approximated: to go on with an assistant's text.
_UNSUPPORTED = pytest.raises(UnsupportedFeatureError, match="does not continue")


def _goes_on(batch: ExecuteBatch) -> bool:
    try:
        make_request(batch, AnthropicOptions())
    except UnsupportedFeatureError:
        return False
    return True


@settings(max_examples=100)
@given(_batches)
def test_the_provider_takes_every_request(batch: ExecuteBatch) -> None:
    if not _goes_on(batch):
        with _UNSUPPORTED:
            make_request(batch, AnthropicOptions())
        return
    request = make_request(batch, AnthropicOptions())
    version = _version(request.headers)
    message_call(json.loads(request.body), version=version, counting=False)


@settings(max_examples=50)
@given(_batches.filter(_goes_on))
def test_the_provider_counts_every_request(batch: ExecuteBatch) -> None:
    body, headers = make_count(batch, AnthropicOptions())
    message_call(json.loads(body), version=_version(headers), counting=True)


def test_the_fake_would_refuse_what_is_not_taken() -> None:
    """So that the tests above can fail."""
    members = {"model": MODELS[1], "max_tokens": 1, "messages": [], "temperature": 1}
    with pytest.raises(Exception, match="temperature"):
        message_call(members, version="2026-10-21", counting=False)
