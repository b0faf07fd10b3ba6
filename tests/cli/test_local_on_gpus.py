"""What ``serve --local`` says of a GPU that the embedded model is not run on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from atomr_infer.cli import plan as planning
from atomr_infer.cli.plan import plan_serving
from atomr_infer.config.discovery import Discovery
from atomr_infer.errors import ConfigError
from atomr_infer.model.deployment import Deployment
from atomr_infer.runtimes import by_model
from atomr_infer.runtimes.by_model import Machine
from atomr_infer_mistralrs.plugin import MistralRsPlugin
from atomr_infer_vllm import plugin as vllm
from atomr_infer_vllm.plugin import VllmPlugin

if TYPE_CHECKING:
    from collections.abc import Callable

GGUF = "package:tiny/t.gguf"
DEMO = Deployment(name="demo", runtime="mistralrs", model=GGUF)
EXAMPLE = "hf:Qwen/Qwen3-0.6B"


@pytest.fixture
def on_machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, ...]]:
    """Plan ``serve --local`` for a machine, and return the notices."""

    def plan(
        *, has_gpu: bool, has_vllm: bool, demo: Deployment | None = DEMO
    ) -> tuple[str, ...]:
        machine = Machine(has_gpu=has_gpu)
        for module in (planning, by_model, vllm):
            monkeypatch.setattr(module, "this_machine", lambda _: machine)
        missing = () if has_vllm else ("vllm",)
        monkeypatch.setattr(VllmPlugin, "missing", lambda _: missing)
        monkeypatch.setattr(MistralRsPlugin, "missing", lambda _: ())
        found = Discovery(() if demo is None else (demo,))
        monkeypatch.setattr(planning, "demo_deployment", lambda: found)
        made = plan_serving(config_path=None, bind=None, local="", environ={})
        assert made.deployments == (demo,)
        return made.notices

    return plan


def test_vllm_and_a_gpu_are_told_of_with_the_command_and_why_the_demo_is_not_theirs(
    on_machine: Callable[..., tuple[str, ...]],
) -> None:
    notices = on_machine(has_gpu=True, has_vllm=True)
    assert notices[0].startswith("mistralrs, because it")
    assert notices[0].endswith("; a GPU is here")
    assert notices[-1] == (
        "vllm is here, and would run a model of yours on the GPU, which it may fetch: "
        f"atomr-infer serve --local {EXAMPLE}; the demo's model, {GGUF}, is none for it"
    )


def test_a_gpu_without_vllm_is_told_how_it_is_installed(
    on_machine: Callable[..., tuple[str, ...]],
) -> None:
    *_, told = on_machine(has_gpu=True, has_vllm=False)
    assert told.startswith(f"for a model such as {EXAMPLE}, vllm would suit better (")
    assert "/opt/vllm/bin/pip install 'atomr-infer[vllm]'" in told


def test_without_a_gpu_nothing_is_said_of_it(
    on_machine: Callable[..., tuple[str, ...]],
) -> None:
    for has_vllm in (False, True):
        notices = on_machine(has_gpu=False, has_vllm=has_vllm)
        assert not any(EXAMPLE in notice for notice in notices)
        assert notices[0].endswith("; no NVIDIA GPU is here")


def test_a_gpu_and_vllm_without_a_demo_are_told_the_command(
    on_machine: Callable[..., tuple[str, ...]],
) -> None:
    with pytest.raises(ConfigError) as caught:
        on_machine(has_gpu=True, has_vllm=True, demo=None)
    assert str(caught.value).startswith("there is nothing to serve: ")
    assert str(caught.value).endswith(
        "vllm is here, and would run a model of yours on the GPU, which it may fetch: "
        f"atomr-infer serve --local {EXAMPLE}"
    )


@pytest.mark.parametrize(("has_gpu", "runtime"), [(True, "vllm"), (False, "mistralrs")])
def test_a_hub_s_model_goes_to_vllm_where_a_gpu_is(
    monkeypatch: pytest.MonkeyPatch, has_gpu: bool, runtime: str
) -> None:
    monkeypatch.setattr(by_model, "this_machine", lambda _: Machine(has_gpu=has_gpu))
    for plugin in (VllmPlugin, MistralRsPlugin):
        monkeypatch.setattr(plugin, "missing", lambda _: ())
    plan = plan_serving(config_path=None, bind=None, local=EXAMPLE, environ={})
    assert [d.runtime for d in plan.deployments] == [runtime]
    assert "(safetensors are assumed)" in plan.notices[0]
