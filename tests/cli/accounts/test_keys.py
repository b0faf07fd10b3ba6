"""``atomr-infer keys``, against a running ``serve``."""

from __future__ import annotations

import json
import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import run_command, start_command
from tests.gateway.http import chat_body, request, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = {"ADMIN": "adm-0123456789"}
SECRET = re.compile(r"sk-atomr-[0-9A-Za-z]{49}\n")

CONFIG = """\
[gateway]
bind = "127.0.0.1:0"
admin_key = { env = "ADMIN" }
virtual_keys = true
[[team]]
name = "web"
[[deployment]]
name = "m"
runtime = "mock"
"""
STATE = '[node]\nname = "a"\nstate_dir = "%s"\n'
LOST = (
    "warning: this node has no state_dir under [node]: keys that no other node has "
    "are lost when it ends\n"
)


async def opens(port: int, secret: str) -> bool:
    path, authorization = "/v1/chat/completions", f"Bearer {secret.strip()}"
    answer = await request(port, "POST", path, chat_body(), authorization=authorization)
    return answer.status == 200


@pytest.mark.slow
async def test_keys_are_made_listed_rotated_and_revoked(
    write: Callable[[str], str],
) -> None:
    config = write(CONFIG)
    async with start_command("serve", "-c", config, **KEY) as command:
        await command.serving()
        to = ("-c", config, "--url", f"http://127.0.0.1:{command.port}")

        async def keys(*arguments: str) -> tuple[int, str, str]:
            return await run_command("keys", *arguments, *to, **KEY)

        more = ("--team", "web", "--models", "m, gpt-*", "--expires", "30d")
        code, old, err = await keys("create", "--name", "ci", *more, "--priority", "-3")
        assert (code, SECRET.fullmatch(old) is not None) == (0, True)
        made, warning, in_vain = err.splitlines(keepends=True)
        assert re.fullmatch(
            r"the key 'ci', key_[0-9a-f]{16}, is made; it is shown this once:\n", made
        )
        assert warning == LOST
        assert in_vain == ("warning: no model that is served here is called 'gpt-*'\n")
        assert await opens(command.port, old)

        code, out, err = await keys("list")
        head, line = out.splitlines()
        assert (code, err, head.split()[:3]) == (0, "", ["id", "name", "team"])
        assert line.split()[1:6] == ["ci", "web", "open", "m,gpt-*", "-3"]
        assert line.endswith(f"{old[:13]}...")
        assert re.search(r" \d{4}-\d\d-\d\dT\d\d:\d\dZ ", line)

        code, new, err = await keys("rotate", "ci", "--grace", "0s")
        assert (code, SECRET.fullmatch(new) is not None) == (0, True)
        assert "has another secret; it is shown this once:" in err
        assert [await opens(command.port, each) for each in (old, new)] == [False, True]

        code, out, err = await keys("revoke", "ci")
        assert (code, err) == (0, LOST)
        assert re.fullmatch(r"the key 'ci', key_[0-9a-f]{16}, is revoked\n", out)
        assert not await opens(command.port, new)

        more = ("--rpm", "60", "--budget", "1.50/day", "--budget", "9tokens/hour")
        code, made_json, _ = await keys("create", "--name", "ci", *more, "--json")
        made = json.loads(made_json)["key"]
        assert (code, made["name"]) == (0, "ci")
        assert made["rate_limits"] == {
            "requests_per_minute": 60,
            "on_exceeded": "reject",
        }
        assert made["budgets"] == [
            {"per": "day", "usd": "1.5"},
            {"per": "hour", "tokens": 9},
        ]
        _, out, _ = await keys("list")
        line = next(line for line in out.splitlines() if " open " in line)
        assert " 60 rpm  $1.5/day, 9tokens/hour  " in line

        other = ("--tpm", "100", "--rpm", "none", "--budget", "none", "--models", "x")
        code, out, err = await keys("change", "ci", *other, "--expires", "1d")
        in_vain = "warning: no model that is served here is called 'x'\n"
        assert (code, err) == (0, LOST + in_vain)
        said, _, line = out.splitlines()
        assert re.fullmatch(r"the key 'ci', key_[0-9a-f]{16}, is changed:", said)
        assert " x " in line
        assert "Z  100 tpm  -  " in line
        no = ("--models", "none", "--tpm", "none", "--expires", "none")
        code, out, _ = await keys("change", "ci", *no, "--json")
        changed = json.loads(out)["key"]
        kept = ("models", "rate_limits", "expires_at_s", "budgets")
        assert [changed[name] for name in kept] == [[], None, None, []]
        assert await opens(command.port, json.loads(made_json)["secret"])
        code, _, err = await keys("change", "ci")
        assert (code, "give one of team" in err) == (1, True)
        _, out, _ = await keys("list", "--json")
        states = [key["state"] for key in json.loads(out)["keys"]]
        assert sorted(states) == ["open", "revoked"]


@pytest.mark.slow
async def test_a_key_outlives_a_kill_right_after_it_was_shown(
    write: Callable[[str], str], tmp_path: Path
) -> None:
    config = write(CONFIG + STATE % (tmp_path / "state"))
    async with start_command("serve", "-c", config, **KEY) as command:
        await command.serving()
        to = ("-c", config, "--url", f"http://127.0.0.1:{command.port}")
        _, kept, err = await run_command("keys", "create", "--name", "a", *to, **KEY)
        assert "warning" not in err
        _, gone, _ = await run_command("keys", "create", "--name", "b", *to, **KEY)
        await run_command("keys", "revoke", "b", *to, **KEY)
        command.send(signal.SIGKILL)
        await command.ended()
    async with start_command("serve", "-c", config, **KEY) as command:
        await command.serving()
        assert await opens(command.port, kept)
        assert not await opens(command.port, gone)
        command.send(signal.SIGTERM)
        assert await command.ended() == 0
    assert "Traceback" not in command.stderr


WRONG = [
    (("revoke", "x"), 1, "refuses: there is no virtual key 'x'"),
    (("rotate", "x"), 1, "refuses: there is no virtual key 'x'"),
    (("change", "x", "--rpm", "1"), 1, "refuses: there is no virtual key 'x'"),
    (("change", "x", "--rpm", "many"), 2, "'many' is not a valid integer"),
    (("create", "--name", "a b"), 1, "refuses: name: 'a b' is not a name"),
    (("create", "--name", "a", "--team", "no"), 1, "there is no team 'no'; there"),
    (("create",), 2, "Missing option '--name'"),
    (("create", "--name", "a", "--expires", "soon"), 2, "'soon' is no time such as"),
    (("create", "--name", "a", "--budget", "a lot"), 2, "'a lot' is no amount such"),
    (("create", "--name", "a", "--rpm", "0"), 1, "requests_per_minute: 0 must be at"),
    (("create", "--name", "a", "--budget", "0/day"), 1, "usd: '0' is not above 0"),
]


@pytest.mark.slow
async def test_what_cannot_be_done_is_one_sentence(
    write: Callable[[str], str],
) -> None:
    config = write(CONFIG)
    async with start_command("serve", "-c", config, **KEY) as command:
        await command.serving()
        to = ("-c", config, "--url", f"http://127.0.0.1:{command.port}")
        for arguments, code, problem in WRONG:
            found = await run_command("keys", *arguments, *to, **KEY)
            assert found[:2] == (code, "")
            assert problem in found[2]
            assert "Traceback" not in found[2]


@pytest.mark.parametrize("command", ["create", "list", "change", "rotate", "revoke"])
async def test_the_help_of_each_has_an_example(command: str) -> None:
    code, out, err = await run_command("keys", command, "--help")
    assert (code, err) == (0, "")
    assert f"  atomr-infer keys {command} " in out.partition("Examples:\n")[2]
    assert "--json" in out


@pytest.mark.slow
async def test_sighup_takes_teams_anew(write: Callable[[str], str]) -> None:
    config = write(CONFIG)
    async with start_command("serve", "-c", config, **KEY) as command:
        await command.serving()
        to = ("-c", config, "--url", f"http://127.0.0.1:{command.port}")
        create = ("keys", "create", "--name", "x", "--team", "ops")
        code, _, err = await run_command(*create, *to, **KEY)
        assert (code, "there is no team 'ops'; there are: web" in err) == (1, True)
        write(CONFIG.replace('name = "web"', 'name = "ops"'))
        command.send(signal.SIGHUP)
        await command.said("SIGHUP: + [[team]] 'ops'")
        code, secret, _ = await run_command(*create, *to, **KEY)
        assert code == 0
        assert await opens(command.port, secret)
        write(CONFIG)
        command.send(signal.SIGHUP)
        await until(lambda: command.stderr.count("SIGHUP: + [[team]] 'web'") == 1)
        assert not await opens(command.port, secret), "its limits are not known"
