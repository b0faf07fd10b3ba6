"""No key, and no piece of one, in anything that a whole run writes or answers.

A real ``serve`` with debug logging and every telemetry event shown, before
upstreams that repeat the key in every place where an answer has bytes.
"""

from __future__ import annotations

import json
import signal
import sys
from base64 import b64encode, urlsafe_b64encode
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import attrs
import trio

from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstream import (
    open_anthropic_upstream,
    open_gemini_upstream,
    open_openai_upstream,
)
from tests.cli.conftest import Command, environment
from tests.gateway.http import chat_body, head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from atomr_infer.testing.upstream import FakeUpstream

HERE = Path(__file__).parent / "leaks"

ENV_KEY = "sk-env-Zq7Xw0vB+e/9Lk=R4tYu1"
FILE_KEY = "sk-file-Hn3Mc8pD_a-6Js.W2gFo5"
CLIENT_KEY = "sk-client-Vb5Tx1rE~i!7Kd:Q3hGz9"
KEYS = (ENV_KEY, FILE_KEY, CLIENT_KEY)

RUNTIMES = ("openai", "anthropic", "gemini")


# --- what an upstream does with a key ----------------------------------------


def masked(key: str) -> str:
    """As OpenAI shows a key that it refuses."""
    return f"{key[:10]}{'*' * 20}{key[-4:]}"


def echoes(key: str) -> list[str]:
    """The forms in which an upstream repeats a key."""
    bearer = f"Bearer {key}".encode()
    return [
        key,
        masked(key),
        key.upper(),
        quote(key, safe=""),
        key.encode().hex(),
        b64encode(key.encode()).decode(),
        b64encode(bearer).decode(),
        urlsafe_b64encode(f":{key}".encode()).decode(),
    ]


def everywhere(key: str) -> str:
    return " | ".join(echoes(key))


def refusals(key: str) -> list[script.Behaviour]:
    """Every refusal, with the key wherever the dialect has a word."""
    return [
        script.Refused(
            status=status,
            message=f"no: {everywhere(key)}",
            code=key,
            param=key,
            type=masked(key),
            headers=(("x-request-id", key), ("retry-after", "1")),
        )
        for status in (400, 401, 402, 403, 404, 413, 422, 429, 500, 503, 529)
    ]


def odd_answers(key: str) -> list[script.Behaviour]:
    text = everywhere(key)
    event = json.dumps({"error": {"message": text, "code": key, "type": key}}).encode()
    stream = "text/event-stream"
    return [
        script.RawAnswer(body=text.encode()),
        script.RawAnswer(status=502, body=text.encode()),
        script.RawAnswer(status=302, content_type=key, body=text.encode()),
        script.RawAnswer(content_type=key, body=b"{}"),
        script.RawAnswer(content_type="application/json", body=text.encode()),
        script.RawAnswer(content_type="application/json", body=event),
        script.RawAnswer(content_type=stream, body=f"data: {text}\n\n".encode()),
        script.RawAnswer(
            content_type=stream, body=b"event: " + key.encode() + b"\ndata: x\n\n"
        ),
        script.ErrorInStream(after=0, data=event),
        script.ErrorInStream(after=2, data=event),
        script.CutMidStream(after=2),
    ]


def broken_http(key: str) -> list[bytes]:
    """Answers that are no HTTP, with the key where the parser trips."""
    raw = key.encode()
    return [
        raw + b"\r\n\r\n",
        b"HTTP/1.1 " + raw + b" X\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + raw + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx-" + raw + b": \x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: " + raw + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: " + raw + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + raw + b"\r\n",
        b"HTTP/1.1 401 " + raw + b"\r\ncontent-length: 9999\r\n\r\n" + raw,
        b"",
    ]


@attrs.define(eq=False)
class RawPeer:
    """Answers each connection with the next bytes, and closes."""

    answers: list[bytes]
    base_url: str = ""
    asked: bytearray = attrs.field(factory=bytearray)

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            self.asked += await stream.receive_some()
            await stream.send_all(self.answers.pop(0))
            await stream.send_eof()
            # Until the client has left: a reset could take the answer away.
            async for piece in stream:
                self.asked += piece


@asynccontextmanager
async def open_raw_peer(answers: list[bytes]) -> AsyncIterator[RawPeer]:
    peer = RawPeer(answers)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    peer.base_url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, peer.serve, listeners)
        yield peer
        nursery.cancel_scope.cancel()


# --- the run ------------------------------------------------------------------


@attrs.define(eq=False)
class Run:
    """A running server, and everything that its clients got of it."""

    command: Command
    answers: bytearray = attrs.field(factory=bytearray)

    async def ask(self, model: str, *, stream: bool, **headers: str) -> None:
        body = chat_body(model=model, stream=stream, max_tokens=20)
        await self.send(
            head("POST", "/v1/chat/completions", len(body), **headers) + body
        )

    async def get(self, path: str) -> None:
        await self.send(head("GET", path, 0))

    async def send(self, request: bytes) -> None:
        with trio.fail_after(30):
            stream = await trio.open_tcp_stream("127.0.0.1", self.command.port)
            async with stream:
                await stream.send_all(request)
                async for piece in stream:
                    self.answers += piece

    def everything(self) -> str:
        return self.command.stdout + self.command.stderr + self.answers.decode("latin1")


def deployment(name: str, runtime: str, credential: str, endpoint: str = "") -> str:
    options = f"options = {{ endpoint = '{endpoint}' }}\n" if endpoint else ""
    return (
        f"[[deployment]]\nname = '{name}'\nserves = ['{name}']\n"
        f"runtime = '{runtime}'\nmodel = '{name.partition('-')[0]}-x'\n"
        f"credential = {credential}\n{options}"
        "retry = { max_attempts = 1 }\nbreaker = { max_failures = 0 }\n"
        "timeouts = { first_token_s = 5.0 }\n"
    )


@asynccontextmanager
async def open_run(tmp_path: Path, config: str) -> AsyncIterator[Run]:
    info = tmp_path / "leaky-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: leaky\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[atomr_infer.runtimes]\nleaky = leaky:PLUGIN\n"
    )
    path = tmp_path / "atomr.toml"
    path.write_text(config)
    arguments = ["serve", "-c", str(path), "--bind", "127.0.0.1:0"]
    process = await trio.lowlevel.open_process(
        [sys.executable, str(HERE / "launcher.py"), *arguments, "--log-level", "debug"],
        stdout=-1,
        stderr=-1,
        env=environment(LEAK_KEY=ENV_KEY, PYTHONPATH=f"{tmp_path}:{HERE}"),
    )
    command = Command(process)
    assert process.stdout is not None
    assert process.stderr is not None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(command.read, process.stdout, command.out)
        nursery.start_soon(command.read, process.stderr, command.err)
        try:
            await command.serving()
            yield Run(command)
        finally:
            with trio.CancelScope(shield=True):
                if process.returncode is None:
                    process.kill()
                await process.wait()


def leaks(text: str, keys: Iterable[str] = KEYS) -> list[str]:
    """Every piece of 8 characters of a form of a key that the text holds."""
    low = text.lower()
    pieces: set[str] = set()
    for key in keys:
        for form in echoes(key):
            if "*" not in form:
                pieces |= {form.lower()[at : at + 8] for at in range(len(form) - 7)}
    # What base64 makes of "Bearer " and of the prefix alone is no secret.
    known = b64encode(b"Bearer sk-").decode().lower()[:13]
    return sorted(p for p in pieces if p in low and p not in known)


def test_the_search_finds_every_form() -> None:
    for form in (*echoes(ENV_KEY), masked(ENV_KEY), ENV_KEY[5:13]):
        assert leaks(f"so: {form}!", [ENV_KEY]), form
    assert leaks("Authorization: Bearer sk-") == []


def sent_keys(upstreams: Iterable[FakeUpstream]) -> set[str]:
    return {
        value.removeprefix("Bearer ")
        for upstream in upstreams
        for request in upstream.requests
        for value in request.headers.values()
        if value.removeprefix("Bearer ") in KEYS
    }


async def test_a_whole_run_shows_no_piece_of_a_key(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(FILE_KEY)
    credentials = {
        ENV_KEY: "{ env = 'LEAK_KEY' }",
        FILE_KEY: f"{{ file = '{file}' }}",
        CLIENT_KEY: "{ header = 'x-upstream-key' }",
    }
    by_runtime = dict(zip(RUNTIMES, KEYS, strict=True))
    scripts = {key: [*refusals(key), *odd_answers(key)] for key in KEYS}
    count = len(scripts[ENV_KEY])
    twice = {
        key: [step for step in steps for _ in "sw"] for key, steps in scripts.items()
    }
    broken = [answer for key in KEYS for answer in broken_http(key)]
    hang = script.HangMidStream(after=1)
    async with (
        open_openai_upstream(twice[ENV_KEY], otherwise=hang) as openai,
        open_anthropic_upstream(twice[FILE_KEY], otherwise=hang) as anthropic,
        open_gemini_upstream(twice[CLIENT_KEY], otherwise=hang) as gemini,
        open_raw_peer(broken) as raw,
    ):
        upstreams = (openai, anthropic, gemini)
        urls = [upstream.origin for upstream in upstreams]
        urls[0] += "/v1"
        config = "".join(
            deployment(runtime, runtime, credentials[key], url)
            + deployment(f"{runtime}-raw", runtime, credentials[key], raw.base_url)
            for (runtime, key), url in zip(by_runtime.items(), urls, strict=True)
        )
        for model in ("boom", "die", "dump"):
            config += deployment(model, "leaky", credentials[ENV_KEY]).replace(
                f"model = '{model}-x'", f"model = '{model}'"
            )
        async with open_run(tmp_path, config) as run:
            key_header = {"x_upstream_key": CLIENT_KEY}
            for runtime in RUNTIMES:
                for _ in range(count):
                    await run.ask(runtime, stream=True, **key_header)
                    await run.ask(runtime, stream=False, **key_header)
                for _ in broken_http(ENV_KEY):
                    await run.ask(f"{runtime}-raw", stream=True, **key_header)
            for model in ("boom", "die", "dump"):
                await run.ask(model, stream=False)
            for path in ("/healthz", "/readyz", "/v1/models", f"/{CLIENT_KEY[:2]}"):
                await run.get(path)
            await interrupt(run, key_header)
    assert run.command.process.returncode == 0
    assert sent_keys(upstreams) == set(KEYS), "the keys were in play"
    everything = run.everything()
    assert leaks(everything) == []
    said = run.command.stderr
    for sign in ("EVENT", "SYS", "NODE", "Traceback", "died with", "broke with", "***"):
        assert sign in said, sign
    assert said.count("internal error") == 1, "the one of the model 'boom'"
    assert run.answers.count(b"HTTP/1.1 ") == 3 * (2 * count + 9) + 8


async def interrupt(run: Run, headers: dict[str, str]) -> None:
    """Stop the server twice while an answer hangs."""
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            await run.ask("openai", stream=True, **headers)

        nursery.start_soon(ask)
        await trio.sleep(0.3)
        run.command.send(signal.SIGINT)
        await run.command.said("running may finish")
        run.command.send(signal.SIGINT)
        assert await run.command.ended() == 0
