"""Applications: order of start and stop, signals, failures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, TypeAlias

import pytest
import trio
import trio.testing

from atomr.core.exits import ExitReason, Shutdown
from atomr.core.supervision import GaveUp
from atomr.errors import DependencyError, RootExitError, StartError
from atomr.otp import (
    Application,
    GenServer,
    Restart,
    Supervisor,
    child,
    run_applications,
)
from atomr.process import kill, whereis
from tests.children import or_killed

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.process import Node

    MakeApp: TypeAlias = Callable[..., Application]

CRASH = ValueError("x")


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def app(log: list[str]) -> MakeApp:
    """Make applications of one server that writes its start and end."""

    class Says(GenServer):
        def __init__(self, name: str, close_s: float) -> None:
            self.name = name
            self.close_s = close_s

        def init(self) -> None:
            log.append(f"+{self.name}")

        async def terminate(self, reason: ExitReason) -> None:
            await trio.sleep(self.close_s)
            log.append(f"-{self.name}")

    def make(
        name: str,
        *needs: str,
        close_s: float = 0.0,
        restart: Restart = Restart.PERMANENT,
    ) -> Application:
        def start() -> Supervisor:
            spec = child(lambda: Says(name, close_s), id=name, name=name)
            return Supervisor([spec], max_restarts=0)

        return Application(name, start, depends_on=needs, restart=restart)

    return make


async def test_they_start_in_the_order_of_their_needs_and_stop_in_reverse(
    app: MakeApp, log: list[str], schedule: int
) -> None:
    """[Application: Starting applications] An application starts when those that it
      depends on run.
    [Application: Stopping applications] They stop in the reverse order; each stops its
      whole tree before the next.
    """
    stop = trio.Event()
    nodes: list[Node] = []

    def ready(node: Node) -> None:
        nodes.append(node)
        log.append("ready")
        stop.set()

    apps = [app("web", "db", "log"), app("db", "log"), app("log")]
    assert await run_applications(apps, ready=ready, stop=stop) is None
    assert log == ["+log", "+db", "+web", "ready", "-web", "-db", "-log"]
    assert nodes[0].size == 0


async def test_one_application_can_run_alone(app: MakeApp, log: list[str]) -> None:
    stop = trio.Event()
    stop.set()
    await app("a").run(stop=stop, handle_signals=False)
    assert log == ["+a", "-a"]


async def test_what_cannot_be_ordered_is_refused_before_anything_starts(
    app: MakeApp, log: list[str]
) -> None:
    """[Application: Starting applications] A dependency that is missing is an error."""
    for apps in (
        [app("a", "b"), app("b", "a")],
        [app("a", "missing")],
        [app("a"), app("a")],
    ):
        with pytest.raises(DependencyError):
            await run_applications(apps)
    assert log == []


async def test_a_start_that_fails_stops_those_before_it(
    app: MakeApp, log: list[str]
) -> None:
    """[Application.ensure_all_started/2] When one fails to start, those that were
    started for it are stopped.
    """

    class Fails(GenServer):
        def init(self) -> None:
            raise CRASH

    broken = Application("broken", lambda: Supervisor([child(Fails)]), ("a",))
    with pytest.raises(StartError) as caught:
        await run_applications([app("a"), broken, app("never", "broken")])
    assert caught.value.child == "broken"
    assert log == ["+a", "-a"]


@pytest.mark.parametrize(
    ("restart", "ends"),
    [
        (Restart.PERMANENT, True),
        (Restart.TRANSIENT, True),
        (Restart.TEMPORARY, False),
    ],
)
async def test_what_an_application_that_gives_up_means(
    app: MakeApp, log: list[str], restart: Restart, ends: bool
) -> None:
    """[Application.restart_type()] The end of a permanent application ends all others,
      that of a temporary one nobody else.
    [Application.restart_type()] A transient one that gives up ends all, as its reason
      is shutdown and not normal.
    """
    stop = trio.Event()
    error: RootExitError | None = None

    def ready(node: Node) -> None:
        pid = node.whereis("b")
        assert pid is not None
        kill(pid)

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def run() -> None:
            nonlocal error
            try:
                apps = [app("a"), app("b", restart=restart)]
                await run_applications(apps, ready=ready, stop=stop)
            except RootExitError as raised:
                error = raised

        await trio.testing.wait_all_tasks_blocked()
        stop.set()

    assert (error is not None) is ends
    if error is not None:
        assert isinstance(error.reason, Shutdown)
        assert isinstance(error.reason.detail, GaveUp)
    assert log == ["+a", "+b", "-a"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_first_signal_stops_in_order(
    app: MakeApp, log: list[str], number: signal.Signals
) -> None:
    """[Application: Stopping applications] SIGTERM stops all in order; here SIGINT does
    too.
    """

    def ready(node: Node) -> None:
        signal.raise_signal(number)

    apps = [app("a"), app("b", "a")]
    assert await run_applications(apps, ready=ready) is number
    assert log == ["+a", "+b", "-b", "-a"]


async def test_the_second_signal_cancels(
    app: MakeApp, log: list[str], autojump_clock: trio.testing.MockClock
) -> None:
    """terminate still has its shutdown time, but nobody waits for an order."""

    def ready(node: Node) -> None:
        signal.raise_signal(signal.SIGTERM)

    apps = [app("a"), app("slow", "a", close_s=0.2)]
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def run() -> None:
            assert await run_applications(apps, ready=ready) is signal.SIGTERM

        await trio.sleep(0.05)
        assert log == ["+a", "+slow"]
        signal.raise_signal(signal.SIGTERM)

    assert log == ["+a", "+slow", "-a", "-slow"]


async def test_a_signal_during_a_slow_start_does_not_wait_for_it(
    app: MakeApp, log: list[str]
) -> None:
    class Slow(GenServer):
        async def init(self) -> None:
            await trio.sleep_forever()

    slow = Application("slow", lambda: Supervisor([child(Slow)]), ("a",))

    def never(node: Node) -> None:
        raise AssertionError

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def run() -> None:
            found = await run_applications([app("a"), slow], ready=never)
            assert found is signal.SIGTERM

        await trio.testing.wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGTERM)

    assert log == ["+a", "-a"]
    with pytest.raises(Exception, match="outside open_node"):
        whereis("a")


PROGRAM = """
import trio
from atomr.otp import Application, GenServer, Supervisor, child

class Says(GenServer):
    def terminate(self, reason):
        print("stopped", reason, flush=True)

app = Application("app", lambda: Supervisor([child(Says)]))

async def main():
    number = await app.run(ready=lambda node: print("ready", flush=True))
    print("ended by", number.name)

trio.run(main)
"""


def test_a_real_process_ends_in_order_on_sigterm() -> None:
    with (
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True
        ) as running,
        or_killed(running),
    ):
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        os.kill(running.pid, signal.SIGTERM)
        rest = running.stdout.read()

    assert (rest, running.returncode) == (
        "stopped SHUTDOWN\nended by SIGTERM\n",
        0,
    )
