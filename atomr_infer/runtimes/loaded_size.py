"""How many bytes weights take where an engine loads floats in another width.

A model that is kept in 32 bits is mostly loaded in 16, so its files say too much.  What
is told here is a lower bound: caches and buffers come on top, and where nobody says
what a file holds, half of it counts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from atomr_infer.runtimes.weights import safetensors_header, weight_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_FLOATS = ("F64", "F32", "F16", "BF16")
"""What is loaded in another width, in the words of safetensors."""

_LEAST_BYTES = 0.5
"""What a number of an unknown kind takes, at least: 4 bits."""

_UNTOLD = 0.5
"""The share of a file's bytes that counts where it does not say what it holds."""

_BYTES = {"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1}


def loaded_bytes(model: Path, float_bytes: float) -> int:
    """Return what a model's weights take once they are loaded, at least.

    Args:
        model: one file, or a directory.
        float_bytes: what the engine takes for each float of 16 bits or more.

    Returns:
        0: there are none of a known kind.

    >>> from pathlib import Path
    >>> loaded_bytes(Path("/nowhere"), 2)
    0
    """
    return sum(_of_file(file, float_bytes) for file in _files(model))


def kept_bytes(model: Path) -> int:
    """Return what the files take that are read when a model is loaded."""
    return sum(file.stat().st_size for file in _files(model))


def _files(model: Path) -> list[Path]:
    files = {file.name: file for file in weight_files(model)}
    return [files[name] for name in without_copies([*files])]


def counted_bytes(numbers: Mapping[str, int], float_bytes: float) -> int:
    """Return what numbers take once they are loaded, at least.

    Args:
        numbers: how many there are of each kind, in the words of safetensors.
        float_bytes: as of :func:`loaded_bytes`.

    >>> counted_bytes({"F32": 10, "BF16": 10, "I32": 5}, 2)
    60
    """
    return int(sum(n * _width(kind, float_bytes) for kind, n in numbers.items()))


def without_copies(names: list[str]) -> list[str]:
    """Leave out the files that hold a model a second time, in its makers' own layout.

    >>> without_copies(["consolidated.safetensors", "model.safetensors"])
    ['model.safetensors']
    >>> without_copies(["consolidated.safetensors"])
    ['consolidated.safetensors']
    """
    usual = [name for name in names if not name.startswith("consolidated")]
    return usual or names


def untold_bytes(file_bytes: int) -> int:
    """Return what counts of a file that does not say what it holds."""
    return int(file_bytes * _UNTOLD)


def _width(kind: str, float_bytes: float) -> float:
    return float_bytes if kind in _FLOATS else _BYTES.get(kind, _LEAST_BYTES)


def _of_file(file: Path, float_bytes: float) -> int:
    header = safetensors_header(file) if file.suffix == ".safetensors" else None
    if header is None:
        return untold_bytes(file.stat().st_size)
    # What is without offsets are the file's own remarks.
    tensors = [
        each
        for each in header.values()
        if isinstance(each, dict) and {"dtype", "shape", "data_offsets"} <= each.keys()
    ]
    return int(sum(_of_tensor(tensor, float_bytes) for tensor in tensors))


def _of_tensor(tensor: Mapping[str, Any], float_bytes: float) -> float:
    if tensor["dtype"] in _FLOATS:
        shape: list[int] = tensor["shape"]
        return math.prod(shape) * float_bytes
    begin, end = tensor["data_offsets"]
    size: int = end - begin
    return size
