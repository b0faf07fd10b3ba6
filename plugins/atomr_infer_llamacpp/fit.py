"""Whether the layers that llama.cpp keeps on GPUs fit there, told before it loads them.

llama.cpp finds it out by itself, but without the figures, and only after it has read
what came before.  The file's head says how large each tensor is.  What is compared is
a lower bound: the caches come on top, and the tables by which tokens are looked up
stay with the processors in most models, and are not counted.
"""

from __future__ import annotations

import re
import struct
from itertools import pairwise
from typing import TYPE_CHECKING, BinaryIO

from atomr_infer.runtimes.gguf_files import part_paths
from atomr_infer.runtimes.gpu_memory import check_fits_gpus, load_nvml

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from atomr_infer.runtimes.gpu_memory import Nvml

ALL_LAYERS = -1

_BLOCK = re.compile(r"blk\.(\d+)\.")
_OUTPUT = "output"

_MAGIC = int.from_bytes(b"GGUF", "little")

_MAX_DIMENSIONS = 4

_MAX_TEXT_BYTES = 1 << 26
"""A longer one is no text of a file that llama.cpp reads."""

_NUMBERS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""How many bytes a value has, by its kind."""

_TEXT, _ARRAY, _WHOLE_NUMBER = 8, 9, 4
_ALIGNMENT = "general.alignment"
_DEFAULT_ALIGNMENT = 32


def check_layers_fit(
    file: Path,
    layers: int,
    environ: Mapping[str, str],
    load: Callable[[], Nvml] = load_nvml,
) -> None:
    """Refuse a model whose layers are more than what is free on the GPUs together.

    llama.cpp spreads them over all GPUs that the process sees, which are those that
    it was placed on.  Where nobody can say what is free there, nothing is refused.

    Args:
        file: the model's first part.
        layers: how many are kept on GPUs; :data:`ALL_LAYERS`: all.
        environ: where CUDA's variables may stand.
        load: returns NVIDIA's module.

    Raises:
        EngineStartError: with both figures.
    """
    sizes: dict[str, int] = {}
    for part in part_paths(file):
        sizes |= tensor_bytes(part)
    check_fits_gpus(
        str(file),
        bytes_on_gpus(sizes, layers),
        environ=environ,
        load=load,
        remedy="lower the option gpu_layers, or use a smaller or a quantized model",
    )


def bytes_on_gpus(sizes: Mapping[str, int], layers: int) -> int:
    """Return how many bytes of a model's tensors are on GPUs, at least.

    Which of the last layers the output counts as has changed between llama.cpp's
    versions: of so many layers, one less is counted.

    >>> sizes = {"token_embd.weight": 9, "blk.0.w": 1, "blk.1.w": 2, "output.weight": 4}
    >>> [bytes_on_gpus(sizes, layers) for layers in (ALL_LAYERS, 3, 2, 1, 0)]
    [7, 7, 2, 0, 0]
    """
    blocks = {name: int(m[1]) for name in sizes if (m := _BLOCK.match(name))}
    count = max(blocks.values(), default=-1) + 1
    has_all = layers == ALL_LAYERS or layers > count
    first = 0 if has_all else count - max(0, layers - 1)
    on_gpus = [name for name, block in blocks.items() if block >= first]
    if has_all:
        on_gpus += [name for name in sizes if name.startswith(_OUTPUT)]
    return sum(sizes[name] for name in on_gpus)


def tensor_bytes(file: Path) -> dict[str, int]:
    """Return how large the tensors of a GGUF file are; empty: it makes no sense.

    Their sizes are told from where they begin, and may have a few bytes too many.
    """
    with file.open("rb") as opened:
        try:
            offsets, begin = _Head(opened).tensors()
        except (struct.error, ValueError, KeyError, OverflowError):
            return {}  # the engine says what is wrong with it
    ends = sorted([*offsets.values(), file.stat().st_size - begin])
    following = dict(pairwise(ends))
    return {name: following.get(at, at) - at for name, at in offsets.items()}


class _Head:
    """What stands before the tensors, read from the file's beginning on."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._alignment = _DEFAULT_ALIGNMENT

    def tensors(self) -> tuple[dict[str, int], int]:
        """Return where each tensor begins, and where the first byte of them is."""
        magic, version, tensors, pairs = self._numbers("IIQQ")
        if magic != _MAGIC or version not in (2, 3):
            raise ValueError("it is no GGUF file of a version that is read")
        for _ in range(pairs):
            self._pass_pair()
        offsets = {}
        for _ in range(tensors):
            name = self._text()
            (dimensions,) = self._numbers("I")
            if dimensions > _MAX_DIMENSIONS:
                raise ValueError("a tensor has too many dimensions")
            *_, offset = self._numbers(f"{dimensions}QIQ")
            offsets[name] = offset
        at = self._file.tell()
        return offsets, -(-at // self._alignment) * self._alignment

    def _pass_pair(self) -> None:
        key = self._text()
        (kind,) = self._numbers("I")
        if key == _ALIGNMENT and kind == _WHOLE_NUMBER:
            (self._alignment,) = self._numbers("I")
        else:
            self._pass_value(kind)

    def _pass_value(self, kind: int) -> None:
        if kind == _TEXT:
            self._text()
        elif kind == _ARRAY:
            inner, count = self._numbers("IQ")
            if inner == _TEXT:
                for _ in range(count):
                    self._text()
            else:
                self._file.seek(_NUMBERS[inner] * count, 1)
        else:
            self._file.seek(_NUMBERS[kind], 1)

    def _text(self) -> str:
        (length,) = self._numbers("Q")
        if length > _MAX_TEXT_BYTES:
            raise ValueError("a text is too long")
        return self._file.read(length).decode(errors="replace")

    def _numbers(self, form: str) -> tuple[int, ...]:
        form = f"<{form}"
        return struct.unpack(form, self._file.read(struct.calcsize(form)))
