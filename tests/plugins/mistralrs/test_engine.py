"""mistral.rs with a real model, behind the bridge as in production."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr_infer.bridge import BridgedRunner, open_bridged_runner
from atomr_infer.errors import (
    ContextLengthError,
    EngineCrashedError,
    InvalidRequestError,
)
from atomr_infer.model.asks import (
    FormatKind,
    ResponseFormat,
    Tool,
    ToolChoice,
    ToolMode,
)
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    Role,
    Sampling,
    TextPart,
    TokenChunk,
)
from atomr_infer.runtimes.conformance import CHECKS, Check
from atomr_infer.runtimes.conformance_case import ConformanceCase
from atomr_infer.runtimes.contract import RunnerContext
from atomr_infer.runtimes.plugin_check import check_plugin
from atomr_infer_mistralrs.plugin import PLUGIN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer.model.deployment import Deployment

pytestmark = pytest.mark.engine

REF = "atomr_infer_mistralrs.plugin:PLUGIN"
PATIENCE_S = 300.0  # a busy machine is slow; no test is about speed
STORY = "Write a story about a cat."


@pytest.fixture
async def runner(demo: Deployment) -> AsyncIterator[BridgedRunner]:
    async with open_bridged_runner(REF, demo, RunnerContext()) as opened:
        yield opened


def ask(text: str = STORY, **sampling: object) -> ExecuteBatch:
    return ExecuteBatch(
        request_id="r",
        model="m",
        messages=(Message(Role.USER, text),),
        sampling=attrs.evolve(Sampling(), **sampling),  # type: ignore[arg-type] # the tests' own fields
    )


async def collect(runner: BridgedRunner, batch: ExecuteBatch) -> list[TokenChunk]:
    with trio.fail_after(PATIENCE_S):
        async with runner.execute(batch) as chunks:
            return [chunk async for chunk in chunks]


def text_of(chunks: list[TokenChunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_it_streams_english_and_says_what_it_used(runner: BridgedRunner) -> None:
    chunks = await collect(runner, ask(max_tokens=32, temperature=0.0))
    text = text_of(chunks)
    assert " the " in text or " a " in text
    assert text.isascii()
    assert len(chunks) > 10
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.prompt_tokens > 10
    assert usage.output_tokens == 32
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == [
        FinishReason.LENGTH
    ]
    again = await collect(runner, ask(max_tokens=32, temperature=0.0))
    assert text_of(again) == text


async def test_an_answer_that_is_complete_finishes_with_stop(
    runner: BridgedRunner,
) -> None:
    chunks = await collect(
        runner, ask("Repeat: hello", max_tokens=400, temperature=0.0)
    )
    assert chunks[-1].finish_reason is FinishReason.STOP


async def test_a_stop_string_ends_the_answer_and_is_not_in_it(
    runner: BridgedRunner,
) -> None:
    whole = text_of(await collect(runner, ask(max_tokens=32, temperature=0.0)))
    stop = whole.split()[5]
    chunks = await collect(runner, ask(max_tokens=32, temperature=0.0, stop=(stop,)))
    assert chunks[-1].finish_reason is FinishReason.STOP
    assert text_of(chunks).rstrip() == whole[: whole.index(stop)].rstrip()


async def test_penalties_and_temperature_reach_the_model(
    runner: BridgedRunner,
) -> None:
    plain = text_of(await collect(runner, ask(max_tokens=20, temperature=0.0)))
    for changed in (
        ask(max_tokens=20, temperature=0.0, presence_penalty=2.0),
        ask(max_tokens=20, temperature=0.0, frequency_penalty=2.0),
    ):
        assert text_of(await collect(runner, changed)) != plain
    hot = [
        text_of(await collect(runner, ask(max_tokens=8, temperature=1.5)))
        for _ in range(2)
    ]
    assert hot[0] != hot[1]
    narrow = ask(max_tokens=20, temperature=1.5, top_p=0.01)
    assert text_of(await collect(runner, narrow)) == plain


async def test_the_tokens_that_are_drawn_of_can_be_few(runner: BridgedRunner) -> None:
    plain = text_of(await collect(runner, ask(max_tokens=12, temperature=0.0)))
    hot = ask(max_tokens=12, temperature=1.5, top_k=1)
    assert text_of(await collect(runner, hot)) == plain
    likely = attrs.evolve(
        ask(max_tokens=12, temperature=1.5), extra={"min_p": b"0.9999"}
    )
    assert text_of(await collect(runner, likely)) == plain
    once = attrs.evolve(
        ask(max_tokens=12, temperature=0.0), extra={"repetition_penalty": b"1.8"}
    )
    assert text_of(await collect(runner, once)) != plain


async def test_each_token_has_its_probability(runner: BridgedRunner) -> None:
    chunks = await collect(runner, ask(max_tokens=6, temperature=0.0, top_logprobs=2))
    told = [
        entry
        for chunk in chunks
        if chunk.logprobs is not None
        for entry in json.loads(chunk.logprobs)["content"]
    ]
    assert "".join(entry["token"] for entry in told) == text_of(chunks)
    assert len(told) == 6
    for entry in told:
        assert bytes(entry["bytes"]).decode() == entry["token"]
        first, second = entry["top_logprobs"]
        assert first == {key: entry[key] for key in ("token", "logprob", "bytes")}
        assert first["logprob"] >= second["logprob"]


PLACE = {
    "type": "object",
    "properties": {"where": {"type": "string", "enum": ["inside", "outside"]}},
    "required": ["where"],
    "additionalProperties": False,
}


async def test_an_answer_is_kept_to_its_schema(runner: BridgedRunner) -> None:
    schema = json.dumps(PLACE).encode()
    asked = attrs.evolve(
        ask(max_tokens=40, temperature=1.0),
        response_format=ResponseFormat(kind=FormatKind.JSON_SCHEMA, schema=schema),
    )
    chunks = await collect(runner, asked)
    assert json.loads(text_of(chunks))["where"] in {"inside", "outside"}
    assert chunks[-1].finish_reason is FinishReason.STOP
    wrong = ResponseFormat(kind=FormatKind.JSON_SCHEMA, schema=b'{"type": "objekt"}')
    with pytest.raises(InvalidRequestError, match="Invalid type: objekt") as caught:
        await collect(runner, attrs.evolve(asked, response_format=wrong))
    assert caught.value.param == "response_format"


async def test_a_tool_that_is_required_is_called(runner: BridgedRunner) -> None:
    asked = attrs.evolve(
        ask("Look outside.", max_tokens=40, temperature=0.0),
        tools=(Tool(name="look", parameters=json.dumps(PLACE).encode()),),
        tool_choice=ToolChoice(mode=ToolMode.REQUIRED, names=("look",)),
    )
    chunks = await collect(runner, asked)
    calls = [call for chunk in chunks for call in chunk.tool_calls]
    assert calls[0].name == "look"
    arguments = json.loads("".join(call.arguments for call in calls))
    assert arguments["where"] in {"inside", "outside"}
    assert (text_of(chunks), chunks[-1].finish_reason) == ("", FinishReason.TOOL_CALLS)


async def test_content_in_parts_is_read_as_one_text(runner: BridgedRunner) -> None:
    whole = ask(max_tokens=6, temperature=0.0)
    parts = attrs.evolve(
        whole,
        messages=(Message(Role.USER, (TextPart(STORY[:9]), TextPart(STORY[9:]))),),
    )
    assert text_of(await collect(runner, parts)) == text_of(
        await collect(runner, whole)
    )


async def test_leaving_frees_the_slot_and_the_cpu(runner: BridgedRunner) -> None:
    async with runner.execute(ask()) as chunks:
        await anext(chunks)
        used = cpu_s(runner.pid)
        with trio.fail_after(PATIENCE_S):
            # It runs on, though nobody reads.
            while cpu_s(runner.pid) - used <= 0.2:  # noqa: ASYNC110 - another process
                await trio.sleep(0.1)
        assert runner.active == 1
    assert runner.active == 0
    # It may finish the token at hand; then it must be quiet.
    with trio.fail_after(30):
        while True:
            used = cpu_s(runner.pid)
            await trio.sleep(1.0)
            if cpu_s(runner.pid) - used < 0.1:
                break
    assert len(await collect(runner, ask(max_tokens=4))) > 0


@pytest.mark.slow
async def test_leaving_in_a_long_prefill_does_not_cost_the_engine(
    runner: BridgedRunner,
) -> None:
    # It may take longer than the runner waits, and cannot be interrupted.
    with trio.move_on_after(1.0) as scope:
        await collect(runner, ask("word " * 1000))
    assert scope.cancelled_caught
    assert runner.active == 0
    # The next prompt waits for it, and is answered by the same process.
    assert len(await collect(runner, ask(max_tokens=4))) > 0


async def test_equal_prompts_at_once_all_answer_as_alone(
    runner: BridgedRunner,
) -> None:
    batch = ask(max_tokens=8, temperature=0.0)
    alone = text_of(await collect(runner, batch))
    answers: list[str] = []

    async def answer() -> None:
        answers.append(text_of(await collect(runner, batch)))

    async with trio.open_nursery() as nursery:
        for _ in range(2 * runner.capabilities.max_concurrency):
            nursery.start_soon(answer)
    assert answers == [alone] * len(answers)


async def test_a_prompt_over_the_context_is_refused(runner: BridgedRunner) -> None:
    with pytest.raises(ContextLengthError) as caught:
        await collect(runner, ask("word " * 9000))
    assert caught.value.code == "context_length_exceeded"
    assert "8192 tokens" in caught.value.message
    assert runner.capabilities.context_tokens == 8192


async def test_a_value_that_the_engine_refuses_is_the_client_s(
    runner: BridgedRunner,
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await collect(runner, ask(max_tokens=0))
    assert caught.value.param == "max_tokens"


async def test_killed_in_mid_stream_it_says_so(runner: BridgedRunner) -> None:
    async with runner.execute(ask()) as chunks:
        await anext(chunks)
        os.kill(runner.pid, signal.SIGKILL)
        with trio.fail_after(30), pytest.raises(EngineCrashedError) as caught:
            async for _ in chunks:
                pass
    assert "killed by SIGKILL (9)" in caught.value.message
    assert type(await runner.failed()) is EngineCrashedError


# The quick one is in test_directory: the same runner with a tiny model.
@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_conformance(runner: BridgedRunner, check: Check) -> None:
    await check(
        runner,
        ConformanceCase(model="m", answer_timeout_s=PATIENCE_S, leave_timeout_s=30.0),
    )


def test_the_plugin_itself_conforms(demo: Deployment) -> None:
    check_plugin(PLUGIN, demo)
    assert PLUGIN.missing() == ()
