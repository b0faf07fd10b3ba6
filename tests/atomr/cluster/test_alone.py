"""A node's cluster services where it has no others."""

from __future__ import annotations

from operator import methodcaller
from typing import TYPE_CHECKING

import pytest
import trio

from atomr.cluster import open_alone
from atomr.cluster.registry import ClusterRegistry
from atomr.cluster.remote import Messages, RemoteProcesses
from atomr.cluster.replicator import Replicator, StoreOptions
from atomr.crdt import GSet
from atomr.errors import ClusterDownError, StartError
from atomr.otp import ChildSpec, From, GenServer, Reply, call, child
from atomr.process import open_node, send, whereis

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from atomr.cluster import Peers
    from atomr.http2 import Service


class _Falling(GenServer):
    """Ends badly at its first message."""

    def handle_info(self, message: object) -> None:
        raise RuntimeError("it falls")


class _FallingService:
    shares_life = True

    def __init__(self) -> None:
        self.boots: list[int] = []
        self.again = trio.Event()

    def services(self) -> Mapping[str, Service[Any]]:
        return {}

    def child(self, peers: Peers) -> ChildSpec:
        def start() -> GenServer:
            self.boots.append(peers.origin.boot)
            if len(self.boots) > 1:
                self.again.set()
            return _Falling()

        return child(start, id="falls", name="falls")


async def test_a_replicator_alone_reads_what_it_wrote(tmp_path: Path) -> None:
    store = StoreOptions(tmp_path / "values.sqlite")
    for expected in ({"x"}, {"x", "y"}):
        replicator = Replicator(store=store)
        async with open_node("a"), open_alone("a", [replicator]) as peers:
            words = replicator.open(GSet, "words")
            word = max(expected)
            words.write(methodcaller("add", word))
            await replicator.sync()
            assert set(words.read().value) == expected
            assert (peers.all(), peers.origin.name) == ((), "a")


async def test_a_registered_server_is_called_alone() -> None:
    replicator = Replicator()
    remote = RemoteProcesses(Messages())
    registry = ClusterRegistry(replicator, remote)

    class Echo(GenServer):
        def handle_call(self, request: object, from_: From) -> Reply:
            return Reply(request)

    async with open_node("a") as node, open_alone("a", [remote, replicator, registry]):
        await node.start(child(Echo, id="echo", name=registry.via("echo")))
        assert await call(registry.via("echo"), "hello") == "hello"


async def test_a_service_that_shares_the_life_falls_into_a_new_one() -> None:
    service = _FallingService()
    async with open_node("a"), open_alone("a", [service]):
        send("falls", "fall")
        with trio.fail_after(30):
            await service.again.wait()
    first, second = service.boots
    assert 0 < first < second


async def test_the_body_ends_when_the_services_cannot_stand() -> None:
    with pytest.raises(ClusterDownError):
        async with open_node("a"), open_alone("a", [_FallingService()]):
            with trio.fail_after(30):
                while True:
                    if whereis("falls") is not None:
                        send("falls", "fall")
                    await trio.sleep(0.001)


async def test_a_boot_file_that_holds_no_number_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "boot"
    file.write_text("many")
    with pytest.raises(StartError, match="boot_file"):
        async with open_node("a"), open_alone("a", [], boot_file=file):
            raise AssertionError("it does not start")
