"""The operators' routes at an address of their own, or for this machine alone."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import pytest

from atomr_infer.gateway.admin.address import is_from_here
from atomr_infer.gateway.admin.beside import BesideAdmin
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.secret import Secret
from tests.gateway.http import chat, request

if TYPE_CHECKING:
    from typing import Any

    from tests.gateway.conftest import Serve

KEY = {"authorization": "Bearer adm-1234"}
M = Deployment(name="m", runtime="mock")


@pytest.mark.parametrize(
    ("client", "here"),
    [
        (("127.0.0.1", 1), True),
        (("127.8.0.1", 1), True),
        (("::1", 1), True),
        (("::ffff:127.0.0.1", 1), True),
        (("::ffff:10.0.0.1", 1), False),
        (("10.0.0.1", 1), False),
        (("2001:db8::1", 1), False),
        (("a-name", 1), False),
        (None, False),
    ],
)
def test_who_asks_from_here_is_told_by_the_address(
    client: tuple[str, int] | None, here: bool
) -> None:
    assert is_from_here({"client": client}) is here


async def test_who_asks_from_elsewhere_is_refused_whatever_key_is_shown() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    class Nobody:
        async def __call__(self, *_: object) -> None:
            raise AssertionError("the routes are not asked")

        async def handle(self, *_: object) -> None:
            raise AssertionError("nobody asks")

    app = BesideAdmin(Nobody(), Nobody())  # type: ignore[arg-type] # never called
    address = str(ipaddress.ip_address("192.0.2.7"))
    scope = {"type": "http", "path": "/admin/tree", "client": (address, 7)}

    async def receive() -> dict[str, Any]:
        raise AssertionError("its body is not read")

    await app(scope, receive, send)
    assert sent[0]["status"] == 403
    assert b"not_from_here" in sent[1]["body"]


async def test_at_an_address_of_their_own_they_are_nowhere_else(serve: Serve) -> None:
    async with serve(
        M, admin_key=Secret("adm-1234"), admin_bind="127.0.0.1:0"
    ) as running:
        url = running.gateway.admin_url
        assert url is not None
        port = int(url.rpartition(":")[2])
        assert port != running.port
        tree = await request(port, "GET", "/admin/tree", b"", **KEY)
        assert tree.status == 200
        assert (await request(port, "GET", "/admin/tree")).status == 401
        assert (await chat(port)).status in (401, 404)
        there = await request(running.port, "GET", "/admin/tree", b"", **KEY)
        assert there.status == 404
        assert (await chat(running.port)).status == 200


async def test_the_address_is_closed_with_the_gateway(serve: Serve) -> None:
    async with serve(
        M, admin_key=Secret("adm-1234"), admin_bind="127.0.0.1:0"
    ) as running:
        url = running.gateway.admin_url
        assert url is not None
        await running.gateway.drain(1)
        with pytest.raises(OSError, match="connect"):
            await request(int(url.rpartition(":")[2]), "GET", "/admin/tree")


async def test_without_a_key_there_is_no_such_address(serve: Serve) -> None:
    async with serve(M, admin_bind="127.0.0.1:0") as running:
        assert running.gateway.admin_url is None
