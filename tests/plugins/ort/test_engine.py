"""A tiny model is really run: batches, answers, ends, seeds, and who gets which error.

The model is random and small, so that what it says is nonsense and quickly said;
what it must say is computed in numpy, without a cache and without a batch.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import attrs
import msgspec
import numpy as np
import pytest
import trio
import trio.testing

from atomr_infer.errors import (
    ContextLengthError,
    EngineCrashedError,
    EngineError,
    InferenceError,
    InvalidRequestError,
    NotReadyError,
    UnsupportedFeatureError,
)
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    Role,
    Sampling,
    TokenChunk,
)
from atomr_infer.model.capabilities import Feature
from atomr_infer.model.deployment import Deployment
from atomr_infer.runtimes.contract import RunnerContext
from atomr_infer.runtimes.decoding.generation import WINDOW, Generation
from atomr_infer_ort.causal import Abilities
from atomr_infer_ort.plugin import PLUGIN
from tests.plugins.ort.graphs import LlamaShape, llama_reference, random_llama
from tests.plugins.ort.models import SHAPE, byte_tokenizer, write_llama

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from atomr_infer_ort.causal import Causal, Rows
    from atomr_infer_ort.runner import OrtRunner

pytestmark = pytest.mark.engine

TOKENIZER = byte_tokenizer()
WEIGHTS = random_llama(SHAPE)
PROMPTS = ["a", "several words", "and a prompt that is longer than the others by far"]
PATIENCE_S = 120.0


@asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[OrtRunner]:
    deployment = Deployment(
        name="tiny",
        runtime="ort",
        model=str(folder),
        options={"threads": 1, **options},
    )
    async with PLUGIN.open_runner(deployment, RunnerContext()) as runner:
        yield cast("OrtRunner", runner)


@pytest.fixture
async def runner(llama_folder: Path) -> AsyncIterator[OrtRunner]:
    async with opened(llama_folder) as found:
        yield found


def ask(text: str = "hello", **sampling: Any) -> ExecuteBatch:
    return ExecuteBatch(
        request_id="r",
        model="tiny",
        messages=(Message(Role.USER, text),),
        sampling=attrs.evolve(Sampling(), **sampling),
    )


def bare(text: str, **sampling: Any) -> ExecuteBatch:
    return attrs.evolve(ask(text, **sampling), prompt=text)


async def collect(runner: OrtRunner, batch: ExecuteBatch) -> list[TokenChunk]:
    with trio.fail_after(PATIENCE_S):
        async with runner.execute(batch) as chunks:
            return [chunk async for chunk in chunks]


def text_of(chunks: list[TokenChunk], index: int = 0) -> str:
    return "".join(chunk.text for chunk in chunks if chunk.index == index)


def finishes(chunks: list[TokenChunk]) -> list[tuple[int, FinishReason]]:
    return [(c.index, c.finish_reason) for c in chunks if c.finish_reason is not None]


def greedy(prompt: str, count: int, shape: LlamaShape = SHAPE) -> list[int]:
    """The tokens that a numpy model takes, each from the whole row before it."""
    tokens = list(TOKENIZER.encode(prompt).ids)
    start = len(tokens)
    while len(tokens) < start + count:
        tokens.append(int(llama_reference(shape, WEIGHTS, tokens)[-1].argmax()))
    return tokens[start:]


def decode(tokens: list[int]) -> str:
    return str(TOKENIZER.decode(tokens, skip_special_tokens=True))


# --- the same words as the reference ------------------------------------------


async def test_greedy_answers_and_probabilities_are_the_reference_s(
    runner: OrtRunner,
) -> None:
    chunks = await collect(
        runner, bare("hello", max_tokens=24, temperature=0.0, top_logprobs=3)
    )
    expected = greedy("hello", 24)
    assert text_of(chunks) == decode(expected)
    entries = [
        entry
        for chunk in chunks
        if chunk.logprobs is not None
        for entry in msgspec.json.decode(chunk.logprobs)["content"]
    ]
    tokens = list(TOKENIZER.encode("hello").ids)
    logits = llama_reference(SHAPE, WEIGHTS, [*tokens, *expected])[len(tokens) - 1 : -1]
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    best = np.sort(logprobs)[:, ::-1]
    assert [entry["logprob"] for entry in entries] == pytest.approx(
        best[:, 0].tolist(), abs=1e-4
    )
    assert [[top["logprob"] for top in entry["top_logprobs"]] for entry in entries] == [
        pytest.approx(row[:3].tolist(), abs=1e-4) for row in best
    ]
    # Parts of characters too: whoever joins them has the text.
    told = b"".join(bytes(entry["bytes"]) for entry in entries)
    assert told.decode(errors="replace") == decode(expected)
    assert "\ufffd" in [entry["token"] for entry in entries]


@pytest.mark.parametrize("prefill_tokens", [1, 7, 64])
async def test_a_prompt_read_in_pieces_is_the_same_prompt(
    llama_folder: Path, prefill_tokens: int
) -> None:
    async with opened(llama_folder, prefill_tokens=prefill_tokens) as runner:
        chunks = await collect(runner, bare(PROMPTS[2], max_tokens=8, temperature=0.0))
        assert runner.steps == -(-len(PROMPTS[2]) // prefill_tokens) + 7
    assert text_of(chunks) == decode(greedy(PROMPTS[2], 8))


@pytest.mark.parametrize(
    "shape",
    [
        SHAPE,
        attrs.evolve(SHAPE, position_ids=False),
        attrs.evolve(SHAPE, fused=True),
        attrs.evolve(SHAPE, fused=True, position_ids=False),
    ],
    ids=["exported", "without positions", "fused", "fused, without positions"],
)
async def test_sequences_of_any_length_that_come_and_go_say_what_they_say_alone(
    tmp_path: Path, shape: LlamaShape
) -> None:
    folder = write_llama(tmp_path / "model", shape)
    counts = [40, 9, 25]
    said: dict[tuple[int, int], str] = {}

    async def answer(runner: OrtRunner, turn: int, number: int) -> None:
        for _ in range(turn * 3):
            await trio.testing.wait_all_tasks_blocked()
        chunks = await collect(
            runner,
            bare(PROMPTS[number], max_tokens=counts[number], temperature=0.0),
        )
        said[turn, number] = text_of(chunks)

    async with opened(folder, max_seqs=5) as runner, trio.open_nursery() as nursery:
        assert runner._engine._abilities == Abilities(pads=shape == SHAPE, pieces=True)
        for turn in range(3):
            for number in range(3):
                nursery.start_soon(answer, runner, turn, number)
    expected = [
        decode(greedy(prompt, count))
        for prompt, count in zip(PROMPTS, counts, strict=True)
    ]
    assert said == {(t, n): expected[n] for t in range(3) for n in range(3)}


async def test_answers_share_their_steps(runner: OrtRunner) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(collect, runner, ask(max_tokens=200))
    # Alone, each would take 200.  A request that comes late finds others under way.
    assert 200 <= runner.steps < 4 * 200


# --- ends ----------------------------------------------------------------------


async def test_usage_is_the_tokenizer_s_count(runner: OrtRunner) -> None:
    chunks = await collect(runner, bare("hello", max_tokens=12, temperature=0.0))
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.output_tokens) == (5, 12)
    assert finishes(chunks) == [(0, FinishReason.LENGTH)]


async def test_a_chat_s_prompt_has_the_template_s_tokens(runner: OrtRunner) -> None:
    chunks = await collect(runner, ask("hello", max_tokens=1))
    assert chunks[-1].usage is not None
    # <s> <|turn|> u h e l l o <|turn|> a
    assert chunks[-1].usage.prompt_tokens == 10
    assert await runner.count_tokens(ask("hello")) == 10
    assert await runner.count_tokens(bare("hello")) == 5


async def test_the_model_s_end_ends_the_answer_and_is_no_part_of_it(
    tmp_path: Path,
) -> None:
    folder = write_llama(tmp_path / "model")
    tokens = greedy("hello", 30)
    at = next(n for n in range(5, 30) if tokens[n] not in tokens[:n])
    config = json.loads((folder / "config.json").read_text())
    config["eos_token_id"] = [2, tokens[at]]
    (folder / "config.json").write_text(json.dumps(config))
    async with opened(folder) as runner:
        chunks = await collect(runner, bare("hello", temperature=0.0))
    assert text_of(chunks) == decode(tokens[:at])
    assert finishes(chunks) == [(0, FinishReason.STOP)]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.output_tokens == at


async def test_a_stop_string_ends_the_answer_and_is_named(runner: OrtRunner) -> None:
    whole = text_of(await collect(runner, bare("hello", max_tokens=30, temperature=0)))
    stop = whole[10:13]
    chunks = await collect(
        runner, bare("hello", max_tokens=30, temperature=0.0, stop=("never", stop))
    )
    assert text_of(chunks) == whole[: whole.index(stop)]
    assert finishes(chunks) == [(0, FinishReason.STOP)]
    assert [c.stop_sequence for c in chunks if c.finish_reason] == [stop]


async def test_an_answer_without_a_bound_ends_at_the_context(
    runner: OrtRunner,
) -> None:
    chunks = await collect(runner, bare("x" * 200))
    assert finishes(chunks) == [(0, FinishReason.LENGTH)]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == SHAPE.context


# --- several answers, seeds ------------------------------------------------------


async def test_a_seed_repeats_an_answer_alone_and_beside_others(
    runner: OrtRunner,
) -> None:
    batch = ask(max_tokens=30, seed=-5, temperature=1.5)
    alone = text_of(await collect(runner, batch))
    beside: list[str] = []

    async def answer(other: ExecuteBatch) -> None:
        beside.append(text_of(await collect(runner, other)))

    async with trio.open_nursery() as nursery:
        for other in (batch, ask(max_tokens=50), batch):
            nursery.start_soon(answer, other)
    assert beside.count(alone) == 2
    changed = ask(max_tokens=30, seed=6, temperature=1.5)
    assert text_of(await collect(runner, changed)) != alone


async def test_n_answers_come_of_one_prompt_and_are_counted_together(
    runner: OrtRunner,
) -> None:
    chunks = await collect(runner, ask(max_tokens=20, n=3, seed=1, temperature=1.5))
    texts = {text_of(chunks, index) for index in range(3)}
    assert len(texts) == 3
    assert sorted(finishes(chunks)) == [(i, FinishReason.LENGTH) for i in range(3)]
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.output_tokens) == (10, 60)
    assert runner.steps == 20


# --- leaving, resting -------------------------------------------------------------


async def test_leaving_frees_the_rows_within_a_step(runner: OrtRunner) -> None:
    others: list[str] = []

    async def answer() -> None:
        others.append(text_of(await collect(runner, ask(max_tokens=60, temperature=0))))

    alone = text_of(await collect(runner, ask(max_tokens=60, temperature=0.0)))
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(answer)
        async with runner.execute(ask(n=2)) as chunks:
            assert isinstance(chunks, Generation)
            await anext(chunks)
            before = runner.steps
        assert runner.steps <= before + 1
        assert chunks.ended.is_set()
    assert runner.active == 0
    assert others == [alone] * 3


async def test_it_tells_how_it_stands(llama_folder: Path) -> None:
    async def told() -> dict[str, float]:
        return {figure.name: figure.value for figure in await one.figures()}

    async with opened(llama_folder, max_seqs=1, cache_tokens=1000) as one:
        idle = {"running_requests": 0, "waiting_requests": 0, "cache_used_ratio": 0}
        assert await told() == {**idle, "steps": 0}
        async with one.execute(bare("abcde", max_tokens=200)) as chunks:
            await anext(chunks)
            async with one.execute(bare("a")):
                held = await told()
        steps = held.pop("steps")
        assert steps >= 1
        assert held == {
            "running_requests": 1,
            "waiting_requests": 1,
            "cache_used_ratio": 0.205,
        }
        # Who has left is out at the end of the step that ran.
        left = await told()
        assert left == {**idle, "steps": left["steps"]}
        assert left["steps"] <= steps + 5  # of two hundred


async def test_one_who_waits_and_leaves_was_never_run(llama_folder: Path) -> None:
    async with opened(llama_folder, max_seqs=1) as runner:
        async with runner.execute(ask()) as chunks:
            await anext(chunks)
            with trio.move_on_after(0.05):
                await collect(runner, ask("other"))
            assert runner.active == 1
        assert text_of(
            await collect(runner, bare("hello", max_tokens=4, temperature=0))
        )


async def test_a_slow_reader_rests_and_loses_nothing(runner: OrtRunner) -> None:
    sampling = {"max_tokens": 200, "temperature": 0.0}
    alone = await collect(runner, bare("hello", **sampling))
    assert len(alone) > 1.5 * WINDOW
    async with runner.execute(bare("hello", **sampling)) as chunks:
        assert isinstance(chunks, Generation)
        await collect(runner, ask(max_tokens=230))
        with trio.fail_after(PATIENCE_S):
            while not chunks.rests:  # noqa: ASYNC110  the engine makes steps
                await trio.sleep(0.005)
        # Nobody reads, so no further step is made for it.
        await trio.testing.wait_all_tasks_blocked(0.05)
        rested = runner.steps
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert runner.steps == rested
        assert not chunks.ended.is_set()
        assert [chunk async for chunk in chunks] == alone


async def test_answers_that_do_not_fit_together_end_sooner(llama_folder: Path) -> None:
    async with opened(llama_folder, cache_tokens=100) as runner:
        chunks = await collect(runner, bare("hello", n=4))
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.output_tokens == 4 * (25 - 5)
        with pytest.raises(ContextLengthError, match="model's context is 12 with"):
            await collect(runner, bare("hello, world", n=8))


async def test_requests_wait_for_a_row(llama_folder: Path) -> None:
    async with opened(llama_folder, max_seqs=2) as runner:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(collect, runner, bare("hello", max_tokens=40))
        assert 2 * 40 <= runner.steps <= 4 * 40


async def test_requests_wait_for_room_in_the_cache(llama_folder: Path) -> None:
    async with opened(llama_folder, cache_tokens=100) as runner:
        assert runner.capabilities.context_tokens == 100
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(collect, runner, bare("hello", max_tokens=40))
        # Two have room at a time.
        assert 2 * 40 <= runner.steps <= 4 * 40


# --- what is refused ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "kind", "message"),
    [
        (
            bare("x" * 256),
            ContextLengthError,
            "the prompt has 256 tokens, and the model's context is 256 with the answer",
        ),
        (
            ask(max_tokens=0),
            InvalidRequestError,
            "max_tokens is 0; it must be at least 1",
        ),
        (
            ask(top_p=0.0),
            InvalidRequestError,
            "top_p is 0.0; it must be above 0 and at most 1",
        ),
        (
            ask(n=9),
            UnsupportedFeatureError,
            "this model gives at most 8 answers per request; n is 9",
        ),
        (
            ask("\ud800"),
            InvalidRequestError,
            "the request holds text that is not Unicode",
        ),
        (bare(""), InvalidRequestError, "the prompt is empty"),
    ],
)
async def test_a_request_that_cannot_be_is_refused_before_it_runs(
    runner: OrtRunner, batch: ExecuteBatch, kind: type[InferenceError], message: str
) -> None:
    with pytest.raises(kind) as caught:
        await collect(runner, batch)
    assert type(caught.value) is kind
    assert caught.value.message == message
    assert (runner.active, runner.steps) == (0, 0)


async def test_a_model_without_a_template_completes_and_does_not_chat(
    tmp_path: Path,
) -> None:
    folder = write_llama(tmp_path / "model")
    (folder / "tokenizer_config.json").unlink()
    async with opened(folder) as runner:
        assert Feature.CHAT not in runner.capabilities.features
        assert len(await collect(runner, bare("a", max_tokens=2))) > 0
        with pytest.raises(UnsupportedFeatureError, match="no chat template"):
            await collect(runner, ask())


async def test_a_token_that_only_the_tokenizer_has_is_the_client_s_mistake(
    tmp_path: Path,
) -> None:
    folder = write_llama(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    # The byte of "z" is among the last ones.
    config["vocab_size"] = int(TOKENIZER.encode("z").ids[0])
    (folder / "config.json").write_text(json.dumps(config))
    async with opened(folder) as runner:
        with pytest.raises(InvalidRequestError, match="the model does not have"):
            await collect(runner, bare("z"))
        assert len(await collect(runner, bare("a", max_tokens=2))) > 0


# --- the engine fails ----------------------------------------------------------------


@attrs.define
class Breaking:
    """Makes a model's runs fail."""

    error: Exception
    left: int

    def install(self, runner: OrtRunner) -> None:
        model: Causal = runner._engine._model
        run = model.run

        def failing(rows: Rows) -> Any:
            if self.left == 0:
                raise self.error
            self.left -= 1
            return run(rows)

        model.run = failing  # type: ignore[method-assign] # the real one fails on no CPU


async def errors_of(runner: OrtRunner, count: int) -> list[InferenceError]:
    found: list[InferenceError] = []

    async def note() -> None:
        with pytest.raises(InferenceError) as caught:
            await collect(runner, ask(max_tokens=50))
        found.append(caught.value)

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(note)
    return found


async def test_a_run_that_fails_ends_the_engine(runner: OrtRunner) -> None:
    Breaking(RuntimeError("CUDA failure 700: illegal access\n at x"), 6).install(runner)
    errors = [*await errors_of(runner, 3), *await errors_of(runner, 1)]
    with trio.fail_after(10):
        errors.append(await runner.failed())
    assert {(type(e), e.message) for e in errors} == {
        (EngineCrashedError, "ONNX Runtime failed: CUDA failure 700: illegal access")
    }
    assert len(set(map(id, errors))) == 5
    assert runner.active == 0


@attrs.define
class Cramped:
    """Has no memory for three sequences at once, the first time."""

    failed: int = 0

    def install(self, runner: OrtRunner) -> None:
        model: Causal = runner._engine._model
        run = model.run

        def failing(rows: Rows) -> Any:
            if len(rows.tokens) == 3 and not self.failed:
                self.failed += 1
                raise RuntimeError("Failed to allocate memory for 9 bytes")
            return run(rows)

        model.run = failing  # type: ignore[method-assign] # as above


async def test_want_of_memory_costs_the_batch_and_not_the_engine(
    runner: OrtRunner,
) -> None:
    for _ in range(2):
        cramped = Cramped()
        cramped.install(runner)
        errors = await errors_of(runner, 3)
        assert [(type(e), e.code) for e in errors] == [
            (EngineError, "out_of_memory")
        ] * 3
        assert cramped.failed == 1
        chunks = await collect(runner, bare("hello", max_tokens=8, temperature=0.0))
        assert text_of(chunks) == decode(greedy("hello", 8))


async def test_output_that_is_no_number_costs_one_request(runner: OrtRunner) -> None:
    model: Causal = runner._engine._model
    run = model.run

    def poisoned(rows: Rows) -> Any:
        logits, cache = run(rows)
        if len(rows.tokens) == 2:
            logits = logits.copy()
            logits[0] = np.nan
        return logits, cache

    model.run = poisoned  # type: ignore[method-assign] # as above
    outcomes: list[str] = []

    async def note() -> None:
        try:
            chunks = await collect(runner, ask(max_tokens=20))
        except EngineError as error:
            outcomes.append(error.message)
        else:
            outcomes.append(str(finishes(chunks)[0][1]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(note)
        nursery.start_soon(note)
    assert sorted(outcomes) == [
        "FinishReason.LENGTH",
        "the model's output is not a number",
    ]


async def test_closing_tells_those_who_read(llama_folder: Path) -> None:
    caught: list[InferenceError] = []

    async def read(runner: OrtRunner) -> None:
        try:
            await collect(runner, ask())
        except InferenceError as error:
            caught.append(error)

    async with trio.open_nursery() as nursery, opened(llama_folder) as runner:
        nursery.start_soon(read, runner)
        await trio.testing.wait_all_tasks_blocked()
    assert [(type(e), e.message) for e in caught] == [
        (NotReadyError, "the engine is closed")
    ]
