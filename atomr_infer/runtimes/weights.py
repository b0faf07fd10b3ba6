"""How many bytes a model's weights take, told from its files without loading them.

A lower bound of what an engine needs: caches and buffers come on top.
"""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING, Any

import attrs

from atomr_infer.runtimes.gguf_files import part_paths

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_KINDS = (".safetensors", ".gguf", ".bin")
"""Of the files of a directory, the first kind that is there counts: a model is often
there twice."""

_INDEX = "model.safetensors.index.json"

_MAX_HEADER_BYTES = 100 * 2**20

_MOST_BYTES = 4
"""What a number takes in a file that does not say so, at most: 32 bits."""


@attrs.frozen
class Tensor:
    """What a safetensors file says of one tensor.

    Attributes:
        kind: of its numbers, in the words of safetensors.
        shape: how many of them, along each side.
        size: bytes in the file.
    """

    kind: str
    shape: tuple[int, ...]
    size: int


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
    """Return the files that an engine reads a model's weights from, in order.

    Of a directory these are neither a second copy of the model nor what its index does
    not name.  A link that leads nowhere is no file.
    """
    if model.is_file():
        return tuple(part for part in part_paths(model) if part.is_file())
    for kind in _KINDS:
        found = {file.name: file for file in model.glob(f"*{kind}") if file.is_file()}
        if found:
            read = without_copies(_indexed(model, found))
            return tuple(found[name] for name in sorted(read))
    return ()


def _indexed(model: Path, names: Iterable[str]) -> list[str]:
    """Return those of a directory's files that its index names; all, without one."""
    try:
        index = json.loads((model / _INDEX).read_bytes())
    except (OSError, ValueError):
        return [*names]  # it has none, or one that the engine complains of
    placed = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(placed, dict):
        return [*names]
    named = {name for name in placed.values() if isinstance(name, str)}
    # One that names none of them is of others, as beside files of another kind.
    return [name for name in names if name in named] or [*names]


def without_copies(names: list[str]) -> list[str]:
    """Leave out the files that hold a model a second time, in its makers' own layout.

    >>> without_copies(["consolidated.safetensors", "model.safetensors"])
    ['model.safetensors']
    >>> without_copies(["consolidated.safetensors"])
    ['consolidated.safetensors']
    """
    usual = [name for name in names if not name.startswith("consolidated")]
    return usual or names


def quantized_bytes(model: Path, bytes_per_weight: float) -> int:
    """Return what a directory's weights take when its matrices are quantized, at least.

    A file that does not say what it holds counts as matrices of 32 bits.

    Args:
        model: the directory.
        bytes_per_weight: what one of a matrix takes then, its scales among it.
    """
    return sum(_quantized(file, bytes_per_weight) for file in weight_files(model))


def _quantized(file: Path, bytes_per_weight: float) -> int:
    tensors = safetensors_tensors(file)
    if tensors is None:
        share = min(1.0, bytes_per_weight / _MOST_BYTES)
        return int(file.stat().st_size * share)
    return int(sum(_smaller(tensor, bytes_per_weight) for tensor in tensors))


def _smaller(tensor: Tensor, bytes_per_weight: float) -> float:
    stays = len(tensor.shape) < 2
    count = math.prod(tensor.shape)
    return tensor.size if stays else min(tensor.size, count * bytes_per_weight)


def safetensors_tensors(file: Path) -> list[Tensor] | None:
    """Return what a file says of its tensors; None: it does not, or makes no sense."""
    if file.suffix != ".safetensors":
        return None
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > _MAX_HEADER_BYTES:
                return None
            header = json.loads(opened.read(length))
        # What is without offsets are the file's own remarks.
        return [
            _tensor(each)
            for each in header.values()
            if isinstance(each, dict) and "data_offsets" in each
        ]
    except (OSError, struct.error, ValueError, TypeError, LookupError, AttributeError):
        return None  # the engine says what is wrong with it


def _tensor(said: dict[str, Any]) -> Tensor:
    begin, end = said["data_offsets"]
    return Tensor(
        str(said["dtype"]), tuple(int(side) for side in said["shape"]), int(end - begin)
    )
