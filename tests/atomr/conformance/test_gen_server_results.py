"""GenServer: each result of each callback, and its exact effect on everybody."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from atomr.core.exits import KILLED, NORMAL, SHUTDOWN, ExitReason
from atomr.core.messages import IdleTimeout
from atomr.errors import (
    BadReturnError,
    CallTimeoutError,
    InitStoppedError,
    ServerDownError,
    StartError,
    StartIgnoredError,
)
from atomr.otp import (
    Fail,
    From,
    Ignore,
    NoReply,
    Ok,
    Reply,
    Restart,
    Stop,
    Supervisor,
    call,
    cast,
    child,
    restart_child,
    which_children,
)
from atomr.process import kill, self_pid, send, spawn, wait_exit, whereis
from atomr.process.task_process import TaskProcess
from tests.atomr.conformance.kit import (
    CRASH,
    DETAIL,
    LIVES,
    CleanNode,
    Kind,
    Log,
    ToldDormant,
    ToldTask,
    end_of,
    raising,
    reason_of,
    settle,
    start,
)

Clock = trio.testing.MockClock


def _named(error: object) -> object:
    """Return an error of ours as what it says, anything else as it is."""
    if isinstance(error, BadReturnError):
        return ("bad return", error.callback, error.value)
    return error


async def _outcome(server: Any, request: Any, timeout_s: float = 1.0) -> object:
    try:
        return ("reply", await call(server, request, timeout_s=timeout_s))
    except ServerDownError as error:
        return ("down", _named(error.reason))
    except CallTimeoutError:
        return "waits"
    except ValueError as error:
        return ("raises", error)


def _reply_first(from_: From) -> Any:
    from_.reply("early")
    return NoReply()


def _reply_and_crash(from_: From) -> Any:
    from_.reply("early")
    raise CRASH


# What handle_call does: what its caller gets, how the server ends.
CALL_RESULTS: dict[str, tuple[Any, object, object]] = {
    "reply": (Reply(1), ("reply", 1), LIVES),
    "reply none": (Reply(None), ("reply", None), LIVES),
    "no reply": (NoReply(), "waits", LIVES),
    "reply before returning": (_reply_first, ("reply", "early"), LIVES),
    "fail": (Fail(CRASH), ("raises", CRASH), LIVES),
    "stop": (Stop(), ("down", NORMAL), NORMAL),
    "stop with a reason": (Stop(SHUTDOWN), ("down", SHUTDOWN), SHUTDOWN),
    "stop with a crash": (Stop(CRASH), ("down", CRASH), CRASH),
    "stop with reply": (Stop(DETAIL, reply=1), ("reply", 1), DETAIL),
    "stop replying none": (Stop(reply=None), ("reply", None), NORMAL),
    "raise": (raising(CRASH), ("down", CRASH), CRASH),
    "reply and raise": (_reply_and_crash, ("reply", "early"), CRASH),
    "bad return": (
        "bad",
        ("down", ("bad return", "handle_call", "bad")),
        ("bad return", "handle_call", "bad"),
    ),
    "none is bad": (
        None,
        ("down", ("bad return", "handle_call", None)),
        ("bad return", "handle_call", None),
    ),
}


async def test_each_result_of_handle_call(
    clean_node: CleanNode, autojump_clock: Clock, schedule: int, kind: Kind, way: str
) -> None:
    """[GenServer: handle_call] A reply goes to the caller, and the server goes on.
    [GenServer: handle_call] Without a reply the caller waits, and the server goes on.
    [GenServer: handle_call] The reply may be given before the callback returns.
    [GenServer: handle_call] A stop ends the server with its reason: with a reply the
      caller gets it, without one it hears of the end.
    [gen_server:call/2] A server that ends while it is called is an error that carries
      its reason.
    [GenServer: terminate] An invalid return value ends the server; the reason names
      callback and value.
    [gen_server] differs: Fail(error) raises in the caller and the server lives. Erlang
      replies with an error tuple and leaves the raising to a client function.
    """
    got: dict[str, tuple[object, object]] = {}
    terminated: dict[str, object] = {}
    async with clean_node() as node:
        for name, (result, _, _) in CALL_RESULTS.items():
            log: Log = []
            server = await start(node, kind, log)
            ended = end_of(node, server)
            outcome = await _outcome(server, result)
            await settle()
            got[name] = (outcome, _named(ended()))
            terminated[name] = _named(log[0][1]) if log else LIVES

    assert got == {name: row[1:] for name, row in CALL_RESULTS.items()}
    # Whoever ended by a callback had its terminate run, with the same reason.
    assert terminated == {name: row[2] for name, row in CALL_RESULTS.items()}


# What handle_cast, handle_info and handle_continue may do, and how it ends.
OTHER_RESULTS: dict[str, tuple[Any, object]] = {
    "none": (lambda: None, LIVES),
    "no reply": (NoReply, LIVES),
    "stop": (Stop, NORMAL),
    "stop with a reason": (lambda: Stop(DETAIL), DETAIL),
    "a reply to nobody": (
        lambda: Stop(SHUTDOWN, reply=1),
        Stop(SHUTDOWN, reply=1),
    ),
    "raise": (raising(CRASH), CRASH),
    "bad return": (lambda: "bad", "bad"),
    "reply is bad": (lambda: Reply(1), Reply(1)),
}


@pytest.mark.parametrize("position", ["cast", "info", "continue", "init continue"])
async def test_each_result_of_the_other_callbacks(
    clean_node: CleanNode, schedule: int, kind: Kind, position: str
) -> None:
    """[GenServer: handle_cast] The server goes on, or stops with a reason after
      terminate.
    [GenServer: handle_info] The results are those of handle_cast.
    [GenServer: handle_continue] The results are those of handle_cast.
    """
    got: dict[str, object] = {}
    async with clean_node() as node:
        for name, (job, _) in OTHER_RESULTS.items():
            log: Log = []
            init = Ok(continue_=job) if position == "init continue" else None
            reasons: Log = []

            async def watch(watched: Log, pid: Any) -> None:
                watched.append(await wait_exit(pid))

            if init is not None:
                # It may end before its starter goes on: only the log tells.
                server = await start(node, kind, log, init=init)
                got[name] = _named(log[0][1]) if log else LIVES
            else:
                server = await start(node, kind, log)
                spawn(watch, reasons, server)
                await settle()
                if position == "cast":
                    cast(server, job)
                elif position == "info":
                    send(server, job)
                else:
                    cast(server, lambda job=job: NoReply(continue_=job))
                await settle()
                got[name] = _named(reasons[0]) if reasons else LIVES
                assert log == [("terminate", reason) for reason in reasons]

    callback = "handle_continue" if "continue" in position else f"handle_{position}"
    expected = {name: end for name, (_, end) in OTHER_RESULTS.items()}
    for name in ("a reply to nobody", "bad return", "reply is bad"):
        expected[name] = ("bad return", callback, expected[name])
    assert got == expected


INIT_RESULTS: dict[str, tuple[Any, object]] = {
    "none": (None, LIVES),
    "ok": (Ok(), LIVES),
    "ignore": (Ignore(), ("ignored", None)),
    "stop": (Stop(SHUTDOWN), ("init stopped", SHUTDOWN)),
    "stop normally": (Stop(), ("init stopped", NORMAL)),
    "stop with a crash": (Stop(CRASH), ("failed", CRASH)),
    "raise": (raising(CRASH), ("failed", CRASH)),
    "bad return": (lambda: "bad", ("failed", ("bad return", "init", "bad"))),
    "kill itself": (lambda: kill(self_pid()), ("failed", KILLED)),
}


async def test_each_result_of_init(
    clean_node: CleanNode, schedule: int, kind: Kind
) -> None:
    """[GenServer: init] The starter waits until it returns, and then has the pid.
    [GenServer: init] Ignore: no process, no terminate, and no failure.
    [GenServer: init] Stop or an exception: the starter gets the reason, and terminate
      does not run.
    [gen_server] The name is free again before the starter hears of a failed start.
    [gen_server:start_link/3] differs: the failure is raised in the starter. There is no
      exit signal, so a starter need not trap exits.
    """
    got: dict[str, object] = {}
    async with clean_node() as node:
        for name, (init, _) in INIT_RESULTS.items():
            log: Log = []
            try:
                pid = await start(node, kind, log, init=init, name="name")
            except StartIgnoredError:
                got[name] = ("ignored", None)
            except StartError as error:
                reason = error.reason
                if isinstance(reason, InitStoppedError):
                    got[name] = ("init stopped", reason.reason)
                else:
                    got[name] = ("failed", _named(reason))
            else:
                got[name] = LIVES
                assert whereis("name") is pid
                await reason_of(pid, partial(kill, pid))
            assert (node.processes, whereis("name"), log) == ({}, None, [])

    assert got == {name: end for name, (_, end) in INIT_RESULTS.items()}


async def test_a_child_that_ignores_is_kept_and_the_rest_of_the_tree_starts(
    clean_node: CleanNode, kind: Kind
) -> None:
    """[GenServer: init] Under a supervisor, ignore is no failure and no restart; the
    other children start, and restart_child may start it later.
    """
    enabled = False
    log: Log = []

    def init() -> Ignore | None:
        return None if enabled else Ignore()

    async with clean_node() as node:
        top = Supervisor(
            [
                child(lambda: kind(log, init), id="maybe"),
                child(lambda: kind(log), id="after", name="after"),
            ]
        )
        pid = await node.start(top)
        assert whereis("after") is not None
        assert [info.pid is None for info in await which_children(pid)] == [True, False]
        enabled = True
        started = await restart_child(pid, "maybe")
        assert (await which_children(pid))[0].pid is started


async def test_the_reply_that_comes_with_a_stop_is_sent_after_terminate(
    clean_node: CleanNode, autojump_clock: Clock, schedule: int, kind: Kind, way: str
) -> None:
    """[GenServer: handle_call] With stop and reply, terminate runs first, then the
      reply is sent, then the process ends.
    [gen_server] The reply is sent even when terminate fails.
    """
    for terminate in (None, raising(KeyError("terminate"))):
        order: Log = []
        async with clean_node() as node:
            server = await start(node, kind, order, terminate=terminate)
            order.append(await call(server, Stop(SHUTDOWN, reply="reply")))
        assert order == [("terminate", SHUTDOWN), "reply"]


async def test_a_kill_while_it_terminates_sends_no_reply(
    clean_node: CleanNode, autojump_clock: Clock, schedule: int, way: str
) -> None:
    """[GenServer: terminate] A kill cuts terminate short; nobody gets a reply then."""
    async with clean_node() as node:
        server = await start(node, ToldTask, terminate=partial(trio.sleep, 3))
        async with trio.open_nursery() as nursery:
            got: Log = []

            async def ask() -> None:
                got.append(await _outcome(server, Stop(SHUTDOWN, reply=1), 9.0))

            nursery.start_soon(ask)
            await trio.sleep(1)
            kill(server)
        assert (got, trio.current_time()) == ([("down", KILLED)], 1.0)


async def test_a_kill_beats_a_stop_of_the_same_callback(
    clean_node: CleanNode, schedule: int, kind: Kind, way: str
) -> None:
    """[GenServer: terminate] After a kill, terminate does not run: not even when the
    callback that was running returned a stop.
    """
    log: Log = []
    for result in (Stop(NORMAL, reply=1), Stop(SHUTDOWN), NoReply()):

        def handle(_from: From, result: Any = result) -> Any:
            kill(self_pid())
            return result

        async with clean_node() as node:
            server = await start(node, kind, log)
            assert await _outcome(server, handle) == ("down", KILLED)
    assert log == []


async def test_continue_runs_before_anything_that_waits_and_may_go_on(
    clean_node: CleanNode, autojump_clock: Clock, schedule: int, kind: Kind, way: str
) -> None:
    """[GenServer: handle_call] Continue runs handle_continue at once, before the next
      message, after the reply was sent.
    [GenServer: handle_continue] It splits work in steps: each may ask for the next.
    [GenServer: init] A continuation of init runs before any message, and its starter
      does not wait for it.
    """
    log: Log = []

    def step(n: int) -> Any:
        log.append(n)
        cast(self_pid(), lambda: log.append(("cast", n)))
        return NoReply(continue_=lambda: step(n + 1)) if n % 3 else None

    async with clean_node() as node:
        server = await start(node, kind, log, init=Ok(continue_=lambda: step(1)))
        assert log == [1, 2, 3, ("cast", 1), ("cast", 2), ("cast", 3)]
        log.clear()
        reply = await call(server, Reply("reply", continue_=lambda: step(4)))
        log.append(reply)
        await settle()
        log.remove("reply")
        assert log == [4, 5, 6, ("cast", 4), ("cast", 5), ("cast", 6)]
        log.clear()
        with pytest.raises(ValueError, match="crash"):
            await call(server, Fail(CRASH, continue_=lambda: step(3)))
        await settle()
        assert log == [3, ("cast", 3)]


@pytest.mark.parametrize("position", ["init", "call", "cast", "info", "continue"])
@pytest.mark.parametrize("breaks", ["nothing", "call", "cast", "info", "waiting"])
async def test_a_timeout_in_any_result_tells_of_a_lull(  # noqa: C901 - a table
    clean_node: CleanNode,
    autojump_clock: Clock,
    kind: Kind,
    way: str,
    position: str,
    breaks: str,
) -> None:
    """[GenServer: Timeouts] After so long without a message handle_info gets a timeout,
      once.
    [GenServer: Timeouts] Any message before clears it; a result without a timeout means
      none.
    [GenServer: Timeouts] A message that waits already when the result comes is handled,
      and the timeout ignored.
    """
    log: Log = []
    init = Ok(timeout_s=2.0) if position == "init" else None
    async with clean_node() as node:
        server = await start(node, kind, log, init=init)
        began = trio.current_time()

        def with_timeout(*_from: Any) -> Any:
            if breaks == "waiting":
                send(server, "waiting")
            if position == "call":
                return Reply(1, timeout_s=2.0)
            return NoReply(timeout_s=2.0)

        if position == "call":
            await call(server, with_timeout)
        elif position == "cast":
            cast(server, with_timeout)
        elif position == "info":
            send(server, with_timeout)
        elif position == "continue":
            cast(server, lambda: NoReply(continue_=with_timeout))
        elif breaks == "waiting":
            send(server, "waiting")
        await trio.sleep(1.0)
        if breaks == "call":
            assert await call(server, Reply(1)) == 1
        elif breaks == "cast":
            cast(server, lambda: None)
        elif breaks == "info":
            send(server, "info")
        await trio.sleep(0.99)
        assert IdleTimeout() not in log
        await trio.sleep(100)
        assert began == 0.0
    told = [] if breaks in {"call", "cast"} else [breaks]
    expected = [IdleTimeout()] if breaks == "nothing" else told
    assert [m for m in log if not isinstance(m, tuple)] == expected


async def test_a_timeout_of_zero_comes_unless_a_message_waits(
    clean_node: CleanNode, autojump_clock: Clock, schedule: int, kind: Kind
) -> None:
    """[GenServer: Timeouts] A timeout of 0 comes at once if nothing waits, and not at
    all if something does.
    """
    log: Log = []
    async with clean_node() as node:
        server = await start(node, kind, log)
        cast(server, lambda: NoReply(timeout_s=0.0))
        await settle()
        assert log == [IdleTimeout()]
        log.clear()
        cast(server, lambda: NoReply(timeout_s=0.0))
        send(server, "waits")
        await settle()
        assert log == ["waits"]


async def test_a_message_at_the_very_instant_of_the_timeout_comes_instead_or_after_it(
    clean_node: CleanNode, autojump_clock: Clock, schedule: int, kind: Kind
) -> None:
    """[GenServer: Timeouts] A message that has come when the time is over is handled,
    and there is no timeout; one that comes later is handled after it.
    """
    for _ in range(6):
        log: Log = []
        async with clean_node() as node, trio.open_nursery() as nursery:
            server = await start(node, kind, log)
            at = trio.current_time() + 2.0

            async def sender(to: Any, at: float) -> None:
                await trio.sleep_until(at)
                send(to, "message")

            nursery.start_soon(sender, server, at)
            await settle()
            cast(server, lambda: NoReply(timeout_s=2.0))
            await trio.sleep(5.0)
        messages = [m for m in log if not isinstance(m, tuple)]
        assert messages in (["message"], [IdleTimeout(), "message"])


async def test_a_server_is_put_away_by_its_results_until_the_next_message(
    clean_node: CleanNode, schedule: int, way: str
) -> None:
    """[GenServer: handle_call] With hibernate in any result the server is put away
      until the next message; without it, it is awake again.
    [GenServer: init] differs: a server whose init does not wait has no task before its
      first message. In Elixir init asks for that.
    """
    log: Log = []
    async with clean_node() as node:
        server = await start(node, ToldDormant, log)

        def rests() -> bool:
            process = node.processes[server.number]
            return isinstance(process, TaskProcess) and process.hibernating

        assert rests()
        acts: list[Any] = [
            lambda: cast(server, partial(log.append, "cast")),
            lambda: cast(server, lambda: NoReply(continue_=lambda: log.append("next"))),
            lambda: send(server, "info"),
        ]
        for act in acts:
            act()
            await settle()
            assert rests()
        for request in (Reply(1), Fail(CRASH), NoReply()):
            spawn(_outcome, server, request)
            await settle()
            assert rests()
        cast(server, lambda: NoReply(timeout_s=60.0))
        await settle()
        assert not rests()
        assert log == ["cast", "next", "info"]


@pytest.mark.parametrize("restart", Restart)
@pytest.mark.parametrize("reason", [NORMAL, SHUTDOWN, DETAIL, KILLED, CRASH])
async def test_the_reason_of_a_stop_decides_of_the_restart(
    clean_node: CleanNode, kind: Kind, restart: Restart, reason: ExitReason
) -> None:
    """[GenServer: How to supervise] The reason that a callback stops with is what the
    supervisor decides by.
    """
    log: Log = []
    async with clean_node() as node:
        spec = child(lambda: kind(log), id="server", name="server", restart=restart)
        await node.start(Supervisor([spec]))
        await settle()
        before = whereis("server")
        cast("server", Stop(reason))
        await settle()
        again = restart is Restart.PERMANENT or (
            restart is Restart.TRANSIENT and reason in {KILLED, CRASH}
        )
        after = whereis("server")
        assert (after is not None) is again
        assert after is not before
        assert log == [("terminate", reason)]
        log.clear()


@pytest.mark.parametrize(
    ("reason", "logged"),
    [(NORMAL, 0), (SHUTDOWN, 0), (DETAIL, 0), (CRASH, 1), (raising(CRASH), 1)],
)
async def test_only_an_abnormal_end_is_logged(
    clean_node: CleanNode,
    kind: Kind,
    way: str,
    caplog: pytest.LogCaptureFixture,
    reason: Any,
    logged: int,
) -> None:
    """[GenServer: terminate] An error is logged unless the reason is normal, shutdown
    or a shutdown with detail.
    """
    async with clean_node() as node:
        for ask in (False, True):
            server = await start(node, kind)
            result = reason if callable(reason) else Stop(reason)
            if ask:
                await _outcome(server, result)
            else:
                cast(server, result)
            await settle()
    assert [r.levelname for r in caplog.records] == ["ERROR"] * 2 * logged
