"""Documents are ranked by the numbers that numpy makes of them."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from atomr_infer.bridge import open_bridged_runner
from atomr_infer.cluster import Cluster
from atomr_infer.errors import (
    ContextLengthError,
    EndpointUnsupportedError,
)
from atomr_infer.model.capabilities import Feature
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.embeddings import EmbedRequest
from atomr_infer.runtimes.contract import Embedder, RunnerContext
from atomr_infer_ort.plugin import PLUGIN
from tests.gateway.http import request
from tests.plugins.ort.bert import WORDS, BertShape, random_bert, write_bert
from tests.plugins.ort.graphs import Graph, _tensor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


pytestmark = pytest.mark.engine

REF = "atomr_infer_ort.plugin:PLUGIN"
SHAPE = BertShape()
QUERY = "the dog"
DOCUMENTS = ("the cat sat", "a dog ran and ran", "mat")
RANDOM = np.random.default_rng(3)
SCORES = RANDOM.standard_normal((2, SHAPE.vocabulary)).astype(np.float32)


def ranking(labels: int = 1) -> onnx.ModelProto:
    """A model whose number is the mean of its tokens', by word and by segment."""
    graph = Graph()
    table = np.repeat(SCORES.reshape(-1, 1), labels, axis=1)
    size = graph.constant(SHAPE.vocabulary, np.int64)
    row = graph.add("Add", "input_ids", graph.add("Mul", "token_type_ids", size))
    each = graph.add("Gather", graph.weight("scores", table), row)
    mask = graph.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    mask = graph.add("Unsqueeze", mask, graph.ints(2))
    total = graph.add(
        "ReduceSum", graph.add("Mul", each, mask), graph.ints(1), keepdims=0
    )
    count = graph.add("ReduceSum", mask, graph.ints(1), keepdims=0)
    graph.named("Div", "logits", total, count)
    inputs = [
        _tensor(name, TensorProto.INT64, "batch", "length")
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    return graph.model(inputs, [_tensor("logits", TensorProto.FLOAT, "batch", labels)])


def expected(query: str, document: str) -> float:
    """The same in numpy."""

    def ids(text: str) -> list[int]:
        return [WORDS.index(word) for word in text.split()]

    first, second = [2, *ids(query), 3], [*ids(document), 3]
    numbers = [*SCORES[0][first], *SCORES[1][second]]
    return float(1 / (1 + np.exp(-np.mean(numbers))))


def write_ranking(folder: Path, labels: int = 1) -> Path:
    write_bert(folder, SHAPE, random_bert(SHAPE))
    onnx.save(ranking(labels), folder / "model.onnx")
    return folder


def deployment(folder: Path) -> Deployment:
    return Deployment(
        name="m", runtime="ort", model=str(folder), options={"threads": 1}
    )


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Any]:
    async with PLUGIN.open_runner(deployment(folder), RunnerContext()) as runner:
        yield runner


def asked(*documents: str, query: str | None = QUERY) -> EmbedRequest:
    return EmbedRequest(request_id="r", model="m", inputs=documents, query=query)


async def test_the_numbers_are_those_of_the_reference(tmp_path: Path) -> None:
    async with opened(write_ranking(tmp_path)) as runner:
        found = await runner.embed(asked(*DOCUMENTS))
        assert runner.runs == 1
    scores = [vector[0] for vector in found.vectors]
    wanted = [expected(QUERY, document) for document in DOCUMENTS]
    assert scores == pytest.approx(wanted, abs=1e-6)
    assert found.usage.prompt_tokens == 8 + 10 + 6


async def test_a_model_that_ranks_does_nothing_else_and_others_do_not_rank(
    tmp_path: Path,
) -> None:
    async with opened(write_ranking(tmp_path / "ranks")) as runner:
        assert runner.capabilities.features == {Feature.RERANK}
        with pytest.raises(EndpointUnsupportedError, match="ranks documents; it does"):
            await runner.embed(asked("a", query=None))
    plain = write_bert(tmp_path / "embeds", SHAPE, random_bert(SHAPE))
    async with opened(plain) as runner:
        with pytest.raises(EndpointUnsupportedError, match="makes embeddings; it does"):
            await runner.embed(asked("a"))


async def test_a_pair_that_is_too_long_is_refused_and_not_cut(tmp_path: Path) -> None:
    async with opened(write_ranking(tmp_path)) as runner:
        with pytest.raises(ContextLengthError, match=r"documents\[1\] has 35 tokens"):
            await runner.embed(asked("a", "a " * 30))


async def test_it_ranks_behind_the_bridge(tmp_path: Path) -> None:
    folder = write_ranking(tmp_path)
    async with open_bridged_runner(REF, deployment(folder), RunnerContext()) as runner:
        assert isinstance(runner, Embedder)
        found = await runner.embed(asked(DOCUMENTS[0]))
    assert found.vectors[0] == pytest.approx((expected(QUERY, DOCUMENTS[0]),), abs=1e-6)


async def test_clients_rank_documents_by_the_gateway(tmp_path: Path) -> None:
    body = {
        "model": "m",
        "query": QUERY,
        "documents": [*DOCUMENTS[:2], {"text": "mat"}],
    }
    async with Cluster.connect("inproc://rank") as cluster:
        await cluster.deploy(deployment(write_ranking(tmp_path)))
        gateway = await cluster.serve("127.0.0.1:0")
        port = int(gateway.url.rpartition(":")[2])
        text = json.dumps({**body, "top_n": 2, "return_documents": True}).encode()
        best = await request(port, "POST", "/v1/rerank", text)
        plain = await request(port, "POST", "/rerank", json.dumps(body).encode())
    wanted = [expected(QUERY, document) for document in DOCUMENTS]
    order = sorted(range(3), key=lambda at: -wanted[at])
    assert [r["index"] for r in plain.json["results"]] == order
    assert [r["document"] for r in best.json["results"]] == [
        {"text": DOCUMENTS[at]} for at in order[:2]
    ]
    first = best.json["results"][0]
    assert first["relevance_score"] == pytest.approx(wanted[order[0]], abs=1e-6)
    assert best.json["model"] == "m"


async def test_a_runtime_that_does_not_rank_says_so() -> None:
    body = json.dumps({"model": "m", "query": QUERY, "documents": ["a"]}).encode()
    async with Cluster.connect("inproc://rank") as cluster:
        await cluster.deploy(Deployment(name="m", runtime="mock"))
        gateway = await cluster.serve("127.0.0.1:0")
        port = int(gateway.url.rpartition(":")[2])
        answer = await request(port, "POST", "/v1/rerank", body)
    assert (answer.status, answer.json["error"]["code"]) == (501, "unsupported")
