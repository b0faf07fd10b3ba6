"""Peers that lie, leave at odd moments, or speak something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from atomr_infer.gateway.app import GatewayApp
from atomr_infer.gateway.exchanges.reading import GatewayLimits
from atomr_infer.gateway.listening.listener import Listener
from atomr_infer.model.deployment import Deployment, Serving
from atomr_infer.serving.node import ServingNode
from atomr_infer.serving.shared import Serving as ServingState
from tests.gateway.http import chat, chat_body, head, parse, received, request, until

if TYPE_CHECKING:
    from tests.gateway.conftest import Serve


def mock(**options: Any) -> Deployment:
    return Deployment(
        name="m", runtime="mock", options=options, serving=Serving(max_concurrency=1)
    )


BAD_UPGRADE = (
    b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: upgrade, http2-settings\r\n"
    b"upgrade: h2c\r\nhttp2-settings: A\r\n\r\n"
)


async def send_raw(port: int, data: bytes) -> bytes:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(data)
        with trio.fail_after(10):
            return b"".join([piece async for piece in stream])


async def test_a_connection_that_breaks_the_server_breaks_only_itself(
    serve: Serve,
) -> None:
    async with serve(mock(tokens=30, delay_s=0.02)) as running:
        answers = []
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                answers.append(await chat(running.port, stream=True))

            nursery.start_soon(ask)
            await until(lambda: running.gateway.running == 1)
            for _ in range(6):  # more than any supervisor would forgive
                await send_raw(running.port, BAD_UPGRADE)
        assert answers[0].body.endswith(b"data: [DONE]\n\n")
        assert (await request(running.port, "GET", "/healthz")).status == 200


async def test_a_websocket_is_refused_and_not_an_error(serve: Serve) -> None:
    handshake = (
        b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\n"
        b"upgrade: websocket\r\nsec-websocket-version: 13\r\n"
        b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    async with serve(mock()) as running:
        assert parse(await send_raw(running.port, handshake)).status == 403


async def test_an_absolute_target_is_the_same_as_its_path(serve: Serve) -> None:
    async with serve(mock()) as running:
        answer = await request(running.port, "GET", "http://test/healthz")
    assert answer.status == 200


async def test_a_connection_that_its_client_closed_is_closed_here_too() -> None:
    listener = await Listener.bind("127.0.0.1", 0)
    app = GatewayApp(ServingState(ServingNode()), GatewayLimits())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.serve, app)
        stream = await trio.open_tcp_stream(*listener.address)
        await stream.send_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += await received(stream)
        # All read and the server idle: closing now is an end of file, no reset.
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert listener.connections == 1
        await stream.aclose()
        await until(lambda: listener.connections == 0)
        await listener.stop_accepting()


async def test_a_client_that_left_behind_a_pipelined_request_is_noticed(
    serve: Serve,
) -> None:
    body = chat_body()
    first = head("POST", "/v1/chat/completions", len(body)).replace(
        b"connection: close\r\n", b""
    )
    async with serve(mock(hang_after=0)) as running:
        stream = await trio.open_tcp_stream("127.0.0.1", running.port)
        await stream.send_all(first + body + b"GET /healthz HTTP/1.1\r\n")
        replica = (await running.cluster.replicas("m"))[0]
        await until(lambda: replica.running == 1)
        await stream.aclose()
        await until(lambda: replica.running == 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_member_name_cannot_write_headers(
    serve: Serve, *, stream: bool
) -> None:
    members = {"a\r\nx-evil: 1": 1, "\u2028\x00é": 1, "b" * 70_000: 1}
    async with serve(mock()) as running:
        answer = await chat(running.port, stream=stream, **members)
    assert answer.status == 200
    assert "x-evil" not in answer.headers
    assert len(answer.headers["x-atomr-warnings"]) < 600


@pytest.mark.parametrize("model", ["x" * 257, "gpt-x\nforged line", "\x00"])
async def test_a_model_name_is_short_and_printable(serve: Serve, model: str) -> None:
    async with serve(Deployment(name="all", runtime="mock", serves=("*",))) as running:
        answer = await chat(running.port, model=model)
    assert answer.status == 400
    assert answer.json["error"]["param"] == "model"
    assert len(answer.body) < 500
