"""Reading answers of the Messages API, as chunks and as bytes to pass on."""

from __future__ import annotations

import contextlib
import json
from itertools import pairwise
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_infer import errors
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    RawChunk,
    ReasoningDelta,
    Role,
    TokenChunk,
    ToolCallDelta,
)
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import Signature
from atomr_infer.model.secret import Secret
from atomr_infer.model.usage import Usage
from atomr_infer.wire.anthropic.ingress import MESSAGES
from atomr_infer.wire.anthropic.upstream_events import lone_delta
from atomr_infer.wire.anthropic.upstream_pass import MessagePass
from atomr_infer.wire.anthropic.upstream_stream import MessageAnswer
from atomr_infer.wire.ingress import AnswerFacts, Asked
from atomr_infer.wire.sse_frames import FrameReader

M = "claude-1"
BATCH = ExecuteBatch(request_id="r", model="m", messages=(Message(Role.USER, "abcd"),))

UNSTREAMED = attrs.evolve(BATCH, stream=False)


def event(kind: str, **members: Any) -> bytes:
    data = json.dumps({"type": kind, **members}).encode()
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


def begin(usage: Any = None) -> bytes:
    said = {"input_tokens": 5, "output_tokens": 1} if usage is None else usage
    return event("message_start", message={"model": M, "content": [], "usage": said})


def start(index: int, **block: Any) -> bytes:
    return event("content_block_start", index=index, content_block=block)


def delta(index: int, kind: str, **members: Any) -> bytes:
    said = {"type": kind, **members}
    return event("content_block_delta", index=index, delta=said)


def stop(index: int) -> bytes:
    return event("content_block_stop", index=index)


def finish(reason: str = "end_turn", usage: Any = None, **members: Any) -> bytes:
    said = {"output_tokens": 7} if usage is None else usage
    return event("message_delta", delta={"stop_reason": reason, **members}, usage=said)


def text(index: int, *pieces: str) -> bytes:
    said = b"".join(delta(index, "text_delta", text=piece) for piece in pieces)
    return start(index, type="text", text="") + said + stop(index)


END = event("message_stop")
PING = event("ping")
GOLDEN = (
    begin(),
    PING,
    start(0, type="thinking", thinking="", signature=""),
    delta(0, "thinking_delta", thinking="hm"),
    delta(0, "signature_delta", signature="sig"),
    stop(0),
    start(1, type="redacted_thinking", data="hid"),
    stop(1),
    text(2, "Hé", "llo \u2028"),
    start(3, type="tool_use", id="t0", name="f", input={}),
    delta(3, "input_json_delta", partial_json=""),
    delta(3, "input_json_delta", partial_json='{"a"'),
    delta(3, "input_json_delta", partial_json=":1}"),
    stop(3),
    start(4, type="tool_use", id="t1", name="g", input={}),
    stop(4),
    event("something_new", index=4, odd=[1]),
    finish("tool_use"),
    END,
)


def said(**members: Any) -> TokenChunk:
    return TokenChunk(model=M, **members)


def thought(**members: Any) -> TokenChunk:
    return said(reasoning=ReasoningDelta(**members))


def call(**members: Any) -> TokenChunk:
    return said(tool_calls=(ToolCallDelta(**members),))


def end(native: str = "end_turn", **members: Any) -> TokenChunk:
    return said(
        finish_reason=members.pop("finish", FinishReason.STOP),
        native_finish=native,
        **members,
    )


USAGE = said(usage=Usage(input_uncached=5, output_text=7))
GOLDEN_CHUNKS = [
    thought(text="hm"),
    thought(signature=Signature("sig", Dialect.ANTHROPIC)),
    thought(data=Signature("hid", Dialect.ANTHROPIC), block=1),
    said(text="Hé"),
    said(text="llo \u2028"),
    call(index=0, id="t0", name="f"),
    call(index=0, arguments='{"a"'),
    call(index=0, arguments=":1}"),
    call(index=1, id="t1", name="g"),
    call(index=1, arguments="{}"),
    end("tool_use", finish=FinishReason.TOOL_CALLS),
    USAGE,
]


def read(*pieces: bytes, **members: Any) -> list[TokenChunk]:
    answer = MessageAnswer(BATCH, **members)
    chunks = [chunk for piece in pieces for chunk in answer.feed(piece)]
    return chunks if answer.ended else chunks + answer.close()


def passed(*pieces: bytes) -> list[RawChunk]:
    answer = MessagePass(BATCH)
    chunks = [chunk for piece in pieces for chunk in answer.feed(piece)]
    return chunks if answer.ended else chunks + answer.close()


# --- chunks ---------------------------------------------------------------------------


def test_t2_a_golden_stream_has_tool_indices_of_its_own() -> None:
    assert read(*GOLDEN) == GOLDEN_CHUNKS


def _merged(chunks: list[TokenChunk]) -> bytes:
    """What a client gets of them, whatever pieces they came in."""
    facts = AnswerFacts(request_id="r", created_s=1, model=M)
    builder = MESSAGES.whole(Asked(batch=BATCH), facts)
    for chunk in chunks:
        builder.add(chunk)
    return builder.build()


def test_s2_a_stream_survives_every_split() -> None:
    body = b"".join(
        (begin(), text(0, "Hé\u2028"), *GOLDEN[9:14], finish("tool_use"), END)
    )
    expected = read(body)
    assert [chunk.text for chunk in expected[:1]] == ["Hé\u2028"]
    for at in range(1, len(body)):
        assert read(body[:at], body[at:]) == expected


def test_s2_a_golden_stream_survives_byte_by_byte() -> None:
    body = b"".join(GOLDEN)
    assert read(*(body[at : at + 1] for at in range(len(body)))) == GOLDEN_CHUNKS


def test_t2_input_without_deltas_is_an_empty_object() -> None:
    chunks = read(
        begin(),
        start(0, type="tool_use", id="t", name="f", input={}),
        stop(0),
        finish("tool_use"),
        END,
    )
    assert chunks[:2] == [call(id="t", name="f"), call(arguments="{}")]


def test_input_that_a_server_gives_at_once_is_taken() -> None:
    chunks = read(
        begin(),
        start(0, type="tool_use", id="t", name="f", input={"a": 1}),
        stop(0),
        finish("tool_use"),
        END,
    )
    assert chunks[:2] == [call(id="t", name="f"), call(arguments='{"a": 1}')]


def test_text_that_a_block_begins_with_is_not_lost() -> None:
    chunks = read(
        begin(),
        start(0, type="text", text="a"),
        delta(0, "text_delta", text="b"),
        stop(0),
        finish(),
        END,
    )
    assert [chunk.text for chunk in chunks[:2]] == ["a", "b"]


def test_text_whose_block_was_never_begun_is_understood() -> None:
    assert read(begin(), delta(0, "text_delta", text="a"), finish(), END) == [
        said(text="a"),
        end(),
        USAGE,
    ]


def test_tool_that_stands_for_the_text_becomes_text() -> None:
    chunks = read(
        begin(),
        start(0, type="tool_use", id="t", name="json_answer", input={}),
        delta(0, "input_json_delta", partial_json='{"a":'),
        delta(0, "input_json_delta", partial_json="1}"),
        stop(0),
        finish("tool_use"),
        END,
        json_tool="json_answer",
    )
    assert chunks == [said(text='{"a":'), said(text="1}"), end("tool_use"), USAGE]


@pytest.mark.parametrize(
    ("native", "reason"),
    [
        ("end_turn", FinishReason.STOP),
        ("pause_turn", FinishReason.STOP),
        ("max_tokens", FinishReason.LENGTH),
        ("model_context_window_exceeded", FinishReason.LENGTH),
        ("refusal", FinishReason.CONTENT_FILTER),
        ("brand_new", FinishReason.STOP),
    ],
)
def test_each_reason_keeps_its_native_word(native: str, reason: FinishReason) -> None:
    chunks = read(begin(), text(0, "a"), finish(native), END)
    assert chunks[1] == end(native, finish=reason)


def test_stop_sequence_is_told() -> None:
    chunks = read(
        begin(), text(0, "a"), finish("stop_sequence", stop_sequence="E"), END
    )
    assert chunks[1] == end("stop_sequence", stop_sequence="E")


def test_refusal_is_explained() -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "not that"}
    assert read(begin(), finish("refusal", stop_details=details), END) == [
        end("refusal", finish=FinishReason.CONTENT_FILTER, refusal="not that"),
        USAGE,
    ]


# --- usage (section 6) ----------------------------------------------------------------


def test_counts_at_the_end_replace_those_of_the_start() -> None:
    first = {"input_tokens": 5, "output_tokens": 1, "cache_read_input_tokens": 2}
    last = {
        "output_tokens": 9,
        "cache_creation_input_tokens": 6,
        "cache_creation": {
            "ephemeral_5m_input_tokens": 2,
            "ephemeral_1h_input_tokens": 4,
        },
        "output_tokens_details": {"thinking_tokens": 3},
    }
    chunks = read(begin(first), text(0, "a"), finish(usage=last), END)
    assert chunks[-1].usage == Usage(
        input_uncached=5,
        cache_read=2,
        cache_write_5m=2,
        cache_write_1h=4,
        output_text=6,
        reasoning=3,
    )


def test_cache_writes_are_the_sum_of_their_parts_where_no_total_is_told() -> None:
    parts = {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 4}
    told = {"output_tokens": 1, "cache_creation": parts}
    usage = read(begin(), finish(usage=told), END)[-1].usage
    assert usage == Usage(
        input_uncached=5, cache_write_5m=2, cache_write_1h=4, output_text=1
    )


@pytest.mark.parametrize("read_it", [read, passed])
def test_report_without_a_reason_only_counts(read_it: Any) -> None:
    counted = event("message_delta", delta={}, usage={"output_tokens": 7})
    usage = Usage(input_uncached=5, output_text=7)
    assert read_it(begin(), text(0, "a"), counted, END)[-1].usage == usage


def test_delta_that_holds_nothing_is_passed_on() -> None:
    empty = event("content_block_delta", index=0)
    assert passed(begin(), empty, END)[1].data == empty


@pytest.mark.parametrize("nothing", [{}, {"input_tokens": 0, "output_tokens": 0}])
def test_usage_that_was_never_told_is_estimated(nothing: Any) -> None:
    chunks = read(begin(nothing), text(0, "abcd"), finish(usage=nothing), END)
    assert chunks[-1].usage == Usage(input_uncached=5, output_text=1, estimated=True)


@pytest.mark.parametrize("wrong", [-1, 1.5, "7", 1e300, True])
def test_wrong_count_is_no_count(wrong: Any) -> None:
    told = {"output_tokens": wrong}
    chunks = read(begin(), text(0, "a"), finish(usage=told), END)
    assert chunks[-1].usage == Usage(input_uncached=5, output_text=1)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_parts_sum_to_the_totals(prompt: int, write: int, hour: int, out: int) -> None:
    told = {
        "input_tokens": prompt,
        "cache_creation_input_tokens": write,
        "cache_creation": {"ephemeral_1h_input_tokens": hour},
        "output_tokens": out + 1,
        "output_tokens_details": {"thinking_tokens": hour},
    }
    usage = read(begin(told), finish(usage=told), END)[-1].usage
    assert usage is not None
    assert usage.prompt_tokens == prompt + write
    assert usage.output_tokens == out + 1
    assert usage.total_tokens == prompt + write + out + 1


# --- what goes wrong ------------------------------------------------------------------


@pytest.mark.parametrize("read_it", [read, passed])
def test_s5_stream_without_message_stop_is_cut(read_it: Any) -> None:
    for pieces in ((), (begin(),), (begin(), text(0, "a"), finish())):
        with pytest.raises(errors.StreamCutError):
            read_it(*pieces)


def test_s4_last_event_needs_no_empty_line() -> None:
    assert read(begin(), text(0, "a"), finish(), END.rstrip())[-1] == USAGE
    with pytest.raises(errors.StreamCutError):
        read(begin(), END[:-4])


def test_s6_malformed_events_are_skipped_and_counted() -> None:
    answer = MessageAnswer(BATCH)
    broken = (
        b"event: content_block_delta\ndata: {\n\n",
        b"data: [1]\n\n",
        b"data: {}\n\n",
    )
    body = b"".join((begin(), *broken, text(0, "a"), finish(), END))
    assert answer.feed(body) == [said(text="a"), end(), USAGE]
    assert answer.skipped == 3


@pytest.mark.parametrize("read_it", [read, passed])
@pytest.mark.parametrize(
    ("data", "error"),
    [
        (
            b'event: error\ndata: {"type":"error","error":'
            b'{"type":"overloaded_error","message":"busy"}}\n\n',
            errors.UpstreamError("busy", code="overloaded"),
        ),
        (
            b'data: {"type":"error","error":{"type":"rate_limit_error",'
            b'"message":"slow"}}\n\n',
            errors.RateLimitedError("slow"),
        ),
        (b'data: {"error":"gone"}\n\n', errors.UpstreamError("gone")),
        (
            b'data: {"object":"error","message":"no","type":"x","code":400}\n\n',
            errors.InvalidRequestError("no"),
        ),
        (b"event: error\ndata: oh no\n\n", errors.UpstreamError("oh no")),
        (
            b'event: error\ndata: {"type":"error","error":'
            b'{"type":"invalid_request_error","message":"prompt is too long"}}\n\n',
            errors.ContextLengthError("prompt is too long"),
        ),
    ],
)
def test_s7_errors_inside_a_stream(
    read_it: Any, data: bytes, error: errors.InferenceError
) -> None:
    with pytest.raises(errors.InferenceError) as caught:
        read_it(begin(), data)
    assert type(caught.value) is type(error)
    assert (caught.value.message, caught.value.code) == (error.message, error.code)


ERROR = event("error", error={"type": "api_error", "message": "boom"})


def test_what_came_before_an_error_in_the_same_read_is_given_first() -> None:
    answer = MessageAnswer(BATCH)
    assert answer.feed(begin() + text(0, "a") + ERROR) == [said(text="a")]
    assert isinstance(answer.error, errors.UpstreamError)
    passing = MessagePass(BATCH)
    (chunk,) = passing.feed(begin() + text(0, "a") + ERROR)
    assert chunk.data == begin() + text(0, "a")
    assert isinstance(passing.error, errors.UpstreamError)


def test_our_key_is_in_no_error() -> None:
    data = b'event: error\ndata: {"error":{"message":"bad key sk-ant-12345678"}}\n\n'
    with pytest.raises(errors.UpstreamError) as caught:
        read(data, secret=Secret("sk-ant-12345678"))
    assert "12345678" not in str(caught.value)


def test_bytes_behind_the_end_are_not_looked_at() -> None:
    assert read(begin() + finish() + END + text(0, "late"))[-1] == USAGE


# --- whole answers --------------------------------------------------------------------

WHOLE = {
    "id": "msg",
    "type": "message",
    "model": M,
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "hid"},
        {"type": "text", "text": "Hello"},
        {"type": "server_tool_use", "id": "s", "name": "web", "input": {"q": 1}},
        {"type": "tool_use", "id": "t0", "name": "f", "input": {"a": 1}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 5, "output_tokens": 7},
}


def test_a_whole_answer() -> None:
    answer = MessageAnswer(BATCH)
    assert answer.whole(json.dumps(WHOLE).encode()) == [
        thought(text="hm", signature=Signature("sig", Dialect.ANTHROPIC)),
        thought(data=Signature("hid", Dialect.ANTHROPIC), block=1),
        said(text="Hello"),
        call(index=0, id="t0", name="f"),
        call(index=0, arguments='{"a": 1}'),
        end("tool_use", finish=FinishReason.TOOL_CALLS),
        USAGE,
    ]
    assert answer.ended


@pytest.mark.parametrize("reader", [MessageAnswer, MessagePass])
@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b'{"content":1}'])
def test_body_that_is_no_message_is_a_broken_protocol(reader: Any, body: bytes) -> None:
    with pytest.raises(errors.UpstreamProtocolError) as caught:
        reader(BATCH).whole(body)
    assert caught.value.code == "malformed_body"


@pytest.mark.parametrize("reader", [MessageAnswer, MessagePass])
def test_error_with_a_good_status_is_an_error(reader: Any) -> None:
    body = b'{"type":"error","error":{"type":"api_error","message":"boom"}}'
    with pytest.raises(errors.UpstreamError, match="boom"):
        reader(BATCH).whole(body)


# --- passing on -----------------------------------------------------------------------


def test_events_are_passed_on_byte_for_byte() -> None:
    chunks = passed(*GOLDEN)
    assert b"".join(chunk.data for chunk in chunks) == b"".join(GOLDEN)
    said = [chunk.has_content for chunk in chunks]
    # A thought's block says nothing before its delta; one that is hidden does.
    assert said[:6] == [False, False, True, True, False, True]
    assert chunks[0] == RawChunk(data=GOLDEN[0], has_content=False, model=M)
    assert "".join(chunk.text for chunk in chunks) == 'hmHéllo \u2028{"a":1}'
    assert chunks[-2].finish_reason is FinishReason.TOOL_CALLS
    assert chunks[-1] == RawChunk(
        data=END,
        has_content=False,
        usage=Usage(input_uncached=5, output_text=7),
        model=M,
    )


def test_a_ping_waits_for_the_next_event() -> None:
    answer = MessagePass(BATCH)
    assert answer.feed(PING) == []
    assert answer.feed(PING) == []
    (chunk,) = answer.feed(begin())
    assert chunk.data == PING + PING + begin()


def test_s2_passing_on_survives_every_split_and_never_cuts_an_event() -> None:
    body = b"".join(GOLDEN).replace(b"\n", b"\r\n")
    for at in range(1, len(body), 11):
        chunks = passed(body[:at], body[at:])
        assert b"".join(chunk.data for chunk in chunks) == body
        assert all(chunk.data.endswith(b"\r\n\r\n") for chunk in chunks)
        finishes = [c.finish_reason for c in chunks if c.finish_reason is not None]
        assert finishes == [FinishReason.TOOL_CALLS]


def test_s6_malformed_events_and_comments_are_not_passed_on() -> None:
    answer = MessagePass(BATCH)
    kept = b"".join((begin(), text(0, "a"), finish(), END))
    (chunk,) = answer.feed(
        begin() + b"data: {\n\n: hi\n\n" + kept.removeprefix(begin())
    )
    assert (chunk.data, answer.skipped) == (kept, 1)


def test_w4_event_without_a_name_is_given_it() -> None:
    (chunk,) = passed(b'data: {"type":"message_stop"}\n\n')
    assert chunk.data == b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def test_s4_last_event_is_passed_on_with_its_end() -> None:
    chunks = passed(begin(), text(0, "a"), finish(), END.rstrip())
    assert chunks[-1].data == END


def test_usage_of_a_stream_that_says_none_is_estimated() -> None:
    chunks = passed(begin({}), text(0, "abcd"), finish(usage={}), END)
    assert chunks[-1].usage == Usage(input_uncached=5, output_text=1, estimated=True)


def test_whole_answer_to_a_client_that_asked_for_events_becomes_events() -> None:
    (chunk,) = MessagePass(BATCH).whole(json.dumps(WHOLE).encode())
    assert chunk.content_type == "text/event-stream; charset=utf-8"
    assert chunk.usage == Usage(input_uncached=5, output_text=7)
    assert chunk.finish_reason is FinishReason.TOOL_CALLS
    whole = MessageAnswer(BATCH).whole(json.dumps(WHOLE).encode())
    assert _merged(read(chunk.data)) == _merged(whole)


def test_events_for_a_client_that_asked_for_a_whole_are_refused() -> None:
    with pytest.raises(errors.UpstreamProtocolError) as caught:
        MessagePass(UNSTREAMED).feed(begin())
    assert caught.value.code == "unasked_stream"


def test_only_a_read_that_is_one_delta_is_taken_at_once() -> None:
    one = delta(0, "text_delta", text="a")
    taken = lone_delta(one)
    assert taken is not None
    assert taken.delta is not None
    assert taken.delta.text == "a"
    crlf = one.replace(b"\n", b"\r\n")
    unnamed = one.removeprefix(b"event: content_block_delta\n")
    named_wrongly = one.replace(b'"content_block_delta"', b'"ping"')
    broken = b"event: content_block_delta\ndata: {\n\n"
    reported = b'event: content_block_delta\ndata: {"object":"error"}\n\n'
    others = (one + one, one[:-1], one + b"x", PING, crlf, unnamed)
    for other in (*others, named_wrongly, broken, reported, b""):
        assert lone_delta(other) is None


def test_tool_without_a_name_is_still_a_tool() -> None:
    chunks = read(begin(), start(0, type="tool_use", id="t"), stop(0), finish(), END)
    assert chunks[0] == call(id="t", name="")


def test_a_whole_answer_is_passed_on() -> None:
    body = json.dumps(WHOLE).encode()
    assert MessagePass(UNSTREAMED).whole(body) == [
        RawChunk(
            data=body,
            finish_reason=FinishReason.TOOL_CALLS,
            usage=Usage(input_uncached=5, output_text=7),
            model=M,
            content_type="application/json",
        )
    ]


def test_s10_frame_beyond_the_cap_is_refused() -> None:
    frames = FrameReader(max_event_bytes=10)
    assert frames.feed(b"data: 1\n\n") == [b"data: 1\n\n"]
    with pytest.raises(errors.UpstreamProtocolError) as caught:
        frames.feed(b"data: 12345")
    assert caught.value.code == "event_too_long"


@settings(max_examples=50)
@given(st.lists(st.sampled_from([b"a", b"\n", b"\r", b"\r\n"]), max_size=20), st.data())
def test_frames_are_the_same_whatever_the_cuts(parts: list[bytes], data: Any) -> None:
    body = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=4)))
    frames = FrameReader()
    whole = FrameReader()
    borders = [0, *cuts, len(body)]
    cut = [f for start, end in pairwise(borders) for f in frames.feed(body[start:end])]
    assert b"".join((*cut, frames.close())) == body
    assert b"".join((*whole.feed(body), whole.close())) == body


# --- bytes gone wrong ----------------------------------------------------------------


_edits = st.lists(
    st.tuples(
        st.integers(0, 2500),
        st.integers(0, 3),
        st.sampled_from(
            [b"", b"\n", b"\r", b"}", b'"', b"\xff", b"null", b"-1", b"[]"]
        ),
    ),
    min_size=1,
    max_size=4,
)


def _edited(body: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for at, length, new in edits:
        body = body[:at] + new + body[at + length :]
    return body


@settings(max_examples=60)
@given(_edits, st.sampled_from([MessageAnswer, MessagePass]), st.integers(1, 200))
def test_bytes_gone_wrong_are_understood_or_an_error_of_inference(
    edits: list[tuple[int, int, bytes]], reader: Any, size: int
) -> None:
    body = _edited(b"".join(GOLDEN), edits)
    answer = reader(BATCH)
    chunks: list[Any] = []
    try:
        for at in range(0, len(body), size):
            chunks += answer.feed(body[at : at + size])
        if not answer.ended and answer.error is None:
            chunks += answer.close()
    except errors.InferenceError:
        return
    assert answer.ended or answer.error is not None
    assert [chunk.usage is not None for chunk in chunks[:-1]] == [False] * (
        len(chunks) - 1
    )
    assert answer.error is not None or chunks[-1].usage is not None


@settings(max_examples=40)
@given(_edits, st.sampled_from([MessageAnswer, MessagePass]))
def test_whole_body_gone_wrong_is_understood_or_an_error_of_inference(
    edits: list[tuple[int, int, bytes]], reader: Any
) -> None:
    body = _edited(json.dumps(WHOLE).encode(), edits)
    with contextlib.suppress(errors.InferenceError):
        assert reader(BATCH).whole(body)[-1].usage is not None


# --- there and back -------------------------------------------------------------------


def test_what_we_stream_is_read_as_what_it_was() -> None:
    facts = AnswerFacts(request_id="r", created_s=1, model=M)
    encoder = MESSAGES.stream(Asked(batch=BATCH), facts)
    body = b"".join([*map(encoder.encode, GOLDEN_CHUNKS), encoder.end()])
    assert _merged(read(body)) == _merged(GOLDEN_CHUNKS)
