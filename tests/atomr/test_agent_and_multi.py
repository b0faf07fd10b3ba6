"""Agent, ``multi_call`` and ``abcast``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TypeAlias

import pytest
import trio.testing

from atomr.errors import CallTimeoutError, NoProcessError, ServerDownError, StartError
from atomr.otp import (
    Agent,
    AgentRef,
    Fail,
    From,
    GenServer,
    NoReply,
    Reply,
    Restart,
    Supervisor,
    abcast,
    child,
    multi_call,
    sys,
)
from atomr.process import Node, is_alive

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]


async def agent(node: Node) -> AgentRef[list[int]]:
    spec = child(Agent.of(list[int]), id="agent", restart=Restart.TEMPORARY)
    return AgentRef(await node.start(spec))


async def test_get_returns_and_leaves_the_state(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        numbers = await agent(node)
        assert await numbers.get(lambda state: [*state, 1]) == [1]
        assert await numbers.get(len) == 0


async def test_update_and_cast_replace_the_state_in_order(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        numbers = await agent(node)
        numbers.cast(lambda state: [*state, 1])
        await numbers.update(lambda state: [*state, 2])
        numbers.cast(lambda state: [*state, 3])
        assert await numbers.get(tuple) == (1, 2, 3)


async def test_get_and_update_does_both(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        numbers = await agent(node)
        await numbers.update(lambda state: [*state, 7, 8])
        assert await numbers.get_and_update(lambda state: (state[0], state[1:])) == 7
        assert await numbers.get(tuple) == (8,)


async def test_a_function_that_raises_crashes_the_agent(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        top = Supervisor([child(Agent.of(lambda: [0]), id="a", name="numbers")])
        await node.start(top)
        numbers = AgentRef[list[int]]("numbers")
        await numbers.update(lambda _state: [1])
        with pytest.raises(ServerDownError) as caught:
            await numbers.get(lambda state: state[5])
        assert isinstance(caught.value.reason, IndexError)
        await trio.testing.wait_all_tasks_blocked()
        assert await numbers.get(tuple) == (0,)


async def test_a_state_that_cannot_be_made_fails_the_start(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        with pytest.raises(StartError, match="division"):
            await node.start(child(Agent.of(lambda: 1 // 0), id="agent"))


async def test_stop_ends_the_agent_and_status_shows_its_state(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        numbers = await agent(node)
        await numbers.update(lambda _state: [4])
        assert (await sys.get_status(numbers.agent)).state == [4]
        await numbers.stop()
        assert not is_alive(numbers.agent)


class Echo(GenServer):
    """Replies its own name, fails, or keeps silent."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.heard: list[object] = []

    def handle_call(self, request: object, from_: From) -> Reply | Fail | NoReply:
        if self.name == "silent":
            return NoReply()
        if self.name == "failing":
            return Fail(ValueError("no"))
        return Reply((self.name, tuple(self.heard)))

    def handle_cast(self, message: object) -> None:
        self.heard.append(message)


async def echoes(node: Node, *names: str) -> None:
    for name in names:
        await node.start(child(partial(Echo, name), id=name, name=name))


async def test_multi_call_tells_who_replied_and_why_others_did_not(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async with clean_node() as node:
        await echoes(node, "a", "b", "silent", "failing")
        servers = ["a", "nobody", "silent", "b", "failing", "a"]
        found = await multi_call(servers, "who", timeout_s=2.0)
        assert trio.current_time() == 2.0
    assert list(found.replies.items()) == [("a", ("a", ())), ("b", ("b", ()))]
    kinds = {server: type(error) for server, error in found.failures.items()}
    assert kinds == {
        "nobody": NoProcessError,
        "silent": CallTimeoutError,
        "failing": ValueError,
    }


async def test_abcast_reaches_all_who_are_there(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        await echoes(node, "a", "b")
        abcast(["a", "nobody", "b"], 1)
        found = await multi_call(["a", "b"], "who")
    assert found.replies == {"a": ("a", (1,)), "b": ("b", (1,))}
    assert found.failures == {}
