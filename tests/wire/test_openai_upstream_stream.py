from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_infer import errors
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    Role,
    Sampling,
    TokenChunk,
    Usage,
)
from atomr_infer.wire.openai.upstream_stream import ChatAnswer

STOP = TokenChunk(finish_reason=FinishReason.STOP)
DONE = b"data: [DONE]\n\n"
ESTIMATE = Usage(input_uncached=5, output_text=1, estimated=True)
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1}}\n\n'
EXACT = TokenChunk(usage=Usage(input_uncached=9, output_text=1))


def _batch(n: int = 1, max_tokens: int | None = None) -> ExecuteBatch:
    return ExecuteBatch(
        request_id="r",
        model="m",
        messages=(Message(Role.USER, "abcd"),),
        sampling=Sampling(n=n, max_tokens=max_tokens),
    )


def _said(text: str, index: int = 0) -> bytes:
    return b'data: {"choices":[{"index":%d,"delta":{"content":"%b"}}]}\n\n' % (
        index,
        text.encode(),
    )


def _finished(index: int = 0) -> bytes:
    return b'data: {"choices":[{"index":%d,"finish_reason":"stop"}]}\n\n' % index


def _run(*pieces: bytes, n: int = 1) -> list[TokenChunk]:
    answer = ChatAnswer(_batch(n))
    chunks = [chunk for piece in pieces for chunk in answer.feed(piece)]
    return chunks if answer.ended else chunks + answer.close()


def test_usage_stands_once_on_the_last_chunk() -> None:
    stream = (_said("a"), USAGE, _finished(), USAGE, DONE)
    assert _run(*stream) == [TokenChunk(text="a"), STOP, EXACT]


def test_usage_is_estimated_when_the_upstream_does_not_say() -> None:
    chunks = _run(_said("a"), _finished(), DONE)
    assert chunks == [TokenChunk(text="a"), STOP, TokenChunk(usage=ESTIMATE)]


def test_estimate_stays_below_max_tokens() -> None:
    answer = ChatAnswer(_batch(max_tokens=2))
    answer.feed(_said("x" * 100) + _finished())
    assert answer.close()[-1].usage == Usage(
        input_uncached=5, output_text=2, estimated=True
    )


def test_s5_finish_without_done_is_complete() -> None:
    assert _run(_said("a"), _finished(), USAGE)[-1] == EXACT


def test_done_without_a_line_end_is_complete() -> None:
    assert _run(_said("a"), _finished(), USAGE, b"data: [DONE]")[-1] == EXACT


def test_done_without_finish_finishes_each_answer() -> None:
    assert _run(_said("a", 1), USAGE, DONE, n=2) == [
        TokenChunk(text="a", index=1),
        STOP,
        TokenChunk(index=1, finish_reason=FinishReason.STOP),
        EXACT,
    ]


def test_t7_done_without_finish_behind_calls_is_a_turn_of_calls() -> None:
    call = (
        b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a",'
        b'"function":{"name":"f","arguments":"{}"}}]}}]}\n\n'
    )
    finishes = [chunk.finish_reason for chunk in _run(call, DONE)]
    assert finishes == [None, FinishReason.TOOL_CALLS, None]


@pytest.mark.parametrize(
    ("stream", "n"),
    [
        (b"", 1),
        (_said("a"), 1),
        (_said("a") + USAGE, 1),
        (_said("a") + b'data: {"choices":[{"finish_rea', 1),
        (_said("a", 0) + _finished(0) + _said("b", 1), 2),
        (_said("a", 0) + _finished(0), 2),
        (b": only comments\n\n" * 10, 1),
        (b"data: nonsense\n\n" * 3, 1),
    ],
)
def test_s5_stream_with_neither_done_nor_every_finish_is_cut(
    stream: bytes, n: int
) -> None:
    with pytest.raises(errors.StreamCutError):
        _run(stream, n=n)


def test_s6_malformed_event_is_skipped_and_counted() -> None:
    answer = ChatAnswer(_batch())
    bad = b'data: {"choices": [{"del\n\n'
    chunks = answer.feed(_said("a") + bad + _said("b") + _finished() + DONE)
    assert [chunk.text for chunk in chunks] == ["a", "b", "", ""]
    assert (answer.skipped, answer.ended) == (1, True)


def test_truncated_end_behind_the_finish_does_no_harm() -> None:
    assert _run(_said("a"), _finished(), USAGE[:30])[-1].usage == ESTIMATE


def test_what_follows_a_finish_is_not_passed_on() -> None:
    assert _run(_finished(), _said("late"), _finished(), USAGE, DONE) == [STOP, EXACT]


def test_bytes_behind_done_are_not_looked_at() -> None:
    answer = ChatAnswer(_batch())
    answer.feed(_finished() + DONE)
    error = b'data: {"error":{"message":"late"}}\n\n'
    assert answer.feed(error) == []


def test_error_behind_content_is_raised() -> None:
    answer = ChatAnswer(_batch())
    answer.feed(_said("a"))
    with pytest.raises(errors.UpstreamError, match="boom"):
        answer.feed(b'data: {"error":{"message":"boom"}}\n\n')


@given(st.lists(st.integers(0, 400)))
def test_chunks_do_not_depend_on_how_the_bytes_are_cut(cuts: list[int]) -> None:
    body = _said("é\u2028") + _said("b") + _finished() + USAGE + DONE
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [body[a:b] for a, b in pairwise(edges)]
    assert _run(*pieces) == _run(body)


@pytest.mark.parametrize("index", [-1, 2, 10**30])
def test_event_of_an_answer_that_was_not_asked_for_is_skipped(index: int) -> None:
    answer = ChatAnswer(_batch(n=2))
    assert answer.feed(_said("x", index)) == []
    assert answer.feed(_said("a", 1)) == [TokenChunk(text="a", index=1)]
    assert answer.skipped == 1


@pytest.mark.parametrize("index", [-1, 1])
def test_whole_answer_that_was_not_asked_for_is_malformed(index: int) -> None:
    body = b'{"choices":[{"index":%d,"message":{"content":"x"}}]}' % index
    with pytest.raises(errors.UpstreamProtocolError) as caught:
        ChatAnswer(_batch()).whole(body)
    assert caught.value.code == "malformed_body"
