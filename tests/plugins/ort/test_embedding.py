"""Texts become the vectors that numpy makes of them, whatever they are batched with."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import trio
import trio.testing

from atomr_infer.bridge import open_bridged_runner
from atomr_infer.errors import (
    ContextLengthError,
    EndpointUnsupportedError,
    EngineCrashedError,
    EngineError,
    InferenceError,
    InvalidRequestError,
    UnsupportedFeatureError,
)
from atomr_infer.model.batch import ExecuteBatch, Message, Role
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.embeddings import EmbedRequest
from atomr_infer.runtimes.contract import RunnerContext
from atomr_infer_ort.plugin import PLUGIN
from tests.plugins.ort.bert import (
    WORDS,
    BertShape,
    bert_reference,
    random_bert,
    write_bert,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from atomr_infer_ort.embedding import EmbedRunner
    from tests.plugins.ort.graphs import Array

pytestmark = pytest.mark.engine

SHAPE = BertShape()
WEIGHTS = random_bert(SHAPE)
REF = "atomr_infer_ort.plugin:PLUGIN"
CLOSE = 1e-5
TEXTS = (
    "the cat sat on the mat",
    "a dog",
    "the cat and the dog ran and ran and sat on a mat and a cat",
    "mat",
    "The Unknown cat",
)


def deployment(folder: Path, **options: Any) -> Deployment:
    return Deployment(
        name="e", runtime="ort", model=str(folder), options={"threads": 1, **options}
    )


@asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[EmbedRunner]:
    async with PLUGIN.open_runner(
        deployment(folder, **options), RunnerContext()
    ) as runner:
        yield cast("EmbedRunner", runner)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert"), SHAPE, WEIGHTS)


def texts(
    *inputs: str | tuple[int, ...], dimensions: int | None = None
) -> EmbedRequest:
    return EmbedRequest(request_id="r", model="e", inputs=inputs, dimensions=dimensions)


def tokens(text: str) -> list[int]:
    known = {word: number for number, word in enumerate(WORDS)}
    return [2, *(known.get(word, 1) for word in text.lower().split()), 3]


def reference(text: str, pooling: str = "mean", *, normalize: bool = True) -> Array:
    hidden = bert_reference(SHAPE, WEIGHTS, tokens(text))
    vector: Array
    match pooling:
        case "cls":
            vector = hidden[0]
        case "last":
            vector = hidden[-1]
        case _:
            vector = hidden.mean(0)
    return vector / np.linalg.norm(vector) if normalize else vector


async def test_vectors_are_the_reference_s_in_one_batch(folder: Path) -> None:
    async with opened(folder) as runner:
        made = await runner.embed(texts(*TEXTS))
        assert runner.runs == 1
    assert np.array(made.vectors) == pytest.approx(
        np.array([reference(text) for text in TEXTS]), abs=CLOSE
    )
    assert made.usage.prompt_tokens == sum(len(tokens(text)) for text in TEXTS)


async def test_vectors_are_the_reference_s_behind_the_bridge(folder: Path) -> None:
    async with open_bridged_runner(REF, deployment(folder), RunnerContext()) as runner:
        made = await runner.embed(texts(TEXTS[0], tuple(tokens(TEXTS[1]))))
    assert np.array(made.vectors) == pytest.approx(
        np.array([reference(text) for text in TEXTS[:2]]), abs=CLOSE
    )


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("normalize", ["yes", "no"])
async def test_pooling_and_length_can_be_said(
    folder: Path, pooling: str, normalize: str
) -> None:
    async with opened(folder, pooling=pooling, normalize=normalize) as runner:
        made = await runner.embed(texts(*TEXTS))
    expected = [reference(t, pooling, normalize=normalize == "yes") for t in TEXTS]
    assert np.array(made.vectors) == pytest.approx(np.array(expected), abs=CLOSE)


async def test_pooling_is_what_the_model_s_files_say(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "cls", SHAPE, WEIGHTS, pooling="cls_token")
    (folder / "modules.json").unlink()
    async with opened(folder) as runner:
        made = await runner.embed(texts(TEXTS[0]))
    assert np.array(made.vectors[0]) == pytest.approx(
        reference(TEXTS[0], "cls", normalize=False), abs=CLOSE
    )


async def test_requests_share_runs(folder: Path) -> None:
    made: list[tuple[float, ...]] = []

    async def ask(runner: EmbedRunner) -> None:
        [vector] = (await runner.embed(texts(TEXTS[0]))).vectors
        made.append(vector)

    async with opened(folder) as runner, trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(ask, runner)
    assert runner.runs < 50
    assert len(made) == 50
    assert np.array(made) == pytest.approx(
        np.array([reference(TEXTS[0])] * 50), abs=CLOSE
    )


@pytest.mark.parametrize(
    ("request_", "kind", "message"),
    [
        (
            texts("mat", "cat " * 40),
            ContextLengthError,
            "input[1] has 42 tokens; the model reads 32",
        ),
        (
            texts((2, 40)),
            InvalidRequestError,
            "input[0] holds a token that the model does not have",
        ),
        (texts(()), InvalidRequestError, "input[0] is empty"),
        (
            texts("\ud800"),
            InvalidRequestError,
            "the request holds text that is not Unicode",
        ),
        (
            texts("mat", dimensions=8),
            UnsupportedFeatureError,
            "this model's vectors have 32 dimensions; dimensions is 8",
        ),
    ],
)
async def test_what_cannot_be_embedded_is_refused(
    folder: Path, request_: EmbedRequest, kind: type[InferenceError], message: str
) -> None:
    async with opened(folder) as runner:
        with pytest.raises(InferenceError) as caught:
            await runner.embed(request_)
        assert runner.active == 0
    assert (type(caught.value), caught.value.message) == (kind, message)


async def test_it_writes_no_text_and_says_so(folder: Path) -> None:
    batch = ExecuteBatch(
        request_id="r", model="e", messages=(Message(Role.USER, "hi"),)
    )
    async with opened(folder) as runner:
        with pytest.raises(EndpointUnsupportedError, match="makes embeddings"):
            async with runner.execute(batch):
                pass


async def test_who_leaves_is_in_no_further_run(folder: Path) -> None:
    async with opened(folder) as runner:
        with trio.CancelScope() as scope:
            scope.cancel()
            await runner.embed(texts("mat"))
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert (runner.active, runner.runs) == (0, 0)
        assert len((await runner.embed(texts("mat"))).vectors) == 1


@pytest.mark.parametrize(
    ("raised", "kind", "goes_on"),
    [
        (RuntimeError("std::bad_alloc"), EngineError, True),
        (RuntimeError("CUDA failure 700"), EngineCrashedError, False),
    ],
)
async def test_a_run_that_fails_is_told_to_all_in_it(
    folder: Path, raised: Exception, kind: type[EngineError], *, goes_on: bool
) -> None:
    caught: list[InferenceError] = []

    async def ask(runner: EmbedRunner) -> None:
        try:
            await runner.embed(texts("mat", "cat"))
        except InferenceError as error:
            caught.append(error)

    async with opened(folder) as runner:
        model = runner._model
        run = model.run

        def failing(_texts: object) -> Any:
            raise raised

        model.run = failing  # type: ignore[assignment, method-assign] # the real one fails on no CPU
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, runner)
            nursery.start_soon(ask, runner)
        assert [type(error) for error in caught] == [kind, kind]
        model.run = run  # type: ignore[method-assign] # as above
        await ask(runner)
        assert len(caught) == (2 if goes_on else 3)
        if not goes_on:
            with trio.fail_after(10):
                assert type(await runner.failed()) is EngineCrashedError
