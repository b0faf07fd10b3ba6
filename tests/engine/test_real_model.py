"""A real answer from a real model, through the whole house, by real clients."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import openai
import pytest
import trio

from tests.engine.conftest import Server, start_server, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openai.types.chat import ChatCompletionMessageParam

pytestmark = pytest.mark.engine

MODEL = "smollm2-135m-instruct"
SKY: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "Why is the sky blue?"}
]
STORY: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "Write a story about a cat."}
]


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="unused", max_retries=0
    ) as client:
        yield client


def is_english(text: str) -> bool:
    words = re.findall(r"[a-z]+", text.lower())
    return (
        len(words) > 8 and {"the", "a", "of", "is", "to", "and"} & set(words) != set()
    )


def test_the_printed_curl_streams_an_english_sentence(server: Server) -> None:
    command = server.banner[server.banner.index("curl ") :].partition("\n\n")[0]
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    limited = command.replace('"stream": true', '"stream": true, "max_tokens": 20')
    answer = subprocess.run(
        limited, shell=True, capture_output=True, text=True, timeout=120, check=True
    )
    *events, done, end = answer.stdout.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    texts = [c["choices"][0]["delta"].get("content", "") for c in chunks]
    assert len([text for text in texts if text]) > 10, "token by token"
    assert is_english("".join(texts)), texts


def test_the_sync_sdk_gets_a_whole_answer_with_its_usage(
    client: openai.OpenAI,
) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=SKY, max_tokens=16, temperature=0
    )
    assert answer.choices[0].finish_reason == "length"
    assert is_english(answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16
    assert answer.usage.prompt_tokens > 10


def test_streamed_and_whole_answers_agree(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(
        model=MODEL, messages=SKY, max_tokens=16, temperature=0
    )
    stream = client.chat.completions.create(
        model=MODEL, messages=SKY, max_tokens=16, temperature=0, stream=True
    )
    texts = [c.choices[0].delta.content or "" for c in stream if c.choices]
    assert "".join(texts) == whole.choices[0].message.content


# The SDK leaves the generators of a finished stream to the collector.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator")
@pytest.mark.filterwarnings("ignore:Async generator 'openai:ResourceWarning")
def test_the_async_sdk_streams_under_trio_and_under_asyncio(server: Server) -> None:
    async def ask() -> str:
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="unused", max_retries=0
        ) as client:
            stream = await client.chat.completions.create(
                model=MODEL, messages=SKY, max_tokens=16, temperature=0, stream=True
            )
            texts = [c.choices[0].delta.content or "" async for c in stream]
            return "".join(texts)

    assert trio.run(ask) == asyncio.run(ask())


def test_a_closed_stream_frees_the_engine(
    server: Server, client: openai.OpenAI
) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=STORY, max_tokens=4000, stream=True
    )
    for _, _chunk in zip(range(5), stream, strict=False):
        pass
    stream.close()
    # The engine takes one request at a time: this one waits for the first.
    began_at = time.monotonic()
    client.chat.completions.create(model=MODEL, messages=SKY, max_tokens=1)
    assert time.monotonic() - began_at < 30, "4000 tokens take longer"
    pid = server.engine_pid()
    until(lambda: burned_s(pid, 0.5) < 0.25, "the engine is idle")


def burned_s(pid: int, span_s: float) -> float:
    """Seconds of processor time that a process used within ``span_s``."""

    def used() -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        return int(fields[11]) + int(fields[12])

    before = used()
    time.sleep(span_s)
    return (used() - before) / os.sysconf("SC_CLK_TCK")


def test_an_engine_that_is_killed_idle_is_back_for_the_next_request(
    server: Server, client: openai.OpenAI
) -> None:
    before = server.engine_pid()
    os.kill(before, signal.SIGKILL)
    answer = client.chat.completions.create(model=MODEL, messages=SKY, max_tokens=4)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4
    assert server.engine_pid() != before
    restarts = [line for line in server.log if "restarts 'context'" in line]
    assert "killed by SIGKILL (9)" in restarts[-1]


def test_an_engine_that_is_killed_while_it_streams_ends_the_stream_with_an_error(
    server: Server, client: openai.OpenAI
) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=STORY, max_tokens=4000, stream=True
    )
    texts = []
    with pytest.raises(openai.APIError, match=r"killed by SIGKILL \(9\)"):
        for chunk in stream:
            texts.append(chunk.choices[0].delta.content)
            if len(texts) == 5:
                os.kill(server.engine_pid(), signal.SIGKILL)
    assert len(texts) >= 5
    answer = client.chat.completions.create(model=MODEL, messages=SKY, max_tokens=4)
    assert answer.choices[0].finish_reason == "length"


def test_a_context_that_is_too_long_is_the_clients_error(
    client: openai.OpenAI,
) -> None:
    long: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": "word " * 20_000}
    ]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=long)
    assert caught.value.code == "context_length_exceeded"


def test_a_server_that_is_killed_leaves_no_engine_behind() -> None:
    doomed = start_server("--demo", "--bind", "127.0.0.1:0")
    engine = doomed.engine_pid()
    doomed.process.kill()
    doomed.process.wait()
    until(lambda: not Path(f"/proc/{engine}").exists(), "the engine is gone")
    for pipe in (doomed.process.stdout, doomed.process.stderr):
        if pipe is not None:
            pipe.close()
