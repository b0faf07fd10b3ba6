"""Weights in fewer bits: near to what they were, and converted once."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from atomr_infer.errors import ConfigError, EngineStartError
from atomr_infer.model.batch import ExecuteBatch, Sampling
from atomr_infer.model.deployment import Deployment
from atomr_infer.runtimes import kept_models
from atomr_infer.runtimes.contract import Progress, RunnerContext
from atomr_infer_ort import quantizing
from atomr_infer_ort.converted import with_bits
from atomr_infer_ort.plugin import PLUGIN
from atomr_infer_ort.quantizing import BLOCK, in_blocks, write_quantized
from tests.plugins.ort.models import write_llama

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.plugins.ort.graphs import Array

pytestmark = pytest.mark.engine

RANDOM = np.random.default_rng(3)


def ignore(progress: Progress) -> None:
    del progress


def matrix(rows: int, columns: int) -> Array:
    return RANDOM.standard_normal((rows, columns)).astype(np.float32)


def product(weight: Array, *, in_a_branch: bool = False) -> onnx.ModelProto:
    """``y = relu(x @ w)``; the product may be in both branches of an If."""
    made = helper.make_tensor_value_info("p", TensorProto.FLOAT, None)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"])]
    if in_a_branch:
        branches = {
            f"{name}_branch": helper.make_graph(nodes, name, [], [made])
            for name in ("then", "else")
        }
        always = helper.make_node(
            "Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))
        )
        nodes = [always, helper.make_node("If", ["yes"], ["p"], **branches)]
    nodes.append(helper.make_node("Relu", ["p"], ["y"]))
    shape: list[str | int | None] = ["rows", len(weight)]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )


def unpacked(numbers: Array, bits: int, count: int) -> Array:
    if bits == 8:
        return numbers
    both = np.stack([numbers & 15, numbers >> 4], -1)
    return both.reshape(*numbers.shape[:-1], -1)[..., :count]


# --- numbers --------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("rows", [32, 40, 96])
def test_a_number_is_off_by_half_a_step_at_most(bits: int, rows: int) -> None:
    weight = matrix(rows, 6)
    weight[:, 2] = 0.0
    parts = in_blocks(weight, bits)
    blocks = -(-rows // BLOCK)
    scale = parts["s"].reshape(6, blocks, 1)
    zero = unpacked(parts["z"].reshape(6, -1), bits, blocks)[..., None]
    numbers = unpacked(parts["q"], bits, BLOCK)
    back = ((numbers.astype(np.float32) - zero) * scale).reshape(6, -1)[:, :rows].T
    assert parts["q"].nbytes == 6 * blocks * BLOCK * bits // 8
    # Half for the number, and half for the zero point.
    assert np.abs(back - weight).max() <= scale.max() * 1.001


@pytest.mark.parametrize("in_a_branch", [False, True], ids=["plain", "if"])
@pytest.mark.parametrize(("bits", "off"), [(8, 0.02), (4, 0.2)])
def test_a_product_is_nearly_what_it_was(
    tmp_path: Path, bits: int, off: float, *, in_a_branch: bool
) -> None:
    weight, given = matrix(72, 20), matrix(5, 72)
    onnx.save(product(weight, in_a_branch=in_a_branch), tmp_path / "m.onnx")
    write_quantized(tmp_path / "m.onnx", tmp_path / "q.onnx", bits, ignore)
    session = onnxruntime.InferenceSession(str(tmp_path / "q.onnx"))
    [made] = session.run(["y"], {"x": given})
    wanted = np.maximum(given @ weight, 0)
    assert np.linalg.norm(made - wanted) <= off * np.linalg.norm(wanted)


def test_what_makes_an_output_keeps_eight_bits(tmp_path: Path) -> None:
    folder = write_llama(tmp_path)
    write_quantized(folder / "model.onnx", tmp_path / "q.onnx", 4, ignore)
    nodes = onnx.load(tmp_path / "q.onnx").graph.node
    bits = {
        node.output[0]: next(a.i for a in node.attribute if a.name == "bits")
        for node in nodes
        if node.op_type == "MatMulNBits"
    }
    assert bits.pop("logits") == 8
    assert set(bits.values()) == {4}
    assert len(bits) == 2 * 7


def answer_of(path: Path, given: Array) -> Array:
    [made] = onnxruntime.InferenceSession(str(path)).run(["y"], {"x": given})
    return np.asarray(made)


def near(model: onnx.ModelProto, folder: Path, weight: Array) -> bool:
    """Whether a model that was converted multiplies by ``weight``, nearly."""
    onnx.save(model, folder / "m.onnx")
    write_quantized(folder / "m.onnx", folder / "q.onnx", 8, ignore)
    given = matrix(5, len(weight))
    wanted = np.maximum(given @ weight, 0)
    off = answer_of(folder / "q.onnx", given) - wanted
    return bool(np.linalg.norm(off) <= 0.02 * np.linalg.norm(wanted))


@pytest.mark.parametrize("kind", ["INT4", "UINT4", "BFLOAT16", "FLOAT8E4M3FN"])
@pytest.mark.parametrize("beside", [False, True], ids=["inside", "beside"])
def test_what_is_no_product_is_kept_byte_by_byte(
    tmp_path: Path, kind: str, *, beside: bool
) -> None:
    kept = TensorProto(
        name="kept", dims=[4096], data_type=TensorProto.DataType.Value(kind)
    )
    halves = kind.endswith("INT4")
    size = 2048 if halves else 8192 if kind == "BFLOAT16" else 4096
    stored = RANDOM.integers(0, 256, size).astype(np.uint8).tobytes()
    if beside:
        kept.data_location = TensorProto.EXTERNAL
        said = {"location": "m.onnx_data", "offset": 64, "length": size}
        for key, told in said.items():
            kept.external_data.add(key=key, value=str(told))
        (tmp_path / "m.onnx_data").write_bytes(b"x" * 64 + stored + b"more")
    else:
        kept.raw_data = stored
    model = product(matrix(64, 64))
    model.graph.initializer.append(kept)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    write_quantized(tmp_path / "m.onnx", tmp_path / "q.onnx", 8, ignore)
    [made] = [
        one
        for one in onnx.load(tmp_path / "q.onnx").graph.initializer
        if one.name == "kept"
    ]
    assert (made.raw_data, made.data_type, list(made.dims)) == (
        stored,
        kept.data_type,
        [4096],
    )


def test_a_value_that_is_cut_off_is_told(tmp_path: Path) -> None:
    model = product(matrix(64, 64))
    kept = TensorProto(name="kept", dims=[4096], data_type=TensorProto.UINT8)
    kept.data_location = TensorProto.EXTERNAL
    for key, told in {"location": "m.onnx_data", "length": 4096}.items():
        kept.external_data.add(key=key, value=str(told))
    (tmp_path / "m.onnx_data").write_bytes(b"half of it")
    model.graph.initializer.append(kept)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(EngineStartError, match=r"m\.onnx_data' is cut off"):
        with_bits(tmp_path / "m.onnx", 8, tmp_path / "cache", ignore)


@pytest.mark.parametrize("version", [3, 10])
def test_a_weight_that_is_an_input_too_is_none_any_more(
    tmp_path: Path, version: int
) -> None:
    weight = matrix(64, 20)
    model = product(weight)
    model.ir_version = version
    shape = list(weight.shape)
    model.graph.input.append(
        helper.make_tensor_value_info("w", TensorProto.FLOAT, shape)
    )
    assert near(model, tmp_path, weight)
    inputs = onnxruntime.InferenceSession(str(tmp_path / "q.onnx")).get_inputs()
    assert [one.name for one in inputs] == ["x"]


def test_names_that_the_model_has_already_are_left_to_it(tmp_path: Path) -> None:
    first, second = matrix(64, 48), matrix(48, 20)
    model = product(first)
    [node, relu] = model.graph.node
    node.output[0] = "w_s"
    second_node = helper.make_node("MatMul", ["w_s", "w_q"], ["p"])
    del model.graph.node[:]
    model.graph.node.extend([node, second_node, relu])
    model.graph.initializer.append(numpy_helper.from_array(second, "w_q"))
    assert near(model, tmp_path, first @ second)


# --- the cache ------------------------------------------------------------------------


@asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[Any]:
    deployment = Deployment(
        name="w", runtime="ort", model=str(folder), options={"threads": 1, **options}
    )
    async with PLUGIN.open_runner(deployment, RunnerContext()) as runner:
        yield runner


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATOMR_INFER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def kept(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.suffix != ".lock"]


async def test_a_model_is_converted_once_and_answers(
    tmp_path: Path, cache: Path
) -> None:
    folder = write_llama(tmp_path / "model")
    whole = onnx.load(folder / "model.onnx")
    onnx.save(
        whole,
        folder / "model.onnx",
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=0,
    )
    batch = ExecuteBatch(
        request_id="r",
        model="w",
        messages=(),
        prompt="hello",
        sampling=Sampling(max_tokens=8),
    )
    made_at = set()
    for _ in range(2):
        async with (
            opened(folder, weights="int8") as runner,
            runner.execute(batch) as chunks,
        ):
            usages = [chunk.usage async for chunk in chunks]
        assert usages[-1].output_tokens == 8
        [one] = kept(cache)
        made_at.add((one / "model.onnx").stat().st_mtime_ns)
    assert len(made_at) == 1
    async with opened(folder, weights="int4"):
        assert len(kept(cache)) == 2
    # Another model is another one.
    async with opened(write_llama(tmp_path / "other", seed=2), weights="int4"):
        assert len(kept(cache)) == 3


def test_a_new_one_makes_room_and_is_used_itself(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    onnx.save(product(matrix(64, 64)), tmp_path / "m.onnx")
    cache = tmp_path / "cache"
    old = cache / f"{'0' * 32}-8-blocks-v0"
    old.mkdir(parents=True)
    (old / "model.onnx").write_bytes(bytes(100))
    (old / "sha256.json").write_text("{}")
    monkeypatch.setattr(kept_models, "MOST_BYTES", 1)
    made = with_bits(tmp_path / "m.onnx", 8, cache, ignore)
    assert not old.exists()
    # It is this process's, so another model does not remove it.
    with caplog.at_level(logging.INFO):
        kept_models.make_room(old, 1)
    assert made.exists()
    assert caplog.messages[-1] == "converted models take 0 MiB, and are in use"


def test_a_full_disk_has_an_old_one_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(product(matrix(64, 64)), tmp_path / "m.onnx")
    old = tmp_path / f"{'0' * 32}-8-blocks-v0"
    old.mkdir()
    (old / "sha256.json").write_text("{}")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        shutil,
        "disk_usage",
        lambda _: usage._replace(free=0 if old.exists() else 2**40),
    )
    there: list[bool] = []
    with_bits(tmp_path / "m.onnx", 8, tmp_path, lambda _: there.append(old.exists()))
    # It was there when the source was looked at, and not when the model was written.
    assert (there[0], there[-1]) == (True, False)


def test_a_damaged_one_is_made_again_and_a_whole_one_is_not_written_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    onnx.save(product(matrix(64, 64)), tmp_path / "m.onnx")
    cache = tmp_path / "cache"
    made = with_bits(tmp_path / "m.onnx", 8, cache, ignore)
    before = made.read_bytes()
    data = made.with_name("model.onnx_data")
    data.write_bytes(data.read_bytes()[:-1])
    assert with_bits(tmp_path / "m.onnx", 8, cache, ignore) == made
    assert "is damaged and is made again" in caplog.text
    assert made.read_bytes() == before
    said: list[str] = []
    with_bits(tmp_path / "m.onnx", 8, cache, lambda p: said.append(p.phase))
    assert said == ["checking the model file"]


def test_a_full_disk_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(product(matrix(64, 64)), tmp_path / "m.onnx")

    def full(model: Path, target: Path, bits: int, report: object) -> None:
        del model, bits, report
        target.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(quantizing, "write_quantized", full)
    cache = tmp_path / "cache"
    with pytest.raises(EngineStartError, match=r"no space left in .* are needed"):
        with_bits(tmp_path / "m.onnx", 4, cache, ignore)
    assert kept(cache) == []


@pytest.mark.parametrize(("bits", "rows"), [(8, 64), (4, 96), (4, 40)])
def test_the_room_that_is_needed_is_what_the_model_takes(
    tmp_path: Path, bits: int, rows: int
) -> None:
    folder = write_llama(tmp_path / "llama")
    onnx.save(product(matrix(rows, 640)), tmp_path / "m.onnx")
    for model in (folder / "model.onnx", tmp_path / "m.onnx"):
        write_quantized(model, tmp_path / "q.onnx", bits, ignore)
        files = [tmp_path / "q.onnx", tmp_path / "q.onnx_data"]
        size = sum(file.stat().st_size for file in files)
        # Names and places of what is new are counted as nothing.
        assert abs(quantizing.size_as(model, bits) - size) < 16_000


def test_a_source_that_cannot_be_read_is_no_full_cache(tmp_path: Path) -> None:
    onnx.save(product(matrix(64, 64)), tmp_path / "m.onnx")
    (tmp_path / "m.onnx_data").symlink_to(tmp_path / "gone")
    with pytest.raises(
        EngineStartError, match=r"^the model '.*m\.onnx' cannot be read: "
    ):
        with_bits(tmp_path / "m.onnx", 8, tmp_path / "cache", ignore)


@pytest.mark.parametrize("is_wide", [True, False], ids=["32 bits", "quantized"])
async def test_a_draft_is_converted_if_it_has_weights_in_32_bits(
    tmp_path: Path, cache: Path, *, is_wide: bool
) -> None:
    folder, draft = write_llama(tmp_path / "model"), write_llama(tmp_path / "d", seed=2)
    if not is_wide:
        small = tmp_path / "q.onnx"
        write_quantized(draft / "model.onnx", small, 8, ignore)
        onnx.save(onnx.load(small), draft / "model.onnx")
    async with opened(folder, weights="int4", draft=str(draft)):
        assert len(kept(cache)) == (2 if is_wide else 1)


def elsewhere() -> onnx.ModelProto:
    model = product(matrix(64, 64))
    [weight] = model.graph.initializer
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    return model


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (product(matrix(64, 64).astype(np.float64)), "no matrix product with weights"),
        (elsewhere(), r"keeps weights in 'weights\.bin'; export it with"),
    ],
    ids=["no products", "weights elsewhere"],
)
def test_what_cannot_be_converted_is_told_why(
    tmp_path: Path, model: onnx.ModelProto, reason: str
) -> None:
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(EngineStartError, match=reason):
        with_bits(tmp_path / "m.onnx", 8, tmp_path / "cache", ignore)
    assert kept(tmp_path / "cache") == []


def test_a_file_that_is_no_model_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"hello" * 50)
    with pytest.raises(EngineStartError, match="is no ONNX file"):
        with_bits(tmp_path / "m.onnx", 8, tmp_path / "cache", ignore)


def test_the_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(product(matrix(64, 64)), tmp_path / "m.onnx")
    monkeypatch.delitem(sys.modules, "atomr_infer_ort.quantizing")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match="'onnx'; run: pip install onnx"):
        with_bits(tmp_path / "m.onnx", 8, tmp_path / "cache", ignore)
