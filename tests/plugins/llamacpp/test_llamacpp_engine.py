"""SmolLM2 on llama.cpp, in an interpreter of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr_infer.errors import (
    ContextLengthError,
    EngineCrashedError,
    EngineStartError,
    InvalidRequestError,
    UnsupportedFeatureError,
)
from atomr_infer.model.asks import FormatKind, ResponseFormat
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    Role,
    Sampling,
    TokenChunk,
)
from atomr_infer.runtimes.conformance import CHECKS
from atomr_infer.runtimes.conformance_case import ConformanceCase

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.bridge import BridgedRunner
    from tests.plugins.llamacpp.conftest import Opener

pytestmark = [pytest.mark.engine, pytest.mark.slow]

PATIENCE_S = 600.0  # a busy machine is slow; no test is about speed
PIECE = 32  # as sharing.py reads
STORY = "Write a story about a cat."
PERSON = json.dumps(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 8},
            "age": {"type": "integer", "minimum": 1, "maximum": 99},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    }
).encode()


def ask(text: str = STORY, **sampling: Any) -> ExecuteBatch:
    return ExecuteBatch(
        request_id="r",
        model="m",
        messages=(Message(Role.USER, text),),
        sampling=attrs.evolve(Sampling(), **sampling),
    )


async def collect(runner: BridgedRunner, batch: ExecuteBatch) -> list[TokenChunk]:
    with trio.fail_after(PATIENCE_S):
        async with runner.execute(batch) as chunks:
            return [chunk async for chunk in chunks]


def text_of(chunks: list[TokenChunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def finishes(chunks: list[TokenChunk]) -> list[FinishReason]:
    return [chunk.finish_reason for chunk in chunks if chunk.finish_reason]


async def test_it_answers_as_it_is_asked(opened: Opener) -> None:
    async with opened() as runner:
        greedy = await collect(runner, ask(max_tokens=24, temperature=0))
        story = text_of(greedy)
        assert " cat" in story
        assert finishes(greedy) == [FinishReason.LENGTH]
        usage = greedy[-1].usage
        assert usage is not None
        assert usage.output_tokens == 24
        assert usage.prompt_tokens == await runner.count_tokens(ask())

        word = story.split()[5]
        stopped = await collect(runner, ask(max_tokens=24, temperature=0, stop=(word,)))
        assert text_of(stopped) == story.partition(word)[0]
        assert finishes(stopped) == [FinishReason.STOP]

        drawn = ask(max_tokens=12, temperature=0.8, top_p=0.9, seed=11)
        first = text_of(await collect(runner, drawn))
        assert text_of(await collect(runner, drawn)) == first
        other = ask(max_tokens=12, temperature=0.8, top_p=0.9, seed=12)
        assert text_of(await collect(runner, other)) != first


async def test_several_answers_with_probabilities_share_a_prompt(
    opened: Opener,
) -> None:
    async with opened() as runner:
        found = await collect(
            runner, ask(max_tokens=4, temperature=1.5, seed=1, n=3, top_logprobs=2)
        )
    texts = {
        index: "".join(c.text for c in found if c.index == index) for index in range(3)
    }
    assert len(set(texts.values())) > 1
    assert len(finishes(found)) == 3
    reports = [
        (chunk.index, entry)
        for chunk in found
        if chunk.logprobs is not None
        for entry in json.loads(chunk.logprobs)["content"]
    ]
    assert len(reports) == 12
    for index, text in texts.items():
        data = b"".join(bytes(entry["bytes"]) for i, entry in reports if i == index)
        assert data.decode(errors="replace") == text
    for _, entry in reports:
        assert entry["logprob"] <= 0
        likely = [one["logprob"] for one in entry["top_logprobs"]]
        assert len(likely) == 2
        assert likely == sorted(likely, reverse=True)
    usage = found[-1].usage
    assert usage is not None
    assert usage.output_tokens == 12


async def test_a_schema_is_followed(opened: Opener) -> None:
    batch = ask("Invent a person.", max_tokens=80, temperature=0.7, seed=3)
    form = ResponseFormat(kind=FormatKind.JSON_SCHEMA, schema=PERSON)
    async with opened() as runner:
        made = await collect(runner, attrs.evolve(batch, response_format=form))
        person = json.loads(text_of(made))
        assert set(person) == {"name", "age"}
        assert len(person["name"]) <= 8
        assert 1 <= person["age"] <= 99
        assert finishes(made) == [FinishReason.STOP]
        # A grammar is one answer's own.
        free = text_of(await collect(runner, ask(max_tokens=24)))
        assert not free.lstrip().startswith("{")
        odd = ResponseFormat(
            kind=FormatKind.JSON_SCHEMA, schema=b'{"$ref": "#/nowhere"}'
        )
        with pytest.raises(InvalidRequestError, match="makes no grammar"):
            await collect(runner, attrs.evolve(batch, response_format=odd))


async def test_sixteen_at_once_say_what_each_says_alone(opened: Opener) -> None:
    # Bare text: a conversation's prompt would be most of the work.
    batch = attrs.evolve(
        ask(max_tokens=24, temperature=0), prompt="Once upon a time, a cat"
    )
    async with opened() as runner:
        alone = text_of(await collect(runner, batch))
        texts: list[str] = []

        async def answer() -> None:
            texts.append(text_of(await collect(runner, batch)))

        async with trio.open_nursery() as nursery:
            for _ in range(16):
                nursery.start_soon(answer)
    # Rounding differs with a batch's size, and may turn a close choice.
    assert sum(text[:20] == alone[:20] for text in texts) >= 12


def test_leaving_frees_the_sequence_at_once_in_prefill_too(
    python: str, gguf: str
) -> None:
    ran = subprocess.run(
        [python, str(Path(__file__).with_name("leaving.py")), gguf],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    for held, left, processor_s in found["left"].values():
        assert (held, left) == (1, 0)
        # Of the processor, as others may have it meanwhile; and a slow one takes longer
        # from one place where the engine looks to the next.
        assert processor_s < max(0.2, found["read_s"] / 4)


def test_requests_share_steps_and_what_was_read_and_say_nothing_else(
    python: str, gguf: str
) -> None:
    ran = subprocess.run(
        [python, str(Path(__file__).with_name("sharing.py")), gguf],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    alone, together = found["steps"]
    # A prompt is read in a step of its own; one after the other they take 16 times it.
    assert together < 4 * alone
    cached, plain = found["conversations"]
    (_, prompt, *_), again, more = cached
    whole = (prompt - 1) // PIECE * PIECE
    assert whole > 0
    # Each answer has 8 tokens, of which the last is not read.
    assert [read for *_, read in plain] == [said[1] + 7 for said in plain]
    assert cached[0][2:] == [0, prompt + 7]
    assert again[2:] == [whole, prompt - whole + 7]
    assert whole <= more[2] == more[1] + 7 - more[3]
    assert [said[0] for said in cached[:2]] == [said[0] for said in plain[:2]]


async def test_conformance(opened: Opener) -> None:
    async with opened(max_seqs=4, context_tokens=256) as runner:
        case = ConformanceCase(
            model="m", prompt=STORY, answer_timeout_s=PATIENCE_S, leave_timeout_s=30.0
        )
        for check in CHECKS:
            await check(runner, case)


async def test_a_prompt_that_is_too_long_is_refused(opened: Opener) -> None:
    async with opened(context_tokens=64) as runner:
        with pytest.raises(ContextLengthError, match="and the model's context is 64"):
            await collect(runner, ask("word " * 100))


async def test_more_answers_than_sequences_are_refused(opened: Opener) -> None:
    async with opened(max_seqs=2) as runner:
        with pytest.raises(UnsupportedFeatureError, match="at most 2 answers"):
            await collect(runner, ask(n=3))


async def test_killed_under_load_every_stream_says_so(opened: Opener) -> None:
    messages: list[str] = []
    begun = 0

    async def read(runner: BridgedRunner) -> None:
        nonlocal begun
        with pytest.raises(EngineCrashedError) as caught:
            async with runner.execute(ask()) as chunks:
                async for _ in chunks:
                    begun += 1
                    if begun == 8:
                        os.kill(runner.pid, signal.SIGKILL)
        messages.append(caught.value.message)

    async with opened() as runner:
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(read, runner)
        assert runner.active == 0
    assert set(messages) == {
        "the engine process of deployment 'm': killed by SIGKILL (9)"
    }
    assert len(messages) == 8


@pytest.mark.parametrize(
    ("write", "options", "reason"),
    [
        (lambda path: None, {}, "there is no model file"),
        (
            lambda path: path.write_bytes(b"GGUF" + bytes(64)),
            {},
            "cannot load .*; it said: gguf_init.* failed to load model",
        ),
        (
            lambda path: path.write_bytes(b"no such file as it reads"),
            {},
            "cannot load .*; it said: .*'no s', expected 'GGUF'",
        ),
        (lambda path: path.write_bytes(b""), {"gpu_layers": 1}, "knows no GPU"),
    ],
    ids=["absent", "damaged", "of another kind", "no GPU"],
)
async def test_what_cannot_start_says_why(
    opened: Opener,
    tmp_path: Path,
    write: Callable[[Path], object],
    options: dict[str, int],
    reason: str,
) -> None:
    file = tmp_path / "m.gguf"
    write(file)
    with pytest.raises(EngineStartError, match=reason):
        async with opened(model=str(file), **options):
            pass
