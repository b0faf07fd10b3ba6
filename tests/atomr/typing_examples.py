"""What type checkers must infer; checked by mypy in ``test_typing``, not run."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

import attrs

from atomr.otp import (
    Agent,
    AgentRef,
    Call,
    Cast,
    ChildInfo,
    ChildSpec,
    Done,
    Enter,
    EventTimeout,
    Exited,
    From,
    GenServer,
    Insert,
    Internal,
    ItemExited,
    Keep,
    MultiReply,
    Next,
    NoReply,
    Ok,
    Postpone,
    RegistryRef,
    Repeat,
    Reply,
    ReplyTo,
    Request,
    Restart,
    StateEvent,
    StateMachine,
    StateResult,
    StateTimeout,
    Stop,
    Supervisor,
    Task,
    Timeout,
    async_,
    async_nolink,
    async_stream,
    async_stream_nolink,
    await_many,
    call,
    child,
    multi_call,
    start_child,
    start_task,
    sys,
    which_children,
    yield_many,
)
from atomr.process import PlainProcess, spawn
from atomr.refs import Pid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


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


async def tasks_are_typed() -> None:
    task = Task.async_(work, 1, "x")
    assert_type(task, Task[bytes])
    assert_type(await task.result(), bytes)
    assert_type(await task.yield_(timeout_s=0), Done[bytes] | Exited | None)
    assert_type(await task.shutdown(), Done[bytes] | Exited | None)
    assert_type(async_("tasks", work, 1, "x", shutdown=1.0), Task[bytes])
    assert_type(async_nolink("tasks", work, 1, "x"), Task[bytes])
    assert_type(start_task("tasks", work, 1, "x", restart=Restart.TRANSIENT), Pid)
    assert_type(await await_many([task, Task.completed(b"")]), list[bytes])
    for looked_at, outcome in await yield_many([task], limit=1):
        assert_type(looked_at, Task[bytes])
        assert_type(outcome, Done[bytes] | Exited | None)
    assert_type(Task.child(work, 1, "x", name="w"), ChildSpec)
    async_("tasks", work, "x", 1)  # type: ignore[arg-type]
    start_task("tasks", work, 1)  # type: ignore[arg-type]


async def streams_are_typed(later: AsyncIterator[int]) -> None:
    async def half(number: int) -> float:
        return number / 2

    async with async_stream("tasks", [1, 2], half, ordered=False) as results:
        async for result in results:
            assert_type(result, Done[float] | ItemExited[int])
            if isinstance(result, Done):
                assert_type(result.value, float)
            else:
                assert_type(result.item, int)
    async with async_stream_nolink("tasks", later, half) as more:
        assert_type(await anext(more), Done[float] | ItemExited[int])
    async_stream("tasks", ["a"], half)  # type: ignore[arg-type]
    async_stream("tasks", [1], half, timeout=1)  # type: ignore[call-arg]


class Door(StateMachine, enter=True):
    """States may be plain or async; ``match`` narrows what an event holds."""

    held: From

    def init(self) -> Next:
        return Next(self.shut, StateTimeout.after(1.0), Timeout.cancel("x"))

    def shut(self, event: StateEvent) -> StateResult:
        match event:
            case Call(Get(key), from_):
                assert_type(key, str)
                assert_type(from_, From)
                self.held = from_
                return Next(self.open, Postpone(), Insert(Internal("x")))
            case Cast(str(text)):
                assert_type(text, str)
                return Reply(text)
            case Timeout(name, content):
                assert_type(content, object)
                return Keep(Timeout.update(name, content), EventTimeout.after(0))
            case Enter():
                return Repeat()
        return None

    async def open(self, event: StateEvent) -> StateResult:
        return Keep(ReplyTo(self.held, 1)) if event == Internal("x") else Stop()

    def wrong(self, event: StateEvent) -> StateResult:
        if isinstance(event, Enter):
            return Next(self.opne)  # type: ignore[attr-defined]
        return Keep(event)  # type: ignore[arg-type]


class Elevator(StateMachine):
    """One handler may narrow what a state is."""

    async def handle_event(
        self, event: StateEvent, state: tuple[str, int]
    ) -> StateResult:
        assert_type(state, tuple[str, int])
        return None
