"""A model's name or file tells which runtime takes it, and people can override it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from atomr_infer.errors import ConfigError, PluginError
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.ray import RayHost
from atomr_infer.runtimes.by_model import (
    Fit,
    Form,
    Machine,
    Suits,
    choose_runtime,
    form_of,
    this_machine,
    why_runtime,
    with_runtime,
)
from atomr_infer.runtimes.loader import load_runtime

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.runtimes.conftest import Site


@pytest.mark.parametrize(
    ("model", "runtime", "why"),
    [
        ("gpt-5", "openai", "OpenAI's models are called so"),
        ("claude-opus-4", "anthropic", "Anthropic's models are called so"),
        ("gemini-3-pro", "gemini", "Google's models are called so"),
    ],
)
def test_a_providers_names_are_known(model: str, runtime: str, why: str) -> None:
    chosen = choose_runtime(model)
    assert chosen is not None
    assert (chosen.runtime, chosen.why, chosen.better) == (runtime, why, ())


def test_a_name_that_says_nothing_chooses_nothing() -> None:
    assert choose_runtime("my-model") is None


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ("~no-such-user/m", "there is no home for '~no-such-user/m'; write the whole"),
        ("m" * 256, "has a name of more than 255 bytes in it; no file is called so"),
        ("m/" * 2500, "cannot be looked for: File name too long"),
    ],
    ids=["home", "name", "path"],
)
def test_a_name_that_can_be_no_path_is_refused(model: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        choose_runtime(model)
    served = Deployment(name="m", runtime="mock", model=model)
    assert why_runtime(served) == ""


@pytest.mark.parametrize(
    ("file", "form"),
    [
        ("model.onnx", Form.ONNX),
        ("onnx/model.onnx", Form.ONNX),
        ("model-00001-of-00002.safetensors", Form.SAFETENSORS),
        ("config.json", None),
    ],
)
def test_a_directory_is_what_its_files_are(
    tmp_path: Path, file: str, form: Form | None
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    assert form_of(str(tmp_path)) is form
    assert form_of("M.GGUF") is Form.GGUF


@pytest.mark.parametrize(
    ("model", "form", "runtime"),
    [
        ("hf:org/tiny/t.gguf", Form.GGUF, "llamacpp"),
        ("hf:org/Tiny-GGUF", Form.GGUF, "llamacpp"),
        ("hf:org/tiny-i1-gguf@main/Q4_K_M", Form.GGUF, "llamacpp"),
        ("hf:onnx-community/SmolLM2-135M/onnx/model_q4.onnx", Form.ONNX, "ort"),
        ("hf:onnx-community/SmolLM2-135M", Form.UNTOLD, "mistralrs"),
        ("hf:gguf-org/gemma-safe", Form.UNTOLD, "mistralrs"),
        ("hf:org/gguf-parser-model", Form.UNTOLD, "mistralrs"),
        ("hf:org/tinyGGUF", Form.GGUF, "llamacpp"),
        ("hf:org/tiny_Onnx@v1", Form.ONNX, "ort"),
        ("hf:org/tiny.gguf", Form.GGUF, "llamacpp"),
        ("hf:org/tiny/v1.5/onnx/int4", Form.ONNX, "ort"),
        ("hf:org/tiny-onnx", Form.ONNX, "ort"),
        ("hf:org/Tiny-ONNX/cpu/int4", Form.ONNX, "ort"),
        ("hf:org/tiny/onnx", Form.ONNX, "ort"),
        ("hf:onnx-community/tiny-GGUF", Form.GGUF, "llamacpp"),
        ("hf:org/tiny-safetensors", Form.SAFETENSORS, "mistralrs"),
        ("hf:org/tiny", Form.UNTOLD, "mistralrs"),
    ],
)
def test_a_hub_s_model_is_what_its_name_says(
    model: str, form: Form, runtime: str
) -> None:
    assert form_of(model) is form
    ranked = _ranks(model, has_gpu=False)
    assert max(ranked, key=lambda name: ranked[name]) == runtime


@pytest.mark.parametrize(
    "model",
    ["hf:org/x-gguf/config.json", "hf:org/tiny/pytorch_model.bin", "hf:org/tiny/M.PT"],
)
def test_a_hub_s_file_of_another_form_is_nobody_s(model: str) -> None:
    assert form_of(model) is None
    assert _ranks(model, has_gpu=True) == {}


def test_what_the_name_does_not_say_is_called_an_assumption() -> None:
    for name in ("mistralrs", "vllm"):
        plugin = load_runtime(name)
        assert isinstance(plugin, Suits)
        for has_gpu in (False, True):
            fit = plugin.suits("hf:org/tiny", Machine(has_gpu=has_gpu))
            assert fit is not None
            assert "(safetensors are assumed)" in fit.why


def test_a_folder_of_a_hub_s_model_is_not_for_an_engine_that_reads_whole_ones() -> None:
    assert _ranks("hf:org/tiny/sub", has_gpu=True) == {"mistralrs": 20}
    assert _ranks("hf:org/tiny", has_gpu=True) == {"mistralrs": 20, "vllm": 40}


def test_a_name_that_a_hub_cannot_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="write hf:ORGANISATION/NAME"):
        choose_runtime("hf:tiny")


def _ranks(model: str, *, has_gpu: bool) -> dict[str, int]:
    machine, found = Machine(has_gpu=has_gpu), {}
    for name in ("llamacpp", "mistralrs", "ort", "vllm"):
        plugin = load_runtime(name)
        assert isinstance(plugin, Suits)
        fit = plugin.suits(model, machine)
        if fit is not None:
            found[name] = fit.rank
    return found


def test_the_runtimes_of_this_machine_say_what_they_are_good_for(
    tmp_path: Path,
) -> None:
    (tmp_path / "model.safetensors").touch()
    folder = str(tmp_path)
    assert _ranks(folder, has_gpu=True) == {"mistralrs": 20, "vllm": 40}
    assert _ranks(folder, has_gpu=False) == {"mistralrs": 20, "vllm": 10}
    assert _ranks("m.gguf", has_gpu=False) == {"llamacpp": 40, "mistralrs": 30}
    (tmp_path / "model.onnx").touch()
    assert _ranks(folder, has_gpu=True) == {"ort": 50}


def test_gpus_are_seen_where_they_are_not_hidden(tmp_path: Path) -> None:
    assert this_machine({}, tmp_path) == Machine(has_gpu=False)
    (tmp_path / "nvidiactl").touch()
    assert this_machine({}, tmp_path) == Machine(has_gpu=False)
    (tmp_path / "nvidia0").touch()
    assert this_machine({}, tmp_path) == Machine(has_gpu=True)
    assert this_machine({"CUDA_VISIBLE_DEVICES": "1"}, tmp_path).has_gpu
    for hidden in ("", "-1", "-1,0", ",0"):
        assert not this_machine({"CUDA_VISIBLE_DEVICES": hidden}, tmp_path).has_gpu


_PLUGIN = """\
from atomr_infer.runtimes.by_model import Fit
from atomr_infer.runtimes.contract import Host, RuntimePlugin

class Plugin(RuntimePlugin):
    name, summary, host = {name!r}, "s", Host.IN_PROCESS
    def missing(self): return {missing!r}
    def validate(self, deployment): pass
    def open_runner(self, deployment, context): raise NotImplementedError
    def suits(self, model, machine):
        return Fit({rank} + machine.has_gpu * {on_gpu}, "it can")

PLUGIN = Plugin()
"""


def test_the_best_that_is_here_is_taken_and_a_better_one_is_told_of(
    site: Site, plugin_module: Callable[[str, str], None]
) -> None:
    for name, rank, on_gpu, missing in (
        ("near", 30, 0, ()),
        ("far", 20, 20, ()),
        ("absent", 35, 0, ("absent-engine",)),
    ):
        code = _PLUGIN.format(name=name, rank=rank, on_gpu=on_gpu, missing=missing)
        plugin_module(f"by_model_{name}", code)
        site.add(name, entry_points=f"{name} = by_model_{name}:PLUGIN")
    installed = site.installed
    chosen = choose_runtime("m", Machine(), installed)
    assert chosen is not None
    assert (chosen.runtime, chosen.why) == ("near", "it can")
    (better,) = chosen.better
    assert better.startswith("absent would suit better (it can): ")
    assert better.endswith("run: pip install absent-engine")
    on_gpu_too = choose_runtime("m", Machine(has_gpu=True), installed)
    assert on_gpu_too is not None
    assert on_gpu_too.runtime == "far"


def test_when_none_that_takes_it_is_here_the_command_is_named(
    site: Site, plugin_module: Callable[[str, str], None]
) -> None:
    code = _PLUGIN.format(name="a", rank=1, on_gpu=0, missing=("engine",))
    plugin_module("by_model_alone", code)
    site.add("a", entry_points="a = by_model_alone:PLUGIN")
    with pytest.raises(PluginError, match="run: pip install engine"):
        choose_runtime("m", Machine(), site.installed)


def test_a_fit_says_why() -> None:
    assert Fit(30, "x") == Fit(rank=30, why="x")


def test_why_is_said_of_the_runtime_that_the_model_tells_and_of_no_other() -> None:
    told = with_runtime(Deployment(name="mine", model="gpt-5"))
    assert (told.runtime, told.serves) == ("openai", ("mine",))
    assert why_runtime(told) == "OpenAI's models are called so"
    named = Deployment(name="gpt-5", runtime="mock")
    assert with_runtime(named) is named
    assert why_runtime(named) == ""


def test_a_runtime_for_ray_is_not_looked_for_on_this_machine() -> None:
    on_ray = Deployment(name="mine", model="gpt-5", ray=RayHost())
    with pytest.raises(ConfigError, match="deployment 'mine': runtime is missing, and"):
        with_runtime(on_ray)
    assert why_runtime(attrs.evolve(on_ray, runtime="openai")) == ""
    named = attrs.evolve(on_ray, runtime="vllm")
    assert with_runtime(named) is named
