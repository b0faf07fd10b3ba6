"""Nodes in processes of their own, which are killed and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from atomr.errors import LinkDownError
from tests.atomr.http2.conftest import WITHIN_S, Authority, Get, Put, Shelf, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.atomr.http2.conftest import OpenNode

ROOT = Path(__file__).parents[3]
START_S = 120.0


@asynccontextmanager
async def process(
    authority: Authority, name: str, *more: str
) -> AsyncIterator[tuple[trio.Process, int]]:
    """Start a node; yield its process and its port."""
    authority.files(name)
    command = [sys.executable, "-m", "tests.atomr.http2.node_process", name]
    async with trio.open_nursery() as nursery:
        child = await trio.lowlevel.open_process(
            [*command, str(authority.file.parent), *more],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        try:
            assert child.stdout is not None
            with trio.fail_after(START_S):
                port = int(await child.stdout.receive_some())
            yield child, port
        finally:
            child.send_signal(signal.SIGKILL)
            with trio.CancelScope(shield=True):
                await child.wait()
            nursery.cancel_scope.cancel()


async def test_two_processes_call_each_other(
    authority: Authority, open_node: OpenNode
) -> None:
    shelf = Shelf()
    async with open_node("a", {"shelf": shelf.service()}) as a:
        async with process(authority, "b", "dial", "a", str(a.port)) as (_, port):
            await until(lambda: shelf.stored)
            assert shelf.stored == [("b", 1)]
            link = await a.links.dial("b", "127.0.0.1", port)
            link.tell("shelf", Put("x", 5))
            assert await link.call("shelf", Get("x"), returns=int) == 5
        await until(lambda: a.ended)
        assert a.ended == ["peer_closed"]


async def test_a_peer_that_is_killed_is_seen_at_once(
    authority: Authority, open_node: OpenNode
) -> None:
    # By the end of its connection: no heartbeat tells of it for a minute.
    async with (
        open_node("a", heartbeat_timeout_s=60.0) as a,
        process(authority, "b") as (child, port),
    ):
        link = await a.links.dial("b", "127.0.0.1", port)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(LinkDownError) as caught:
                    while True:
                        await link.call("shelf", Get("x"), returns=int | None)
                assert caught.value.reason == "peer_closed"

            nursery.start_soon(ask)
            await trio.sleep(0.01)
            child.send_signal(signal.SIGKILL)
            with trio.fail_after(WITHIN_S):
                await link.wait_down()


async def test_a_peer_that_is_stopped_is_seen_by_its_heartbeats(
    authority: Authority, open_node: OpenNode
) -> None:
    async with (
        open_node("a", heartbeat_interval_s=0.05, heartbeat_timeout_s=2.0) as a,
        process(authority, "b") as (child, port),
    ):
        link = await a.links.dial("b", "127.0.0.1", port)
        await until(lambda: link.round_trip_s is not None)
        assert link.down is None
        child.send_signal(signal.SIGSTOP)
        with trio.fail_after(WITHIN_S):
            down = await link.wait_down()
        assert down.reason == "no_pong"
        # It had all of its time from its last answer on.
        answered_at = link._core.heartbeat._ponged_at
        assert trio.current_time() - answered_at >= 2.0
        child.send_signal(signal.SIGCONT)


async def test_a_stopped_peer_that_wakes_in_time_keeps_its_link(
    authority: Authority, open_node: OpenNode
) -> None:
    async with (
        open_node("a", heartbeat_interval_s=0.05, heartbeat_timeout_s=60.0) as a,
        process(authority, "b") as (child, port),
    ):
        link = await a.links.dial("b", "127.0.0.1", port)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGSTOP)
        link.tell("shelf", Put("x", 1))
        with trio.move_on_after(0.2):
            await link.wait_down()
        os.kill(child.pid, signal.SIGCONT)
        assert await link.call("shelf", Get("x"), returns=int) == 1
