"""A model's matrix products in another precision, written into its ONNX file.

Only matrix products and convolutions change: they are where the time and the weights
are.  What is between them (sums, roots, exponents) stays as it is, where half a
precision overflows.  Casts stand around each product; the engine fuses them.

- ``fp16``: weights and inputs of a product as fp16.
- ``int8``, ``fp8``: its weights in 8 bits with a scale for each column, and computed
  in fp16.  Inputs are not rounded to 8 bits, so no texts or pictures to calibrate with
  are needed.

A model that holds quantized products already (``QuantizeLinear``) is left to the
engine as it is: ask for ``model``.

Imports numpy and onnx.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from atomr_infer.errors import EngineStartError
from atomr_infer_tensorrt.recipe import Precision

if TYPE_CHECKING:
    from pathlib import Path

Array = np.ndarray[Any, np.dtype[Any]]

_PRODUCTS = {"MatMul", "Gemm", "Conv", "ConvTranspose"}
_QUANTIZED = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}

_OPSET = 21
"""The first in which a scale may be fp16 and a value fp8 with it."""

_LARGEST = {Precision.INT8: 127.0, Precision.FP8: 448.0}
_MATRIX = 2
_SMALLEST_SCALE = 2.0**-14
"""The least normal number of fp16."""


def write_with_precision(model: Path, target: Path, precision: Precision) -> None:
    """Write a model with its products in another precision.

    Args:
        model: the file.
        target: the new one; its weights are beside it.
        precision: ``fp16``, ``int8`` or ``fp8``.

    Raises:
        EngineStartError: the model has no products in fp32, or is quantized already.
        OSError: the target cannot be written.
    """
    loaded = onnx.load(str(model))
    # Types do not depend on weights, which may be more than one message can hold.
    bare = onnx.load(str(model), load_external_data=False)
    rewrite(loaded, precision, str(model), floats=float_values(bare))
    onnx.save(
        loaded,
        str(target),
        save_as_external_data=True,
        location=f"{target.name}_data",
    )


def rewrite(
    model: onnx.ModelProto, precision: Precision, name: str, *, floats: set[str]
) -> None:
    """Change a model in place.

    Args:
        model: the model, with its weights.
        precision: ``fp16``, ``int8`` or ``fp8``.
        name: what errors call it.
        floats: those of its values that are fp32.

    Raises:
        EngineStartError: as :func:`write_with_precision`.
    """
    kinds = {node.op_type for node in model.graph.node}
    if kinds & _QUANTIZED:
        raise EngineStartError(
            f"{name!r} is quantized already; leave out precision = {precision.value!r}"
        )
    weights = {one.name: one for one in model.graph.initializer}
    graph = _Graph(model.graph, precision, weights, floats)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        graph.add(node)
    if not graph.changed:
        raise EngineStartError(
            f"{name!r} has no matrix product in fp32; leave out "
            f"precision = {precision.value!r}"
        )
    graph.drop_unused()
    # They say types that are no more.
    del model.graph.value_info[:]
    for one in model.opset_import:
        if one.domain in {"", "ai.onnx"}:
            one.version = max(one.version, _OPSET)
    model.ir_version = max(model.ir_version, 10)


@attrs.define
class _Graph:
    """A graph that is written anew, node by node."""

    proto: onnx.GraphProto
    precision: Precision
    weights: dict[str, onnx.TensorProto]
    floats: set[str]
    changed: int = 0
    made: dict[tuple[str, str], str] = attrs.field(factory=dict)

    def add(self, node: onnx.NodeProto) -> None:
        if node.op_type in _PRODUCTS and self._is_float(node):
            self._add_product(node)
        else:
            self.proto.node.append(node)

    def _is_float(self, node: onnx.NodeProto) -> bool:
        """Whether a product is in fp32: whether what is known of its inputs is."""
        known = [
            self.weights[name].data_type == TensorProto.FLOAT
            for name in node.input
            if name in self.weights
        ]
        return all(known) and all(
            name in self.floats for name in node.input if name not in self.weights
        )

    def _add_product(self, node: onnx.NodeProto) -> None:
        self.changed += 1
        inputs = [
            self._halved(name, node, place) if name else ""
            for place, name in enumerate(node.input)
        ]
        [output] = node.output
        half = f"{output}__half"
        changed = onnx.NodeProto()
        changed.CopyFrom(node)
        del changed.input[:]
        changed.input.extend(inputs)
        changed.output[0] = half
        self.proto.node.append(changed)
        self.proto.node.append(
            helper.make_node("Cast", [half], [output], to=TensorProto.FLOAT)
        )

    def _halved(self, name: str, node: onnx.NodeProto, place: int) -> str:
        """Return the fp16 of a value; one that many products take is cast once."""
        weight = self.weights.get(name)
        quantizes = (
            self.precision in _LARGEST
            and weight is not None
            and place == 1
            and len(weight.dims) >= _MATRIX
        )
        key = (name, f"{node.op_type}" if quantizes else "half")
        if key in self.made:
            return self.made[key]
        if weight is None:
            made = f"{name}__half"
            self.proto.node.append(
                helper.make_node("Cast", [name], [made], to=TensorProto.FLOAT16)
            )
        elif quantizes:
            made = self._quantized(weight, node)
        else:
            made = f"{name}__half"
            value = numpy_helper.to_array(weight)
            self._keep(made, as_half(value))
        self.made[key] = made
        return made

    def _keep(self, name: str, value: Array) -> None:
        self.proto.initializer.append(numpy_helper.from_array(value, name))

    def _quantized(self, weight: onnx.TensorProto, node: onnx.NodeProto) -> str:
        """Return a weight that is kept in 8 bits, as fp16."""
        value = numpy_helper.to_array(weight)
        axis = columns_axis(node, value.ndim)
        scale = scales_of(value, axis, _LARGEST[self.precision])
        name = f"{weight.name}__{self.precision.value}_{node.op_type}"
        shape = [1] * value.ndim
        shape[axis] = -1
        divided = value / scale.astype(np.float32).reshape(shape)
        if self.precision is Precision.INT8:
            whole = np.clip(np.rint(divided), -127, 127).astype(np.int8)
            self._keep(name, whole)
        else:
            self.proto.initializer.append(_as_fp8(name, divided))
        self._keep(f"{name}_scale", scale)
        made = f"{name}__half"
        self.proto.node.append(
            helper.make_node(
                "DequantizeLinear", [name, f"{name}_scale"], [made], axis=axis
            )
        )
        return made

    def drop_unused(self) -> None:
        """Leave out weights that only the products of before took."""
        used = {name for node in self.proto.node for name in node.input}
        used |= {one.name for one in self.proto.output}
        used |= {name for node in self.proto.node for name in _inner_names(node)}
        kept = [one for one in self.proto.initializer if one.name in used]
        del self.proto.initializer[:]
        self.proto.initializer.extend(kept)


def columns_axis(node: onnx.NodeProto, dimensions: int) -> int:
    """Return the axis of a product's second input that its output keeps."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    turned = any(one.name == "transB" and one.i for one in node.attribute)
    return dimensions - (2 if turned else 1)


def scales_of(value: Array, axis: int, largest: float) -> Array:
    """Return the scale of each column, as fp16: its largest number over ``largest``.

    >>> scales_of(np.array([[1.0, 0.0], [-2.0, 0.0]]), 1, 2.0).tolist()
    [1.0, 6.103515625e-05]
    """
    others = tuple(n for n in range(value.ndim) if n != axis)
    scale: Array = np.abs(value).max(axis=others) / largest
    return np.maximum(scale, _SMALLEST_SCALE).astype(np.float16)


def as_half(value: Array) -> Array:
    """Return fp16 of it; what is too large becomes the largest that there is.

    >>> as_half(np.array([1e9, -1e9, 0.5])).tolist()
    [65504.0, -65504.0, 0.5]
    """
    most = float(np.finfo(np.float16).max)
    return np.clip(value, -most, most).astype(np.float16)


def _as_fp8(name: str, value: Array) -> onnx.TensorProto:
    eighths = value.astype(helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E4M3FN))
    return helper.make_tensor(
        name,
        TensorProto.FLOAT8E4M3FN,
        value.shape,
        eighths.view(np.uint8).tobytes(),
        raw=True,
    )


def float_values(model: onnx.ModelProto) -> set[str]:
    """Return the values of a model that are fp32."""
    found = onnx.shape_inference.infer_shapes(model).graph
    return {
        one.name
        for one in (*found.input, *found.value_info, *found.output)
        if one.type.tensor_type.elem_type == TensorProto.FLOAT
    }


def _inner_names(node: onnx.NodeProto) -> set[str]:
    """Return the names that the graphs inside a node take."""
    names: set[str] = set()
    for one in node.attribute:
        for inner in (*one.graphs, *([one.g] if one.HasField("g") else [])):
            for other in inner.node:
                names |= set(other.input) | _inner_names(other)
    return names
