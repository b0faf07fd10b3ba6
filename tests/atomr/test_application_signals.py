"""Applications in real processes that get a real SIGINT at an awkward moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr.errors import CallbackInterruptedError
from atomr.otp import Application, Supervisor, run_applications
from atomr.otp.application_signals import Control, receive_signals

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
    from types import FrameType

PROGRAM = """
import os, signal, sys, threading, time
import trio
from atomr.errors import CallbackInterruptedError
from atomr.otp import Application, GenServer, Supervisor, child, run_applications
from atomr.process import open_node, send

moment, how = sys.argv[1:]

def say(*what):
    print(*what, flush=True)

# Where nothing takes the signal, it strikes the callback, which is long enough.
COMPUTES_S = 0.2 if how == "signals" else 60.0

class Says(GenServer):
    def __init__(self, name):
        self.name = name
    async def terminate(self, reason):
        say("stopping", self.name)
        if moment in ("stop", "twice") and self.name == "b":
            await trio.sleep(30)  # past its shutdown time
        say("stopped", self.name)

class Computes(GenServer):
    def handle_info(self, forever):
        began, here = time.monotonic(), False
        while True:
            try:
                if not here:
                    here = True
                    say("now")
                while forever or time.monotonic() - began < COMPUTES_S:
                    pass
                break
            except CallbackInterruptedError:
                say("broken")
                if moment != "deaf":
                    raise
        say("computed")

class Slow(GenServer):
    async def init(self):
        say("now")
        await trio.sleep_forever()

def tree(make, name):
    return lambda: Supervisor([child(make, id=name, name=name, shutdown=2.0)])

trees = {"a": tree(lambda: Says("a"), "a"), "b": tree(lambda: Says("b"), "b")}
if moment == "start":
    trees["slow"] = tree(Slow, "slow")
if moment in ("compute", "forever", "deaf", "twice"):
    trees["computes"] = tree(Computes, "computes")

def tell_of_signals():
    take = signal.getsignal(signal.SIGINT)
    def tell(number, frame):
        os.write(1, b"got\\n")  # print may be what it interrupts
        take(number, frame)
    signal.signal(signal.SIGINT, tell)

def ready(node):
    if moment in ("forever", "deaf"):
        tell_of_signals()
    if "computes" in trees:
        send("computes", moment != "compute")
    else:
        say("now")

async def applications(stop=None):
    names = list(trees)
    apps = [Application(n, trees[n], tuple(names[:i])) for i, n in enumerate(names)]
    number = await run_applications(
        apps, ready=ready, handle_signals=how == "signals", stop=stop
    )
    say("ended by", number and number.name)

async def plain_node():
    async with open_node() as node:
        for name, start in trees.items():
            await node.start(child(start, id=name))
        ready(node)
        await trio.sleep_forever()

def other_thread():
    shared = []
    over = threading.Event()
    async def main():
        shared.extend([trio.Event(), trio.lowlevel.current_trio_token()])
        await applications(shared[0])
        over.set()
    threading.Thread(target=trio.run, args=(main,)).start()
    try:
        over.wait()  # an interrupted join() takes the thread for ended (3.11)
    except KeyboardInterrupt:
        stop, token = shared
        token.run_sync_soon(stop.set)
        over.wait()

try:
    if how == "thread":
        other_thread()
    else:
        trio.run(plain_node if how == "node" else applications)
except KeyboardInterrupt:
    say("KeyboardInterrupt")
"""

IN_ORDER = ["stopping b", "stopped b", "stopping a", "stopped a"]
ENDED = "ended by SIGINT"


WAITING = ("idle", "start", "stop")
"""Moments at which it does nothing."""

ASLEEP_WITHIN_S = 60.0


def is_asleep(pid: int) -> bool:
    """Return whether a process waits; True where no system tells."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "S"


def await_sleep(running: subprocess.Popen[str]) -> None:
    """Return when the program waits.

    Raises:
        AssertionError: it has ended, or computes on.
    """
    last_s = time.monotonic() + ASLEEP_WITHIN_S
    while not is_asleep(running.pid):
        assert running.poll() is None, "it ended too early"
        assert time.monotonic() < last_s, "it computes on"
        time.sleep(0.01)


@contextmanager
def started(moment: str, how: str) -> Iterator[subprocess.Popen[str]]:
    """Run the program; kill it if the block fails, as it may compute for ever."""
    command = [sys.executable, "-c", PROGRAM, moment, how]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as running:
        try:
            yield running
        except BaseException:
            running.kill()
            raise


def run(moment: str, how: str, *waits: str) -> list[str]:
    """Return what the program says after the first signal.

    Args:
        moment: what it does when the signal comes.
        how: how it runs its processes.
        waits: a signal is sent after each of these lines.
    """
    with started(moment, how) as running:
        assert running.stdout is not None
        said: list[str] = []
        for line in waits:
            while not said or said[-1] != line:
                said.append(running.stdout.readline().strip())
                assert said[-1], "it ended too early"
            if line == "now":
                said.clear()
                # It has said so, but has yet to get where it waits.
                time.sleep(0.1)
                if moment in WAITING:
                    await_sleep(running)
            os.kill(running.pid, signal.SIGINT)
        said += running.stdout.read().splitlines()
    assert running.returncode == 0
    return said


@pytest.mark.slow
def test_during_a_start_it_stops_what_has_started_in_order() -> None:
    assert run("start", "signals", "now") == [*IN_ORDER, ENDED]


@pytest.mark.slow
def test_while_a_server_computes_it_waits_for_the_callback() -> None:
    assert run("compute", "signals", "now") == ["computed", *IN_ORDER, ENDED]


@pytest.mark.slow
def test_a_second_one_during_the_stop_cancels_everything() -> None:
    said = run("stop", "signals", "now", "stopping b")
    assert said == ["stopping b", "stopping a", "stopped a", ENDED]


def test_who_ends_instead_of_waiting_is_not_waited_for() -> None:
    with subprocess.Popen([sys.executable, "-c", ""], text=True) as ended:
        # It has ended, and has not been waited for: no state of one that waits.
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(AssertionError, match="it ended too early"):
            await_sleep(ended)


def interrupt(moment: str, *waits: str) -> list[str]:
    """Send SIGINT, and one more after each of these lines; return what is said."""
    said: list[str] = []
    with started(moment, "signals") as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "now\n"
        running.send_signal(signal.SIGINT)
        for line in waits:
            while not said or said[-1] != line:
                said.append(running.stdout.readline().strip())
                assert said[-1], "it ended too early"
            running.send_signal(signal.SIGINT)
        said += running.stdout.read().splitlines()
    assert running.returncode == 0
    return [line for line in said if line != "got"]


class Struck(Control):
    """One whose next signal comes at a step of the handler of the first."""

    step: tuple[str, object] = ("", None)

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)
        if (name, value) == self.step:
            self.step = ("", None)
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    "step", [("unseen", 1), ("is_telling", True), ("is_telling", False)]
)
def test_a_second_one_that_strikes_the_handler_of_the_first_does_not_lose_it(
    step: tuple[str, object],
) -> None:
    async def main() -> None:
        control = Struck(stop=trio.Event())
        control.step = step
        with receive_signals(control) as signals:
            with pytest.raises(CallbackInterruptedError):
                signal.raise_signal(signal.SIGINT)
            with trio.fail_after(10):
                await control.listen(only_one(signals))
        assert control.received == signal.SIGINT
        assert control.stop.is_set()
        assert control.unseen == 0

    trio.run(main)


def interrupt_within_trio(step: int) -> tuple[bool, list[BaseException]]:
    """Send SIGINT, and one more at a line of trio's own handler of the first.

    Returns:
        Whether there is such a line, and what was raised there.
    """
    raised: list[BaseException] = []
    lines = count()

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        module = frame.f_globals["__name__"]
        # Who asks whether an error may be raised is of ours, and has told the loop.
        if not module.startswith("trio.") or module == "trio._core._ki":
            return None
        if event == "line" and next(lines) == step:
            try:
                signal.raise_signal(signal.SIGINT)
            except BaseException as error:
                raised.append(error)
                raise
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        signal.raise_signal(signal.SIGINT)
    except CallbackInterruptedError:
        pass  # there were two, and the handler of the first has ended
    finally:
        sys.settrace(before)
    return next(lines) > step, raised


def test_a_second_one_that_strikes_trios_own_handler_raises_nothing_in_it() -> None:
    async def strike(step: int) -> bool:
        control = Control(stop=trio.Event())
        with receive_signals(control) as signals:
            is_struck, raised = interrupt_within_trio(step)
            with trio.fail_after(10):
                await control.listen(only_one(signals))
        assert (raised, control.received, control.unseen) == ([], signal.SIGINT, 0)
        return is_struck

    steps = 0
    while trio.run(strike, steps):
        steps += 1
    assert steps > 5


async def only_one(signals: AsyncIterable[int]) -> AsyncIterator[int]:
    async for number in signals:
        yield number
        return


@pytest.mark.slow
def test_a_second_one_breaks_a_callback_without_end_and_the_stop_is_in_order() -> None:
    assert interrupt("forever", "got") == ["broken", *IN_ORDER, ENDED]


@pytest.mark.slow
def test_a_third_one_ends_even_a_callback_that_catches_the_second() -> None:
    said = interrupt("deaf", "got", "broken")
    assert said == ["broken", *IN_ORDER, "KeyboardInterrupt"]


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["idle", "start"])
@pytest.mark.parametrize("how", ["off", "node"])
def test_without_handlers_an_interrupt_stops_in_order_too(
    moment: str, how: str
) -> None:
    assert run(moment, how, "now") == [*IN_ORDER, "KeyboardInterrupt"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["off", "node"])
def test_without_handlers_one_that_strikes_a_callback_stops_in_order(how: str) -> None:
    assert run("compute", how, "now") == [*IN_ORDER, "KeyboardInterrupt"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["off", "node"])
def test_without_handlers_a_second_one_during_the_stop_cancels_everything(
    how: str,
) -> None:
    said = run("twice", how, "now", "stopping b")
    assert said == ["stopping b", "stopping a", "stopped a", "KeyboardInterrupt"]


@pytest.mark.slow
def test_in_another_thread_the_main_thread_asks_for_the_stop() -> None:
    assert run("idle", "thread", "now") == [*IN_ORDER, "ended by None"]


def test_in_another_thread_signals_are_refused_before_anything_starts() -> None:
    errors: list[str] = []

    def start() -> Supervisor:
        raise AssertionError

    def run_there() -> None:
        try:
            trio.run(run_applications, [Application("a", start)])
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=run_there)
    thread.start()
    thread.join()
    assert errors == [
        "run_applications(handle_signals=True): only the main thread can take"
        " signals; pass handle_signals=False, and a stop event"
    ]


async def test_afterwards_the_handlers_are_as_before() -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    stop = trio.Event()
    stop.set()
    await run_applications([Application("a", lambda: Supervisor([]))], stop=stop)
    assert before == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
