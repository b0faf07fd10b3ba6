"""An engine's figures cross the bridge, and asking for them harms nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from atomr_infer.bridge import BridgedRunner
from atomr_infer.bridge.protocol.calls import ParentCall, answer_to
from atomr_infer.bridge.protocol.frames import FrameError, Measure, Measured
from atomr_infer.bridge.protocol.values import figures_to_wire
from atomr_infer.errors import EngineCrashedError, InternalError
from atomr_infer.model.batch import ExecuteBatch
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.figures import Figure, Kind, running, steps
from atomr_infer.runtimes.contract import RunnerContext
from atomr_infer.testing.mock import PLUGIN as MOCK

Opener = Callable[..., AbstractAsyncContextManager[BridgedRunner]]
Ask = Callable[..., ExecuteBatch]


@pytest.fixture
async def runner(bridged: Opener) -> AsyncIterator[BridgedRunner]:
    async with bridged() as opened:
        yield opened


async def tell(runner: BridgedRunner, ask: Ask, how: str) -> None:
    async with runner.execute(ask(f"tell {how}")) as chunks:
        assert (await anext(chunks)).text == "told"


async def test_they_come_as_the_runner_told_them(
    runner: BridgedRunner, ask: Ask
) -> None:
    assert await runner.figures() == (running(0), steps(0))
    async with runner.execute(ask("stall")) as chunks:
        await anext(chunks)
        assert await runner.figures() == (running(1), steps(0))
        assert runner.active == 1
    assert await runner.figures() == (running(0), steps(0))


async def test_who_leaves_while_a_runner_is_silent_leaves_it_alone(
    runner: BridgedRunner, ask: Ask
) -> None:
    await tell(runner, ask, "stall")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.figures)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert runner.active == 0
    await tell(runner, ask, "ok")
    assert await runner.figures() == (running(0), steps(0))


async def test_a_runner_s_mistakes_are_told_and_it_runs_on(
    runner: BridgedRunner, ask: Ask
) -> None:
    await tell(runner, ask, "twice")
    with pytest.raises(InternalError, match="two figures are called steps"):
        await runner.figures()
    await tell(runner, ask, "bug")
    with pytest.raises(InternalError, match="KeyError: 'oops'"):
        await runner.figures()
    async with runner.execute(ask("count 1")) as chunks:
        assert [chunk.text async for chunk in chunks] == ["r:0 ", ""]


async def test_a_child_that_dies_of_it_ends_the_question(
    runner: BridgedRunner, ask: Ask
) -> None:
    await tell(runner, ask, "exit")
    with pytest.raises(EngineCrashedError, match="exited with status 3"):
        await runner.figures()


async def test_a_runner_that_says_nothing_is_not_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Silent:
        async def figures(self) -> tuple[Figure, ...]:
            await trio.sleep_forever()
            raise AssertionError

    with pytest.raises(InternalError, match="told no figures in 5 s"):
        await answer_to(Silent(), Measure(1))  # type: ignore[arg-type] # as much as is asked
    assert trio.current_time() == 5.0


async def test_a_runner_that_has_none_tells_none() -> None:
    deployment = Deployment(name="d", runtime="mock")
    async with MOCK.open_runner(deployment, RunnerContext()) as plain:
        assert await answer_to(plain, Measure(1)) == Measured(1, ())


def test_a_figure_without_a_name_breaks_the_protocol() -> None:
    [good] = figures_to_wire([steps(1)])
    bad = msgspec.structs.replace(good, name="a b")
    with pytest.raises(FrameError, match="a figure is called 'a b'"):
        ParentCall(1).take(Measured(1, (bad,)))
    many = tuple(msgspec.structs.replace(good, name=f"f{n}") for n in range(65))
    with pytest.raises(FrameError, match="65 figures; 64 is the most"):
        ParentCall(1).take(Measured(1, many))


@pytest.mark.parametrize("name", ["", "A", "1a", "a_total", "a-b", "a\n", "a" * 65])
def test_names_are_those_of_metrics(name: str) -> None:
    with pytest.raises(ValueError, match="a figure is called"):
        Figure(name, Kind.GAUGE, 1.0, "One.")


def test_two_letters_are_the_least_and_it_says_so() -> None:
    assert Figure("a0", Kind.GAUGE, 1.0, "One.").name == "a0"
    with pytest.raises(ValueError, match="2 to 64 of them"):
        Figure("a", Kind.GAUGE, 1.0, "One.")


@pytest.mark.parametrize(
    "value", [None, "1", True, 1j, 10**400], ids=lambda value: repr(value)[:8]
)
def test_a_figure_is_a_number(value: Any) -> None:
    with pytest.raises(ValueError, match="the figure steps is told as"):
        steps(value)


def test_kind_and_help_are_what_the_wire_takes() -> None:
    kind: Any = "gauge"
    text: Any = None
    with pytest.raises(TypeError, match="'kind' must be"):
        Figure("a0", kind, 1.0, "One.")
    with pytest.raises(TypeError, match="'help' must be"):
        Figure("a0", Kind.GAUGE, 1.0, text)


def test_help_is_short() -> None:
    assert Figure("a0", Kind.GAUGE, 1.0, "x" * 200).help == "x" * 200
    with pytest.raises(ValueError, match="has 201 characters of help"):
        Figure("a0", Kind.GAUGE, 1.0, "x" * 201)
