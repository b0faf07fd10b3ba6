"""vLLM with a real embedding model, against ONNX Runtime with the same weights."""

from __future__ import annotations

import math

import pytest
import trio

from atomr_infer.bridge import open_bridged_runner
from atomr_infer.errors import EndpointUnsupportedError, InvalidRequestError
from atomr_infer.model.batch import ExecuteBatch, Message, Role
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.embeddings import EmbedRequest, Vector
from atomr_infer.runtimes.contract import Embedder, RunnerContext
from tests.plugins.ort.real import minilm_folder
from tests.plugins.vllm.conftest import deployment_of

pytestmark = [pytest.mark.engine, pytest.mark.slow]

REF = "atomr_infer_vllm.plugin:PLUGIN"
ORT = "atomr_infer_ort.plugin:PLUGIN"
TEXTS = ("a cat sat on the mat", "a kitten rested on the rug", "interest rates rose")


def embed(*texts: str) -> EmbedRequest:
    return EmbedRequest(request_id="e", model="tiny", inputs=texts)


def cosine(one: Vector, other: Vector) -> float:
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / (math.hypot(*one) * math.hypot(*other))


async def reference() -> tuple[Vector, ...]:
    folder = minilm_folder()
    assert folder is not None, "make installs its package"
    deployment = Deployment(name="ort", runtime="ort", model=str(folder))
    async with open_bridged_runner(ORT, deployment, RunnerContext()) as runner:
        return (await runner.embed(embed(*TEXTS))).vectors


async def test_vectors_are_those_of_another_engine() -> None:
    deployment = deployment_of("minilm-hf", task="embed", dtype="float32")
    with trio.fail_after(500):
        expected = await reference()
        async with open_bridged_runner(REF, deployment, RunnerContext()) as runner:
            assert isinstance(runner, Embedder)
            found = await runner.embed(embed(*TEXTS))
            assert [len(vector) for vector in found.vectors] == [384, 384, 384]
            for vector, same in zip(found.vectors, expected, strict=True):
                assert vector == pytest.approx(same, abs=1e-4)
            near, far = (cosine(found.vectors[0], v) for v in found.vectors[1:])
            assert near > 0.5 > 0.2 > far
            assert found.usage.prompt_tokens > 3 * 5

            # Texts that are read together are read as alone.
            (alone,) = (await runner.embed(embed(TEXTS[1]))).vectors
            assert alone == pytest.approx(found.vectors[1], abs=1e-4)

            with pytest.raises(InvalidRequestError):
                await runner.embed(embed("word " * 2000))
            chat = ExecuteBatch(
                request_id="c", model="tiny", messages=(Message(Role.USER, "hi"),)
            )
            with pytest.raises(EndpointUnsupportedError):
                async with runner.execute(chat) as chunks:
                    await anext(chunks)
            assert runner.active == 0
