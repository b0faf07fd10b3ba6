"""sys: each function on a process at rest, at work, suspended, dead; supervisors."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from atomr.core.exits import SHUTDOWN
from atomr.errors import CallTimeoutError, NoProcessError, SystemMessageError
from atomr.otp import (
    DynamicSupervisor,
    From,
    Reply,
    Restart,
    Stop,
    Supervisor,
    call,
    cast,
    child,
    count_children,
    sys,
)
from atomr.process import Node, kill, monitor, spawn, stop, wait_exit, whereis
from tests.atomr.conformance.kit import (
    CleanNode,
    Kind,
    Log,
    Told,
    ToldTask,
    collect,
    raising,
    settle,
    start,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.refs import Pid

Clock = trio.testing.MockClock
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "get_state": sys.get_state,
    "replace_state": partial(sys.replace_state, replace=lambda state: state),
    "get_status": sys.get_status,
    "suspend": sys.suspend,
    "resume": sys.resume,
    "trace": partial(sys.trace, tracer=lambda event: None),
    "log": partial(sys.log, size=3),
    "get_log": sys.get_log,
    "count": sys.count,
    "statistics": sys.statistics,
    "no_debug": sys.no_debug,
}


@pytest.mark.parametrize("name", FUNCTIONS)
async def test_each_function_on_each_state_of_a_server(
    clean_node: CleanNode,
    autojump_clock: Clock,
    schedule: int,
    kind: Kind,
    name: str,
) -> None:
    """[sys] Each function works on a process that is at rest or suspended, and leaves
      it as it is.
    [sys] A process at work answers when it has handled its message, or the asker's
      timeout passes; it goes on with it.
    [sys] A process that is not there is an error.
    """
    ask = FUNCTIONS[name]
    async with clean_node() as node:
        server = await start(node, kind)
        await ask(server)
        await sys.resume(server)
        assert await call(server, Reply(1)) == 1
        await sys.suspend(server)
        await ask(server)
        await sys.resume(server)
        assert await call(server, Reply(2)) == 2
        if issubclass(kind, ToldTask):
            cast(server, partial(trio.sleep, 3.0))
            await settle()
            with pytest.raises(CallTimeoutError):
                await ask(server, timeout_s=1.0)
            await ask(server, timeout_s=5.0)
            assert trio.current_time() == 3.0
        await sys.resume(server)
        kill(server)
        await settle()
        for nobody in (server, "nobody"):
            with pytest.raises(NoProcessError):
                await ask(nobody)


@pytest.mark.parametrize("supervisor", [Supervisor, DynamicSupervisor])
@pytest.mark.parametrize("name", FUNCTIONS)
async def test_each_function_on_a_supervisor(
    clean_node: CleanNode, name: str, supervisor: Any
) -> None:
    """[sys] Supervisors answer system messages; their state can be seen only."""
    async with clean_node() as node:
        top = await node.start(supervisor())
        if name == "replace_state":
            with pytest.raises(SystemMessageError, match="cannot be replaced"):
                await FUNCTIONS[name](top)
        else:
            await FUNCTIONS[name](top)
        await sys.resume(top)
        assert (await count_children(top)).specs == 0


async def test_what_has_no_state_to_show_says_so(clean_node: CleanNode) -> None:
    """[sys] differs: a plain process answers no system messages, and the asker is told.
    In OTP it has to be a special process, or the asker waits for its timeout.
    """
    async with clean_node():
        pid = spawn(collect, [])
        for ask in FUNCTIONS.values():
            with pytest.raises(SystemMessageError, match="answers no system messages"):
                await ask(pid)


async def test_a_suspended_server_answers_nothing_else_and_loses_nothing(
    clean_node: CleanNode, autojump_clock: Clock, schedule: int, kind: Kind, way: str
) -> None:
    """[sys:suspend/1] A suspended process handles system messages only; what comes
      waits, and its callers' timeouts run.
    [sys:resume/1] Then all is handled, in order.
    [sys:suspend/1] A stop reaches it all the same, and terminate runs.
    """
    log: Log = []
    async with clean_node() as node:
        server = await start(node, kind, log)

        def note(_from: From) -> Reply:
            log.append(3)
            return Reply(None)

        await sys.suspend(server)
        await sys.suspend(server)
        for n in range(3):
            cast(server, partial(log.append, n))
        with pytest.raises(CallTimeoutError):
            await call(server, note)
        assert (log, (await sys.get_status(server)).queue_size) == ([], 4)
        await sys.resume(server)
        await settle()
        assert log == [0, 1, 2, 3]
        await sys.suspend(server)
        cast(server, partial(log.append, "never"))
        await stop(server, SHUTDOWN)
        assert log == [0, 1, 2, 3, ("terminate", SHUTDOWN)]


async def test_a_killed_server_ends_though_it_is_suspended(
    clean_node: CleanNode, schedule: int, kind: Kind
) -> None:
    """[sys:suspend/1] Exit signals act on a suspended process as on any other."""
    async with clean_node() as node:
        server = await start(node, kind)
        await sys.suspend(server)
        process = node.processes[server.number]
        kill(server)
        await settle()
        assert process.reason is not None


async def test_replace_state_takes_effect_at_once_and_a_failure_not_at_all(
    clean_node: CleanNode, schedule: int, kind: Kind, way: str
) -> None:
    """[sys:replace_state/2] The state becomes what the function returns, and that is
      the answer.
    [sys:replace_state/2] When the function fails the state is as before, and the asker
      is told why.
    [sys:get_state/1] Tells the state.
    """
    async with clean_node() as node:
        server = await start(node, kind, ["old"])

        def replace(state: Told) -> Told:
            state.log = ["new"]
            return state

        with pytest.raises(SystemMessageError, match="crash"):
            await sys.replace_state(server, raising(ValueError("crash")))
        state = await sys.get_state(server)
        assert isinstance(state, Told)
        assert state.log == ["old"]
        assert (await sys.replace_state(server, replace)).log == ["new"]
        cast(server, lambda: None)
        state = await sys.get_state(server)
        assert isinstance(state, Told)
        assert state.log == ["new"]


async def test_no_debug_switches_all_off_and_leaves_no_trace(
    clean_node: CleanNode, kind: Kind, way: str
) -> None:
    """[sys:no_debug/1] All debugging of a process is off after it, and costs nothing
      any more.
    [sys:trace/2] Events of messages in and results out, until it is switched off.
    [sys:statistics/2] Counts messages since it was switched on; off, there are none.
    [sys:log/2] The last events, oldest first; off, there are none.
    """
    kinds: list[str] = []
    async with clean_node() as node:
        server = await start(node, kind)
        await sys.trace(server, lambda event: kinds.append(event.kind))
        await sys.log(server, 3)
        await sys.count(server)
        for _ in range(2):
            await call(server, Reply(1))
        counted = await sys.statistics(server)
        assert counted is not None
        assert (counted.messages_in, counted.messages_out) == (2, 2)
        assert kinds == ["in", "out", "in", "out"]
        assert [e.kind for e in await sys.get_log(server)] == ["out", "in", "out"]
        await sys.no_debug(server)
        await call(server, Reply(1))
        assert (await sys.get_log(server), await sys.statistics(server)) == ((), None)
        assert len(kinds) == 4
        assert node.processes[server.number].debug is None
        await sys.suspend(server)
        await sys.no_debug(server)
        assert (await sys.get_status(server)).suspended
        await sys.resume(server)


async def test_a_suspended_supervisor_restarts_when_it_is_resumed(
    clean_node: CleanNode, schedule: int, kind: Kind
) -> None:
    """[sys:suspend/1] A suspended supervisor restarts nobody until it is resumed."""
    async with clean_node() as node:
        spec = child(lambda: kind([]), id="a", name="a")
        top = await node.start(Supervisor([spec]))
        await sys.suspend(top)
        before = whereis("a")
        cast("a", Stop(SHUTDOWN))
        await settle()
        assert whereis("a") is None
        await sys.resume(top)
        await settle()
        assert whereis("a") is not before
        assert whereis("a") is not None


async def test_get_status_tells_all_that_there_is(
    clean_node: CleanNode, kind: Kind
) -> None:
    """[sys:get_status/1] Tells whether it runs or is suspended, its parent, and what
      format_status shows.
    [GenServer: format_status] It is asked for the status and for crash reports, so that
      secrets stay out of both.
    """

    class Secretive(kind):  # type: ignore[misc, valid-type]
        def format_status(self) -> object:
            return "redacted"

    async with clean_node() as node:
        spec = child(lambda: Secretive([]), id="s", name="s", restart=Restart.TEMPORARY)
        top = await node.start(Supervisor([spec]))
        await settle()
        server = whereis("s")
        assert server is not None

        async def watch() -> None:
            monitor(server)
            await trio.sleep_forever()

        watcher = spawn(watch)
        await settle()
        status = await sys.get_status("s")
        assert (status.pid, status.names, status.ancestors) == (server, ("s",), (top,))
        assert (status.state, status.suspended) == ("redacted", False)
        assert (status.monitored_by, status.queue_size) == ((watcher,), 0)
        await sys.suspend("s")
        assert (await sys.get_status("s")).suspended


async def test_a_crash_report_shows_what_format_status_returns(
    clean_node: CleanNode, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    """[GenServer: format_status] A crash report shows it in the state's place."""

    class Secretive(kind):  # type: ignore[misc, valid-type]
        def format_status(self) -> object:
            return "redacted"

    async with clean_node() as node:
        pid = await start_of(node, lambda: Secretive(["password"]))
        cast(pid, raising(ValueError("crash")))
        await wait_exit(pid)
    (record,) = caplog.records
    assert "state: 'redacted'" in record.getMessage()
    assert "password" not in record.getMessage()


async def start_of(node: Node, make: Callable[[], Told]) -> Pid:
    """Start a server that ends for itself."""
    return await node.start(child(make, id="server", restart=Restart.TEMPORARY))
