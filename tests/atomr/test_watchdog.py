"""Who holds the event loop is named while it lasts."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import pytest
import trio

from atomr.otp import From, GenServer, Reply, call
from atomr.process import open_node, spawn, wait_exit, watch_event_loop

if TYPE_CHECKING:
    from collections.abc import Iterator


WITHIN_S = 30.0


class Alarm(logging.Handler):
    """Lets whoever holds the loop go, once that was reported.

    A busy machine may have held it before: that is reported as well, and whoever holds
    it next is then not reported again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.named = threading.Event()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        if "in hold" in self.lines[-1]:
            self.named.set()

    def hold(self) -> None:
        """Hold the calling thread until the watchdog has named this."""
        self.named.wait(2)

    @property
    def told(self) -> tuple[str, str]:
        """What was said of whoever called :meth:`hold`, and behind that."""
        [at] = [at for at, line in enumerate(self.lines) if "in hold" in line]
        return self.lines[at], self.lines[at + 1]


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    handler = Alarm()
    log = logging.getLogger("atomr")
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


class Blocker(GenServer):
    """Holds the loop in a plain handler."""

    def __init__(self, alarm: Alarm) -> None:
        self.alarm = alarm

    def handle_call(self, request: object, from_: From) -> Reply:
        self.alarm.hold()
        return Reply(request)


class AsyncBlocker(Blocker):
    """The same, in one that may wait."""

    async def handle_info(self, message: object) -> None:
        """Never called: it makes the server one with a task."""


@pytest.mark.parametrize("kind", [Blocker, AsyncBlocker])
async def test_a_server_that_holds_the_loop_is_named_with_its_stack(
    kind: type[Blocker], alarm: Alarm
) -> None:
    async with open_node() as node:
        pid = await node.start(kind(alarm))
        with watch_event_loop(limit_s=0.02), trio.fail_after(WITHIN_S):
            while not alarm.named.is_set():
                # A call of a server without a task does not let the loop go on.
                await trio.lowlevel.checkpoint()
                assert await call(pid, "slow") == "slow"
    held, over = alarm.told
    assert held.startswith(f"{pid!r} has held the event loop for 0.02 s")
    assert over.startswith("the event loop goes on, after ")


async def test_a_plain_process_is_named_too(alarm: Alarm) -> None:
    async def holder() -> None:
        while not alarm.named.is_set():
            await trio.lowlevel.checkpoint()
            alarm.hold()

    async with open_node():
        with watch_event_loop(limit_s=0.02), trio.fail_after(WITHIN_S):
            pid = spawn(holder)
            await wait_exit(pid)
    assert alarm.told[0].startswith(f"{pid!r} has held the event loop")


async def test_code_around_the_processes_is_told_apart(alarm: Alarm) -> None:
    with watch_event_loop(limit_s=0.02), trio.fail_after(WITHIN_S):
        while not alarm.named.is_set():
            alarm.hold()
            await trio.lowlevel.checkpoint()
    assert alarm.told[0].startswith("code of no process has held the event loop")


async def test_a_loop_that_waits_is_not_held(alarm: Alarm) -> None:
    with watch_event_loop(limit_s=20) as watch:
        with trio.fail_after(10):
            while not watch._alive.is_set():
                await trio.lowlevel.checkpoint()
        assert watch._thread.is_alive()
    assert alarm.lines == []
    assert not watch._thread.is_alive()


def test_it_ends_with_a_run_that_ends_within_its_block(alarm: Alarm) -> None:
    async def enter() -> watch_event_loop:
        watch = watch_event_loop(limit_s=0.5)
        return watch.__enter__()

    watch = trio.run(enter)
    watch._thread.join(30)
    assert not watch._thread.is_alive()
    assert alarm.lines == []
