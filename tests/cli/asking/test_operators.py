"""Commands for operators, against a running ``serve``; and SIGHUP."""

from __future__ import annotations

import json
import os
import re
import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from atomr_infer.cli.asking.operators import find_gateway
from atomr_infer.cli.serving.hangup import Signals, signals_here
from atomr_infer.errors import ConfigError
from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstream import open_openai_upstream
from tests.cli.conftest import run_command, start_command
from tests.gateway.http import chat

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Start

KEY = {"ADMIN": "adm-0123456789"}
SHOWN = {"ATOMR_INFER_ADMIN_KEY": "adm-0123456789"}
ADMIN = 'admin_key = { env = "ADMIN" }'

CONFIG = """\
[gateway]
bind = "127.0.0.1:0"
admin_key = {{ env = "ADMIN" }}
[[deployment]]
name = "house/gpt"
serves = ["gpt"]
runtime = "openai"
credentials = [{{ file = "one" }}, {{ file = "two" }}]
options = {{ endpoint = "{url}" }}
retry = {{ max_attempts = 1 }}
"""


async def test_status_shows_each_deployment_on_a_line(serve: Start) -> None:
    async with serve(gateway=ADMIN, **KEY) as command:
        await command.serving()
        url = f"http://127.0.0.1:{command.port}"
        code, out, err = await run_command("status", "--url", url, **SHOWN)
        assert (code, err) == (0, "")
        node, configuration, _, head, line = out.splitlines()
        assert node.startswith("node ")
        assert node.endswith(": ready")
        assert configuration.startswith("configuration: ")
        assert head.split()[:3] == ["deployment", "runtime", "phase"]
        assert line.split()[:5] == ["m", "mock", "serving", "0", "0"]
        assert line.split()[6:] == ["-", "-"]
        code, out, _ = await run_command("status", "--url", url, "--json", **SHOWN)
        assert code == 0
        assert json.loads(out)["deployments"][0]["name"] == "m"


@pytest.mark.slow
async def test_a_circuit_is_forced_and_keys_are_renewed(
    write: Callable[[str], str], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"sk-{name}")
    refused = script.Refused(status=401, message="no", code="invalid_api_key")
    async with open_openai_upstream([refused, refused]) as upstream:
        config = write(CONFIG.format(url=upstream.base_url))
        async with start_command("serve", "-c", config, **KEY) as command:
            await command.serving()
            to = ("-c", config, "--url", f"http://127.0.0.1:{command.port}")
            assert (await chat(command.port, model="gpt")).status == 502
            ran = await run_command("status", *to, **KEY)
            assert "dead, dead" in ran[1]
            ran = await run_command("rotate-credentials", "house/gpt", *to, **KEY)
            assert ran == (0, "the keys of house/gpt are read anew\n", "")
            assert (await chat(command.port, model="gpt")).status == 200
            code, out, _ = await run_command("breaker", "house/gpt", "open", *to, **KEY)
            assert (code, out.endswith(" is open\n")) == (0, True)
            assert upstream.base_url in out
            assert (await chat(command.port, model="gpt")).status == 503
            code, out, _ = await run_command("breaker", "house/gpt", *to, **KEY)
            shown, step = out.splitlines()
            assert shown.endswith(f"{upstream.base_url} is open (by hand)")
            assert re.fullmatch(r"  \d+ s ago: closed -> open \(forced open\)", step)
            await run_command("breaker", "house/gpt", "close", *to, **KEY)
            assert (await chat(command.port, model="gpt")).status == 200


async def test_sighup_reads_all_keys_anew(
    write: Callable[[str], str], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"sk-{name}")
    refused = script.Refused(status=401, message="no", code="invalid_api_key")
    async with open_openai_upstream([refused, refused]) as upstream:
        config = write(CONFIG.format(url=upstream.base_url))
        async with start_command("serve", "-c", config, **KEY) as command:
            await command.serving()
            for status in (502, 502):
                assert (await chat(command.port, model="gpt")).status == status
            assert len(upstream.requests) == 2
            command.send(signal.SIGHUP)
            await command.said("SIGHUP: the keys are read anew: house/gpt")
            assert (await chat(command.port, model="gpt")).status == 200
            command.send(signal.SIGTERM)
            assert await command.ended() == 0
    assert "Traceback" not in command.stderr


async def test_sighup_under_nohup_does_nothing(serve: Start) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signals_here() == Signals((signal.SIGINT, signal.SIGTERM))
        async with serve() as command:
            await command.serving()
            command.send(signal.SIGHUP)
            assert (await chat(command.port)).status == 200
            command.send(signal.SIGTERM)
            assert await command.ended() == 0
        assert "SIGHUP" not in command.stderr
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_closed_terminal_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    with open(ours, "rb", closefd=True), open(theirs) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        assert signals_here() == Signals((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))


# --- what goes wrong --------------------------------------------------------------


async def test_what_the_gateway_refuses_is_one_sentence(serve: Start) -> None:
    async with serve(gateway=ADMIN, **KEY) as command:
        await command.serving()
        to = ("--url", f"http://127.0.0.1:{command.port}")
        for arguments, problem in (
            (("breaker", "m", "open"), "m asks no endpoint, so it has no circuit"),
            (("breaker", "x", "show"), "there is no deployment 'x'; there are: m"),
            (("breaker", "x", "open"), "there is no deployment 'x'; there are: m"),
            (("rotate-credentials", "x"), "there is no deployment 'x'"),
        ):
            code, out, err = await run_command(*arguments, *to, **SHOWN)
            assert (code, out) == (1, "")
            assert err.startswith("atomr-infer: the gateway at http://127.0.0.1:")
            assert problem in err
            assert len(err.splitlines()) == 1
        code, out, err = await run_command("breaker", "m", *to, **SHOWN)
        assert (code, out) == (1, "")
        assert err == "atomr-infer: m asks no endpoint, so it has no circuit\n"
        wrong = {"ATOMR_INFER_ADMIN_KEY": "sk-not-it"}
        code, _, err = await run_command("status", *to, **wrong)
        assert (code, "shows no key that opens the operators' routes" in err) == (
            1,
            True,
        )
        assert "sk-not-it" not in err


async def test_a_gateway_without_the_routes_is_told_from_none(serve: Start) -> None:
    async with serve() as command:
        await command.serving()
        to = ("--url", f"http://127.0.0.1:{command.port}")
        _, _, err = await run_command("status", *to, **SHOWN)
        assert "it has no operators' routes; name an admin_key" in err
    code, _, err = await run_command("status", *to, **SHOWN)
    assert (code, "does not answer" in err) == (1, True)
    assert "Traceback" not in err


async def _answers(stream: trio.SocketStream) -> None:
    async with stream:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n<ht>")


async def test_what_is_no_gateway_is_said_to_be_none() -> None:
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, _answers, 0, host="127.0.0.1")
        [listener] = await nursery.start(serve)
        port = listener.socket.getsockname()[1]
        _, _, err = await run_command(
            "status", "--url", f"http://127.0.0.1:{port}", **SHOWN
        )
        nursery.cancel_scope.cancel()
    assert err.endswith("is no gateway (HTTP 200)\n")


@pytest.mark.parametrize(
    ("gateway", "url"),
    [
        ('bind = "0.0.0.0:9000"', "http://127.0.0.1:9000"),
        ('bind = "[::]:9000"', "http://[::1]:9000"),
        (
            'bind = "host:9000"\ncertificate = "a"\nprivate_key = "b"',
            "https://host:9000",
        ),
    ],
)
def test_the_file_says_where_the_gateway_is(
    tmp_path: Path, gateway: str, url: str
) -> None:
    path = tmp_path / "atomr.toml"
    path.write_text(f"[gateway]\n{gateway}\n{ADMIN}\n")
    found = find_gateway(config_path=path, url=None, environ=KEY)
    assert (found.url, found.key.reveal()) == (url, KEY["ADMIN"])
    assert KEY["ADMIN"] not in repr(found)


def test_what_is_wrong_elsewhere_in_the_file_hides_no_gateway(tmp_path: Path) -> None:
    path = tmp_path / "atomr.toml"
    path.write_text(f"[gateway]\n{ADMIN}\n[[deployment]]\nnam = 1\n[x]\n")
    found = find_gateway(config_path=path, url=None, environ=KEY)
    assert found.key.reveal() == KEY["ADMIN"]


@pytest.mark.parametrize(
    ("gateway", "problem"),
    [
        ('bind = "0.0.0.0:9000"', "has no admin_key"),
        (f'bind = "127.0.0.1:0"\n{ADMIN}', "give --url"),
        ('admin_key = { env = "NONE" }', "NONE is not set"),
    ],
)
def test_a_file_that_does_not_say_is_named(
    tmp_path: Path, gateway: str, problem: str
) -> None:
    path = tmp_path / "atomr.toml"
    path.write_text(f"[gateway]\n{gateway}\n")
    with pytest.raises(ConfigError, match=problem) as caught:
        find_gateway(config_path=path, url=None, environ=KEY)
    assert str(path) in str(caught.value)
