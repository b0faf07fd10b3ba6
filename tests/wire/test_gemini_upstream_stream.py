"""What a Gemini upstream answers, as the contract's chunks."""

from __future__ import annotations

from itertools import count
from typing import Any

import attrs
import msgspec
import pytest

from atomr_infer import errors
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    RawChunk,
    ReasoningDelta,
    Role,
    Sampling,
    TokenChunk,
    ToolCallDelta,
)
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import Signature
from atomr_infer.model.secret import Secret
from atomr_infer.model.usage import Usage
from atomr_infer.wire.gemini.upstream_raw import (
    RawAnswer,
    absent_members,
    with_members,
)
from atomr_infer.wire.gemini.upstream_stream import GeminiAnswer

M = "gemini-x"
OWN = Signature("c2ln", Dialect.GEMINI)


def _batch(n: int = 1) -> ExecuteBatch:
    return ExecuteBatch(
        request_id="r-1",
        model="m",
        messages=(Message(Role.USER, "one two three"),),
        sampling=Sampling(n=n),
    )


def _answer(n: int = 1, **options: Any) -> GeminiAnswer:
    numbers = count(1)
    return GeminiAnswer(_batch(n), new_id=lambda: f"call_new{next(numbers)}", **options)


def _response(*parts: Any, finish: str | None = None, **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [{**candidate, "index": 0}], "modelVersion": M, **more}


def _events(*responses: Any) -> bytes:
    return b"".join(
        b"data: " + msgspec.json.encode(each) + b"\r\n\r\n" for each in responses
    )


def _read(body: bytes, answer: GeminiAnswer | None = None) -> list[TokenChunk]:
    answer = answer or _answer()
    chunks = answer.feed(body)
    if answer.error is None:
        chunks += answer.close()
    if answer.error is not None:
        raise answer.error
    return chunks


def _ask(*responses: Any, n: int = 1) -> list[TokenChunk]:
    return _read(_events(*responses), _answer(n))


def _chunk(text: str = "", **members: Any) -> TokenChunk:
    return TokenChunk(text=text, model=M, **members)


COUNTS = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}
USAGE = _chunk(usage=Usage(input_uncached=3, output_text=2))
STOP = _chunk(finish_reason=FinishReason.STOP, native_finish="STOP")

# --- golden streams ---------------------------------------------------------

GOLDEN_TEXT = _events(
    _response({"text": "Grüße \u2028"}, usageMetadata={"promptTokenCount": 3}),
    _response({"text": "日本"}),
    _response({"text": ""}, finish="STOP", usageMetadata=COUNTS),
)
GOLDEN_TEXT_CHUNKS = [_chunk("Grüße \u2028"), _chunk("日本"), STOP, USAGE]

GOLDEN_TOOLS = _events(
    _response({"text": "hm", "thought": True}),
    _response(
        {"text": "I look"},
        {
            "functionCall": {"name": "f", "args": {"city": 'a"}\\'}},
            "thoughtSignature": "c2ln",
        },
        {"functionCall": {"id": "own", "name": "g"}},
    ),
    _response({"text": "", "thoughtSignature": "c2ln"}, finish="STOP"),
    {"usageMetadata": COUNTS, "modelVersion": M},
)
GOLDEN_TOOLS_CHUNKS = [
    _chunk(reasoning=ReasoningDelta(text="hm")),
    _chunk("I look"),
    _chunk(
        tool_calls=(
            ToolCallDelta(
                index=0,
                id="call_new1",
                name="f",
                arguments='{"city":"a\\"}\\\\"}',
                signature=OWN,
            ),
        )
    ),
    _chunk(tool_calls=(ToolCallDelta(index=1, id="own", name="g", arguments="{}"),)),
    _chunk(text_signature=OWN),
    _chunk(finish_reason=FinishReason.TOOL_CALLS, native_finish="STOP"),
    USAGE,
]


def _as_array(body: bytes) -> bytes:
    items = [e.removeprefix(b"data: ") for e in body.split(b"\r\n\r\n") if e]
    return b"[" + b"\r\n,\r\n".join(items) + b"\n]\n"


GOLDEN = {
    "text": (GOLDEN_TEXT, GOLDEN_TEXT_CHUNKS),
    "tools": (GOLDEN_TOOLS, GOLDEN_TOOLS_CHUNKS),
    "text as array": (_as_array(GOLDEN_TEXT), GOLDEN_TEXT_CHUNKS),
    "tools as array": (_as_array(GOLDEN_TOOLS), GOLDEN_TOOLS_CHUNKS),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_s2_golden_stream_is_the_same_at_every_split(name: str) -> None:
    body, expected = GOLDEN[name]
    assert _read(body) == expected
    for split in range(len(body) + 1):
        answer = _answer()
        chunks = [*answer.feed(body[:split]), *answer.feed(body[split:])]
        assert [*chunks, *answer.close()] == expected


@pytest.mark.parametrize("name", GOLDEN)
def test_s2_golden_stream_is_the_same_byte_by_byte(name: str) -> None:
    body, expected = GOLDEN[name]
    answer = _answer()
    chunks = [c for byte in body for c in answer.feed(bytes([byte]))]
    assert [*chunks, *answer.close()] == expected


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_stream_cut_anywhere_is_cut_or_whole_and_never_wrong(name: str) -> None:
    body, expected = GOLDEN[name]
    for end in range(len(body)):
        answer = _answer()
        chunks = answer.feed(body[:end])
        cut = False
        try:
            chunks += answer.close()
        except errors.StreamCutError:
            cut = True
        if cut or answer.error is not None:
            assert chunks == expected[: len(chunks)]
        else:
            # Only what comes behind the finish can be missing: its usage.
            assert chunks[:-1] == expected[:-1]
            assert chunks[-1].usage is not None


def test_s1_blank_lines_and_a_mark_before_the_stream_are_passed_over() -> None:
    for body in (GOLDEN_TEXT, _as_array(GOLDEN_TEXT)):
        answer = _answer()
        for blank in (b"\xef\xbb\xbf", b"\n", b" \r\n"):
            assert answer.feed(blank) == []
        assert _read(body, answer) == GOLDEN_TEXT_CHUNKS


def test_s3_lines_without_the_space_and_comments_are_read() -> None:
    body = GOLDEN_TEXT.replace(b"data: ", b": note\ndata:")
    assert _read(body) == GOLDEN_TEXT_CHUNKS


def test_s4_last_event_without_its_blank_line_is_taken() -> None:
    assert _read(GOLDEN_TEXT.rstrip()) == GOLDEN_TEXT_CHUNKS


def test_s5_done_of_a_proxy_is_passed_over() -> None:
    answer = _answer()
    assert _read(GOLDEN_TEXT + b"data: [DONE]\n\n", answer) == GOLDEN_TEXT_CHUNKS
    assert answer.skipped == 0
    with pytest.raises(errors.StreamCutError):
        _read(_events(_response({"text": "a"})) + b"data: [DONE]\n\n")


def test_s5_stream_without_a_finish_reason_is_cut() -> None:
    for bad in (b"", b"[", b"[]", _events(_response({"text": "a"}))):
        with pytest.raises(errors.StreamCutError):
            _read(bad)


def test_s6_malformed_events_are_skipped_and_counted() -> None:
    answer = _answer()
    bad = b'data: {"candidates": [{"cont\n\ndata: {}\n\ndata: [1]\n\n'
    bad += _events({"candidates": [{"index": 5}]}, {"candidates": [{"index": -1}]})
    assert _read(bad + GOLDEN_TEXT, answer) == GOLDEN_TEXT_CHUNKS
    assert answer.skipped == 5


def test_s9_whole_answer_to_a_stream_request_is_read() -> None:
    whole = _response({"text": "a"}, finish="STOP", usageMetadata=COUNTS)
    assert _read(msgspec.json.encode(whole)) == [_chunk("a"), STOP, USAGE]


@pytest.mark.parametrize("body", [b"[3]", b'["a"]', b"[[{}]]", b'[{"a":1} x'])
def test_s9_array_of_something_else_is_malformed(body: bytes) -> None:
    with pytest.raises(errors.UpstreamProtocolError) as caught:
        _read(body)
    assert caught.value.code == "malformed_body"


def test_s10_item_without_end_is_refused() -> None:
    answer = _answer()
    with pytest.raises(errors.UpstreamProtocolError) as caught:
        answer.feed(b'[{"a":"' + b"x" * 17 * 1024 * 1024)
    assert caught.value.code == "event_too_long"


# --- errors in a stream -----------------------------------------------------

OVERLOADED = {"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}
LIMITED = {
    "error": {
        "code": 429,
        "message": "slow",
        "status": "RESOURCE_EXHAUSTED",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "37s"}
        ],
    }
}


@pytest.mark.parametrize(
    ("event", "error_class", "wait_s"),
    [
        (_events(OVERLOADED), errors.UpstreamError, None),
        (_events(LIMITED), errors.RateLimitedError, 37.0),
        (b"event: error\ndata: {}\n\n", errors.UpstreamError, None),
        (b'data: {"error":"text"}\n\n', errors.UpstreamError, None),
        (
            b'data: {"error":{"code":"x"},"candidates":3}\n\n',
            errors.UpstreamError,
            None,
        ),
    ],
)
def test_s7_error_in_a_stream_is_an_error(
    event: bytes, error_class: type[errors.InferenceError], wait_s: float | None
) -> None:
    answer = _answer()
    with pytest.raises(errors.InferenceError) as caught:
        answer.feed(event)
    assert type(caught.value) is error_class
    assert caught.value.retry_after_s == wait_s
    for after_content in (_answer(), RawAnswer(_batch())):
        front = _events(_response({"text": "a"}))
        [chunk] = after_content.feed(front + event)
        assert chunk.text == "a"
        assert type(after_content.error) is error_class


def test_s7_error_in_an_array_is_an_error() -> None:
    with pytest.raises(errors.UpstreamError, match="busy"):
        _read(b"[" + msgspec.json.encode(OVERLOADED) + b"]")


def test_key_in_an_error_is_blotted() -> None:
    told = {"error": {"code": 400, "message": "no AIza0123456789 here"}}
    answer = _answer(secret=Secret("AIza0123456789"))
    with pytest.raises(errors.InvalidRequestError) as caught:
        answer.feed(_events(told))
    assert caught.value.message == "no *** here"


# --- section 5: finish reasons ----------------------------------------------


@pytest.mark.parametrize(
    ("native", "reason"),
    [
        ("STOP", FinishReason.STOP),
        ("MAX_TOKENS", FinishReason.LENGTH),
        ("OTHER", FinishReason.STOP),
        ("NEW_WORD", FinishReason.STOP),
        *(
            (word, FinishReason.CONTENT_FILTER)
            for word in (
                "SAFETY",
                "RECITATION",
                "BLOCKLIST",
                "PROHIBITED_CONTENT",
                "SPII",
                "LANGUAGE",
                "IMAGE_SAFETY",
                "IMAGE_PROHIBITED_CONTENT",
                "IMAGE_RECITATION",
                "MODEL_ARMOR",
            )
        ),
    ],
)
def test_section_5_finish_reason_and_its_native_word(
    native: str, reason: FinishReason
) -> None:
    finished = _ask(_response(finish=native, usageMetadata=COUNTS))
    assert finished == [_chunk(finish_reason=reason, native_finish=native), USAGE]


@pytest.mark.parametrize(
    "native",
    [
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
    ],
)
def test_section_5_nonsense_of_the_model_is_an_upstream_error(native: str) -> None:
    response = _response({"text": "a"}, finish=native)
    response["candidates"][0]["finishMessage"] = "why"
    with pytest.raises(errors.UpstreamError) as caught:
        _ask(response)
    assert caught.value.code == native.lower()
    assert caught.value.message.endswith(f"{native}: why")
    assert caught.value.retryable


def test_section_5_missing_signature_is_our_own_fault() -> None:
    with pytest.raises(errors.InternalError) as caught:
        _ask(_response(finish="MISSING_THOUGHT_SIGNATURE"))
    assert caught.value.code == "missing_thought_signature"
    assert not caught.value.retryable


@pytest.mark.parametrize("unsaid", ["", "FINISH_REASON_UNSPECIFIED"])
def test_reason_that_says_nothing_is_no_finish(unsaid: str) -> None:
    with pytest.raises(errors.StreamCutError):
        _ask(_response({"text": "a"}, finish=unsaid))


def test_section_5_blocked_prompt_is_one_empty_choice() -> None:
    blocked = {
        "promptFeedback": {"blockReason": "SAFETY"},
        "usageMetadata": {"promptTokenCount": 3, "totalTokenCount": 3},
        "modelVersion": M,
    }
    expected = [
        _chunk(finish_reason=FinishReason.CONTENT_FILTER, native_finish="SAFETY"),
        _chunk(usage=Usage(input_uncached=3)),
    ]
    assert _ask(blocked, n=2) == expected
    assert _answer().whole(msgspec.json.encode(blocked)) == expected


def test_section_5_feedback_beside_an_answer_is_passed_over() -> None:
    feedback: dict[str, Any] = {"promptFeedback": {"blockReason": "SAFETY"}}
    beside = _response({"text": "a"}, **feedback)
    finished = _response(finish="STOP", usageMetadata=COUNTS)
    assert _ask(beside, feedback, finished) == [_chunk("a"), STOP, USAGE]


def test_feedback_that_blocks_nothing_is_passed_over() -> None:
    feedback: dict[str, Any] = {"promptFeedback": {"safetyRatings": []}}
    assert _read(_events(feedback) + GOLDEN_TEXT) == GOLDEN_TEXT_CHUNKS


# --- tool calls -------------------------------------------------------------


def _function(name: str, **members: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, **members}}


def _deltas(chunks: list[TokenChunk]) -> list[tuple[int, str | None, str | None, str]]:
    return [
        (delta.index, delta.id, delta.name, delta.arguments)
        for chunk in chunks
        for delta in chunk.tool_calls
    ]


def test_t3_each_call_is_a_new_index_over_the_whole_stream() -> None:
    chunks = _ask(
        _response(_function("f", args={}), _function("f", args={})),
        _response(_function("g", id="given", args=None)),
        _response(finish="STOP"),
    )
    assert _deltas(chunks) == [
        (0, "call_new1", "f", "{}"),
        (1, "call_new2", "f", "{}"),
        (2, "given", "g", "{}"),
    ]
    assert chunks[-2].finish_reason is FinishReason.TOOL_CALLS


def test_t1_each_candidate_counts_its_own_calls() -> None:
    def both(index: int) -> dict[str, Any]:
        content = {"parts": [_function("f", args={})]}
        return {"content": content, "index": index, "finishReason": "STOP"}

    chunks = _ask({"candidates": [both(0), both(1)]}, n=2)
    assert [(c.index, d.index) for c in chunks for d in c.tool_calls] == [
        (0, 0),
        (1, 0),
    ]


def test_arguments_keep_their_numbers_and_order_on_one_line() -> None:
    body = (
        b'data: {"candidates":[{"content":{"parts":[{"functionCall":{"name":"f",\n'
        b'data: "args":{"z": 1.0,\n'
        b'data:  "a": 12345678901234567890}}}]},"finishReason":"STOP"}]}\n\n'
    )
    assert _deltas(_read(body)) == [
        (0, "call_new1", "f", '{"z":1.0,"a":12345678901234567890}')
    ]


def _piece(path: str, *, more: bool = False, **value: Any) -> dict[str, Any]:
    return {"jsonPath": path, **value, **({"willContinue": True} if more else {})}


def test_t3_partial_arguments_are_assembled_first() -> None:
    chunks = _ask(
        _response(_function("f", id="1", willContinue=True)),
        _response(
            {
                "functionCall": {
                    "partialArgs": [_piece("$.city", stringValue="Par", more=True)],
                    "willContinue": True,
                },
                "thoughtSignature": "c2ln",
            }
        ),
        _response(
            {
                "functionCall": {
                    "partialArgs": [
                        _piece("$.city", stringValue="is", more=True),
                        _piece("$.city", stringValue=""),
                        _piece("$.days[0]", numberValue=2),
                        _piece("$.days[1].at", numberValue=1.5),
                        _piece("$['odd name']", boolValue=True),
                        _piece("$.none", nullValue="NULL_VALUE"),
                    ],
                    "willContinue": True,
                }
            }
        ),
        _response({"functionCall": {}}),
        _response(_function("g", args={"a": 1}), finish="STOP"),
    )
    assert _deltas(chunks) == [
        (
            0,
            "1",
            "f",
            '{"city":"Paris","days":[2,{"at":1.5}],"odd name":true,"none":null}',
        ),
        (1, "call_new1", "g", '{"a":1}'),
    ]
    assert chunks[0].tool_calls[0].signature == OWN


def test_call_whose_end_never_came_is_whole_at_the_finish() -> None:
    chunks = _ask(
        _response(
            _function(
                "f", partialArgs=[_piece("$.a", stringValue="x")], willContinue=True
            )
        ),
        _response(_function("g", willContinue=True)),
        _response(finish="STOP"),
    )
    assert _deltas(chunks) == [
        (0, "call_new1", "f", '{"a":"x"}'),
        (1, "call_new2", "g", "{}"),
    ]


@pytest.mark.parametrize(
    "path", ["", "$", "a", "$.", "$.a[", "$.a..b", "$.l[99999]", "$[0]", "$.t.u"]
)
def test_piece_that_fits_nowhere_is_an_error_of_the_upstream(path: str) -> None:
    pieces = [_piece("$.t", stringValue="x"), _piece(path, stringValue="y")]
    with pytest.raises(errors.UpstreamProtocolError):
        _ask(_response(_function("f", partialArgs=pieces), finish="STOP"))


# --- other content ----------------------------------------------------------


def test_thoughts_before_and_after_words_are_two_blocks() -> None:
    chunks = _ask(
        _response({"text": "a", "thought": True}),
        _response({"text": "b", "thought": True, "thoughtSignature": "c2ln"}),
        _response({"text": "say"}),
        _response({"text": "c", "thought": True}, finish="STOP"),
    )
    assert [chunk.reasoning for chunk in chunks if chunk.reasoning] == [
        ReasoningDelta(text="a"),
        ReasoningDelta(text="b", signature=OWN),
        ReasoningDelta(text="c", block=1),
    ]


def test_picture_in_an_answer_is_a_member_of_the_delta() -> None:
    blob = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    sound = {"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}}
    chunks = _ask(_response(blob, sound, finish="STOP"))
    assert msgspec.json.decode(chunks[0].extra["images"]) == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    ]
    heard = msgspec.json.decode(chunks[1].extra["audio"])
    assert (heard["mime_type"], heard["data"]) == ("audio/wav", "AAAA")
    assert len(chunks) == 4


def test_logprobs_are_in_openais_form() -> None:
    response = _response({"text": "é"}, finish="STOP")
    response["candidates"][0]["logprobsResult"] = {
        "chosenCandidates": [{"token": "é", "tokenId": 3, "logProbability": -0.5}],
        "topCandidates": [
            {"candidates": [{"token": "x", "logProbability": -2}, {"token": "y"}]}
        ],
    }
    raw = _ask(response)[1].logprobs
    assert raw is not None
    assert msgspec.json.decode(raw) == {
        "content": [
            {
                "token": "é",
                "logprob": -0.5,
                "bytes": [195, 169],
                "top_logprobs": [
                    {"token": "x", "logprob": -2.0, "bytes": [120]},
                    {"token": "y", "logprob": -9999.0, "bytes": [121]},
                ],
            }
        ],
        "refusal": None,
    }


def test_n_answers_finish_each_on_its_own() -> None:
    def said(text: str, index: int, finish: str | None = None) -> dict[str, Any]:
        candidate = {"content": {"parts": [{"text": text}]}, "index": index}
        return {"candidates": [{**candidate, "finishReason": finish}]}

    chunks = _ask(
        said("a", 0),
        said("b", 1, "MAX_TOKENS"),
        said("late", 1),
        said("c", 0, "STOP"),
        n=2,
    )
    assert [(c.index, c.text, c.finish_reason) for c in chunks[:-1]] == [
        (0, "a", None),
        (1, "b", None),
        (1, "", FinishReason.LENGTH),
        (0, "c", None),
        (0, "", FinishReason.STOP),
    ]
    with pytest.raises(errors.StreamCutError):
        _ask(said("a", 0), said("b", 1, "STOP"), n=2)


def test_usage_that_never_came_is_estimated() -> None:
    chunks = _ask(
        _response({"text": "four"}, {"text": "mind", "thought": True}, finish="STOP")
    )
    assert chunks[-1].usage == Usage(input_uncached=8, output_text=2, estimated=True)


# --- whole answers ----------------------------------------------------------


def test_t7_whole_answer_is_its_chunks_at_once() -> None:
    body = msgspec.json.encode(
        _response(
            {"text": "a"}, _function("f", args={}), finish="STOP", usageMetadata=COUNTS
        )
    )
    answer = _answer()
    assert answer.whole(body) == [
        _chunk("a"),
        _chunk(
            tool_calls=(
                ToolCallDelta(index=0, id="call_new1", name="f", arguments="{}"),
            )
        ),
        _chunk(finish_reason=FinishReason.TOOL_CALLS, native_finish="STOP"),
        USAGE,
    ]
    assert answer.ended


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"x", b'{"candidates":[{"index":3}]}']
)
def test_whole_answer_that_is_none_is_malformed(body: bytes) -> None:
    with pytest.raises(errors.UpstreamProtocolError) as caught:
        _answer().whole(body)
    assert caught.value.code == "malformed_body"


def test_whole_answer_without_a_finish_is_cut() -> None:
    with pytest.raises(errors.StreamCutError):
        _answer().whole(msgspec.json.encode(_response({"text": "a"})))


def test_whole_answer_that_is_an_error_is_raised() -> None:
    with pytest.raises(errors.RateLimitedError):
        _answer().whole(msgspec.json.encode(LIMITED))


# --- passed on --------------------------------------------------------------


def _raw(body: bytes, *, pieces: int | None = None) -> list[RawChunk]:
    answer = RawAnswer(_batch())
    size = pieces or len(body)
    chunks = [
        chunk
        for start in range(0, len(body), size)
        for chunk in answer.feed(body[start : start + size])
    ]
    return [*chunks, *answer.close()]


@pytest.mark.parametrize("pieces", [None, 1, 7])
def test_json_is_passed_on_byte_for_byte_in_frames_of_its_own(
    pieces: int | None,
) -> None:
    chunks = _raw(GOLDEN_TOOLS, pieces=pieces)
    assert b"".join(chunk.data for chunk in chunks) == GOLDEN_TOOLS.replace(
        b"\r\n\r\n", b"\n\n"
    )
    assert [chunk.has_content for chunk in chunks] == [True, True, True, False, False]
    assert [chunk.finish_reason for chunk in chunks] == [
        None,
        None,
        FinishReason.TOOL_CALLS,
        None,
        None,
    ]
    assert [chunk.usage for chunk in chunks] == [None] * 4 + [USAGE.usage]
    assert [chunk.text for chunk in chunks] == ["", "I look", "", "", ""]
    assert chunks[0].model == M


def test_array_is_passed_on_as_events() -> None:
    assert _raw(_as_array(GOLDEN_TEXT)) == _raw(GOLDEN_TEXT)


def test_malformed_event_is_not_passed_on() -> None:
    answer = RawAnswer(_batch())
    chunks = answer.feed(b'data: {"cand\n\n: note\n\ndata: [DONE]\n\n')
    chunks += answer.feed(GOLDEN_TEXT)
    assert [*chunks, *answer.close()] == _raw(GOLDEN_TEXT)
    assert answer.skipped == 1


@pytest.mark.parametrize(
    ("body", "error_class"),
    [
        (_events(OVERLOADED), errors.UpstreamError),
        (_events(_response({"text": "a"})), errors.StreamCutError),
        (
            _events(_response(finish="MALFORMED_FUNCTION_CALL")),
            errors.UpstreamProtocolError,
        ),
    ],
)
def test_broken_answer_is_an_error_here_too(
    body: bytes, error_class: type[errors.InferenceError]
) -> None:
    for front in (b"", _events(_response({"text": "a"}))):
        answer = RawAnswer(_batch())
        with pytest.raises(errors.InferenceError) as caught:
            answer.feed(front + body)
            if answer.error is not None:
                raise answer.error
            answer.close()
        assert type(caught.value) is error_class


def test_whole_answer_is_passed_on_in_one_piece() -> None:
    whole = _response({"text": "a"}, finish="STOP", usageMetadata=COUNTS, extra=1)
    body = msgspec.json.format(msgspec.json.encode(whole))
    answer = RawAnswer(_batch())
    assert answer.whole(body) == [
        RawChunk(
            data=body,
            finish_reason=FinishReason.STOP,
            usage=USAGE.usage,
            model=M,
            content_type="application/json; charset=UTF-8",
            text="a",
        )
    ]
    assert answer.ended


@pytest.mark.parametrize("body", [b"{}", b"x"])
def test_whole_answer_that_is_none_is_not_passed_on(body: bytes) -> None:
    with pytest.raises(errors.UpstreamProtocolError):
        RawAnswer(_batch()).whole(body)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", b'{"b":[]}'),
        (b' { "a" : 1}', b' {"b":[], "a" : 1}'),
        (b'{"b":1}', b'{"b":1}'),
    ],
)
def test_defaults_are_put_in_front_and_every_other_byte_stays(
    body: bytes, expected: bytes
) -> None:
    missing = absent_members(body, {"b": b"[]"})
    assert (with_members(body, missing) if missing else body) == expected


def test_snake_case_member_keeps_its_default_out() -> None:
    body = b'{"safety_settings":[]}'
    assert absent_members(body, {"safetySettings": b"[1]"}) == b""


def _passing(n: int = 1) -> RawAnswer:
    return RawAnswer(attrs.evolve(_batch(), sampling=Sampling(n=n)))


def test_what_follows_a_finish_is_passed_on_but_is_no_content() -> None:
    answer = _passing()
    late = _response({"text": "late"}, finish="MAX_TOKENS")
    first, second = answer.feed(_events(_response(finish="STOP"), late))
    assert (first.has_content, first.finish_reason) == (False, FinishReason.STOP)
    assert (second.has_content, second.finish_reason, second.text) == (False, None, "")


def test_calls_of_one_candidate_are_not_the_others() -> None:
    answer = _passing(n=2)
    calling = {"content": {"parts": [_function("f")]}, "index": 0}
    stopping = {"index": 1, "finishReason": "STOP"}
    first, second = answer.feed(
        _events(
            {"candidates": [calling]},
            {"candidates": [stopping, {"finishReason": "STOP"}]},
        )
    )
    assert (first.has_content, first.finish_reason) == (True, None)
    assert second.finish_reason is FinishReason.STOP


def test_whole_answer_without_a_finish_is_not_passed_on() -> None:
    with pytest.raises(errors.StreamCutError):
        _passing().whole(msgspec.json.encode(_response({"text": "a"})))


@pytest.mark.parametrize("make", [_answer, _passing])
def test_last_event_of_a_cut_stream_is_given_before_the_cut_is_told(make: Any) -> None:
    answer = make()
    answer.feed(_events(_response({"text": "a"})).rstrip())
    [chunk] = answer.close()
    assert chunk.text == "a"
    assert type(answer.error) is errors.StreamCutError


@pytest.mark.parametrize("make", [_answer, _passing])
def test_model_and_counts_are_those_that_were_told_last(make: Any) -> None:
    answer = make()
    said = _response({"text": "four"}, usageMetadata=COUNTS)
    ended: dict[str, Any] = {"candidates": [{"finishReason": "STOP"}]}
    chunks = [*answer.feed(_events(said, ended)), *answer.close()]
    assert {chunk.model for chunk in chunks} == {M}
    assert chunks[-1].usage == USAGE.usage


def test_usage_of_what_is_passed_on_is_estimated_too() -> None:
    answer = _passing()
    answer.feed(_events(_response({"text": "four" * 3}, finish="STOP")))
    assert answer.close()[-1].usage == Usage(
        input_uncached=8, output_text=3, estimated=True
    )


def test_every_candidate_that_ends_in_one_event_has_ended() -> None:
    batch = attrs.evolve(_batch(), sampling=Sampling(n=2))
    answer = RawAnswer(batch)
    ends = [{"index": 1, "finishReason": "MAX_TOKENS"}, {"finishReason": "STOP"}]
    [chunk] = answer.feed(_events({"candidates": ends}))
    assert chunk.finish_reason is FinishReason.LENGTH
    [last] = answer.close()
    assert last.usage is not None


def test_answer_that_is_passed_on_is_cut_where_one_of_several_never_ends() -> None:
    batch = attrs.evolve(_batch(), sampling=Sampling(n=2))
    answer = RawAnswer(batch)
    answer.feed(_events({"candidates": [{"index": 1, "finishReason": "STOP"}, {}]}))
    with pytest.raises(errors.StreamCutError):
        answer.close()
