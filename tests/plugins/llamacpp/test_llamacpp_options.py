"""What a deployment on llama.cpp may say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from atomr_infer.errors import ConfigError, EngineCrashedError, EngineError
from atomr_infer.model.deployment import Deployment, OptionValue
from atomr_infer.runtimes.files import missing_files
from atomr_infer.runtimes.hub.names import HubModel
from atomr_infer.runtimes.packaged import PackagedFile
from atomr_infer.runtimes.plugin_check import check_plugin
from atomr_infer_llamacpp.faults import NO_SLOT, decode_error, step_error
from atomr_infer_llamacpp.options import Options, Source, parse_options
from atomr_infer_llamacpp.plugin import PLUGIN

if TYPE_CHECKING:
    from collections.abc import Mapping


def said(
    options: Mapping[str, OptionValue], model: str | None = "/m.gguf"
) -> Deployment:
    return Deployment(name="d", runtime="llamacpp", model=model, options=options)


def test_options_are_taken_as_they_are_written() -> None:
    found = parse_options(said({"gpu_layers": 0, "threads": 2, "cache_tokens": 9}))
    assert found == Options(
        source=Path("/m.gguf"), gpu_layers=0, threads=2, cache_tokens=9
    )


@pytest.mark.parametrize(
    ("model", "end"), [(None, ""), ("/m.onnx", ", and model is '/m.onnx'")]
)
def test_a_model_that_is_no_gguf_is_refused(model: str | None, end: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_options(said({}, model))
    assert str(caught.value) == (
        "deployment 'd': llamacpp needs the path of a .gguf file, "
        "hf:ORGANISATION/NAME, with /FILE.gguf behind it where there are several, or "
        "package:NAME/FILE.gguf as its model"
        f"{end}"
    )


@pytest.mark.parametrize(
    ("model", "source"),
    [
        ("package:tiny/t.gguf", PackagedFile("tiny", "t.gguf")),
        ("hf:org/tiny@v1/t.gguf", HubModel("org/tiny", "v1", "t.gguf")),
        ("hf:org/tiny", HubModel("org/tiny")),
        ("hf:org/tiny/Q4_K_M", HubModel("org/tiny", file="Q4_K_M")),
    ],
)
def test_a_file_may_be_a_package_s_or_a_hub_s(model: str, source: Source) -> None:
    assert parse_options(said({}, model)) == Options(source=source)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("hf:org/tiny/m.onnx", "'d': model is .*; name a .gguf file of it"),
        ("package:tiny/t.bin", "'d': model is .*; write package:NAME/FILE.gguf"),
    ],
)
def test_a_source_that_is_no_file_is_refused(model: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_options(said({}, model))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("gpu_layer", 1, "llamacpp has no option 'gpu_layer'; did you mean 'gpu_l"),
        ("gpu_layers", -1, "gpu_layers is -1; give a whole number from 0 to"),
        ("threads", True, "threads is True; give a whole number from 1 to 1024"),
        ("max_seqs", 257, "max_seqs is 257; give a whole number from 1 to 256"),
        ("context_tokens", "8k", "context_tokens is '8k'; give a whole number"),
        (
            "pooling",
            "max",
            "pooling is 'max'; give one of 'auto', 'mean', 'cls', 'last'",
        ),
        ("prefix_caching", 1, "prefix_caching is 1; give true or false"),
    ],
)
def test_other_options_and_values_are_refused(
    name: str, value: OptionValue, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_options(said({name: value}))


def test_a_part_of_a_split_file_stands_for_all(tmp_path: Path) -> None:
    first, second = (tmp_path / f"m-0000{n}-of-00002.gguf" for n in (1, 2))
    first.touch()
    assert PLUGIN.files(said({}, str(second))) == (first, second)
    assert missing_files(PLUGIN, said({}, str(first))) == (second,)


def test_the_plugin_conforms() -> None:
    check_plugin(PLUGIN, said({}), heavy=("llama_cpp", "numpy", "jinja2"))


def test_what_is_missing_is_named_as_it_is_installed() -> None:
    missing = PLUGIN.missing()
    is_here = importlib.util.find_spec("llama_cpp") is not None
    assert ("llama-cpp-python" in missing) is not is_here


def test_a_full_cache_costs_its_requests_and_another_failure_the_engine() -> None:
    full, broken = decode_error(NO_SLOT), decode_error(-3, "no buffer")
    assert (type(full), full.code) == (EngineError, "cache_full")
    assert type(broken) is EngineCrashedError
    assert str(broken) == "llama_decode gave -3; it said last: no buffer"
    assert type(step_error(ValueError("x"))) is EngineCrashedError
    assert step_error(full) is full
