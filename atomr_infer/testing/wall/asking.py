"""The client in front of the wall: one request, and every byte of its answer."""

from __future__ import annotations

from typing import Any

import h11
import msgspec
import trio

from atomr_infer.testing.wall.heard import Reply
from atomr_infer.testing.wall.scenarios import Cell, Dialect

MODEL = "wall"
_PATIENCE_S = 10.0
_READ_BYTES = 65536
_PROMPT = "one two three"

Headers = list[tuple[str, str]]


async def ask(cell: Cell, host: str, port: int) -> Reply:
    """Send the cell's request to a gateway, and return all of the answer."""
    stream = await trio.open_tcp_stream(host, port)
    async with stream:
        connection = h11.Connection(h11.CLIENT)
        await stream.send_all(request_bytes(connection, cell, host))
        return await _receive(stream, connection)


def request_bytes(connection: h11.Connection, cell: Cell, host: str) -> bytes:
    """Return the cell's request, as it is sent on a fresh connection."""
    path, headers, members = _request(cell)
    body = msgspec.json.encode(members)
    fields = [
        ("host", host),
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
        *headers,
    ]
    request = h11.Request(method="POST", target=path, headers=fields)
    data = connection.send(request) or b""
    data += connection.send(h11.Data(data=body)) or b""
    return data + (connection.send(h11.EndOfMessage()) or b"")


async def _receive(stream: trio.SocketStream, connection: h11.Connection) -> Reply:
    status, headers, body, complete = 0, {}, bytearray(), False
    with trio.move_on_after(_PATIENCE_S) as scope:
        while not complete:
            event = await _next_event(stream, connection)
            if isinstance(event, h11.Response):
                status = event.status_code
                headers = {k.decode(): v.decode("latin-1") for k, v in event.headers}
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                complete = True
            else:
                break
    return Reply(
        status=status,
        headers=headers,
        body=bytes(body),
        complete=complete,
        timely=not scope.cancelled_caught,
    )


async def _next_event(stream: trio.SocketStream, connection: h11.Connection) -> object:
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return None
        if event is not h11.NEED_DATA:
            return event
        try:
            connection.receive_data(await stream.receive_some(_READ_BYTES))
        except trio.BrokenResourceError:
            return None


def _request(cell: Cell) -> tuple[str, Headers, dict[str, Any]]:
    turn = {"role": "user", "content": _PROMPT}
    match cell.dialect:
        case Dialect.OPENAI:
            members: dict[str, Any] = {
                "model": MODEL,
                "messages": [turn],
                "stream": cell.stream,
            }
            if cell.stream:
                members["stream_options"] = {"include_usage": True}
            return "/v1/chat/completions", [("authorization", "Bearer x")], members
        case Dialect.ANTHROPIC:
            members = {
                "model": MODEL,
                "max_tokens": 100,
                "messages": [turn],
                "stream": cell.stream,
            }
            headers = [("x-api-key", "x"), ("anthropic-version", "2026-10-21")]
            return "/v1/messages", headers, members
        case Dialect.RESPONSES:
            members = {"model": MODEL, "input": _PROMPT, "stream": cell.stream}
            return "/v1/responses", [("authorization", "Bearer x")], members
        case Dialect.GEMINI:
            verb = "streamGenerateContent?alt=sse" if cell.stream else "generateContent"
            contents = [{"role": "user", "parts": [{"text": _PROMPT}]}]
            path = f"/v1beta/models/{MODEL}:{verb}"
            return path, [("x-goog-api-key", "x")], {"contents": contents}
