"""How many bytes a model's weights take, told from its files without loading them.

A lower bound of what an engine needs: caches and buffers come on top.
"""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING, Any

from atomr_infer.runtimes.gguf_files import part_paths

if TYPE_CHECKING:
    from pathlib import Path

_KINDS = (".safetensors", ".gguf", ".bin")
"""Of the files of a directory, the first kind that is there counts: a model is often
there twice."""

_MAX_HEADER_BYTES = 100 * 2**20


def weights_bytes(model: Path) -> int:
    """Return the size of a model's weights: one file, or those of a directory.

    Of a split ``.gguf`` file, all parts that are beside it count.

    Returns:
        0: there are none of a known kind.

    >>> from pathlib import Path
    >>> weights_bytes(Path("/nowhere"))
    0
    """
    return sum(file.stat().st_size for file in weight_files(model))


def weight_files(model: Path) -> tuple[Path, ...]:
    """Return the files that hold a model's weights, in order."""
    if model.is_file():
        return tuple(part for part in part_paths(model) if part.is_file())
    for kind in _KINDS:
        found = tuple(sorted(model.glob(f"*{kind}")))
        if found:
            return found
    return ()


def quantized_bytes(model: Path, bytes_per_weight: float) -> int:
    """Return what a directory's weights take when its matrices are quantized.

    A file whose header says nothing of use counts as it is.

    Args:
        model: the directory.
        bytes_per_weight: what one of a matrix takes then, its scales among it.
    """
    return sum(_quantized(file, bytes_per_weight) for file in weight_files(model))


def _quantized(file: Path, bytes_per_weight: float) -> int:
    size = file.stat().st_size
    header = safetensors_header(file) if file.suffix == ".safetensors" else None
    if header is None:
        return size
    return int(sum(_tensor(one, bytes_per_weight) for one in header.values()))


def _tensor(tensor: Any, bytes_per_weight: float) -> float:  # noqa: ANN401 - JSON
    shape, offsets = tensor.get("shape"), tensor.get("data_offsets")
    if offsets is None:
        return 0  # the file's own remarks
    stays = len(shape) < 2
    size: int = offsets[1] - offsets[0]
    return size if stays else min(size, math.prod(shape) * bytes_per_weight)


def safetensors_header(file: Path) -> dict[str, Any] | None:
    """Return what a safetensors file says of its tensors; None: it makes no sense."""
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > _MAX_HEADER_BYTES:
                return None
            header = json.loads(opened.read(length))
    except (struct.error, ValueError):
        return None  # the engine says what is wrong with it
    return header if isinstance(header, dict) else None
