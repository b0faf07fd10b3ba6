"""Converted models make room for others, and none goes that a process uses."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from atomr_infer.runtimes.kept_models import make_room, use

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

USER = """
import pathlib, sys
from atomr_infer.runtimes.kept_models import use
use(pathlib.Path(sys.argv[1]))
print("used", flush=True)
sys.stdin.read()
"""
"""A process that uses a model until its input ends."""


def file_of(folder: Path, name: str, size: int, *, used_at: int) -> Path:
    path = folder / f"{name}.gguf"
    path.write_bytes(bytes(size))
    path.with_suffix(".sha256").write_text("digest")
    path.with_suffix(".lock").touch()
    os.utime(path, (used_at, used_at))
    return path


def directory_of(folder: Path, name: str, size: int, *, used_at: int) -> Path:
    path = folder / name
    path.mkdir()
    (path / "model.onnx").write_bytes(bytes(size - 2))
    (path / "sha256.json").write_text("{}")
    os.utime(path, (used_at, used_at))
    return path


@contextmanager
def used_elsewhere(path: Path) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "-c", USER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "used\n"
        yield
        process.stdin.close()
        assert process.wait() == 0


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_was_not_used_for_the_longest_goes_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file_of(tmp_path, "b", 100, used_at=20)
    gone = directory_of(tmp_path, "a", 100, used_at=10)
    newest = file_of(tmp_path, "c", 100, used_at=5)
    (tmp_path / "d.partial").mkdir()
    (tmp_path / "d.partial" / "model.onnx").write_bytes(bytes(1000))
    make_room(newest, 300)
    assert {"a", "b.gguf", "c.gguf"} <= left(tmp_path)
    with caplog.at_level(logging.INFO):
        make_room(newest, 299)
    assert not gone.exists()
    assert {"b.gguf", "b.sha256", "c.gguf", "d.partial"} <= left(tmp_path)
    assert caplog.messages == [
        f"the converted model {gone} made room for another one: all may take 0 MiB"
    ]
    make_room(newest, 1)
    # It stays whatever it takes; so do locks, which others may hold.
    assert left(tmp_path) == {"b.lock", "c.gguf", "c.lock", "c.sha256", "d.partial"}


@pytest.mark.parametrize("make", [file_of, directory_of])
def test_one_that_another_process_uses_stays_until_its_end(
    make: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    used = make(tmp_path, "a", 100, used_at=10)
    idle = file_of(tmp_path, "b", 100, used_at=20)
    newest = file_of(tmp_path, "c", 100, used_at=30)
    with used_elsewhere(used):
        os.utime(used, (10, 10))
        with caplog.at_level(logging.INFO):
            make_room(newest, 100)
        assert used.exists()
        assert not idle.exists()
        assert caplog.messages[-1] == "converted models take 0 MiB, and are in use"
    make_room(newest, 100)
    assert not used.exists()
    assert newest.exists()


def test_use_is_noted_and_what_is_not_there_is_told(tmp_path: Path) -> None:
    early = file_of(tmp_path, "a", 100, used_at=10)
    file_of(tmp_path, "b", 100, used_at=20)
    use(early)
    assert early.stat().st_mtime > 20
    with pytest.raises(FileNotFoundError):
        use(tmp_path / "none.gguf")
