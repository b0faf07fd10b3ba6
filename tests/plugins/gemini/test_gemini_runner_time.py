"""The deployment's time limits, under a virtual clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr_infer import errors
from atomr_infer.model.deployment import Timeouts
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.source import Source
from atomr_infer.testing import upstream_script as script

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.model.batch import ExecuteBatch

TIMEOUTS = Timeouts(connect_s=1.0, first_token_s=20.0, idle_s=5.0)

PASSED_ON = {
    "source": Source(Dialect.GEMINI, b'{"contents":[{"parts":[{"text":"a"}]}]}', None)
}


@pytest.mark.parametrize("members", [{}, PASSED_ON], ids=["written", "passed-on"])
@pytest.mark.parametrize(
    ("behaviour", "stream", "code", "after_s"),
    [
        (script.HangBeforeHeaders(), True, "first_token_timeout", 20.0),
        (script.HangBeforeHeaders(), False, "first_token_timeout", 20.0),
        (script.HangMidStream(after=0), True, "first_token_timeout", 20.0),
        (script.HangMidStream(after=0), False, "first_token_timeout", 20.0),
        (script.HangMidStream(after=2), True, "idle_timeout", 5.0),
        (script.CommentsOnly(after=0), True, "first_token_timeout", 20.0),
        (script.CommentsOnly(after=1), True, "idle_timeout", 5.0),
        (script.SlowHeaders(delay_s=1.0), True, "first_token_timeout", 20.0),
    ],
)
async def test_silence_ends_the_attempt(
    in_memory: Any,
    autojump_clock: object,
    members: dict[str, Any],
    behaviour: Any,
    stream: bool,
    code: str,
    after_s: float,
) -> None:
    async with in_memory([behaviour], TIMEOUTS) as pair:
        started = trio.current_time()
        with pytest.raises(errors.UpstreamTimeoutError) as caught:
            await pair.get(stream=stream, **members)
        assert (caught.value.code, trio.current_time() - started) == (code, after_s)
        request = pair.upstream.requests[0]
        await request.client_left.wait()
        assert request.left_at - started == after_s
        assert pair.runner.active == 0


async def test_slow_but_steady_stream_is_not_cut(
    in_memory: Any, autojump_clock: object
) -> None:
    steady = script.Happy(tokens=("x",) * 50, delay_s=4.9)
    async with in_memory([steady], TIMEOUTS) as pair:
        assert len(await pair.ask()) == 52
        assert trio.current_time() > 240


async def test_slow_reader_is_not_the_upstreams_fault(
    in_memory: Any, autojump_clock: object, batch: Callable[..., ExecuteBatch]
) -> None:
    async with (
        in_memory([script.Happy(delay_s=0.1)], TIMEOUTS) as pair,
        pair.runner.execute(batch()) as chunks,
    ):
        texts = []
        async for chunk in chunks:
            texts.append(chunk.text)
            await trio.sleep(60)
        assert texts[:6] == list(script.DEFAULT_TOKENS)


async def test_count_that_never_comes_is_given_up(
    in_memory: Any, autojump_clock: object, batch: Callable[..., ExecuteBatch]
) -> None:
    hung = script.RawAnswer(content_type="application/json", withheld_bytes=9)
    async with in_memory([hung], TIMEOUTS) as pair:
        started = trio.current_time()
        with pytest.raises(errors.UpstreamTimeoutError) as caught:
            await pair.runner.count_tokens(batch())
        assert caught.value.code == "first_token_timeout"
        assert trio.current_time() - started == 20.0
        await pair.upstream.requests[0].client_left.wait()
