"""Nodes with certificates, on real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import msgspec
import pytest
import trio

from atomr.crdt.origin import Origin
from atomr.errors import LinkRefusedError
from atomr.http2 import (
    Credentials,
    LinkDown,
    LinkEvent,
    LinkOptions,
    LinkRefused,
    Links,
    Service,
    node_uri,
    open_links,
)
from atomr_infer.cli.certificates import Pem, make_authority, make_node

CLUSTER = "test"
COOKIE = b"the cookie of all test nodes"
WITHIN_S = 30.0


class Authority:
    """Signs certificates, and writes them where OpenSSL can read them."""

    def __init__(self, folder: Path, name: str = CLUSTER) -> None:
        self._folder = folder
        self.pem: Pem = make_authority(name)
        self.file = folder / f"ca-{name}.pem"
        self.file.write_bytes(self.pem.certificate)

    def files(self, node: str, *, cluster: str = CLUSTER, days: int = 9) -> Files:
        made = make_node(self.pem, node_uri(cluster, node), days=days)
        certificate = self._folder / f"{self.file.stem}-{cluster}-{node}.pem"
        key = certificate.with_suffix(".key")
        certificate.write_bytes(made.certificate)
        key.write_bytes(made.key)
        return Files(self.file, certificate, key)

    def credentials(
        self, node: str, *, cluster: str = CLUSTER, days: int = 9
    ) -> Credentials:
        return self.files(node, cluster=cluster, days=days).load()


@attrs.frozen
class Files:
    ca: Path
    certificate: Path
    key: Path

    def load(self) -> Credentials:
        return Credentials.load(
            ca_file=self.ca, certificate_file=self.certificate, key_file=self.key
        )


class Put(msgspec.Struct, tag="put"):
    key: str
    value: int


class Get(msgspec.Struct, tag="get"):
    key: str


class Shelf:
    """A service that stores numbers.

    Attributes:
        stored: in the order in which they came.
    """

    def __init__(self) -> None:
        self.stored: list[tuple[str, int]] = []

    def service(self) -> Service[Any]:
        return Service(Put | Get, tell=self._tell, call=self._call)

    def _tell(self, _: object, message: Any) -> None:
        self.stored.append((message.key, message.value))

    def _call(self, call: Any, message: Any) -> None:
        call.reply(dict(self.stored).get(message.key))


@attrs.define
class Node:
    """A node with what happened to its links."""

    links: Links
    port: int = 0
    events: list[LinkEvent] = attrs.field(factory=list)

    @property
    def refused(self) -> list[str]:
        return [e.error.reason for e in self.events if isinstance(e, LinkRefused)]

    @property
    def ended(self) -> list[str]:
        return [e.error.reason for e in self.events if isinstance(e, LinkDown)]


OpenNode: TypeAlias = Callable[..., AbstractAsyncContextManager[Node]]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "strange")


@pytest.fixture
def open_node(authority: Authority) -> OpenNode:
    """Open a node that listens on loopback."""

    @asynccontextmanager
    async def opened(
        name: str, services: dict[str, Service[Any]] | None = None, **options: Any
    ) -> AsyncIterator[Node]:
        options.setdefault("credentials", authority.credentials(name))
        made = LinkOptions(
            cluster=options.pop("cluster", CLUSTER),
            origin=Origin(name, options.pop("boot", 1)),
            cookie=options.pop("cookie", COOKIE),
            **options,
        )
        events: list[LinkEvent] = []
        async with open_links(made, services or {}, observer=events.append) as links:
            port = await links.listen("127.0.0.1", 0)
            yield Node(links, port, events)

    return opened


async def dial(node: Node, to: Node) -> Any:
    return await node.links.dial(to.links.origin.name, "127.0.0.1", to.port)


async def refused(node: Node, to: Node, name: str = "") -> LinkRefusedError:
    with pytest.raises(LinkRefusedError) as caught, trio.fail_after(WITHIN_S):
        await node.links.dial(name or to.links.origin.name, "127.0.0.1", to.port)
    return caught.value


async def until(condition: Callable[[], object], within_s: float = WITHIN_S) -> None:
    """Wait until something that another node does has happened."""
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110 - another process may do it
            await trio.sleep(0.005)
