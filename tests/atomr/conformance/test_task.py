"""Task: how it ends x how it is linked x whether its caller traps exits."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from atomr.core.exits import KILLED, NORMAL, SHUTDOWN, ExitReason
from atomr.core.messages import Exit
from atomr.errors import TaskExitError
from atomr.otp import (
    Done,
    Exited,
    Task,
    TaskSupervisor,
    async_,
    async_nolink,
    child,
)
from atomr.process import (
    exit_process,
    kill,
    receive,
    self_pid,
    spawn,
    trap_exit,
    wait_exit,
)
from tests.atomr.conformance.kit import (
    CRASH,
    DETAIL,
    CleanNode,
    Log,
    raising,
    reason_of,
    settle,
)

if TYPE_CHECKING:
    from collections.abc import Callable

Clock = trio.testing.MockClock
STARTS: dict[str, tuple[Any, bool]] = {
    "alone": (Task.async_, True),
    "supervised": (partial(async_, "tasks"), True),
    "not linked": (partial(async_nolink, "tasks"), False),
}


def _exit(reason: ExitReason) -> Callable[[], object]:
    return lambda: exit_process(self_pid(), reason)


# What a task does after a while, and the reason that it ends with.
ENDS: dict[str, tuple[Callable[[], object], ExitReason]] = {
    "returns": (lambda: 7, NORMAL),
    "raises": (raising(CRASH), CRASH),
    "ends normally": (_exit(NORMAL), NORMAL),
    "is shut down": (_exit(SHUTDOWN), SHUTDOWN),
    "ends with a detail": (_exit(DETAIL), DETAIL),
    "is killed": (lambda: kill(self_pid()), KILLED),
}


async def _ends(how: str) -> object:
    await trio.sleep(1.0)
    found = ENDS[how][0]()
    # Who has sent itself a signal ends here.
    await trio.lowlevel.checkpoint()
    return found


async def _awaits(task: Task[object]) -> object:
    try:
        return await task.result()
    except TaskExitError as error:
        return ("raises", error.reason)


async def _leaves_alone(_task: Task[object]) -> object:
    return "goes on"


WAYS: dict[str, Callable[[Task[object]], Any]] = {
    "await": _awaits,
    "yield": lambda task: task.yield_(),
    "nothing": _leaves_alone,
}


@pytest.mark.parametrize("trapping", [False, True], ids=["plain", "trapping"])
@pytest.mark.parametrize("waits", WAYS)
@pytest.mark.parametrize("start", STARTS)
async def test_what_the_end_of_a_task_is_to_its_caller(
    clean_node: CleanNode,
    autojump_clock: Clock,
    schedule: int,
    start: str,
    waits: str,
    trapping: bool,
) -> None:
    """[Task.async/1] A linked caller ends with the reason of its task, however it waits
      for it, unless that is normal or it traps exits.
    [Task.yield/2] The outcome has the reason when the task ended with normal and
      without a value, when it is not linked, and when the caller traps exits.
    [Task.await/2] A caller that traps exits has its wait fail all the same.
    [Task.await/2] differs: the wait of a caller that is not linked raises, and may be
      handled. In Elixir it exits.
    """
    make, linked = STARTS[start]
    got: dict[str, object] = {}
    expected: dict[str, object] = {}
    async with clean_node() as node:
        await node.start(child(TaskSupervisor, name="tasks"))
        for how, (_, reason) in ENDS.items():
            seen: Log = []
            pids: Log = []

            async def caller(
                how: str = how, seen: Log = seen, pids: Log = pids
            ) -> None:
                trap_exit(trapping)
                task = make(_ends, how)
                pids.append(task.pid)
                seen.append(await WAYS[waits](task))
                await trio.sleep(2.0)
                process = node.processes[self_pid().number]
                while process.queue_size:
                    seen.append(await receive())

            got[how] = (await wait_exit(spawn(caller)), seen)
            outcome = Done(7) if how == "returns" else Exited(reason)
            answers: dict[str, object] = {
                "await": 7 if how == "returns" else ("raises", reason),
                "yield": outcome,
                "nothing": "goes on",
            }
            told = [Exit(pids[0], reason)] if linked and trapping else []
            expected[how] = (NORMAL, [answers[waits], *told])
            if linked and not trapping and reason is not NORMAL:
                first = [answers[waits]] if waits == "nothing" else []
                expected[how] = (reason, first)
    assert got == expected


@pytest.mark.parametrize("trapping", [False, True], ids=["plain", "trapping"])
@pytest.mark.parametrize("start", STARTS)
async def test_what_the_end_of_a_caller_is_to_its_task(
    clean_node: CleanNode, schedule: int, start: str, trapping: bool
) -> None:
    """[Task.async/1] A linked task ends with its caller, with the same reason.
    [Task.shutdown/2] Not when the caller ends with normal, nor when the task traps
      exits: then it goes on, and the signal is a message.
    [Task.Supervisor.async_nolink/3] One that is not linked hears nothing of it.
    """
    make, linked = STARTS[start]
    got: dict[ExitReason, object] = {}
    expected: dict[ExitReason, object] = {}
    async with clean_node() as node:
        await node.start(child(TaskSupervisor, name="tasks"))
        for act, reason in ENDS.values():
            tasks: Log = []
            leave = trio.Event()
            heard: Log = []

            async def runs(heard: Log = heard) -> None:
                trap_exit(trapping)
                while True:
                    heard.append(await receive())

            async def caller(
                act: Any = act, leave: Any = leave, runs: Any = runs, tasks: Log = tasks
            ) -> None:
                tasks.append(make(runs))
                await leave.wait()
                act()
                await trio.lowlevel.checkpoint()

            pid = spawn(caller)
            await settle()
            assert await reason_of(pid, leave.set) is reason
            await settle()
            got[reason] = (tasks[0].outcome, heard)
            ends = linked and not trapping and reason is not NORMAL
            told = [Exit(pid, reason)] if linked and trapping else []
            expected[reason] = (Exited(reason) if ends else None, told)
            kill(tasks[0].pid)
    assert got == expected
