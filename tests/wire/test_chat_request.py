"""Reading chat requests: what is kept, what is refused, and how it says so."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atomr_infer.errors import InvalidRequestError
from atomr_infer.model.asks import Tool
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
from atomr_infer.model.parts import (
    ImagePart,
    Inline,
    RawPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from atomr_infer.wire.ingress import Asked, Call
from atomr_infer.wire.openai.chat_request import parse_chat_request

USER = {"role": "user", "content": "hi"}


def ask(data: bytes) -> Asked:
    return parse_chat_request(Call(request_id="r", body=data))


def read(data: bytes) -> ExecuteBatch:
    return ask(data).batch


def body(**members: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [USER], **members}).encode()


def test_a_full_request_keeps_every_member() -> None:
    asked = ask(
        body(
            temperature=0.5,
            top_p=1,
            max_tokens=7,
            stop="END",
            seed=3,
            presence_penalty=-1,
            frequency_penalty=2,
            n=2,
            stream=True,
            stream_options={"include_usage": True},
            user="me",
            tools=[{"type": "function", "function": {"name": "f"}}],
            store=True,
        )
    )
    request = asked.batch
    assert request.model == "m"
    assert request.messages == (Message(Role.USER, "hi"),)
    assert request.sampling == Sampling(
        temperature=0.5,
        top_p=1.0,
        max_tokens=7,
        stop=("END",),
        seed=3,
        presence_penalty=-1.0,
        frequency_penalty=2.0,
        n=2,
    )
    assert request.stream
    assert asked.include_usage
    assert request.user == "me"
    assert request.tools == (Tool(name="f"),)
    assert request.extra == {"store": b"true"}


def test_nulls_mean_not_said() -> None:
    request = read(
        body(temperature=None, stop=None, stream=None, stream_options=None, n=None)
    )
    assert request.sampling == Sampling()
    assert not request.stream
    assert request.extra == {}


def test_the_new_spelling_of_max_tokens_wins_and_is_remembered() -> None:
    request = read(body(max_tokens=5, max_completion_tokens=9))
    assert request.sampling.max_tokens == 9
    assert request.extra == {"max_completion_tokens": b"9"}


def test_text_parts_and_other_parts_are_told_apart() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    video = {"type": "video_url", "video_url": {"url": "https://x"}}
    text = {"type": "text", "text": "a"}
    messages = [{"role": "user", "content": [text, image, video]}]
    request = read(body(messages=messages))
    assert request.messages[0].content == (
        TextPart("a"),
        ImagePart(source=Inline("image/png", "AA==")),
        RawPart("video_url", json.dumps(video).encode()),
    )


def test_a_tool_turn_is_kept_as_it_came() -> None:
    call = [{"id": "c1", "type": "function", "function": {"name": "f"}}]
    messages = [
        USER,
        {"role": "assistant", "tool_calls": call},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]
    request = read(body(messages=messages))
    assert request.messages[1].content == (
        ToolCallPart(id="c1", name="f", arguments=""),
    )
    assert request.messages[2].content == (
        ToolResultPart(call_id="c1", content=(TextPart("42"),)),
    )


@pytest.mark.parametrize(
    ("raw", "param", "words"),
    [
        (b"", None, "not valid JSON"),
        (b"{", None, "not valid JSON"),
        (b"\xff\xfe", None, "not valid JSON"),
        (b'{"model":"\\ud800"}', None, "JSON: a surrogate stands alone (byte 10)"),
        (b'{"model":"\\ud83d\\ude00\\ude00"}', None, "invalid utf-16 surrogate"),
        (b'{"model":"\\ud83d\\ude00","mes', None, "truncated"),
        (b'{"model":"m\xe4"}', "model", "is not UTF-8"),
        (b"[]", None, "must be a JSON object"),
        (b'"x"', None, "must be a JSON object"),
        (b'{"messages": []}', "model", "'model' is required"),
        (body(model=5), "model", "must be a string, not 5"),
        (body(model=""), "model", "must not be empty"),
        (b'{"model": "m"}', "messages", "is required"),
        (body(messages=[]), "messages", "at least one message"),
        (body(messages="hi"), "messages", "must be a list of messages"),
        (body(messages=[1]), "messages[0]", "must be an object"),
        (body(messages=[USER, {}]), "messages[1].role", "is required"),
        (
            body(messages=[{"role": "king", "content": ""}]),
            "messages[0].role",
            "must be one of system, developer, user, assistant, tool, not 'king'",
        ),
        (body(messages=[{"role": "user"}]), "messages[0].content", "is required"),
        (
            body(messages=[{"role": "user", "content": 3}]),
            "messages[0].content",
            "a string or a list of parts",
        ),
        (
            body(messages=[{"role": "user", "content": [{"type": "text"}]}]),
            "messages[0].content[0].text",
            "is required",
        ),
        (body(temperature=3), "temperature", "must be between 0 and 2, not 3"),
        (body(temperature="hot"), "temperature", "must be a number"),
        (body(temperature=True), "temperature", "must be a number"),
        (body(n=0), "n", "must be between 1 and 128"),
        (body(seed=2**64), "seed", "must be between"),
        (body(seed=-(2**63) - 1), "seed", "must be between"),
        (body(max_tokens=0), "max_tokens", "must be between 1"),
        (body(stop=[1]), "stop", "a string or a list of strings"),
        (body(stop=[""]), "stop", "empty string"),
        (body(stream="yes"), "stream", "true or false"),
        (
            body(stream_options={"include_usage": True}),
            "stream_options",
            "only allowed when 'stream' is true",
        ),
    ],
)
def test_a_mistake_names_the_member(raw: bytes, param: str | None, words: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read(raw)
    assert caught.value.param == param
    assert words in caught.value.message


def test_deep_nesting_is_refused_and_not_a_crash() -> None:
    deep = b'{"model":"m","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(InvalidRequestError):
        read(deep)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_request_or_a_typed_refusal(raw: bytes) -> None:
    # Any other exception would fail the test.
    with contextlib.suppress(InvalidRequestError):
        read(raw)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
_names = st.sampled_from(["model", "messages", "stop", "n", "stream", "stream_options"])


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(_names, _json, max_size=4))
def test_any_json_gives_a_request_or_a_typed_refusal(members: dict[str, Any]) -> None:
    # Any other exception would fail the test.
    with contextlib.suppress(InvalidRequestError):
        read(json.dumps({"model": "m", **members}).encode())
