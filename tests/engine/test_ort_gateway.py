"""ONNX models through the whole house, by a real client: a tiny one of each kind.

What needs a real model is in ``test_ort_models``.
"""

from __future__ import annotations

import base64
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import openai
import pytest

from tests.engine.conftest import Server, start_server, until
from tests.plugins.ort.bert import BertShape, bert_reference, random_bert, write_bert
from tests.plugins.ort.graphs import llama_reference, random_llama
from tests.plugins.ort.models import SHAPE, byte_tokenizer, write_llama

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.engine

BERT = BertShape()
WEIGHTS = random_bert(BERT)
CONFIG = """
[[deployment]]
name = "writer"
runtime = "ort"
model = "{llama}"
options = {{ threads = 1 }}

[[deployment]]
name = "embedder"
runtime = "ort"
model = "{bert}"
options = {{ threads = 1 }}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("gateway")
    llama = write_llama(folder / "llama")
    bert = write_bert(folder / "bert", BERT, WEIGHTS)
    config = folder / "atomr.toml"
    config.write_text(CONFIG.format(llama=llama, bert=bert))
    running = start_server("--config", str(config), "--bind", "127.0.0.1:0")
    try:
        yield running
        assert running.stop() == 0, "".join(running.log[-50:])
    finally:
        running.process.kill()
        running.process.wait()
        for pipe in (running.process.stdout, running.process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=120
    ) as client:
        yield client


def greedy(prompt: str, count: int) -> str:
    tokenizer = byte_tokenizer()
    tokens = list(tokenizer.encode(prompt).ids)
    start = len(tokens)
    weights = random_llama(SHAPE)
    while len(tokens) < start + count:
        tokens.append(int(llama_reference(SHAPE, weights, tokens)[-1].argmax()))
    return str(tokenizer.decode(tokens[start:]))


def test_a_streamed_chat_is_the_model_s_greedy_answer(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="writer",
        messages=[{"role": "user", "content": "hello"}],
        max_tokens=16,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == greedy("<s><|turn|>uhello<|turn|>a", 16)
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (10, 16)


def test_a_completion_with_two_answers_and_probabilities(
    client: openai.OpenAI,
) -> None:
    answer = client.chat.completions.create(
        model="writer",
        messages=[{"role": "user", "content": "hello"}],
        max_tokens=8,
        n=2,
        seed=3,
        temperature=1.5,
        logprobs=True,
        top_logprobs=2,
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        assert choice.finish_reason == "length"
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        assert [len(entry.top_logprobs) for entry in choice.logprobs.content] == [2] * 8
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


@pytest.mark.parametrize("form", ["float", "base64"])
def test_embeddings_are_the_reference_s(client: openai.OpenAI, form: str) -> None:
    answer = client.embeddings.create(
        model="embedder",
        input=["the cat sat", "a dog"],
        encoding_format=form,  # type: ignore[arg-type] # one of two literals
    )
    hidden = [
        bert_reference(BERT, WEIGHTS, tokens).mean(0)
        for tokens in ([2, 4, 6, 7, 3], [2, 5, 11, 3])
    ]
    expected = np.array([vector / np.linalg.norm(vector) for vector in hidden])
    made = [one.embedding for one in answer.data]
    if form == "base64":
        made = [
            np.frombuffer(base64.b64decode(text), np.float32).tolist()  # type: ignore[arg-type] # the SDK says floats
            for text in made
        ]
    assert np.array(made) == pytest.approx(expected, abs=1e-5)
    assert answer.usage.prompt_tokens == 9


def test_a_model_is_asked_for_what_it_does(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError, match="does not support embeddings"):
        client.embeddings.create(model="writer", input="a")
    # Where its files lie is nothing that a client is told.
    with pytest.raises(
        openai.APIStatusError,
        match="deployment 'embedder' makes embeddings; it does not write text",
    ):
        client.chat.completions.create(
            model="embedder", messages=[{"role": "user", "content": "a"}]
        )


def test_an_engine_that_is_killed_is_back_for_the_next_request(
    server: Server, client: openai.OpenAI
) -> None:
    children = f"/proc/{server.process.pid}/task/{server.process.pid}/children"

    def engines() -> set[str]:
        return set(Path(children).read_text().split())

    before = engines()
    assert len(before) == 2
    for pid in before:
        os.kill(int(pid), signal.SIGKILL)
    answer = client.chat.completions.create(
        model="writer", messages=[{"role": "user", "content": "hello"}], max_tokens=4
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4
    assert len(client.embeddings.create(model="embedder", input="a").data) == 1
    until(lambda: len(engines() - before) == 2, "both engines are new")
