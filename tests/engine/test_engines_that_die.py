"""Every engine's process is stopped, stuck, poisoned or without memory under load.

Whoever has heard something is told what happened; those who have not, in the engine
or in the queue before it, are answered by the engine that comes; and of the one that
was nothing is left.  ``planted`` says how faults come into real engines.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import openai
import pytest

from tests.engine.conftest import Server, start_server, until
from tests.engine.every import ENGINES, Engine

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.engine

PLANTED = Path(__file__).with_name("planted")
PATIENCE_S = 300.0
STORY = "Write a story about a cat."
TIMEOUTS = "first_token_s = 600, idle_s = 600, silent_s = 3"
STUCK_S = 4
KEY = "a key for the operators, of a test"
PLACES = r"^atomr_infer_replica_(?:running|waiting){.*} (\S+)$"
STREAMS, ASKS = 2, 3
"""Those who have heard something, and those who have not: one more than run."""


@attrs.frozen
class Doomed:
    """An engine behind a gateway, and the sign that has it fail."""

    engine: Engine
    server: Server
    sign: Path
    config: Path

    def watch(self, *, closely: bool) -> None:
        """Have the engine that runs, and those that come, bound to make something."""
        write_config(self.config, self.engine, closely=closely)
        self.ask_operators("reload", b"{}")

    def ask_operators(self, path: str, data: bytes | None = None) -> str:
        """Ask as an operator does; POST with data."""
        asked = urllib.request.Request(
            f"{self.server.url}/admin/{path}",
            data,
            headers={"Authorization": f"Bearer {KEY}"},
        )
        with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:
            return str(answer.read(), "utf-8")

    def fail(self, how: str) -> int:
        """Have its process fail; return which one that is."""
        process = self.server.engine_pid()
        if how == "stop":
            os.kill(process, signal.SIGSTOP)
        else:
            # Whole at once: the engine may look for it at any moment.
            written = self.sign.with_suffix(".written")
            written.write_text(how)
            written.rename(self.sign)
        return process

    def open_files(self) -> int:
        """How many files the gateway has open."""
        return len(os.listdir(f"/proc/{self.server.process.pid}/fd"))

    def places(self) -> float:
        """How many requests have a place in the engine or in the queue before it."""
        told = self.ask_operators("metrics")
        running, waiting = re.findall(PLACES, told, re.MULTILINE)
        return float(running) + float(waiting)

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.server.url}/v1",
            api_key="unused",
            max_retries=0,
            timeout=PATIENCE_S,
        )


@attrs.define
class Heard:
    """What clients heard: pieces of streams, why streams ended, whole answers."""

    begun: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(0))
    told: list[str] = attrs.field(factory=list)
    answered: list[int] = attrs.field(factory=list)

    def talk(self, client: openai.OpenAI) -> None:
        pieces = 0
        try:
            for chunk in client.chat.completions.create(
                model="m",
                messages=[{"role": "user", "content": STORY}],
                max_tokens=900,
                temperature=0,
                stream=True,
            ):
                pieces += bool(chunk.choices and chunk.choices[0].delta.content)
                if pieces == 1:
                    self.begun.release()
        except openai.APIError as error:
            self.told.append(error.message)
        else:
            self.told.append(f"nothing after {pieces} pieces")

    def ask(self, client: openai.OpenAI) -> None:
        answer = client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": STORY}],
            max_tokens=4,
            temperature=0,
        )
        assert answer.usage is not None
        self.answered.append(answer.usage.completion_tokens)


def in_session(leader: int) -> set[int]:
    """The processes that an engine's process leads."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        if int(fields[3]) == leader:
            found.add(int(stat.parent.name))
    return found


def write_config(path: Path, engine: Engine, *, closely: bool) -> None:
    """Write a gateway's file; ``closely``: one that makes nothing is found soon."""
    key = path.with_name("key")
    timeouts = f"{TIMEOUTS}, stuck_s = {STUCK_S}" if closely else TIMEOUTS
    runs = f"max_concurrency = {STREAMS + 1}"
    path.write_text(
        f'[gateway]\nadmin_key = {{ file = "{key}" }}\n'
        + engine.deployment(timeouts, runs)
        + f'environment = {{ PYTHONPATH = "{PLANTED}" }}\n'
    )


def _engines() -> Iterator[object]:
    for engine in ENGINES:
        # Each takes half a minute to some minutes; one is among the quick ones.
        marks = [] if engine.runtime == "ort" else [pytest.mark.slow]
        yield pytest.param(engine, id=engine.runtime, marks=marks)


@pytest.fixture(scope="module", params=_engines())
def doomed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Doomed]:
    engine: Engine = request.param
    if (missing := engine.missing()) is not None:
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp(engine.runtime)
    config, sign = folder / "atomr.toml", folder / "sign"
    config.with_name("key").write_text(KEY)
    write_config(config, engine, closely=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATOMR_PLANTED", str(sign))
        running = start_server("--config", str(config), "--bind", "127.0.0.1:0")
    try:
        yield Doomed(engine, running, sign, config)
        assert running.stop() == 0, "".join(running.log[-50:])
    finally:
        running.process.kill()
        running.process.wait()
        for pipe in (running.process.stdout, running.process.stderr):
            if pipe is not None:
                pipe.close()


SILENT = r"did not answer for 3 s \(timeouts\.silent_s\) and was killed"
POISONED = {
    "vllm": "vLLM's engine core died",
    "ort": "ONNX Runtime failed: CUDA error: an illegal memory access",
    "mistralrs": "mistral.rs panicked: CUDA error: an illegal memory access",
    "llamacpp": "llama_decode gave -3",
}
STUCK = r"has requests and {} for {} s \(timeouts\.stuck_s\)"
# Of mistral.rs nothing but its tokens is seen.
MADE = dict.fromkeys(POISONED, "made no step") | {"mistralrs": "told no token"}
# It ends where it happens to need some: in its own code, Python's or the C library's.
NO_MEMORY = (
    r"killed by SIG(ABRT|SEGV|BUS)|exited with status [1-9]|out of memory|"
    r"can't start new thread|engine core died"
)


@pytest.mark.parametrize("how", ["stop", "stuck", "poison", "memory"])
def test_who_has_heard_something_is_told_and_the_others_are_answered(
    doomed: Doomed, how: str
) -> None:
    runtime = doomed.engine.runtime
    said = {
        "stop": SILENT,
        "stuck": STUCK.format(MADE[runtime], STUCK_S),
        "poison": POISONED[runtime],
        "memory": NO_MEMORY,
    }[how]
    before = doomed.open_files()
    heard = Heard()
    with doomed.client() as client:
        streams = [
            threading.Thread(target=heard.talk, args=(client,)) for _ in range(STREAMS)
        ]
        asks = [threading.Thread(target=heard.ask, args=(client,)) for _ in range(ASKS)]
        for thread in streams:
            thread.start()
        for _ in streams:
            assert heard.begun.acquire(timeout=PATIENCE_S)
        process = doomed.fail(how)
        for thread in asks:
            thread.start()
        # Only now: while a busy machine starts, or reads, it makes nothing for long.
        if how == "stuck":
            doomed.watch(closely=True)
        for thread in streams:
            thread.join(PATIENCE_S)
        if how == "stuck":
            doomed.watch(closely=False)
        for thread in asks:
            thread.join(PATIENCE_S)
    assert len(heard.told) == STREAMS
    log = [line for line in doomed.server.log if "is gone" in line]
    assert all(re.search(said, one) for one in heard.told), (heard.told, log)
    assert heard.answered == [4] * ASKS
    assert doomed.server.engine_pid() != process
    until(lambda: not in_session(process), "its processes are gone")
    until(lambda: doomed.places() == 0, "its places are free")
    until(lambda: doomed.open_files() == before, "its descriptors are closed")
