"""Products in another precision give what they gave, within what the bits can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from atomr_infer.errors import EngineStartError
from atomr_infer_tensorrt.precision import write_with_precision
from atomr_infer_tensorrt.recipe import Precision
from tests.plugins.ort.bert import BertShape, random_bert, write_bert

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.plugins.ort.graphs import Array

OTHERS = [Precision.FP16, Precision.INT8, Precision.FP8]
# Of the largest number: halves have 11 bits, whole numbers 8, fp8 4.
WITHIN = {Precision.FP16: 1e-3, Precision.INT8: 0.02, Precision.FP8: 0.06}
RANDOM = np.random.default_rng(7)


def model(folder: Path, nodes: Sequence[onnx.NodeProto], **weights: Array) -> Path:
    """A file with the input ``x`` and the output ``y``, of any size."""
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in ("x", "y")
    ]
    kept = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], kept)
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(made, folder / "model.onnx")
    return folder / "model.onnx"


def matrix(*size: int) -> Array:
    return RANDOM.standard_normal(size).astype(np.float32)


def run(path: Path, feeds: dict[str, Array]) -> Array:
    session = onnxruntime.InferenceSession(str(path))
    made: Any = session.run(None, feeds)[0]
    return np.asarray(made)


def rewritten(path: Path, precision: Precision) -> Path:
    target = path.with_name(f"{precision.value}.onnx")
    write_with_precision(path, target, precision)
    return target


def near(one: Array, other: Array, precision: Precision) -> bool:
    assert one.dtype == other.dtype == np.float32
    return bool(np.abs(one - other).max() <= WITHIN[precision] * np.abs(one).max())


PRODUCTS = {
    "MatMul": ([helper.make_node("MatMul", ["x", "w"], ["y"])], (16, 32), (4, 16)),
    "Gemm": ([helper.make_node("Gemm", ["x", "w", "b"], ["y"])], (16, 32), (4, 16)),
    "turned Gemm": (
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)],
        (32, 16),
        (4, 16),
    ),
    "Conv": (
        [helper.make_node("Conv", ["x", "w", "b"], ["y"])],
        (32, 3, 3, 3),
        (2, 3, 8, 8),
    ),
    "ConvTranspose": (
        [helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"])],
        (3, 32, 3, 3),
        (2, 3, 8, 8),
    ),
}


@pytest.mark.parametrize("precision", OTHERS, ids=lambda one: one.value)
@pytest.mark.parametrize("kind", PRODUCTS)
def test_a_product_gives_what_it_gave(
    tmp_path: Path, kind: str, precision: Precision
) -> None:
    nodes, weight, given = PRODUCTS[kind]
    weights = {"w": matrix(*weight)}
    if len(nodes[0].input) == 3:
        weights["b"] = matrix(32)
    path, x = model(tmp_path, nodes, **weights), matrix(*given)
    made = rewritten(path, precision)
    assert near(run(path, {"x": x}), run(made, {"x": x}), precision)


@pytest.mark.parametrize("precision", OTHERS, ids=lambda one: one.value)
def test_a_whole_encoder_gives_what_it_gave(
    tmp_path: Path, precision: Precision
) -> None:
    shape = BertShape()
    path = write_bert(tmp_path, shape, random_bert(shape)) / "model.onnx"
    ids = RANDOM.integers(4, shape.vocabulary, (3, 9)).astype(np.int64)
    feeds = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }
    before, after = run(path, feeds), run(rewritten(path, precision), feeds)
    # Errors of the layers add up.
    assert np.abs(before - after).max() <= 8 * WITHIN[precision] * np.abs(before).max()


@pytest.mark.parametrize(
    ("precision", "kind", "bits"),
    [
        (Precision.FP16, TensorProto.FLOAT16, 16),
        (Precision.INT8, TensorProto.INT8, 8),
        (Precision.FP8, TensorProto.FLOAT8E4M3FN, 8),
    ],
    ids=["fp16", "int8", "fp8"],
)
def test_weights_are_kept_in_the_precision_alone(
    tmp_path: Path, precision: Precision, kind: int, bits: int
) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "v"], ["y"]),
    ]
    path = model(tmp_path, nodes, w=matrix(64, 64), v=matrix(64, 64))
    made = onnx.load(str(rewritten(path, precision)))
    large = [one for one in made.graph.initializer if len(one.dims) == 2]
    assert [one.data_type for one in large] == [kind, kind]
    assert sum(len(one.raw_data) for one in large) == 2 * 64 * 64 * bits // 8


def test_a_column_of_zeros_stays_zero(tmp_path: Path) -> None:
    weight = matrix(16, 4)
    weight[:, 2] = 0
    path = model(tmp_path, [helper.make_node("MatMul", ["x", "w"], ["y"])], w=weight)
    made = run(rewritten(path, Precision.INT8), {"x": matrix(3, 16)})
    # The kernel of ONNX Runtime that it becomes rounds on its own.
    assert np.abs(made[:, 2]).max() < 1e-6


def test_numbers_that_a_half_cannot_hold_become_its_largest(tmp_path: Path) -> None:
    weight = np.full((2, 1), -1e9, np.float32)
    path = model(tmp_path, [helper.make_node("MatMul", ["x", "w"], ["y"])], w=weight)
    x = np.array([[0.5, 0.0]], np.float32)
    assert run(rewritten(path, Precision.FP16), {"x": x}).tolist() == [[-32752.0]]


def test_products_of_whole_numbers_stay_as_they_are(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["whole"], to=TensorProto.INT32),
        helper.make_node("MatMul", ["whole", "n"], ["m"]),
        helper.make_node("Cast", ["m"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    path = model(
        tmp_path, nodes, n=np.full((2, 2), 3_000_000, np.int32), w=matrix(2, 2)
    )
    made = onnx.load(str(rewritten(path, Precision.FP16)))
    assert [one.name for one in made.graph.initializer] == ["n", "w__half"]


def test_a_model_that_is_quantized_is_left_to_the_engine(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["y"]),
    ]
    path = model(
        tmp_path,
        nodes,
        s=np.array(0.1, np.float32),
        z=np.array(0, np.int8),
        w=matrix(2, 2),
    )
    with pytest.raises(EngineStartError, match="is quantized already; leave out"):
        rewritten(path, Precision.INT8)


def test_a_model_without_products_is_refused(tmp_path: Path) -> None:
    path = model(tmp_path, [helper.make_node("Relu", ["x"], ["y"])])
    with pytest.raises(EngineStartError, match="has no matrix product in fp32"):
        rewritten(path, Precision.FP16)
