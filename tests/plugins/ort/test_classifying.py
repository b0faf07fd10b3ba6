"""Texts get the probabilities of labels that numpy gives them."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import trio
from onnx import TensorProto

from atomr_infer.cluster import Cluster
from atomr_infer.errors import EndpointUnsupportedError, EngineStartError
from atomr_infer.model.capabilities import Feature
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.runtimes.contract import RunnerContext
from atomr_infer_ort.classifying import labels_of
from atomr_infer_ort.plugin import PLUGIN
from tests.gateway.http import request
from tests.plugins.ort.bert import WORDS, BertShape, random_bert, write_bert
from tests.plugins.ort.graphs import Array, Graph, _tensor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.engine

SHAPE = BertShape()
LABELS = ("good", "bad", "neither")
TABLE = np.random.default_rng(7).standard_normal((SHAPE.vocabulary, 3)) * 4
TABLE = TABLE.astype(np.float32)
TEXTS = ("the cat sat", "a dog ran and ran", "mat")


def classifier(count: int | str = 3) -> onnx.ModelProto:
    """A model whose numbers are the mean of its tokens'."""
    graph = Graph()
    each = graph.add("Gather", graph.weight("table", TABLE), "input_ids")
    mask = graph.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    mask = graph.add("Unsqueeze", mask, graph.ints(2))
    total = graph.add(
        "ReduceSum", graph.add("Mul", each, mask), graph.ints(1), keepdims=0
    )
    count_of = graph.add("ReduceSum", mask, graph.ints(1), keepdims=0)
    graph.named("Div", "logits", total, count_of)
    inputs = [
        _tensor(name, TensorProto.INT64, "batch", "length")
        for name in ("input_ids", "attention_mask")
    ]
    return graph.model(inputs, [_tensor("logits", TensorProto.FLOAT, "batch", count)])


def logits(text: str) -> Array:
    ids = [2, *(WORDS.index(word) for word in text.split()), 3]
    made: Array = TABLE[ids].astype(np.float64).mean(axis=0)
    return made


def together(text: str) -> Array:
    made: Array = np.exp(logits(text)) / np.exp(logits(text)).sum()
    return made


def apart(text: str) -> Array:
    made: Array = 1 / (1 + np.exp(-logits(text)))
    return made


def write(folder: Path, count: int | str = 3, **config: Any) -> Path:
    write_bert(folder, SHAPE, random_bert(SHAPE))
    onnx.save(classifier(count), folder / "model.onnx")
    told = json.loads((folder / "config.json").read_text())
    names = {str(at): name for at, name in enumerate(LABELS)}
    told = {**told, "id2label": names, **config}
    (folder / "config.json").write_text(json.dumps(told))
    return folder


def deployment(folder: Path) -> Deployment:
    return Deployment(
        name="c", runtime="ort", model=str(folder), options={"threads": 1}
    )


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Any]:
    async with PLUGIN.open_runner(deployment(folder), RunnerContext()) as runner:
        yield runner


def asked(*texts: str, classifies: bool = True) -> EmbedRequest:
    return EmbedRequest(request_id="r", model="c", inputs=texts, classifies=classifies)


@pytest.mark.parametrize("count", [3, "labels"])
async def test_a_text_has_one_label_unless_its_model_says_otherwise(
    tmp_path: Path, count: int | str
) -> None:
    async with opened(write(tmp_path / "one", count)) as runner:
        assert runner.capabilities.features == {Feature.CLASSIFY}
        found = await runner.embed(asked(*TEXTS))
        assert runner.runs == 1
    assert found.labels == LABELS
    assert found.usage.prompt_tokens == 5 + 7 + 3
    for text, vector in zip(TEXTS, found.vectors, strict=True):
        assert vector == pytest.approx(together(text), abs=1e-6)
    several = write(tmp_path / "several", problem_type="multi_label_classification")
    async with opened(several) as runner:
        found = await runner.embed(asked(TEXTS[0]))
    assert found.vectors[0] == pytest.approx(apart(TEXTS[0]), abs=1e-6)


async def test_texts_of_many_requests_share_runs(tmp_path: Path) -> None:
    found: list[Embeddings] = []

    async def ask(runner: Any) -> None:
        found.append(await runner.embed(asked(TEXTS[0])))

    async with opened(write(tmp_path)) as runner:
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(ask, runner)
        assert runner.runs < 8
    for each in found:
        assert each.vectors[0] == pytest.approx(together(TEXTS[0]), abs=1e-6)


async def test_a_classifier_does_nothing_else(tmp_path: Path) -> None:
    async with opened(write(tmp_path)) as runner:
        with pytest.raises(EndpointUnsupportedError, match="classifies texts; it does"):
            await runner.embed(asked("a", classifies=False))


@pytest.mark.parametrize(
    ("config", "count", "figures"),
    [
        ({"id2label": {"0": "a", "1": "b"}}, 3, "says 3 numbers .* names 2 labels"),
        ({}, None, "says None numbers of a text, and its config.json names 0 labels"),
    ],
)
def test_labels_and_numbers_must_be_as_many(
    config: dict[str, Any], count: int | None, figures: str
) -> None:
    with pytest.raises(EngineStartError, match=figures):
        labels_of(config, count)


async def test_clients_classify_by_the_gateway(tmp_path: Path) -> None:
    async with Cluster.connect("inproc://classify") as cluster:
        await cluster.deploy(deployment(write(tmp_path)))
        gateway = await cluster.serve("127.0.0.1:0")
        port = int(gateway.url.rpartition(":")[2])
        body = json.dumps({"model": "c", "input": list(TEXTS)}).encode()
        answer = await request(port, "POST", "/v1/classify", body)
        refused = await request(port, "POST", "/v1/embeddings", body)
    assert answer.json["labels"] == list(LABELS)
    for text, each in zip(TEXTS, answer.json["data"], strict=True):
        assert each["label"] == LABELS[int(np.argmax(together(text)))]
        assert each["probs"] == pytest.approx(together(text), abs=1e-6)
    assert refused.status == 501
