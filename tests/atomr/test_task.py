"""Task: one function as a process, and those who wait for its value."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeAlias

import pytest
import trio
import trio.testing

from atomr.core.child_spec import BRUTAL_KILL, INFINITY, ShutdownTime
from atomr.core.exits import KILLED, NORMAL, SHUTDOWN, ExitReason
from atomr.core.messages import Exit
from atomr.errors import (
    NoNodeError,
    NotAProcessError,
    TaskExitError,
    TaskTimeoutError,
)
from atomr.otp import (
    Done,
    Exited,
    From,
    GenServer,
    NoReply,
    OnTimeout,
    Reply,
    Restart,
    Supervisor,
    Task,
    TaskEnded,
    TaskSupervisor,
    async_,
    async_nolink,
    await_many,
    call,
    callers,
    child,
    yield_many,
)
from atomr.process import (
    Node,
    exit_process,
    is_alive,
    kill,
    open_node,
    receive,
    self_pid,
    send,
    spawn,
    trap_exit,
    wait_exit,
)

if TYPE_CHECKING:
    from atomr.refs import Pid

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]
settle = trio.testing.wait_all_tasks_blocked
CRASH = ValueError("x")


async def crash() -> int:
    raise CRASH


async def give(value: int, *, after_s: float = 0.0) -> int:
    await trio.sleep(after_s)
    return value


async def later(value: int, after_s: float) -> int:
    return await give(value, after_s=after_s)


async def forever() -> int:
    await trio.sleep_forever()


async def process_of(fn: Callable[[], Awaitable[object]]) -> ExitReason:
    """Run ``fn`` as a process, and return why it ended."""
    return await wait_exit(spawn(fn))


# --- values and errors ----------------------------------------------------------


async def test_a_task_gives_its_value_to_whoever_waits_and_keeps_it(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    """[Task.await/2] Waits for the task, and returns its value.
    [Task.await/2] differs: anybody may wait, several at a time, and as often as they
      like. In Elixir only the owner may, once: the value is a message in its mailbox.
    """
    got: list[int] = []

    async with clean_node():
        task = Task.async_(later, 7, 3.0)

        async def wait() -> None:
            got.append(await task.result())

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
        got.append(await task.result(timeout_s=0))
        pid = task.pid
        assert pid is not None
        assert not is_alive(pid)

    assert got == [7, 7, 7, 7]
    assert trio.current_time() == 3.0
    assert task.outcome == Done(7)
    assert await task.yield_() == Done(7)


async def test_what_a_task_raises_reaches_the_caller_with_its_traceback(
    clean_node: CleanNode, schedule: int
) -> None:
    """[Task.await/2] differs: who waits and is not linked gets TaskExitError, with the
    reason. In Elixir it exits with that reason.
    """
    async with clean_node():
        task = Task.async_(crash)
        with pytest.raises(TaskExitError, match="ended without a value") as caught:
            await task.result()
        assert task.outcome == Exited(CRASH)

    error = caught.value
    assert (error.task, error.reason, error.__cause__) == (task.pid, CRASH, CRASH)
    assert error.__cause__ is not None
    frames = []
    traceback = error.__cause__.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert frames[-1] == "crash"


async def test_the_group_of_a_nursery_is_unwrapped_if_it_holds_one_error(
    clean_node: CleanNode,
) -> None:
    other = KeyError("y")

    async def fail(error: Exception) -> None:
        raise error

    async def in_a_nursery(*errors: Exception) -> None:
        async with trio.open_nursery() as nursery:
            for error in errors:
                nursery.start_soon(fail, error)

    async with clean_node():
        one = await Task.async_(in_a_nursery, CRASH).yield_()
        two = await Task.async_(in_a_nursery, CRASH, other).yield_()

    assert one == Exited(CRASH)
    assert isinstance(two, Exited)
    assert isinstance(two.reason, ExceptionGroup)
    assert set(two.reason.exceptions) == {CRASH, other}


async def test_a_completed_task_needs_no_process_and_no_node() -> None:
    """[Task.completed/1] A task that has its value already: it has no process, and can
    be waited for, ignored and shut down as any other.
    """
    task = Task.completed("known")

    assert (task.pid, task.owner, task.outcome) == (None, None, Done("known"))
    assert await task.result() == "known"
    assert await task.yield_(timeout_s=0) == Done("known")
    assert task.ignore() == Done("known")
    assert await task.shutdown() == Done("known")


async def test_none_is_a_value_like_any_other(clean_node: CleanNode) -> None:
    async def nothing() -> None:
        pass

    async with clean_node():
        task = Task.async_(nothing)
        await task.result()
        assert task.outcome == Done(None)


async def test_a_task_that_ends_itself_normally_has_no_value(
    clean_node: CleanNode,
) -> None:
    async def leave() -> int:
        exit_process(self_pid(), NORMAL)
        await trio.sleep_forever()

    async with clean_node():
        task = Task.async_(leave)
        with pytest.raises(TaskExitError):
            await task.result()
        assert task.outcome == Exited(NORMAL)


async def test_a_task_needs_a_node() -> None:
    with pytest.raises(NoNodeError):
        Task.async_(crash)


async def test_waiting_is_always_a_checkpoint(clean_node: CleanNode) -> None:
    task = Task.completed(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await task.result()
    assert scope.cancelled_caught
    with trio.CancelScope() as scope:
        scope.cancel()
        await await_many([])
    assert scope.cancelled_caught


async def test_a_task_cannot_wait_for_its_own_end(clean_node: CleanNode) -> None:
    tasks: list[Task[None]] = []

    async def wait() -> None:
        await tasks[0].result()

    async def wait_in_a_helper() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)

    async def wait_for_many() -> None:
        await await_many([Task.completed(None), *tasks])

    async with clean_node():
        for fn in (wait, wait_in_a_helper, wait_for_many):
            tasks[:] = [Task.async_(fn)]
            outcome = await tasks[0].yield_()
            assert isinstance(outcome, Exited)
            assert isinstance(outcome.reason, NotAProcessError)


# --- timeouts and cancellation ---------------------------------------------------


async def test_a_timeout_raises_in_the_caller_and_the_task_goes_on(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    """[Task.await/2] Without a value in time the wait fails, by default after 5 s; a
    task that is not linked goes on.
    """
    async with clean_node():
        task = Task.async_(later, 1, 8.0)
        with pytest.raises(TaskTimeoutError) as caught:
            await task.result()
        assert (caught.value.task, caught.value.timeout_s) == (task.pid, 5.0)
        assert trio.current_time() == 5.0
        with pytest.raises(TaskTimeoutError):
            await task.result(timeout_s=0)
        assert await task.result(timeout_s=None) == 1
        assert trio.current_time() == 8.0


async def test_a_process_that_lets_the_timeout_end_it_takes_its_task_along(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    """[Task.await/2] A caller that ends with the timeout takes its task along."""
    tasks = []

    async def impatient() -> None:
        tasks.append(Task.async_(forever))
        await tasks[0].result(timeout_s=1)

    async with clean_node():
        reason = await process_of(impatient)
        assert isinstance(reason, TaskTimeoutError)
        assert await tasks[0].yield_() == Exited(reason)


async def test_yield_looks_as_often_as_one_likes(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    """[Task.yield/2] Nothing when no value has come in time, by default 5 s; it may be
    asked again, and the task goes on.
    """
    async with clean_node():
        task = Task.async_(later, 1, 8.0)
        assert await task.yield_(timeout_s=0) is None
        assert await task.yield_() is None
        assert await task.yield_() == Done(1)
        assert trio.current_time() == 8.0


async def test_a_reply_at_the_moment_of_the_timeout_is_a_reply(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    async with clean_node():
        task = Task.async_(later, 1, 5.0)
        outcome = await task.yield_(timeout_s=5.0)
        assert outcome in (Done(1), None)
        assert await task.result(timeout_s=1) == 1


async def test_a_cancelled_wait_leaves_the_task_alone(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async with clean_node() as node:
        task = Task.async_(later, 1, 3.0)
        for wait in (task.result(), task.yield_(), await_many([task])):
            with trio.move_on_after(0.5) as scope:
                await wait
            assert scope.cancelled_caught
        assert node.timers.size == 0
        assert await task.result() == 1


# --- links ------------------------------------------------------------------------


async def test_a_linked_caller_ends_with_the_tasks_own_reason(
    clean_node: CleanNode, schedule: int, caplog: pytest.LogCaptureFixture
) -> None:
    """[Task.await/2] When the task dies its caller ends with the same reason."""
    seen: list[str] = []

    async def caller() -> None:
        try:
            await Task.async_(crash).result()
        finally:
            seen.append("unwound")

    async with clean_node():
        assert await process_of(caller) is CRASH

    assert seen == ["unwound"]
    crashed = [r.message for r in caplog.records if "crashed" in r.message]
    assert len(crashed) == 1  # the caller did not crash: it was ended


async def test_a_linked_caller_that_does_not_wait_ends_too(
    clean_node: CleanNode, schedule: int
) -> None:
    """[Task.async/1] The task is linked to its caller: if it fails the caller fails,
    waiting or not.
    """

    async def caller() -> None:
        Task.async_(crash)
        await trio.sleep_forever()

    async with clean_node():
        assert await process_of(caller) is CRASH


async def test_a_caller_that_traps_exits_gets_both_error_and_message(
    clean_node: CleanNode, schedule: int
) -> None:
    """[Task.async/1] A caller that traps exits lives; its wait fails all the same."""
    got: list[object] = []

    async def caller() -> None:
        trap_exit(True)
        task = Task.async_(crash)
        with pytest.raises(TaskExitError):
            await task.result()
        got.append(await receive() == Exit(task.pid, CRASH))

    async with clean_node():
        assert await process_of(caller) is NORMAL
    assert got == [True]


@pytest.mark.parametrize(("reason", "ends"), [(CRASH, True), (NORMAL, False)])
async def test_the_end_of_a_caller_ends_its_task_unless_it_was_normal(
    clean_node: CleanNode, schedule: int, reason: ExitReason, ends: bool
) -> None:
    """[Task.async/1] The end of the caller ends the task.
    [Task.shutdown/2] Unless the caller ends with normal, which a task survives.
    """
    tasks = []

    async def caller() -> None:
        tasks.append(Task.async_(forever))
        await trio.lowlevel.checkpoint()
        exit_process(self_pid(), reason)
        await trio.sleep_forever()

    async with clean_node():
        assert await process_of(caller) is reason
        await settle()
        assert tasks[0].outcome == (Exited(reason) if ends else None)


async def test_the_cancellation_of_a_caller_ends_its_task(
    clean_node: CleanNode, schedule: int
) -> None:
    tasks = []

    async def caller() -> None:
        tasks.append(Task.async_(forever))
        await tasks[0].result(timeout_s=None)

    async with clean_node():
        pid = spawn(caller)
        await settle()
        kill(pid)
        assert await wait_exit(pid) is KILLED
        assert await tasks[0].yield_() == Exited(KILLED)


async def test_from_a_trio_task_that_is_no_process_nothing_is_linked(
    clean_node: CleanNode, schedule: int
) -> None:
    """[Task.async/1] differs: a caller that is no process has nothing to link. In
    Elixir all code runs in a process.
    """
    async with clean_node() as node:
        failed = Task.async_(crash)
        running = Task.async_(forever)
        assert (failed.owner, running.owner) == (None, None)
        await settle()
        assert failed.outcome == Exited(CRASH)
        assert running.outcome is None
        assert node.size == 1
    assert running.outcome == Exited(SHUTDOWN)


async def test_a_caller_that_has_ended_is_linked_to_nothing(
    clean_node: CleanNode,
) -> None:
    tasks: list[Task[int]] = []

    async with clean_node(), trio.open_nursery() as nursery:

        async def outlives_its_process() -> None:
            await settle()
            tasks.append(Task.async_(give, 1))
            await tasks[0].result()

        async def caller() -> None:
            nursery.start_soon(outlives_its_process)

        assert await process_of(caller) is NORMAL
    assert tasks[0].owner is None
    assert tasks[0].outcome == Done(1)


async def test_an_ignored_task_goes_on_when_its_caller_ends(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    """[Task.ignore/1] The task is unlinked and goes on; its outcome if it has ended."""
    tasks = []

    async def caller() -> None:
        task = Task.async_(later, 1, 3.0)
        tasks.append(task)
        task.notify()
        assert task.ignore() is None
        raise CRASH

    async with clean_node():
        assert await process_of(caller) is CRASH
        assert await tasks[0].result() == 1
        assert tasks[0].ignore() == Done(1)


# --- shutdown ------------------------------------------------------------------------


async def stubborn(cleanup_s: float) -> int:
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(cleanup_s)


async def test_shutdown_cancels_a_task_and_waits_for_its_end(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    """[Task.shutdown/2] Asks the task to end, by default within 5 s, and waits for it;
    nothing when it ended so.
    """
    async with clean_node():
        task = Task.async_(stubborn, 2.0)
        await settle()
        assert await task.shutdown() is None
        assert trio.current_time() == 2.0
        assert task.outcome == Exited(SHUTDOWN)
        with pytest.raises(TaskExitError):
            await task.result()
        assert await task.shutdown() is None


async def test_a_task_that_shields_delays_even_its_kill(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async with clean_node():
        task = Task.async_(stubborn, 30.0)
        await settle()
        assert await task.shutdown(BRUTAL_KILL) is None
        assert (trio.current_time(), task.outcome) == (30.0, Exited(KILLED))


async def test_a_task_that_was_stopped_before_it_ran_never_runs(
    clean_node: CleanNode, schedule: int
) -> None:
    ran = []

    async def run() -> None:
        ran.append(1)

    async with clean_node():
        assert await Task.async_(run).shutdown() is None
    assert ran == []


async def test_a_value_that_comes_meanwhile_is_not_lost(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    """[Task.shutdown/2] A value that comes while it is shut down is returned."""

    async def finishes() -> int:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
        return 1

    async with clean_node():
        task = Task.async_(finishes)
        assert (await task.yield_(timeout_s=1) or await task.shutdown()) == Done(1)
        assert trio.current_time() == 2.0


async def test_a_task_that_traps_exits_is_asked_and_has_the_time_it_is_given(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    """[Task.shutdown/2] One that traps exits gets the signal shutdown, and is killed
    when its time is over.
    """

    async def asked(answers: bool) -> str:
        trap_exit(True)
        while True:
            message = await receive()
            assert isinstance(message, Exit)
            if answers:
                return f"told {message.reason}"

    async with clean_node():
        polite, deaf = Task.async_(asked, True), Task.async_(asked, False)
        await settle()
        assert await polite.shutdown(3.0) == Done("told SHUTDOWN")
        assert await deaf.shutdown(3.0) == Exited(KILLED)
        assert trio.current_time() == 3.0


@pytest.mark.parametrize("shutdown", [5.0, 5, BRUTAL_KILL, INFINITY])
async def test_the_shutdown_of_a_task_that_crashed_says_so(
    clean_node: CleanNode, shutdown: ShutdownTime
) -> None:
    """[Task.shutdown/2] The reason of a task that died before.
    [Task.shutdown/2] differs: an abnormal one too. Elixir exits with it.
    """
    async with clean_node():
        task = Task.async_(crash)
        await task.yield_()
        assert await task.shutdown(shutdown) == Exited(CRASH)


async def test_a_shutdown_does_not_end_the_caller(
    clean_node: CleanNode, schedule: int
) -> None:
    """[Task.shutdown/2] The task is unlinked first: its end is not the caller's."""

    async def caller() -> None:
        assert await Task.async_(forever).shutdown() is None
        assert await Task.async_(forever).shutdown(BRUTAL_KILL) is None

    async with clean_node():
        assert await process_of(caller) is NORMAL


async def test_a_cancelled_shutdown_goes_on(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async with clean_node():
        task = Task.async_(stubborn, 2.0)
        await settle()
        with trio.move_on_after(1.0) as scope:
            await task.shutdown()
        assert scope.cancelled_caught
        assert await task.yield_() == Exited(SHUTDOWN)
        assert trio.current_time() == 2.0


async def test_leaving_the_node_ends_tasks_and_their_handles_know(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    with trio.move_on_after(1.0):
        async with open_node() as node:
            await node.start(child(TaskSupervisor, name="tasks"))
            tasks = [Task.async_(forever), async_("tasks", forever)]
            await trio.sleep_forever()

    assert [task.outcome for task in tasks] == [Exited(SHUTDOWN)] * 2


# --- several ------------------------------------------------------------------------


async def test_the_values_of_many_come_in_the_order_asked_for(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    """[Task.await_many/2] The values, in the order of the tasks."""
    async with clean_node():
        tasks = [Task.async_(later, n, 4.0 - n) for n in range(4)]
        tasks += [Task.completed(9), tasks[0]]
        assert await await_many(tasks) == [0, 1, 2, 3, 9, 0]
        assert trio.current_time() == 4.0
        assert await await_many(tasks, timeout_s=0) == [0, 1, 2, 3, 9, 0]


async def test_the_first_failure_of_many_is_raised_at_once(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    """[Task.await_many/2] If one dies the wait fails at once, with its reason."""

    async def fail_later() -> int:
        await trio.sleep(1)
        raise CRASH

    async with clean_node():
        slow, failing = Task.async_(later, 1, 3.0), Task.async_(fail_later)
        for _ in range(2):
            with pytest.raises(TaskExitError) as caught:
                await await_many([slow, failing])
            assert (caught.value.task, caught.value.reason) == (failing.pid, CRASH)
            assert trio.current_time() == 1.0
        assert await slow.result() == 1


async def test_a_timeout_of_many_names_the_first_that_runs(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    """[Task.await_many/2] One timeout for all, by default 5 s."""
    async with clean_node():
        tasks = [Task.async_(later, n, n * 4.0) for n in range(4)]
        with pytest.raises(TaskTimeoutError) as caught:
            await await_many(tasks)
        assert (caught.value.task, trio.current_time()) == (tasks[2].pid, 5.0)
        assert await await_many(tasks, timeout_s=None) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("on_timeout", "late"),
    [
        (OnTimeout.NOTHING, Done(2)),
        (OnTimeout.IGNORE, Done(2)),
        (OnTimeout.KILL_TASK, Exited(KILLED)),
    ],
)
async def test_those_that_are_late_are_let_go_ignored_or_killed(
    clean_node: CleanNode,
    autojump_clock: trio.testing.MockClock,
    on_timeout: OnTimeout,
    late: object,
) -> None:
    """[Task.yield_many/2] Each task with its outcome, in order; nothing for those that
      still run.
    [Task.yield_many/2] on_timeout: they are left alone, ignored or killed.
    """
    async with clean_node():
        early, slow = Task.async_(later, 1, 1.0), Task.async_(later, 2, 9.0)
        found = await yield_many([slow, early], on_timeout=on_timeout)
        assert found == [(slow, None), (early, Done(1))]
        assert trio.current_time() == 5.0
        assert await slow.yield_() == late


async def test_who_ignores_the_late_outlives_their_crashes(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async def crash_later() -> None:
        await trio.sleep(9)
        raise CRASH

    lived: list[bool] = []

    async def own(on_timeout: OnTimeout) -> None:
        await yield_many([Task.async_(crash_later)], on_timeout=on_timeout)
        await trio.sleep(9)
        lived.append(True)

    async with clean_node():
        assert await wait_exit(spawn(own, OnTimeout.IGNORE)) is NORMAL
        assert await wait_exit(spawn(own, OnTimeout.NOTHING)) is CRASH
        assert lived == [True]


async def test_one_that_is_killed_and_returns_all_the_same_is_done(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async def at_the_last_moment() -> int:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
        return 7

    async with clean_node():
        tasks = [Task.async_(at_the_last_moment), Task.async_(later, 2, 9.0)]
        found = await yield_many(tasks, timeout_s=1, on_timeout=OnTimeout.KILL_TASK)
        assert found == [(tasks[0], Done(7)), (tasks[1], None)]


async def test_those_that_are_killed_end_at_the_same_time(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async with clean_node():
        tasks = [Task.async_(stubborn, 2.0) for _ in range(5)]
        await yield_many(tasks, timeout_s=1, on_timeout=OnTimeout.KILL_TASK)
        assert trio.current_time() == 3.0


async def test_with_a_limit_no_more_than_those_are_waited_for(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    """[Task.yield_many/2] With a limit it returns when so many have ended, and then
    on_timeout does not count.
    """
    async with clean_node():
        tasks = [Task.async_(later, n, float(n)) for n in (4, 1, 2, 3)]
        for limit, now in ((2, 2.0), (1, 2.0)):
            found = await yield_many(tasks, limit=limit, on_timeout=OnTimeout.KILL_TASK)
            assert [outcome for _, outcome in found] == [None, Done(1), Done(2), None]
            assert trio.current_time() == now
        assert await await_many(tasks) == [4, 1, 2, 3]


async def test_waiting_for_many_costs_a_wake_not_a_wake_each(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async with clean_node() as node:
        tasks = [Task.async_(later, n, n / 1000) for n in range(500)]
        assert await await_many(tasks) == list(range(500))
        assert len(node.spots) == 1


# --- messages -----------------------------------------------------------------------


async def test_a_server_is_told_of_the_end_and_serves_meanwhile(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    """[Task.await/2: OTP behaviours] A server gets the outcome of its task as a
      message, and serves meanwhile.
    [Task.await/2: OTP behaviours] differs: one message says how it ended, and comes to
      who asks for it by notify. Elixir sends two, a value and a DOWN, to every owner;
      that is why it has to await.
    """

    class Fetcher(GenServer):
        """Plain callbacks only: it has no task, and still starts some."""

        def __init__(self) -> None:
            self.asked: dict[Task[int], From] = {}

        def handle_call(self, request: object, from_: From) -> Reply | NoReply:
            if request == "size":
                return Reply(len(self.asked))
            fn = crash if request == "crash" else forever
            task = async_nolink("tasks", later, 1, 2.0)
            if request != "value":
                task = async_nolink("tasks", fn)
            task.notify()
            self.asked[task] = from_
            return NoReply()

        def handle_info(self, message: TaskEnded[int]) -> None:
            self.asked.pop(message.task).reply(message.outcome)

    async with clean_node() as node:
        await node.start(child(TaskSupervisor, name="tasks"))
        await node.start(child(Fetcher, name="fetcher"))
        outcomes = {}

        async def ask(request: str) -> None:
            outcomes[request] = await call("fetcher", request)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "value")
            nursery.start_soon(ask, "crash")
            await trio.sleep(1)
            assert await call("fetcher", "size") == 1
        assert outcomes == {"value": Done(1), "crash": Exited(CRASH)}


async def test_who_asks_for_a_message_afterwards_gets_it_at_once(
    clean_node: CleanNode,
) -> None:
    got: list[object] = []

    async def asker() -> None:
        task = Task.completed(1)
        task.notify()
        got.append(await receive() == TaskEnded(task, Done(1)))

    async with clean_node():
        await process_of(asker)
        with pytest.raises(NotAProcessError):
            Task.completed(1).notify()
    assert got == [True]


async def test_messages_to_an_asker_that_ended_go_nowhere(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async with clean_node():
        task = Task.async_(later, 1, 2.0)

        async def asker() -> None:
            task.notify()

        async def two() -> None:
            task.notify()
            task.notify()
            first, second = await receive(), await receive()
            assert first == second == TaskEnded(task, Done(1))

        await process_of(asker)
        assert await process_of(two) is NORMAL


# --- callers, context and reports -----------------------------------------------------


async def test_a_task_knows_who_asked_for_it_nearest_first(
    clean_node: CleanNode,
) -> None:
    """[Task: Ancestor and Caller Tracking] callers are those who asked, the nearest
    first; the supervisor that started it is none.
    """
    known: dict[str, tuple[object, ...]] = {}

    async def inner() -> None:
        known["inner"] = callers()
        async with trio.open_nursery() as nursery:

            async def helper() -> None:
                known["helper"] = callers()

            nursery.start_soon(helper)

    async def outer() -> None:
        known["outer"] = callers()
        known["outer's pid"] = (self_pid(),)
        await async_("tasks", inner).result()

    async def main() -> None:
        known["main's pid"] = (self_pid(),)
        known["main"] = callers()
        await async_nolink("tasks", outer).result()

    async with clean_node() as node:
        await node.start(child(TaskSupervisor, name="tasks"))
        assert callers() == ()
        assert await process_of(main) is NORMAL
        await Task.async_(inner).result()
        assert known["inner"] == ()
        assert await process_of(main) is NORMAL

    assert known["main"] == ()
    assert known["outer"] == known["main's pid"]
    assert known["inner"] == known["outer's pid"] + known["main's pid"]
    assert known["helper"] == known["inner"]


async def test_the_caller_of_a_task_that_a_handler_starts_is_its_server(
    clean_node: CleanNode, schedule: int
) -> None:
    async def known() -> tuple[Pid, ...]:
        return callers()

    class Plain(GenServer):
        def handle_call(self, request: str, from_: From) -> NoReply:
            task = async_nolink("tasks", known)
            task.notify()
            self.asked = from_
            return NoReply()

        def handle_info(self, message: TaskEnded[tuple[Pid, ...]]) -> None:
            self.asked.reply(message.outcome)

    class Waits(GenServer):
        async def handle_call(self, request: str, from_: From) -> Reply:
            return Reply(await async_("tasks", known).yield_())

    async def main() -> None:
        for server in (Plain, Waits):
            pid = await node.start(child(server, id=server.__name__))
            assert await call(pid, "who?") == Done((pid,))

    async with clean_node() as node:
        await node.start(child(TaskSupervisor, name="tasks"))
        await main()
        assert await process_of(main) is NORMAL


async def test_tasks_that_start_each_other_do_not_pile_up_callers(
    clean_node: CleanNode,
) -> None:
    """[Task: Ancestor and Caller Tracking] differs: the nearest 32 are kept. A task
    that starts the next, for ever, would keep them all.
    """
    known = []

    async def relay(left: int) -> None:
        known.append(callers())
        if left:
            async_nolink("tasks", relay, left - 1)

    async with clean_node() as node:
        await node.start(child(TaskSupervisor, name="tasks"))
        async_nolink("tasks", relay, 100)
        await settle()

    assert [len(found) for found in known] == [*range(32), *[32] * 69]
    assert known[-1][1:] == known[-2][:-1]


async def test_a_task_sees_the_context_variables_of_its_caller(
    clean_node: CleanNode,
) -> None:
    request: ContextVar[str] = ContextVar("request", default="none")

    async def read() -> str:
        return request.get()

    async with clean_node() as node:
        await node.start(child(TaskSupervisor, name="tasks"))
        request.set("r1")
        supervised, alone = async_("tasks", read), Task.async_(read)
        request.set("r2")
        assert [await supervised.result(), await alone.result()] == ["r1", "r1"]


async def test_the_report_of_a_crash_says_what_was_called_and_by_whom(
    clean_node: CleanNode, caplog: pytest.LogCaptureFixture
) -> None:
    """[Task: Ancestor and Caller Tracking] The report of a crash has the callers.
    [Task] A task that fails is logged, with what was called.
    """

    async def divide(total: int, by: str) -> None:
        raise CRASH

    async def main() -> None:
        await async_nolink("tasks", divide, 1, "0").yield_()

    async with clean_node() as node:
        top = await node.start(child(TaskSupervisor, name="tasks"))
        pid = spawn(main)
        await wait_exit(pid)

    [report] = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "divide> crashed: ValueError('x')" in report.message
    assert "state: divide(1, '0')\n" in report.message
    assert f"callers: {pid!r}" in report.message
    assert f"ancestors: {top!r}" in report.message
    assert report.exc_info is not None


# --- as a child ----------------------------------------------------------------------


async def test_a_task_as_a_child_runs_once_and_is_forgotten(
    clean_node: CleanNode, caplog: pytest.LogCaptureFixture, schedule: int
) -> None:
    """[Task: Statically supervised tasks] As a child it is temporary: it runs once,
      crash or not, and its supervisor does not wait for it.
    [Task.child_spec/1] differs: the id is the function's name. In Elixir it is Task, so
      that two need ids.
    """
    ran: list[str] = []

    async def warm_up(name: str) -> None:
        ran.append(name)
        if name == "b":
            raise CRASH

    spec = Task.child(warm_up, "a")
    assert (spec.id, spec.restart) == ("warm_up", Restart.TEMPORARY)
    async with clean_node() as node:
        children = [spec, Task.child(warm_up, "b", id="second")]
        top = await node.start(Supervisor(children))
        await settle()
        assert is_alive(top)
    assert sorted(ran) == ["a", "b"]


async def test_a_task_as_a_child_may_be_restarted(
    clean_node: CleanNode, schedule: int
) -> None:
    """[Task: Statically supervised tasks] A transient one is restarted until it
    succeeds.
    """
    ran: list[int] = []

    async def flaky() -> None:
        ran.append(1)
        if len(ran) < 3:
            raise CRASH

    async with clean_node() as node:
        spec = Task.child(flaky, restart=Restart.TRANSIENT, name="flaky")
        await node.start(Supervisor([spec]))
        await settle()
    assert len(ran) == 3


# --- what is kept ------------------------------------------------------------------


async def test_a_kept_handle_keeps_neither_process_nor_arguments(
    clean_node: CleanNode,
) -> None:
    class Big:
        pass

    async def use(big: Big) -> int:
        return 1

    async with clean_node() as node:
        big = Big()
        gone: weakref.ref[Big] = weakref.ref(big)
        task = Task.async_(use, big)
        assert task.pid is not None
        process = weakref.ref(node.processes[task.pid.number])
        del big
        await task.result()
        gc.disable()
        try:
            await settle()
            assert gone() is None
            assert process() is None
        finally:
            gc.enable()
        assert await task.result() == 1


async def test_a_message_sent_to_a_task_is_received_there(
    clean_node: CleanNode,
) -> None:
    async with clean_node():
        task = Task.async_(receive)
        assert task.pid is not None
        send(task.pid, "hello")
        assert await task.result() == "hello"
