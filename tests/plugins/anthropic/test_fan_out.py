"""Several answers to one request, from an API that gives one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr_infer import errors
from atomr_infer.model.batch import FinishReason, Sampling
from atomr_infer.model.usage import Usage
from atomr_infer.testing import upstream_script as script
from tests.at_once import at_once, stand_still

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from atomr_infer.model.batch import ExecuteBatch

THREE = Sampling(n=3, max_tokens=50)


async def test_answers_have_dense_indices_and_summed_usage(over_socket: Any) -> None:
    async with over_socket(script.Happy(tokens=("a", "b"))) as pair:
        chunks = await pair.ask(sampling=THREE)
        finished = [c.index for c in chunks if c.finish_reason is FinishReason.STOP]
        assert sorted(finished) == [0, 1, 2]
        texts = {
            index: "".join(c.text for c in chunks if c.index == index)
            for index in range(3)
        }
        default = "".join(script.DEFAULT_TOKENS)
        assert sorted(texts.values()) == [default, default, "ab"]
        assert chunks[-1].usage == Usage(input_uncached=9, output_text=2 + 6 + 6)
        assert [c.usage for c in chunks[:-1]] == [None] * (len(chunks) - 1)
        assert len(pair.upstream.requests) == 3
        assert "n" not in pair.upstream.requests[0].json


async def test_all_fail_when_one_does(
    over_socket: Any, batch: Callable[..., ExecuteBatch]
) -> None:
    slow = script.Happy(tokens=("x",) * 1000, delay_s=0.01)
    async with over_socket(slow, script.rate_limited(), slow) as pair:
        with pytest.raises(errors.RateLimitedError):
            async with pair.runner.execute(batch(sampling=THREE)) as chunks:
                async for _ in chunks:
                    pass
        assert pair.runner.active == 0
        with trio.fail_after(30):
            for request in pair.upstream.requests:
                if not request.answered.is_set():
                    await request.client_left.wait()


async def test_leaving_the_block_ends_every_generation(
    over_socket: Any, batch: Callable[..., ExecuteBatch], mock_clock: MockClock
) -> None:
    mock_clock.rate = 1.0
    hang = script.HangMidStream(after=1)
    async with over_socket(hang, hang, hang) as pair:
        async with pair.runner.execute(batch(sampling=THREE)) as chunks:
            await anext(chunks)
            await pair.upstream.wait_for_requests(3)
            stand_still(mock_clock)
        assert pair.runner.active == 0
        for request in pair.upstream.requests:
            await at_once(request.client_left.is_set, mock_clock)


async def test_error_of_the_block_leaves_it_as_it_is(
    over_socket: Any, batch: Callable[..., ExecuteBatch]
) -> None:
    async with over_socket() as pair:
        with pytest.raises(KeyError, match="mine"):
            async with pair.runner.execute(batch(sampling=THREE)):
                raise KeyError("mine")
        assert pair.runner.active == 0
