"""A peer with a good certificate that lies, floods or never reads.

Each attack goes over a real connection that has been through the whole handshake.
It ends at once, with a reason that is no heartbeat's, and the calls of another link go
on meanwhile.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import msgspec
import pytest
import trio

from atomr.crdt.origin import Origin
from atomr.http2 import Lane, Service, frames
from atomr.http2.guard import ALLOWANCES, Kind
from atomr.http2.handshake import Greeted, Self, greet_accepted, greet_dialed
from atomr.http2.outlets import QUEUE_BYTES
from atomr.http2.own_streams import STREAMS_EACH
from atomr.http2.setup import MAX_STREAMS
from tests.atomr.http2.conftest import (
    CLUSTER,
    COOKIE,
    Authority,
    Get,
    Node,
    Shelf,
    dial,
    until,
)

if TYPE_CHECKING:
    from atomr.http2 import IncomingCall
    from tests.atomr.http2.conftest import OpenNode

CLOSED_WITHIN_S = 10.0
"""What takes a millisecond, on a machine that does much else."""

Attack: TypeAlias = Callable[[Greeted], bytes]


def frame(kind: int, stream_id: int = 0, payload: bytes = b"", flags: int = 0) -> bytes:
    """Return one frame of HTTP/2."""
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags])
    return head + stream_id.to_bytes(4, "big") + payload


def said(payload: bytes) -> bytes:
    """Return a DATA frame on ``msg``."""
    return frame(Kind.DATA, Lane.MSG, payload)


def message(*fields: object) -> bytes:
    """Return a message as it goes over a lane, right or not."""
    return frames.framed(msgspec.msgpack.encode(fields))


def head(peer: Greeted, *more: tuple[bytes, bytes]) -> bytes:
    """Return the block of headers that opens a stream."""
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":authority", b"node"),
        (b":path", b"/atomr/1/stream"),
        *more,
    ]
    encoder = peer.protocol._h2.encoder
    return bytes(encoder.encode(fields))


def openings(peer: Greeted, count: int, *, reset: bool) -> bytes:
    frames_ = []
    for number in range(count):
        stream_id = 7 + 2 * number
        frames_.append(frame(Kind.HEADERS, stream_id, head(peer), 0x4))
        if reset:
            frames_.append(frame(Kind.RST_STREAM, stream_id, b"\0\0\0\x08"))
    return b"".join(frames_)


def continuations(peer: Greeted) -> bytes:
    first = frame(Kind.HEADERS, 7, head(peer), 0)
    return first + frame(Kind.CONTINUATION, 7, b"", 0) * 1000


NEST = b"\x91" * 100_000 + b"\xc0"

ATTACKS: dict[str, tuple[str, Attack]] = {
    "a length of four gigabytes": ("malformed", lambda _: said(b"\xff\xff\xff\xff")),
    "a length over the cap": ("malformed", lambda _: said(b"\0\x10\0\x01")),
    "no msgpack": ("malformed", lambda _: said(frames.framed(b"\xc1\xc1"))),
    "an empty message": ("malformed", lambda _: said(b"\0\0\0\0")),
    "an unknown tag": ("malformed", lambda _: said(message(99, 1))),
    "a field too many": ("malformed", lambda _: said(message(6, 1, 1))),
    "a number below zero": ("malformed", lambda _: said(message(6, -1))),
    "bytes after a message": (
        "malformed",
        lambda _: said(frames.framed(msgspec.msgpack.encode([6, 1]) + b"\xc0")),
    ),
    "a body of another type": (
        "malformed",
        lambda _: said(message(2, "shelf", {"type": "os.system"})),
    ),
    "a body that is nested for ever": (
        "malformed",
        lambda _: b"".join(
            said(piece) for piece in pieces(frames.framed(b"\x93\x02\xa5shelf" + NEST))
        ),
    ),
    "an array of four billion": (
        "malformed",
        lambda _: said(frames.framed(b"\x93\x02\xa5shelf\xdd\xff\xff\xff\xff")),
    ),
    "a second hello": (
        "malformed",
        lambda _: said(message(1, 1, CLUSTER, "x", 1, b"x" * 32)),
    ),
    "a call's number twice": (
        "malformed",
        lambda _: said(message(3, 1, "never", {"type": "get", "key": ""}) * 2),
    ),
    "an invitation by the side that dialed": (
        "malformed",
        lambda _: frame(Kind.DATA, Lane.CTL, message(10, 1)),
    ),
    "the end of a lane": ("malformed", lambda _: frame(Kind.DATA, Lane.MSG, b"", 1)),
    "a lane's reset": (
        "malformed",
        lambda _: frame(Kind.RST_STREAM, Lane.MSG, b"\0\0\0\x08"),
    ),
    "a stream for nothing": (
        "malformed",
        lambda p: openings(p, 1, reset=False) + frame(Kind.DATA, 7, message(6, 1)),
    ),
    "a frame beyond 16 KiB": ("malformed", lambda _: said(b"x" * 20_000)),
    "a frame of no protocol": ("malformed", lambda _: b"GET / HTTP/1.1\r\n\r\n"),
    "headers beyond 8 KiB": (
        "flood",
        lambda p: frame(Kind.HEADERS, 7, head(p, (b"x", b"y" * 16_000)), 0x4),
    ),
    "headers that unpack beyond 8 KiB": (
        "malformed",
        lambda p: frame(
            Kind.HEADERS, 7, head(p, (b"x", b"y" * 3000), *[(b"x", b"y" * 3000)] * 9), 4
        ),
    ),
    "headers without an end": ("flood", continuations),
    "a window beyond 31 bits": (
        "malformed",
        lambda _: frame(Kind.WINDOW_UPDATE, 0, b"\x7f\xff\xff\xff") * 2,
    ),
    "more streams than it may have": (
        "malformed",
        lambda p: openings(p, MAX_STREAMS + 4, reset=False),
    ),
    "streams that are reset at once": (
        "flood",
        lambda p: openings(p, 2000, reset=True),
    ),
    "settings": ("flood", lambda _: frame(Kind.SETTINGS) * 1000),
    "pings": ("flood", lambda _: frame(Kind.PING, 0, b"12345678") * 10_000),
    "priorities": ("flood", lambda _: frame(Kind.PRIORITY, 3, b"\0\0\0\0\1") * 1000),
    "windows a byte wide": (
        "flood",
        lambda _: frame(Kind.WINDOW_UPDATE, 0, b"\0\0\0\1") * 40_000,
    ),
    "data without bytes": ("flood", lambda _: said(b"") * 20_000),
    "frames of no known kind": ("flood", lambda _: frame(0xBE, 0, b"") * 1000),
    "probes": (
        "flood",
        lambda _: frame(Kind.DATA, Lane.CTL, message(7, 1) * 1000),
    ),
}


def pieces(data: bytes) -> list[bytes]:
    return [data[at : at + 16_384] for at in range(0, len(data), 16_384)]


@attrs.frozen
class Attacked:
    """A node under attack, one that is its friend, and what it serves."""

    node: Node
    friend: Node
    stored: list[tuple[str, int]]


def never(_: IncomingCall, __: Any) -> None:
    """Take a call and do not answer it."""


@pytest.fixture
def attacked(open_node: OpenNode) -> Any:
    @asynccontextmanager
    async def opened(**options: Any) -> AsyncIterator[Attacked]:
        # An attacker answers no heartbeat: what ends it must not be that.
        options.setdefault("heartbeat_timeout_s", 60.0)
        shelf = Shelf()
        services: dict[str, Service[Any]] = {
            "shelf": shelf.service(),
            "never": Service(Get, call=never),
        }
        async with (
            open_node("b", services, **options) as node,
            open_node("a") as friend,
        ):
            await dial(friend, node)
            yield Attacked(node, friend, shelf.stored)

    return opened


async def hostile(authority: Authority, port: int) -> Greeted:
    """Return a connection of a node that behaves until now."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    us = Self(CLUSTER, Origin("mallory", 9), COOKIE, authority.credentials("mallory"))
    return await greet_dialed(stream, us, node="b")


async def attack(peer: Greeted, data: bytes) -> None:
    """Write as long as the victim listens."""
    with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
        await peer.pipe.send(data)


async def answers_go_on(attacked: Attacked) -> None:
    link = attacked.friend.links.get("b")
    assert link is not None
    await link.call("shelf", Get("x"), returns=int | None, timeout_s=CLOSED_WITHIN_S)


@pytest.mark.parametrize("name", ATTACKS)
async def test_an_attack_ends_its_own_link_at_once_and_no_other(
    attacked: Any, authority: Authority, name: str
) -> None:
    reason, make = ATTACKS[name]
    async with attacked() as victim:
        peer = await hostile(authority, victim.node.port)
        await until(lambda: victim.node.links.get("mallory"))
        data = make(peer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attack, peer, data)
            with trio.fail_after(CLOSED_WITHIN_S):
                while not victim.node.ended:
                    await answers_go_on(victim)
        assert victim.node.ended == [reason]
        assert victim.node.links.get("mallory") is None
        assert victim.stored == []
        # The attacker's end is closed as well: it cannot go on.
        with trio.fail_after(CLOSED_WITHIN_S):
            await closed(peer)
        peer.pipe.close()
        await answers_go_on(victim)


async def closed(peer: Greeted) -> None:
    try:
        while await peer.pipe.receive():
            continue
    except (OSError, ssl.SSLError):
        return


INVITES = frame(
    Kind.DATA, Lane.CTL, b"".join(message(10, n) for n in range(STREAMS_EACH + 1))
)
PUSH = frame(Kind.PUSH_PROMISE, Lane.CTL, b"\0\0\0\x02" + b"\x82", 0x4)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (INVITES, "flood"),
        (PUSH, "flood"),
        (frame(Kind.HEADERS, 2, b"\x88", 0x4), "malformed"),
        (frame(Kind.DATA, Lane.CTL, message(11, 1)), "malformed"),
    ],
)
async def test_a_node_that_was_dialed_cannot_attack_who_dialed_it(
    open_node: OpenNode, authority: Authority, data: bytes, reason: str
) -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    us = Self(CLUSTER, Origin("mallory", 9), COOKIE, authority.credentials("mallory"))

    async def answer() -> None:
        peer = await greet_accepted(await listener.accept(), us, admit=lambda _: None)
        await attack(peer, data)
        with trio.fail_after(CLOSED_WITHIN_S):
            await closed(peer)
        peer.pipe.close()

    async with open_node("a") as a, trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        port = listener.socket.getsockname()[1]
        link = await a.links.dial("mallory", "127.0.0.1", port)
        with trio.fail_after(CLOSED_WITHIN_S):
            assert (await link.wait_down()).reason == reason
    await listener.aclose()


async def test_a_peer_that_asks_and_never_reads_is_cut_off_with_bounded_memory(
    attacked: Any, authority: Authority
) -> None:
    async with attacked() as victim:
        peer = await hostile(authority, victim.node.port)
        await until(lambda: victim.node.links.get("mallory"))
        link = victim.node.links.get("mallory")
        assert link is not None
        worst = 0

        async def ask() -> None:
            number = 0
            with suppress(OSError, trio.ClosedResourceError):
                while True:
                    asks = b"".join(
                        message(3, number + n, "nobody" * 20, {}) for n in range(50)
                    )
                    number += 50
                    await peer.pipe.send(said(asks))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            while not victim.node.ended:
                worst = max(worst, link.queued_bytes)
                await trio.sleep(0.001)
                await answers_go_on(victim)
            nursery.cancel_scope.cancel()
        peer.pipe.close()
        assert victim.node.ended == ["overflow"]
        assert worst < 2 * QUEUE_BYTES + 65_536


async def test_a_peer_that_never_reads_is_told_nothing_more_and_then_is_down(
    attacked: Any, authority: Authority
) -> None:
    async with attacked(heartbeat_interval_s=0.05, heartbeat_timeout_s=0.4) as victim:
        peer = await hostile(authority, victim.node.port)
        await until(lambda: victim.node.links.get("mallory"))
        link = victim.node.links.get("mallory")
        assert link is not None
        refusals = 0
        while link.down is None:
            try:
                link.tell("any", "x" * 60_000)
            except Exception as error:  # noqa: BLE001 - looked at
                refusals += type(error).__name__ == "LinkBusyError"
                await trio.sleep(0.01)
            assert link.queued_bytes < QUEUE_BYTES
        assert refusals > 0
        assert link.down.reason == "no_pong"
        peer.pipe.close()
        await answers_go_on(victim)


async def test_a_peer_that_leaves_in_the_middle_of_a_message_is_gone_at_once(
    attacked: Any, authority: Authority
) -> None:
    async with attacked() as victim:
        peer = await hostile(authority, victim.node.port)
        await until(lambda: victim.node.links.get("mallory"))
        await peer.pipe.send(said(b"\0\0\1\0half of it")[:-3])
        peer.pipe.close()
        await until(lambda: victim.node.ended, within_s=CLOSED_WITHIN_S)
        assert victim.node.ended == ["peer_closed"]
        await answers_go_on(victim)


async def test_a_crowd_that_leaves_before_it_is_looked_at_changes_nothing(
    attacked: Any,
) -> None:
    async with attacked() as victim:
        for words in (b"", b"\x16\x03\x01\x02\x00", b"x" * 1000) * 20:
            with socket.create_connection(("127.0.0.1", victim.node.port)) as leaving:
                # It is reset, not closed.
                leaving.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                leaving.sendall(words)
        await until(lambda: len(victim.node.refused) == 60)
        assert set(victim.node.refused) <= {
            "broken",
            "peer_closed",
            "wrong_certificate",
        }
        await answers_go_on(victim)


async def test_a_process_that_reads_and_does_nothing_is_stalled(
    attacked: Any, authority: Authority
) -> None:
    async with attacked(heartbeat_interval_s=0.05, heartbeat_timeout_s=0.3) as victim:
        peer = await hostile(authority, victim.node.port)
        await until(lambda: victim.node.links.get("mallory"))
        with suppress(OSError, trio.ClosedResourceError):
            # h2 answers the PINGs; nobody answers the probes.
            while data := await peer.pipe.receive():
                peer.protocol.receive(data, now_s=trio.current_time())
                await peer.pipe.send(peer.protocol.data_to_send(65_536))
        assert victim.node.ended == ["stalled"]
        peer.pipe.close()
        await answers_go_on(victim)


async def test_a_peer_that_ends_its_half_is_gone(
    attacked: Any, authority: Authority
) -> None:
    async with attacked() as victim:
        peer = await hostile(authority, victim.node.port)
        await until(lambda: victim.node.links.get("mallory"))
        socket.socket.shutdown(peer.pipe._socket, socket.SHUT_WR)
        await until(lambda: victim.node.ended, within_s=CLOSED_WITHIN_S)
        assert victim.node.ended == ["peer_closed"]
        with trio.fail_after(CLOSED_WITHIN_S):
            await closed(peer)
        peer.pipe.close()


async def test_a_message_may_come_byte_by_byte(
    attacked: Any, authority: Authority
) -> None:
    async with attacked() as victim:
        peer = await hostile(authority, victim.node.port)
        told = message(2, "shelf", {"type": "put", "key": "slow", "value": 3})
        for byte in told:
            for piece in said(bytes([byte])):
                await peer.pipe.send(bytes([piece]))
        await until(lambda: victim.stored)
        assert victim.stored == [("slow", 3)]
        peer.pipe.close()


async def test_a_peer_that_opens_streams_and_says_nothing_uses_only_its_own(
    attacked: Any, authority: Authority
) -> None:
    async with attacked() as victim:
        peer = await hostile(authority, victim.node.port)
        await attack(peer, openings(peer, MAX_STREAMS, reset=False))
        await until(lambda: victim.node.links.get("mallory"))
        link = victim.node.links.get("mallory")
        assert link is not None
        await until(lambda: len(link.dispatch.streams) == MAX_STREAMS)
        await answers_go_on(victim)
        peer.pipe.close()
        await until(lambda: victim.node.ended)
        assert len(link.dispatch.streams) == 0


def test_what_a_link_needs_is_far_below_what_is_a_flood() -> None:
    # A beat each second; a window for each half mebibyte at a gigabyte a second.
    assert ALLOWANCES[Kind.PING].per_s >= 10
    assert ALLOWANCES[Kind.WINDOW_UPDATE].per_s >= 2 * 2000
