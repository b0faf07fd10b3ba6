"""The engine's process dies under load, and every reader is told."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr_infer.bridge import BridgedRunner, open_bridged_runner
from atomr_infer.errors import (
    EndpointUnsupportedError,
    EngineCrashedError,
    EngineStartError,
)
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
from atomr_infer.model.embeddings import EmbedRequest
from atomr_infer.runtimes.contract import RunnerContext

if TYPE_CHECKING:
    from atomr_infer.model.deployment import Deployment

pytestmark = pytest.mark.engine

REF = "atomr_infer_ort.plugin:PLUGIN"


def ask(max_tokens: int = 200) -> ExecuteBatch:
    return ExecuteBatch(
        request_id="r",
        model="tiny",
        messages=(Message(Role.USER, "hello"),),
        sampling=Sampling(max_tokens=max_tokens),
    )


async def test_killed_under_load_every_stream_says_so_and_a_new_one_serves(
    tiny: Deployment,
) -> None:
    messages: list[str] = []
    begun = 0

    async def read(runner: BridgedRunner) -> None:
        nonlocal begun
        with pytest.raises(EngineCrashedError) as caught:
            async with runner.execute(ask()) as chunks:
                async for _ in chunks:
                    begun += 1
                    if begun == 6:
                        os.kill(runner.pid, signal.SIGKILL)
        messages.append(caught.value.message)

    with trio.fail_after(120):
        async with open_bridged_runner(REF, tiny, RunnerContext()) as runner:
            async with trio.open_nursery() as nursery:
                for _ in range(6):
                    nursery.start_soon(read, runner)
            error = await runner.failed()
            assert runner.active == 0
        async with (
            open_bridged_runner(REF, tiny, RunnerContext()) as runner,
            runner.execute(ask(4)) as chunks,
        ):
            found = [chunk async for chunk in chunks]
    assert messages == [error.message] * 6
    assert "killed by SIGKILL (9)" in error.message
    assert found[-1].usage is not None
    assert found[-1].usage.output_tokens == 4


async def test_a_start_that_fails_tells_its_reason_across_the_bridge(
    tiny: Deployment,
) -> None:
    lost = attrs.evolve(tiny, options={"file": "lost.onnx"})
    with pytest.raises(EngineStartError, match=r"there is no file .*lost\.onnx"):
        async with open_bridged_runner(REF, lost, RunnerContext()):
            pass


async def test_a_model_that_writes_embeds_nothing(tiny: Deployment) -> None:
    request = EmbedRequest(request_id="r", model="tiny", inputs=("a",))
    async with open_bridged_runner(REF, tiny, RunnerContext()) as runner:
        with pytest.raises(EndpointUnsupportedError, match="embeddings"):
            await runner.embed(request)
        assert await runner.count_tokens(ask()) == 10
