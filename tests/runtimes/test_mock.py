"""The mock runtime does what its script says, under virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr_infer.errors import ConfigError, EngineError, RateLimitedError
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    Role,
    Sampling,
    TokenChunk,
    Usage,
)
from atomr_infer.model.deployment import Deployment
from atomr_infer.runtimes.contract import Progress, RunnerContext
from atomr_infer.testing.mock import PLUGIN, MockPlugin, MockRunner
from atomr_infer.testing.mock_script import MockScript, script_from_options, tokenize

if TYPE_CHECKING:
    from trio.testing import MockClock

    from atomr_infer.model.deployment import OptionValue

ASK = ExecuteBatch(
    request_id="r-1",
    model="mock",
    messages=(
        Message(Role.SYSTEM, "be brief"),
        Message(Role.USER, "first question"),
        Message(Role.ASSISTANT, "an answer"),
        Message(Role.USER, "to be or not"),
    ),
)


def ask(sampling: Sampling) -> ExecuteBatch:
    return attrs.evolve(ASK, sampling=sampling)


async def collect(runner: MockRunner, batch: ExecuteBatch) -> list[TokenChunk]:
    async with runner.execute(batch) as chunks:
        return [chunk async for chunk in chunks]


async def test_it_echoes_the_last_user_message_word_by_word() -> None:
    chunks = await collect(MockRunner(), ASK)

    assert chunks == [
        TokenChunk(text="to"),
        TokenChunk(text=" be"),
        TokenChunk(text=" or"),
        TokenChunk(text=" not"),
        TokenChunk(finish_reason=FinishReason.STOP),
        TokenChunk(usage=Usage(input_uncached=10, output_text=4)),
    ]


async def test_max_tokens_cuts_the_answer() -> None:
    chunks = await collect(MockRunner(), ask(Sampling(max_tokens=2)))

    assert chunks == [
        TokenChunk(text="to"),
        TokenChunk(text=" be"),
        TokenChunk(finish_reason=FinishReason.LENGTH),
        TokenChunk(usage=Usage(input_uncached=10, output_text=2)),
    ]


async def test_an_answer_of_exactly_max_tokens_ends_by_itself() -> None:
    chunks = await collect(MockRunner(), ask(Sampling(max_tokens=4)))

    assert chunks[-2] == TokenChunk(finish_reason=FinishReason.STOP)


async def test_the_earliest_stop_string_ends_the_answer_before_itself() -> None:
    chunks = await collect(MockRunner(), ask(Sampling(stop=("not", "e or"))))

    assert [chunk.text for chunk in chunks] == ["to", " b", "", ""]
    assert chunks[-2] == TokenChunk(finish_reason=FinishReason.STOP)


async def test_n_answers_are_interleaved_and_counted_together() -> None:
    chunks = await collect(MockRunner(MockScript(reply="yes sir")), ask(Sampling(n=2)))

    assert chunks == [
        TokenChunk(text="yes", index=0),
        TokenChunk(text="yes", index=1),
        TokenChunk(text=" sir", index=0),
        TokenChunk(text=" sir", index=1),
        TokenChunk(index=0, finish_reason=FinishReason.STOP),
        TokenChunk(index=1, finish_reason=FinishReason.STOP),
        TokenChunk(usage=Usage(input_uncached=10, output_text=4)),
    ]


async def test_an_empty_answer_still_finishes() -> None:
    chunks = await collect(MockRunner(MockScript(reply="")), ASK)

    assert chunks == [
        TokenChunk(finish_reason=FinishReason.STOP),
        TokenChunk(usage=Usage(input_uncached=10, output_text=0)),
    ]


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (MockScript(reply="a b", tokens=5), "a b a b a"),
        (MockScript(reply="a b c", tokens=2), "a b"),
        (MockScript(reply="", tokens=3), "word word word"),
        (MockScript(reply="a b", tokens=0), ""),
    ],
)
async def test_tokens_sets_the_length(script: MockScript, text: str) -> None:
    chunks = await collect(MockRunner(script), ASK)

    assert "".join(chunk.text for chunk in chunks) == text
    assert chunks[-1].usage == Usage(input_uncached=10, output_text=script.tokens or 0)


async def test_each_token_waits_its_delay(autojump_clock: MockClock) -> None:
    runner = MockRunner(MockScript(delay_s=2.5))
    started = trio.current_time()

    async with runner.execute(ASK) as chunks:
        times = [trio.current_time() - started async for chunk in chunks if chunk.text]

    assert times == [2.5, 5.0, 7.5, 10.0]


@pytest.mark.parametrize("fail_after", [0, 2, 4])
async def test_it_fails_after_so_many_tokens_with_the_kind_asked_for(
    fail_after: int,
) -> None:
    runner = MockRunner(MockScript(fail_after=fail_after, fail_kind="rate_limited"))
    seen: list[TokenChunk] = []

    with pytest.raises(RateLimitedError, match="as its script says"):
        async with runner.execute(ASK) as chunks:
            async for chunk in chunks:
                seen.append(chunk)

    assert len(seen) == fail_after
    assert (runner.active, runner.left_early) == (0, 0)


async def test_a_hanging_answer_is_ended_by_leaving(autojump_clock: MockClock) -> None:
    runner = MockRunner(MockScript(hang_after=1))

    with trio.move_on_after(1000) as scope:
        await collect(runner, ASK)

    assert scope.cancelled_caught
    assert (runner.active, runner.left_early) == (0, 1)


async def test_leaving_before_the_first_chunk_counts_as_early() -> None:
    runner = MockRunner()

    async with runner.execute(ASK):
        assert runner.active == 1

    assert (runner.active, runner.left_early) == (0, 1)
    assert runner.batches == (ASK,)


async def test_leaving_after_the_last_chunk_is_not_early() -> None:
    runner = MockRunner()

    async with runner.execute(ASK) as chunks:
        async for chunk in chunks:
            if chunk.usage is not None:
                break

    assert (runner.active, runner.left_early) == (0, 0)


async def test_it_runs_generations_at_once_and_remembers_the_peak(
    autojump_clock: MockClock,
) -> None:
    runner = MockRunner(MockScript(delay_s=1))
    started = trio.current_time()

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(collect, runner, ASK)

    assert trio.current_time() - started == 4.0
    assert (runner.peak_active, runner.active) == (3, 0)


async def test_a_broken_runner_fails_what_runs_and_what_comes(
    autojump_clock: MockClock,
) -> None:
    runner = MockRunner(MockScript(hang_after=0))
    broken = EngineError("out of memory")

    async def break_it() -> None:
        await trio.sleep(5)
        runner.fail(broken)
        runner.fail(EngineError("a second failure"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(break_it)
        with pytest.raises(EngineError) as running:
            await collect(runner, ASK)
    with pytest.raises(EngineError) as later:
        await collect(runner, ASK)

    assert running.value is broken
    assert later.value is broken
    assert await runner.failed() is broken


async def test_a_healthy_runner_never_reports_a_failure(
    autojump_clock: MockClock,
) -> None:
    with trio.move_on_after(10_000) as scope:
        await MockRunner().failed()

    assert scope.cancelled_caught


async def test_the_plugin_opens_a_runner_with_the_deployment_s_script() -> None:
    opened: list[MockRunner] = []
    progress: list[Progress] = []
    script = MockScript(reply="hi", max_concurrency=3)
    deployment = Deployment(name="m", runtime="mock", options=script.options())
    context = RunnerContext(progress=progress.append)

    async with MockPlugin(on_open=opened.append).open_runner(
        deployment, context
    ) as runner:
        assert opened == [runner]

    assert runner.script == script
    assert runner.capabilities.max_concurrency == 3
    assert progress == [Progress("reading the script")]


@pytest.mark.parametrize(
    "script",
    [
        MockScript(),
        MockScript(reply="x", tokens=2, delay_s=0.5, fail_after=1, fail_kind="engine"),
        MockScript(hang_after=0, max_concurrency=1),
    ],
)
def test_a_script_survives_being_written_as_options(script: MockScript) -> None:
    assert script_from_options(script.options()) == script


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"replay": "x"}, "the mock runtime has no option 'replay'; "
         "did you mean 'reply'?"),
        ({"delay_s": -1}, "option delay_s: -1 is not a number of seconds"),
        ({"delay_s": True}, "option delay_s: True is not a number of seconds"),
        ({"delay_s": "1"}, "option delay_s: '1' is not a number of seconds"),
        ({"tokens": -1}, "option tokens: -1 must be at least 0"),
        ({"tokens": 1.5}, "option tokens: 1.5 is not a whole number"),
        ({"max_concurrency": 0}, "option max_concurrency: 0 must be at least 1"),
        ({"fail_kind": "bad"}, "option fail_kind: 'bad' is no error's kind; "
         "use one such as 'upstream'"),
        ({"reply": 3}, "option reply: 3 is not a string"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(
    options: dict[str, OptionValue], message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        PLUGIN.validate(Deployment(name="m", runtime="mock", options=options))

    assert str(raised.value) == message


def test_text_is_its_tokens_joined() -> None:
    text = "  two  spaces\nand a line\n"

    assert tokenize(text) == ("  two", "  spaces", "\nand", " a", " line\n")
