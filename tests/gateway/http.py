"""The smallest HTTP client that shows everything: one request, raw and parsed."""

import json
from collections.abc import Callable
from typing import Any

import attrs
import trio


@attrs.frozen
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


# Nobody waits for an answer for ever: this is for a machine that is busy, and in the
# time of the test, which may stand still.
ANSWER_S = 120.0


async def until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    """Wait for something that happens across a real socket and has no event."""
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110 - see above
            await trio.sleep(0.005)


async def request(
    port: int, method: str, path: str, body: bytes = b"", **headers: str
) -> Answer:
    """Send one request on a new connection and read the answer to its end."""
    with trio.fail_after(ANSWER_S):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(head(method, path, len(body), **headers) + body)
            return parse(b"".join([piece async for piece in stream]))


async def received(stream: trio.abc.ReceiveStream) -> bytes:
    """Return what comes next; its end is an error, and not more of nothing for ever."""
    data = bytes(await stream.receive_some())
    assert data, "the connection has ended"
    return data


async def chat(port: int, /, **members: Any) -> Answer:
    """Ask for a chat completion."""
    return await request(port, "POST", "/v1/chat/completions", chat_body(**members))


def chat_body(**members: Any) -> bytes:
    messages = [{"role": "user", "content": "one two three"}]
    return json.dumps({"model": "m", "messages": messages, **members}).encode()


def head(method: str, path: str, length: int, **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: test", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if method == "POST":
        lines.append(f"content-length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


def parse(raw: bytes) -> Answer:
    top, _, body = raw.partition(b"\r\n\r\n")
    status_line, *lines = top.decode().split("\r\n")
    pairs = (line.split(": ", 1) for line in lines)
    headers = {name.lower(): value for name, value in pairs}
    if headers.get("transfer-encoding") == "chunked":
        body = unchunk(body)
    return Answer(int(status_line.split()[1]), headers, body)


def unchunk(body: bytes) -> bytes:
    pieces = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            break
        pieces.append(rest[:length])
        body = rest[length + 2 :]
    return b"".join(pieces)


def events(answer: Answer) -> list[str]:
    """The data of each server-sent event."""
    assert answer.body.endswith(b"\n\n"), "every event ends with a blank line"
    return [
        event.removeprefix("data: ")
        for event in answer.body.decode().split("\n\n")
        if event
    ]
