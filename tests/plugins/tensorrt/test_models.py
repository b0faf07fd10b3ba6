"""Models on plans say what they say on ONNX Runtime and in numpy.

The plans are computed on a device in the machine's own memory, which is as strict as a
GPU: all but the calls of TensorRT and CUDA is what runs on one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import pytest
import trio
import trio.testing

from atomr_infer.errors import (
    ConfigError,
    ContextLengthError,
    EngineError,
    EngineStartError,
)
from atomr_infer.model.asks import (
    FormatKind,
    ResponseFormat,
    Tool,
    ToolChoice,
    ToolMode,
)
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
from atomr_infer.model.capabilities import Feature
from atomr_infer.model.embeddings import EmbedRequest
from atomr_infer.model.tensors import InferRequest, Tensor
from tests.plugins.ort.bert import (
    WORDS,
    BertShape,
    bert_reference,
    random_bert,
    write_bert,
)
from tests.plugins.ort.graphs import llama_reference, random_llama
from tests.plugins.ort.models import SHAPE, byte_tokenizer, write_llama
from tests.plugins.ort.test_classifying import together
from tests.plugins.ort.test_classifying import write as write_classifier
from tests.plugins.ort.test_ranking import QUERY, expected, write_ranking

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugins.tensorrt.conftest import Opener
    from tests.plugins.tensorrt.host import HostBackend

BERT = BertShape()
CLOSE = 1e-5
BERT_WEIGHTS = random_bert(BERT)
LLAMA_WEIGHTS = random_llama(SHAPE)
TEXTS = ("the cat sat on the mat", "a dog", "mat", "the cat and the dog ran", "a mat")
PROMPTS = ("hello", "a longer prompt that fills the cache", "abc")


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert"), BERT, BERT_WEIGHTS)


def texts(*inputs: str, query: str | None = None) -> EmbedRequest:
    return EmbedRequest(request_id="r", model="m", inputs=inputs, query=query)


def reference(text: str) -> Any:
    known = {word: number for number, word in enumerate(WORDS)}
    tokens = [2, *(known.get(word, 1) for word in text.lower().split()), 3]
    vector = bert_reference(BERT, BERT_WEIGHTS, tokens).mean(0)
    return vector / np.linalg.norm(vector)


# --- texts ------------------------------------------------------------------------


@pytest.mark.parametrize("max_batch", [1, 2, 32])
async def test_vectors_are_the_reference_s(
    opened: Opener, bert_folder: Path, backend: HostBackend, max_batch: int
) -> None:
    async with opened(bert_folder, max_batch=max_batch) as runner:
        made = await runner.embed(texts(*TEXTS))
    assert np.array(made.vectors) == pytest.approx(
        np.array([reference(text) for text in TEXTS]), abs=CLOSE
    )
    [plan] = backend.opened
    assert len(plan.runs) == -(-len(TEXTS) // max_batch)


async def test_a_text_that_is_too_long_is_refused_and_the_next_one_is_not(
    opened: Opener, bert_folder: Path
) -> None:
    async with opened(bert_folder, context_tokens=8) as runner:
        with pytest.raises(ContextLengthError, match="11 tokens; the model reads 8"):
            await runner.embed(texts("the cat sat on the mat and a dog"))
        await runner.embed(texts("a dog"))


async def test_pairs_are_ranked_as_on_onnx_runtime(
    opened: Opener, tmp_path: Path
) -> None:
    documents = ("the cat sat on the mat", "a dog")
    async with opened(write_ranking(tmp_path / "model")) as runner:
        made = await runner.embed(texts(*documents, query=QUERY))
    assert [score for (score,) in made.vectors] == pytest.approx(
        [expected(QUERY, document) for document in documents], abs=CLOSE
    )


async def test_texts_are_classified_as_on_onnx_runtime(
    opened: Opener, tmp_path: Path
) -> None:
    asked = attrs.evolve(texts(*TEXTS), classifies=True)
    labels = {"0": "sport", "1": "news", "2": "other"}
    async with opened(write_classifier(tmp_path / "model", id2label=labels)) as runner:
        made = await runner.embed(asked)
    assert made.labels == ("sport", "news", "other")
    assert np.array(made.vectors) == pytest.approx(
        np.array([together(text) for text in TEXTS]), abs=CLOSE
    )


async def test_a_model_of_texts_takes_tensors_where_that_is_wanted(
    opened: Opener, bert_folder: Path
) -> None:
    ids = np.array([[2, 5, 3]])
    span = {"least": [1, 1], "usual": [1, 8], "most": [2, 8]}
    names = ("input_ids", "attention_mask", "token_type_ids")
    async with opened(
        bert_folder, tensors=True, profiles=[dict.fromkeys(names, span)]
    ) as runner:
        given = (ids, np.ones_like(ids), np.zeros_like(ids))
        made = await runner.infer(
            InferRequest(
                request_id="r",
                model="m",
                inputs=tuple(map(Tensor.of, names, given)),
            )
        )
    hidden = np.frombuffer(made.outputs[0].data, np.float32).reshape(3, -1)
    assert hidden == pytest.approx(
        bert_reference(BERT, BERT_WEIGHTS, [2, 5, 3]), abs=CLOSE
    )


async def test_weights_in_another_precision_make_about_the_same_vectors(
    opened: Opener, bert_folder: Path
) -> None:
    async with opened(bert_folder, precision="fp16") as runner:
        made = await runner.embed(texts(*TEXTS))
    assert np.array(made.vectors) == pytest.approx(
        np.array([reference(text) for text in TEXTS]), abs=5e-3
    )


# --- plans --------------------------------------------------------------------------


async def test_a_plan_is_built_once_for_each_way(
    opened: Opener, bert_folder: Path, backend: HostBackend
) -> None:
    for options in ({}, {}, {"max_batch": 2}, {"precision": "int8"}, {}):
        async with opened(bert_folder, **options) as runner:
            await runner.embed(texts("a dog"))
    assert len(backend.built) == 3
    assert len(backend.opened) == 5


async def test_a_plan_is_built_anew_when_the_model_is_another_one(
    opened: Opener, tmp_path: Path, backend: HostBackend
) -> None:
    for seed in (1, 2):
        folder = write_bert(tmp_path / "bert", BERT, random_bert(BERT, seed))
        async with opened(folder):
            pass
    assert len(backend.built) == 2


async def test_a_model_that_needs_other_profiles_is_told_which(
    opened: Opener, bert_folder: Path
) -> None:
    span = {"least": [1, 1], "usual": [1, 8], "most": [1, 8]}
    with pytest.raises(ConfigError, match=r"profiles\[0\] of .*: the input 'attention"):
        async with opened(bert_folder, profiles=[{"input_ids": span}]):
            raise AssertionError


# --- language models --------------------------------------------------------------


def bare(text: str, **sampling: Any) -> ExecuteBatch:
    return ExecuteBatch(
        request_id="r",
        model="m",
        messages=(Message(Role.USER, text),),
        prompt=text,
        sampling=attrs.evolve(Sampling(), temperature=0.0, **sampling),
    )


def greedy(prompt: str, count: int) -> str:
    tokenizer = byte_tokenizer()
    tokens = list(tokenizer.encode(prompt).ids)
    start = len(tokens)
    while len(tokens) < start + count:
        tokens.append(int(llama_reference(SHAPE, LLAMA_WEIGHTS, tokens)[-1].argmax()))
    return str(tokenizer.decode(tokens[start:], skip_special_tokens=True))


async def test_answers_that_come_and_go_say_what_the_reference_says(
    opened: Opener, llama_folder: Path, backend: HostBackend
) -> None:
    counts = [24, 7, 15]
    said: dict[tuple[int, int], str] = {}

    async def answer(runner: Any, turn: int, number: int) -> None:
        for _ in range(turn * 3):
            await trio.testing.wait_all_tasks_blocked()
        batch = bare(PROMPTS[number], max_tokens=counts[number])
        async with runner.execute(batch) as chunks:
            said[turn, number] = "".join([chunk.text async for chunk in chunks])

    async with (
        opened(llama_folder, max_seqs=4, prefill_tokens=16) as runner,
        trio.open_nursery() as nursery,
    ):
        for turn in range(2):
            for number in range(3):
                nursery.start_soon(answer, runner, turn, number)
    wanted = [greedy(p, n) for p, n in zip(PROMPTS, counts, strict=True)]
    assert said == {(t, n): wanted[n] for t in range(2) for n in range(3)}
    [plan] = backend.opened
    # A step has one token of each sequence, and sequences share it.
    assert max(run["input_ids"][0] for run in plan.runs) > 1


async def test_an_answer_is_kept_to_its_schema_and_a_required_call_is_made(
    opened: Opener, tmp_path: Path
) -> None:
    # A model of bytes is told of its tools in many of them.
    folder = write_llama(tmp_path / "model", attrs.evolve(SHAPE, context=1024))
    where = {"where": {"enum": ["in", "out"]}}
    schema: dict[str, Any] = {"type": "object", "properties": where}
    schema |= {"required": ["where"], "additionalProperties": False}
    wanted = json.dumps(schema).encode()
    asked = ExecuteBatch(
        request_id="r",
        model="m",
        messages=(Message(Role.USER, "hi"),),
        sampling=Sampling(max_tokens=60, temperature=1.0, seed=1),
    )
    formed = attrs.evolve(
        asked,
        response_format=ResponseFormat(kind=FormatKind.JSON_SCHEMA, schema=wanted),
    )
    called = attrs.evolve(
        asked,
        tools=(Tool(name="look", parameters=wanted),),
        tool_choice=ToolChoice(mode=ToolMode.REQUIRED, names=("look",)),
    )
    async with opened(folder) as runner:
        assert {Feature.STRUCTURED_OUTPUT, Feature.TOOLS} <= (
            runner.capabilities.features
        )
        async with runner.execute(formed) as chunks:
            text = "".join([chunk.text async for chunk in chunks])
        async with runner.execute(called) as chunks:
            calls = [call async for chunk in chunks for call in chunk.tool_calls]
    assert json.loads(text)["where"] in {"in", "out"}
    assert calls[0].name == "look"
    arguments = json.loads("".join(call.arguments for call in calls))
    assert arguments["where"] in {"in", "out"}


async def test_it_does_all_that_it_says_of_itself(
    opened: Opener, llama_folder: Path
) -> None:
    chat = attrs.evolve(bare("hello", max_tokens=6), prompt=None)
    told = attrs.evolve(
        bare("hello", max_tokens=6),
        sampling=Sampling(temperature=0.0, max_tokens=6, top_logprobs=2),
    )
    formed = attrs.evolve(
        bare("hello", max_tokens=24),
        response_format=ResponseFormat(kind=FormatKind.JSON_OBJECT),
    )
    async with opened(llama_folder) as runner:
        assert runner.capabilities.features == {
            Feature.CHAT,
            Feature.COMPLETIONS,
            Feature.COUNT_TOKENS,
            Feature.LOGPROBS,
            Feature.JSON_OBJECT,
            Feature.STRUCTURED_OUTPUT,
            Feature.TOOLS,
            Feature.PARALLEL_TOOLS,
        }
        async with runner.execute(chat) as chunks:
            assert [chunk async for chunk in chunks][-1].usage is not None
        async with runner.execute(told) as chunks:
            found = [chunk async for chunk in chunks]
        async with runner.execute(formed) as chunks:
            text = "".join([chunk.text async for chunk in chunks])
        assert await runner.count_tokens(told) == len(byte_tokenizer().encode("hello"))
    assert "".join(chunk.text for chunk in found) == greedy("hello", 6)
    tokens = [
        entry
        for chunk in found
        if chunk.logprobs is not None
        for entry in json.loads(chunk.logprobs)["content"]
    ]
    assert tokens
    assert all(len(entry["top_logprobs"]) == 2 for entry in tokens)
    assert text.startswith("{")


async def test_caches_are_used_again_and_not_asked_for_in_each_step(
    opened: Opener, llama_folder: Path, backend: HostBackend
) -> None:
    async with opened(llama_folder) as runner:
        lefts = []
        for _ in range(4):
            async with runner.execute(bare("hello", max_tokens=40)) as chunks:
                assert [chunk async for chunk in chunks]
            lefts.append(backend.device.left)
    assert len(set(lefts)) == 1


async def test_a_device_that_is_full_costs_the_request_and_not_the_engine(
    opened: Opener, llama_folder: Path, backend: HostBackend
) -> None:
    async with opened(llama_folder) as runner:
        backend.device.left, kept = 0, backend.device.left
        with pytest.raises(EngineError, match="the GPU is out of memory") as caught:
            async with runner.execute(bare("hello" * 30, max_tokens=40)) as chunks:
                assert [chunk async for chunk in chunks]
        assert caught.value.code == "out_of_memory"
        backend.device.left = kept
        async with runner.execute(bare("hello", max_tokens=8)) as chunks:
            said = "".join([chunk.text async for chunk in chunks])
    assert said == greedy("hello", 8)


async def test_a_model_whose_weights_beside_it_are_missing_is_told(
    opened: Opener, tmp_path: Path
) -> None:
    folder = write_bert(tmp_path / "bert", BERT, BERT_WEIGHTS)
    (folder / "model.onnx").write_bytes(b"hello" * 50)
    with pytest.raises(EngineStartError, match=r"model\.onnx' is no ONNX file"):
        async with opened(folder):
            raise AssertionError
