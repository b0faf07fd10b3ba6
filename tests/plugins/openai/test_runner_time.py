"""The deployment's time limits, under a virtual clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr_infer import errors
from atomr_infer.model.deployment import Deployment, Timeouts
from atomr_infer.remote.credentials.keys import fixed
from atomr_infer.testing import upstream_script as script
from atomr_infer_openai.runner import open_openai_runner

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.model.batch import ExecuteBatch

TIMEOUTS = Timeouts(connect_s=1.0, first_token_s=20.0, idle_s=5.0)


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
    behaviour: Any,
    stream: bool,
    code: str | None,
    after_s: float,
) -> None:
    async with in_memory([behaviour], TIMEOUTS) as pair:
        started = trio.current_time()
        with pytest.raises(errors.UpstreamTimeoutError) as caught:
            await pair.ask(stream=stream)
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


async def test_first_chunk_may_take_longer_than_a_later_one(
    in_memory: Any, autojump_clock: object
) -> None:
    async with in_memory([script.Happy(tokens=("x",), delay_s=19.0)], TIMEOUTS) as pair:
        assert (await pair.ask())[0].text == "x"


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


async def test_connecting_has_its_own_limit(
    autojump_clock: object, batch: Callable[..., ExecuteBatch]
) -> None:
    async def connect(_: object) -> trio.abc.Stream:
        await trio.sleep_forever()

    wanted = Deployment(
        name="up",
        runtime="openai",
        options={"endpoint": "http://memory/v1"},
        timeouts=TIMEOUTS,
    )
    async with open_openai_runner(wanted, fixed(None), connect=connect) as runner:
        started = trio.current_time()
        with pytest.raises(errors.UpstreamTimeoutError) as caught:
            async with runner.execute(batch()):
                pytest.fail("entered without a connection")
        assert caught.value.code == "connect_timeout"
        assert trio.current_time() - started == 1.0


async def test_text_of_an_error_is_not_waited_for_long(
    in_memory: Any, autojump_clock: object
) -> None:
    hung = script.RawAnswer(status=500, withheld_bytes=9)
    async with in_memory([hung], TIMEOUTS) as pair:
        started = trio.current_time()
        with pytest.raises(errors.UpstreamError) as caught:
            await pair.ask()
        assert (type(caught.value), caught.value.status) == (errors.UpstreamError, 500)
        assert trio.current_time() - started == 5.0
