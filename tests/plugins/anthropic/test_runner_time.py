"""The deployment's time limits, under a virtual clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr_infer import errors
from atomr_infer.model.deployment import Timeouts
from atomr_infer.testing import upstream_script as script
from atomr_infer.wire.anthropic.ingress import MESSAGES
from atomr_infer.wire.ingress import Call

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.model.batch import ExecuteBatch

TIMEOUTS = Timeouts(connect_s=1.0, first_token_s=20.0, idle_s=5.0)
PASSED = (
    b'{"model":"m","max_tokens":9,"stream":true,'
    b'"messages":[{"role":"user","content":"a"}]}'
)


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
    ],
)
async def test_silence_ends_the_attempt(
    in_memory: Any,
    autojump_clock: object,
    behaviour: Any,
    stream: bool,
    code: str,
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


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (script.HangMidStream(after=2), "idle_timeout"),
        (script.CommentsOnly(after=1), "idle_timeout"),
    ],
)
async def test_pings_that_are_passed_on_are_no_sign_of_life(
    in_memory: Any,
    autojump_clock: object,
    batch: Callable[..., ExecuteBatch],
    behaviour: Any,
    code: str,
) -> None:
    passed = MESSAGES.parse(Call(request_id="r", body=PASSED)).batch
    async with in_memory([behaviour], TIMEOUTS) as pair:
        with pytest.raises(errors.UpstreamTimeoutError) as caught:
            async with pair.runner.execute(attrs.evolve(passed)) as chunks:
                async for _ in chunks:
                    pass
        assert caught.value.code == code
        await pair.upstream.requests[0].client_left.wait()


async def test_count_is_not_waited_for_longer_than_a_first_token(
    in_memory: Any, autojump_clock: object, batch: Callable[..., ExecuteBatch]
) -> None:
    async with in_memory([script.HangBeforeHeaders()], TIMEOUTS) as pair:
        started = trio.current_time()
        with pytest.raises(errors.UpstreamTimeoutError):
            await pair.runner.count_tokens(batch())
        assert trio.current_time() - started == 20.0
        await pair.upstream.requests[0].client_left.wait()


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
