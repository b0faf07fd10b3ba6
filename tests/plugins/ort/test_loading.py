"""What stops a start, and what it is told as."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import onnx
import pytest
from onnx import TensorProto, helper

from atomr_infer.errors import ConfigError, EngineStartError, PluginError
from atomr_infer.model.capabilities import Feature
from atomr_infer.model.deployment import Deployment, OptionValue
from atomr_infer.model.secret import Secret
from atomr_infer.runtimes.contract import Progress, RunnerContext
from atomr_infer.runtimes.loader import ensure_available
from atomr_infer.runtimes.memory import free_bytes
from atomr_infer_ort import loading
from atomr_infer_ort.faults import load_error, step_error
from atomr_infer_ort.layout import read_layout
from atomr_infer_ort.plugin import PLUGIN
from tests.plugins.ort.models import write_llama
from tests.runtimes.fake_hub import REPO, FakeHub, serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.engine


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "model")


def files_in(folder: Path) -> dict[str, bytes]:
    """Return the files of a directory, by their names."""
    files = (file for file in folder.iterdir() if file.is_file())
    return {file.name: file.read_bytes() for file in files}


async def start(
    folder: Path, context: RunnerContext | None = None, **options: Any
) -> None:
    deployment = Deployment(
        name="d", runtime="ort", model=str(folder), options={"threads": 1, **options}
    )
    async with PLUGIN.open_runner(deployment, context or RunnerContext()):
        pass


def other_graph(inputs: list[str], output: str, *shape: int) -> onnx.ModelProto:
    """A model that is no language model: its output is its first input."""
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "t", *shape])
        for name in inputs
    ]
    made = helper.make_tensor_value_info(output, TensorProto.INT64, ["b", "t", *shape])
    graph = helper.make_graph(
        [helper.make_node("Identity", [inputs[0]], [output])], "g", tensors, [made]
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def with_text(name: str, text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_text(text)

    return write


def with_graph(inputs: list[str], output: str, *shape: int) -> Callable[[Path], None]:
    model = other_graph(inputs, output, *shape)
    return lambda folder: onnx.save(model, folder / "model.onnx")


def in_two_exports(folder: Path) -> None:
    for name in ("mine.onnx", "yours.onnx"):
        shutil.copy(folder / "model.onnx", folder / name)
    (folder / "model.onnx").unlink()


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (without("config.json"), ConfigError, "has no config.json; export the model"),
        (without("tokenizer.json"), ConfigError, "has no tokenizer.json; export"),
        (
            without("model.onnx"),
            ConfigError,
            "holds no model.onnx or decoder_model_merged.onnx or",
        ),
        (
            in_two_exports,
            ConfigError,
            "; name one with file = ...: mine.onnx, yours.onnx",
        ),
        (
            with_text("config.json", "{"),
            EngineStartError,
            "config.json' cannot be read",
        ),
        (with_text("config.json", "[]"), EngineStartError, "is not a JSON object"),
        (
            with_text("tokenizer.json", "{}"),
            EngineStartError,
            "tokenizer.json' cannot be read",
        ),
        (
            with_text("model.onnx", "garbage"),
            EngineStartError,
            "ONNX Runtime cannot load .*: InvalidProtobuf: .*Protobuf parsing failed",
        ),
        (
            with_graph(["input_ids", "attention_mask"], "logits", 8),
            EngineStartError,
            "has no key-value cache; export it with: optimum-cli export onnx --task "
            "text-generation-with-past",
        ),
        (
            with_graph(["pixels"], "boxes"),
            EngineStartError,
            "neither a causal language model nor one that makes embeddings: its inputs "
            "are pixels, its outputs boxes",
        ),
        (
            with_graph(["past_key_values.0.key", "input_ids", "boxes"], "logits"),
            EngineStartError,
            "has inputs that a causal model has not: boxes",
        ),
        (
            with_graph(["past_key_values.0.key", "input_ids"], "logits"),
            EngineStartError,
            "has no output 'present.0.key'",
        ),
    ],
)
async def test_a_damaged_model_stops_the_start_and_says_where(
    model: Path, damage: Callable[[Path], None], kind: type[Exception], message: str
) -> None:
    damage(model)
    with pytest.raises(kind, match=message):
        await start(model)


async def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no model directory '.*/none'"):
        await start(tmp_path / "none")


async def test_a_file_that_is_named_is_the_one(model: Path) -> None:
    (model / "onnx").mkdir()
    (model / "model.onnx").rename(model / "onnx" / "mine.onnx")
    await start(model, file="onnx/mine.onnx")
    with pytest.raises(ConfigError, match=r"no file .*; name one .*: onnx/mine.onnx"):
        await start(model, file="model_q4.onnx")


async def test_a_provider_that_is_not_built_in_names_the_command(model: Path) -> None:
    with pytest.raises(EngineStartError) as caught:
        await start(model, providers=["cuda", "cpu"])
    assert (
        "execution provider 'cuda' is not in this build of ONNX Runtime, which has "
        in (caught.value.message)
    )
    assert "pip install 'atomr-infer[ort-gpu]'" in caught.value.message


async def test_a_model_larger_than_free_memory_is_refused_before_it_is_loaded(
    model: Path,
) -> None:
    # Weights of a terabyte beside the model; the file system holds none of it.
    with (model / "model.onnx_data").open("wb") as weights:
        weights.truncate(2**40)
    (model / "model.onnx").write_bytes(b"never read")
    with pytest.raises(EngineStartError) as caught:
        await start(model)
    free = free_bytes()
    assert free is not None
    assert "does not fit: its weights have 1048576 MiB, and " in caught.value.message


async def test_a_model_of_a_hub_is_fetched_and_loaded(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Progress] = []
    context = RunnerContext(credential=Secret("hf-1"), progress=told.append)
    deployment = Deployment(name="d", runtime="ort", model=f"hf:{REPO}")
    with serving(FakeHub(files_in(model), token="hf-1")) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("ATOMR_INFER_CACHE", str(tmp_path / "cache"))
        async with PLUGIN.open_runner(deployment, context) as runner:
            assert Feature.CHAT in runner.capabilities.features
    assert told[0] == Progress("asking for org/tiny")
    assert told[-1] == Progress("trying the model")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (f"hf:{REPO}", {"file": "onnx/model_q4.onnx"}),
        (f"hf:{REPO}/onnx/model_q4.onnx", {}),
        (f"hf:{REPO}@main/onnx/model_q4.onnx", {"file": "onnx/model_q4.onnx"}),
    ],
)
async def test_of_a_hub_s_several_exports_the_one_that_is_named_is_fetched(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    options: dict[str, OptionValue],
) -> None:
    files = files_in(model)
    named = {"onnx/model_q4.onnx": files.pop("model.onnx")}
    files |= {**named, "onnx/model.onnx": b"no model at all"}
    deployment = Deployment(name="d", runtime="ort", model=name, options=options)
    with serving(FakeHub(files)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("ATOMR_INFER_CACHE", str(tmp_path / "cache"))
        async with PLUGIN.open_runner(deployment, RunnerContext()) as runner:
            assert Feature.CHAT in runner.capabilities.features
    fetched = {path.name for path in (tmp_path / "cache").rglob("*.onnx")}
    assert fetched == {"model_q4.onnx"}


async def test_one_export_alone_is_the_model_whatever_it_is_called(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = files_in(model)
    files["classifier.onnx"] = files.pop("model.onnx")
    deployment = Deployment(name="d", runtime="ort", model=f"hf:{REPO}")
    with serving(FakeHub(files)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("ATOMR_INFER_CACHE", str(tmp_path / "cache"))
        async with PLUGIN.open_runner(deployment, RunnerContext()) as runner:
            assert Feature.CHAT in runner.capabilities.features


async def test_progress_is_told_with_bytes(model: Path) -> None:
    told: list[Progress] = []
    await start(model, RunnerContext(progress=told.append))
    size = (model / "model.onnx").stat().st_size
    assert told == [
        Progress("reading the model's files"),
        Progress("loading the model", 0, size),
        Progress("loading the model", size, size),
        Progress("trying the model"),
    ]


async def test_the_cache_is_what_a_share_of_free_memory_holds(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A token takes 256 bytes in this model's cache.
    monkeypatch.setattr(loading, "free_bytes", lambda: 4 * 2**20)
    deployment = Deployment(name="d", runtime="ort", model=str(model))
    async with PLUGIN.open_runner(deployment, RunnerContext()) as runner:
        assert runner.capabilities.context_tokens == 256
    monkeypatch.setattr(loading, "free_bytes", lambda: 100 * 1024)
    monkeypatch.setattr(loading, "check_fits", lambda *_: None)
    async with PLUGIN.open_runner(deployment, RunnerContext()) as runner:
        assert runner.capabilities.context_tokens == 100


def test_a_template_may_be_a_file_or_one_of_several(model: Path) -> None:
    path = model / "tokenizer_config.json"
    several = [
        {"name": "tool_use", "template": "tools"},
        {"name": "default", "template": "plain"},
    ]
    path.write_text(json.dumps({"chat_template": several}))
    assert read_layout(str(model)).chat_template == "plain"
    (model / "chat_template.jinja").write_text("apart")
    assert read_layout(str(model)).chat_template == "apart"


class NoSuchFile(Exception):  # noqa: N818  the library's name
    """What ONNX Runtime raises for weights that are not beside their model."""


def test_what_is_missing_is_named_with_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "onnxruntime" else True
    )
    assert PLUGIN.missing() == ("onnxruntime",)
    with pytest.raises(PluginError) as caught:
        ensure_available(PLUGIN)
    assert str(caught.value) == (
        "runtime 'ort' needs the package onnxruntime; run: pip install "
        "'atomr-infer[ort]'"
    )


def test_errors_of_the_library_are_told_apart() -> None:
    assert type(load_error("m", NoSuchFile("x"))) is ConfigError
    told = load_error("m", RuntimeError("bad allocation\nat: y"))
    assert str(told) == "ONNX Runtime cannot load 'm': RuntimeError: bad allocation"
    full = load_error("m", RuntimeError("std::bad_alloc"))
    assert isinstance(full, EngineStartError)
    assert full.code == "out_of_memory"
    assert step_error(EngineStartError("ours")).message == "ours"
