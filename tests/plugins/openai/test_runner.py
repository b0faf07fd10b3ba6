"""Every fault of an upstream, through the runner, with its exact error."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr_infer import errors
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Sampling,
    TokenChunk,
    ToolCallDelta,
    Usage,
)
from atomr_infer.model.deployment import Deployment, OptionValue
from atomr_infer.model.secret import Secret
from atomr_infer.remote.credentials.keys import fixed
from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstream import open_openai_upstream
from atomr_infer_openai.runner import open_openai_runner
from tests.at_once import at_once, stand_still
from tests.gateway.http import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from atomr_infer.testing.upstream_script import Behaviour

M = "gpt-test"
STOP = TokenChunk(finish_reason=FinishReason.STOP, model=M)


def _text(text: str, **members: Any) -> TokenChunk:
    return TokenChunk(text=text, model=M, **members)


def _usage(**members: Any) -> TokenChunk:
    return TokenChunk(usage=Usage(input_uncached=3, **members), model=M)


# --- answers ----------------------------------------------------------------


async def test_stream_gives_each_piece_then_the_finish_then_usage(
    over_socket: Any,
) -> None:
    async with over_socket(script.Happy(tokens=("a", "b"))) as pair:
        assert await pair.ask() == [
            _text("a"),
            _text("b"),
            STOP,
            _usage(output_text=2),
        ]
        sent = pair.upstream.requests[0]
        assert sent.json == {
            "model": M,
            "messages": [{"role": "user", "content": "one two three"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }


async def test_request_carries_key_and_asks_for_no_compression(
    over_socket: Any, key: str
) -> None:
    async with over_socket() as pair:
        await pair.ask()
        headers = pair.upstream.requests[0].headers
        assert headers["authorization"] == f"Bearer {key}"
        assert headers["accept-encoding"] == "identity"
        assert headers["content-type"] == "application/json"
        assert headers["user-agent"] == "atomr-infer"


async def test_options_become_headers(batch: Callable[..., ExecuteBatch]) -> None:
    async with open_openai_upstream() as upstream:
        options: dict[str, OptionValue] = {
            "endpoint": upstream.base_url,
            "organization": "org-1",
            "project": "proj-1",
            "headers": {"X-Team": "blue", "user-agent": "mine"},
        }
        wanted = Deployment(name="up", runtime="openai", options=options)
        async with (
            open_openai_runner(wanted, fixed(None)) as runner,
            runner.execute(batch()) as chunks,
        ):
            assert [c async for c in chunks]
        headers = upstream.requests[0].headers
    assert headers["openai-organization"] == "org-1"
    assert headers["openai-project"] == "proj-1"
    assert headers["x-team"] == "blue"
    assert headers["user-agent"] == "mine"
    assert "authorization" not in headers


async def test_whole_answer_is_one_chunk_and_usage(over_socket: Any) -> None:
    async with over_socket(script.Happy(tokens=("a", "b"))) as pair:
        finished = _text("ab", finish_reason=FinishReason.STOP)
        assert await pair.ask(stream=False) == [finished, _usage(output_text=2)]
        assert pair.upstream.requests[0].json["stream"] is False


async def test_cached_and_reasoning_tokens_are_told_apart(over_socket: Any) -> None:
    happy = script.Happy(tokens=("a",), cached_tokens=2, reasoning_tokens=4)
    async with over_socket(happy) as pair:
        usage = Usage(input_uncached=1, cache_read=2, output_text=1, reasoning=4)
        assert (await pair.ask())[-1].usage == usage


async def test_several_answers_are_told_apart(over_socket: Any) -> None:
    async with over_socket(script.Happy(tokens=("a",))) as pair:
        chunks = await pair.ask(sampling=Sampling(n=2))
        assert [(c.index, c.text) for c in chunks[:-1]] == [
            (0, "a"),
            (1, "a"),
            (0, ""),
            (1, ""),
        ]


async def test_t1_a_tool_call_streams_in_pieces(over_socket: Any) -> None:
    async with over_socket(script.ToolCall(arguments=("{", "}"))) as pair:
        chunks = await pair.ask()
        assert [chunk.tool_calls for chunk in chunks] == [
            (ToolCallDelta(index=0, id="call_fake", name="get_weather"),),
            (ToolCallDelta(index=0, arguments="{"),),
            (ToolCallDelta(index=0, arguments="}"),),
            (),
            (),
        ]
        assert chunks[-2].finish_reason is FinishReason.TOOL_CALLS


@pytest.mark.parametrize("size", [1, 7])
async def test_stream_cut_into_small_writes_is_the_same(
    over_socket: Any, size: int
) -> None:
    async with over_socket(script.Happy(), script.Happy(split_bytes=size)) as pair:
        assert await pair.ask() == await pair.ask()


async def test_stream_without_done_is_complete(over_socket: Any) -> None:
    async with over_socket(script.Happy(tokens=("a",), done=False)) as pair:
        assert await pair.ask() == [_text("a"), STOP, _usage(output_text=1)]


async def test_missing_usage_is_estimated(over_socket: Any) -> None:
    async with over_socket(script.Happy(tokens=("four", "four"), usage=False)) as pair:
        usage = (await pair.ask())[-1].usage
        assert usage == Usage(input_uncached=8, output_text=2, estimated=True)


async def test_malformed_event_is_skipped_with_a_warning(
    over_socket: Any, caplog: pytest.LogCaptureFixture
) -> None:
    happy = script.Happy(tokens=("a", "b"), malformed_after=1)
    async with over_socket(happy) as pair:
        assert [chunk.text for chunk in await pair.ask()] == ["a", "b", "", ""]
    assert caplog.messages == [
        "request r-1: skipped 1 malformed events of the upstream's stream"
    ]


async def test_whole_answer_to_a_stream_request_is_taken(over_socket: Any) -> None:
    body = (
        b'{"model":"gpt-test","choices":[{"index":0,"message":{"content":"a"},'
        b'"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}'
    )
    answer = script.RawAnswer(content_type="application/json", body=body)
    async with over_socket(answer) as pair:
        finished = _text("a", finish_reason=FinishReason.STOP)
        assert await pair.ask() == [finished, _usage(output_text=1)]


# --- faults -----------------------------------------------------------------

ERROR_200 = b'{"object":"error","message":"too long","type":"BadRequestError",'

FAULTS = [
    (script.rate_limited(None), errors.RateLimitedError, "rate_limit_exceeded"),
    (script.server_error(500), errors.UpstreamError, None),
    (script.server_error(503), errors.UpstreamError, None),
    (script.server_error(529), errors.UpstreamError, None),
    (script.server_error(504), errors.UpstreamTimeoutError, None),
    (script.Refused(status=400), errors.InvalidRequestError, None),
    (script.Refused(status=401), errors.UpstreamAuthError, None),
    (script.CutMidStream(after=2), errors.StreamCutError, None),
    (script.CutMidStream(after=0), errors.StreamCutError, None),
    (script.HalfClose(), errors.StreamCutError, None),
    (script.EndWithoutFinish(), errors.StreamCutError, None),
    (script.ErrorInStream(), errors.UpstreamError, None),
    (
        script.ErrorInStream(after=0, data=ERROR_200 + b'"code":400}'),
        errors.InvalidRequestError,
        None,
    ),
    (
        script.ErrorInStream(data=b"overloaded", event="error"),
        errors.UpstreamError,
        None,
    ),
    (script.RawAnswer(), errors.UpstreamProtocolError, "wrong_content_type"),
    (
        script.RawAnswer(content_type="application/json", body=b"{}"),
        errors.UpstreamProtocolError,
        "malformed_body",
    ),
    (
        script.RawAnswer(status=302, body=b""),
        errors.UpstreamProtocolError,
        "not_an_api",
    ),
    (script.RawAnswer(status=404), errors.UpstreamProtocolError, "not_an_api"),
    (
        script.HugeLine(size_bytes=17 * 1024 * 1024),
        errors.UpstreamProtocolError,
        "event_too_long",
    ),
    (script.CloseBeforeHeaders(), errors.StreamCutError, "no_response"),
]


@pytest.mark.parametrize(
    ("fault", "error_class", "code"),
    FAULTS,
    ids=[f"{type(f).__name__}-{n}" for n, (f, *_) in enumerate(FAULTS)],
)
async def test_fault_has_its_error_and_the_next_request_works(
    over_socket: Any, fault: Any, error_class: type[Exception], code: str | None
) -> None:
    async with over_socket(fault) as pair:
        with pytest.raises(errors.InferenceError) as caught:
            await pair.ask()
        assert type(caught.value) is error_class
        assert caught.value.code == code
        assert pair.runner.active == 0
        assert (await pair.ask())[-1].usage is not None


@pytest.mark.parametrize(
    "fault", [script.CutMidStream(), script.HalfClose(), script.RawAnswer()]
)
async def test_fault_in_a_whole_answer_has_its_error(
    over_socket: Any, fault: Any
) -> None:
    async with over_socket(fault) as pair:
        with pytest.raises((errors.StreamCutError, errors.UpstreamProtocolError)):
            await pair.ask(stream=False)


async def test_rate_limit_says_how_long_to_wait(over_socket: Any) -> None:
    async with over_socket(script.rate_limited("2.5")) as pair:
        with pytest.raises(errors.RateLimitedError) as caught:
            await pair.ask()
    assert (caught.value.retry_after_s, caught.value.status) == (2.5, 429)


async def test_content_before_a_cut_is_given(
    over_socket: Any, batch: Callable[..., ExecuteBatch]
) -> None:
    async with over_socket(script.CutMidStream(after=2)) as pair:
        seen = []
        with pytest.raises(errors.StreamCutError):
            async with pair.runner.execute(batch()) as chunks:
                async for chunk in chunks:
                    seen.append(chunk.text)
        assert seen == ["Hello", " from"]


async def test_iterator_that_raised_is_over(
    over_socket: Any, batch: Callable[..., ExecuteBatch]
) -> None:
    async with (
        over_socket(script.ErrorInStream(after=0)) as pair,
        pair.runner.execute(batch()) as chunks,
    ):
        with pytest.raises(errors.UpstreamError):
            await anext(chunks)
        with pytest.raises(StopAsyncIteration):
            await anext(chunks)


async def test_refused_connection_is_a_connect_error(
    batch: Callable[..., ExecuteBatch],
) -> None:
    async with open_openai_upstream() as upstream:
        url = upstream.base_url
    wanted = Deployment(name="up", runtime="openai", options={"endpoint": url})
    async with open_openai_runner(wanted, fixed(None)) as runner:
        with pytest.raises(errors.UpstreamConnectError):
            async with runner.execute(batch()):
                pytest.fail("entered without an upstream")
        assert runner.active == 0


async def test_connection_that_the_upstream_closed_is_replaced(
    over_socket: Any,
) -> None:
    closing = script.Happy(then_close=True)
    async with over_socket(closing, closing) as pair:
        for _ in range(3):
            assert len(await pair.ask()) == 8
        assert pair.upstream.connections == 3


@pytest.mark.parametrize("idempotent", [True, False])
async def test_request_on_a_dying_connection_is_repeated_only_where_allowed(
    over_socket: Any, idempotent: bool
) -> None:
    dying = (script.Happy(), script.CloseBeforeHeaders())
    async with over_socket(*dying, idempotent=idempotent) as pair:
        await pair.ask()
        if idempotent:
            assert len(await pair.ask()) == 8
        else:
            with pytest.raises(errors.StreamCutError):
                await pair.ask()
        assert len(pair.upstream.requests) == 2 + idempotent


# --- connections ------------------------------------------------------------


async def test_a_hundred_answers_in_sequence_share_one_connection(
    over_socket: Any,
) -> None:
    async with over_socket() as pair:
        for number in range(100):
            await pair.ask(stream=number % 2 == 0)
        assert pair.upstream.connections == 1


async def test_errors_do_not_cost_the_connection(over_socket: Any) -> None:
    async with over_socket(script.rate_limited(None), script.server_error()) as pair:
        for _ in range(2):
            with pytest.raises(errors.InferenceError):
                await pair.ask()
        await pair.ask()
        assert pair.upstream.connections == 1


async def test_generations_at_once_do_not_disturb_each_other(over_socket: Any) -> None:
    faults = [script.CutMidStream(), script.server_error(), script.HangMidStream()]
    async with over_socket(*faults, *[script.Happy(delay_s=0.002)] * 29) as pair:
        outcomes: list[str] = []

        async def one() -> None:
            try:
                outcomes.append("".join(c.text for c in await pair.ask()))
            except errors.InferenceError as error:
                outcomes.append(type(error).__name__)

        async with trio.open_nursery() as nursery:
            for _ in range(32):
                nursery.start_soon(one)
            await until(lambda: len(outcomes) == 31, within_s=60)
            assert pair.runner.active == 1, "the one that hangs"
            nursery.cancel_scope.cancel()
        expected = ["StreamCutError", "UpstreamError"]
        expected += ["".join(script.DEFAULT_TOKENS)] * 29
        assert sorted(outcomes) == sorted(expected)
        assert pair.runner.active == 0


# --- cancellation -----------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "taken"),
    [
        (script.HangBeforeHeaders(), None),
        (script.HangMidStream(after=0), 0),
        (script.HangMidStream(after=2), 2),
        (script.Happy(tokens=("x",) * 10_000, delay_s=0.001), 3),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_upstream_sees_a_cancelled_request_leave_at_once(
    over_socket: Any,
    mock_clock: MockClock,
    batch: Callable[..., ExecuteBatch],
    behaviour: Behaviour,
    taken: int | None,
    stream: bool,
) -> None:
    mock_clock.rate = 1.0
    async with over_socket(behaviour) as pair:
        reached = trio.Event()

        async def ask() -> None:
            async with pair.runner.execute(batch(stream=stream)) as chunks:
                for _ in range(taken or 0 if stream else 0):
                    await anext(chunks)
                reached.set()
                await anext(chunks)
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await pair.upstream.wait_for_requests(1)
            if taken is not None and stream:
                await reached.wait()
            assert pair.runner.active == 1
            stand_still(mock_clock)
            nursery.cancel_scope.cancel()
        assert pair.runner.active == 0
        await _left_at_once(pair, mock_clock)


async def test_leaving_the_block_early_closes_the_connection(
    over_socket: Any, batch: Callable[..., ExecuteBatch], mock_clock: MockClock
) -> None:
    mock_clock.rate = 1.0
    async with over_socket(script.HangMidStream()) as pair:
        async with pair.runner.execute(batch()) as chunks:
            assert (await anext(chunks)).text == "Hello"
            stand_still(mock_clock)
        await _left_at_once(pair, mock_clock)


async def _left_at_once(pair: Any, mock_clock: MockClock) -> None:
    """Wait until the upstream sees it, while time stands still."""
    request = pair.upstream.requests[0]
    await at_once(request.client_left.is_set, mock_clock)
    assert not request.answered.is_set()


async def test_runner_that_is_well_never_fails(over_socket: Any) -> None:
    async with over_socket() as pair:
        with trio.move_on_after(0.01) as scope:
            await pair.runner.failed()
        assert scope.cancelled_caught


# --- secrets ----------------------------------------------------------------


async def test_key_is_in_no_error_no_text_and_no_log(
    over_socket: Any, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told = f"Incorrect API key provided: {key}"
    in_stream = f'{{"error":{{"message":"{told}"}}}}'.encode()
    faults = (
        script.Refused(status=401, message=told, code=key, param=key),
        script.ErrorInStream(data=in_stream),
        script.ErrorInStream(data=told.encode(), event="error"),
        script.RawAnswer(content_type="application/json", body=in_stream),
        script.Happy(malformed_after=1),
    )
    async with over_socket(*faults) as pair:
        texts = [repr(pair.runner)]
        for _ in faults[:-1]:
            with pytest.raises(errors.InferenceError) as caught:
                await pair.ask()
            error: BaseException | None = caught.value
            while error is not None:
                texts += [repr(error), str(error), repr(vars(error))]
                error = error.__cause__ or error.__context__
        await pair.ask()
    assert key not in "".join(texts) + caplog.text
    assert "***" in "".join(texts)


@pytest.mark.parametrize("bad", ["sk-1\n", "sk 1\r\nx: y", "sk-é", ""])
async def test_key_that_no_header_can_carry_is_refused_unshown(
    bad: str, batch: Callable[..., ExecuteBatch]
) -> None:
    wanted = Deployment(name="up", runtime="openai")
    with pytest.raises(errors.UpstreamAuthError) as caught:
        async with (
            open_openai_runner(wanted, fixed(Secret(bad))) as runner,
            runner.execute(batch()),
        ):
            pytest.fail("sent")
    assert bad == "" or bad.strip() not in str(caught.value)


async def test_openai_itself_is_not_opened_without_a_key() -> None:
    with pytest.raises(errors.UpstreamAuthError, match=r"api\.openai\.com"):
        async with open_openai_runner(
            Deployment(name="up", runtime="openai"), fixed(None)
        ):
            pytest.fail("opened")
