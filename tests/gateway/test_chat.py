"""Chat completions over a real socket, with the mock runtime behind them."""

import json
from typing import Any

import pytest
import trio

from atomr_infer.model.deployment import Deployment, RetryPolicy, Serving, Timeouts
from tests.gateway.conftest import Serve
from tests.gateway.http import chat, events, request, until


def mock(**options: Any) -> Deployment:
    return Deployment(name="m", runtime="mock", options=options)


async def test_a_whole_answer_says_who_answered(serve: Serve) -> None:
    async with serve(mock()) as running:
        answer = await chat(running.port)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-atomr-deployment"] == "m"
    assert answer.headers["x-atomr-attempts"] == "1"
    assert answer.json["id"] == f"chatcmpl-{answer.headers['x-request-id']}"
    assert answer.json["model"] == "m"
    assert answer.json["choices"][0]["message"]["content"] == "one two three"
    assert answer.json["usage"]["total_tokens"] == 6


async def test_a_stream_is_events_and_ends_with_done(serve: Serve) -> None:
    async with serve(mock()) as running:
        answer = await chat(
            running.port, stream=True, stream_options={"include_usage": True}
        )
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert "content-length" not in answer.headers
    *chunks, done = events(answer)
    assert done == "[DONE]"
    parsed = [json.loads(chunk) for chunk in chunks]
    deltas = [c["choices"][0]["delta"] for c in parsed if c["choices"]]
    assert "".join(d.get("content", "") for d in deltas) == "one two three"
    assert parsed[-1]["usage"]["completion_tokens"] == 3


async def test_an_error_before_the_first_byte_has_its_own_status(serve: Serve) -> None:
    broken = Deployment(
        name="m",
        runtime="mock",
        options={"fail_after": 0, "fail_kind": "rate_limited"},
        retry=RetryPolicy(max_attempts=1),
    )
    async with serve(broken) as running:
        answer = await chat(running.port, stream=True)
    assert answer.status == 429
    assert answer.headers["retry-after"] == "1"
    assert answer.json["error"]["code"] == "rate_limit_exceeded"


async def test_an_error_after_the_first_byte_is_an_event_and_not_a_clean_end(
    serve: Serve,
) -> None:
    async with serve(mock(fail_after=2)) as running:
        answer = await chat(running.port, stream=True)
    assert answer.status == 200
    *_, last = events(answer)
    assert set(json.loads(last)) == {"error"}
    assert json.loads(last)["error"]["type"] == "server_error"
    assert "[DONE]" not in answer.body.decode()
    assert '"finish_reason":"stop"' not in answer.body.decode()


async def test_a_failed_attempt_without_content_is_made_again(serve: Serve) -> None:
    flaky = Deployment(
        name="m",
        runtime="mock",
        options={"fail_after": 0},
        retry=RetryPolicy(max_attempts=3, backoff_s=0.001),
    )
    async with serve(flaky) as running:
        answer = await chat(running.port)
    assert answer.status == 502
    # Counted where it shows: three tries, then the error itself.


async def test_s10_a_silent_engine_is_a_timeout_and_its_place_is_free_again(
    serve: Serve,
) -> None:
    silent = Deployment(
        name="m",
        runtime="mock",
        options={"hang_after": 1},
        timeouts=Timeouts(idle_s=0.05),
    )
    async with serve(silent) as running:
        answer = await chat(running.port, stream=True)
        replica = (await running.cluster.replicas("m"))[0]
        assert json.loads(events(answer)[-1])["error"]["code"] == "timeout"
        assert replica.outstanding == 0


async def test_a_client_that_leaves_frees_the_engine(serve: Serve) -> None:
    one_at_a_time = Deployment(
        name="m",
        runtime="mock",
        options={"hang_after": 1},
        serving=Serving(max_concurrency=1),
    )
    async with serve(one_at_a_time) as running:
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                await chat(running.port, stream=True)

            nursery.start_soon(ask)
            replica = (await running.cluster.replicas("m"))[0]
            await until(lambda: replica.running == 1)
            nursery.cancel_scope.cancel()
        await until(lambda: replica.running == 0)


async def test_a_queued_client_that_leaves_frees_its_place(serve: Serve) -> None:
    one_at_a_time = Deployment(
        name="m",
        runtime="mock",
        options={"hang_after": 0},
        serving=Serving(max_concurrency=1, max_queue=1),
    )
    async with serve(one_at_a_time) as running:
        replica = (await running.cluster.replicas("m"))[0]

        async def ask(scope: trio.CancelScope) -> None:
            with scope:
                await chat(running.port)

        async with trio.open_nursery() as nursery:
            first, second = trio.CancelScope(), trio.CancelScope()
            nursery.start_soon(ask, first)
            await until(lambda: replica.running == 1)
            nursery.start_soon(ask, second)
            await until(lambda: replica.waiting == 1)
            full = await chat(running.port)
            assert full.status == 503
            assert full.json["error"]["code"] == "queue_full"
            second.cancel()
            await until(lambda: replica.waiting == 0)
            assert replica.running == 1
            first.cancel()


async def test_what_a_model_ignores_is_named_in_a_warning(serve: Serve) -> None:
    async with serve(mock()) as running:
        answer = await chat(running.port, temperature=0.5, unheard_of=1, user="u")
    assert answer.status == 200
    warning = "ignored by this model: temperature, unheard_of"
    assert answer.headers["x-atomr-warnings"] == warning


@pytest.mark.parametrize(
    ("members", "status", "param"),
    [
        ({"model": "zzz"}, 404, "model"),
        ({"messages": []}, 400, "messages"),
        ({"tools": [{"type": "function"}]}, 400, "tools[0].function"),
        (
            {"tools": [{"type": "function", "function": {"name": "f"}}]},
            400,
            "tools",
        ),
        ({"temperature": 9}, 400, "temperature"),
    ],
)
async def test_a_bad_request_is_one_sentence_in_the_envelope(
    serve: Serve, members: dict[str, Any], status: int, param: str
) -> None:
    async with serve(mock()) as running:
        answer = await chat(running.port, **members)
    assert answer.status == status
    assert set(answer.json["error"]) == {"message", "type", "param", "code"}
    assert answer.json["error"]["param"] == param


async def test_malformed_json_is_a_400(serve: Serve) -> None:
    async with serve(mock()) as running:
        answer = await request(running.port, "POST", "/v1/chat/completions", b"{oops")
    assert answer.status == 400
    assert answer.json["error"]["code"] == "invalid_json"


async def test_a_body_over_the_limit_is_a_413(serve: Serve) -> None:
    async with serve(mock(), max_body_bytes=100) as running:
        answer = await request(running.port, "POST", "/v1/chat/completions", b"x" * 101)
    assert answer.status == 413
    assert "100 bytes" in answer.json["error"]["message"]
