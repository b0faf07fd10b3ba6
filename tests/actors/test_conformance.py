"""The runners of actors keep what every runner promises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from atomr_infer.actors import deployment_of
from atomr_infer.runtimes.conformance import CHECKS, Check
from atomr_infer.runtimes.conformance_case import ConformanceCase
from atomr_infer.runtimes.contract import RunnerContext
from atomr_infer.runtimes.plugin_check import check_plugin
from atomr_infer_python import actor_plugin, plugin
from tests.actors.own import Counting, count

if TYPE_CHECKING:
    from atomr_infer.runtimes.contract import RuntimePlugin


@pytest.mark.parametrize("check", CHECKS, ids=str)
@pytest.mark.parametrize(
    ("code", "runtime"),
    [(count, actor_plugin.PLUGIN), (Counting, plugin.PLUGIN)],
    ids=["inference", "gpu"],
)
async def test_conformance(check: Check, code: Any, runtime: RuntimePlugin) -> None:
    long = " ".join(f"w{number}" for number in range(40))
    case = ConformanceCase(model="m", prompt=long)
    deployment = deployment_of(code, "m")
    async with runtime.open_runner(deployment, RunnerContext()) as runner:
        await check(runner, case)
        assert runner.active == 0


def test_the_plugin_conforms() -> None:
    check_plugin(actor_plugin.PLUGIN, deployment_of(count, "m"))
