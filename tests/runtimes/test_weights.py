"""The size of a model's weights is told from its files."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

from atomr_infer.runtimes.weights import quantized_bytes, weight_files, weights_bytes

if TYPE_CHECKING:
    from pathlib import Path


def write_safetensors(path: Path, shapes: dict[str, list[int]]) -> Path:
    """Write a file of float32 tensors; its data is a hole."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes.items():
        size = 4
        for side in shape:
            size *= side
        offsets = [at, at + size]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
        at += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
    return path


def test_a_file_counts_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"12345")
    assert weights_bytes(tmp_path / "m.gguf") == 5


def test_of_a_split_file_all_parts_count(tmp_path: Path) -> None:
    parts = [tmp_path / f"m-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    for part in parts:
        part.write_bytes(b"123")
    assert [weights_bytes(part) for part in parts] == [9, 9, 9]
    assert weight_files(parts[1]) == tuple(parts)
    parts[0].unlink()
    assert weights_bytes(parts[2]) == 6


def test_of_a_directory_one_kind_counts(tmp_path: Path) -> None:
    for name in ("b.safetensors", "a.safetensors", "pytorch_model.bin", "config.json"):
        (tmp_path / name).write_bytes(b"1234")
    files = (tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert (weight_files(tmp_path), weights_bytes(tmp_path)) == (files, 8)


def test_matrices_are_smaller_when_quantized_and_vectors_are_not(
    tmp_path: Path,
) -> None:
    write_safetensors(tmp_path / "m.safetensors", {"w": [64, 32], "norm": [32]})
    assert quantized_bytes(tmp_path, 34 / 32) == 64 * 34 + 32 * 4
    assert quantized_bytes(tmp_path, 18 / 32) == 64 * 18 + 32 * 4
    # What is small already stays so.
    assert quantized_bytes(tmp_path, 5.0) == 64 * 32 * 4 + 32 * 4
    assert weights_bytes(tmp_path) > 64 * 32 * 4


def test_a_second_copy_of_the_model_does_not_count(tmp_path: Path) -> None:
    model = write_safetensors(tmp_path / "model.safetensors", {"w": [64, 32]})
    write_safetensors(tmp_path / "consolidated.safetensors", {"w": [64, 32]})
    assert weights_bytes(tmp_path) == model.stat().st_size
    assert quantized_bytes(tmp_path, 34 / 32) == 64 * 34


def test_a_file_that_does_not_say_what_it_holds_is_quantized_from_32_bits(
    tmp_path: Path,
) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x" * 128)
    assert quantized_bytes(tmp_path, 34 / 32) == 34
    assert quantized_bytes(tmp_path, 5.0) == 128


def test_a_file_that_makes_no_sense_counts_like_it(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"short")
    (tmp_path / "b.safetensors").write_bytes(b"\xff" * 20)
    (tmp_path / "c.safetensors").write_bytes(struct.pack("<Q", 2) + b"[]")
    assert quantized_bytes(tmp_path, 2.0) == 2 + 10 + 5
