"""Two nodes, mutual TLS, one link: what each side sees of the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.crdt.origin import Origin
from tests.atomr.http2.conftest import Get, Put, Shelf, dial

if TYPE_CHECKING:
    from tests.atomr.http2.conftest import OpenNode


async def test_a_call_returns_what_the_other_node_answers(open_node: OpenNode) -> None:
    shelf = Shelf()
    async with open_node("a") as a, open_node("b", {"shelf": shelf.service()}) as b:
        link = await dial(a, b)
        link.tell("shelf", Put("x", 7))

        assert await link.call("shelf", Get("x"), returns=int) == 7
        assert link.peer == Origin("b", 1)
        assert link.dialed
        other = b.links.get("a")
        assert other is not None
        assert other.peer == Origin("a", 1)
        assert not other.dialed
