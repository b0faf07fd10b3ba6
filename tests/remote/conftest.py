"""A raw TCP peer whose every byte the test decides, and certificates."""

from __future__ import annotations

import pathlib
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

Serve = Callable[[trio.SocketStream], Awaitable[None]]


@attrs.define
class Peer:
    """Attributes: base_url; connections accepted so far."""

    base_url: str
    connections: int = 0


@asynccontextmanager
async def _open_peer(serve: Serve) -> AsyncIterator[Peer]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    peer = Peer(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}")

    async def handle(stream: trio.SocketStream) -> None:
        peer.connections += 1
        async with stream:
            await serve(stream)

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handle, listeners)
        yield peer
        nursery.cancel_scope.cancel()


@pytest.fixture
def open_peer() -> Callable[[Serve], AbstractAsyncContextManager[Peer]]:
    return _open_peer


@attrs.frozen
class Certificates:
    """An authority of our own, and what it signed.

    Attributes: authority, its file; folder, where the rest is.
    """

    authority: str
    folder: pathlib.Path

    def files(self, name: str) -> tuple[str, str]:
        return str(self.folder / f"{name}.pem"), str(self.folder / f"{name}.key")

    def server(self, name: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*self.files(name))
        return context


_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
_HERE = "DNS:localhost,DNS:h.example,IP:127.0.0.1"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")

    def run(command: str) -> None:
        subprocess.run(
            ["openssl", *command.split()], check=True, capture_output=True, cwd=folder
        )

    run(f"req -x509 {_KEY} -days 2 -subj /CN=ca -keyout ca.key -out ca.pem")
    self_signed = "-days 2 -subj /CN=s -keyout self-signed.key -out self-signed.pem"
    run(f"req -x509 {_KEY} {self_signed} -addext subjectAltName={_HERE}")
    for name, days, names in [
        ("good", 2, _HERE),
        ("expired", -1, _HERE),
        ("other-host", 2, "IP:127.0.0.9"),
    ]:
        asks = f"-subj /CN={name} -addext subjectAltName={names}"
        run(f"req {_KEY} {asks} -keyout {name}.key -out {name}.csr")
        signs = f"-CA ca.pem -CAkey ca.key -copy_extensions copy -days {days}"
        run(f"x509 -req -in {name}.csr {signs} -out {name}.pem")
    return Certificates(str(folder / "ca.pem"), folder)
