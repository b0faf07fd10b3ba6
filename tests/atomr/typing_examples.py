"""What type checkers must infer; checked by mypy in ``test_typing``, not run."""

from __future__ import annotations

from typing import assert_type

import attrs

from atomr.otp import (
    Agent,
    AgentRef,
    ChildInfo,
    From,
    GenServer,
    MultiReply,
    NoReply,
    Ok,
    RegistryRef,
    Reply,
    Request,
    Stop,
    Supervisor,
    call,
    child,
    multi_call,
    start_child,
    sys,
    which_children,
)
from atomr.process import PlainProcess, spawn
from atomr.refs import Pid


@attrs.frozen
class Get(Request[int]):
    """A request whose reply is an int."""

    key: str


@attrs.frozen
class Keys(Request[list[str]]):
    """A request whose reply is a list."""


class Store(GenServer):
    """Callbacks may narrow their arguments, and be plain or async."""

    async def init(self) -> Ok:
        return Ok(continue_="load")

    def handle_continue(self, continuation: str) -> None:
        assert_type(continuation, str)

    def handle_call(self, request: Get | Keys, from_: From) -> Reply | NoReply:
        match request:
            case Get(key):
                return Reply(len(key))
            case Keys():
                return NoReply()

    async def handle_cast(self, message: int) -> Stop | None:
        return Stop() if message else None


async def replies_are_typed(server: Pid) -> None:
    assert_type(await call(server, Get("k")), int)
    assert_type(await call("store", Keys(), timeout_s=None), list[str])
    assert_type(await call(server, ("anything", "else")), object)


class Plain(GenServer):
    """Without a task, and with unions narrowed by each callback."""

    def init(self) -> None:
        self.total = 0

    def handle_call(self, request: Get, from_: From) -> Reply | Stop:
        return Stop(reply=0) if request.key == "end" else Reply(self.total)

    def handle_info(self, message: str | int) -> NoReply:
        return NoReply(timeout_s=1.0)

    def terminate(self, reason: object) -> None:
        self.total = 0


async def replies_of_many_are_typed(servers: list[Pid]) -> None:
    assert_type(await multi_call(servers, Get("k")), MultiReply[int])


async def agents_and_registries_are_typed(pid: Pid) -> None:
    words = AgentRef[dict[str, int]](pid)
    assert_type(await words.get(lambda state: state["apple"]), int)
    assert_type(await words.get_and_update(lambda state: ("x", state)), str)
    await words.update(lambda state: [*state])  # type: ignore[arg-type, return-value]
    child(Agent.of(dict))
    rooms: RegistryRef[str, int] = RegistryRef("rooms")
    assert_type(rooms.lookup("lobby"), tuple[tuple[Pid, int], ...])
    rooms.register(1, 1)  # type: ignore[arg-type]


async def a_replaced_state_is_typed(pid: Pid) -> None:
    def double(state: Plain) -> Plain:
        state.total *= 2
        return state

    assert_type(await sys.replace_state(pid, double), Plain)


async def supervisors_are_typed(top: Pid) -> None:
    assert_type(await start_child(top, child(Store)), Pid)
    assert_type(await which_children(top), tuple[ChildInfo, ...])
    Supervisor([child(lambda: Supervisor([child(Store)]), id="s")])


async def work(number: int, text: str) -> bytes:
    return text.encode() * number


def functions_take_their_own_arguments() -> None:
    assert_type(spawn(work, 1, "x", name="worker"), Pid)
    PlainProcess(work, 1, "x")
    spawn(work, "x", 1)  # type: ignore[arg-type]
    child(Store, restart="permanent")  # type: ignore[arg-type]
