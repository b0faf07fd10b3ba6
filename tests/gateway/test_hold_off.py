"""A gateway that drains without an end: it answers, and can take requests again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio

from atomr_infer.model.deployment import Deployment
from tests.gateway.dialects import ROUTES
from tests.gateway.http import Answer, chat, events, parse, request, until

if TYPE_CHECKING:
    from tests.gateway.conftest import Running, Serve

SLOW = Deployment(
    name="m", runtime="mock", options={"reply": "one two three", "delay_s": 0.05}
)
STUCK = Deployment(name="m", runtime="mock", options={"reply": "a b", "hang_after": 1})


async def ask(running: Running, name: str) -> Answer:
    connection = await trio.open_tcp_stream("127.0.0.1", running.port)
    async with connection:
        await connection.send_all(ROUTES[name].request("connection: close"))
        return parse(b"".join([piece async for piece in connection]))


async def test_in_its_grace_time_it_is_not_ready_and_answers(serve: Serve) -> None:
    async with serve(SLOW) as running, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: running.gateway.hold_off(5, grace_s=60))
        await until(lambda: running.gateway.draining)
        assert (await request(running.port, "GET", "/readyz")).status == 503
        assert (await chat(running.port)).status == 200
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("name", sorted(ROUTES))
async def test_then_each_dialect_says_to_ask_another_node(
    serve: Serve, name: str
) -> None:
    async with serve(SLOW) as running:
        await running.gateway.hold_off(5)
        answer = await ask(running, name)
        assert answer.status in (503, 529)
        assert "this node is draining" in json.dumps(answer.json)
        assert int(answer.headers["retry-after"]) >= 1
        for path in ("/healthz", "/v1/models"):
            assert (await request(running.port, "GET", path)).status == 200


async def test_what_runs_ends_and_the_wait_is_for_it(serve: Serve) -> None:
    async with serve(SLOW) as running:
        answers: list[Answer] = []

        async def stream() -> None:
            answers.append(await chat(running.port, stream=True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream)
            await until(lambda: running.gateway.running == 1)
            with trio.fail_after(10):
                await running.gateway.hold_off(10)
            assert running.gateway.running == 0
        assert events(answers[0])[-1] == "[DONE]"


async def test_past_its_time_a_stream_is_told(serve: Serve) -> None:
    async with serve(STUCK) as running:
        answers: list[Answer] = []

        async def stream() -> None:
            answers.append(await chat(running.port, stream=True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream)
            await until(lambda: running.gateway.running == 1)
            await running.gateway.hold_off(0.2)
        *_, last = events(answers[0])
        assert json.loads(last)["error"]["message"] == "the server is shutting down"


async def test_requests_are_taken_again(serve: Serve) -> None:
    async with serve(SLOW) as running:
        await running.gateway.hold_off(1)
        assert (await chat(running.port)).status == 503
        running.gateway.take_again()
        assert (await request(running.port, "GET", "/readyz")).status == 200
        assert (await chat(running.port)).status == 200


async def test_one_that_was_drained_closes_without_a_second_grace(
    serve: Serve,
) -> None:
    async with serve(SLOW) as running:
        await running.gateway.hold_off(1)
        with trio.fail_after(10):
            await running.gateway.drain(1, grace_s=3600)
