"""Frames over a real socket pair whose buffer is small, whose peer goes, and so on."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from trio.testing import wait_all_tasks_blocked

from atomr_infer.bridge.protocol.frames import (
    ChildFrame,
    ParentFrame,
    Ping,
    Pong,
    Text,
    child_reader,
    parent_reader,
)
from atomr_infer.bridge.protocol.link import Link

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    Links = tuple[Link[ChildFrame], Link[ParentFrame]]


@asynccontextmanager
async def linked() -> AsyncIterator[Links]:
    """A parent's end and a child's, over a socket pair with little room."""
    ends = socket.socketpair()
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        end.setblocking(False)
    here, there = (trio.SocketStream(trio.socket.from_stdlib_socket(e)) for e in ends)
    parent, child = Link(here, child_reader()), Link(there, parent_reader())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parent.write_forever)
        nursery.start_soon(child.write_forever)
        yield parent, child
        nursery.cancel_scope.cancel()
    await parent.aclose()
    await child.aclose()


async def test_what_does_not_fit_into_the_socket_goes_out_as_it_is_read() -> None:
    sent = [Text(number, "ж" * 50_000, 0) for number in range(20)]
    async with linked() as (parent, child):
        for frame in sent:
            child.send_nowait(frame)
        heard: list[ChildFrame] = []
        with trio.fail_after(30):
            while len(heard) < len(sent):
                frames = await parent.receive()
                assert frames is not None
                heard += frames
            await child.flush()
    assert heard == sent


async def test_frames_of_one_turn_are_one_write() -> None:
    async with linked() as (parent, child):
        for _ in range(16):
            child.send_nowait(Pong())
        with trio.fail_after(30):
            assert await parent.receive() == [Pong()] * 16


async def test_frames_queued_while_a_write_waits_follow_it() -> None:
    long, short = Text(1, "x" * 500_000, 0), Text(2, "y", 0)
    async with linked() as (parent, child):
        child.send_nowait(long)
        await wait_all_tasks_blocked()
        child.send_nowait(short)
        heard: list[ChildFrame] = []
        with trio.fail_after(30):
            while len(heard) < 2:
                heard += await parent.receive() or []
    assert heard == [long, short]


async def test_peer_that_goes_ends_the_reading_and_the_writing() -> None:
    async with linked() as (parent, child):
        await child.aclose()
        with trio.fail_after(30):
            assert await parent.receive() is None
            parent.send_nowait(Ping())
            await parent.flush()


async def test_peer_that_goes_with_bytes_unread_ends_the_reading() -> None:
    async with linked() as (parent, child):
        parent.send_nowait(Ping())
        await parent.flush()
        await child.aclose()
        with trio.fail_after(30):
            assert await parent.receive() is None


async def test_link_closed_here_reads_and_writes_no_other_file() -> None:
    """The number of its descriptor may be another file's."""
    async with linked() as (parent, child):
        await parent.aclose()
        with trio.fail_after(30):
            assert await parent.receive() is None
            parent.send_nowait(Ping())
            await parent.flush()
            assert await child.receive() is None


async def test_link_closed_while_it_waits_stops_waiting() -> None:
    async with linked() as (_, child):
        heard: list[object] = []

        async def read() -> None:
            heard.append(await child.receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await wait_all_tasks_blocked()
            await child.aclose()
    assert heard == [None]
