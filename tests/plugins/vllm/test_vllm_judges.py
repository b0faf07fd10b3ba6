"""vLLM with a classifier and a cross-encoder, against transformers' own numbers."""

from __future__ import annotations

import json
import struct
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import trio

from atomr_infer.bridge import open_bridged_runner
from atomr_infer.errors import EngineStartError, InvalidRequestError
from atomr_infer.model.capabilities import Feature
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.runtimes.contract import RunnerContext
from tests.engines.environments import how_to_make, interpreter_of
from tests.engines.models import model_folder
from tests.plugins.vllm.conftest import deployment_of, safetensors

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.engine, pytest.mark.slow]

REF = "atomr_infer_vllm.plugin:PLUGIN"
QUERY = "where did the cat sit?"
TEXTS = ("the cat sat on the mat", "interest rates rose", "a mat, and on it a cat " * 9)
LABELS = ("pets", "money", "sport")

LOGITS = """
import json, sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
folder, *asked = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
for texts in map(json.loads, asked):
    read = tokenizer(*texts, return_tensors="pt", truncation=False, padding=False)
    print(json.dumps(model(**read).logits[0].tolist()))
"""


def judge(folder: Path, labels: tuple[str, ...]) -> Path:
    """Make a model that judges: MiniLM, with a head of random numbers."""
    source = model_folder("minilm-hf")
    if source is None:
        pytest.skip(how_to_make("vllm"))
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    config = json.loads((source / "config.json").read_text())
    config["architectures"] = ["BertForSequenceClassification"]
    config["id2label"] = dict(enumerate(labels))
    config["label2id"] = {label: at for at, label in enumerate(labels)}
    # What some cross-encoders' own files say: nothing is done with their logits.
    config["sbert_ce_default_activation_function"] = "torch.nn.modules.linear.Identity"
    (folder / "config.json").write_text(json.dumps(config))
    random = np.random.default_rng(7)
    head = random.standard_normal((len(labels), config["hidden_size"]))
    tensors = {f"bert.{name}": each for name, each in floats(source).items()}
    tensors["classifier.weight"] = (0.1 * head).astype(np.float32)
    tensors["classifier.bias"] = np.zeros(len(labels), np.float32)
    (folder / "model.safetensors").write_bytes(safetensors(tensors))
    return folder


def floats(source: Path) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    data = (source / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    found = {}
    for name, told in header.items():
        if told.get("dtype") == "F32":
            begin, end = (8 + length + at for at in told["data_offsets"])
            flat = np.frombuffer(data[begin:end], np.float32)
            found[name] = flat.reshape(told["shape"])
    return found


def logits(folder: Path, *asked: tuple[str, ...]) -> np.ndarray[Any, np.dtype[Any]]:
    python = interpreter_of("vllm")
    assert python is not None
    said = subprocess.run(
        [str(python), "-c", LOGITS, str(folder), *map(json.dumps, asked)],
        stdout=subprocess.PIPE,
        check=True,
    )
    return np.array([json.loads(line) for line in said.stdout.splitlines()])


async def judged(
    folder: Path, feature: Feature, request: EmbedRequest, **options: str
) -> Embeddings:
    deployment = deployment_of(
        "minilm-hf", weights=str(folder), dtype="float32", **options
    )
    with trio.fail_after(500):
        async with open_bridged_runner(REF, deployment, RunnerContext()) as runner:
            assert runner.capabilities.features == {feature}
            found = await runner.embed(request)
            # Texts that are read together are read as alone.
            alone = EmbedRequest(
                request_id="a",
                model="tiny",
                inputs=request.inputs[1:2],
                query=request.query,
                classifies=request.classifies,
            )
            [again] = (await runner.embed(alone)).vectors
            assert again == pytest.approx(found.vectors[1], abs=1e-4)
            with pytest.raises(InvalidRequestError):
                await runner.embed(
                    EmbedRequest(
                        request_id="l",
                        model="tiny",
                        inputs=("word " * 2000,),
                        query=request.query,
                        classifies=request.classifies,
                    )
                )
            return found


async def test_documents_are_ranked(tmp_path: Path) -> None:
    folder = judge(tmp_path, ("ranks",))
    ask = EmbedRequest(request_id="r", model="tiny", inputs=TEXTS, query=QUERY)
    found = await judged(folder, Feature.RERANK, ask, task="rerank")
    own = logits(folder, *((QUERY, text) for text in TEXTS))
    expected = 1 / (1 + np.exp(-own))
    assert np.array(found.vectors) == pytest.approx(expected, abs=1e-4)
    assert len({round(score, 3) for (score,) in found.vectors}) == len(TEXTS)
    assert found.usage.prompt_tokens > 3 * 12


async def test_texts_are_classified(tmp_path: Path) -> None:
    folder = judge(tmp_path, LABELS)
    ask = EmbedRequest(request_id="c", model="tiny", inputs=TEXTS, classifies=True)
    found = await judged(folder, Feature.CLASSIFY, ask, task="classify")
    own = logits(folder, *((text,) for text in TEXTS))
    powers = np.exp(own)
    expected = powers / powers.sum(axis=1, keepdims=True)
    assert found.labels == LABELS
    assert np.array(found.vectors) == pytest.approx(expected, abs=1e-4)


async def test_a_model_without_labels_is_refused_at_its_start() -> None:
    deployment = deployment_of("minilm-hf", task="classify", dtype="float32")
    with trio.fail_after(500), pytest.raises(EngineStartError) as caught:
        async with open_bridged_runner(REF, deployment, RunnerContext()):
            pass
    assert "is not one for task = 'classify'; vLLM says" in caught.value.message
