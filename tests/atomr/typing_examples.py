"""What type checkers must infer; checked by mypy in ``test_typing``, not run."""

from __future__ import annotations

from typing import assert_type

import attrs

from atomr.otp import (
    ChildInfo,
    From,
    GenServer,
    NoReply,
    Ok,
    Reply,
    Request,
    Stop,
    Supervisor,
    call,
    child,
    start_child,
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
