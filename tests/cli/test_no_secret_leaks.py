"""No key, and no piece of one, in anything that a whole run writes or answers.

A real ``serve`` with debug logging and every telemetry event shown, before
upstreams that repeat the key in every place where an answer has bytes.
"""

from __future__ import annotations

import json
import signal
import sys
from base64 import b64encode, urlsafe_b64encode
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes

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
    from collections.abc import AsyncIterator, Iterable, Sequence

    from atomr_infer.testing.upstream import FakeUpstream

HERE = Path(__file__).parent / "leaks"

ENV_KEY = "sk-env-Zq7Xw0vB+e/9Lk=R4tYu1"
FILE_KEY = "sk-file-Hn3Mc8pD_a-6Js.W2gFo5"
GATE_KEY = "sk-gate-Pe7Yd4mC^o_5Xb;N8jSl2"
WRONG_KEY = "sk-wrong-Ua2Fk9rB.i~3Zt-M6hDq7"
TOKEN_KEY = "ya29.token-Kx5Vn1wG-e_8Rc,T4bHp9"
CLIENT_SECRET = "GOCSPX-secret-Jy6Qs3dL+u/7Wm=E1fZa8"
CLIENT_KEY = "sk-client-Vb5Tx1rE~i!7Kd:Q3hGz9"
KEYS = (ENV_KEY, FILE_KEY, CLIENT_KEY)
ALL_KEYS = (*KEYS, GATE_KEY, WRONG_KEY, TOKEN_KEY, CLIENT_SECRET)

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
            # A key that rests would not be sent with the next request.
            headers=(
                ("x-request-id", key),
                ("retry-after", "0" if status == 429 else "1"),
            ),
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


_NO_LIST = (
    b"HTTP/1.1 403 X\r\nconnection: close\r\n\r\n"
    + "".join(everywhere(key) for key in KEYS).encode()
)


@attrs.define(eq=False)
class RawPeer:
    """Answers each connection with the next bytes, and closes.

    What asks for the list of models is refused it, and told all keys.
    """

    answers: list[bytes]
    base_url: str = ""
    asked: bytearray = attrs.field(factory=bytearray)

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            asked = await stream.receive_some()
            self.asked += asked
            if not asked.startswith(b"POST "):
                with suppress(trio.BrokenResourceError):  # who wants TLS leaves
                    await stream.send_all(_NO_LIST)
                return
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

    async def ask(self, model: str, *, stream: bool) -> None:
        """Ask for a chat in OpenAI's dialect."""
        body = chat_body(model=model, stream=stream, max_tokens=20)
        await self.post("/v1/chat/completions", body)

    async def ask_natively(self, runtime: str, *, stream: bool) -> None:
        """Ask in the upstream's own dialect, where answers pass by bytes."""
        if runtime == "gemini":
            verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
            body = b'{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}'
            await self.post(f"/v1beta/models/gemini:{verb}", body)
            return
        body = chat_body(model=runtime, stream=stream, max_tokens=20)
        if runtime == "anthropic":
            await self.post("/v1/messages", body)
            return
        body = json.dumps({"model": runtime, "input": "hi", "stream": stream}).encode()
        await self.post("/v1/responses", body)

    async def post(self, path: str, body: bytes) -> None:
        headers = {"x_upstream_key": CLIENT_KEY, "authorization": f"Bearer {GATE_KEY}"}
        await self.send(head("POST", path, len(body), **headers) + body)

    async def get(self, path: str, key: str = GATE_KEY) -> None:
        await self.send(head("GET", path, 0, authorization=f"Bearer {key}"))

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
        env=environment(
            LEAK_KEY=ENV_KEY,
            LEAK_GATE=GATE_KEY,
            LEAK_SECRET=CLIENT_SECRET,
            PYTHONPATH=f"{tmp_path}:{HERE}",
        ),
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


def leaks(text: str, keys: Sequence[str] = ALL_KEYS) -> list[str]:
    """Every piece of 8 characters of a form of a key that the text holds."""
    low = text.lower()
    pieces: set[str] = set()
    for key in keys:
        for form in echoes(key):
            if "*" not in form:
                pieces |= {form.lower()[at : at + 8] for at in range(len(form) - 7)}
    # What base64 makes of "Bearer " and of a prefix alone is no secret.
    known = [b64encode(f"Bearer {key[:3]}".encode()).decode()[:13] for key in keys]
    public = " ".join(known).lower()
    return sorted(p for p in pieces if p in low and p not in public)


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
        if value.removeprefix("Bearer ") in ALL_KEYS
    }


def token_answers() -> list[bytes]:
    """A token endpoint that repeats the client's secret, then gives a token."""
    refusal = json.dumps(
        {"error": CLIENT_SECRET, "error_description": everywhere(CLIENT_SECRET)}
    ).encode()
    token = json.dumps({"access_token": TOKEN_KEY, "expires_in": 3600}).encode()
    return [
        b"HTTP/1.1 401 X\r\ncontent-length: %d\r\n\r\n" % len(refusal) + refusal,
        b"HTTP/1.1 200 X\r\ncontent-length: %d\r\n\r\n" % len(token) + token,
    ]


def oauth2(base_url: str) -> str:
    return (
        f"{{ provider = 'oauth2', token_url = '{base_url}/token', client_id = 'c', "
        "client_secret = { env = 'LEAK_SECRET' } }"
    )


def configuration(file: Path, urls: Sequence[str], raw: str, token: str) -> str:
    credentials = (
        "{ env = 'LEAK_KEY' }",
        f"{{ file = '{file}' }}",
        "{ header = 'x-upstream-key' }",
    )
    parts = ["[gateway]\nkeys = [{ env = 'LEAK_GATE' }]\n"]
    for runtime, credential, url in zip(RUNTIMES, credentials, urls, strict=True):
        parts.append(deployment(runtime, runtime, credential, url))
        parts.append(deployment(f"{runtime}-raw", runtime, credential, raw))
    parts.append(deployment("token", "openai", oauth2(token), urls[0]))
    parts.append("[deployment.placement]\ncheck = 'connect'\n")  # not at the start
    # Nothing listens on port 9, and nothing speaks TLS on the other.
    for name, url in (("refused", "http://127.0.0.1:9"), ("tls", "https" + raw[4:])):
        parts.append(deployment(name, "openai", credentials[0], url))
    for model in ("boom", "die", "dump"):
        text = deployment(model, "leaky", credentials[0])
        parts.append(text.replace(f"model = '{model}-x'", f"model = '{model}'"))
    return "".join(parts)


async def ask_everything(run: Run, count: int) -> None:
    """Meet every answer, in OpenAI's dialect and in the upstream's own."""
    for runtime in RUNTIMES:
        for _ in range(count):
            for stream in (True, False):
                await run.ask(runtime, stream=stream)
                await run.ask_natively(runtime, stream=stream)
        for _ in broken_http(ENV_KEY):
            await run.ask(f"{runtime}-raw", stream=True)
    await run.ask("token", stream=True)
    await trio.sleep(1.1)  # a failed fetch is not repeated at once
    await run.ask("token", stream=True)
    for model in ("refused", "boom", "die", "dump"):
        await run.ask(model, stream=False)
    for path in ("/healthz", "/readyz", "/v1/models", f"/{CLIENT_KEY}"[:3]):
        await run.get(path)
    await run.get("/v1/models", WRONG_KEY)
    await run.get(f"/v1/models?key={quote(WRONG_KEY)}", "")


async def test_a_whole_run_shows_no_piece_of_a_key(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(FILE_KEY)
    scripts = [[*refusals(key), *odd_answers(key)] for key in KEYS]
    count = len(scripts[0])
    # Streamed and whole, in two dialects; then one for the token.
    steps = [[step for step in steps for _ in range(4)] for steps in scripts]
    steps[0].append(refusals(TOKEN_KEY)[1])
    broken = [answer for key in KEYS for answer in broken_http(key)]
    hang = script.HangMidStream(after=1)
    async with (
        open_openai_upstream(steps[0], otherwise=hang) as openai,
        open_anthropic_upstream(steps[1], otherwise=hang) as anthropic,
        open_gemini_upstream(steps[2], otherwise=hang) as gemini,
        open_raw_peer(broken) as raw,
        open_raw_peer(token_answers()) as token,
    ):
        upstreams = (openai, anthropic, gemini)
        urls = (f"{openai.origin}/v1", anthropic.origin, gemini.origin)
        config = configuration(file, urls, raw.base_url, token.base_url)
        async with open_run(tmp_path, config) as run:
            await ask_everything(run, count)
            await interrupt(run)
    assert run.command.process.returncode == 0
    assert sent_keys(upstreams) == {*KEYS, TOKEN_KEY}, "the keys were in play"
    assert CLIENT_SECRET.encode() in unquote_to_bytes(bytes(token.asked))
    everything = run.everything()
    assert leaks(everything) == []
    said = run.command.stderr
    for sign in ("EVENT", "SYS", "NODE", "Traceback", "died with", "broke with", "***"):
        assert sign in said, sign
    assert said.count("internal error") == 1, "the one of the model 'boom'"
    assert run.answers.count(b"HTTP/1.1 ") == 3 * (4 * count + 9) + 13


async def interrupt(run: Run) -> None:
    """Stop the server twice while an answer hangs."""
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            await run.ask("openai", stream=True)

        nursery.start_soon(ask)
        await trio.sleep(0.3)
        run.command.send(signal.SIGINT)
        await run.command.said("running may finish")
        run.command.send(signal.SIGINT)
        assert await run.command.ended() == 0
