"""Models that read texts: what vLLM is asked, and what its numbers become."""

from __future__ import annotations

import asyncio
import math
from time import process_time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from atomr_infer.errors import (
    EndpointUnsupportedError,
    EngineError,
    EngineStartError,
    InvalidRequestError,
)
from atomr_infer.model.batch import ExecuteBatch
from atomr_infer.model.capabilities import Feature
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.model.usage import Usage
from atomr_infer_vllm.embedding import VllmEmbedder
from atomr_infer_vllm.loop import LoopThread
from atomr_infer_vllm.options import Options, Task
from atomr_infer_vllm.pooling import Classifying, Embedding, Pooling, Ranking
from atomr_infer_vllm.reading import check_task
from atomr_infer_vllm.runner import Watched

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer_vllm.runner import Engine as EngineShape


class Row(list[float]):
    def tolist(self) -> list[float]:
        return list(self)


class Engine:
    """Says a row of each text, and keeps what it was asked."""

    errored = False

    def __init__(self, *rows: list[float]) -> None:
        self.rows = list(rows)
        self.asked: list[tuple[Any, Any, Any]] = []

    async def encode(
        self, prompt: Any, params: Any, request_id: str, lora_request: object
    ) -> AsyncIterator[SimpleNamespace]:
        number = len(self.asked)
        self.asked.append((prompt, params, lora_request))
        # The first one is the last to end.
        await asyncio.sleep(0.01 / (1 + number))
        yield SimpleNamespace(
            outputs=SimpleNamespace(data=Row(self.rows[number])),
            prompt_token_ids=[1] * 3,
        )

    async def get_supported_tasks(self) -> tuple[str, ...]:
        return ("token_embed", "embed")


@pytest.fixture
async def loop() -> AsyncIterator[LoopThread]:
    made = LoopThread()
    yield made
    await made.stop()


def params(**given: object) -> dict[str, object]:
    return given


def config(count: int, **more: object) -> SimpleNamespace:
    labels = {at: f"label {at}" for at in range(count)}
    plain = {"num_labels": count, "id2label": labels, "problem_type": None}
    return SimpleNamespace(**{**plain, **more})


def pair(query: str, text: str) -> tuple[list[int], int | None]:
    if not text:
        raise ValueError("nothing to rank")
    return [len(query), len(text)], 1 if query == "told" else None


def runner(loop: LoopThread, engine: Engine, pooling: Pooling) -> VllmEmbedder:
    life = Watched(loop, cast("EngineShape", engine))
    return VllmEmbedder(
        life, pooling, context_tokens=8, max_seqs=4, adapters={"cats": "an adapter"}
    )


def request(*texts: str | tuple[int, ...], **said: Any) -> EmbedRequest:
    return EmbedRequest(request_id="r", **{"model": "m", "inputs": texts, **said})


async def test_vectors_come_as_they_are_and_in_order(loop: LoopThread) -> None:
    engine = Engine([1.0, 2.0], [3.0, 4.0])
    embedder = runner(loop, engine, Embedding(params))
    assert embedder.capabilities.features == {Feature.EMBEDDINGS}
    found = await embedder.embed(request("a", (7, 8), dimensions=2))
    assert found == Embeddings(
        vectors=((1.0, 2.0), (3.0, 4.0)), usage=Usage(input_uncached=6)
    )
    asked = {"task": "embed", "dimensions": 2}
    assert engine.asked == [
        ({"prompt": "a"}, asked, None),
        ({"prompt_token_ids": [7, 8]}, asked, None),
    ]


async def test_a_client_s_name_chooses_the_adapter(loop: LoopThread) -> None:
    engine = Engine([1.0])
    await runner(loop, engine, Embedding(params)).embed(request("a", model="cats"))
    assert engine.asked[0][2] == "an adapter"


async def test_labels_get_probabilities_that_make_one(loop: LoopThread) -> None:
    engine = Engine([0.0, math.log(3.0)], [800.0, 0.0])
    classifier = runner(loop, engine, Classifying(params, config(2)))
    assert classifier.capabilities.features == {Feature.CLASSIFY}
    found = await classifier.embed(request("a", "b", classifies=True))
    assert found.labels == ("label 0", "label 1")
    assert found.vectors[0] == pytest.approx((0.25, 0.75))
    assert found.vectors[1] == (1.0, 0.0)
    assert engine.asked[0][1] == {"task": "classify", "use_activation": False}


def test_probabilities_of_many_labels_do_not_take_seconds() -> None:
    classifying = Classifying(params, config(20_000))
    began_s = process_time()
    told = classifying.told([0.0] * 20_000)
    assert process_time() - began_s < 0.5
    assert told[0] == pytest.approx(1 / 20_000)


@pytest.mark.parametrize(
    ("said", "row", "told"),
    [
        (config(2, problem_type="multi_label_classification"), [0.0, 9e9], (0.5, 1)),
        (config(1), [-9e9], (0.0,)),
    ],
)
def test_labels_that_exclude_nothing_have_each_its_own(
    said: SimpleNamespace, row: list[float], told: tuple[float, ...]
) -> None:
    assert Classifying(params, said).told(row) == told


def test_labels_without_names_are_numbered_and_others_than_told_are_an_error() -> None:
    model = Classifying(params, config(2, id2label={"0": "good"}))
    assert model.labels == ("good", "LABEL_1")
    with pytest.raises(EngineError, match=r"says 3 numbers of a text, and .* 2 labels"):
        model.told([1.0, 2.0, 3.0])


async def test_documents_are_read_behind_the_query(loop: LoopThread) -> None:
    engine = Engine([0.0], [math.log(3.0)])
    ranker = runner(loop, engine, Ranking(params, config(1), pair))
    assert ranker.capabilities.features == {Feature.RERANK}
    found = await ranker.embed(request("a", "bc", query="told"))
    assert [score for (score,) in found.vectors] == pytest.approx([0.5, 0.75])
    asked: dict[str, object] = {"task": "classify", "use_activation": False}
    asked["extra_kwargs"] = {"compressed_token_type_ids": 1}
    assert engine.asked == [
        ({"prompt_token_ids": [4, 1]}, asked, None),
        ({"prompt_token_ids": [4, 2]}, asked, None),
    ]
    with pytest.raises(InvalidRequestError, match="nothing to rank"):
        await ranker.embed(request("", query="q"))
    assert ranker.active == 0


def test_where_the_text_begins_is_said_to_models_that_are_told_only() -> None:
    [(_, asked)] = Ranking(params, config(1), pair).asked(request("a", query="q"))
    assert cast("dict[str, object]", asked)["extra_kwargs"] is None


def test_a_model_with_more_numbers_than_one_does_not_rank() -> None:
    with pytest.raises(EngineStartError, match=r'says 3 numbers .* task = "classify"'):
        Ranking(params, config(3), pair)
    with pytest.raises(EngineError, match="says 2 numbers of a pair, not one"):
        Ranking(params, config(1), pair).told([1.0, 2.0])


async def test_it_does_nothing_else(loop: LoopThread) -> None:
    classifier = runner(loop, Engine(), Classifying(params, config(2)))
    for other in (request("a"), request("a", query="q")):
        with pytest.raises(EndpointUnsupportedError, match="classifies texts; it does"):
            await classifier.embed(other)
    with pytest.raises(EndpointUnsupportedError, match="'m' classifies texts; it does"):
        batch = ExecuteBatch(request_id="c", model="m", messages=())
        async with classifier.execute(batch):
            pass


async def test_a_model_that_is_for_something_else_does_not_start() -> None:
    embeds = Engine()
    for task in (Task.GENERATE, Task.EMBED):
        await check_task(embeds, Options(weights="/m", task=task))
    with pytest.raises(EngineStartError) as caught:
        await check_task(embeds, Options(weights="/m", task=Task.RERANK))
    assert caught.value.message == (
        "the model '/m' is not one for task = 'rerank'; vLLM says that it does: "
        "token_embed, embed"
    )
