"""No text of a client's or an upstream's begins a line of what ``serve`` writes."""

from __future__ import annotations

import json
import logging
import re
import signal
from typing import TYPE_CHECKING, Any

import pytest

from atomr_infer.cli.output.lines import below, one_line
from atomr_infer.cli.output.logs import _Formatter
from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstream import open_openai_upstream
from tests.cli.conftest import start_command
from tests.gateway.http import chat, request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FORGED = "23:59:59 INFO    atomr_infer.forged: all is well"
BREAKS = ("\n", "\r", "\r\n", "\x85", "\u2028", "\u2029", "\x0b", "\x0c", "\x1b[1E")

# What stands at the left edge of the log, and no more than that.
BEGINS = re.compile(
    r"\d\d:\d\d:\d\d (DEBUG  |INFO   |WARNING|ERROR  ) (?!atomr_infer\.forged)\S+: "
    r"|atomr-infer: |    |(m|b|e|odd): ready$"
)

KEY = "an-admin-key-of-its-own"

# An engine, as those are that repeat the prompt in what they complain of.
ENGINE = """
from contextlib import asynccontextmanager

from atomr_infer.errors import UpstreamError
from atomr_infer.testing.mock import MockPlugin, MockRunner
from atomr_infer.testing.mock_script import MockScript

class Runner(MockRunner):
    @asynccontextmanager
    async def execute(self, batch):
        text = batch.messages[-1].text
        raise UpstreamError(text) if batch.model == "typed" else RuntimeError(text)
        yield

class Plugin(MockPlugin):
    name = "repeats"

    @asynccontextmanager
    async def open_runner(self, deployment, context):
        yield Runner(MockScript())

PLUGIN = Plugin()
"""


def install(folder: Path) -> None:
    info = folder / "repeats-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: repeats\nVersion: 1\n")
    points = "[atomr_infer.runtimes]\nrepeats = repeats_plugin:PLUGIN\n"
    (info / "entry_points.txt").write_text(points)
    (folder / "repeats_plugin.py").write_text(ENGINE)


def configuration(url: str) -> str:
    options = f'[deployment.options]\nendpoint = "{url}"\n'
    retry = "[deployment.retry]\nmax_attempts = 1\n[deployment.breaker]\n"
    retry += "max_failures = 0\n"
    return (
        '[gateway]\nbind = "127.0.0.1:0"\nadmin_key = { env = "ADMIN" }\n'
        "virtual_keys = true\n"
        'keys = [{ env = "GATE" }]\n'
        '[[deployment]]\nname = "m"\nruntime = "openai"\nmodel = "x"\n'
        f'credential = {{ env = "KEY" }}\nfallbacks = ["b"]\n{retry}{options}'
        '[[deployment]]\nname = "b"\nruntime = "mock"\n'
        '[[deployment]]\nname = "e"\nruntime = "repeats"\nfallbacks = ["b"]\n'
        'serves = ["typed", "untyped"]\n'
        '[[deployment]]\nname = "odd"\nruntime = "mock"\nserves = ["odd-*"]\n'
    )


def answers(text: str) -> list[script.Behaviour]:
    """What an upstream says where its words may be told."""
    body = json.dumps({"error": {"message": text, "type": text, "code": text}})
    return [
        script.Refused(status=429, message=text, code=text),
        script.Refused(status=500, message=text, code=text, type=text, param=text),
        script.Refused(status=401, message=text, code=text),
        script.Refused(status=400, message=text, code=text, param=text),
        script.RawAnswer(status=503, body=f"<html>{text}</html>".encode()),
        script.RawAnswer(
            status=404, content_type="application/json", body=body.encode()
        ),
        script.ErrorInStream(after=0, error=script.Refused(status=500, message=text)),
        script.ErrorInStream(
            after=1, error=script.Refused(status=500, message=text, code=text)
        ),
        script.Happy(native_finish=text, model=text),
        script.ToolCall(name=text, id=text),
    ]


async def ask_everything(port: int, text: str, count: int) -> None:
    """Have every answer, and send text in each place that a client can fill."""
    key: dict[str, Any] = {"authorization": "Bearer the-gateways-own-key"}

    async def ask(**members: Any) -> int:
        messages = [{"role": "user", "content": "one two three"}]
        body = json.dumps({"model": "m", "messages": messages, **members}).encode()
        path = "/v1/chat/completions"
        return (await request(port, "POST", path, body, **key)).status

    for stream in (False, True):
        for _ in range(count):
            await ask(stream=stream)
    said = [{"role": "user", "content": text}]
    for model in ("typed", "untyped"):
        await ask(model=model, messages=said)
    tool = {"type": "function", "function": {"name": text, "parameters": {}}}
    assert await ask(model=text) == 400
    assert await ask(model=f"odd-{text}") == 400
    await ask(model="b", tools=[tool], tool_choice="required")
    await ask(model="b", user=text, metadata={"a": text}, seed=text)
    await ask(model="b", response_format={"type": text})
    path = "/v1/nowhere/23:59:59%20INFO%0D%0A"
    await request(port, "GET", path, **key)
    safe = text.replace("\r", "").replace("\n", "")  # a head that can be sent at all
    await request(port, "GET", "/v1/models", **{**key, "x_request_id": safe})
    admin: dict[str, Any] = {"authorization": f"Bearer {KEY}"}
    short = f"x\n{FORGED}"
    named: list[tuple[dict[str, Any], int]] = [
        ({"name": short}, 400),
        ({"name": "k", "team": short}, 400),
        ({"name": "l", "models": [short]}, 201),
    ]
    for members, status in named:
        body = json.dumps(members).encode()
        made = await request(port, "POST", "/admin/keys", body, **admin)
        assert made.status == status, made.body
    assert (await chat(port, model="b")).status == 401


@pytest.mark.parametrize("level", ["info", "debug"])
async def test_what_clients_and_upstreams_send_begins_no_line_of_the_log(
    write: Callable[[str], str], tmp_path: Path, level: str
) -> None:
    text = "".join(f"x{each}{FORGED}" for each in BREAKS)
    said = answers(text)
    install(tmp_path)
    async with open_openai_upstream([*said, *said]) as upstream:
        path = write(configuration(f"{upstream.origin}/v1"))
        async with start_command(
            *("serve", "--config", path, "--log-level", level),
            ADMIN=KEY,
            GATE="the-gateways-own-key",
            KEY="sk-upstream",
            PYTHONPATH=str(tmp_path),
        ) as command:
            await command.serving()
            await ask_everything(command.port, text, len(said))
            command.send(signal.SIGINT)
            await command.ended()
    lines = re.split("[\n\r\x0b\x0c\x85\u2028\u2029]", command.stderr)
    assert [each for each in lines if each and not BEGINS.match(each)] == []
    assert "\x1b" not in command.stderr
    # The words are told, in a line of ours.
    assert sum(FORGED in each for each in lines) > 3


def formatted(name: str, message: str, *, error: Exception | None = None) -> str:
    info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord(name, logging.INFO, "", 0, message, (), info)
    return _Formatter("").format(record).partition(" ")[2]


@pytest.mark.parametrize("character", BREAKS)
def test_a_character_that_moves_a_cursor_is_shown_as_python_writes_it(
    character: str,
) -> None:
    shown = character.encode("unicode_escape").decode()
    assert one_line(f"a{character}b") == f"a{shown}b"
    told = formatted("atomr_infer.x", f"a{character}b")
    assert told == f"INFO    atomr_infer.x: a{shown}b"


def test_words_of_any_language_and_their_spaces_stay() -> None:
    text = "Grüße\t\u3000日本語\xa0\u2009🙂"
    assert one_line(text) == text


def test_what_a_traceback_repeats_stands_below_its_event() -> None:
    error = ValueError(f"a\n{FORGED}\rb")
    told = formatted("atomr_infer.x", "it broke", error=error)
    assert told.split("\n") == [
        "INFO    atomr_infer.x: it broke",
        "    ValueError: a",
        f"    {FORGED}\\rb",
    ]


def test_a_report_of_the_runtime_keeps_its_lines_below_the_first() -> None:
    told = formatted("atomr", "process crashed\nstate: a\rb")
    assert told == "INFO    atomr: process crashed\n    state: a\\rb"
    assert formatted("atomr_infer", "a\nb") == "INFO    atomr_infer: a\\nb"
    assert below("one") == "one"


async def test_what_a_gateway_says_begins_no_line_of_a_command() -> None:
    text = f"x\r\n{FORGED}\x1b[2K"
    body = json.dumps({"error": {"message": text, "type": "t", "code": "c"}})
    refused = script.RawAnswer(
        status=409, content_type="application/json", body=body.encode()
    )
    async with open_openai_upstream([], otherwise=refused) as gateway:
        arguments = ("status", "--url", gateway.origin)
        async with start_command(*arguments, ATOMR_INFER_ADMIN_KEY=KEY) as command:
            assert await command.ended() == 1
    assert command.stderr.count("\n") == 1
    assert "\x1b" not in command.stderr
