"""The contract's suite, on a real socket."""

from __future__ import annotations

from typing import Any

import pytest

from atomr_infer.model.deployment import Deployment
from atomr_infer.runtimes.conformance import CHECKS, Check
from atomr_infer.runtimes.conformance_case import ConformanceCase
from atomr_infer.runtimes.plugin_check import check_plugin
from atomr_infer_gemini.plugin import PLUGIN


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_runner_keeps_the_contract(check: Check, over_socket: Any) -> None:
    async with over_socket() as pair:
        await check(pair.runner, ConformanceCase(model="gemini-2.5-flash"))
        assert pair.runner.active == 0


def test_plugin_keeps_the_contract() -> None:
    wanted = Deployment(
        name="up", runtime="gemini", options={"endpoint": "http://127.0.0.1:1"}
    )
    check_plugin(PLUGIN, wanted, heavy={"google.genai", "httpx2", "cryptography"})
