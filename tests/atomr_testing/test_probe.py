"""The probe: what it takes, what it sends, and what its failures say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard, assert_type

import attrs
import pytest
import trio

from atomr.core.exits import KILLED, NOPROC, NORMAL, SHUTDOWN
from atomr.core.messages import Down, Exit
from atomr.errors import (
    CallTimeoutError,
    NameTakenError,
    NoNodeError,
    NotAProcessError,
    ServerDownError,
    SystemMessageError,
)
from atomr.otp import (
    Cast,
    GenServer,
    NoReply,
    Reply,
    Request,
    call,
    cast,
    supervision_tree,
    sys,
)
from atomr.process import (
    From,
    current_node,
    exit_process,
    is_alive,
    kill,
    link,
    monitor,
    open_node,
    receive,
    send,
    send_after,
    spawn,
    stop,
    wait_exit,
    whereis,
)
from atomr.testing import (
    ANYTHING,
    ExpectationError,
    ExpectedCrash,
    Probe,
    ProbeCall,
    TestNode,
    advance,
    like,
    settle,
)

if TYPE_CHECKING:
    from trio.testing import MockClock


@attrs.frozen
class Order:
    item: str


@attrs.frozen
class Price(Request[int]):
    item: str


class Echo(GenServer):
    """Sends what it gets back to who called, and notes who did."""

    def handle_call(self, request: object, from_: From) -> Reply:
        return Reply((request, from_.pid))

    def handle_cast(self, message: Any) -> NoReply:
        to, what = message
        send(to, what)
        return NoReply()


def said(caught: pytest.ExceptionInfo[ExpectationError]) -> list[str]:
    return str(caught.value).splitlines()


# --- what comes -------------------------------------------------------------------


async def test_receive_takes_the_oldest_that_matches_and_leaves_the_rest(
    probe: Probe,
) -> None:
    for message in (1, "a", 2, Order("tea")):
        send(probe.pid, message)

    assert list(probe.messages) == [1, "a", 2, Order("tea")]
    assert await probe.receive(str) == "a"
    assert await probe.receive(like(Order, item="tea")) == Order("tea")
    assert await probe.receive(lambda m: m > 1) == 2
    assert await probe.receive() == 1
    assert len(probe.messages) == 0
    assert probe.taken == ("a", Order("tea"), 2, 1)


async def test_receive_waits_for_what_comes_later(
    probe: Probe, autojump_clock: MockClock
) -> None:
    send_after(0.2, probe.pid, "no")
    send_after(0.5, probe.pid, "yes")

    assert await probe.receive("yes") == "yes"
    assert trio.current_time() == 0.5
    assert probe.messages == ("no",)


async def test_two_tasks_may_wait_for_different_messages(
    probe: Probe, schedule: int, autojump_clock: MockClock
) -> None:
    got: list[object] = []

    async def take(kind: type) -> None:
        got.append(await probe.receive(kind))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, int)
        nursery.start_soon(take, str)
        await settle()
        send(probe.pid, "a")
        await settle()
        send(probe.pid, 1)

    assert got == ["a", 1]
    assert trio.current_time() == 0


async def test_a_message_that_does_not_come_fails_with_what_did(
    probe: Probe, autojump_clock: MockClock
) -> None:
    send(probe.pid, "taken")
    await probe.receive()
    send(probe.pid, 3)
    cast(probe.pid, "x")

    with pytest.raises(ExpectationError) as caught:
        await probe.receive(like(Order, item=str), timeout_s=2)

    assert trio.current_time() == 2
    assert said(caught) == [
        f"{probe.pid!r} expected like(Order, item=str) within 2 s",
        "waiting:",
        "  3",
        "  cast 'x'",
        "taken before:",
        "  'taken'",
    ]


async def test_a_failure_shows_ten_messages_and_counts_the_rest(
    probe: Probe, autojump_clock: MockClock
) -> None:
    for number in range(10_000):
        send(probe.pid, number)

    with pytest.raises(ExpectationError) as caught:
        await probe.receive(str)

    assert said(caught)[11:] == [
        "  9",
        "  and 9990 more",
        "taken before: nothing",
    ]


async def test_expect_wants_the_next_message_to_match(
    probe: Probe, autojump_clock: MockClock
) -> None:
    send(probe.pid, "a")
    send(probe.pid, "b")

    with pytest.raises(ExpectationError) as caught:
        await probe.expect("b")
    assert said(caught) == [
        f"{probe.pid!r} expected 'b' next, but got 'a'",
        "after it:",
        "  'b'",
    ]
    assert [await probe.expect("a"), await probe.expect(str)] == ["a", "b"]
    with pytest.raises(ExpectationError) as caught:
        await probe.expect(int)
    assert said(caught)[0] == (f"{probe.pid!r} expected int next within 1.0 s")


async def test_where_the_clock_stands_a_message_that_cannot_come_fails_at_once(
    probe: Probe, virtual_clock: MockClock
) -> None:
    send_after(0.5, probe.pid, "late")

    with pytest.raises(ExpectationError) as caught:
        await probe.receive()

    assert said(caught)[0].endswith(
        "until all tasks were blocked (only the test moves the clock)"
    )
    await advance(0.5)
    assert await probe.receive() == "late"


async def test_expect_nothing_looks_when_all_is_settled(probe: Probe) -> None:
    async def chatty() -> None:
        await trio.lowlevel.checkpoint()
        send(probe.pid, "psst")

    await probe.expect_nothing()
    spawn(chatty)
    with pytest.raises(ExpectationError) as caught:
        await probe.expect_nothing()

    assert said(caught) == [
        f"{probe.pid!r} expected no message like this, but got 'psst'",
        "all that waits:",
        "  'psst'",
    ]
    await probe.expect_nothing(int)
    assert probe.clear() == ("psst",)


@pytest.mark.parametrize("for_s", [0.0, 2.0])
async def test_what_must_not_come_must_not_come_in_a_cast_or_a_call(
    probe: Probe, autojump_clock: MockClock, for_s: float
) -> None:
    cast(probe.pid, 3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, probe.pid, "ask")
        await probe.expect_nothing(bytes, for_s=for_s)
        for pattern, shown in ((int, "cast 3"), (str, "call 'ask'"), (Cast, "cast 3")):
            with pytest.raises(ExpectationError, match=f"like this, but got {shown}"):
                await probe.expect_nothing(pattern, for_s=for_s)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("for_s", [0.0, 2.0])
async def test_nothing_is_no_finding_where_nothing_could_come(
    node: TestNode, probe: Probe, autojump_clock: MockClock, for_s: float
) -> None:
    other = Probe()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            with pytest.raises(NotAProcessError):
                await other.expect_nothing(for_s=for_s + 1)

        await settle()
        other.end()
    probe.end()
    with pytest.raises(NotAProcessError):
        await probe.expect_nothing(for_s=for_s)


async def test_expect_nothing_waits_as_long_as_it_is_told(
    probe: Probe, autojump_clock: MockClock
) -> None:
    send_after(3.0, probe.pid, "x")
    await probe.expect_nothing(for_s=2.5)
    assert trio.current_time() == 2.5

    with pytest.raises(ExpectationError):
        await probe.expect_nothing(for_s=2.5)
    assert trio.current_time() == 3.0


async def test_expect_nothing_moves_a_clock_that_stands(
    probe: Probe, virtual_clock: MockClock
) -> None:
    send_after(3.0, probe.pid, "x")
    await probe.expect_nothing(for_s=2.5)
    with pytest.raises(ExpectationError):
        await probe.expect_nothing(for_s=0.5)


async def test_a_cancelled_receive_takes_nothing(probe: Probe) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await probe.receive(timeout_s=10)
    send(probe.pid, 1)

    assert scope.cancelled_caught
    assert probe.messages == (1,)


# --- calls and casts -----------------------------------------------------------------


async def test_a_call_to_a_probe_is_answered_by_the_test(
    probe: Probe, schedule: int
) -> None:
    async with trio.open_nursery() as nursery:
        answers = []

        async def ask() -> None:
            answers.append(await call(probe.pid, Price("tea")))

        nursery.start_soon(ask)
        asked = await probe.expect_call(Price)
        assert (asked.request.item, asked.from_.pid) == ("tea", None)
        assert repr(asked) == "<ProbeCall Price(item='tea')>"
        asked.reply(3)
        asked.reply(4)

    assert answers == [3]


async def test_a_call_may_be_failed_or_left(
    probe: Probe, autojump_clock: MockClock
) -> None:
    async def refuse() -> None:
        (await probe.expect_call()).fail(KeyError("tea"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refuse)
        with pytest.raises(KeyError):
            await call(probe.pid, Price("tea"))

    with pytest.raises(CallTimeoutError):
        await call(probe.pid, Price("tea"))
    assert trio.current_time() == 5.0


async def test_a_call_that_was_taken_fails_when_the_probe_ends(probe: Probe) -> None:
    async def take_and_end() -> None:
        await probe.expect_call(Price)
        probe.end(SHUTDOWN)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_and_end)
        with pytest.raises(ServerDownError) as caught:
            await call(probe.pid, Price("tea"))

    assert caught.value.reason is SHUTDOWN


async def test_a_missing_call_or_cast_fails_with_what_did_come(
    probe: Probe, autojump_clock: MockClock
) -> None:
    send(probe.pid, Price("sent, not called"))
    with pytest.raises(ExpectationError) as caught:
        await probe.expect_call(Price)
    assert said(caught)[:3] == [
        f"{probe.pid!r} expected a call with Price within 1.0 s",
        "waiting:",
        "  Price(item='sent, not called')",
    ]
    with pytest.raises(ExpectationError, match="expected a cast of Price"):
        await probe.expect_cast(Price)


async def test_a_cast_is_taken_without_its_envelope(probe: Probe) -> None:
    cast(probe.pid, Order("rice"))
    cast(probe.pid, Order("tea"))

    assert await probe.expect_cast(like(Order, item="tea")) == Order("tea")
    assert await probe.expect_cast() == Order("rice")


# --- in its name ----------------------------------------------------------------------


async def test_what_the_probe_sends_and_calls_comes_from_it(
    node: TestNode, probe: Probe
) -> None:
    echo = await node.start_supervised(Echo)

    assert await probe.call(echo, "who?") == ("who?", probe.pid)
    probe.cast(echo, (probe.pid, "back"))
    assert await probe.expect("back") == "back"
    probe.send(probe.pid, "self")
    assert await probe.expect("self") == "self"


async def test_a_monitored_process_is_reported_with_its_reason(
    node: TestNode, probe: Probe
) -> None:
    echo = await node.start_supervised(Echo)
    ref = probe.monitor(echo)
    await stop(echo, SHUTDOWN)

    assert await probe.expect_down(echo, SHUTDOWN) == Down(ref, echo, SHUTDOWN)
    probe.monitor(echo)
    assert (await probe.expect_down(echo)).reason is NOPROC
    probe.monitor("nobody")
    assert (await probe.expect_down(None, NOPROC)).pid is None


async def test_a_down_that_does_not_come_fails(
    node: TestNode, probe: Probe, autojump_clock: MockClock
) -> None:
    echo = await node.start_supervised(Echo)
    ref = probe.monitor(echo)
    assert probe.demonitor(ref)
    await stop(echo)

    with pytest.raises(ExpectationError, match=r"like\(Down, pid="):
        await probe.expect_down(echo)


async def test_a_linked_process_is_reported_and_the_probe_lives(
    node: TestNode, probe: Probe
) -> None:
    async def bad() -> None:
        await receive()
        raise ValueError("bad luck")

    pid = spawn(bad)
    probe.link(pid)
    async with node.expect_crash(pid):
        send(pid, "go")

    exit_ = await probe.expect_exit(pid, ValueError)
    assert (exit_.pid, str(exit_.reason)) == (pid, "bad luck")
    assert probe.alive


async def test_an_unlinked_process_is_not_reported(
    node: TestNode, probe: Probe
) -> None:
    echo = await node.start_supervised(Echo)
    probe.link(echo)
    probe.unlink(echo)
    await stop(echo)

    await probe.expect_nothing()


async def test_an_exit_signal_goes_both_ways(probe: Probe) -> None:
    async def sleeper() -> None:
        await trio.sleep_forever()

    pid = spawn(sleeper)
    probe.exit_process(pid, SHUTDOWN)
    assert await wait_exit(pid) is SHUTDOWN

    exit_process(probe.pid, SHUTDOWN)
    assert await probe.expect_exit(None) == Exit(None, SHUTDOWN)


# --- its life -------------------------------------------------------------------------


async def test_a_probe_stands_under_a_name_in_the_place_of_the_real_thing(
    node: TestNode,
) -> None:
    mailer = Probe("mailer")
    send("mailer", Order("tea"))

    assert whereis("mailer") is mailer.pid
    assert await mailer.expect(Order) == Order("tea")
    assert repr(mailer) == f"<Probe {mailer.pid!r}, 0 messages>"
    with pytest.raises(NameTakenError):
        Probe("mailer")
    assert current_node().size == 1


async def test_who_watches_a_probe_is_told_of_its_end(
    node: TestNode, schedule: int
) -> None:
    seen: list[Any] = []

    async def watch(pid: Any) -> None:
        monitor(pid)
        seen.append(await receive())

    async def linked(pid: Any) -> None:
        link(pid)
        await trio.sleep_forever()

    probe, error = Probe(), ValueError("gone")
    spawn(watch, probe.pid)
    peer = spawn(linked, probe.pid)
    await settle()
    probe.end(error)

    assert await wait_exit(peer) is error
    await settle()
    assert [message.reason for message in seen] == [error]
    assert not is_alive(probe.pid)


async def test_a_killed_probe_says_so(probe: Probe, autojump_clock: MockClock) -> None:
    async def kill_it() -> None:
        await settle()
        kill(probe.pid)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill_it)
        with pytest.raises(NotAProcessError, match="has ended with KILLED"):
            await probe.receive(timeout_s=60)
    assert trio.current_time() == 0

    with pytest.raises(NotAProcessError, match="has ended"):
        probe.send(probe.pid, 1)
    assert await wait_exit(probe.pid) in (KILLED, NOPROC)


async def test_a_probe_ends_with_its_node_however_that_ends() -> None:
    async with open_node():
        probe = Probe()
    assert not probe.alive
    with trio.CancelScope() as scope:
        async with open_node():
            other = Probe("x")
            scope.cancel()
            await trio.sleep_forever()
    assert not other.alive
    with pytest.raises(NoNodeError):
        Probe()


async def test_a_probe_is_stopped_as_other_processes_are(probe: Probe) -> None:
    await stop(probe.pid, NORMAL)

    assert not probe.alive


async def test_a_probe_is_seen_in_the_tree_and_answers_no_system_messages(
    node: TestNode, probe: Probe
) -> None:
    tree = supervision_tree(node.node)
    assert tree is not None
    assert [below.pid for below in tree.children] == [probe.pid]
    with pytest.raises(SystemMessageError, match="Probe answers no system messages"):
        await sys.get_state(probe.pid)


async def test_anything_is_the_default(probe: Probe) -> None:
    send(probe.pid, None)

    assert await probe.receive(ANYTHING) is None


# --- types, checked by mypy -----------------------------------------------------------


def is_text(message: object) -> TypeGuard[str]:
    return isinstance(message, str)


async def test_what_is_taken_has_the_type_of_its_pattern(
    node: TestNode, probe: Probe
) -> None:
    for message in ("a", "b", Order("tea"), 1):
        send(probe.pid, message)
    cast(probe.pid, Order("tea"))

    assert_type(await probe.receive(str), str)
    assert_type(await probe.receive(is_text), str)
    assert_type(await probe.expect(like(Order, item="tea")), Order)
    assert_type(await probe.receive(1), object)
    assert_type(await probe.expect_cast(Order), Order)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, probe.pid, Price("tea"))
        asked = await probe.expect_call(Price)
        assert_type(asked, ProbeCall[Price])
        asked.reply(3)
    assert_type(node.expect_crash(), ExpectedCrash[Exception])
    assert_type(node.expect_crash(None, KeyError), ExpectedCrash[KeyError])

    assert len(probe.taken) == 6
