"""The runtime keeps the contract, in the process and behind the bridge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from atomr_infer.bridge import open_bridged_runner
from atomr_infer.runtimes.conformance import CHECKS, Check
from atomr_infer.runtimes.conformance_case import ConformanceCase
from atomr_infer.runtimes.contract import RunnerContext
from atomr_infer.runtimes.plugin_check import check_plugin
from atomr_infer_ort.plugin import PACKAGES, PLUGIN

if TYPE_CHECKING:
    from atomr_infer.model.deployment import Deployment

pytestmark = pytest.mark.engine

REF = "atomr_infer_ort.plugin:PLUGIN"
CASE = ConformanceCase(model="tiny", answer_timeout_s=120.0, leave_timeout_s=30.0)


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_conformance(tiny: Deployment, check: Check) -> None:
    async with PLUGIN.open_runner(tiny, RunnerContext()) as runner:
        await check(runner, CASE)


async def test_conformance_behind_the_bridge(tiny: Deployment) -> None:
    async with open_bridged_runner(REF, tiny, RunnerContext()) as runner:
        for check in CHECKS:
            await check(runner, CASE)


def test_the_plugin_itself_conforms(tiny: Deployment) -> None:
    check_plugin(PLUGIN, tiny, heavy=PACKAGES)
    assert PLUGIN.missing() == ()
