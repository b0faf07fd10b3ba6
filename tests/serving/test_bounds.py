"""Every wait of a request is bounded, and a slow client is not a silent engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from atomr_infer.errors import (
    DeadlineError,
    InferenceError,
    OverloadedError,
    UpstreamTimeoutError,
)
from atomr_infer.model.deployment import Deployment, RetryPolicy, Serving, Timeouts
from atomr_infer.testing.mock_script import MockScript
from tests.serving.conftest import Collected, OpenTree

if TYPE_CHECKING:
    from trio.testing import MockClock

    from atomr_infer.model.batch import RawChunk, TokenChunk

ONCE = RetryPolicy(max_attempts=1)


@pytest.mark.parametrize(
    ("script", "timeouts", "error", "after_s", "words"),
    [
        (
            MockScript(hang_after=0),
            Timeouts(first_token_s=3),
            UpstreamTimeoutError,
            3.0,
            "m was silent for 3 s before its first token",
        ),
        (
            MockScript(hang_after=1),
            Timeouts(idle_s=2),
            UpstreamTimeoutError,
            2.0,
            "m was silent for 2 s before the next token",
        ),
        (
            MockScript(tokens=100, delay_s=1),
            Timeouts(total_s=7.5),
            DeadlineError,
            7.5,
            "the request took longer than 7.5 s",
        ),
    ],
    ids=["first token", "idle", "total"],
)
async def test_silence_is_bounded(
    open_tree: OpenTree,
    autojump_clock: MockClock,
    script: MockScript,
    timeouts: Timeouts,
    error: type[InferenceError],
    after_s: float,
    words: str,
) -> None:
    deployment = Deployment(name="m", runtime="lab", timeouts=timeouts, retry=ONCE)
    async with open_tree() as tree:
        tree.lab.plan = [script]
        await tree.serving.deploy(deployment)
        began_at = trio.current_time()
        with pytest.raises(error, match=words):
            await tree.ask()
        assert trio.current_time() - began_at == pytest.approx(after_s)
        assert tree.lab.runners[0].active == 0
        await tree.idle()


async def test_the_queue_is_bounded_in_time(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    serving = Serving(max_concurrency=1, queue_timeout_s=4)
    deployment = Deployment(name="m", runtime="lab", serving=serving)
    async with open_tree() as tree:
        tree.lab.plan = [MockScript(hang_after=0)]
        await tree.serving.deploy(deployment)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.ask)
            await trio.sleep(0.1)
            began_at = trio.current_time()
            with pytest.raises(OverloadedError, match="waited 4 s"):
                await tree.ask()
            assert trio.current_time() - began_at == pytest.approx(4.0)
            assert (await tree.replica()).waiting == 0
            nursery.cancel_scope.cancel()


async def test_a_slow_client_is_not_taken_for_a_silent_engine(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    class SlowSink(Collected):
        async def chunk(self, chunk: TokenChunk | RawChunk) -> None:
            await trio.sleep(30)
            await super().chunk(chunk)

    deployment = Deployment(
        name="m", runtime="lab", timeouts=Timeouts(idle_s=1, first_token_s=1)
    )
    async with open_tree(deployment) as tree:
        answer = await tree.ask(sink=SlowSink())
    assert answer.texts == ["one", " two"]


async def test_cancelling_a_request_frees_everything(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    deployment = Deployment(name="m", runtime="lab")
    async with open_tree() as tree:
        tree.lab.plan = [MockScript(hang_after=1)]
        await tree.serving.deploy(deployment)
        with trio.move_on_after(1) as scope:
            await tree.ask()
        assert scope.cancelled_caught
        assert tree.lab.runners[0].active == 0
        await trio.sleep(0.01)
        await tree.idle()
