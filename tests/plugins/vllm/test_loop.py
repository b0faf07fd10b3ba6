"""An asyncio loop beside trio: nothing is lost on the way, and all of it ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest
import trio

from atomr_infer.errors import EngineCrashedError, EngineError
from atomr_infer.model.batch import FinishReason, TokenChunk, Usage
from atomr_infer_vllm.answer import Answer
from atomr_infer_vllm.generation import WINDOW, Generation
from atomr_infer_vllm.loop import LoopThread
from atomr_infer_vllm.runner import WATCH_EVERY_S, Watched
from atomr_infer_vllm.runner import Engine as EngineShape
from tests.plugins.vllm.shapes import Completion, Output

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from trio.testing import MockClock


@pytest.fixture
async def loop() -> AsyncIterator[LoopThread]:
    made = LoopThread()
    yield made
    await made.stop()


class Engine:
    """Answers with as many tokens as it is asked for, as fast as they are taken."""

    def __init__(self, tokens: int, *, fails: bool = False) -> None:
        self.tokens = tokens
        self.fails = fails
        self.taken = 0
        self.dropped = False

    async def outputs(self) -> AsyncGenerator[Output, None]:
        try:
            for number in range(self.tokens):
                await asyncio.sleep(0)
                self.taken += 1
                yield self.output(number)
            if self.fails:
                raise RuntimeError("the GPU is gone")
        except (asyncio.CancelledError, GeneratorExit):
            self.dropped = True
            raise

    def output(self, number: int) -> Output:
        if number < self.tokens - 1 or self.fails:
            return Output([Completion("x", [number])])
        return Output([Completion("y", [number], finish_reason="length")], True)


def generation(loop: LoopThread, engine: Engine) -> Generation:
    return Generation(loop, engine.outputs, Answer("r", 1))


async def test_an_answer_crosses_whole_and_in_order(loop: LoopThread) -> None:
    engine = Engine(5 * WINDOW)
    answer = generation(loop, engine)
    chunks = [chunk async for chunk in answer]
    await answer.leave()
    assert "".join(chunk.text for chunk in chunks) == "x" * (5 * WINDOW - 1) + "y"
    assert chunks[-2].finish_reason is FinishReason.LENGTH
    assert chunks[-1] == TokenChunk(
        usage=Usage(input_uncached=1, output_text=5 * WINDOW)
    )


async def test_a_reader_that_does_not_read_stops_the_taking(loop: LoopThread) -> None:
    engine = Engine(100 * WINDOW)
    answer = generation(loop, engine)
    await anext(answer)
    for _ in range(20):
        await loop.run(lambda: asyncio.sleep(0))
    assert engine.taken <= WINDOW + 1
    assert len([chunk async for chunk in answer]) == 100 * WINDOW
    await answer.leave()


async def test_leaving_drops_the_request_before_it_returns(loop: LoopThread) -> None:
    engine = Engine(100 * WINDOW)
    answer = generation(loop, engine)
    await anext(answer)
    with trio.CancelScope() as scope:
        scope.cancel()
        await answer.leave()
    assert engine.dropped


async def test_leaving_before_the_first_step_ends_too(loop: LoopThread) -> None:
    for _ in range(50):
        answer = generation(loop, Engine(3))
        await answer.leave()


async def test_what_the_engine_raises_reaches_the_reader(loop: LoopThread) -> None:
    answer = generation(loop, Engine(2, fails=True))
    assert [(await anext(answer)).text for _ in range(2)] == ["x", "x"]
    with pytest.raises(EngineError, match="RuntimeError: the GPU is gone"):
        await anext(answer)
    await answer.leave()


async def test_an_answer_without_an_end_is_an_error(loop: LoopThread) -> None:
    async def nothing() -> AsyncGenerator[Output, None]:
        none: list[Output] = []
        for output in none:
            yield output

    answer = Generation(loop, nothing, Answer("r", 1))
    with pytest.raises(EngineError, match="without saying why"):
        await anext(answer)
    await answer.leave()


class Core:
    """An engine whose core may die."""

    def __init__(self) -> None:
        self.errored = False
        self.logged = 0

    async def do_log_stats(self) -> None:
        self.logged += 1


def watched(loop: LoopThread, core: Core) -> Watched:
    return Watched(loop, cast(EngineShape, core))


async def test_an_idle_engine_that_dies_is_noticed(
    loop: LoopThread, autojump_clock: MockClock
) -> None:
    core = Core()
    life = watched(loop, core)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(life.failed)
        await trio.sleep(1)
        assert nursery.child_tasks
        core.errored = True
        died_at = trio.current_time()
    assert trio.current_time() - died_at <= WATCH_EVERY_S


async def test_who_meets_a_dead_engine_tells_it_at_once(
    loop: LoopThread, autojump_clock: MockClock
) -> None:
    life = watched(loop, Core())
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(life.failed)
        with pytest.raises(EngineCrashedError), life.counted():
            assert life.active == 1
            raise EngineCrashedError("dead")
    assert (life.active, trio.current_time() - began) == (0, 0)


async def test_a_dead_engine_takes_no_requests(loop: LoopThread) -> None:
    core = Core()
    core.errored = True
    life = watched(loop, core)
    with pytest.raises(EngineCrashedError), life.counted():
        raise AssertionError
    assert life.active == 0
    assert isinstance(await life.failed(), EngineCrashedError)


async def test_a_call_is_cancelled_with_its_caller(loop: LoopThread) -> None:
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("dropped")

    with trio.move_on_after(0.05) as scope:
        await loop.run(forever)
    assert scope.cancelled_caught
    assert ended == ["dropped"]


async def test_a_call_returns_and_raises_as_its_coroutine(loop: LoopThread) -> None:
    async def seven() -> int:
        return 7

    async def wrong() -> None:
        raise ValueError("wrong")

    assert await loop.run(seven) == 7
    with pytest.raises(ValueError, match="wrong"):
        await loop.run(wrong)
