"""Writing an ONNX model anew with its weights in 8 or 4 bits.

The weights of matrix products become blocks of 32 numbers, each with a scale and a
zero point (``MatMulNBits``), which ONNX Runtime multiplies as they are.  A product that
makes an output of the model, as the one behind ``logits``, keeps 8 bits: an error there
is in every token.  What else the model has stays as it is.

One weight is in memory at a time; large ones are in a file beside the new model.

Imports numpy and onnx.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from atomr_infer.errors import EngineStartError
from atomr_infer.runtimes.contract import Progress
from atomr_infer.runtimes.kept_models import source_errors
from atomr_infer_ort.layout import weights_bytes, weights_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
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
_NAMED_INPUTS = 4
"""The first version of ONNX in which a weight need not be an input, too."""

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
    graph = loaded.graph
    weights = {one.name: one for one in graph.initializer}
    products = _products(graph)
    if not products:
        raise EngineStartError(
            f"{str(model)!r} has no matrix product with weights in 32 bits: it may be "
            "quantized already; leave out weights"
        )
    names = _names(graph)
    with target.with_name(f"{target.name}_data").open("wb") as data:
        writer = _Writer(model, data)
        total = len(weights)
        for done, one in enumerate(weights.values()):
            report(Progress("converting the model", done, total, "tensors"))
            nodes = products.get(one.name)
            if nodes is None:
                writer.copy(one)
                continue
            kept = _bits_of(nodes, graph, bits)
            matrix = writer.value_of(one)
            added = []
            for part, value in in_blocks(matrix, kept).items():
                added.append(_free(f"{one.name}_{part}", names))
                writer.add(added[-1], value)
            for node in nodes:
                _quantize(node, added, matrix.shape, kept)
        report(Progress("converting the model", total, total, "tensors"))
    _replace_weights(loaded, writer.kept, set(products))
    with target.open("wb") as file:
        file.write(loaded.SerializeToString())


def has_products(model: Path) -> bool:
    """Whether a model has a product with weights in 32 bits.

    Raises:
        EngineStartError: it is no ONNX file.
    """
    return bool(_products(_load(model).graph))


def size_as(model: Path, bits: int) -> int:
    """Return the bytes that a model has with its products' weights in fewer bits.

    Raises:
        EngineStartError: it is no ONNX file.
    """
    graph = _load(model).graph
    dims = {one.name: one.dims for one in graph.initializer}
    size = weights_bytes(model)
    for name, nodes in _products(graph).items():
        rows, columns = dims[name]
        kept = _bits_of(nodes, graph, bits)
        blocks = -(-rows // BLOCK)
        numbers = blocks * BLOCK * kept // _BYTE_BITS
        zeros = -(-blocks * kept // _BYTE_BITS)
        size += columns * (numbers + 4 * blocks + zeros - 4 * rows)
    return size


def _bits_of(nodes: Sequence[onnx.NodeProto], graph: onnx.GraphProto, bits: int) -> int:
    """Return the bits of a weight, by what its products make."""
    outputs = {one.name for one in graph.output}
    to_output = any(node.output[0] in outputs for node in nodes)
    return _BITS_OF_OUTPUTS if to_output else bits


def _names(graph: onnx.GraphProto) -> set[str]:
    """Return the names of all values."""
    found = {one.name for one in (*graph.initializer, *graph.input)}
    for node in _nodes(graph):
        found.update(node.input, node.output)
    return found


def _free(name: str, names: set[str]) -> str:
    """Return a name that no value has, as near to ``name`` as can be, and take it."""
    while name in names:
        name += "_"
    names.add(name)
    return name


def _replace_weights(
    model: onnx.ModelProto, kept: Sequence[TensorProto], replaced: set[str]
) -> None:
    graph = model.graph
    del graph.initializer[:]
    graph.initializer.extend(kept)
    # A weight that is an input as well would be one without a value.
    inputs = [one for one in graph.input if one.name not in replaced]
    del graph.input[:]
    graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, _NAMED_INPUTS)
    if all(one.domain != _DOMAIN for one in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))


def _load(path: Path) -> onnx.ModelProto:
    with source_errors(path), _damage(path):
        loaded = onnx.load(str(path), load_external_data=False)
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


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    # The library's errors of a damaged file have no common class but Exception.
    except Exception as error:
        raise EngineStartError(f"{str(path)!r} is no ONNX file: {error}") from error


def _products(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """Return the products of each weight that is used for nothing else."""
    weights = {one.name: one for one in graph.initializer}
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


def _quantize(
    node: onnx.NodeProto, parts: Sequence[str], shape: tuple[int, ...], bits: int
) -> None:
    """Make a product one of blocks, in place."""
    given, _ = node.input
    del node.input[:]
    node.input.extend([given, *parts])
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
        """Return a value of the old model.

        Raises:
            EngineStartError: it cannot be read.
        """
        with source_errors(self._model), _damage(self._model):
            return numpy_helper.to_array(one, str(self._model.parent))

    def copy(self, one: TensorProto) -> None:
        """Keep a value as it is, whatever its type.

        Raises:
            EngineStartError: it cannot be read.
        """
        if one.data_location == TensorProto.EXTERNAL:
            stored = self._stored({each.key: each.value for each in one.external_data})
        elif len(one.raw_data) >= _INLINE_BYTES:
            stored = one.raw_data
        else:  # the old model's file had room for it, too
            self.kept.append(one)
            return
        kept = TensorProto(name=one.name, dims=one.dims, data_type=one.data_type)
        self._keep(kept, stored)

    def add(self, name: str, value: Array) -> None:
        """Keep a new value."""
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        kept = TensorProto(name=name, dims=value.shape, data_type=kind)
        self._keep(kept, np.ascontiguousarray(value).tobytes())

    def _stored(self, said: Mapping[str, str]) -> bytes:
        path = self._model.parent / said["location"]
        length = int(said.get("length", -1))
        with source_errors(path), path.open("rb") as file:
            file.seek(int(said.get("offset", 0)))
            stored = file.read(length)
        if len(stored) < length:
            raise EngineStartError(f"{str(path)!r} is cut off")
        return stored

    def _keep(self, kept: TensorProto, stored: bytes) -> None:
        # Not as the value's own bytes, of which a message holds 2 GiB.
        if len(stored) >= _INLINE_BYTES:
            kept.data_location = TensorProto.EXTERNAL
            said = {"location": Path(self._data.name).name, "offset": self._data.tell()}
            for key, told in {**said, "length": len(stored)}.items():
                kept.external_data.add(key=key, value=str(told))
            self._data.write(stored)
        else:
            kept.raw_data = stored
        self.kept.append(kept)
