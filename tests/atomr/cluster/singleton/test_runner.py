"""The process that starts and stops a singleton: one order after the other."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
import trio.testing

from atomr.cluster.singleton.runner import Begin, Begun, End, Ended, Ready, Runner
from atomr.core.child_spec import ChildSpec
from atomr.otp import DynamicSupervisor
from atomr.process import (
    PlainProcess,
    kill,
    open_node,
    receive,
    register,
    self_pid,
    send,
    spawn,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr.refs import Pid


class Work:
    """What the runner starts; counts how often."""

    def __init__(self) -> None:
        self.began = 0

    async def run(self) -> None:
        self.began += 1
        await trio.sleep_forever()

    def spec(self) -> ChildSpec:
        return ChildSpec(id="work", start=lambda: PlainProcess(self.run))


@asynccontextmanager
async def runner(work: Work, *, holds: bool = True) -> AsyncIterator[Pid]:
    """Have a runner, and be the server that it tells."""
    made = Runner(work.spec(), stage="stage", server="server", holds=lambda _: holds)
    async with open_node() as node:
        stage = ChildSpec(id="stage", start=DynamicSupervisor, name="stage")
        await node.start(stage)
        register("server", spawn(_relay))
        yield spawn(made.run)


told: list[object] = []


async def _relay() -> None:
    told.clear()
    while True:
        told.append(await receive())


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def test_it_starts_and_stops_by_order() -> None:
    work = Work()
    async with runner(work) as pid:
        await settle()
        send(pid, Begin(5, 1))
        await settle()
        send(pid, End(5))
        await settle()

        assert told == [Ready(1), Begun(5), Ended(5)]
        assert work.began == 1


async def test_an_order_that_waited_longer_than_its_term_starts_nothing() -> None:
    work = Work()
    async with runner(work, holds=False) as pid:
        await settle()
        send(pid, Begin(5, 1))
        await settle()

        assert told == [Ready(1), Ended(5)]
        assert work.began == 0


async def test_an_order_to_an_earlier_runner_is_nobodys() -> None:
    work = Work()
    async with runner(work) as pid:
        send(pid, Begin(5, 0))
        send(pid, End(5))
        await settle()

        assert told == [Ready(1)]
        assert work.began == 0


async def test_where_there_is_no_stage_it_says_so() -> None:
    work = Work()
    made = Runner(work.spec(), stage="none", server="server", holds=lambda _: True)
    async with open_node():
        register("server", spawn(_relay))
        pid = spawn(made.run)
        send(pid, Begin(5, 1))
        await settle()

        ready, ended = told
        assert ready == Ready(1)
        assert isinstance(ended, Ended)
        assert ended.epoch == 5
        assert ended.problem.startswith("it did not start here: call('none', ")


async def test_an_end_that_nobody_ordered_is_told_with_its_reason() -> None:
    work = Work()
    async with runner(work) as pid:
        started: list[Pid] = []

        async def run() -> None:
            started.append(self_pid())
            await trio.sleep_forever()

        work.run = run  # type: ignore[method-assign]
        await settle()
        send(pid, Begin(5, 1))
        for _ in range(4):
            await settle()
            kill(started[-1])
        await settle()

        ready, begun, ended = told
        assert (ready, begun) == (Ready(1), Begun(5))
        assert isinstance(ended, Ended)
        assert "GaveUp" in ended.problem
