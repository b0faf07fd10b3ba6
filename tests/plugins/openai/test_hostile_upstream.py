"""Peers whose every byte the test decides, through the runner."""

from __future__ import annotations

import traceback
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr_infer import errors
from atomr_infer.model.batch import TokenChunk
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.secret import Secret
from atomr_infer.remote.credentials.keys import fixed
from atomr_infer_openai.runner import open_openai_runner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from atomr_infer.model.batch import ExecuteBatch

JSON = b"content-type: application/json\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n"


@asynccontextmanager
async def _open_peer(answer: bytes, *, hold: bool = False) -> AsyncIterator[str]:
    """Answer every request with these bytes; give the base URL."""

    async def serve(stream: trio.SocketStream) -> None:
        seen = b""
        while b"\r\n\r\n" not in seen:
            seen += bytes(await stream.receive_some())
        await stream.send_all(answer)
        if hold:
            await trio.sleep_forever()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, serve, listeners)
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1"
        nursery.cancel_scope.cancel()


@pytest.fixture
def ask(batch: Callable[..., ExecuteBatch], key: str) -> Callable[..., Any]:
    """Run one generation on a peer that answers with the given bytes."""

    async def generate(base_url: str, **members: Any) -> list[TokenChunk]:
        wanted = Deployment(name="up", runtime="openai", options={"endpoint": base_url})
        async with (
            open_openai_runner(wanted, fixed(Secret(key))) as runner,
            runner.execute(batch(**members)) as chunks,
        ):
            return [c async for c in chunks if isinstance(c, TokenChunk)]

    async def run(
        answer: bytes, *, hold: bool = False, **members: Any
    ) -> list[TokenChunk] | errors.InferenceError:
        # Returned, not raised: the peer's nursery would wrap it.
        async with _open_peer(answer, hold=hold) as base_url:
            try:
                return await generate(base_url, **members)
            except errors.InferenceError as error:
                return error

    return run


# --- our key never comes back -----------------------------------------------

_ERROR = b'{"error":{"message":"no KEY","type":"KEY","param":"KEY","code":"KEY"}}'

_ECHOES = {
    "status line": b"authorization: Bearer KEY\r\n\r\n",
    "request line": b"POST /v1 HTTP/1.1\r\nauthorization: Bearer KEY\r\n\r\n",
    "header": b"HTTP/1.1 200 OK\r\nauthorization : Bearer KEY\r\n\r\n",
    "content-length": b"HTTP/1.1 200 OK\r\ncontent-length: KEY\r\n\r\n",
    "transfer-encoding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: KEY\r\n\r\n",
    "content-type": b"HTTP/1.1 200 OK\r\ncontent-type: Bearer KEY\r\n\r\n",
    "content-encoding": b"HTTP/1.1 200 OK\r\n"
    + JSON
    + b"content-encoding: KEY\r\n\r\n",
    "chunk size": (
        b"HTTP/1.1 200 OK\r\n" + JSON + b"transfer-encoding: chunked\r\n\r\nKEY\r\n"
    ),
    "unended header": b"HTTP/1.1 200 OK\r\nauthorization: Bearer KEY",
    "error": b"HTTP/1.1 400 X\r\nconnection: close\r\n\r\n" + _ERROR,
    "event": EVENTS + b"\r\ndata: " + _ERROR + b"\n\n",
}


@pytest.mark.parametrize("where", _ECHOES)
async def test_echoed_key_is_in_no_error_and_no_log(
    ask: Any, key: str, where: str
) -> None:
    error = await ask(_ECHOES[where].replace(b"KEY", key.encode()))
    assert isinstance(error, errors.InferenceError)
    assert key not in f"{error!r} {error} {errors.encode(error)}"
    assert key not in "".join(traceback.format_exception(error))
    assert "bytearray" not in error.message


async def test_malformed_head_is_told_in_our_own_words(ask: Any) -> None:
    error = await ask(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    assert type(error) is errors.UpstreamProtocolError
    said = " does not speak HTTP/1.1: the head of its answer is malformed"
    assert error.message.endswith(said)


async def test_endless_head_is_told_by_its_size(ask: Any) -> None:
    error = await ask(b"HTTP/1.1 200 OK\r\nx: " + b"x" * 70_000)
    assert type(error) is errors.UpstreamProtocolError
    said = "the head of its answer has a part beyond 65536 bytes"
    assert error.message.endswith(said)


# --- answers of the wrong kind ----------------------------------------------


async def test_compressed_answer_is_refused_at_its_head(ask: Any) -> None:
    head = EVENTS + b"content-encoding: gzip\r\n\r\n"
    error = await ask(head, hold=True)
    assert type(error) is errors.UpstreamProtocolError
    assert (error.code, error.status) == ("content_encoding", 200)


async def test_identity_is_no_encoding(ask: Any) -> None:
    body = b'{"choices":[{"message":{"content":"a"}}]}'
    head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-encoding: Identity\r\n"
    chunks = await ask(head + JSON + b"\r\n" + body)
    assert chunks[0].text == "a"


_REFUSED = b"HTTP/1.1 429 X\r\ntransfer-encoding: chunked\r\n\r\n"
_SLOW_DOWN = b'{"error":{"message":"slow down"}}'


@pytest.mark.parametrize(
    "rest",
    [b"KEY\r\n", b"11170\r\n" + b" " * 70_000 + b"\r\n0\r\n\r\n"],
    ids=["broken", "over-long"],
)
async def test_error_text_that_came_is_told_though_its_body_went_wrong(
    ask: Any, rest: bytes
) -> None:
    error = await ask(_REFUSED + b"21\r\n" + _SLOW_DOWN + b"\r\n" + rest)
    assert type(error) is errors.RateLimitedError
    assert (error.message, error.status) == ("slow down", 429)


async def test_error_text_that_came_is_told_though_its_body_never_ends(
    ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atomr_infer.remote.answer._MAX_ERROR_S", 0.1)
    answer = _REFUSED + b"21\r\n" + _SLOW_DOWN + b"\r\n"
    error = await ask(answer, hold=True)
    assert type(error) is errors.RateLimitedError
    assert (error.message, error.status) == ("slow down", 429)
