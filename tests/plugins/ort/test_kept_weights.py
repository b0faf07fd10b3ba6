"""Kept models of fewer bits, on full disks and beside processes that use them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import onnx
import pytest

from atomr_infer_ort.converted import with_bits
from tests.children import or_killed
from tests.plugins.ort.test_weights import ignore, matrix, product
from tests.runtimes.small_disk import mounted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.engine

CONVERT = """
import resource, sys
from pathlib import Path
from atomr_infer.errors import EngineStartError
from atomr_infer_ort.converted import with_bits

source, cache, limit = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    print(with_bits(Path(source), 8, Path(cache), lambda _: None), flush=True)
except EngineStartError as error:
    print(error.code, error.message, flush=True)
sys.stdin.read()
"""
"""A process that converts a model, and uses it until its input ends."""


@contextmanager
def converting(source: Path, cache: Path, file_limit_bytes: int = 0) -> Iterator[str]:
    """Run it, and yield what it says; the block's end ends it."""
    with (
        subprocess.Popen(
            [sys.executable, "-c", CONVERT, source, cache, str(file_limit_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
        or_killed(process),
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()
        assert process.wait() == 0


def models_in(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model of 4 MiB; with 8 bits, it has one and some."""
    onnx.save(product(matrix(1024, 1024)), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_a_limit_on_files_is_told_with_folder_need_and_room(
    source: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    with converting(source, cache, 500_000) as said:
        assert said.startswith(
            "disk_full the converted model cannot be cached: no space left in "
            f"'{cache}', about 3 MiB are needed and "
        )
        assert said.endswith(
            " MiB are free (File too large); free some space, or set "
            "ATOMR_INFER_CACHE to another folder"
        )
        assert models_in(cache) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk") as folder:
        yield folder


def test_a_disk_that_is_full_in_the_middle_is_told_and_left_as_it_was(
    source: Path, small_disk: Path
) -> None:
    with converting(source, small_disk) as said:
        # What is free is what there was before, for all of it is gone again.
        assert said == (
            "disk_full the converted model cannot be cached: no space left in "
            f"'{small_disk}', about 3 MiB are needed and 1 MiB are free (No space "
            "left on device); free some space, or set ATOMR_INFER_CACHE to another "
            "folder"
        )
        assert models_in(small_disk) == []


def test_a_damaged_model_that_a_process_uses_keeps_its_files(
    source: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    with converting(source, cache) as said:
        [kept] = models_in(cache)
        assert said == str(cache / kept / "model.onnx")
        data = cache / kept / "model.onnx_data"
        data.write_bytes(data.read_bytes()[:-1])
        used = data.stat()
        made = with_bits(source, 8, cache, ignore)
        assert made == cache / kept / "model.onnx"
        there = models_in(cache)
        [aside] = [name for name in there if name.startswith(f"{kept}.damaged-")]
        assert sorted((kept, aside)) == there
        # What it uses is still there, and nobody else gets it.
        assert (cache / aside / data.name).stat().st_ino == used.st_ino
        assert data.stat().st_size == used.st_size + 1
        another = with_bits(source, 4, cache, ignore)
        assert aside in models_in(cache)
    # When the process has ended, the next conversion finds it.
    shutil.rmtree(another.parent)
    with_bits(source, 4, cache, ignore)
    assert models_in(cache) == sorted((kept, another.parent.name))


def test_a_damaged_model_that_nobody_uses_is_removed(
    source: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    with converting(source, cache):
        [kept] = models_in(cache)
    (cache / kept / "model.onnx_data").write_bytes(b"")
    assert with_bits(source, 8, cache, ignore) == cache / kept / "model.onnx"
    assert models_in(cache) == [kept]
    # It is whole again.
    before = (cache / kept).stat().st_ino
    with_bits(source, 8, cache, ignore)
    assert (cache / kept).stat().st_ino == before
