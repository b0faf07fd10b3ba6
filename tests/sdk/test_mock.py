"""The OpenAI SDK on a gateway whose engine is the mock runtime."""

from __future__ import annotations

from typing import Any

import openai
import pytest
import trio
from openai import AsyncOpenAI

from atomr_infer.model.deployment import RetryPolicy
from tests.gateway.http import until
from tests.sdk.clients import KEY, TrioClient
from tests.sdk.conftest import SDK_GENERATORS, ServeMock

pytestmark = pytest.mark.filterwarnings(SDK_GENERATORS)

ONCE = RetryPolicy(max_attempts=1)


async def test_a_whole_answer_is_what_the_sdk_calls_a_completion(
    serve_mock: ServeMock,
) -> None:
    async with serve_mock() as served:
        completion, headers = await served.client.chat()
    assert completion.id == f"chatcmpl-{headers['x-request-id']}"
    assert (completion.object, completion.model) == ("chat.completion", "m")
    (choice,) = completion.choices
    assert (choice.index, choice.finish_reason) == (0, "stop")
    assert (choice.message.role, choice.message.content) == (
        "assistant",
        "one two three",
    )
    assert completion.usage.to_dict() == {
        "prompt_tokens": 3,
        "completion_tokens": 3,
        "total_tokens": 6,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


async def test_a_streams_text_is_the_whole_answers(serve_mock: ServeMock) -> None:
    async with serve_mock() as served:
        streamed = await served.client.stream()
    assert streamed.error is None
    assert streamed.text == "one two three"
    assert streamed.chunks[0].choices[0].delta.role == "assistant"
    assert len({(chunk.id, chunk.created) for chunk in streamed.chunks}) == 1
    reasons = [chunk.choices[0].finish_reason for chunk in streamed.chunks]
    assert reasons == [None] * (len(reasons) - 1) + ["stop"]
    # Clients index choices[0]: no usage chunk unless it was asked for.
    assert all(chunk.usage is None for chunk in streamed.chunks)


async def test_usage_comes_in_a_last_chunk_of_its_own(serve_mock: ServeMock) -> None:
    async with serve_mock() as served:
        streamed = await served.client.stream(stream_options={"include_usage": True})
    *before, last = streamed.chunks
    assert all(chunk.usage is None for chunk in before)
    assert last.choices == []
    assert last.usage.total_tokens == 6


async def test_several_answers_at_once_keep_apart(serve_mock: ServeMock) -> None:
    async with serve_mock() as served:
        completion, _ = await served.client.chat(n=2)
        streamed = await served.client.stream(n=2)
    texts = [choice.message.content for choice in completion.choices]
    assert texts == ["one two three"] * 2
    assert [streamed.choice_text(index) for index in (0, 1)] == texts


async def test_a_stream_that_is_closed_early_frees_the_engine(
    serve_mock: ServeMock,
) -> None:
    async with serve_mock(hang_after=2) as served:
        streamed = await served.client.stream(leave_after=2)
        assert len(streamed.chunks) == 2
        await until(lambda: served.replica.outstanding == 0)


async def test_models_are_listed_and_retrieved(serve_mock: ServeMock) -> None:
    async with serve_mock(serves=("m", "org/m:1", "gpt-*")) as served:
        assert await served.client.models() == ["m", "org/m:1", "gpt-*"]
        one = await served.client.model("org/m:1")
        assert (one.id, one.object, one.owned_by) == ("org/m:1", "model", "m")
        with pytest.raises(openai.NotFoundError) as caught:
            await served.client.model("nope")
    assert caught.value.code == "model_not_found"


async def test_an_unknown_model_is_not_found_and_the_near_one_is_named(
    serve_mock: ServeMock,
) -> None:
    async with serve_mock(serves=("tiny-llama",)) as served:
        with pytest.raises(openai.NotFoundError, match="did you mean") as caught:
            await served.client.chat(model="tiny-lama")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert "tiny-llama" in caught.value.message


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"temperature": 9}, "temperature"),
        ({"messages": []}, "messages"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ],
)
async def test_a_bad_request_names_its_parameter(
    serve_mock: ServeMock, members: dict[str, Any], param: str
) -> None:
    async with serve_mock() as served:
        with pytest.raises(openai.BadRequestError) as caught:
            await served.client.chat(**members)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("kind", "expected", "status", "code"),
    [
        ("rate_limited", openai.RateLimitError, 429, "rate_limit_exceeded"),
        ("context_length", openai.BadRequestError, 400, "context_length_exceeded"),
        ("internal", openai.InternalServerError, 500, "internal_error"),
        ("upstream", openai.InternalServerError, 502, "upstream_error"),
        ("overloaded", openai.InternalServerError, 503, "overloaded"),
        ("engine_crashed", openai.InternalServerError, 503, "engine_error"),
        ("upstream_timeout", openai.InternalServerError, 504, "timeout"),
    ],
)
async def test_an_error_before_the_first_byte_has_the_sdks_class(
    serve_mock: ServeMock,
    kind: str,
    expected: type[openai.APIStatusError],
    status: int,
    code: str,
) -> None:
    async with serve_mock(retry=ONCE, fail_after=0, fail_kind=kind) as served:
        with pytest.raises(expected) as whole:
            await served.client.chat()
        with pytest.raises(expected) as streamed:
            await served.client.stream()
    for error in (whole.value, streamed.value):
        assert (error.status_code, error.code) == (status, code)
        retry_after = error.response.headers.get("retry-after")
        assert retry_after == ("1" if status in {429, 503} else None)


async def test_a_failure_in_mid_stream_raises_and_keeps_what_came(
    serve_mock: ServeMock,
) -> None:
    async with serve_mock(fail_after=2) as served:
        streamed = await served.client.stream()
    assert type(streamed.error) is openai.APIError
    assert streamed.error.code == "upstream_error"
    assert "the mock fails as its script says" in streamed.error.message
    assert streamed.text == "one two"
    assert all(c.choices[0].finish_reason is None for c in streamed.chunks)


# --- many requests: they measure the gateway, so one shape is enough ----------

one_shape = pytest.mark.parametrize("shape", [TrioClient], indirect=True)


@one_shape
async def test_64_streams_at_once_get_the_right_texts(serve_mock: ServeMock) -> None:
    texts: dict[int, str] = {}
    async with (
        serve_mock(max_concurrency=16, delay_s=0.005) as served,
        AsyncOpenAI(api_key=KEY, base_url=served.url, max_retries=0) as client,
    ):

        async def ask(number: int) -> None:
            said = f"this is number {number} of many"
            async with await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": said}], stream=True
            ) as stream:
                deltas = [c.choices[0].delta.content or "" async for c in stream]
            texts[number] = "".join(deltas)

        async with trio.open_nursery() as nursery:
            for number in range(64):
                nursery.start_soon(ask, number)
        await until(lambda: served.replica.outstanding == 0)
    assert texts == {n: f"this is number {n} of many" for n in range(64)}


@one_shape
async def test_20_requests_in_turn_use_one_connection(serve_mock: ServeMock) -> None:
    ports: set[int] = set()
    async with (
        serve_mock() as served,
        AsyncOpenAI(api_key=KEY, base_url=served.url, max_retries=0) as client,
    ):
        for number in range(20):
            said = f"request {number}"
            raw = await client.chat.completions.with_raw_response.create(
                model="m", messages=[{"role": "user", "content": said}]
            )
            assert raw.parse().choices[0].message.content == said
            network = raw.http_response.extensions["network_stream"]
            ports.add(network.get_extra_info("client_addr")[1])
    assert len(ports) == 1


@one_shape
async def test_a_stream_leaves_its_connection_fit_for_the_next_request(
    serve_mock: ServeMock,
) -> None:
    ports: list[int] = []
    async with (
        serve_mock() as served,
        AsyncOpenAI(api_key=KEY, base_url=served.url, max_retries=0) as client,
    ):
        for _ in range(5):
            async with await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "a b"}], stream=True
            ) as stream:
                deltas = [c.choices[0].delta.content or "" async for c in stream]
                network = stream.response.extensions["network_stream"]
                ports.append(network.get_extra_info("client_addr")[1])
            assert "".join(deltas) == "a b"
    assert ports == [ports[0]] * 5
