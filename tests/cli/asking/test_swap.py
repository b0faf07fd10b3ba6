"""``atomr-infer swap``: begun, followed, and had go back, as a person does it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import run_command, start_command
from tests.gateway.http import chat

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow

SHOWN = {"ATOMR_INFER_ADMIN_KEY": "adm-0123456789"}


def config(reply: str, *, hot_swap: str = "", more: str = "") -> str:
    return f"""\
[gateway]
bind = "127.0.0.1:0"
admin_key = {{ env = "ATOMR_INFER_ADMIN_KEY" }}

[[deployment]]
name = "m"
runtime = "mock"
options = {{ reply = "{reply}"{more} }}

[deployment.hot_swap]
step_s = 0
min_requests = 0
{hot_swap}
"""


def text_of(answer: object) -> str:
    return str(answer.json["choices"][0]["message"]["content"])  # type: ignore[attr-defined]


async def test_what_the_file_says_takes_over_and_what_fails_does_not(
    write: Callable[[str], str],
) -> None:
    path = write(config("old"))
    async with start_command("serve", "--config", path, **SHOWN) as command:
        await command.serving()
        url = ("--config", path, "--url", f"http://127.0.0.1:{command.port}")
        code, out, err = await run_command("swap", "m", "show", *url, **SHOWN)
        assert (code, out) == (1, "")
        assert "'m' was never swapped" in err
        code, out, err = await run_command("swap", "m", *url, **SHOWN)
        assert (code, out) == (1, "")
        assert "m is served so already" in err

        write(config("new"))
        code, out, err = await run_command("swap", "m", *url, **SHOWN)
        assert (code, err) == (0, "")
        told = out.splitlines()
        assert told[-1] == "m: swapped"
        assert len(told) == len(set(told))
        assert text_of(await chat(command.port, model="m")) == "new"

        write(config("broken", more=", fail_after = 0"))
        code, out, err = await run_command("swap", "m", "--json", *url, **SHOWN)
        assert (code, err) == (1, "")
        found = json.loads(out)
        assert (found["phase"], found["share"]) == ("rolled back", 0.0)
        assert found["reason"].startswith("UpstreamError: ")
        assert text_of(await chat(command.port, model="m")) == "new"

        write(
            config("newer", hot_swap="steps = [0.5]\npatience_s = 600").replace(
                "step_s = 0", "step_s = 600"
            )
        )
        ran = await run_command("swap", "m", "--no-wait", *url, **SHOWN)
        assert ran == (0, "m: loading\n", "")
        code, out, err = await run_command("swap", "m", "cancel", *url, **SHOWN)
        assert (code, err) == (0, "")
        assert out.splitlines()[-1] == "m: rolled back: it was cancelled"
        assert text_of(await chat(command.port, model="m")) == "new"
    assert "Traceback" not in command.stderr


async def test_it_needs_a_file_and_a_gateway(write: Callable[[str], str]) -> None:
    code, _, err = await run_command("swap", "m", **SHOWN)
    assert (code, err) == (
        1,
        "atomr-infer: what it shall become is in a file: --config FILE\n",
    )
    path = write(config("new"))
    asked = ("--config", path, "--url", "http://127.0.0.1:9")
    code, _, err = await run_command("swap", "m", *asked, **SHOWN)
    assert code == 1
    assert "does not answer" in err
