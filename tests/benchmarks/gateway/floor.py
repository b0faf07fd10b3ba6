"""The least that a proxy on trio can be: a floor, not a server.

    floor.py PORT UPSTREAM_PORT

One task for each connection, ``bytes.find`` for the framing, one kept-alive
upstream connection for each client's.  It has no timeouts, takes every peer at
its word, and does not notice who leaves; so nothing that does can be cheaper.
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress

import trio

READ = 65536
END = b"\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


async def receive(sock: socket.socket) -> bytes:
    while True:
        try:
            return sock.recv(READ)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(sock)


def body_length(head: bytes) -> int:
    at = head.lower().find(b"content-length:")
    return -1 if at < 0 else int(head[at + 15 : head.find(b"\r\n", at)])


async def read_message(sock: socket.socket) -> bytes:
    data = await receive(sock)
    while data and (end := data.find(END)) < 0:
        data += await receive(sock)
    if not data:
        return b""
    whole = end + 4 + body_length(data[: end + 2])
    while len(data) < whole:
        data += await receive(sock)
    return data


async def relay_answer(upstream: socket.socket, client: socket.socket) -> None:
    data = await receive(upstream)
    end = data.find(END)
    length = body_length(data[: end + 2])
    client.send(data)
    if length >= 0:
        left = length - (len(data) - end - 4)
        while left > 0:
            data = await receive(upstream)
            left -= len(data)
            client.send(data)
    else:
        while not data.endswith(LAST_CHUNK):
            data = await receive(upstream)
            client.send(data)


async def serve(client: socket.socket, upstream_port: int) -> None:
    upstream = socket.create_connection(("127.0.0.1", upstream_port))
    for sock in (client, upstream):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(0.0)
    # A client that is done resets its connection in the middle of an answer.
    with client, upstream, suppress(OSError):
        while request := await read_message(client):
            upstream.send(request)
            await relay_answer(upstream, client)


async def main(port: int, upstream_port: int) -> None:
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    listener.settimeout(0.0)
    print("ready", flush=True)
    async with trio.open_nursery() as nursery:
        while True:
            await trio.lowlevel.wait_readable(listener)
            client, _ = listener.accept()
            nursery.start_soon(serve, client, upstream_port)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), int(sys.argv[2]))
