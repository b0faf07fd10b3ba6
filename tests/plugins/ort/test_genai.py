"""Directories of onnxruntime-genai are run as Optimum's are, or are told why not."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr_infer.errors import ConfigError, ContextLengthError, EngineStartError
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    Role,
    Sampling,
)
from atomr_infer.model.deployment import Deployment
from atomr_infer.runtimes.conformance import CHECKS, Check
from atomr_infer.runtimes.conformance_case import ConformanceCase
from atomr_infer.runtimes.contract import RunnerContext
from atomr_infer_ort.genai import parse_genai
from atomr_infer_ort.plugin import PLUGIN
from tests.plugins.ort.graphs import LlamaShape
from tests.plugins.ort.models import (
    GENAI_NAMES,
    SHAPE,
    genai_config,
    write_genai,
    write_llama,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.engine

FUSED = LlamaShape(fused=True)
PROMPTS = ("hello", "a longer prompt", "abc", "x")


@asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[Any]:
    deployment = Deployment(
        name="g", runtime="ort", model=str(folder), options={"threads": 1, **options}
    )
    async with PLUGIN.open_runner(deployment, RunnerContext()) as runner:
        yield runner


def ask(text: str = "hello", **sampling: Any) -> ExecuteBatch:
    return ExecuteBatch(
        request_id="r",
        model="g",
        messages=(Message(Role.USER, text),),
        sampling=attrs.evolve(Sampling(max_tokens=12), **sampling),
    )


async def said(runner: Any, batch: ExecuteBatch) -> tuple[str, FinishReason | None]:
    async with runner.execute(batch) as chunks:
        found = [chunk async for chunk in chunks]
    [reason] = [c.finish_reason for c in found if c.finish_reason is not None]
    return "".join(chunk.text for chunk in found), reason


async def all_said(folder: Path) -> list[str]:
    """What is answered to several at once, by the model's own settings."""
    texts = {}

    async def answer(runner: Any, prompt: str) -> None:
        texts[prompt], _ = await said(runner, ask(prompt))

    async with opened(folder) as runner, trio.open_nursery() as nursery:
        for prompt in PROMPTS:
            nursery.start_soon(answer, runner, prompt)
    return [texts[prompt] for prompt in PROMPTS]


@pytest.mark.parametrize("shape", [SHAPE, FUSED], ids=["plain", "fused"])
@pytest.mark.parametrize("with_names", [True, False], ids=["named", "unnamed"])
async def test_it_says_what_the_same_model_in_optimum_s_layout_says(
    tmp_path: Path, shape: LlamaShape, with_names: bool
) -> None:
    genai = write_genai(tmp_path / "genai", shape, with_names=with_names)
    optimum = write_llama(tmp_path / "optimum", shape)
    assert await all_said(genai) == await all_said(optimum)


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_conformance(tmp_path: Path, check: Check) -> None:
    case = ConformanceCase(model="g", answer_timeout_s=120.0, leave_timeout_s=30.0)
    async with opened(write_genai(tmp_path)) as runner:
        await check(runner, case)


async def test_a_draft_may_be_one(tmp_path: Path) -> None:
    folder = write_genai(tmp_path)
    async with opened(folder) as runner:
        alone = await said(runner, ask(max_tokens=20))
    async with opened(folder, draft=str(folder)) as runner:
        assert await said(runner, ask(max_tokens=20)) == alone


async def test_sampling_is_what_search_says(tmp_path: Path) -> None:
    search = {"do_sample": True, "temperature": 5.0, "top_k": 0, "top_p": 1.0}
    async with opened(write_genai(tmp_path, search=search)) as runner:
        drawn = {await said(runner, ask(seed=seed, max_tokens=6)) for seed in range(6)}
        greedy = {await said(runner, ask(temperature=0.0)) for _ in range(2)}
    assert (len(drawn), len(greedy)) == (6, 1)


async def test_its_context_and_its_ends_are_the_model_s(tmp_path: Path) -> None:
    plain = write_genai(tmp_path / "plain")
    async with opened(plain) as runner:
        assert runner.capabilities.context_tokens == SHAPE.context
        assert (await said(runner, ask()))[1] is FinishReason.LENGTH
    every = list(range(SHAPE.vocabulary))
    async with opened(write_genai(tmp_path / "ends", eos_token_id=every)) as runner:
        assert await said(runner, ask()) == ("", FinishReason.STOP)
    short = write_genai(tmp_path / "short", context_length=16)
    async with opened(short) as runner:
        with pytest.raises(ContextLengthError, match="the model's context is 16"):
            await said(runner, ask("a prompt that is too long"))


# --- what is refused ----------------------------------------------------------------


def decoder(**more: Any) -> dict[str, Any]:
    written: dict[str, Any] = genai_config(SHAPE, GENAI_NAMES)["model"]["decoder"]
    return written | more


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"encoder": {"filename": "e.onnx"}}, "it has an encoder beside its decoder"),
        ({"vision": {}}, "it reads pictures"),
        ({"speech": {}}, "it reads sound"),
        ({"embedding": {}}, "reads vectors of another graph"),
        (
            {"decoder": decoder(pipeline=[{}, {}])},
            "cut into 2 graphs, as for an NPU; export the model anew.* -e cpu",
        ),
        ({"decoder": decoder(sliding_window={})}, "a window of fixed size"),
        ({"decoder": decoder(inputs={"past_names": "past_%d"})}, "in one tensor"),
        ({"search": {"num_beams": 4}}, "num_beams is 4.*set it to 1"),
        ({"decoder": []}, "decoder is no table"),
        ({"decoder": decoder(filename=3)}, "filename is 3"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value),
)
def test_what_is_no_decoder_of_tokens_is_refused_with_the_reason(
    more: dict[str, Any], reason: str
) -> None:
    config = genai_config(SHAPE, GENAI_NAMES)
    search = more.pop("search", {})
    config["model"] |= more
    with pytest.raises(EngineStartError, match=f"^'g': .*{reason}"):
        parse_genai({**config, "search": search}, "g")


async def test_a_graph_that_reads_something_else_is_refused(tmp_path: Path) -> None:
    names = {**GENAI_NAMES, "input_ids": "inputs_embeds"}
    folder = write_genai(tmp_path)
    config = {"model": genai_config(SHAPE, names)["model"]}
    (folder / "genai_config.json").write_text(json.dumps(config))
    with pytest.raises(EngineStartError, match=r"has not: tokens; export it as one"):
        async with opened(folder):
            raise AssertionError


async def test_a_tokenizer_of_another_kind_is_told_with_the_remedy(
    tmp_path: Path,
) -> None:
    folder = write_genai(tmp_path)
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    with pytest.raises(ConfigError, match=r"no tokenizer\.json; write it with"):
        async with opened(folder):
            raise AssertionError


async def test_a_model_for_a_gpu_that_fails_is_told_so(tmp_path: Path) -> None:
    options: dict[str, Any] = {"provider_options": [{"cuda": {}}]}
    folder = write_genai(tmp_path, decoder=decoder(session_options=options))
    async with opened(folder) as runner:  # it may run all the same
        assert (await said(runner, ask()))[0]
    (folder / "decoder.onnx").write_bytes(b"hello" * 50)
    with pytest.raises(
        EngineStartError, match=r"cannot load.*it was exported for cuda"
    ):
        async with opened(folder):
            raise AssertionError
