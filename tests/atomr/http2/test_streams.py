"""Streams of their own: order, back-pressure, ends, and who notices what."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from atomr.errors import LinkMessageError, LinkStreamError
from atomr.http2 import Service
from atomr.http2.own_streams import STREAMS_EACH
from atomr.http2.setup import STREAM_WINDOW_BYTES
from atomr.http2.streams import BACKLOG_BYTES
from tests.atomr.http2.conftest import dial, until

if TYPE_CHECKING:
    from atomr.http2 import Link, LinkStream
    from tests.atomr.http2.conftest import Node, OpenNode


class Count(msgspec.Struct):
    to: int
    size: int = 10


async def _count(stream: LinkStream, wanted: Count) -> None:
    for number in range(wanted.to):
        await stream.send(b"%d" % number + b" " * wanted.size)


async def _echo(stream: LinkStream, _: Count) -> None:
    while (message := await stream.receive()) is not None:
        await stream.send(message)


SERVICES: dict[str, Service[Any]] = {
    "count": Service(Count, stream=_count),
    "echo": Service(Count, stream=_echo),
}


def both(a: Node, b: Node) -> list[Link]:
    """Return the link as each side has it: one dialed, the other did not."""
    links = [a.links.get("b"), b.links.get("a")]
    return [link for link in links if link is not None]


async def test_a_stream_brings_its_messages_in_order_and_then_its_end(
    open_node: OpenNode,
) -> None:
    async with open_node("a", SERVICES) as a, open_node("b", SERVICES) as b:
        await dial(a, b)
        for link in both(a, b):
            got = []
            async with link.open_stream("count", Count(2000)) as stream:
                while (message := await stream.receive()) is not None:
                    got.append(int(message))
            assert got == list(range(2000))
        await until(lambda: not any(link.dispatch.streams for link in both(a, b)))


async def test_both_directions_of_a_stream_work_at_the_same_time(
    open_node: OpenNode,
) -> None:
    async with open_node("a", SERVICES) as a, open_node("b", SERVICES) as b:
        await dial(a, b)
        for link in both(a, b):
            async with link.open_stream("echo", Count(0)) as stream:
                await stream.send(b"one")
                assert await stream.receive() == b"one"
                await stream.send(b"")
                assert await stream.receive() == b""
                await stream.send(b"x" * 1_000_000)
                assert await stream.receive() == b"x" * 1_000_000
                stream.end()
                assert await stream.receive() is None
                with pytest.raises(ValueError, match="has ended"):
                    await stream.send(b"more")


async def test_a_message_of_a_stream_has_a_bound(open_node: OpenNode) -> None:
    async with open_node("a") as a, open_node("b", SERVICES) as b:
        link = await dial(a, b)
        async with link.open_stream("echo", Count(0)) as stream:
            with pytest.raises(LinkMessageError):
                await stream.send(b"x" * (1024 * 1024 + 1))


async def test_a_reader_that_waits_stops_its_sender_and_nobody_else(
    open_node: OpenNode,
) -> None:
    sent = Counter[str]()

    async def flood(stream: LinkStream, _: Count) -> None:
        while True:
            await stream.send(b"x" * 10_000)
            sent["bytes"] += 10_000

    services = {**SERVICES, "flood": Service(Count, stream=flood)}
    async with open_node("a", services) as a, open_node("b", services) as b:
        await dial(a, b)
        for link in both(a, b):
            sent.clear()
            async with link.open_stream("flood", Count(0)) as stream:
                await until(lambda: sent["bytes"] > 200_000)
                before = -1
                while before != sent["bytes"]:
                    before = sent["bytes"]
                    await trio.sleep(0.05)
                # A window, and what the sender holds: not a byte more.
                assert sent["bytes"] <= STREAM_WINDOW_BYTES + BACKLOG_BYTES + 10_000
                async with link.open_stream("count", Count(3)) as other:
                    assert await other.receive() == b"0" + b" " * 10
                for _ in range(200):
                    await stream.receive()
                await until(lambda before=before: sent["bytes"] > before + 500_000)  # type: ignore[misc]
            await until(lambda: not any(link.dispatch.streams for link in both(a, b)))


async def test_a_sender_goes_on_when_a_tell_has_taken_its_bytes_along(
    open_node: OpenNode,
) -> None:
    # A burst of tells is written at once, with what streams have to send.
    async with open_node("a") as a, open_node("b", SERVICES) as b:
        link = await dial(a, b)
        async with link.open_stream("echo", Count(0)) as stream:
            for number in range(20):
                with trio.fail_after(5):
                    await stream.send(b"x" * 66_000)
                    link.tell("nobody", Count(number))
                    for _ in range(500):
                        link.tell("nobody", Count(1))
                assert await stream.receive() == b"x" * 66_000


async def test_leaving_a_stream_early_ends_who_serves_it(open_node: OpenNode) -> None:
    ended = trio.Event()

    async def think(stream: LinkStream, _: Count) -> None:
        await stream.send(b"first")
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    services = {"think": Service(Count, stream=think)}
    async with open_node("a", services) as a, open_node("b", services) as b:
        await dial(a, b)
        for link in both(a, b):
            ended = trio.Event()
            async with link.open_stream("think", Count(0)) as stream:
                assert await stream.receive() == b"first"
            with trio.fail_after(5):
                await ended.wait()
        await until(lambda: not any(link.dispatch.streams for link in both(a, b)))


async def test_a_service_that_fails_breaks_its_stream_and_not_the_link(
    open_node: OpenNode, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(stream: LinkStream, _: Count) -> None:
        await stream.receive()
        raise ValueError("not today")

    services = {**SERVICES, "fail": Service(Count, stream=fail)}
    async with open_node("a", services) as a, open_node("b", services) as b:
        await dial(a, b)
        for link in both(a, b):
            async with link.open_stream("fail", Count(0)) as stream:
                await stream.send(b"go")
                with pytest.raises(LinkStreamError) as caught:
                    await stream.receive()
                assert caught.value.code == "CANCEL"
            async with link.open_stream("count", Count(1)) as stream:
                assert await stream.receive() == b"0" + b" " * 10
        assert len(caplog.records) == 2


async def test_a_stream_to_no_service_is_broken_off(open_node: OpenNode) -> None:
    async with open_node("a") as a, open_node("b") as b:
        await dial(a, b)
        for link in both(a, b):
            async with link.open_stream("nobody", Count(0)) as stream:
                with pytest.raises(LinkStreamError):
                    await stream.receive()


async def test_a_cancelled_opening_leaves_no_stream(open_node: OpenNode) -> None:
    async with open_node("a", SERVICES) as a, open_node("b", SERVICES) as b:
        await dial(a, b)
        for link in both(a, b):
            with trio.CancelScope() as scope:
                scope.cancel()
                async with link.open_stream("echo", Count(0)):
                    raise AssertionError
        # What was asked for already is reset when it comes.
        back = both(a, b)[1]
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                async with back.open_stream("echo", Count(0)) as stream:
                    await stream.receive()

            for _ in range(5):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await until(lambda: not any(link.dispatch.streams for link in both(a, b)))
        async with back.open_stream("count", Count(1)) as stream:
            assert await stream.receive() == b"0" + b" " * 10


async def test_a_stream_that_is_one_too_many_waits_for_one_that_ends(
    open_node: OpenNode,
) -> None:
    async with open_node("a", SERVICES) as a, open_node("b", SERVICES) as b:
        await dial(a, b)
        for link in both(a, b):
            opened: list[LinkStream] = []
            release = trio.Event()

            async def hold(
                link: Link = link, opened: Any = opened, release: Any = release
            ) -> None:
                async with link.open_stream("echo", Count(0)) as stream:
                    await stream.send(b"x")
                    await stream.receive()
                    opened.append(stream)
                    await release.wait()

            async with trio.open_nursery() as nursery:
                for _ in range(STREAMS_EACH + 1):
                    nursery.start_soon(hold)
                await until(lambda opened=opened: len(opened) == STREAMS_EACH)  # type: ignore[misc]
                await trio.sleep(0.05)
                assert len(opened) == STREAMS_EACH
                release.set()
            assert len(opened) == STREAMS_EACH + 1
