"""Layers that are kept on GPUs are weighed before they are loaded."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter

from atomr_infer.errors import EngineStartError
from atomr_infer.runtimes.gpu_memory import FreeGpu
from atomr_infer_llamacpp.fit import (
    ALL_LAYERS,
    bytes_on_gpus,
    check_layers_fit,
    tensor_bytes,
)
from tests.runtimes.recorded_gpus import RecordedGpus

if TYPE_CHECKING:
    from pathlib import Path

MIB = 2**20


def write_model(path: Path, *, blocks: int = 4, split: bool = False) -> Path:
    """Write a model whose tables have 3 MiB, a block 1 MiB and the output 2 MiB."""
    writer = GGUFWriter(path, "llama", split_max_tensors=3 if split else 0)
    writer.add_array("tokenizer.ggml.tokens", ["a", "bc", ""])
    writer.add_array("tokenizer.ggml.scores", [1.0, 2.0])
    writer.add_custom_alignment(64)
    for name, size in (
        ("token_embd.weight", 3),
        *((f"blk.{n}.ffn_up.weight", 1) for n in range(blocks)),
        ("output.weight", 2),
    ):
        writer.add_tensor(name, np.zeros((256, size * 1024), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    parts = sorted(path.parent.glob(f"{path.stem}*.gguf"))
    return parts[0]


def test_sizes_are_those_that_the_file_s_own_reader_says(
    tmp_path: Path, gguf: str
) -> None:
    for file in (write_model(tmp_path / "m.gguf"), *map(type(tmp_path), [gguf])):
        own = {t.name: int(t.n_bytes) for t in GGUFReader(file).tensors}
        found = tensor_bytes(file)
        assert found.keys() == own.keys()
        assert all(0 <= found[name] - own[name] < 64 for name in own)


HEAD = b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 1) + b"k"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no model",
        b"GGUF" + b"\xff" * 64,
        HEAD + struct.pack("<IIQ", 9, 6, 2**62),  # a list without end
        HEAD + struct.pack("<IIQ", 9, 9, 2**62),  # of lists
        HEAD + struct.pack("<IQ", 8, 2**40),  # a text without end
        HEAD + struct.pack("<IBQcI", 0, 7, 1, b"t", 2**30),  # too many dimensions
    ],
)
def test_a_file_that_makes_no_sense_is_left_to_the_engine(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    assert tensor_bytes(tmp_path / "m.gguf") == {}
    driver = RecordedGpus(FreeGpu("GPU-1", "T4", 0))
    check_layers_fit(tmp_path / "m.gguf", ALL_LAYERS, {}, lambda: driver)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    ("layers", "needed"), [(ALL_LAYERS, 6), (99, 6), (5, 6), (4, 3), (2, 1), (1, 0)]
)
def test_the_layers_that_are_kept_on_gpus_must_fit_there(
    tmp_path: Path, layers: int, needed: int, split: bool
) -> None:
    model = write_model(tmp_path / "m.gguf", split=split)

    def check(free_mib: int, environ: dict[str, str]) -> None:
        driver = RecordedGpus(
            FreeGpu("GPU-1", "T4", free_mib * MIB), FreeGpu("GPU-2", "T4", 100 * MIB)
        )
        check_layers_fit(model, layers, environ, lambda: driver)

    placed = {"CUDA_VISIBLE_DEVICES": "GPU-1"}
    # A few bytes are padding.
    check(needed + 1, placed)
    check(0, {})
    if not needed:
        return
    with pytest.raises(EngineStartError) as caught:
        check(needed - 1, placed)
    assert str(caught.value) == (
        f"the model '{model}' does not fit: its weights have {needed} MiB, and "
        f"{needed - 1} MiB of memory of the GPUs together are free; lower the option "
        "gpu_layers, or use a smaller or a quantized model"
    )


def test_a_model_without_an_output_of_its_own_counts_its_blocks() -> None:
    sizes = {"token_embd.weight": 100, "blk.0.w": 3, "blk.11.w": 4}
    assert bytes_on_gpus(sizes, ALL_LAYERS) == 7
    assert bytes_on_gpus({}, ALL_LAYERS) == 0
