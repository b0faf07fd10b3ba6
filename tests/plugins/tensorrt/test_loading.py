"""Where a model is, and what is said when it is not there."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import onnx
import pytest

from atomr_infer.errors import ConfigError, EngineStartError
from atomr_infer.model.capabilities import Feature
from atomr_infer_tensorrt.graph import read_graph
from atomr_infer_tensorrt.library import import_library
from atomr_infer_tensorrt.loading import find_model
from atomr_infer_tensorrt.options import Library
from atomr_infer_tensorrt.plugin import LIBRARIES
from tests.plugins.ort.bert import BertShape, bert, random_bert, write_bert
from tests.runtimes.fake_hub import REPO, FakeHub, serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugins.tensorrt.conftest import Opener

SHAPE = BertShape()


def test_a_file_is_the_model(tmp_path: Path) -> None:
    file = tmp_path / "m.plan"
    file.touch()
    assert find_model(str(file), None).file == file


def test_a_directory_with_a_tokenizer_holds_a_model_of_texts(tmp_path: Path) -> None:
    folder = write_bert(tmp_path, SHAPE, random_bert(SHAPE))
    place = find_model(str(folder), None)
    assert place.file == folder / "model.onnx"
    assert place.layout is not None


def test_a_plan_is_found_where_no_onnx_file_is(tmp_path: Path) -> None:
    (tmp_path / "m.engine").touch()
    assert find_model(str(tmp_path), None).file == tmp_path / "m.engine"


def test_another_export_that_came_later_changes_nothing(tmp_path: Path) -> None:
    usual, other = tmp_path / "onnx/model.onnx", tmp_path / "onnx/model_q4.onnx"
    usual.parent.mkdir()
    usual.touch()
    assert find_model(str(tmp_path), None).file == usual
    other.touch()
    assert find_model(str(tmp_path), None).file == usual


@pytest.mark.parametrize(
    ("files", "file", "problem"),
    [
        ((), None, "holds no .onnx file and no plan (.plan, .engine, .trt)"),
        (("a.plan", "b.plan"), None, "name one with file = ...: a.plan, b.plan"),
        (("a.onnx", "b.onnx"), None, "name one with file = ...: a.onnx, b.onnx"),
        (("a.onnx",), "b.onnx", "there is no file"),
    ],
    ids=["nothing", "plans", "models", "another"],
)
def test_what_is_there_instead_is_told(
    tmp_path: Path, files: tuple[str, ...], file: str | None, problem: str
) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(ConfigError) as caught:
        find_model(str(tmp_path), file)
    assert problem in str(caught.value)


def test_a_path_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match="there is no model '/nowhere'"):
        find_model("/nowhere", None)


async def test_of_a_hub_s_several_exports_the_one_that_is_named_is_fetched(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_bert(tmp_path / "bert", SHAPE, random_bert(SHAPE))
    files = {one.name: one.read_bytes() for one in folder.iterdir() if one.is_file()}
    named = {"onnx/model_fp16.onnx": files.pop("model.onnx")}
    files |= {**named, "onnx/model.onnx": b"no model at all"}
    with serving(FakeHub(files)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("ATOMR_INFER_CACHE", str(tmp_path / "cache"))
        async with opened(f"hf:{REPO}", file="onnx/model_fp16.onnx") as runner:
            assert Feature.EMBEDDINGS in runner.capabilities.features
    fetched = {path.name for path in (tmp_path / "cache").rglob("*.onnx")}
    assert fetched == {"model_fp16.onnx"}


def test_weights_beside_a_file_are_part_of_what_the_model_is(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = bert(SHAPE, random_bert(SHAPE))
    onnx.save(model, path, save_as_external_data=True, location="w", size_threshold=0)
    graph = read_graph(path)
    assert graph.weights == (tmp_path / "w",)
    before = graph.digest()
    weights = bytearray((tmp_path / "w").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "w").write_bytes(weights)
    assert read_graph(path).digest() != before
    (tmp_path / "w").unlink()
    with pytest.raises(ConfigError, match="keeps weights in 'w', which is not there"):
        read_graph(path)


def test_what_is_no_onnx_file_is_told(tmp_path: Path) -> None:
    for number, content in enumerate((b"", b"hello" * 50)):
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(content)
        with pytest.raises(EngineStartError, match="is no ONNX file"):
            read_graph(path)


@pytest.mark.parametrize("library", list(Library), ids=lambda one: one.value)
def test_a_library_that_is_not_there_is_told_with_the_command(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in LIBRARIES:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError) as caught:
        import_library(library)
    assert "run: pip install 'atomr-infer[tensorrt]'" in str(caught.value)
    wanted = LIBRARIES if library is Library.AUTO else (library.value,)
    assert all(f"{name}: " in str(caught.value) for name in wanted)
