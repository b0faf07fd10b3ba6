"""A small model drafts for a large one: the answers are the large one's.

Both are tiny and random here: "near" drafts are the model itself with a little noise,
"far" ones are other models altogether.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import attrs
import numpy as np
import onnx
import pytest
import trio
import trio.testing

from atomr_infer.errors import ConfigError, EngineError
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    Role,
    Sampling,
    TokenChunk,
)
from atomr_infer.model.deployment import Deployment
from atomr_infer.runtimes.contract import RunnerContext
from atomr_infer_ort.plugin import PLUGIN
from tests.plugins.ort.graphs import LlamaShape, llama, random_llama
from tests.plugins.ort.models import SHAPE, write_llama

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer.model.usage import Usage
    from atomr_infer_ort.causal import Rows
    from atomr_infer_ort.drafting import DraftingEngine
    from atomr_infer_ort.model import CausalModel
    from atomr_infer_ort.runner import OrtRunner

pytestmark = pytest.mark.engine

PATIENCE_S = 120.0
TEXTS = ["a", "several words", "and a prompt that is longer than the others by far"]


@asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[OrtRunner]:
    # Whether a draft pays is a matter of time: only some tests are about that.
    always = {"draft_always": True} if "draft" in options else {}
    deployment = Deployment(
        name="m",
        runtime="ort",
        model=str(folder),
        options={"threads": 1, **always, **options},
    )
    async with PLUGIN.open_runner(deployment, RunnerContext()) as runner:
        yield cast("OrtRunner", runner)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model, and drafts for it."""
    root = tmp_path_factory.mktemp("drafts")
    made = {
        "model": write_llama(root / "model"),
        "near": write_llama(root / "near"),
        "far": write_llama(root / "far", attrs.evolve(SHAPE, layers=1), seed=5),
        "fused": write_llama(root / "fused", attrs.evolve(SHAPE, fused=True)),
    }
    shifted = random_llama(SHAPE)
    random = np.random.default_rng(3)
    for name, weight in shifted.items():
        noise = 0.02 * random.standard_normal(weight.shape)
        shifted[name] = (weight + noise).astype(np.float32)
    onnx.save(llama(SHAPE, shifted), made["near"] / "model.onnx")
    return made


def ask(text: str = "hello", number: int = 0, **sampling: Any) -> ExecuteBatch:
    given = {"max_tokens": 24, **sampling}
    return ExecuteBatch(
        request_id=f"r{number}",
        model="m",
        messages=(Message(Role.USER, text),),
        sampling=attrs.evolve(Sampling(), **given),
    )


async def collect(runner: OrtRunner, batch: ExecuteBatch) -> list[TokenChunk]:
    with trio.fail_after(PATIENCE_S):
        async with runner.execute(batch) as chunks:
            return [chunk async for chunk in chunks]


async def collect_all(
    runner: OrtRunner, *batches: ExecuteBatch
) -> list[list[TokenChunk]]:
    found: dict[int, list[TokenChunk]] = {}

    async def one(number: int, batch: ExecuteBatch) -> None:
        found[number] = await collect(runner, batch)

    async with trio.open_nursery() as nursery:
        for number, batch in enumerate(batches):
            nursery.start_soon(one, number, batch)
    return [found[number] for number in range(len(batches))]


def text_of(chunks: list[TokenChunk], index: int = 0) -> str:
    return "".join(chunk.text for chunk in chunks if chunk.index == index)


def usage_of(chunks: list[TokenChunk]) -> Usage:
    usage = chunks[-1].usage
    assert usage is not None
    return usage


def drafted(chunks: list[TokenChunk]) -> tuple[int, int]:
    usage = usage_of(chunks)
    return usage.drafted, usage.drafts_accepted


@pytest.mark.parametrize("always", [True, False], ids=["always", "where it pays"])
@pytest.mark.parametrize("draft", ["model", "near", "far", "fused"])
async def test_greedy_answers_are_those_of_the_model_alone(
    folders: dict[str, Path], draft: str, always: bool
) -> None:
    batches = [ask(text, max_tokens=20 + 7 * n) for n, text in enumerate(TEXTS)]
    async with opened(folders["model"]) as runner:
        alone = [await collect(runner, batch) for batch in batches]
    drafting = {"draft": str(folders[draft]), "draft_always": always}
    async with opened(folders["model"], **drafting) as runner:
        one_by_one = [await collect(runner, batch) for batch in batches]
        together = await collect_all(runner, *batches)
    assert [text_of(each) for each in one_by_one] == [text_of(each) for each in alone]
    assert [text_of(each) for each in together] == [text_of(each) for each in alone]
    usages = [
        attrs.evolve(usage_of(each), drafted=0, drafts_accepted=0)
        for each in one_by_one
    ]
    assert usages == [usage_of(each) for each in alone]


@pytest.mark.parametrize("model", ["fused", "model"])
async def test_answers_of_one_length_share_no_run_that_attention_refuses(
    folders: dict[str, Path], model: str
) -> None:
    # One node of attention for a layer refuses rows of several new tokens behind a
    # cache, and does not know padding: two answers of one length would share a run.
    batch = ask(n=2)
    async with opened(folders[model]) as runner:
        alone = await collect(runner, batch)
    async with opened(folders[model], draft=str(folders["fused"])) as runner:
        both = await collect(runner, batch)
    assert [text_of(both, n) for n in (0, 1)] == [text_of(alone, n) for n in (0, 1)]
    assert drafted(both)[1]


@attrs.define
class Machine:
    """Two models whose runs take as long as a test says."""

    plain_s: float = 10.0
    draft_s: float = 1.0
    now_s: float = 0.0
    runs: int = 0
    draft_runs: int = 0

    def put_under(self, runner: OrtRunner, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have the engine see these times."""
        engine = cast("DraftingEngine", runner._engine)

        def slow(call: Any, *, is_draft: bool) -> Any:
            def run(rows: Rows) -> Any:
                self.now_s += self.draft_s if is_draft else self.plain_s
                self.draft_runs += is_draft
                self.runs += not is_draft
                return call(rows)

            return run

        for model, is_draft in ((engine._model, False), (engine._draft, True)):
            monkeypatch.setattr(model, "run", slow(model.run, is_draft=is_draft))
        scored = slow(engine._verifier.score, is_draft=False)
        monkeypatch.setattr(engine._verifier, "score", scored)
        monkeypatch.setattr(engine, "_clock", lambda: self.now_s)


async def gain_of(runner: OrtRunner) -> float:
    told = {figure.name: figure.value for figure in await runner.figures()}
    return told["draft_gain_ratio"]


async def test_a_draft_that_is_fast_and_right_takes_a_third_of_the_time(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, machine = str(folders["model"]), Machine()
    async with opened(folders["model"], draft=model, draft_always=False) as runner:
        machine.put_under(runner, monkeypatch)
        chunks = await collect(runner, ask(max_tokens=200))
        assert await gain_of(runner) > 3
    # 199 tokens behind the prompt, five for each 14 s.
    assert machine.now_s < 200 * machine.plain_s / 3
    assert drafted(chunks)[0] == drafted(chunks)[1] > 140


async def test_a_draft_that_does_not_pay_rests_and_costs_little(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, machine = str(folders["model"]), Machine(draft_s=30.0)
    async with opened(folders["model"], draft=model, draft_always=False) as runner:
        machine.put_under(runner, monkeypatch)
        first = await collect(runner, ask(max_tokens=100))
        # Three rounds, and then never again; nor does it read the next prompts.
        assert drafted(first) == (6, 6)
        assert await gain_of(runner) < 1
        runs, began_at = machine.draft_runs, machine.now_s
        for _ in range(3):
            assert drafted(await collect(runner, ask(max_tokens=50))) == (0, 0)
        assert machine.draft_runs == runs
        assert machine.now_s - began_at == 3 * 50 * machine.plain_s


async def test_a_draft_that_pays_again_is_found_out(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, machine = str(folders["model"]), Machine(draft_s=30.0)
    async with opened(folders["model"], draft=model, draft_always=False) as runner:
        machine.put_under(runner, monkeypatch)
        await collect(runner, ask(max_tokens=40))
        machine.draft_s = 1.0
        told = [drafted(await collect(runner, ask(max_tokens=30))) for _ in range(17)]
    assert [number for number, (count, _) in enumerate(told) if count] == [15, 16]


async def test_an_answer_with_a_seed_is_the_same_whether_the_draft_pays_or_not(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    near, texts = str(folders["near"]), []
    batch = ask(seed=7, temperature=0.9, max_tokens=60)
    for draft_s in (1.0, 30.0):
        machine = Machine(draft_s=draft_s)
        async with opened(folders["model"], draft=near, draft_always=False) as runner:
            machine.put_under(runner, monkeypatch)
            await collect(runner, ask(max_tokens=60))
            chunks = await collect(runner, batch)
            assert drafted(chunks)[0]
            texts.append(text_of(chunks))
    assert texts[0] == texts[1]


async def test_a_model_that_drafts_for_itself_takes_a_fifth_of_the_runs(
    folders: dict[str, Path],
) -> None:
    model = str(folders["model"])
    async with opened(folders["model"], draft=model, draft_tokens=4) as runner:
        chunks = await collect(runner, ask(max_tokens=21))
        # The prompt, and four rounds of four drafted and one more.
        assert runner.steps == 1 + 4
    assert drafted(chunks) == (16, 16)


async def test_what_is_accepted_is_told_of_the_draft(folders: dict[str, Path]) -> None:
    async with opened(folders["model"], draft=str(folders["near"])) as runner:
        near = drafted(await collect(runner, ask(max_tokens=60)))
    async with opened(folders["model"], draft=str(folders["far"])) as runner:
        far = drafted(await collect(runner, ask(max_tokens=60)))
    assert far[1] / far[0] < 0.3 < near[1] / near[0] < 1


async def test_a_drafted_answer_with_a_seed_is_the_same_again(
    folders: dict[str, Path],
) -> None:
    async with opened(folders["model"], draft=str(folders["near"])) as runner:
        batches = [ask(text, seed=7, temperature=0.9, n=2) for text in TEXTS[:2]]
        first = [await collect(runner, batch) for batch in batches]
        again = await collect_all(runner, *batches)
    for index in (0, 1):
        assert [text_of(c, index) for c in first] == [text_of(c, index) for c in again]
    assert text_of(first[0], 0) != text_of(first[0], 1)


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_an_answer_is_never_longer_than_it_may_be(
    folders: dict[str, Path], most: int
) -> None:
    async with opened(folders["model"], draft=str(folders["near"])) as runner:
        chunks = await collect(runner, ask(max_tokens=most))
    assert usage_of(chunks).output_text == most
    assert [c.finish_reason for c in chunks if c.finish_reason is not None] == [
        FinishReason.LENGTH
    ]


async def test_drafts_stay_within_the_models_context(folders: dict[str, Path]) -> None:
    # Beyond its context, the model has no positions: a run would fail.
    async with opened(folders["model"], draft=str(folders["model"])) as runner:
        context = runner.capabilities.context_tokens
        assert context is not None
        chunks = await collect(runner, ask("x" * (context - 20), max_tokens=None))
        assert await collect(runner, ask("still there"))
    assert usage_of(chunks).total_tokens == context


async def test_a_stop_string_within_a_draft_ends_the_answer(
    folders: dict[str, Path],
) -> None:
    async with opened(folders["model"]) as runner:
        whole = text_of(await collect(runner, ask()))
    stop = whole[7:9]
    async with opened(folders["model"], draft=str(folders["model"])) as runner:
        chunks = await collect(runner, ask(stop=(stop,)))
    assert text_of(chunks) == whole[: whole.index(stop)]
    assert chunks[-2].stop_sequence == stop


async def test_who_leaves_in_the_middle_disturbs_nobody(
    folders: dict[str, Path],
) -> None:
    async with opened(folders["model"], draft=str(folders["near"])) as runner:
        alone = text_of(await collect(runner, ask(TEXTS[1], max_tokens=60)))
        async with trio.open_nursery() as nursery:

            async def leave() -> None:
                async with runner.execute(ask(TEXTS[2], max_tokens=60)) as chunks:
                    await anext(aiter(chunks))

            nursery.start_soon(leave)
            beside = text_of(await collect(runner, ask(TEXTS[1], max_tokens=60)))
        assert runner.active == 0
    assert beside == alone


async def test_a_reader_that_rests_finds_its_answer_whole(
    folders: dict[str, Path],
) -> None:
    async with opened(folders["model"], draft=str(folders["near"])) as runner:
        batch = ask(TEXTS[1], max_tokens=150)
        alone = text_of(await collect(runner, batch))
        async with runner.execute(batch) as chunks:
            # It rests, and is set aside, while another one is answered.
            await collect(runner, ask(TEXTS[2], max_tokens=150))
            late = [chunk async for chunk in chunks]
    assert text_of(late) == alone


async def test_a_verifier_that_breaks_fails_its_own_answer_only(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(folders["model"], draft=str(folders["near"])) as runner:
        model: CausalModel = runner._engine._model  # type: ignore[assignment]
        score = model.score
        both = threading.Event()

        def broken(rows: Rows) -> Any:
            both.wait()  # or else one may be done before the other one comes
            logits, cache = score(rows)
            if len(logits) == 2:
                logits = logits.copy()
                logits[0] = np.nan
            return logits, cache

        monkeypatch.setattr(model, "score", broken)
        ends: list[str] = []

        async def one(batch: ExecuteBatch) -> None:
            try:
                await collect(runner, batch)
                ends.append("whole")
            except EngineError:
                ends.append("failed")

        async with trio.open_nursery() as nursery:
            for text in TEXTS[:2]:
                nursery.start_soon(one, ask(text, max_tokens=40))
            with trio.fail_after(60):
                while len(runner._engine.generations) < 2:  # noqa: ASYNC110  in threads
                    await trio.sleep(0.001)
            both.set()
        assert sorted(ends) == ["failed", "whole"]
        assert await collect(runner, ask())


@pytest.mark.slow
def test_the_example_drafts(folders: dict[str, Path]) -> None:
    example = Path(__file__).parents[3] / "examples" / "speculative.py"
    done = subprocess.run(
        [sys.executable, str(example), str(folders["model"]), str(folders["near"])],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    told, same = done.stdout.splitlines()
    assert re.fullmatch(r"\d+ of \d+ drafted tokens were accepted", told)
    assert same == "the same answer"


# --- what cannot draft -----------------------------------------------------------


async def test_a_draft_with_other_tokens_is_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    other = write_llama(tmp_path / "other")
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace("<|turn|>", "<|TURN|>"))
    with pytest.raises(ConfigError, match="is another one"):
        async with opened(folders["model"], draft=str(other)):
            pass


async def test_a_draft_of_another_width_is_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    shape = LlamaShape(vocabulary=264)
    other = write_llama(tmp_path / "other", shape)
    with pytest.raises(ConfigError, match="knows 264 tokens, and the model 260"):
        async with opened(folders["model"], draft=str(other)):
            pass


async def test_a_draft_that_is_not_there_is_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no model directory"):
        async with opened(folders["model"], draft=str(tmp_path / "none")):
            pass


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"draft_tokens": 3}, "draft_tokens has no effect without draft"),
        ({"draft_always": True}, "draft_always has no effect without draft"),
        ({"draft": "m", "draft_tokens": 0}, "a whole number from 1 to 64"),
        ({"draft": ""}, "the path of a model's directory"),
        ({"draft": "hf:nobody"}, "hf:"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: dict[str, Any], problem: str
) -> None:
    deployment = Deployment(name="m", runtime="ort", model="x", options=options)
    with pytest.raises(ConfigError, match=problem):
        PLUGIN.validate(deployment)
