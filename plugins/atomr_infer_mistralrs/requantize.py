"""Rewriting a GGUF file's tensors as Q8_0.

mistral.rs 0.9.5 has fast CPU kernels for Q8_0 and slow ones for most other
quantizations: SmolLM2-135M as Q4_1 gives 2-5 tokens per second on two cores, as
Q8_0 over 50.  The weights are those of the source, to 8 bits; nothing that the
source has lost comes back.

Imports numpy and gguf.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from gguf import (
    GGMLQuantizationType,
    GGUFReader,
    GGUFValueType,
    GGUFWriter,
    LlamaFileType,
    ReaderField,
    ReaderTensor,
    quants,
)

from atomr_infer.errors import EngineStartError
from atomr_infer.runtimes.contract import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from atomr_infer.runtimes.kept_models import Report

_Array = np.ndarray[Any, np.dtype[Any]]

# What chooses a token's experts is small, and an error there is a wrong expert.
_ROUTER = "ffn_gate_inp"

# The writer makes these itself.
_WRITERS_OWN = {"general.architecture", "general.alignment"}


def size_as_q8_0(source: Path) -> int | None:
    """Return the bytes of the tensors as Q8_0; None when nothing would change.

    Raises:
        EngineStartError: as :func:`requantize`.
    """
    tensors = _open(source).tensors
    types = [_target_type(tensor) for tensor in tensors]
    if types == [tensor.tensor_type for tensor in tensors]:
        return None
    return sum(map(_tensor_bytes, tensors, types))


def requantize(source: Path, target: Path, report: Report) -> None:
    """Write ``source`` to ``target`` with its matrices as Q8_0.

    One tensor is in memory at a time.

    Raises:
        EngineStartError: the source is not a GGUF file, is one part of several,
            or holds a quantization that cannot be read.
        OSError: the target cannot be written.
    """
    reader = _open(source)
    writer = GGUFWriter(target, _text(reader, "general.architecture"))
    try:
        _write(reader, writer, report)
    except NotImplementedError as error:
        raise EngineStartError(
            f"{source.name} cannot be rewritten as Q8_0: {error}; "
            'set quantization = "none"'
        ) from error
    finally:
        writer.close()


def _open(source: Path) -> GGUFReader:
    try:
        reader = GGUFReader(source)
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise EngineStartError(f"{source.name} is not a GGUF file: {error}") from error
    if reader.get_field("split.count") is not None:
        raise EngineStartError(
            f"{source.name} is one part of a split model; merge the parts first"
        )
    return reader


def _write(reader: GGUFReader, writer: GGUFWriter, report: Report) -> None:
    for field in _fields(reader):
        value_type, *element = field.types
        writer.add_key_value(
            field.name, _value(field), value_type, element[-1] if element else None
        )
    types = [_target_type(tensor) for tensor in reader.tensors]
    for tensor, kind in zip(reader.tensors, types, strict=True):
        _announce(writer, tensor, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    total = len(types)
    for done, (tensor, kind) in enumerate(zip(reader.tensors, types, strict=True)):
        report(Progress("converting the model to Q8_0", done, total, "tensors"))
        _write_tensor(writer, _data(tensor, kind))
    report(Progress("converting the model to Q8_0", total, total, "tensors"))


def _write_tensor(writer: GGUFWriter, data: _Array) -> None:
    # Not write_tensor_data: numpy's tofile says nothing of why it failed, and a
    # full disk must be told from others.
    assert writer.fout is not None
    file = writer.fout[0]
    writer.write_padding(file, file.tell())
    file.write(data.data)
    writer.write_padding(file, data.nbytes)


def _fields(reader: GGUFReader) -> Iterator[ReaderField]:
    for name, field in reader.fields.items():
        # "GGUF." fields are the reader's view of the header.
        if not name.startswith("GGUF.") and name not in _WRITERS_OWN:
            yield field


def _value(field: ReaderField) -> object:
    if field.name == "general.file_type":
        return int(LlamaFileType.MOSTLY_Q8_0)
    return field.contents()


def _text(reader: GGUFReader, name: str) -> str:
    field = reader.get_field(name)
    if field is None or field.types[0] != GGUFValueType.STRING:
        raise EngineStartError(f"the GGUF file does not say its {name}")
    return str(field.contents())


def _target_type(tensor: ReaderTensor) -> GGMLQuantizationType:
    kind: GGMLQuantizationType = tensor.tensor_type
    is_matrix = len(tensor.shape) > 1  # norms and biases stay exact
    # Q8_0 works in blocks of 32 weights; a row that is no multiple stays.
    if not is_matrix or int(tensor.shape[0]) % 32 or _ROUTER in tensor.name:
        return kind
    return GGMLQuantizationType.Q8_0


def _announce(
    writer: GGUFWriter, tensor: ReaderTensor, kind: GGMLQuantizationType
) -> None:
    shape = _shape(tensor)
    size = _tensor_bytes(tensor, kind)
    if kind in {GGMLQuantizationType.F32, GGMLQuantizationType.F16}:
        writer.add_tensor_info(tensor.name, shape, tensor.data.dtype, size)
        return
    # For packed types, the writer takes the shape in bytes.
    packed = quants.quant_shape_to_byte_shape(shape, kind)
    writer.add_tensor_info(tensor.name, packed, np.dtype(np.uint8), size, kind)


def _shape(tensor: ReaderTensor) -> tuple[int, ...]:
    return tuple(int(length) for length in reversed(tensor.shape))


def _tensor_bytes(tensor: ReaderTensor, kind: GGMLQuantizationType) -> int:
    *rows, row = quants.quant_shape_to_byte_shape(_shape(tensor), kind)
    return int(np.prod(rows, dtype=np.int64)) * int(row)


def _data(tensor: ReaderTensor, kind: GGMLQuantizationType) -> _Array:
    if kind == tensor.tensor_type:
        return np.ascontiguousarray(tensor.data)
    return quants.quantize(quants.dequantize(tensor.data, tensor.tensor_type), kind)
