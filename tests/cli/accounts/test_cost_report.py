"""``atomr-infer cost-report``, against a running ``serve``."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import run_command, start_command
from tests.gateway.http import chat_body, request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = {"ADMIN": "adm-0123456789"}

CONFIG = """\
[gateway]
bind = "127.0.0.1:0"
admin_key = { env = "ADMIN" }
[node]
name = "a"
state_dir = "%s"
[[deployment]]
name = "m"
runtime = "mock"
[deployment.price]
input = 1
output = 1
[[deployment.budget]]
per = "day"
usd = "0.001"
"""


@pytest.mark.slow
async def test_what_was_spent_is_told_and_outlives_the_gateway(
    write: Callable[[str], str], tmp_path: Path
) -> None:
    config = write(CONFIG % (tmp_path / "state"))
    (tmp_path / "state").mkdir()
    for expected in (1, 2):
        async with start_command("serve", "-c", config, **KEY) as command:
            await command.serving()
            to = ("-c", config, "--url", f"http://127.0.0.1:{command.port}")
            body = chat_body(max_tokens=20)
            answer = await request(command.port, "POST", "/v1/chat/completions", body)
            assert answer.status == 200, answer.body

            code, out, err = await run_command("cost-report", *to, "--json", **KEY)
            told = json.loads(out)
            assert (code, err, told["by"], told["nodes"]) == (
                0,
                "",
                "deployment",
                ["a"],
            )
            [line] = told["usage"]
            assert (line["name"], line["requests"]) == ("m", expected)
            tokens = line["input_tokens"] + line["output_tokens"]
            assert line["microusd"] == tokens > 0

            code, out, err = await run_command(
                "cost-report", "--by", "team", *to, **KEY
            )
            head, row = out.splitlines()
            assert (code, err, head.split()[:2]) == (0, "", ["team", "requests"])
            assert row.split()[:2] == ["-", str(expected)]

            # The budget has counted it too, over the restart.
            admin = "Bearer " + KEY["ADMIN"]
            shown = await request(
                command.port, "GET", "/admin/budgets", authorization=admin
            )
            [budget] = shown.json["budgets"]
            assert (budget["owner"], budget["spent"]) == ("deployment m", tokens)
            command.send(signal.SIGTERM)
            assert await command.ended() == 0


async def test_a_spent_budget_is_a_402_that_no_client_repeats(
    write: Callable[[str], str], tmp_path: Path
) -> None:
    config = write(CONFIG % (tmp_path / "state"))
    (tmp_path / "state").mkdir()
    async with start_command("serve", "-c", config, **KEY) as command:
        await command.serving()
        body = chat_body(max_tokens=2_000)
        answer = await request(command.port, "POST", "/v1/chat/completions", body)
        assert answer.status == 402
        error = answer.json["error"]
        assert (error["type"], error["code"]) == (
            "insufficient_quota",
            "budget_exceeded",
        )
        assert "deployment m has a budget of $0.001 per day" in error["message"]
        assert answer.headers["x-should-retry"] == "false"
