"""A peer that lies to a real cluster: refused or closed at once, and nobody minds."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr.crdt.origin import Origin
from atomr.errors import LinkRefusedError
from atomr.http2 import Credentials
from atomr.http2.handshake import Greeted, Self, greet_dialed
from tests.atomr.cluster.real.harness import (
    ASK_S,
    RealCluster,
    RealNode,
    make_certificates,
    open_real_cluster,
)
from tests.atomr.cluster.real.node_program import CLUSTER, COOKIE
from tests.atomr.http2.test_hostile import ATTACKS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

THREE = ("a", "b", "c")
CALLS = 300
CLOSED_S = 10.0
"""Much more than the goal, 1 s: other tests run on this machine."""

pytestmark = pytest.mark.slow


@attrs.frozen
class Mallory:
    """Who attacks, and with what.

    Attributes:
        folder: of the cluster's authority; it has a certificate of that for ``x``.
        elsewhere: of another authority.
    """

    folder: Path
    elsewhere: Path

    def us(self, name: str = "x", *, cookie: bytes = COOKIE) -> Self:
        """Return who it says to be, with the certificate of ``x``."""
        return Self(CLUSTER, Origin(name, 9), cookie, _credentials(self.folder))

    def stranger(self) -> Self:
        return Self(CLUSTER, Origin("x", 9), COOKIE, _credentials(self.elsewhere))


def _credentials(folder: Path) -> Credentials:
    return Credentials.load(
        ca_file=folder / "ca.pem",
        certificate_file=folder / "x.pem",
        key_file=folder / "x.key",
    )


async def _dial(us: Self, victim: RealNode) -> Greeted:
    _, port = victim.config["listen"].split(":")
    stream = await trio.open_tcp_stream("127.0.0.1", int(port))
    return await greet_dialed(stream, us, node=victim.name)


async def _refused(us: Self, victim: RealNode) -> str:
    """Return why it is not let in."""
    with pytest.raises(LinkRefusedError) as caught, trio.fail_after(CLOSED_S):
        peer = await _dial(us, victim)
        peer.pipe.close()
    return caught.value.reason


async def _closed(mallory: Mallory, victim: RealNode, attack: str) -> float:
    """Attack, and return how long it took until the link was down."""
    _, make = ATTACKS[attack]
    began = len(victim.events)
    peer = await _dial(mallory.us(), victim)
    try:
        await victim.until(lambda: victim.told("link up", peer="x", since=began))
        began_s = time.monotonic()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_write, peer, make(peer))
            await victim.until(lambda: victim.told("link down", peer="x", since=began))
            nursery.cancel_scope.cancel()
    finally:
        peer.pipe.close()
    return time.monotonic() - began_s


async def _write(peer: Greeted, data: bytes) -> None:
    with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
        await peer.pipe.send(data)


def _p99(waits: list[float]) -> float:
    return sorted(waits)[int(len(waits) * 0.99)]


async def _meanwhile(cluster: RealCluster) -> AsyncIterator[list[float]]:
    """Yield how long calls of others take, some at a time."""
    while True:
        yield await cluster["a"].ask("asks", name="lobby", number=CALLS // 10)


async def test_who_is_not_of_the_cluster_is_refused_and_who_lies_is_cut_off(
    tmp_path: Path,
) -> None:
    folder, elsewhere = tmp_path / "ours", tmp_path / "elsewhere"
    make_certificates(elsewhere, ["x"])
    async with open_real_cluster(folder, THREE) as cluster:
        make_certificates(folder, ["x"])
        mallory = Mallory(folder, elsewhere)
        await cluster.start()
        victim = cluster["b"]
        await victim.ask("register", names=["lobby"])
        await cluster["a"].come_to(["lobby"], "names")
        before = await cluster["a"].ask("asks", name="lobby", number=CALLS)
        during: list[float] = []
        async with trio.open_nursery() as nursery:

            async def call_on() -> None:
                async for waits in _meanwhile(cluster):
                    during.extend(waits)

            nursery.start_soon(call_on)
            assert await _refused(mallory.stranger(), victim) == "wrong_certificate"
            assert await _refused(mallory.us("c"), victim) == "wrong_name"
            wrong = mallory.us(cookie=b"another cookie, 16 bytes")
            assert await _refused(wrong, victim) == "wrong_cookie"
            await _attacks(mallory, victim)
            with trio.fail_after(ASK_S):
                while len(during) < CALLS:  # noqa: ASYNC110 - another process
                    await trio.sleep(0.05)
            nursery.cancel_scope.cancel()
        told = f"{_p99(before) * 1e3:.1f} ms before, {_p99(during) * 1e3:.1f} ms"
        print(f"p99 of the others' calls: {told} under attack")

        assert victim.told("down", peer="a") == []
        assert victim.told("down", peer="c") == []
        assert [node.told("crash") for node in cluster.nodes.values()] == [[]] * 3


async def _attacks(mallory: Mallory, victim: RealNode) -> None:
    for name in (
        "a length of four gigabytes",
        "no msgpack",
        "streams that are reset at once",
    ):
        took_s = await _closed(mallory, victim, name)
        print(f"{name}: closed after {took_s * 1e3:.0f} ms")
        assert took_s < CLOSED_S
