"""A budget is that of all workers of a gateway, through the kill of one."""

from __future__ import annotations

import os
import signal
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import START_S, start_command
from tests.cli.serving.test_workers import workers_of
from tests.gateway.http import chat_body, request, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Command

pytestmark = pytest.mark.slow

LIMIT = Decimal("0.02")

CONFIG = """\
[gateway]
bind = "127.0.0.1:0"
[node]
name = "w"
state_dir = "%s"
[[deployment]]
name = "m"
runtime = "mock"
options = { tokens = 100 }
[deployment.price]
input = 1
output = 1
[[deployment.budget]]
per = "month"
usd = 0.02
"""


async def spend(command: Command, *, most: Decimal, refusals: int) -> Decimal:
    """Ask until so much is spent, or so many were refused; return the cost."""
    spent, refused = Decimal(0), 0
    body = chat_body(max_tokens=100)
    while spent < most and refused < refusals:
        answer = await request(command.port, "POST", "/v1/chat/completions", body)
        if answer.status == 200:
            spent += Decimal(answer.headers["x-atomr-cost-usd"])
        else:
            assert answer.status in (402, 503), answer.body
            refused += 1
    return spent


async def test_two_workers_spend_one_budget_and_a_kill_gives_nothing_back(
    write: Callable[[str], str], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    arguments = ("serve", "-c", write(CONFIG % state), "--workers", "2")
    async with start_command(*arguments) as command:
        await command.serving()
        spent = await spend(command, most=LIMIT / 2, refusals=1)
        os.kill(workers_of(command)[0], signal.SIGKILL)
        await until(lambda: command.stderr.count("m: ready") == 3, within_s=START_S)
        spent += await spend(command, most=LIMIT, refusals=20)
        assert LIMIT * Decimal("0.95") <= spent <= LIMIT
        command.send(signal.SIGTERM)
        assert await command.ended() == 0
