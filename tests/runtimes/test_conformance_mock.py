"""The mock keeps the contract that every runtime must keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from atomr_infer.model.deployment import Deployment
from atomr_infer.runtimes.conformance import CHECKS, Check
from atomr_infer.runtimes.conformance_case import ConformanceCase
from atomr_infer.runtimes.contract import RunnerContext
from atomr_infer.runtimes.plugin_check import check_plugin
from atomr_infer.testing.mock import PLUGIN
from atomr_infer.testing.mock_script import MockScript

if TYPE_CHECKING:
    from trio.testing import MockClock


@pytest.mark.parametrize("check", CHECKS, ids=str)
@pytest.mark.parametrize(
    "script",
    [
        MockScript(reply="one two three four five six seven", tokens=50),
        MockScript(reply="slow and lonely", tokens=40, delay_s=1, max_concurrency=1),
    ],
    ids=["instant", "slow"],
)
async def test_mock_conforms(
    check: Check, script: MockScript, autojump_clock: MockClock
) -> None:
    deployment = Deployment(name="m", runtime="mock", options=script.options())

    async with PLUGIN.open_runner(deployment, RunnerContext()) as runner:
        await check(runner, ConformanceCase(model="m"))

        assert runner.active == 0


def test_the_mock_plugin_conforms() -> None:
    check_plugin(PLUGIN, heavy=("hypercorn", "mistralrs", "openai"))
