"""GenServer: calls, casts and messages; deferred replies; when terminate runs."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from atomr.core.exits import KILLED, NORMAL, SHUTDOWN, ExitReason
from atomr.core.messages import Exit
from atomr.errors import (
    CallCycleError,
    CallError,
    CallTimeoutError,
    NoProcessError,
    ServerDownError,
    StartError,
)
from atomr.otp import (
    BRUTAL_KILL,
    DynamicSupervisor,
    From,
    NoReply,
    Registry,
    RegistryRef,
    Reply,
    Restart,
    Stop,
    abcast,
    call,
    cast,
    child,
    multi_call,
    reply,
    start_child,
    terminate_child,
)
from atomr.process import (
    exit_process,
    kill,
    link,
    receive,
    register,
    self_pid,
    send,
    spawn,
    stop,
    unregister,
    wait_exit,
)
from tests.atomr.conformance.kit import (
    CRASH,
    Bare,
    BareTask,
    CleanNode,
    Kind,
    Log,
    ToldTask,
    raising,
    reason_of,
    settle,
    start,
    trap,
)

Clock = trio.testing.MockClock


async def test_messages_of_one_sender_are_handled_in_order_whatever_their_kind(
    clean_node: CleanNode, schedule: int, kind: Kind, way: str
) -> None:
    """[gen_server] Calls, casts and messages of one sender are handled in the order in
    which it sent them.
    """
    log: Log = []
    async with clean_node() as node:
        server = await start(node, kind)

        async def sender(who: int) -> None:
            for n in range(0, 12, 3):
                cast(server, lambda n=n: log.append((who, n)))
                send(server, lambda n=n: log.append((who, n + 1)))

                def handle(_from: From, n: int = n) -> Reply:
                    log.append((who, n + 2))
                    return Reply(None)

                await call(server, handle)

        pids = [spawn(sender, who) for who in range(4)]
        for pid in pids:
            await wait_exit(pid)
    for who in range(4):
        assert [n for by, n in log if by == who] == list(range(12))


async def test_a_call_to_nobody_fails_at_once_and_a_cast_does_nothing(
    clean_node: CleanNode, kind: Kind
) -> None:
    """[GenServer.call/3] A call to a name that nobody has, or to the dead, fails with
      noproc and says what was called.
    [GenServer.cast/2] A cast tells nothing of whether the server exists: neither for
      the dead, nor for a name, nor for a via of a registry that is not there.
    [gen_server:abcast/2] The same for many.
    """
    gone: RegistryRef[str, object] = RegistryRef("gone")
    async with clean_node() as node:
        dead = await start(node, kind)
        kill(dead)
        await settle()
        for nobody in (dead, "nobody", gone.via("key")):
            with pytest.raises(NoProcessError) as caught:
                await call(nobody, "request")
            assert (caught.value.server, caught.value.request) == (nobody, "request")
            cast(nobody, "message")
            send(nobody, "message")
            await stop(nobody)
        abcast([dead, "nobody"], "message")


async def test_a_call_follows_the_process_not_its_name(
    clean_node: CleanNode, autojump_clock: Clock, schedule: int, kind: Kind, way: str
) -> None:
    """[GenServer: Name registration] A name is looked up when the call is made; who
    takes the name meanwhile does not answer.
    """
    froms: list[From] = []
    async with clean_node() as node:
        first = await start(node, kind, name="name")
        async with trio.open_nursery() as nursery:
            got: Log = []

            async def ask() -> None:
                got.append(await call("name", keep))

            def keep(from_: From) -> NoReply:
                froms.append(from_)
                return NoReply()

            nursery.start_soon(ask)
            await settle()
            second = await start(node, kind, id="second")
            cast(first, lambda: unregister_and_pass(second))
            await settle()
            assert await call("name", lambda _from: Reply(self_pid())) is second
            froms[0].reply("of the first")
        assert got == ["of the first"]


def unregister_and_pass(to: Any) -> None:
    unregister("name")
    register("name", to)


async def test_a_deferred_reply_may_come_from_anybody_while_the_server_goes_on(
    clean_node: CleanNode, autojump_clock: Clock, schedule: int, kind: Kind, way: str
) -> None:
    """[GenServer.reply/2] Whoever has the from may reply, also after the callback
      returned, and from another process.
    [GenServer.reply/2] One that is no process may ask, and one may reply to it.
    [gen_server:reply/2] Only the first reply counts.
    """
    froms: list[From] = []

    def keep(from_: From) -> NoReply:
        froms.append(from_)
        return NoReply()

    async def answer(value: int) -> None:
        from_ = froms.pop(0)
        reply(from_, value)
        reply(from_, "too late")

    async with clean_node() as node:
        server = await start(node, kind)
        got: dict[int, object] = {}
        async with trio.open_nursery() as nursery:

            async def ask(n: int) -> None:
                got[n] = await call(server, keep)

            for n in range(3):
                nursery.start_soon(ask, n)
                await settle()
            assert await call(server, Reply("meanwhile")) == "meanwhile"
            for n in range(3):
                spawn(answer, n)
                await settle()
        assert got == {0: 0, 1: 1, 2: 2}


@pytest.mark.parametrize("end", ["stop", "crash", "kill", "exit"])
async def test_callers_of_a_dead_server_hear_at_once_and_a_later_reply_is_nothing(
    clean_node: CleanNode,
    autojump_clock: Clock,
    schedule: int,
    kind: Kind,
    way: str,
    end: str,
) -> None:
    """[gen_server:call/2] The end of the server ends all calls to it, whether they
      wait, are in work or were set aside; nobody waits for the timeout.
    [GenServer.reply/2] differs: a reply after the end of the server reaches nobody. In
      Erlang it may leave a stray message with the caller.
    """
    froms: list[From] = []
    got: Log = []

    def keep(from_: From) -> NoReply:
        froms.append(from_)
        return NoReply()

    ends: dict[str, tuple[Any, ExitReason]] = {
        "stop": (lambda pid: cast(pid, Stop(SHUTDOWN)), SHUTDOWN),
        "crash": (lambda pid: cast(pid, raising(CRASH)), CRASH),
        "kill": (kill, KILLED),
        "exit": (lambda pid: exit_process(pid, SHUTDOWN), SHUTDOWN),
    }
    act, reason = ends[end]
    async with clean_node() as node:
        server = await start(node, kind)

        async def ask(request: Any) -> None:
            with pytest.raises(CallError) as caught:
                await call(server, request, timeout_s=1000)
            got.append((type(caught.value), getattr(caught.value, "reason", None)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, keep)
            nursery.start_soon(ask, keep)
            await settle()
            act(server)
            # Behind what ends the server, or too late to be heard of at all.
            nursery.start_soon(ask, keep)
        assert trio.current_time() < 1
        for from_ in froms:
            from_.reply("late")
    assert got.count((ServerDownError, reason)) >= 2
    assert set(got) <= {(ServerDownError, reason), (NoProcessError, None)}
    assert len(got) == 3


async def test_a_reply_after_the_timeout_is_dropped_and_disturbs_nobody(
    clean_node: CleanNode, autojump_clock: Clock, schedule: int, kind: Kind, way: str
) -> None:
    """[GenServer.call/3] Without a reply in time the caller gets a timeout, by default
      after 5 s; the server goes on with it.
    [GenServer.call/3] differs: the late reply is dropped. In Elixir it may arrive as a
      message, for which callers that catch the timeout have to be ready.
    """
    froms: list[From] = []
    got: Log = []

    def keep(from_: From) -> NoReply:
        froms.append(from_)
        return NoReply()

    async def caller(server: Any) -> None:
        with pytest.raises(CallTimeoutError) as caught:
            await call(server, keep)
        got.append((caught.value.timeout_s, trio.current_time()))
        froms[0].reply("late")
        send(self_pid(), "message")
        got.append(await receive())
        got.append(await call(server, Reply("again")))

    async with clean_node() as node:
        server = await start(node, kind)
        assert await wait_exit(spawn(caller, server)) is NORMAL
        assert froms[0].answered
    assert got == [(5.0, 5.0), "message", "again"]


async def test_waiting_for_a_reply_leaves_other_messages_where_they_are(
    clean_node: CleanNode, schedule: int, kind: Kind, way: str
) -> None:
    """[gen_server:call/2] While a caller waits for its reply, other messages stay in
    its mailbox, in order.
    """
    got: Log = []

    async def caller(server: Any) -> None:
        me = self_pid()

        def handle(from_: From) -> Reply:
            for n in range(3):
                send(me, n)
            return Reply("reply")

        got.append(await call(server, handle))
        got.extend([await receive(lambda m: m == 1), await receive(), await receive()])

    async with clean_node() as node:
        server = await start(node, kind)
        assert await wait_exit(spawn(caller, server)) is NORMAL
    assert got == ["reply", 1, 0, 2]


async def test_a_server_cannot_call_itself(
    clean_node: CleanNode, kind: Kind, way: str
) -> None:
    """[gen_server:call/2] A call to oneself is refused at once, with calling_self."""
    errors: Log = []

    async def call_itself() -> Reply:
        try:
            await call("itself", "request")
        except CallCycleError as error:
            errors.append(error.chain)
        return Reply(1)

    async with clean_node() as node:
        if not issubclass(kind, ToldTask):
            # A plain callback cannot await a call at all.
            return
        server = await start(node, kind, name="itself")
        assert await call(server, lambda _from: call_itself()) == 1
        assert errors == [(server, server)]


async def test_multi_call_waits_for_all_and_each_fails_alone(
    clean_node: CleanNode, autojump_clock: Clock, schedule: int, kind: Kind, way: str
) -> None:
    """[gen_server:multi_call/4] All are asked at the same time; who does not reply in
      time, or is not there, is told apart.
    [gen_server:multi_call/4] No late reply reaches the caller.
    """
    async with clean_node() as node:
        good = await start(node, kind)
        bad = await start(node, kind)

        def handle(_from: From) -> Any:
            if self_pid() is bad:
                return NoReply()
            return Reply(self_pid())

        result = await multi_call([good, bad, "nobody"], handle, timeout_s=2.0)
        assert result.replies == {good: good}
        assert [type(e) for e in result.failures.values()] == [
            CallTimeoutError,
            NoProcessError,
        ]
        assert trio.current_time() == 2.0


@pytest.mark.parametrize("server", [Bare, BareTask])
async def test_a_server_without_the_callback_fails_and_says_which(
    clean_node: CleanNode, caplog: pytest.LogCaptureFixture, server: Any, way: str
) -> None:
    """[GenServer: handle_call] Without the callback, a call makes the server fail.
    [GenServer: handle_cast] Without the callback, a cast makes the server fail.
    [GenServer: handle_info] Without the callback, a message is logged, with its
      content.
    """
    async with clean_node() as node:

        async def fresh() -> Any:
            return await node.start(child(server, restart=Restart.TEMPORARY))

        with pytest.raises(ServerDownError, match="has no handle_call; it got 'q'"):
            await call(await fresh(), "q")
        pid = await fresh()
        reason = await reason_of(pid, lambda: cast(pid, "m"))
        assert str(reason) == f"{server.__name__} has no handle_cast; it got 'm'"
        caplog.clear()
        pid = await fresh()
        send(pid, "unexpected")
        await settle()
        assert f"{server.__name__} got an unexpected message: 'unexpected'" in (
            caplog.text
        )


# How it ends: the reason, whether terminate runs when it does not trap exits, and
# when it does.
TERMINATE: dict[str, tuple[Any, ExitReason, bool, bool]] = {
    "a callback stops": (partial(cast, message=Stop(SHUTDOWN)), SHUTDOWN, True, True),
    "a callback raises": (partial(cast, message=raising(CRASH)), CRASH, True, True),
    "it is killed": (kill, KILLED, False, False),
    "a signal": (lambda pid: exit_process(pid, SHUTDOWN), SHUTDOWN, False, False),
    "its own signal": (
        partial(cast, message=lambda: exit_process(self_pid(), SHUTDOWN)),
        SHUTDOWN,
        False,
        False,
    ),
}


@pytest.mark.parametrize("trapping", [False, True], ids=["plain", "trapping"])
async def test_when_terminate_runs(
    clean_node: CleanNode, schedule: int, kind: Kind, trapping: bool
) -> None:
    """[GenServer: terminate] It runs when a callback stops or raises.
    [GenServer: terminate] It does not run on a kill, nor on a signal that is not
      trapped; a signal of others that is trapped is a message.
    """
    got: dict[str, object] = {}
    async with clean_node() as node:
        for name, (act, _, _, _) in TERMINATE.items():
            log: Log = []
            server = await start(node, kind, log, init=trap if trapping else None)
            process = node.processes[server.number]
            act(server)
            await settle()
            got[name] = (process.reason, log)
            kill(server)
    expected: dict[str, object] = {}
    for name, (_, reason, plain, trapped) in TERMINATE.items():
        runs = trapped if trapping else plain
        expected[name] = (reason, [("terminate", reason)] if runs else [])
    if trapping:
        expected["a signal"] = (None, [Exit(None, SHUTDOWN)])
        by_itself = got["its own signal"]
        assert by_itself[0] is None  # type: ignore[index]
        assert by_itself[1][0].reason is SHUTDOWN  # type: ignore[index]
        expected["its own signal"] = by_itself
    assert got == expected


@pytest.mark.parametrize("trapping", [False, True], ids=["plain", "trapping"])
@pytest.mark.parametrize("shutdown", [BRUTAL_KILL, 3.0])
async def test_a_supervisors_stop_runs_terminate_unless_it_is_brutal(
    clean_node: CleanNode,
    autojump_clock: Clock,
    schedule: int,
    kind: Kind,
    trapping: bool,
    shutdown: Any,
) -> None:
    """[GenServer: terminate] With a shutdown time, the supervisor's stop runs terminate
      with shutdown; with brutal_kill it does not run.
    [GenServer: terminate] differs: it runs whether or not the server traps exits. That
      a cleanup is forgotten because a flag was is a well-known mistake; who wants none
      writes none.
    """
    log: Log = []
    async with clean_node() as node:
        top = await node.start(DynamicSupervisor())
        init = trap if trapping else None
        spec = child(lambda: kind(log, init), id="server", shutdown=shutdown)
        pid = await start_child(top, spec)
        await settle()
        process = node.processes[pid.number]
        await terminate_child(top, pid)
        if shutdown is BRUTAL_KILL:
            assert (process.reason, log) == (KILLED, [])
        else:
            assert (process.reason, log) == (SHUTDOWN, [("terminate", SHUTDOWN)])


async def test_a_stop_is_seen_before_the_messages_that_wait(
    clean_node: CleanNode, schedule: int, kind: Kind
) -> None:
    """[GenServer: terminate] differs: a stop is seen before the messages that wait.
    OTP's comes in line with them, so that a long mailbox may use the shutdown time up
    before it is read.
    """
    log: Log = []
    async with clean_node() as node:
        server = await start(node, kind, log)
        for n in range(100):
            cast(server, partial(log.append, n))
        await stop(server, SHUTDOWN)
    assert log == [("terminate", SHUTDOWN)]


@pytest.mark.parametrize("reason", [NORMAL, SHUTDOWN, CRASH])
async def test_stop_waits_for_the_end_and_gives_the_reason(
    clean_node: CleanNode, schedule: int, kind: Kind, reason: ExitReason
) -> None:
    """[GenServer.stop/3] Stops the server with the given reason, after terminate, and
      returns when it has ended.
    [GenServer.stop/3] differs: a server that is not there is as good as stopped. Elixir
      exits with noproc.
    """
    log: Log = []
    async with clean_node() as node:
        server = await start(node, kind, log)
        process = node.processes[server.number]
        await stop(server, reason)
        assert (process.reason, log) == (reason, [("terminate", reason)])
        await stop(server, reason)


async def test_a_linked_end_runs_no_terminate_unless_it_is_trapped(
    clean_node: CleanNode, schedule: int, kind: Kind
) -> None:
    """[GenServer: terminate] A server that does not trap exits ends abruptly with a
    linked process, without terminate.
    """
    log: Log = []
    async with clean_node() as node:
        server = await start(node, kind, log)
        other = await start(node, kind)
        cast(server, partial(link, other))
        await settle()
        assert await reason_of(server, partial(kill, other)) is KILLED
    assert log == []


async def test_a_via_name_is_a_name_everywhere(
    clean_node: CleanNode, schedule: int, kind: Kind, way: str
) -> None:
    """[GenServer: Name registration] A via name works in start, call, cast, send and
    stop, and is free after the end.
    """
    rooms: RegistryRef[str, object] = RegistryRef("rooms")
    name = rooms.via("key")
    log: Log = []
    async with clean_node() as node:
        await node.start(child(Registry, name="rooms"))
        server = await start(node, kind, log, name=name)
        assert await call(name, lambda _from: Reply(self_pid())) is server
        cast(name, partial(log.append, "cast"))
        send(name, "message")
        await settle()
        await stop(name)
        assert log == ["cast", "message", ("terminate", NORMAL)]
        assert rooms.whereis("key") is None


async def test_a_name_that_cannot_be_registered_is_a_failed_start(
    clean_node: CleanNode, kind: Kind
) -> None:
    """[GenServer: Name registration] When the name cannot be registered the start
    fails, and no process is left.
    """
    gone: RegistryRef[str, object] = RegistryRef("gone")
    async with clean_node() as node:
        with pytest.raises(StartError):
            await start(node, kind, name=gone.via("key"))
        assert node.processes == {}
        top = await node.start(DynamicSupervisor())
        with pytest.raises(StartError):
            await start_child(
                top, child(lambda: kind([]), id="x", name=gone.via("key"))
            )
        assert set(node.processes) == {top.number}
