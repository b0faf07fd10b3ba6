"""Two nodes whose frames cross in every way: both sides end with the same picture.

No sockets here: what one node tells lies in a line until the test hands it on, so
links, unlinks, watches and ends cross as they never would on one machine.
"""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from atomr.cluster.remote import RemoteProcesses
from atomr.cluster.remote.frames import Frame
from atomr.cluster.remote.unlinks import Unlinks
from atomr.core.exits import KILL, KILLED, NOCONNECTION, NOPROC
from atomr.core.messages import Down, Exit
from atomr.crdt.origin import Origin
from atomr.errors import LinkDownError
from atomr.process import (
    PlainProcess,
    demonitor,
    exit_process,
    link,
    monitor,
    open_node,
    send,
    trap_exit,
    unlink,
)
from atomr.process.context import CURRENT
from tests.at_length import times
from tests.atomr.cluster.remote.servers import MESSAGES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from atomr.process import Node
    from atomr.process.process import Process
    from atomr.refs import Pid, Ref

DECODER: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Frame)
PROCESSES = 2


class Wire:
    """One side of a link: what it is told lies in ``line``."""

    def __init__(self, peer: Origin) -> None:
        self.peer = peer
        self.line: deque[bytes] = deque()
        self.down: LinkDownError | None = None
        self.tellers: list[Callable[[], None]] = []

    def tell(self, service: str, message: object) -> None:
        assert service == "process"
        if self.down is not None:
            raise self.down
        self.line.append(msgspec.msgpack.encode(message))

    def on_down(self, tell: Callable[[], None]) -> None:
        self.tellers.append(tell)

    def end(self, *_: object, fault: bool = False) -> None:
        if self.down is None:
            self.down = LinkDownError(self.peer, "broken", "the test cuts it")
            self.line.clear()
            for tell in self.tellers:
                tell()


class Side:
    """A node with its processes, its end of the link and what it expects to hear."""

    def __init__(self, name: str, node: Node) -> None:
        self.name = name
        self.node = node
        self.origin = Origin(name, 1)
        self.remote = RemoteProcesses(MESSAGES)
        self.wire: Wire
        self.other: Side
        self.processes: list[Process] = []
        self.watches: list[tuple[Ref, Process, int]] = []
        self.undone: set[Ref] = set()

    # As ``Peers``.
    def get(self, _: str) -> Origin | None:
        return self.other.origin if self.wire.down is None else None

    def all(self) -> tuple[Origin, ...]:
        return () if self.wire.down else (self.other.origin,)

    def link(self, _: Origin) -> Wire | None:
        return self.wire if self.wire.down is None else None

    @contextmanager
    def watch(self, _: object) -> Iterator[None]:
        yield

    def hand_on(self, count: int) -> None:
        """Let the other side have the oldest frames."""
        for _ in range(min(count, len(self.wire.line))):
            frame = DECODER.decode(self.wire.line.popleft())
            self.other.remote._told(self.other.wire, frame)  # type: ignore[arg-type]

    def seen(self, index: int) -> Pid:
        """The other side's process, as it is seen from here."""
        number = self.other.numbers[index]
        return self.remote.pid_of(self.other.origin, number)

    async def start(self) -> None:
        async def sleep() -> None:
            trap_exit(True)
            await trio.sleep_forever()

        for _ in range(PROCESSES):
            pid = self.node.spawn(PlainProcess(sleep), label="p", name=None)
            process = pid._process
            assert process is not None
            self.processes.append(process)
        self.numbers = [process.pid.number for process in self.processes]
        await trio.testing.wait_all_tasks_blocked()


@contextmanager
def as_process(process: Process) -> Iterator[None]:
    token = CURRENT.set(process)
    try:
        yield
    finally:
        CURRENT.reset(token)


async def act(side: Side, what: str, ours: int, theirs: int) -> None:
    process, pid = side.processes[ours], side.seen(theirs)
    if process.reason is not None:
        return
    with as_process(process):
        match what:
            case "link":
                link(pid)
            case "unlink":
                unlink(pid)
            case "monitor":
                side.watches.append((monitor(pid), process, theirs))
            case "demonitor":
                mine = [row for row in side.watches if row[1] is process]
                if mine:
                    demonitor(mine[0][0], flush=True)
                    side.undone.add(mine[0][0])
            case "send":
                send(pid, side.name)
            case "kill theirs":
                exit_process(pid, KILL)
            case "end":
                exit_process(process.pid, KILL)
                await trio.testing.wait_all_tasks_blocked()


def connect(a: Side, b: Side) -> None:
    a.wire, b.wire = Wire(b.origin), Wire(a.origin)


async def settle(a: Side, b: Side) -> None:
    """Hand on all there is, until there is no more."""
    while a.wire.line or b.wire.line:
        a.hand_on(1000)
        b.hand_on(1000)
        await trio.testing.wait_all_tasks_blocked()
    await trio.sleep(1)


def linked(side: Side) -> set[tuple[int, int]]:
    """Which pairs a side holds to be linked: ours, theirs."""
    return {
        (process.pid.number, peer.target)  # type: ignore[attr-defined]
        for process in side.processes
        for peer in process.links or {}
    }


def check(a: Side, b: Side) -> None:
    assert linked(a) == {(ours, theirs) for theirs, ours in linked(b)}
    for side in (a, b):
        session = side.remote.life(side.other.origin).session
        for process in side.processes:
            if process.reason is not None:
                assert not process.links
        for ref, process, theirs in side.watches:
            check_watch(side, ref, process, side.other.processes[theirs])
        if session is not None:
            assert not session.calls
            assert not session.unlinks
            back = side.other.remote.life(side.origin).session
            watched = {} if back is None else back.watched
            assert session.watches.keys() == watched.keys()
            assert all(proxy.watchers for proxy in session.watches.values())


def check_watch(side: Side, ref: Ref, process: Process, watched: Process) -> None:
    if process.reason is not None:
        return
    mail = [*process.batch, *process.inbox]
    downs = [m for m in mail if isinstance(m, Down) and m.ref is ref]
    waits = ref in (process.monitoring or {})
    if ref in side.undone:
        assert (downs, waits) == ([], False)
    elif waits:
        assert downs == []
        assert watched.reason is None
    else:
        (down,) = downs
        assert down.reason in (KILLED, NOPROC, NOCONNECTION)
        assert down.reason is NOCONNECTION or watched.reason is not None


async def run(a: Side, b: Side, steps: list[tuple[Any, ...]]) -> None:
    for where, what, *rest in steps:
        side = a if where == "a" else b
        if what == "hand on":
            side.hand_on(rest[0])
            await trio.testing.wait_all_tasks_blocked()
        elif what == "cut":
            a.wire.end()
            b.wire.end()
            await trio.sleep(0.01)
            connect(a, b)
        else:
            await act(side, what, *rest)
    await settle(a, b)
    check(a, b)


WHERE = st.sampled_from("ab")
WHAT = st.sampled_from(
    [
        "link",
        "link",
        "unlink",
        "unlink",
        "monitor",
        "demonitor",
        "send",
        "kill theirs",
        "end",
    ]
)
INDEX = st.integers(0, PROCESSES - 1)
STEPS = st.lists(
    st.one_of(
        st.tuples(WHERE, WHAT, INDEX, INDEX),
        st.tuples(WHERE, st.just("hand on"), st.integers(1, 3)),
        st.tuples(WHERE, st.just("hand on"), st.integers(1, 3)),
        st.tuples(WHERE, st.just("cut")),
    ),
    max_size=30,
)


@settings(max_examples=40, deadline=None)
@given(STEPS)
@example([("a", "link", 0, 0), ("a", "unlink", 0, 0), ("b", "link", 0, 0)])
@example(
    [
        ("a", "link", 0, 0),
        ("a", "hand on", 1),
        ("a", "unlink", 0, 0),
        ("b", "unlink", 0, 0),
        ("b", "link", 0, 0),
        ("b", "hand on", 2),
    ]
)
@example([("a", "link", 0, 0), ("b", "end", 0, 0)])
@example([("a", "monitor", 0, 0), ("a", "cut"), ("a", "monitor", 0, 0)])
def test_whatever_crosses_both_sides_agree(steps: list[tuple[Any, ...]]) -> None:
    on_two_sides(partial(run, steps=steps))


@pytest.mark.slow
@settings(max_examples=times(300), deadline=None)
@given(STEPS)
def test_whatever_crosses_both_sides_agree_at_length(
    steps: list[tuple[Any, ...]],
) -> None:
    on_two_sides(partial(run, steps=steps))


async def two_sides(then: Callable[[Side, Side], Awaitable[None]]) -> None:
    async with open_node("b") as node_b, open_node("a") as node_a:
        a, b = Side("a", node_a), Side("b", node_b)
        a.other, b.other = b, a
        connect(a, b)
        for side in (a, b):
            side.remote.open(side.node, side)  # type: ignore[arg-type]
            await side.start()
        await then(a, b)


def on_two_sides(then: Callable[[Side, Side], Awaitable[None]]) -> None:
    trio.run(two_sides, then, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_link_that_crosses_an_unlink_is_on_neither_side() -> None:
    async def cross(a: Side, b: Side) -> None:
        await act(a, "link", 0, 0)
        await act(a, "unlink", 0, 0)
        await act(b, "link", 0, 0)
        await settle(a, b)
        assert (linked(a), linked(b)) == (set(), set())
        # And then it can be made.
        await act(b, "link", 0, 0)
        await settle(a, b)
        await act(b, "end", 0, 0)
        await settle(a, b)
        (exit_,) = a.processes[0].inbox
        assert isinstance(exit_, Exit)
        assert exit_.reason is KILLED

    on_two_sides(cross)


def test_a_link_that_both_make_again_holds() -> None:
    async def cross(a: Side, b: Side) -> None:
        await act(a, "link", 0, 0)
        await settle(a, b)
        for side in (a, b):
            await act(side, "unlink", 0, 0)
            await act(side, "link", 0, 0)
        await settle(a, b)
        assert linked(a) == {(a.numbers[0], b.numbers[0])}
        assert linked(b) == {(b.numbers[0], a.numbers[0])}

    on_two_sides(cross)


def test_an_unlink_is_acknowledged_by_its_own_number_alone() -> None:
    unlinks, pair = Unlinks(), (1, 2)
    first = unlinks.begin(pair)
    unlinks.linked(pair)
    assert not unlinks.covers(pair)
    second = unlinks.begin(pair)
    unlinks.acknowledged(pair, first)
    assert unlinks.covers(pair)
    assert not unlinks.covers((2, 1))
    unlinks.acknowledged(pair, second)
    assert (unlinks.covers(pair), len(unlinks)) == (False, 0)
