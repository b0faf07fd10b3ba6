"""``reload``, ``drain``, ``deployments``, ``check``, and a watched file."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest
import trio
from click.testing import CliRunner

from atomr_infer.cli.check import check
from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstream import open_openai_upstream
from tests.cli.conftest import mock_config, run_command, start_command
from tests.gateway.http import Answer, chat, request, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Start

KEY = {"ADMIN": "adm-0123456789"}
SHOWN = {"ATOMR_INFER_ADMIN_KEY": "adm-0123456789"}
ADMIN = 'admin_key = { env = "ADMIN" }'
WATCHED = f"{ADMIN}\nwatch = true"
MORE = '[[deployment]]\nname = "n"\nruntime = "mock"\n'
PROXIED = """\
[[deployment]]
name = "m"
runtime = "openai"
options = {{ endpoint = "{url}" }}
"""


@pytest.mark.slow
async def test_sighup_and_the_command_are_one(
    write: Callable[[str], str], serve: Start
) -> None:
    async with serve(gateway=ADMIN, **KEY) as command:
        await command.serving()
        path = write(mock_config(gateway=ADMIN) + MORE)
        command.send(signal.SIGHUP)
        await command.said("SIGHUP: + deployment 'n' (mock)")
        assert (await chat(command.port, model="n")).status == 200
        write(mock_config(gateway=ADMIN))
        url = ("--url", f"http://127.0.0.1:{command.port}")
        ran = await run_command("reload", "--dry-run", *url, **SHOWN)
        assert ran == (0, "- deployment 'n'\n", "")
        assert (await chat(command.port, model="n")).status == 200
        ran = await run_command("reload", *url, **SHOWN)
        assert ran == (0, "- deployment 'n'\n", "")
        assert (await chat(command.port, model="n")).status == 404
        code, out, _ = await run_command("reload", "--json", *url, **SHOWN)
        assert code == 0
        assert json.loads(out) == {
            "dry_run": False,
            "taken": True,
            "reason": None,
            "differences": [],
            "notes": [],
        }
        write("[[deployment]\n")
        code, _, err = await run_command("reload", *url, **SHOWN)
        assert code == 1
        assert f"the configuration is not taken: {path}:1: not valid TOML" in err
        code, out, _ = await run_command("status", *url, **SHOWN)
        assert code == 0
        assert "configuration: refused since " in out
        assert f"{path}:1: not valid TOML" in out
        command.send(signal.SIGTERM)
        assert await command.ended() == 0
    assert "Traceback" not in command.stderr


@pytest.mark.slow
async def test_a_watched_file_is_taken_when_it_is_whole(
    write: Callable[[str], str], serve: Start, tmp_path: Path
) -> None:
    async with serve(gateway=WATCHED, **KEY) as command:
        await command.serving()
        whole = mock_config(gateway=WATCHED) + MORE
        path = tmp_path / "atomr.toml"
        other = tmp_path / "atomr.toml.new"
        other.write_text(whole)
        other.replace(path)  # as an editor does
        await command.said("the file has changed: + deployment 'n' (mock)")
        assert (await chat(command.port, model="n")).status == 200
        path.write_text("")
        await command.said("the configuration is not taken: ")
        assert (await chat(command.port, model="n")).status == 200
        path.unlink()
        await command.said("there is no such file")
        write(mock_config(gateway=ADMIN))
        await command.said("the file has changed: - deployment 'n'")
        assert (await chat(command.port, model="m")).status == 200
        command.send(signal.SIGTERM)
        assert await command.ended() == 0
    assert command.stderr.count("is not taken") == 2
    assert "Traceback" not in command.stderr


@pytest.mark.slow
async def test_an_endpoint_is_another_one_while_streams_run(
    write: Callable[[str], str],
) -> None:
    slow = script.Happy(text="one two three four", delay_s=0.5)
    async with (
        open_openai_upstream([slow]) as old,
        open_openai_upstream() as new,
    ):
        config = write(f"[gateway]\n{ADMIN}\n" + PROXIED.format(url=old.base_url))
        bind = ("--bind", "127.0.0.1:0")
        async with start_command("serve", "-c", config, *bind, **KEY) as command:
            await command.serving()
            answers: list[Answer] = []

            async def ask() -> None:
                answers.append(await chat(command.port, stream=True))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await until(lambda: len(old.requests) == 1)
                write(f"[gateway]\n{ADMIN}\n" + PROXIED.format(url=new.base_url))
                command.send(signal.SIGHUP)
                await command.said("options.endpoint: ")
                assert (await chat(command.port)).status == 200
                assert (len(old.requests), len(new.requests)) == (1, 1)
                assert not answers
            assert [answer.status for answer in answers] == [200]
            assert answers[0].body.endswith(b"data: [DONE]\n\n")


@pytest.mark.slow
async def test_a_drained_gateway_says_so_and_can_take_requests_again(
    serve: Start,
) -> None:
    gateway = f"{ADMIN}\ndrain_grace_s = 0.2\ndrain_timeout_s = 20"
    async with serve("delay_s = 0.3\ntokens = 5", gateway=gateway, **KEY) as command:
        await command.serving()
        url = ("--url", f"http://127.0.0.1:{command.port}")
        answers: list[Answer] = []

        async def ask() -> None:
            answers.append(await chat(command.port, stream=True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            code, out, _ = await run_command("drain", *url, **SHOWN)
            assert code == 0
            assert out.startswith("not ready any more; requests are taken for 0.2 s ")
            ready = await request(command.port, "GET", "/readyz")
            assert (ready.status, ready.json["draining"]) == (503, True)
        assert [answer.status for answer in answers] == [200]
        await command.said("requests are answered with 503")
        refused = await chat(command.port)
        assert refused.status == 503
        assert refused.json["error"]["message"].startswith("this node is draining")
        assert (await request(command.port, "GET", "/healthz")).status == 200
        _, out, _ = await run_command("status", *url, **SHOWN)
        assert ": draining; 0 requests run" in out
        ran = await run_command("drain", "--undo", *url, **SHOWN)
        assert ran == (0, "requests are taken again\n", "")
        assert (await chat(command.port)).status == 200
        code, _, err = await run_command("drain", "--undo", *url, **SHOWN)
        assert (code, "this node does not drain" in err) == (1, True)
        await run_command("drain", *url, **SHOWN)
        command.send(signal.SIGTERM)
        assert await command.ended() == 0


async def test_deployments_are_listed_and_shown(serve: Start) -> None:
    async with serve(gateway=ADMIN, **KEY) as command:
        await command.serving()
        url = ("--url", f"http://127.0.0.1:{command.port}")
        code, out, _ = await run_command("deployments", *url, **SHOWN)
        assert code == 0
        assert [line.split()[0] for line in out.splitlines()] == ["deployment", "m"]
        code, out, _ = await run_command("deployments", "m", "--json", *url, **SHOWN)
        assert (code, json.loads(out)["serves"]) == (0, ["m"])
        code, _, err = await run_command("deployments", "x", *url, **SHOWN)
        assert code == 1
        assert "there is no deployment 'x'; there are: m" in err


async def test_check_says_whether_a_file_can_work(
    write: Callable[[str], str],
) -> None:
    path = write(mock_config())
    ran = await run_command("check", "-c", path)
    assert ran == (0, f"m: mock\n{path} can be served\n", "")
    path = write(mock_config(gateway=ADMIN))
    code, _, err = await run_command("check", "-c", path)
    assert code == 1
    assert err.startswith(f"atomr-infer: {path}:2: ")


def test_check_says_it_in_json(write: Callable[[str], str]) -> None:
    path = write(mock_config())
    found = CliRunner().invoke(check, ["-c", path, "--json"])
    assert found.exit_code == 0
    assert json.loads(found.stdout) == {
        "ok": True,
        "source": path,
        "deployments": [["m", "mock"]],
        "notices": [],
    }
    files = 'certificate = "a.pem"\nprivate_key = "b.pem"'
    path = write(mock_config(gateway=files))
    found = CliRunner().invoke(check, ["-c", path, "--json"])
    assert (found.exit_code, found.stderr) == (1, "")
    told = json.loads(found.stdout)
    assert (told["ok"], told["error"]["line"]) == (False, 2)
    assert CliRunner().invoke(check, ["--nonsense"]).exit_code == 2
