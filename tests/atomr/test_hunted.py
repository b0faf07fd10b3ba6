"""What a hunt for bugs found: each was one, and each test failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from atomr import telemetry
from atomr.errors import ServerDownError, short
from atomr.otp import (
    From,
    GenServer,
    MailboxLimit,
    NoReply,
    Overflow,
    Reply,
    Restart,
    call,
    child,
)
from atomr.process import (
    is_alive,
    kill,
    receive,
    self_pid,
    send,
    spawn,
    stop,
    wait_exit,
)
from atomr.testing import crash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from atomr.refs import Pid
    from tests.atomr.conftest import CleanNode

settle = trio.testing.wait_all_tasks_blocked


class Echo(GenServer):
    """Has a task; begins without one, and is put away after each call."""

    async def handle_call(self, request: object, from_: From) -> Reply:
        return Reply(request, hibernate=True)

    async def handle_info(self, message: object) -> NoReply:
        return NoReply(hibernate=True)


@pytest.fixture
def on_hibernate() -> Iterator[list[Callable[[Pid], None]]]:
    """What is done with each process that has just been put away."""
    actions: list[Callable[[Pid], None]] = []

    def handle(
        event: tuple[str, ...],
        _measurements: Mapping[str, float],
        metadata: Mapping[str, object],
    ) -> None:
        for action in actions:
            action(metadata["pid"])  # type: ignore[arg-type]

    telemetry.attach("hunted", ("atomr", "process", "hibernate"), handle)
    yield actions
    # Detached already: it raised.
    assert telemetry.detach("hunted")


@pytest.mark.parametrize(
    ("action", "survives"),
    [(lambda pid: send(pid, "wake"), True), (kill, False)],
    ids=["a message", "a kill"],
)
async def test_who_is_told_of_a_hibernation_may_end_it_at_once(
    action: Callable[[Pid], None],
    survives: bool,
    clean_node: CleanNode,
    on_hibernate: list[Callable[[Pid], None]],
) -> None:
    async with clean_node() as node:
        pid = await node.start(child(Echo, restart=Restart.TEMPORARY))
        once = [action]
        on_hibernate.append(lambda pid: once.pop()(pid) if once else None)
        assert await call(pid, 1) == 1
        await settle()
        assert is_alive(pid) is survives
        if survives:
            assert await call(pid, 2) == 2


async def test_a_selective_receive_sees_what_took_the_place_of_a_dropped_message(
    clean_node: CleanNode, schedule: int
) -> None:
    got = []

    async def select() -> None:
        got.append(await receive(lambda message: message == "wanted"))
        got.extend([await receive(), await receive()])

    async with clean_node():
        pid = spawn(select, mailbox=MailboxLimit(3, Overflow.DROP_OLDEST))
        for message in "abc":
            send(pid, message)
        await settle()
        send(pid, "wanted")
        await wait_exit(pid)
    assert got == ["wanted", "b", "c"]


class Attributes(dict[str, object]):
    """A record whose missing fields are KeyErrors."""

    def __getattr__(self, name: str) -> object:
        return self[name]


class Crashes(GenServer):
    def handle_info(self, message: object) -> None:
        raise ValueError("crashed")


@pytest.mark.parametrize("message", [Attributes(), 10**5000], ids=["record", "number"])
async def test_a_crash_is_one_whatever_message_it_is_reported_with(
    message: object, clean_node: CleanNode, caplog: pytest.LogCaptureFixture
) -> None:
    async with clean_node() as node:
        pid = await node.start(child(Crashes, restart=Restart.TEMPORARY))
        send(pid, message)
        with trio.fail_after(1):
            reason = await wait_exit(pid)
    assert isinstance(reason, ValueError)
    assert f"last message: {short(message)}" in caplog.text


def test_a_number_too_long_for_text_is_named_by_its_type() -> None:
    assert short(10**5000) == "<int: repr raised ValueError>"


async def test_a_plain_init_that_is_made_to_crash_crashes(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    injected = ValueError("injected")
    ended = []

    class Struck(Echo):
        def init(self) -> None:
            crash(self_pid(), injected)

        def terminate(self, reason: object) -> None:
            ended.append(reason)

    async with clean_node() as node:
        pid = await node.start(child(Struck, restart=Restart.TEMPORARY))
        with trio.fail_after(1):
            assert await wait_exit(pid) is injected
    assert ended == [injected]


@pytest.mark.parametrize("awake", [False, True])
async def test_a_stop_with_an_error_is_reported_whether_or_not_there_is_a_task(
    awake: bool,
    clean_node: CleanNode,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Sleeper(Echo):
        async def handle_call(self, request: object, from_: From) -> Reply:
            return Reply(request)

    async with clean_node() as node:
        pid = await node.start(child(Sleeper, restart=Restart.TEMPORARY))
        if awake:
            await call(pid, 1)
        await stop(pid, ValueError("enough"))
    assert "crashed: ValueError('enough')" in caplog.text


ONE_ERROR = ValueError("made once, raised often")


async def test_one_error_may_be_raised_again_and_again(clean_node: CleanNode) -> None:
    class Stubborn(GenServer):
        def handle_call(self, request: object, from_: From) -> Reply:
            raise ONE_ERROR

        def terminate(self, reason: object) -> None:
            raise ONE_ERROR

    async with clean_node() as node:
        for _ in range(3):
            pid = await node.start(child(Stubborn, restart=Restart.TEMPORARY))
            with pytest.raises(ServerDownError) as caught:
                await call(pid, 1)
            assert caught.value.reason is ONE_ERROR
    assert ONE_ERROR.__context__ is None


async def test_errors_that_are_each_other_s_context_hang_nobody(
    clean_node: CleanNode,
) -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__context__, two.__context__ = two, one

    class Circular(GenServer):
        def handle_call(self, request: object, from_: From) -> Reply:
            raise one

    async with clean_node() as node:
        pid = await node.start(child(Circular, restart=Restart.TEMPORARY))
        with pytest.raises(ServerDownError) as caught:
            await call(pid, 1)
        assert caught.value.reason is one
