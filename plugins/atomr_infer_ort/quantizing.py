"""Writing an ONNX model anew with its weights in 8 or 4 bits.

The weights of matrix products become blocks of 32 numbers, each with a scale and a
zero point (``MatMulNBits``), which ONNX Runtime multiplies as they are.  A product that
makes an output of the model, as the one behind ``logits``, keeps 8 bits: an error there
is in every token.  What else the model has stays as it is.

One weight is in memory at a time; large ones are in a file beside the new model.

Imports numpy and onnx.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from atomr_infer.errors import EngineStartError
from atomr_infer.runtimes.contract import Progress
from atomr_infer_ort.layout import weights_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from atomr_infer.runtimes.kept_models import Report

Array = np.ndarray[Any, np.dtype[Any]]

BLOCK = 32
_DOMAIN = "com.microsoft"
_BITS_OF_OUTPUTS = 8
_AS_INT8 = 4
"""How exactly inputs are multiplied: in 8 bits, which processors do fastest."""

_INLINE_BYTES = 1024
"""A smaller value is kept in the model itself."""

_MATRIX = 2
_BYTE_BITS = 8


def write_quantized(model: Path, target: Path, bits: int, report: Report) -> None:
    """Write a model with its products' weights in fewer bits.

    Args:
        model: the ``.onnx`` file; weights may be beside it.
        target: the new one; ``TARGET_data`` is written beside it.
        bits: 8 or 4.
        report: told how far it has come.

    Raises:
        EngineStartError: it is no ONNX file, or no product of it has weights in 32
            bits.
        OSError: a file cannot be read or written.
    """
    loaded = _load(model)
    weights = {one.name: one for one in loaded.graph.initializer}
    products = _products(loaded.graph, weights)
    if not products:
        raise EngineStartError(
            f"{str(model)!r} has no matrix product with weights in 32 bits: it may be "
            "quantized already; leave out weights"
        )
    outputs = {one.name for one in loaded.graph.output}
    with target.with_name(f"{target.name}_data").open("wb") as data:
        writer = _Writer(model, data)
        total = len(weights)
        for done, one in enumerate(weights.values()):
            report(Progress("converting the model", done, total, "tensors"))
            nodes = products.get(one.name)
            if nodes is None:
                writer.copy(one)
                continue
            to_output = any(node.output[0] in outputs for node in nodes)
            kept = _BITS_OF_OUTPUTS if to_output else bits
            matrix = writer.value_of(one)
            for part, value in in_blocks(matrix, kept).items():
                writer.add(f"{one.name}_{part}", value)
            for node in nodes:
                _quantize(node, matrix.shape, kept)
        report(Progress("converting the model", total, total, "tensors"))
    del loaded.graph.initializer[:]
    loaded.graph.initializer.extend(writer.kept)
    if all(one.domain != _DOMAIN for one in loaded.opset_import):
        loaded.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    with target.open("wb") as file:
        file.write(loaded.SerializeToString())


def _load(path: Path) -> onnx.ModelProto:
    try:
        loaded = onnx.load(str(path), load_external_data=False)
    except OSError:
        raise
    # The library's errors of a damaged file have no common class but Exception.
    except Exception as error:
        raise EngineStartError(f"{str(path)!r} is no ONNX file: {error}") from error
    known = {file.name for file in weights_files(path)}
    for one in loaded.graph.initializer:
        for entry in one.external_data:
            # What is not known by its name is not in the key of what is kept.
            if entry.key == "location" and entry.value not in known:
                raise EngineStartError(
                    f"{str(path)!r} keeps weights in {entry.value!r}; export it with "
                    f"its weights in {path.name}_data"
                )
    return loaded


def _products(
    graph: onnx.GraphProto, weights: dict[str, TensorProto]
) -> dict[str, list[onnx.NodeProto]]:
    """Return the products of each weight that is used for nothing else."""
    found: dict[str, list[onnx.NodeProto]] = {}
    others = set()
    for node in _nodes(graph):
        for place, name in enumerate(node.input):
            if name not in weights:
                continue
            if node.op_type == "MatMul" and place == 1 and _is_matrix(weights[name]):
                found.setdefault(name, []).append(node)
            else:
                others.add(name)
    return {name: nodes for name, nodes in found.items() if name not in others}


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:  # the branches of an If
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _is_matrix(weight: TensorProto) -> bool:
    return len(weight.dims) == _MATRIX and weight.data_type == TensorProto.FLOAT


def _quantize(node: onnx.NodeProto, shape: tuple[int, ...], bits: int) -> None:
    """Make a product one of blocks, in place."""
    given, weight = node.input
    del node.input[:]
    node.input.extend([given, *(f"{weight}_{part}" for part in ("q", "s", "z"))])
    node.op_type, node.domain = "MatMulNBits", _DOMAIN
    said = {"K": shape[0], "N": shape[1], "bits": bits, "block_size": BLOCK}
    for name, value in {**said, "accuracy_level": _AS_INT8}.items():
        node.attribute.append(helper.make_attribute(name, value))


def in_blocks(matrix: Array, bits: int) -> dict[str, Array]:
    """Return a matrix's numbers, scales and zero points, as ``MatMulNBits`` has them.

    Args:
        matrix: rows are inputs, columns outputs.
        bits: of a number, 8 or 4; several are in a byte, the first one lowest.
    """
    rows, columns = matrix.shape
    blocks = -(-rows // BLOCK)
    filled = np.zeros((columns, blocks * BLOCK), np.float32)
    filled[:, :rows] = matrix.T
    parts = filled.reshape(columns, blocks, BLOCK)
    highest = 2**bits - 1
    low = np.minimum(parts.min(-1), 0)
    scale = (np.maximum(parts.max(-1), 0) - low) / highest
    scale[scale == 0] = 1
    zero = np.clip(np.round(-low / scale), 0, highest).astype(np.uint8)
    numbers = np.round(parts / scale[..., None]) + zero[..., None]
    whole = np.clip(numbers, 0, highest).astype(np.uint8)
    return {
        "q": _packed(whole, bits),
        "s": scale.astype(np.float32).reshape(-1),
        "z": _packed(zero, bits).reshape(-1),
    }


def _packed(numbers: Array, bits: int) -> Array:
    """Return numbers with as many in a byte as there is room for, row by row."""
    if bits == _BYTE_BITS:
        return numbers
    if numbers.shape[-1] % 2:
        wider = [(0, 0)] * (numbers.ndim - 1) + [(0, 1)]
        numbers = np.pad(numbers, wider)
    packed: Array = numbers[..., ::2] | (numbers[..., 1::2] << bits)
    return packed


class _Writer:
    """The values of a new model: small ones in it, large ones in a file beside it.

    Args:
        model: the old one, beside which values may be.
        data: the file.
    """

    def __init__(self, model: Path, data: BinaryIO) -> None:
        self._model = model
        self._data = data
        self.kept: list[TensorProto] = []

    def value_of(self, one: TensorProto) -> Array:
        """Return a value of the old model."""
        return numpy_helper.to_array(one, str(self._model.parent))

    def copy(self, one: TensorProto) -> None:
        """Keep a value as it is."""
        is_small = prod(one.dims) < _INLINE_BYTES and not one.external_data
        if one.data_type == TensorProto.STRING or is_small:
            self.kept.append(one)
        else:
            self.add(one.name, self.value_of(one), one.data_type)

    def add(self, name: str, value: Array, data_type: int | None = None) -> None:
        """Keep a new value."""
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        kept = TensorProto(name=name, dims=value.shape, data_type=data_type or kind)
        # Not as the value's own bytes, of which a message holds 2 GiB.
        if value.nbytes >= _INLINE_BYTES:
            kept.data_location = TensorProto.EXTERNAL
            said = {"location": Path(self._data.name).name, "offset": self._data.tell()}
            for key, told in {**said, "length": value.nbytes}.items():
                kept.external_data.add(key=key, value=str(told))
            self._data.write(np.ascontiguousarray(value).data)
        else:
            kept.raw_data = value.tobytes()
        self.kept.append(kept)
