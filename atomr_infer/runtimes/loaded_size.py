"""How many bytes weights take where an engine loads floats in another width.

A model that is kept in 32 bits is mostly loaded in 16, so its files say too much.  What
is told here is a lower bound: caches and buffers come on top, and where nobody says
what a file holds, half of it counts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from atomr_infer.runtimes.weights import safetensors_tensors, weight_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from atomr_infer.runtimes.weights import Tensor

_FLOATS = ("F64", "F32", "F16", "BF16")
"""What is loaded in another width, in the words of safetensors."""

_LEAST_BYTES = 0.5
"""What a number of another kind takes, at least.  The hub counts a quantized model's as
they are unpacked: of one ``I32`` eight of 4 bits."""

_UNTOLD = 0.5
"""The share of a file's bytes that counts where it does not say what it holds."""


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
    return sum(_of_file(file, float_bytes) for file in weight_files(model))


def kept_bytes(model: Path) -> int:
    """Return what the files take that are read when a model is loaded."""
    return sum(file.stat().st_size for file in weight_files(model))


def counted_bytes(numbers: Mapping[str, int], float_bytes: float) -> int:
    """Return what numbers take once they are loaded, at least.

    Args:
        numbers: how many there are of each kind, in the words of safetensors; several
            may be packed into one of another kind.
        float_bytes: as of :func:`loaded_bytes`.

    >>> counted_bytes({"F32": 10, "BF16": 10, "I32": 8}, 2)
    44
    """
    return int(
        sum(
            count * (float_bytes if kind in _FLOATS else _LEAST_BYTES)
            for kind, count in numbers.items()
        )
    )


def has_packed(numbers: Mapping[str, int]) -> bool:
    """Return whether there are numbers that may be packed into those of another kind.

    >>> has_packed({"BF16": 10, "I32": 8}), has_packed({"BF16": 10})
    (True, False)
    """
    return any(kind not in _FLOATS for kind in numbers)


def untold_bytes(file_bytes: int) -> int:
    """Return what counts of a file that does not say what it holds."""
    return int(file_bytes * _UNTOLD)


def _of_file(file: Path, float_bytes: float) -> int:
    tensors = safetensors_tensors(file)
    if tensors is None:
        return untold_bytes(file.stat().st_size)
    return int(sum(_of_tensor(tensor, float_bytes) for tensor in tensors))


def _of_tensor(tensor: Tensor, float_bytes: float) -> float:
    is_float = tensor.kind in _FLOATS
    return math.prod(tensor.shape) * float_bytes if is_float else tensor.size
