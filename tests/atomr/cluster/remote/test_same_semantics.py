"""What holds for a process of one's own node holds for one of another node.

Every test here runs twice with the same assertions: caller and server on one node, and
on two.  An exception is compared by its class and its text, as that is what crosses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import pytest
import trio

from atomr.cluster.remote import at
from atomr.core.child_spec import ChildSpec, Restart
from atomr.core.exits import KILL, KILLED, NOPROC, NORMAL, SHUTDOWN, Shutdown
from atomr.core.messages import Down, Exit
from atomr.errors import (
    CallTimeoutError,
    NoProcessError,
    ReceiveTimeoutError,
    RemoteError,
    ServerDownError,
)
from atomr.otp import GenServer, NoReply, Reply, Stop, call, cast, child, multi_call
from atomr.process import (
    From,
    PlainProcess,
    demonitor,
    exit_process,
    is_alive,
    kill,
    link,
    monitor,
    receive,
    register,
    self_pid,
    send,
    send_after,
    stop,
    trap_exit,
    unlink,
    wait_exit,
)
from atomr.refs import Address, Pid
from tests.atomr.cluster.loopback import LoopbackNode
from tests.atomr.cluster.remote.conftest import Nodes, OpenNodes
from tests.atomr.cluster.remote.servers import (
    Add,
    Counter,
    Crash,
    End,
    Get,
    Give,
    Later,
    Note,
    Refuse,
    Waiter,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

T = TypeVar("T")

pytestmark = pytest.mark.usefixtures("quiet")


@attrs.frozen
class Place:
    """Where the server is, seen from the client."""

    nodes: Nodes
    client: LoopbackNode
    server: LoopbackNode

    def seen(self, pid: Pid) -> Pid:
        """The server's pid, as it comes to the client in a message."""
        if self.client is self.server:
            return pid
        remote = self.nodes.remotes[self.client.origin.name]
        return remote.life(self.server.origin).pid(pid.number, pid.label)

    async def start(self, make: Any, *args: object, name: str | None = None) -> Pid:
        spec = ChildSpec(
            id="server",
            start=lambda: make(*args),
            name=name,
            restart=Restart.TEMPORARY,
        )
        return self.seen(await self.server.node.start(spec))

    def spawn(self, fn: Callable[[], Awaitable[object]]) -> Pid:
        return self.seen(
            self.server.node.spawn(PlainProcess(fn), label="plain", name=None)
        )

    def named(self, name: str) -> Address:
        return at(self.server.origin.name, name)

    async def run(self, fn: Callable[..., Awaitable[T]], *args: object) -> T:
        with trio.fail_after(10):
            return await self.client.run(fn, *args)


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", "atomr")


@pytest.fixture(params=["one node", "two nodes"])
async def place(
    request: pytest.FixtureRequest, open_nodes: OpenNodes
) -> AsyncIterator[Place]:
    async with open_nodes("a", "b") as nodes:
        other = "a" if request.param == "one node" else "b"
        yield Place(nodes, nodes["a"], nodes[other])


def told(reason: object) -> object:
    """A reason or an error by what crosses of it."""
    if isinstance(reason, RemoteError):
        return (reason.type_name, reason.text)
    if isinstance(reason, Exception):
        return (type(reason).__name__, str(reason))
    return reason


async def nothing_comes() -> bool:
    try:
        await receive(timeout_s=0.05)
    except ReceiveTimeoutError:
        return True
    return False


# --- calls ----------------------------------------------------------------------------


async def test_a_call_returns_the_reply(place: Place) -> None:
    counter = await place.start(Counter)

    async def ask() -> list[object]:
        return [await call(counter, Add(2)), await call(counter, Get())]

    assert await place.run(ask) == [2, 2]


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -1,
        2.5,
        "text",
        b"bytes",
        [1, [2, (3, [])]],
        (),
        {"a": {1: (2,)}, None: b""},
        [Note("inside"), {"get": Get()}],
    ],
)
async def test_a_value_comes_back_as_it_was_sent(place: Place, value: object) -> None:
    counter = await place.start(Counter)
    found = await place.run(call, counter, value)
    assert (found, type(found)) == (value, type(value))


async def test_a_call_of_the_dead_finds_no_process(place: Place) -> None:
    counter = await place.start(Counter)
    await place.run(stop, counter)

    with pytest.raises(NoProcessError) as caught:
        await place.run(call, counter, Get())
    assert (caught.value.server, caught.value.request) == (counter, Get())


async def test_a_call_of_a_name_that_nobody_has_finds_no_process(place: Place) -> None:
    with pytest.raises(NoProcessError):
        await place.run(call, place.named("nobody"), Get())


async def test_a_call_fails_with_the_crash_of_its_server(place: Place) -> None:
    counter = await place.start(Counter)
    with pytest.raises(ServerDownError) as caught:
        await place.run(call, counter, Crash("broken"))
    assert told(caught.value.reason) == ("ValueError", "broken")
    assert caught.value.server is counter


async def test_a_call_fails_with_the_orderly_end_of_its_server(place: Place) -> None:
    counter = await place.start(Counter)
    with pytest.raises(ServerDownError) as caught:
        await place.run(call, counter, End())
    assert caught.value.reason is NORMAL


async def test_a_call_raises_what_the_server_fails_it_with(place: Place) -> None:
    counter = await place.start(Counter)

    async def ask() -> tuple[object, object]:
        with pytest.raises(Exception, match="not there") as caught:
            await call(counter, Refuse("not there"))
        return told(caught.value), await call(counter, Get())

    assert await place.run(ask) == (("LookupError", "not there"), 0)


async def test_a_call_that_is_set_aside_fails_with_the_server(place: Place) -> None:
    counter = await place.start(Counter)

    async def ask() -> object:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end)
            with pytest.raises(ServerDownError) as caught:
                await call(counter, Give("nothing, ever"))
        return caught.value.reason

    async def end() -> None:
        await trio.sleep(0.02)
        kill(counter)

    assert await place.run(ask) is KILLED


async def test_a_queued_call_fails_with_the_server(place: Place) -> None:
    waiter = await place.start(Waiter)
    reasons: list[object] = []

    async def ask(request: object) -> None:
        with pytest.raises(ServerDownError) as caught:
            await call(waiter, request)
        reasons.append(caught.value.reason)

    async def all_of_them() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, Later(60.0))
            nursery.start_soon(ask, Later(61.0))
            await trio.sleep(0.02)
            kill(waiter)

    await place.run(all_of_them)
    assert reasons == [KILLED, KILLED]


async def test_a_late_reply_is_dropped(place: Place) -> None:
    waiter = await place.start(Waiter)

    async def ask() -> object:
        with pytest.raises(CallTimeoutError) as caught:
            await call(waiter, Later(0.08), timeout_s=0.02)
        assert caught.value.timeout_s == 0.02
        return await call(waiter, "the next")

    assert await place.run(ask) == "the next"


async def test_calls_of_one_caller_are_served_in_their_order(place: Place) -> None:
    counter = await place.start(Counter)

    async def ask() -> tuple[list[object], object]:
        found: list[object] = []

        async def one(amount: int) -> None:
            found.append(await call(counter, Add(amount)))

        async with trio.open_nursery() as nursery:
            for amount in range(100):
                cast(counter, ("cast", amount))
                nursery.start_soon(one, 1)
        return found, await call(counter, Give("notes"))

    found, notes = await place.run(ask)
    assert sorted(found) == list(range(1, 101))  # type: ignore[type-var]
    assert notes == [("cast", amount) for amount in range(100)]


async def test_a_caller_that_is_no_process_has_no_pid(place: Place) -> None:
    counter = await place.start(Counter)
    with place.client.here():
        assert await call(counter, Give("caller")) is None


async def test_a_plain_process_receives_calls_and_answers_later(place: Place) -> None:
    async def serve() -> None:
        first, second = await receive(), await receive()
        assert isinstance(first, From)
        assert isinstance(second, From)
        second.reply(("second", second.request))
        first.reply(("first", first.request))

    server = place.spawn(serve)

    async def ask() -> dict[str, object]:
        found: dict[str, object] = {}

        async def one(request: str) -> None:
            found[request] = await call(server, request)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, "x")
            await trio.sleep(0.02)
            nursery.start_soon(one, "y")
        return found

    assert await place.run(ask) == {"x": ("first", "x"), "y": ("second", "y")}


async def test_multi_call_has_the_replies_and_the_failures(place: Place) -> None:
    counter = await place.start(Counter, name="counter")
    nobody = place.named("nobody")

    async def ask() -> Any:
        return await multi_call([counter, place.named("counter"), nobody], Add(1))

    found = await place.run(ask)
    assert list(found.replies) == [counter, place.named("counter")]
    assert sorted(found.replies.values()) == [1, 2]
    assert {k: type(v) for k, v in found.failures.items()} == {nobody: NoProcessError}


# --- monitors -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda pid: cast(pid, Crash("broken")), ("ValueError", "broken")),
        (kill, KILLED),
        (lambda pid: exit_process(pid, SHUTDOWN), SHUTDOWN),
        (lambda pid: exit_process(pid, Shutdown(("why", 1))), Shutdown(("why", 1))),
        (lambda pid: exit_process(pid, KeyError("k")), ("KeyError", "'k'")),
    ],
)
async def test_a_monitor_tells_of_the_end_once(
    place: Place, end: Callable[[Pid], None], reason: object
) -> None:
    counter = await place.start(Counter)

    async def watch() -> None:
        first, second = monitor(counter), monitor(counter)
        end(counter)
        downs = [await receive(), await receive()]
        assert [(d.ref, d.pid, told(d.reason)) for d in downs] == [  # type: ignore[attr-defined]
            (first, counter, reason),
            (second, counter, reason),
        ]
        assert await nothing_comes()
        assert not is_alive(counter)

    await place.run(watch)


async def test_a_monitor_of_the_dead_tells_at_once(place: Place) -> None:
    counter = await place.start(Counter)

    async def watch() -> None:
        await stop(counter)
        ref = monitor(counter)
        assert await receive() == Down(ref, counter, NOPROC)

    await place.run(watch)


async def test_a_monitor_of_a_name_that_nobody_has_tells_at_once(place: Place) -> None:
    async def watch() -> None:
        ref = monitor(place.named("nobody"))
        assert await receive() == Down(ref, None, NOPROC)

    await place.run(watch)


async def test_a_monitor_of_a_name_watches_its_holder(place: Place) -> None:
    await place.start(Counter, name="counter")

    async def watch() -> None:
        ref = monitor(place.named("counter"))
        assert await call(place.named("counter"), Get()) == 0
        kill(place.named("counter"))
        down = await receive()
        assert isinstance(down, Down)
        assert (down.ref, down.reason) == (ref, KILLED)

    await place.run(watch)


async def test_what_a_process_sent_comes_before_its_end(place: Place) -> None:
    async def talk() -> None:
        to = await receive()
        assert isinstance(to, Pid)
        for number in range(50):
            send(to, number)

    server = place.spawn(talk)

    async def watch() -> list[object]:
        monitor(server)
        send(server, self_pid())
        return [await receive() for _ in range(51)]

    found = await place.run(watch)
    assert found[:50] == list(range(50))
    assert told(found[50].reason) is NORMAL  # type: ignore[attr-defined]


async def test_a_monitor_that_was_undone_tells_nothing(place: Place) -> None:
    counter = await place.start(Counter)

    async def watch() -> None:
        undone, kept = monitor(counter), monitor(counter)
        assert demonitor(undone)
        assert not demonitor(undone)
        kill(counter)
        assert await receive() == Down(kept, counter, KILLED)
        assert await nothing_comes()

    await place.run(watch)


async def test_a_monitor_can_be_undone_and_made_again(place: Place) -> None:
    counter = await place.start(Counter)

    async def watch() -> None:
        for _ in range(3):
            assert demonitor(monitor(counter), flush=True)
        ref = monitor(counter)
        await stop(counter)
        assert await receive() == Down(ref, counter, NORMAL)

    await place.run(watch)


async def test_who_ends_watches_nobody_any_more(place: Place) -> None:
    counter = await place.start(Counter)

    async def watch() -> None:
        monitor(counter)

    await place.run(watch)

    async def ask() -> object:
        return await call(counter, Get())

    assert await place.run(ask) == 0


# --- links and exit signals -----------------------------------------------------------


async def test_a_crash_ends_who_is_linked(place: Place) -> None:
    counter = await place.start(Counter)
    reasons: list[object] = []

    async def linked() -> None:
        link(counter)
        cast(counter, Crash("broken"))
        await trio.sleep_forever()

    async def watch() -> None:
        pid = place.client.node.spawn(PlainProcess(linked), label="linked", name=None)
        reasons.append(told(await wait_exit(pid)))

    await place.run(watch)
    assert reasons == [("ValueError", "broken")]


async def test_an_orderly_end_does_not_end_who_is_linked(place: Place) -> None:
    counter = await place.start(Counter)

    async def linked() -> bool:
        link(counter)
        await stop(counter)
        return await nothing_comes()

    assert await place.run(linked)


@pytest.mark.parametrize("reason", [NORMAL, SHUTDOWN, KILLED])
async def test_who_traps_exits_gets_the_end_as_a_message(
    place: Place, reason: object
) -> None:
    async def end() -> None:
        await receive()
        if reason is not NORMAL:
            exit_process(self_pid(), KILL if reason is KILLED else SHUTDOWN)
            await trio.sleep_forever()

    server = place.spawn(end)

    async def linked() -> object:
        trap_exit(True)
        link(server)
        link(server)
        send(server, "go")
        found = await receive()
        assert await nothing_comes()
        return found

    assert await place.run(linked) == Exit(server, reason)  # type: ignore[arg-type]


async def test_a_link_with_the_dead_is_a_signal(place: Place) -> None:
    counter = await place.start(Counter)

    async def linked() -> object:
        trap_exit(True)
        await stop(counter)
        link(counter)
        return await receive()

    assert await place.run(linked) == Exit(counter, NOPROC)


async def test_the_end_of_a_process_ends_whom_it_linked_with(place: Place) -> None:
    counter = await place.start(Counter)

    async def linked() -> None:
        link(counter)
        raise LookupError("mine")

    async def watch() -> object:
        ref = monitor(counter)
        place.client.node.spawn(PlainProcess(linked), label="linked", name=None)
        down = await receive()
        assert isinstance(down, Down)
        assert down.ref is ref
        return told(down.reason)

    assert await place.run(watch) == ("LookupError", "mine")


async def test_a_link_that_was_undone_carries_no_signal(place: Place) -> None:
    counter = await place.start(Counter)

    async def linked() -> None:
        trap_exit(True)
        link(counter)
        unlink(counter)
        ref = monitor(counter)
        kill(counter)
        assert await receive() == Down(ref, counter, KILLED)
        assert await nothing_comes()

    await place.run(linked)


async def test_a_link_that_was_undone_can_be_made_again(place: Place) -> None:
    counter = await place.start(Counter)

    async def linked() -> object:
        trap_exit(True)
        for _ in range(3):
            link(counter)
            unlink(counter)
        link(counter)
        kill(counter)
        return await receive()

    assert await place.run(linked) == Exit(counter, KILLED)


async def test_an_exit_signal_that_is_trapped_says_who_sent_it(place: Place) -> None:
    got: list[object] = []

    async def trapping() -> None:
        trap_exit(True)
        send(await receive(), "ready")  # type: ignore[arg-type]
        exit_ = await receive()
        got.append(exit_)
        send(exit_.pid, "done")  # type: ignore[attr-defined]

    server = place.spawn(trapping)

    async def signal() -> Pid:
        send(server, self_pid())
        assert await receive() == "ready"
        exit_process(server, LookupError("why"))
        assert await receive() == "done"
        return self_pid()

    me = await place.run(signal)
    (exit_,) = got
    assert isinstance(exit_, Exit)
    assert exit_.pid is not None
    assert exit_.pid.number == me.number
    assert told(exit_.reason) == ("LookupError", "why")


async def test_a_normal_exit_signal_is_ignored(place: Place) -> None:
    counter = await place.start(Counter)

    async def signal() -> object:
        exit_process(counter, NORMAL)
        return await call(counter, Get())

    assert await place.run(signal) == 0


# --- the rest -------------------------------------------------------------------------


class Slow(GenServer):
    """Ends in order, and says so."""

    ended: list[object]

    def __init__(self, ended: list[object]) -> None:
        self.ended = ended

    def terminate(self, reason: object) -> None:
        self.ended.append(reason)


async def test_stop_waits_for_an_orderly_end(place: Place) -> None:
    seen: list[object] = []
    slow = await place.start(Slow, seen)

    async def ask() -> list[object]:
        await stop(slow, SHUTDOWN)
        return list(seen)

    assert await place.run(ask) == [SHUTDOWN]


async def test_wait_exit_returns_the_reason(place: Place) -> None:
    counter = await place.start(Counter)

    async def wait() -> list[object]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end)
            first = await wait_exit(counter)
        return [first, await wait_exit(counter)]

    async def end() -> None:
        await trio.sleep(0.02)
        kill(counter)

    assert await place.run(wait) == [KILLED, NOPROC]


async def test_a_process_can_have_a_name_here(place: Place) -> None:
    counter = await place.start(Counter)

    async def ask() -> object:
        register("alias", counter)
        found = await call("alias", Add(3))
        ref = monitor("alias")
        kill("alias")
        assert await receive() == Down(ref, counter, KILLED)
        with pytest.raises(NoProcessError):
            await call("alias", Get())
        return found

    assert await place.run(ask) == 3


async def test_a_timer_sends_to_a_process(
    place: Place, mock_clock: trio.testing.MockClock
) -> None:
    mock_clock.rate = 1
    counter = await place.start(Counter)

    async def ask() -> object:
        send_after(3.0, counter, Note("late"))
        assert await call(counter, Give("notes")) == []
        mock_clock.jump(3.0)
        while not (notes := await call(counter, Give("notes"))):
            await trio.lowlevel.checkpoint()
        return notes

    assert await place.run(ask) == [Note("late")]


class Relay(GenServer):
    """Calls another server, and answers with its answer."""

    def __init__(self, to: Address) -> None:
        self.to = to

    async def handle_call(self, request: object, _: From) -> Reply | NoReply | Stop:
        return Reply(await call(self.to, request, timeout_s=1.0))


async def test_servers_call_each_other_both_ways_at_once(place: Place) -> None:
    await place.client.node.start(child(Counter, name="counter"))
    back = at(place.client.origin.name, "counter")
    relays = [await place.start(Relay, back) for _ in range(10)]

    async def ask() -> list[object]:
        found: list[object] = []

        async def one(relay: Pid) -> None:
            found.extend([await call(relay, Add(1)) for _ in range(20)])

        async with trio.open_nursery() as nursery:
            for relay in relays:
                nursery.start_soon(one, relay)
        return found

    assert sorted(await place.run(ask)) == list(range(1, 201))  # type: ignore[type-var]
