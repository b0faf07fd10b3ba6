"""A runtime that breaks its contract is an error, and is told to the client."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from atomr_infer.errors import (
    ConfigError,
    EngineError,
    EngineStartError,
    StreamCutError,
)
from atomr_infer.model.batch import TokenChunk
from atomr_infer.model.capabilities import Capabilities
from atomr_infer.model.deployment import Deployment, RetryPolicy, Serving
from atomr_infer.testing.mock_script import MockScript
from tests.serving.conftest import Collected, until
from tests.serving.lab import Step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from atomr_infer.errors import InferenceError
    from atomr_infer.model.batch import ExecuteBatch
    from tests.serving.conftest import OpenTree

M = Deployment(name="m", runtime="lab")


async def test_a_runtimes_bug_in_its_start_is_told_and_not_tried_again(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    bug = ValueError("odd")
    async with open_tree() as tree:
        tree.lab.plan = [ExceptionGroup("", [bug]), MockScript()]
        with pytest.raises(EngineStartError) as caught:
            await tree.serving.deploy(M)
        assert caught.value.message == "the runtime failed: ValueError: odd"
        assert caught.value.__cause__ is bug
        assert tree.lab.opened == 0
        assert tree.serving.table.names() == ()


async def test_a_setting_that_a_runtime_refuses_in_its_start_is_told_as_it_is(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        tree.lab.plan = [ConfigError("no such file: x.gguf")]
        with pytest.raises(EngineStartError, match=r"^no such file: x\.gguf$"):
            await tree.serving.deploy(M)


class Rude:
    """A runner that answers with what it was given, and breaks on request."""

    def __init__(self, *chunks: TokenChunk) -> None:
        self.capabilities = Capabilities(max_concurrency=8)
        self.broken = trio.Event()
        self.active = 0
        self.asked = 0
        self._chunks = chunks

    @asynccontextmanager
    async def execute(
        self, batch: ExecuteBatch
    ) -> AsyncIterator[AsyncIterator[TokenChunk]]:
        self.asked += 1

        async def chunks() -> AsyncIterator[TokenChunk]:
            for chunk in self._chunks:
                yield chunk

        yield chunks()

    async def failed(self) -> InferenceError:
        await self.broken.wait()
        raise KeyError("odd")


async def test_a_runtimes_bug_later_restarts_its_engine_and_is_kept(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        rude = Rude()
        tree.lab.plan = [rude]
        await tree.serving.deploy(M)
        replica = await tree.replica()
        rude.broken.set()
        await until(lambda: replica.starts == 2)
        assert (await tree.ask()).texts == ["one", " two"]
        error = tree.serving.routing("m").last_error
        assert isinstance(error, EngineError)
        assert error.message == "the runtime failed: KeyError: 'odd'"


@pytest.mark.parametrize(
    ("chunks", "asked"),
    [
        ((), [1, 1]),
        ((TokenChunk(),), [1, 1]),
        ((TokenChunk(text="one"),), [0, 1]),
    ],
    ids=["nothing", "an empty chunk", "no finish"],
)
async def test_an_answer_without_an_end_is_an_error_and_retried_while_unseen(
    open_tree: OpenTree,
    autojump_clock: MockClock,
    chunks: tuple[TokenChunk, ...],
    asked: list[int],
) -> None:
    retry = RetryPolicy(max_attempts=2)
    two = Deployment(name="m", runtime="lab", retry=retry, serving=Serving(replicas=2))
    async with open_tree() as tree:
        rude = [Rude(*chunks), Rude(*chunks)]
        tree.lab.plan = list[Step](rude)
        await tree.serving.deploy(two)
        sink = Collected()
        with pytest.raises(StreamCutError, match="m ended its answer too early"):
            await tree.ask(sink=sink)
        assert sink.texts == [chunk.text for chunk in chunks if chunk.text]
        # A retry goes to where it has not failed yet.
        assert sorted(runner.asked for runner in rude) == asked
