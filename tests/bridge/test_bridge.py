"""A runner in a real child process keeps the runner's contract."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import pytest
import trio

from atomr_infer.bridge import BridgedRunner, BridgeLimits
from atomr_infer.errors import (
    ContextLengthError,
    EngineError,
    InternalError,
    InvalidRequestError,
    NotReadyError,
)
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    Role,
    Sampling,
    TextPart,
    TokenChunk,
    Usage,
)
from atomr_infer.model.capabilities import Capabilities, Feature
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.secret import Secret
from atomr_infer.model.tensors import Datatype, Signature, TensorSpec
from atomr_infer.runtimes.contract import Progress, RunnerContext

Opener = Callable[..., AbstractAsyncContextManager[BridgedRunner]]
Ask = Callable[..., ExecuteBatch]
Until = Callable[[Callable[[], bool]], Awaitable[None]]


@pytest.fixture
async def runner(bridged: Opener) -> AsyncIterator[BridgedRunner]:
    async with bridged() as opened:
        yield opened


async def collect(runner: BridgedRunner, batch: ExecuteBatch) -> list[TokenChunk]:
    async with runner.execute(batch) as chunks:
        return [chunk async for chunk in chunks]


async def state(runner: BridgedRunner, ask: Ask) -> tuple[int, int]:
    """Generations active in the child, chunks produced there so far."""
    [chunk] = await collect(runner, ask("state"))
    active, produced = chunk.text.split()
    return int(active), int(produced)


async def test_chunks_arrive_in_order_with_finish_and_usage(
    runner: BridgedRunner, ask: Ask
) -> None:
    assert await collect(runner, ask("count 3")) == [
        TokenChunk(text="r:0 "),
        TokenChunk(text="r:1 "),
        TokenChunk(text="r:2 "),
        TokenChunk(
            finish_reason=FinishReason.STOP,
            usage=Usage(input_uncached=3, output_text=3),
        ),
    ]
    assert runner.active == 0


async def test_capabilities_are_the_child_s(runner: BridgedRunner) -> None:
    assert runner.capabilities == Capabilities(
        features=frozenset({Feature.CHAT, Feature.TOOLS, Feature.LOGPROBS}),
        sampling=frozenset({"max_tokens", "seed"}),
        max_concurrency=16,
        context_tokens=4096,
        extra_of=frozenset({Dialect.OPENAI_CHAT}),
        signature=Signature(
            inputs=(TensorSpec("x", Datatype.INT8, (-1,)),),
            outputs=(TensorSpec("y", Datatype.INT8, (-1,)),),
        ),
    )


async def test_request_reaches_the_child_as_it_is(runner: BridgedRunner) -> None:
    batch = ExecuteBatch(
        request_id="r",
        model="m",
        messages=(Message(Role.USER, (TextPart("echo ü"),), {"name": b'"a"'}),),
        sampling=Sampling(temperature=0.5, stop=("x",), seed=7),
        stream=False,
        extra={"user": b'"u"'},
    )
    assert await collect(runner, batch) == [
        TokenChunk(text=repr(batch), extra={"raw": b'{"a":1}'}, model="m"),
        TokenChunk(finish_reason=FinishReason.STOP),
    ]


async def test_unicode_survives(runner: BridgedRunner, ask: Ask) -> None:
    texts = [chunk.text for chunk in await collect(runner, ask("unicode"))]
    assert texts == ["héllo", "😀👩‍👩‍👧", "\x00\u2028", "עברית"]


async def test_sixteen_interleaved_streams_keep_apart(
    runner: BridgedRunner, ask: Ask
) -> None:
    async def check(request_id: str) -> None:
        chunks = await collect(runner, ask("count 300", request_id))
        assert [chunk.text for chunk in chunks] == [
            *(f"{request_id}:{n} " for n in range(300)),
            "",
        ]

    async with trio.open_nursery() as nursery:
        for number in range(16):
            nursery.start_soon(check, f"s{number}")
    assert runner.active == 0


# --- errors -----------------------------------------------------------------


async def test_refusal_on_entry_keeps_its_class_and_fields(
    runner: BridgedRunner, ask: Ask
) -> None:
    with pytest.raises(NotReadyError, match=r"^not now$") as caught:
        await collect(runner, ask("refuse"))
    assert caught.value.retry_after_s == 2.5


async def test_error_in_the_stream_comes_after_the_chunks_before_it(
    runner: BridgedRunner, ask: Ask
) -> None:
    async with runner.execute(ask("context")) as chunks:
        assert await anext(chunks) == TokenChunk(text="partial")
        with pytest.raises(ContextLengthError) as caught:
            await anext(chunks)
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "m"


async def test_bug_in_the_plugin_is_internal_logged_and_costs_one_stream(
    runner: BridgedRunner, ask: Ask, caplog: pytest.LogCaptureFixture, until: Until
) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(InternalError, match=r"^the runtime failed: KeyError: 'oops'$"):
        await collect(runner, ask("bug"))
    assert len(await collect(runner, ask("count 1"))) == 2
    await until(lambda: "Traceback (most recent call last):" in caplog.messages)


async def test_request_that_no_frame_carries_is_the_client_s_mistake(
    runner: BridgedRunner, ask: Ask
) -> None:
    batch = ask("echo \ud800")
    with pytest.raises(InvalidRequestError, match="cannot be passed to the engine"):
        await collect(runner, batch)
    assert runner.active == 0


async def test_request_over_the_frame_cap_is_the_client_s_mistake(
    bridged: Opener, ask: Ask
) -> None:
    async with bridged(limits=BridgeLimits(max_frame_bytes=10_000)) as runner:
        with pytest.raises(InvalidRequestError, match="10000 at most"):
            await collect(runner, ask("echo " + "x" * 10_000))
        assert len(await collect(runner, ask("count 1"))) == 2


async def test_failed_returns_the_child_runner_s_own_reason(
    runner: BridgedRunner, ask: Ask
) -> None:
    with pytest.raises(EngineError, match="poisoned"):
        await collect(runner, ask("fail"))
    error = await runner.failed()
    assert type(error) is EngineError
    assert (error.message, error.code) == ("poisoned", "xid_79")
    with pytest.raises(EngineError, match="poisoned"):
        await collect(runner, ask("count 1"))


# --- leaving early ----------------------------------------------------------


async def test_leaving_early_frees_the_child_before_the_exit_returns(
    runner: BridgedRunner, ask: Ask
) -> None:
    async with runner.execute(ask("stall")) as chunks:
        assert (await anext(chunks)).text == "first"
        assert runner.active == 1
        assert (await state(runner, ask))[0] == 1
    assert runner.active == 0
    assert (await state(runner, ask))[0] == 0


async def test_cancellation_frees_the_child_and_spares_the_others(
    runner: BridgedRunner, ask: Ask
) -> None:
    async with runner.execute(ask("stall", "other")) as other:
        await anext(other)
        with trio.move_on_after(0.05) as scope:
            await collect(runner, ask("stall"))
        assert scope.cancelled_caught
        assert runner.active == 1
        assert (await state(runner, ask))[0] == 1


async def test_an_exception_in_the_block_comes_out_bare(
    bridged: Opener, ask: Ask
) -> None:
    with pytest.raises(LookupError, match=r"^mine$"):
        async with bridged() as runner, runner.execute(ask("stall")) as chunks:
            await anext(chunks)
            raise LookupError("mine")


# --- flow control -----------------------------------------------------------


async def test_slow_reader_stops_the_child_at_the_window(
    bridged: Opener, ask: Ask
) -> None:
    async with (
        bridged(limits=BridgeLimits(window=8)) as runner,
        runner.execute(ask("count 5000")) as chunks,
    ):
        await anext(chunks)
        # The child answers in between, so it had time to run ahead if it could.
        for _ in range(5):
            _, produced = await state(runner, ask)
        # Eight sent, and the one that waits for credit.
        assert produced == 9
        assert len([chunk async for chunk in chunks]) == 5000


async def test_megabytes_on_stdout_do_not_disturb_the_streams(
    bridged: Opener, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "atomr_infer.engine.awk")
    async with bridged() as runner:
        assert await collect(runner, ask("write 4")) == [TokenChunk(text="written")]
    assert "y" * 99 in caplog.messages
    assert len(caplog.messages) < 20_000
    assert "lines left out" in caplog.text
    assert "\x1b" not in caplog.text


# --- opening and closing ----------------------------------------------------


async def test_progress_and_credential_cross_the_bridge(bridged: Opener) -> None:
    seen: list[Progress] = []
    context = RunnerContext(credential=Secret("sk-1"), progress=seen.append)
    async with bridged(context=context, load="progress"):
        pass
    assert seen == [Progress("sk-1"), Progress("loading weights", 1, 2, "tensors")]


async def test_a_progress_callback_that_raises_is_logged_and_costs_no_engine(
    bridged: Opener, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Progress) -> None:
        raise LookupError("in the callback")

    context = RunnerContext(credential=Secret("sk-1"), progress=fail)
    async with bridged(context=context, load="progress") as runner:
        assert len(await collect(runner, ask("count 1"))) == 2
    assert "showing the progress of 'awk' failed" in caplog.text
    assert "in the callback" in caplog.text


async def test_closing_lets_the_plugin_clean_up(
    bridged: Opener,
    caplog: pytest.LogCaptureFixture,
    gone: Callable[[int], bool],
) -> None:
    caplog.set_level(logging.INFO, "atomr_infer.engine.awk")
    async with bridged(unload="mark") as runner:
        pid = runner.pid
        assert not gone(pid)
    assert caplog.messages == ["unloaded"]
    assert gone(pid)


async def test_a_closed_runner_refuses(bridged: Opener, ask: Ask) -> None:
    async with bridged() as runner:
        pass
    with pytest.raises(NotReadyError, match="the engine of deployment 'awk' is closed"):
        await collect(runner, ask("count 1"))


async def test_a_reader_of_a_runner_that_is_closed_gets_told(
    bridged: Opener, ask: Ask
) -> None:
    async def read(runner: BridgedRunner, started: trio.Event) -> None:
        with pytest.raises(NotReadyError, match="is closed"):
            async with runner.execute(ask("stall")) as chunks:
                async for _ in chunks:
                    started.set()

    async with trio.open_nursery() as nursery, bridged() as runner:
        started = trio.Event()
        nursery.start_soon(read, runner, started)
        await started.wait()


@pytest.mark.parametrize("unload", ["hang", "hold"])
async def test_a_child_that_does_not_close_is_ended_by_force(
    bridged: Opener, unload: str, gone: Callable[[int], bool]
) -> None:
    limits = BridgeLimits(close_s=0.2, terminate_s=0.2)
    async with bridged(limits=limits, unload=unload) as runner:
        pid = runner.pid
    assert gone(pid)


async def test_cancelled_from_outside_the_child_is_still_ended(
    bridged: Opener, ask: Ask, gone: Callable[[int], bool]
) -> None:
    with trio.CancelScope() as scope:
        async with bridged() as runner, runner.execute(ask("stall")) as chunks:
            pid = runner.pid
            await anext(chunks)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert gone(pid)


async def test_the_child_has_its_own_session_and_only_its_own_files(
    bridged: Opener, ask: Ask
) -> None:
    async def look(runner: BridgedRunner) -> tuple[str, list[str]]:
        [chunk] = await collect(runner, ask("environment"))
        session, *files = chunk.text.splitlines()
        return session, sorted(name.partition(":")[0] for name in files)

    async with bridged() as alone:
        session, files = await look(alone)
        assert session == str(alone.pid)
        # What the parent has open for the first must not leak into the second.
        async with bridged() as second:
            assert (await look(second))[1] == files
