"""What goes wrong with one connection before its first byte is its own affair."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import trio

from atomr_infer.gateway.http1.connection import Http1Settings
from atomr_infer.gateway.listening.listener import Listener

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from atomr_infer.gateway.exchanges.exchange import Exchange


class _NeverAsked:
    async def handle(self, exchange: Exchange) -> None:
        raise AssertionError(f"nobody asked for {exchange.path}")

    async def __call__(self, scope: object, receive: object, send: object) -> None:
        raise AssertionError("nobody asked")


async def test_a_socket_that_cannot_be_set_up_ends_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # It has no TCP to be told about, as one has that is gone already on some systems.
    path = str(tmp_path / "s")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    listener = Listener([listening], Http1Settings(), None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.serve, _NeverAsked())
        for _ in range(2):
            async with await trio.open_unix_socket(path) as client:
                with trio.fail_after(5):
                    assert await client.receive_some() == b""
        await listener.stop_accepting()
    assert caplog.text.count("a connection was closed for an error") == 2
