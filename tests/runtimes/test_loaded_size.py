"""What weights take once they are loaded is told from what their files hold."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

import pytest

from atomr_infer.runtimes.loaded_size import kept_bytes, loaded_bytes

if TYPE_CHECKING:
    from pathlib import Path


def write(file: Path, *tensors: tuple[str, list[int], int]) -> None:
    """Write tensors of a kind, a shape and a size; their data is a hole."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for number, (kind, shape, size) in enumerate(tensors):
        offsets = [at, at + size]
        header[str(number)] = {"dtype": kind, "shape": shape, "data_offsets": offsets}
        at += size
    text = json.dumps(header).encode()
    with file.open("wb") as opened:
        opened.write(struct.pack("<Q", len(text)) + text)
        opened.truncate(8 + len(text) + at)


@pytest.mark.parametrize(
    ("float_bytes", "size"), [(2, 1000 * 2 + 70), (4, 4070), (0.5, 570)]
)
def test_floats_count_as_they_are_loaded_and_others_as_they_are(
    tmp_path: Path, float_bytes: float, size: int
) -> None:
    whole = ("F32", [10, 80], 3200), ("BF16", [200], 400), ("I32", [10], 40)
    write(tmp_path / "a.safetensors", *whole)
    write(tmp_path / "b.safetensors", ("F8_E4M3", [3, 10], 30))
    assert loaded_bytes(tmp_path, float_bytes) == size


def test_a_second_copy_of_the_model_does_not_count(tmp_path: Path) -> None:
    write(tmp_path / "consolidated.safetensors", ("BF16", [500], 1000))
    assert loaded_bytes(tmp_path, 2) == 1000
    write(tmp_path / "model.safetensors", ("BF16", [400], 800))
    assert loaded_bytes(tmp_path, 2) == 800
    kept = (tmp_path / "model.safetensors").stat().st_size
    assert 800 < kept_bytes(tmp_path) == kept < 1000


def test_what_the_index_does_not_name_does_not_count(tmp_path: Path) -> None:
    write(tmp_path / "model-1-of-1.safetensors", ("BF16", [400], 800))
    write(tmp_path / "adapter.safetensors", ("BF16", [500], 1000))
    index = tmp_path / "model.safetensors.index.json"
    for unread in ("", "[]", '{"weight_map": null}', '{"weight_map": {"a": "b"}}'):
        index.write_text(unread)
        assert loaded_bytes(tmp_path, 2) == 1800
    index.write_text('{"weight_map": {"a": "model-1-of-1.safetensors", "b": []}}')
    assert loaded_bytes(tmp_path, 2) == 800
    assert kept_bytes(tmp_path) < 1000


def test_a_link_that_leads_nowhere_does_not_count(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", ("BF16", [400], 800))
    (tmp_path / "b.safetensors").symlink_to(tmp_path / "nowhere")
    assert loaded_bytes(tmp_path, 2) == 800
    assert kept_bytes(tmp_path) < 1000


@pytest.mark.parametrize(
    "told",
    [
        {"shape": None},
        {"shape": ["a"]},
        {"shape": [[]]},
        {"data_offsets": None},
        {"data_offsets": [1]},
        {"data_offsets": ["a", "b"]},
    ],
    ids=str,
)
def test_of_a_tensor_that_cannot_be_read_half_of_the_file_counts(
    tmp_path: Path, told: dict[str, object]
) -> None:
    tensor = {"dtype": "F32", "shape": [10], "data_offsets": [0, 40], **told}
    text = json.dumps({"w": tensor}).encode()
    whole = struct.pack("<Q", len(text)) + text + b"x" * 40
    (tmp_path / "m.safetensors").write_bytes(whole)
    assert loaded_bytes(tmp_path, 2) == len(whole) // 2


def test_of_files_that_do_not_say_what_they_hold_half_counts(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(b"x" * 100)
    assert loaded_bytes(tmp_path, 4) == 50
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", 2) + b"[]")
    assert loaded_bytes(tmp_path, 4) == 5
    (tmp_path / "m.safetensors").write_bytes(
        struct.pack("<Q", 16) + b'{"a":1, "b": {}}'
    )
    assert loaded_bytes(tmp_path, 4) == 0
