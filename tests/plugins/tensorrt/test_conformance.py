"""The runtime keeps the contract, with plans on a device in the machine's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from atomr_infer.model.deployment import Deployment
from atomr_infer.runtimes.conformance import CHECKS, Check
from atomr_infer.runtimes.conformance_case import ConformanceCase
from atomr_infer.runtimes.plugin_check import check_plugin
from atomr_infer_tensorrt.plugin import PACKAGES, PLUGIN

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugins.tensorrt.conftest import Opener

CASE = ConformanceCase(model="tiny", answer_timeout_s=120.0, leave_timeout_s=30.0)


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_conformance(opened: Opener, llama_folder: Path, check: Check) -> None:
    async with opened(llama_folder) as runner:
        await check(runner, CASE)


def test_the_plugin_itself_conforms(llama_folder: Path) -> None:
    deployment = Deployment(name="m", runtime="tensorrt", model=str(llama_folder))
    check_plugin(PLUGIN, deployment, heavy=(*PACKAGES, "tensorrt", "tensorrt_rtx"))
