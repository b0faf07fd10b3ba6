"""The OpenAI SDK on a gateway that passes on to an OpenAI-like upstream."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import openai
import pytest
import trio

from atomr_infer.model.deployment import RetryPolicy
from atomr_infer.testing.upstream_script import (
    CutMidStream,
    EndWithoutFinish,
    ErrorInStream,
    HangBeforeHeaders,
    HangMidStream,
    Happy,
    RawAnswer,
    Refused,
    ToolCall,
    rate_limited,
    server_error,
)
from tests.gateway.http import until
from tests.sdk.clients import KEY
from tests.sdk.conftest import SDK_GENERATORS, UPSTREAM_KEY, ServeUpstream

pytestmark = pytest.mark.filterwarnings(SDK_GENERATORS)

TEXT = "Hello from the fake upstream."
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {}}},
        },
    }
]
LOGPROBS = {
    "content": [
        {"token": "Hi", "logprob": -0.25, "bytes": [72, 105], "top_logprobs": []}
    ],
    "refusal": None,
}


# --- whole answers -----------------------------------------------------------


async def test_text_usage_and_model_come_through(serve_upstream: ServeUpstream) -> None:
    async with serve_upstream(otherwise=Happy(cached_tokens=2)) as chain:
        completion, headers = await chain.client.chat()
        streamed = await chain.client.stream(stream_options={"include_usage": True})
    assert completion.choices[0].message.content == TEXT
    assert streamed.text == TEXT
    assert completion.model == "m"
    assert headers["x-atomr-attempts"] == "1"
    for usage in (completion.usage, streamed.chunks[-1].usage):
        assert (usage.prompt_tokens, usage.completion_tokens) == (3, 6)
        assert usage.prompt_tokens_details.cached_tokens == 2


async def test_the_clients_key_stays_here_and_ours_goes_up(
    serve_upstream: ServeUpstream,
) -> None:
    async with serve_upstream() as chain:
        await chain.client.chat(user="u-1", temperature=0.5)
    (request,) = chain.upstream.requests
    assert request.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert KEY not in json.dumps(dict(request.headers))
    assert request.json["temperature"] == 0.5
    assert request.json["user"] == "u-1"


async def test_tool_calls_arrive_in_the_upstreams_pieces(
    serve_upstream: ServeUpstream,
) -> None:
    async with serve_upstream(otherwise=ToolCall()) as chain:
        completion, _ = await chain.client.chat(tools=TOOLS)
        streamed = await chain.client.stream(tools=TOOLS)
    assert chain.upstream.requests[0].json["tools"] == TOOLS
    (choice,) = completion.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    (whole,) = choice.message.tool_calls
    assert (whole.id, whole.function.name) == ("call_fake", "get_weather")
    assert json.loads(whole.function.arguments) == {"city": "Paris"}
    deltas = [
        call.to_dict()
        for chunk in streamed.chunks
        for call in chunk.choices[0].delta.tool_calls or ()
    ]
    assert deltas == [
        {
            "index": 0,
            "id": "call_fake",
            "type": "function",
            "function": {"name": "get_weather", "arguments": ""},
        },
        {"index": 0, "function": {"arguments": '{"city":'}},
        {"index": 0, "function": {"arguments": ' "Paris"}'}},
    ]
    assert streamed.chunks[-1].choices[0].finish_reason == "tool_calls"


async def test_two_answers_come_through_apart(serve_upstream: ServeUpstream) -> None:
    async with serve_upstream() as chain:
        completion, _ = await chain.client.chat(n=2)
        streamed = await chain.client.stream(n=2)
    assert [c.message.content for c in completion.choices] == [TEXT, TEXT]
    assert [streamed.choice_text(index) for index in (0, 1)] == [TEXT, TEXT]
    finished = [
        choice.index
        for chunk in streamed.chunks
        for choice in chunk.choices
        if choice.finish_reason == "stop"
    ]
    assert sorted(finished) == [0, 1]


async def test_logprobs_come_through_whole(serve_upstream: ServeUpstream) -> None:
    choice = {"index": 0, "logprobs": LOGPROBS, "finish_reason": "stop"}
    head = {"id": "x", "created": 1, "model": "m"}
    message = {"role": "assistant", "content": "Hi"}
    whole = {
        **head,
        "object": "chat.completion",
        "choices": [{**choice, "message": message}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }
    chunk = {
        **head,
        "object": "chat.completion.chunk",
        "choices": [{**choice, "delta": message}],
    }
    events = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode()
    async with serve_upstream(
        RawAnswer(content_type="application/json", body=json.dumps(whole).encode()),
        RawAnswer(content_type="text/event-stream", body=events),
    ) as chain:
        completion, _ = await chain.client.chat(logprobs=True)
        streamed = await chain.client.stream(logprobs=True)
    assert chain.upstream.requests[0].json["logprobs"] is True
    assert completion.choices[0].logprobs.to_dict() == LOGPROBS
    said = [c.choices[0].logprobs for c in streamed.chunks if c.choices[0].logprobs]
    assert [logprobs.to_dict() for logprobs in said] == [LOGPROBS]


async def test_an_upstream_that_does_not_stream_is_no_empty_stream(
    serve_upstream: ServeUpstream,
) -> None:
    whole = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": TEXT},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9},
    }
    answer = RawAnswer(content_type="application/json", body=json.dumps(whole).encode())
    async with serve_upstream(answer) as chain:
        streamed = await chain.client.stream(stream_options={"include_usage": True})
    assert streamed.text == TEXT
    assert streamed.chunks[-1].usage.total_tokens == 9


# --- leaving -----------------------------------------------------------------


async def test_a_stream_that_is_closed_early_closes_the_upstreams_too(
    serve_upstream: ServeUpstream,
) -> None:
    async with serve_upstream(HangMidStream(after=2)) as chain:
        streamed = await chain.client.stream(leave_after=2)
        assert len(streamed.chunks) == 2
        with trio.fail_after(5):
            await chain.upstream.requests[0].client_left.wait()
        await until(lambda: chain.replica.outstanding == 0)


async def test_a_client_that_gives_up_waiting_closes_the_upstreams_too(
    serve_upstream: ServeUpstream,
) -> None:
    async with serve_upstream(HangBeforeHeaders()) as chain:
        with pytest.raises(openai.APITimeoutError):
            await chain.client.chat(timeout=0.3)
        with trio.fail_after(5):
            await chain.upstream.requests[0].client_left.wait()
        await until(lambda: chain.replica.outstanding == 0)


# --- failing -----------------------------------------------------------------


async def test_a_rate_limit_is_waited_out_and_the_headers_say_so(
    serve_upstream: ServeUpstream,
) -> None:
    async with serve_upstream(rate_limited("0.01"), rate_limited("0.01")) as chain:
        # Two tries: the third behaviour of the script is never reached.
        with pytest.raises(openai.RateLimitError) as caught:
            await chain.client.chat()
        completion, headers = await chain.client.chat()
    assert caught.value.response.headers["retry-after"] == "1"
    assert caught.value.response.headers["x-atomr-attempts"] == "2"
    assert completion.choices[0].message.content == TEXT
    # Who comes within those 10 ms waits for their end, and the upstream sees nothing.
    assert headers["x-atomr-attempts"] in ("1", "2")
    assert len(chain.upstream.requests) == 3


async def test_a_rate_limited_attempt_is_made_again(
    serve_upstream: ServeUpstream,
) -> None:
    async with serve_upstream(rate_limited("0.01")) as chain:
        completion, headers = await chain.client.chat()
    assert completion.choices[0].message.content == TEXT
    assert headers["x-atomr-attempts"] == "2"
    assert len(chain.upstream.requests) == 2


async def test_the_upstreams_retry_after_reaches_the_client(
    serve_upstream: ServeUpstream,
) -> None:
    # Longer than the deployment waits: the client is told at once.
    async with serve_upstream(rate_limited("37")) as chain:
        with pytest.raises(openai.RateLimitError) as caught:
            await chain.client.stream()
    assert caught.value.response.headers["retry-after"] == "37"
    assert caught.value.code == "rate_limit_exceeded"
    assert len(chain.upstream.requests) == 1


async def test_an_upstream_that_keeps_failing_is_a_bad_gateway(
    serve_upstream: ServeUpstream,
) -> None:
    async with serve_upstream(otherwise=server_error(503)) as chain:
        with pytest.raises(openai.InternalServerError) as caught:
            await chain.client.chat()
    assert caught.value.status_code in {502, 503}
    assert len(chain.upstream.requests) == 2


async def test_what_the_upstream_refuses_is_the_clients_bad_request(
    serve_upstream: ServeUpstream,
) -> None:
    refusal = Refused(status=400, message="top_p is too large", param="top_p")
    async with serve_upstream(refusal) as chain:
        with pytest.raises(
            openai.BadRequestError, match="top_p is too large"
        ) as caught:
            await chain.client.chat()
    assert caught.value.param == "top_p"
    assert len(chain.upstream.requests) == 1


@pytest.mark.parametrize(
    "broken", [CutMidStream(), EndWithoutFinish(), ErrorInStream()]
)
async def test_an_upstream_that_breaks_off_is_an_error_and_not_an_end(
    serve_upstream: ServeUpstream, broken: Any
) -> None:
    async with serve_upstream(otherwise=broken) as chain:
        streamed = await chain.client.stream()
    assert type(streamed.error) is openai.APIError
    assert streamed.text == "Hello from"
    assert len(chain.upstream.requests) == 1, "the client has seen content"


async def test_a_key_that_the_upstream_refuses_is_not_the_clients_and_is_not_shown(
    serve_upstream: ServeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    refusal = Refused(
        status=401,
        message=f"Incorrect API key provided: {UPSTREAM_KEY}.",
        code="invalid_api_key",
    )
    async with serve_upstream(
        otherwise=refusal, retry=RetryPolicy(max_attempts=1)
    ) as chain:
        with pytest.raises(openai.InternalServerError) as caught:
            await chain.client.chat()
        with pytest.raises(openai.InternalServerError):
            await chain.client.stream()
    assert caught.value.status_code == 502
    answer = caught.value.response
    said = f"{answer.headers}{answer.text}"
    ours = [r for r in caplog.records if re.match("atomr", r.name)]
    assert ours, "the failure is logged"
    logged = "\n".join(record.getMessage() for record in ours)
    assert UPSTREAM_KEY not in said + logged
    assert KEY not in said + logged
