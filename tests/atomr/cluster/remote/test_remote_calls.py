"""Calls, casts and messages for processes of another node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.cluster.remote import at
from atomr.otp import call, cast, child
from atomr.process import self_pid, send
from tests.atomr.cluster.remote.servers import Add, Counter, Get, Give, Note

if TYPE_CHECKING:
    from atomr.refs import Pid
    from tests.atomr.cluster.remote.conftest import OpenNodes


async def test_a_call_by_name_is_answered_by_the_other_node(
    open_nodes: OpenNodes,
) -> None:
    async with open_nodes("a", "b") as nodes:
        await nodes["b"].node.start(child(Counter, name="counter"))

        async def ask() -> tuple[int, int]:
            counter = at("b", "counter")
            await call(counter, Add(2))
            cast(counter, Add(3))
            return await call(counter, Get()), await call(counter, Add(1))

        assert await nodes["a"].run(ask) == (5, 6)


async def test_a_pid_crosses_and_comes_home_as_itself(open_nodes: OpenNodes) -> None:
    async with open_nodes("a", "b") as nodes:
        await nodes["b"].node.start(child(Counter, name="counter"))

        async def ask() -> tuple[object, object, object]:
            me = self_pid()
            caller = await call(at("b", "counter"), Give("caller"))
            echoed = await call(at("b", "counter"), [me, (me, 1)])
            return me, caller, echoed

        me, caller, echoed = await nodes["a"].run(ask)
        assert caller is me
        assert echoed == [me, (me, 1)]


async def test_what_is_sent_arrives_in_order_with_its_types(
    open_nodes: OpenNodes,
) -> None:
    async with open_nodes("a", "b") as nodes:
        await nodes["b"].node.start(child(Counter, name="counter"))

        async def tell() -> tuple[object, Pid]:
            there = at("b", "counter")
            send(there, Note("first", by=self_pid()))
            cast(there, ("second", {"two": [2.0, None]}))
            send(there, b"third")
            return await call(there, Give("notes")), self_pid()

        notes, me = await nodes["a"].run(tell)
        assert notes == [
            Note("first", by=me),
            ("second", {"two": [2.0, None]}),
            b"third",
        ]
