"""How a gateway ends: with its answers finished, or its clients told."""

import json
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from atomr_infer.cluster import Cluster
from atomr_infer.errors import ConfigError
from atomr_infer.model.deployment import Deployment
from tests.gateway.conftest import Running, Serve
from tests.gateway.http import Answer, chat, events, request, until
from tests.gateway.http1 import Client, get


def mock(**options: Any) -> Deployment:
    return Deployment(name="m", runtime="mock", options=options)


async def ask_until_running(
    running: Running, nursery: trio.Nursery, answers: list[Answer]
) -> None:
    async def ask() -> None:
        answers.append(await chat(running.port, stream=True))

    nursery.start_soon(ask)
    replica = (await running.cluster.replicas("m"))[0]
    await until(lambda: replica.running == 1)


async def test_a_drain_lets_a_running_answer_finish(serve: Serve) -> None:
    answers: list[Answer] = []
    slow = mock(tokens=20, delay_s=0.01)
    async with serve(slow) as running, trio.open_nursery() as nursery:
        await ask_until_running(running, nursery, answers)
        await running.gateway.drain(timeout_s=10)
        assert not running.gateway.running
        with pytest.raises(OSError, match=r".*"):
            await trio.open_tcp_stream("127.0.0.1", running.port)
    assert events(answers[0])[-1] == "[DONE]"


async def test_past_the_drain_a_client_is_told(serve: Serve) -> None:
    answers: list[Answer] = []
    async with serve(mock(hang_after=1)) as running, trio.open_nursery() as nursery:
        await ask_until_running(running, nursery, answers)
        await running.gateway.drain(timeout_s=0.05)
    error = json.loads(events(answers[0])[-1])["error"]
    assert error["message"] == "the server is shutting down"


@pytest.mark.parametrize("grace_s", [0, 100])
async def test_who_streams_is_told_when_a_drain_is_cut_short(
    serve: Serve, grace_s: float
) -> None:
    answers: list[Answer] = []
    async with serve(mock(hang_after=1)) as running, trio.open_nursery() as nursery:
        await ask_until_running(running, nursery, answers)
        with trio.move_on_after(0.05) as scope:
            await running.gateway.drain(timeout_s=100, grace_s=grace_s)
        assert scope.cancelled_caught
        assert not running.gateway.running
    error = json.loads(events(answers[0])[-1])["error"]
    assert error["message"] == "the server is shutting down"


@pytest.mark.parametrize("is_cut_short", [False, True])
async def test_a_client_that_reads_nothing_cannot_hold_the_drain(
    serve: Serve, *, is_cut_short: bool
) -> None:
    flood = mock(reply="word " * 1000, tokens=200_000)
    async with serve(flood) as running:
        stream = await trio.open_tcp_stream("127.0.0.1", running.port)
        async with stream:
            body = json.dumps(
                {
                    "model": "m",
                    "stream": True,
                    "messages": [{"role": "user", "content": "x"}],
                }
            ).encode()
            head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
            head += b"content-length: %d\r\n\r\n" % len(body)
            await stream.send_all(head + body)
            replica = (await running.cluster.replicas("m"))[0]
            await until(lambda: replica.running == 1)
            with trio.fail_after(10):
                await trio.testing.wait_all_tasks_blocked(0.2)
                with trio.move_on_after(0.05 if is_cut_short else 20):
                    await running.gateway.drain(20 if is_cut_short else 0.05)
            await until(lambda: replica.running == 0)


async def test_a_busy_port_is_one_clear_sentence(serve: Serve) -> None:
    async with serve(mock()) as running, Cluster.connect("inproc://b") as other:
        with pytest.raises(ConfigError, match="the port is in use") as caught:
            await other.serve(f"127.0.0.1:{running.port}")
    assert f"127.0.0.1:{running.port}" in str(caught.value)


async def test_draining_one_gateway_leaves_the_other_ready(serve: Serve) -> None:
    answers: list[Answer] = []
    slow = mock(tokens=20, delay_s=0.01)
    async with serve(slow) as running, trio.open_nursery() as nursery:
        second = await running.cluster.serve("127.0.0.1:0")
        await ask_until_running(running, nursery, answers)
        await second.drain(timeout_s=0)
        ready = await request(running.port, "GET", "/readyz")
        assert (ready.status, ready.json["ready"]) == (200, True)
    assert events(answers[0])[-1] == "[DONE]"


async def test_in_its_grace_it_is_not_ready_and_answers_all_the_same(
    serve: Serve, mock_clock: MockClock
) -> None:
    mock_clock.rate = 1
    async with serve(mock()) as running, trio.open_nursery() as nursery:
        kept = Client(await trio.open_tcp_stream("127.0.0.1", running.port))
        await kept.send(get("/readyz"))
        assert (await kept.answer()).status == 200
        mock_clock.rate = 0  # the grace lasts until it is let pass
        nursery.start_soon(partial(running.gateway.drain, 1, grace_s=100))
        await trio.testing.wait_all_tasks_blocked()

        ready = await request(running.port, "GET", "/readyz")
        alive = await request(running.port, "GET", "/healthz")
        answer = await chat(running.port)
        await kept.send(get("/readyz"))
        again = await kept.answer()
        assert await kept.rest() == b""
        await kept.stream.aclose()

        assert (ready.status, ready.json["draining"]) == (503, True)
        assert (alive.status, answer.status) == (200, 200)
        assert (again.status, again.headers["connection"]) == (503, "close")
        mock_clock.jump(100)
        mock_clock.rate = 1
    assert not running.gateway.running


async def test_a_drain_without_grace_takes_nothing_more(serve: Serve) -> None:
    answers: list[Answer] = []
    slow = mock(tokens=20, delay_s=0.01)
    async with serve(slow) as running, trio.open_nursery() as nursery:
        await ask_until_running(running, nursery, answers)
        nursery.start_soon(running.gateway.drain, 10)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(OSError, match=r".*"):
            await trio.open_tcp_stream("127.0.0.1", running.port)
    assert answers[0].status == 200


async def test_a_drain_that_is_cancelled_in_its_grace_closes_at_once(
    serve: Serve,
) -> None:
    async with serve(mock()) as running:
        with trio.move_on_after(0.01):
            await running.gateway.drain(10, grace_s=100)
        with pytest.raises(OSError, match=r".*"):
            await trio.open_tcp_stream("127.0.0.1", running.port)
