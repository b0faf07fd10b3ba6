"""How vLLM's engine is started, by a vLLM that only has the names."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import attrs
import pytest

from atomr_infer.model.deployment import Deployment
from atomr_infer_vllm.loading import _adapters, start
from atomr_infer_vllm.options import Options, parse_options
from atomr_infer_vllm.steps import Steps


class LoggingStatLogger:
    """As vLLM's: says each step's details, and all figures when it is asked."""

    def __init__(self, vllm_config: object, engine_index: int = 0) -> None:
        self.said: list[str] = []
        self.tokens = 0

    def record(self, scheduler_stats: Any, iteration_stats: int, **_: object) -> None:
        self.tokens += iteration_stats
        self._log_iteration_details(scheduler_stats, 0)

    def _log_iteration_details(self, scheduler_stats: Any, engine_idx: int) -> None:
        self.said.append("a step")

    def log(self) -> None:
        self.said.append(f"{self.tokens} tokens")


@attrs.define
class AsyncLLM:
    """An engine that keeps what it is made of."""

    given: dict[str, Any]

    @classmethod
    def from_vllm_config(cls, config: object, **given: Any) -> AsyncLLM:
        return cls(given)


@pytest.fixture(autouse=True)
def _vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    modules: dict[str, dict[str, object]] = {
        "vllm.usage.usage_lib": {"UsageContext": SimpleNamespace(ENGINE_CONTEXT=1)},
        "vllm.v1.engine.async_llm": {"AsyncLLM": AsyncLLM},
        "vllm.v1.metrics.loggers": {
            "LoggingStatLogger": LoggingStatLogger,
            "StatLoggerBase": object,
        },
    }
    for name, values in modules.items():
        parts = name.split(".")
        for end in range(1, len(parts)):
            parent = ".".join(parts[:end])
            monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)


async def started(steps: Steps, *, logs_requests: bool = False) -> dict[str, Any]:
    config = SimpleNamespace(structured_outputs_config=SimpleNamespace())
    arguments = SimpleNamespace(
        create_engine_config=lambda _: config, enable_log_requests=logs_requests
    )
    deployment = Deployment(
        name="d", runtime="vllm", serves=("m",), options={"weights": "hf:a/b"}
    )
    engine = await start(arguments, parse_options(deployment), steps)
    return cast(AsyncLLM, engine).given


@pytest.mark.parametrize("wanted", [True, False])
async def test_its_requests_are_logged_where_that_is_asked_for(*, wanted: bool) -> None:
    given = await started(Steps(), logs_requests=wanted)
    assert given["enable_log_requests"] is wanted


async def test_its_figures_are_logged_and_its_steps_are_counted() -> None:
    steps = Steps()
    [logger] = (await started(steps))["stat_loggers"]
    its = logger(object(), 0)
    details = SimpleNamespace(num_ctx_tokens=0, num_generation_tokens=2)
    for _ in range(3):
        its.record(SimpleNamespace(iteration_details=details), 2, engine_idx=0)
    its.log()
    assert its.said == ["6 tokens"]
    assert steps.made == 3


def test_an_adapter_s_home_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/cat")
    request = ModuleType("vllm.lora.request")
    vars(request)["LoRARequest"] = lambda *given: given
    monkeypatch.setitem(sys.modules, "vllm.lora", ModuleType("vllm.lora"))
    monkeypatch.setitem(sys.modules, "vllm.lora.request", request)
    options = Options(weights="/m", lora={"cats": "~/cats"})
    assert _adapters(options) == {"cats": ("cats", 1, "/home/cat/cats")}
