"""vLLM with a real model on a CPU, behind the bridge and in its own environment.

The tests share one engine; the last one kills it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr_infer.errors import (
    ContextLengthError,
    EngineCrashedError,
    InferenceError,
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
    TokenChunk,
    Usage,
)
from atomr_infer.runtimes.conformance import CHECKS, Check
from atomr_infer.runtimes.conformance_case import ConformanceCase
from tests.plugins.vllm.watched import STEPS, UNFINISHED

if TYPE_CHECKING:
    from tests.plugins.vllm.conftest import RunningEngine

pytestmark = [pytest.mark.engine, pytest.mark.slow]

PATIENCE_S = 300.0  # a busy machine is slow; no test is about speed
STORY = "Write a story about a cat."
CASE = ConformanceCase(model="tiny", answer_timeout_s=120.0, leave_timeout_s=30.0)
WEATHER = Tool(
    name="weather",
    parameters=b"""{
        "type": "object",
        "properties": {"city": {"enum": ["Rome", "Paris"]}},
        "required": ["city"],
        "additionalProperties": false
    }""",
)
TIME = Tool(
    name="time", parameters=b'{"type": "object", "additionalProperties": false}'
)


def ask(text: str = STORY, **sampling: Any) -> ExecuteBatch:
    return ExecuteBatch(
        request_id=f"r-{time.monotonic_ns()}",
        model="tiny",
        messages=(Message(Role.USER, text),),
        sampling=Sampling(**sampling),
    )


def greedy(max_tokens: int, text: str = STORY, **sampling: Any) -> ExecuteBatch:
    return ask(text, max_tokens=max_tokens, temperature=0.0, **sampling)


def answer(engine: RunningEngine, batch: ExecuteBatch) -> list[TokenChunk]:
    async def collect() -> list[TokenChunk]:
        with trio.fail_after(PATIENCE_S):
            async with engine.runner.execute(batch) as chunks:
                return [chunk async for chunk in chunks]

    found: list[TokenChunk] = engine.run(collect)
    return found


def refusal(engine: RunningEngine, batch: ExecuteBatch) -> InferenceError:
    with pytest.raises(InferenceError) as caught:
        answer(engine, batch)
    return caught.value


def text_of(chunks: list[TokenChunk], index: int = 0) -> str:
    return "".join(chunk.text for chunk in chunks if chunk.index == index)


def usage_of(chunks: list[TokenChunk]) -> Usage:
    assert chunks[-1].usage is not None
    return chunks[-1].usage


def finish_of(chunks: list[TokenChunk]) -> list[FinishReason]:
    return [chunk.finish_reason for chunk in chunks if chunk.finish_reason]


def calls_of(chunks: list[TokenChunk]) -> list[tuple[str, Any]]:
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    for chunk in chunks:
        for piece in chunk.tool_calls:
            if piece.name is not None:
                names[piece.index] = piece.name
            before = arguments.get(piece.index, "")
            arguments[piece.index] = before + piece.arguments
    return [(name, json.loads(arguments[index])) for index, name in names.items()]


async def unfinished(engine: RunningEngine) -> int:
    """How many requests the engine has, as it says itself."""
    return await engine.runner.count_tokens(attrs.evolve(ask(), model=UNFINISHED))


async def steps(engine: RunningEngine) -> int:
    """How many steps the engine has made, as it says itself."""
    return await engine.runner.count_tokens(attrs.evolve(ask(), model=STEPS))


def test_its_start_is_told(engine: RunningEngine) -> None:
    told = [(progress.phase, progress.done) for progress in engine.progress]
    assert told[:2] == [("importing vLLM", None), ("starting the engine", None)]
    assert told[-1] == ("warming up", None)
    assert {phase for phase, _ in told[2:-1]} == {"loading the weights"}
    loaded = engine.progress[-2]
    assert loaded.done is not None
    assert loaded.total is not None
    # The last piece is told as the end of it.
    assert 0 < loaded.done <= loaded.total


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_conformance(engine: RunningEngine, check: Check) -> None:
    engine.run(check, engine.runner, CASE)


def test_it_streams_english_and_says_what_it_used(engine: RunningEngine) -> None:
    batch = greedy(32)
    chunks = answer(engine, batch)
    assert " the " in text_of(chunks) or " a " in text_of(chunks)
    assert len(chunks) > 10
    assert finish_of(chunks) == [FinishReason.LENGTH]
    assert usage_of(chunks).output_tokens == 32
    prompt_tokens = engine.run(engine.runner.count_tokens, batch)
    assert usage_of(chunks).prompt_tokens == prompt_tokens > 10
    assert text_of(answer(engine, greedy(32))) == text_of(chunks)


def test_a_complete_answer_has_as_many_tokens_as_its_text(
    engine: RunningEngine,
) -> None:
    chunks = answer(engine, greedy(400, "Repeat: hello"))
    assert finish_of(chunks) == [FinishReason.STOP]
    text = attrs.evolve(ask(), prompt=text_of(chunks))
    assert usage_of(chunks).output_tokens == engine.run(
        engine.runner.count_tokens, text
    )


def test_bare_text_is_continued_without_a_template(engine: RunningEngine) -> None:
    chat = greedy(8, "The capital of France is")
    bare = attrs.evolve(chat, prompt="The capital of France is")
    continued = answer(engine, bare)
    assert "Paris" in text_of(continued)
    assert (
        usage_of(continued).prompt_tokens < usage_of(answer(engine, chat)).prompt_tokens
    )


def test_a_stop_string_ends_the_answer_and_is_not_in_it(engine: RunningEngine) -> None:
    whole = text_of(answer(engine, greedy(32)))
    stop = whole.split()[5]
    chunks = answer(engine, greedy(32, stop=(stop,)))
    assert finish_of(chunks) == [FinishReason.STOP]
    assert text_of(chunks) == whole[: whole.index(stop)]
    assert [c.stop_sequence for c in chunks if c.finish_reason] == [stop]


def test_a_seed_makes_an_answer_come_again(engine: RunningEngine) -> None:
    one, again, other = (
        text_of(answer(engine, ask(seed=seed, max_tokens=24, temperature=1.5)))
        for seed in (7, 7, -8)
    )
    assert one == again != other


def test_several_answers_differ_and_are_counted_together(engine: RunningEngine) -> None:
    chunks = answer(engine, ask(n=3, max_tokens=16, temperature=1.5, seed=1))
    assert len({text_of(chunks, index) for index in range(3)}) == 3
    assert finish_of(chunks) == [FinishReason.LENGTH] * 3
    assert usage_of(chunks).output_tokens == 48
    same = answer(engine, greedy(8, n=2))
    assert text_of(same, 0) == text_of(same, 1) != ""


def test_probabilities_are_told_for_each_token(engine: RunningEngine) -> None:
    chunks = answer(engine, greedy(16, top_logprobs=3))
    told = [
        token
        for chunk in chunks
        if chunk.logprobs is not None
        for token in json.loads(chunk.logprobs)["content"]
    ]
    assert len(told) == 16
    assert "".join(token["token"] for token in told) == text_of(chunks)
    for token in told:
        # Greedy: the likeliest was taken.
        assert token["top_logprobs"][0]["token"] == token["token"]
        assert len(token["top_logprobs"]) == 3
        assert token["logprob"] <= 0


def test_a_prompts_beginning_is_read_once(engine: RunningEngine) -> None:
    long = "Remember these words: " + "cat dog bird " * 60
    answer(engine, greedy(2, long))
    cached = usage_of(answer(engine, greedy(2, long)))
    assert cached.cache_read > cached.input_uncached > 0


def test_an_adapter_is_chosen_by_the_models_name(engine: RunningEngine) -> None:
    batch = greedy(16)
    adapted = attrs.evolve(batch, model="adapted", request_id="adapted")
    assert text_of(answer(engine, adapted)) != text_of(answer(engine, batch))


def test_the_text_is_what_a_json_schema_says(engine: RunningEngine) -> None:
    schema = {
        "type": "object",
        "properties": {
            "color": {"enum": ["red", "green"]},
            "tame": {"type": "boolean"},
        },
        "required": ["color", "tame"],
        "additionalProperties": False,
    }
    form = ResponseFormat(
        kind=FormatKind.JSON_SCHEMA, schema=json.dumps(schema).encode()
    )
    chunks = answer(
        engine, attrs.evolve(greedy(200, "Describe a cat."), response_format=form)
    )
    found = json.loads(text_of(chunks))
    # As short as it can be but for a blank: a model may write them without end.
    written = json.dumps(found, separators=(",", ":"))
    assert re.sub(r"([,:]) ", r"\1", text_of(chunks)) == written
    assert set(found) == {"color", "tame"}
    assert found["color"] in ("red", "green")
    assert finish_of(chunks) == [FinishReason.STOP]


def test_a_named_tool_is_called(engine: RunningEngine) -> None:
    choice = ToolChoice(mode=ToolMode.REQUIRED, names=("weather",))
    batch = attrs.evolve(
        greedy(100, "How is it in Rome?"), tools=(WEATHER, TIME), tool_choice=choice
    )
    chunks = answer(engine, batch)
    ((name, arguments),) = calls_of(chunks)
    assert (name, set(arguments)) == ("weather", {"city"})
    assert finish_of(chunks) == [FinishReason.TOOL_CALLS]
    assert text_of(chunks) == ""


def test_some_tool_is_called_where_one_is_required(engine: RunningEngine) -> None:
    batch = attrs.evolve(
        greedy(200, "What time is it?"),
        tools=(WEATHER, TIME),
        tool_choice=ToolChoice(mode=ToolMode.REQUIRED),
        parallel_tool_calls=False,
    )
    chunks = answer(engine, batch)
    ((name, arguments),) = calls_of(chunks)
    assert name in ("weather", "time")
    assert isinstance(arguments, dict)
    assert finish_of(chunks) == [FinishReason.TOOL_CALLS]


def test_calls_that_the_model_decides_on_are_found_in_its_text(
    engine: RunningEngine,
) -> None:
    # So small a model does not call tools; here it has no choice.
    written = (
        r'<tool_call>\n\{"name": "weather", "arguments": '
        r'\{"city": "(Rome|Paris)"\}\}\n</tool_call>'
    )
    batch = attrs.evolve(
        greedy(100, "How is it in Rome?"),
        tools=(WEATHER,),
        extra={"guided_regex": json.dumps(written).encode()},
    )
    chunks = answer(engine, batch)
    ((name, arguments),) = calls_of(chunks)
    assert (name, set(arguments)) == ("weather", {"city"})
    assert finish_of(chunks) == [FinishReason.TOOL_CALLS]
    assert "tool_call" not in text_of(chunks)


def test_what_the_client_did_wrong_is_said_with_its_parameter(
    engine: RunningEngine,
) -> None:
    too_long = refusal(engine, ask("word " * 2000, max_tokens=4))
    assert isinstance(too_long, ContextLengthError)
    hot = refusal(engine, ask(max_tokens=4, temperature=-1.0))
    assert isinstance(hot, InvalidRequestError)
    assert hot.param == "temperature"
    odd = attrs.evolve(greedy(4), extra={"guided_regex": b'"("'})
    assert isinstance(refusal(engine, odd), InvalidRequestError)
    assert finish_of(answer(engine, greedy(4))) == [FinishReason.LENGTH]


def test_what_it_does_not_know_is_told(engine: RunningEngine) -> None:
    batch = attrs.evolve(greedy(4), extra={"min_tokns": b"1"})
    assert answer(engine, batch)[0].warnings == (
        "min_tokns was ignored (did you mean min_tokens?)",
    )


def long() -> ExecuteBatch:
    return attrs.evolve(ask(max_tokens=900), extra={"ignore_eos": b"true"})


async def hold(engine: RunningEngine, held: trio.Event, done: trio.Event) -> None:
    """Take one chunk of a long answer, and no more until ``done``."""
    async with engine.runner.execute(long()) as chunks:
        await anext(chunks)
        held.set()
        await done.wait()


def test_leaving_frees_the_engine_at_once(engine: RunningEngine) -> None:
    async def leave_beside_three() -> list[float]:
        took: list[float] = []
        done = trio.Event()
        async with trio.open_nursery() as nursery:
            for held in [trio.Event() for _ in range(3)]:
                nursery.start_soon(hold, engine, held, done)
                await held.wait()
            for _ in range(5):
                async with engine.runner.execute(long()) as chunks:
                    await anext(chunks)
                    assert await unfinished(engine) == 4
                    left_at = time.monotonic()
                assert await unfinished(engine) == 3
                took.append(time.monotonic() - left_at)
            done.set()
        assert await unfinished(engine) == 0
        return took

    with_patience = engine.run(leave_beside_three)
    # The best of five: the machine may have other things to do.
    assert min(with_patience) < 0.2, with_patience


async def figures(engine: RunningEngine) -> dict[str, float]:
    """What vLLM's own metrics say."""
    return {figure.name: figure.value for figure in await engine.runner.figures()}


def test_its_own_metrics_say_that_one_who_left_is_out_within_a_few_steps(
    engine: RunningEngine,
) -> None:
    async def leave() -> float:
        async with engine.runner.execute(long()) as chunks:
            await anext(chunks)
            before = await figures(engine)
        assert before["running_requests"] == 1
        assert 0 < before["cache_used_ratio"] < 1
        with trio.fail_after(PATIENCE_S):
            while (after := await figures(engine))["running_requests"]:  # noqa: ASYNC110 - it has no event
                await trio.sleep(0.005)
        assert after["waiting_requests"] == after["cache_used_ratio"] == 0
        await trio.sleep(0.1)  # or one more step could follow
        assert await figures(engine) == after
        return after["output_tokens"] - before["output_tokens"]

    # Each step makes one token; all of them would be 900.
    assert engine.run(leave) < 20


def test_its_requests_and_its_figures_are_in_the_log_and_not_its_steps(
    engine: RunningEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "atomr_infer.engine.tiny")
    answer(engine, greedy(8))
    give_up_at = time.monotonic() + PATIENCE_S
    while "Avg generation throughput: " not in caplog.text:
        assert time.monotonic() < give_up_at, caplog.text
        time.sleep(0.1)
    assert "Added request " in caplog.text
    assert "Iteration(" not in caplog.text


def test_each_token_is_a_step_and_at_rest_there_is_none(
    engine: RunningEngine,
) -> None:
    before = engine.run(steps, engine)
    made = usage_of(answer(engine, greedy(20))).output_tokens
    after = engine.run(steps, engine)
    assert made > 10
    # One may be under way as the answer ends.
    assert made <= after - before <= made + 2

    async def rest() -> int:
        await trio.sleep(0.5)
        return await steps(engine)

    assert engine.run(rest) <= after + 1


def test_its_own_metrics_count_what_was_found_in_the_prefix_cache(
    engine: RunningEngine,
) -> None:
    asked = ask("Once upon a time. " * 20, max_tokens=4)

    async def twice() -> list[dict[str, float]]:
        found = [await figures(engine)]
        for _ in range(2):
            async with engine.runner.execute(asked) as chunks:
                async for _ in chunks:
                    pass
            found.append(await figures(engine))
        return found

    before, first, second = engine.run(twice)
    read = first["prefix_asked_tokens"] - before["prefix_asked_tokens"]
    assert second["prefix_asked_tokens"] - first["prefix_asked_tokens"] == read
    assert second["prefix_hit_tokens"] - first["prefix_hit_tokens"] > read / 2
    assert first["output_tokens"] > before["output_tokens"]
    assert second["preemptions"] == 0


def test_sixteen_at_once_are_faster_than_one_after_the_other(
    engine: RunningEngine,
) -> None:
    async def tokens_per_s(at_once: int) -> float:
        async def one() -> None:
            async with engine.runner.execute(batch()) as chunks:
                async for _ in chunks:
                    pass

        began = time.monotonic()
        async with trio.open_nursery() as nursery:
            for _ in range(at_once):
                nursery.start_soon(one)
        return 32 * at_once / (time.monotonic() - began)

    def batch() -> ExecuteBatch:
        return attrs.evolve(greedy(32), extra={"ignore_eos": b"true"})

    engine.run(tokens_per_s, 1)
    # Before and after: what else the machine does may begin between.
    before, together, after = (engine.run(tokens_per_s, n) for n in (1, 16, 1))
    alone = min(before, after)
    print(f"{alone:.0f} tokens per second alone, {together:.0f} with 16 at once")
    # Twice and more where nobody else computes; of a core that is shared, less.
    assert together > 1.25 * alone


def processes_of(group: int) -> dict[int, str]:
    """The names of a process group's processes, zombies left out."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:  # it has just ended
            continue
        name, _, rest = text.partition("(")[2].rpartition(")")
        state, _, its_group = rest.split()[:3]
        if int(its_group) == group and state != "Z":
            found[int(stat.parent.name)] = name
    return found


def test_a_core_that_is_killed_ends_every_answer_and_the_engine(
    engine: RunningEngine,
) -> None:
    async def kill_under_load() -> list[InferenceError]:
        errors: list[InferenceError] = []

        async def one(begun: trio.Event) -> None:
            try:
                async with engine.runner.execute(long()) as chunks:
                    async for _ in chunks:
                        begun.set()
            except InferenceError as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            for begun in [trio.Event() for _ in range(4)]:
                nursery.start_soon(one, begun)
                await begun.wait()
            (core,) = (
                pid
                for pid, name in processes_of(engine.runner.pid).items()
                if name.startswith("VLLM::EngineCor")
            )
            os.kill(core, signal.SIGKILL)
        with trio.fail_after(60):
            errors.append(await engine.runner.failed())
        return errors

    errors = engine.run(kill_under_load)
    assert [type(error) for error in errors] == [EngineCrashedError] * 5
    assert isinstance(refusal(engine, greedy(4)), EngineCrashedError)
    group = engine.runner.pid
    engine.close()
    # They have been killed; the kernel takes its time to free what they had.
    until = time.monotonic() + PATIENCE_S
    while processes_of(group) and time.monotonic() < until:
        time.sleep(0.05)
    assert processes_of(group) == {}
