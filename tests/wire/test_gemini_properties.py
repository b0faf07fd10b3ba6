"""What holds for every input: no other error than ours, and nothing is lost."""

from __future__ import annotations

import random
from base64 import b64encode
from contextlib import suppress
from itertools import count
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from atomr_infer import errors
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    ReasoningDelta,
    Role,
    TokenChunk,
    ToolCallDelta,
)
from atomr_infer.model.collected import Collected
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import (
    ImagePart,
    Inline,
    ReasoningPart,
    Signature,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from atomr_infer.model.usage import Usage
from atomr_infer.testing.upstreams.checks import Invalid
from atomr_infer.testing.upstreams.gemini_requests import read_call
from atomr_infer.wire.gemini.embeddings import parse_batch_embed, parse_embed
from atomr_infer.wire.gemini.ingress import ARRAY_TYPE, GEMINI
from atomr_infer.wire.gemini.request import parse_count
from atomr_infer.wire.gemini.signatures import from_wire, to_wire
from atomr_infer.wire.gemini.upstream import Rules, encode_request
from atomr_infer.wire.gemini.upstream_raw import RawAnswer
from atomr_infer.wire.gemini.upstream_stream import GeminiAnswer
from atomr_infer.wire.ingress import AnswerFacts, Asked, Call

# Enough to find what is wrong within a few runs, and quick in each.
FEW = settings(max_examples=30)

FACTS = AnswerFacts(request_id="r-1", created_s=1, model="m-1")

# --- requests ---------------------------------------------------------------

NAMES = st.sampled_from(
    (
        "contents",
        "role",
        "parts",
        "text",
        "thought",
        "thoughtSignature",
        "inlineData",
        "mimeType",
        "data",
        "fileData",
        "fileUri",
        "functionCall",
        "functionResponse",
        "name",
        "args",
        "id",
        "response",
        "result",
        "error",
        "systemInstruction",
        "system_instruction",
        "tools",
        "functionDeclarations",
        "parameters",
        "parametersJsonSchema",
        "properties",
        "items",
        "type",
        "nullable",
        "anyOf",
        "enum",
        "googleSearch",
        "toolConfig",
        "functionCallingConfig",
        "mode",
        "allowedFunctionNames",
        "generationConfig",
        "temperature",
        "topK",
        "candidateCount",
        "maxOutputTokens",
        "stopSequences",
        "seed",
        "responseMimeType",
        "responseSchema",
        "responseJsonSchema",
        "responseLogprobs",
        "logprobs",
        "thinkingConfig",
        "thinkingLevel",
        "thinkingBudget",
        "safetySettings",
        "content",
        "requests",
        "model",
        "embedContentConfig",
        "generateContentRequest",
    )
)
WORDS = st.sampled_from(
    ["user", "model", "function", "STRING", "OBJECT", "ANY", "LOW", "application/json"]
)
# Few characters, each for a reason of its own.
TEXTS = st.text('a "\\\n\u00e9\u2028\U0001d11e', max_size=4)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS
    | TEXTS
)
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4)
    ),
    max_leaves=20,
)

PARSERS = [GEMINI.parse, parse_count, parse_embed, parse_batch_embed]

SOUND: dict[str, Any] = {
    "contents": [
        {
            "role": "user",
            "parts": [{"text": "hi"}, {"fileData": {"fileUri": "gs://x"}}],
        },
        {
            "role": "model",
            "parts": [
                {"text": "t", "thought": True},
                {"functionCall": {"name": "f", "args": {"a": 1}}},
            ],
        },
        {
            "role": "user",
            "parts": [{"functionResponse": {"name": "f", "response": {"result": "x"}}}],
        },
    ],
    "systemInstruction": {"parts": [{"text": "be"}]},
    "tools": [
        {
            "functionDeclarations": [
                {
                    "name": "f",
                    "parameters": {
                        "type": "OBJECT",
                        "properties": {"a": {"type": "INTEGER", "nullable": True}},
                    },
                }
            ]
        },
        {"googleSearch": {}},
    ],
    "toolConfig": {"functionCallingConfig": {"mode": "ANY"}},
    "generationConfig": {
        "temperature": 0.5,
        "stopSequences": ["x"],
        "responseMimeType": "application/json",
        "responseSchema": {"type": "STRING"},
        "thinkingConfig": {"thinkingBudget": 3},
    },
    "content": {"parts": [{"text": "a"}]},
    "requests": [{"content": {"parts": [{"text": "a"}]}}],
}


def _call(body: bytes) -> Call:
    return Call(
        request_id="r-1", body=body, model="gemini-x", action="streamGenerateContent"
    )


def _parse_all(body: bytes) -> None:
    for parse in PARSERS:
        with suppress(errors.InvalidRequestError):
            parse(_call(body))


@given(st.binary(max_size=60))
def test_bytes_of_any_kind_are_read_or_refused(body: bytes) -> None:
    _parse_all(body)


@given(st.dictionaries(NAMES, JSON, max_size=6))
@example({"contents": [{"parts": [{"thoughtSignature": "é"}]}]})
@FEW
def test_objects_of_any_shape_are_read_or_refused(body: Any) -> None:
    _parse_all(msgspec.json.encode(body))


@given(st.data())
@FEW
def test_sound_request_with_one_value_changed_is_read_or_refused(data: Any) -> None:
    body = msgspec.json.decode(msgspec.json.encode(SOUND))
    place: Any = body
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            break
        place = inner
    place[key] = data.draw(JSON)
    _parse_all(msgspec.json.encode(body))


def test_sound_request_is_sound() -> None:
    for parse in PARSERS:
        parse(_call(msgspec.json.encode(SOUND)))


# --- conversations ----------------------------------------------------------

SIGNATURES = st.none() | st.builds(
    Signature, st.just("c2ln"), st.sampled_from([Dialect.GEMINI, Dialect.ANTHROPIC])
)
USER_PARTS = st.builds(TextPart, TEXTS) | st.just(
    ImagePart(source=Inline("image/png", "iVBORw0KGgoAAAANSUhEUg=="))
)
MODEL_PARTS = st.builds(TextPart, TEXTS, signature=SIGNATURES) | st.builds(
    ReasoningPart, text=TEXTS, signature=SIGNATURES
)
ARGUMENTS = st.dictionaries(TEXTS, LEAVES, max_size=2).map(
    lambda value: msgspec.json.encode(value).decode()
)
PLAIN_MESSAGES = st.builds(
    Message,
    st.sampled_from([Role.SYSTEM, Role.DEVELOPER]),
    TEXTS,
) | st.builds(Message, st.just(Role.USER), st.lists(USER_PARTS, max_size=3).map(tuple))


@st.composite
def exchanges(draw: Any) -> list[Message]:
    """Return an assistant's turn with calls, and their results in any order."""
    said = draw(st.lists(MODEL_PARTS, max_size=2))
    numbers = range(draw(st.integers(0, 3)))
    tag = draw(st.integers(0, 10**6))
    calls = [
        ToolCallPart(id=f"{tag}-{n}", name=f"f{n}", arguments=draw(ARGUMENTS))
        for n in numbers
    ]
    results = [
        Message(Role.TOOL, (ToolResultPart(call_id=call.id, content=(TextPart("r"),)),))
        for call in draw(st.permutations(calls))
    ]
    return [Message(Role.ASSISTANT, (*said, *calls)), *results]


CONVERSATIONS = st.lists(
    PLAIN_MESSAGES.map(lambda message: [message]) | exchanges(), min_size=1, max_size=5
).map(lambda turns: tuple(message for turn in turns for message in turn))


@given(CONVERSATIONS)
@FEW
def test_conversation_is_written_so_that_gemini_takes_it(
    messages: tuple[Message, ...],
) -> None:
    batch = ExecuteBatch(request_id="r-1", model="gemini-2.5-flash", messages=messages)
    try:
        encoded = encode_request(batch)
    except errors.InvalidRequestError:
        # Nothing was said, or the last turn is the assistant's.
        return
    body = msgspec.json.decode(encoded.body)
    try:
        read_call(
            "generateContent", body, model="gemini-2.5-flash", vertex=True, sse=False
        )
    except Invalid as refused:
        pytest.fail(f"{refused.message} of {body}")


@given(CONVERSATIONS)
@FEW
def test_conversation_that_went_round_is_written_the_same(
    messages: tuple[Message, ...],
) -> None:
    batch = ExecuteBatch(request_id="r-1", model="gemini-x", messages=messages)
    try:
        once = encode_request(batch, rules=Rules(signed_calls=True)).body
    except errors.InvalidRequestError:
        return
    read = GEMINI.parse(_call(once)).batch
    again = encode_request(read, rules=Rules(signed_calls=True)).body
    assert msgspec.json.decode(again) == msgspec.json.decode(once)


# --- answers ----------------------------------------------------------------

CALLS = st.builds(
    ToolCallDelta,
    index=st.integers(0, 2),
    id=st.just("id"),
    name=st.just("f"),
    arguments=ARGUMENTS,
)
CHUNKS = st.builds(
    TokenChunk,
    text=TEXTS,
    index=st.integers(0, 1),
    reasoning=st.none() | st.builds(ReasoningDelta, text=TEXTS),
)


def _whole_calls(chunks: list[TokenChunk]) -> list[TokenChunk]:
    """Give each choice a few calls, one after the other, and a finish."""
    generator = random.Random(len(chunks))
    ended: list[TokenChunk] = []
    for index in (0, 1):
        for number in range(generator.randrange(3)):
            pieces = [
                ToolCallDelta(index=number, id=f"c{number}", name="f"),
                ToolCallDelta(index=number, arguments='{"a":'),
                ToolCallDelta(index=number, arguments="[1]}"),
            ]
            ended += [TokenChunk(index=index, tool_calls=(each,)) for each in pieces]
        ended.append(TokenChunk(index=index, finish_reason=FinishReason.STOP))
    usage = Usage(input_uncached=3, output_text=2)
    return [*chunks, *ended, TokenChunk(usage=usage)]


def _told(chunks: list[Any]) -> list[tuple[str, list[Any], str]]:
    """Return the text, the calls and the thoughts of each choice."""
    collected = Collected()
    for chunk in chunks:
        collected.add(chunk)
    return [
        (
            collected.choice(index).text,
            [
                (call.id, call.name, call.arguments)
                for call in collected.choice(index).tool_calls
            ],
            "".join(part.text for part in collected.choice(index).reasoning),
        )
        for index in (0, 1)
    ]


def _reader() -> GeminiAnswer:
    numbers = count()
    batch = ExecuteBatch(
        request_id="r-1", model="m", messages=(Message(Role.USER, "hi"),)
    )
    batch = attrs.evolve(batch, sampling=attrs.evolve(batch.sampling, n=2))
    return GeminiAnswer(batch, new_id=lambda: f"new{next(numbers)}")


@given(st.lists(CHUNKS, max_size=8), st.booleans())
@FEW
def test_written_answer_says_what_was_said(
    chunks: list[TokenChunk], as_array: bool
) -> None:
    chunks = _whole_calls(chunks)
    asked = Asked(batch=_reader()._batch)
    if as_array:
        asked = attrs.evolve(asked, stream_type=ARRAY_TYPE)
    encoder = GEMINI.stream(asked, FACTS)
    body = b"".join(map(encoder.encode, chunks)) + encoder.end()
    reader = _reader()
    read = [*reader.feed(body), *reader.close()]
    assert _told(read) == _told(chunks)
    assert read[-1].usage == chunks[-1].usage
    builder = GEMINI.whole(asked, FACTS)
    for chunk in chunks:
        builder.add(chunk)
    whole = _reader().whole(builder.build())
    assert _told(whole) == _told(chunks)


@given(
    st.lists(st.builds(TokenChunk, tool_calls=st.tuples(CALLS)) | CHUNKS, max_size=6)
)
@FEW
def test_encoder_takes_what_a_careless_runner_sends(chunks: list[TokenChunk]) -> None:
    encoder = GEMINI.stream(Asked(batch=_reader()._batch), FACTS)
    body = b"".join(map(encoder.encode, chunks)) + encoder.end()
    for frame in body.split(b"\n\n")[:-1]:
        assert frame.startswith(b"data: {")
        msgspec.json.decode(frame.removeprefix(b"data: "))


@given(st.binary(max_size=80) | JSON.map(msgspec.json.encode), st.booleans())
@example(b'[{"candidates":[{"content":{"parts":[{"text":"a"}]}}]},', False)
@FEW
def test_stream_of_any_bytes_is_read_or_an_error_of_ours(
    body: bytes, framed: bool
) -> None:
    data = b"data: " + body + b"\n\n" if framed else body
    for answer in (_reader(), RawAnswer(_reader()._batch)):
        with suppress(errors.InferenceError):
            answer.feed(data)
            answer.close()
        with suppress(errors.InferenceError):
            answer.whole(body)


@given(TEXTS, st.sampled_from(Dialect), st.booleans(), st.booleans())
def test_signature_comes_back_as_it_was(
    text: str, origin: Dialect, encrypted: bool, other_alphabet: bool
) -> None:
    if origin is Dialect.GEMINI:
        text = b64encode(text.encode()).decode()
    signature = Signature(text, origin)
    told = to_wire(signature, encrypted=encrypted)
    assert told == text or origin is not Dialect.GEMINI or encrypted
    if other_alphabet:
        told = told.replace("+", "-").replace("/", "_").rstrip("=")
    assert from_wire(told) == (signature, encrypted)
