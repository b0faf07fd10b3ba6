"""How ``serve`` ends: at once when idle, with its answers when not."""

from __future__ import annotations

import json
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing

from atomr_infer.cli.serving.serve import _unless_signalled
from tests.cli.conftest import STOP_S
from tests.gateway.http import chat_body, events, head, parse, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.cli.conftest import Command, Start

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@attrs.define(eq=False)
class Asking:
    """A streamed request on its way; ``raw`` is what has come of its answer."""

    raw: bytearray = attrs.field(factory=bytearray)
    done: trio.Event = attrs.field(factory=trio.Event)


@asynccontextmanager
async def asking(command: Command) -> AsyncIterator[Asking]:
    """Ask for a stream, and enter when its first words have come."""
    state = Asking()
    body = chat_body(stream=True)
    stream = await trio.open_tcp_stream("127.0.0.1", command.port)
    async with stream, trio.open_nursery() as nursery:

        async def read() -> None:
            try:
                async for piece in stream:
                    state.raw += piece
            except trio.BrokenResourceError:
                state.raw += b"<reset>"
            state.done.set()

        await stream.send_all(head("POST", "/v1/chat/completions", len(body)) + body)
        nursery.start_soon(read)
        await until(lambda: b'"content":"one"' in state.raw)
        yield state
        with trio.fail_after(STOP_S):
            await state.done.wait()


def assert_ended_well(command: Command) -> None:
    assert command.stderr.endswith("atomr-infer: stopped\n")
    assert "Traceback" not in command.stderr
    assert "ERROR" not in command.stderr
    assert "WARNING" not in command.stderr


@BOTH
async def test_a_signal_ends_an_idle_server(
    serve: Start, number: signal.Signals
) -> None:
    async with serve() as command:
        await command.serving()
        command.send(number)
        assert await command.ended() == 0
    assert_ended_well(command)


@BOTH
async def test_a_signal_ends_a_server_whose_model_still_loads(
    serve: Start, number: signal.Signals
) -> None:
    async with serve("load_s = 60.0") as command:
        await command.said("m: reading the script")
        command.send(number)
        assert await command.ended() == 0
    assert command.stdout == ""
    assert_ended_well(command)


async def test_an_idle_connection_does_not_hold_the_end(serve: Start) -> None:
    async with serve() as command:
        await command.serving()
        async with await trio.open_tcp_stream("127.0.0.1", command.port) as stream:
            await stream.send_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
            command.send(signal.SIGTERM)
            assert await command.ended() == 0


@BOTH
async def test_an_answer_that_runs_is_finished_first(
    serve: Start, number: signal.Signals
) -> None:
    async with serve("tokens = 40\ndelay_s = 0.05") as command:
        await command.serving()
        async with asking(command) as state:
            command.send(number)
            await command.said("1 running may finish within 30 s")
        assert await command.ended() == 0
    assert events(parse(bytes(state.raw)))[-1] == "[DONE]"
    assert_ended_well(command)


async def test_a_client_whose_answer_hangs_is_told(serve: Start) -> None:
    async with serve("hang_after = 1", gateway="drain_timeout_s = 0.3") as command:
        await command.serving()
        async with asking(command) as state:
            command.send(signal.SIGTERM)
        assert await command.ended() == 0
    last = json.loads(events(parse(bytes(state.raw)))[-1])
    assert last["error"]["message"] == "the server is shutting down"
    assert "[DONE]" not in state.raw.decode()
    assert "Traceback" not in command.stderr


async def test_a_second_signal_does_not_wait(serve: Start) -> None:
    async with serve("hang_after = 1") as command:
        await command.serving()
        async with asking(command) as state:
            command.send(signal.SIGINT)
            await command.said("SIGINT: no new requests; 1 running")
            command.send(signal.SIGINT)
            assert await command.ended() == 0
    # Told, and by that seen to be cut: it is no finish.
    last = json.loads(events(parse(bytes(state.raw)))[-1])
    assert last["error"]["message"] == "the server is shutting down"
    assert b"[DONE]" not in state.raw
    assert b'"finish_reason":"stop"' not in state.raw
    assert "Traceback" not in command.stderr


async def test_after_a_signal_nobody_gets_in(serve: Start) -> None:
    async with serve("hang_after = 1") as command:
        await command.serving()
        async with asking(command):
            command.send(signal.SIGTERM)
            await command.said("no new requests")
            with trio.fail_after(STOP_S):
                while await gets_in(command.port):  # noqa: ASYNC110 - said just before
                    await trio.sleep(0.005)
            command.send(signal.SIGTERM)


async def gets_in(port: int) -> bool:
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return False
    await stream.aclose()
    return True


async def test_a_signal_that_comes_as_the_loading_ends_is_not_lost() -> None:
    both = trio.Event()

    async def signals() -> AsyncIterator[int]:
        await both.wait()
        yield signal.SIGTERM

    async def work() -> None:
        await both.wait()

    # Whichever of the two runs first, the signal is taken or it is left.
    for _ in range(20):
        both = trio.Event()
        received = signals()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_set_soon, both)
            done = await _unless_signalled(received, work)
        left = [number async for number in received]
        assert left == ([signal.SIGTERM] if done else [])


async def _set_soon(event: trio.Event) -> None:
    await trio.testing.wait_all_tasks_blocked()
    event.set()
