"""What the user's code tells wrongly is said, and the child it runs in goes on."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from atomr_infer.bridge import BridgedRunner, open_bridged_runner
from atomr_infer.errors import InferenceError, InternalError
from atomr_infer.model.batch import ExecuteBatch, Message, Role
from atomr_infer.model.figures import Figure, Kind, running
from atomr_infer.runtimes.contract import RunnerContext

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.plugins.python.conftest import Own

WITHIN_S = 60.0  # of a busy machine


@asynccontextmanager
async def opened(own: Own, name: str) -> AsyncIterator[BridgedRunner]:
    with trio.fail_after(WITHIN_S):
        async with open_bridged_runner(
            "atomr_infer_python.plugin:PLUGIN", own(name), RunnerContext()
        ) as runner:
            yield runner


def ask(text: str) -> ExecuteBatch:
    return ExecuteBatch(request_id="r", model="m", messages=(Message(Role.USER, text),))


async def answer(runner: BridgedRunner, text: str) -> str:
    async with runner.execute(ask(text)) as chunks:
        return "".join([chunk.text async for chunk in chunks])


async def test_figures_cross_from_a_child_and_bad_ones_leave_it_alive(
    own: Own,
) -> None:
    async with opened(own, "Told") as runner:
        await answer(runner, "ours")
        good = (running(2), Figure("beats", Kind.COUNTER, 4, "Beats."))
        assert await runner.figures() == good
        for how, told in (("single", 0.5), ("array", 7.0), ("fraction", 0.25)):
            await answer(runner, f"as a figure: {how}")
            found = Figure("open", Kind.GAUGE, told, "Open.")
            assert await runner.figures() == (found,)
        for how, said in (
            ("as a figure: nothing", "figure open is told as NoneType, not as a"),
            ("as a figure: text", "figure open is told as str, not as a number"),
            ("as a figure: flag", "figure open is told as bool, not as a number"),
            ("name", "a figure is called 'a b'"),
        ):
            await answer(runner, how)
            with pytest.raises(InferenceError, match=said):
                await runner.figures()
        assert await answer(runner, "ours") == "told"
        assert await runner.figures() == good


async def test_a_count_that_is_none_is_said_and_the_child_goes_on(own: Own) -> None:
    async with opened(own, "Flag") as runner:
        for _ in range(2):
            with pytest.raises(InternalError, match="Flag returns bool, not int"):
                await runner.count_tokens(ask("one two"))


async def test_what_the_code_prints_is_news_of_its_own(
    own: Own, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "atomr_infer.python")
    async with opened(own, "Model") as runner:
        await answer(runner, "one")
    printed = [r for r in caplog.records if r.name == "atomr_infer.python.own"]
    assert [record.getMessage() for record in printed] == ["closed, 1 thread"]
