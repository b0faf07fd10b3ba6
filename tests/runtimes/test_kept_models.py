"""Converted models make room for others, and none goes that a process uses."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from atomr_infer.runtimes.kept_models import locked, make_room, use
from tests.children import or_killed

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


def called(letter: str, recipe: str = "q8_0-v2") -> str:
    return f"{letter * 32}-{recipe}"


def file_of(folder: Path, name: str, size: int, *, used_at: int) -> Path:
    path = folder / f"{called(name)}.gguf"
    path.write_bytes(bytes(size))
    path.with_suffix(".sha256").write_text("digest")
    path.with_suffix(".lock").touch()
    os.utime(path, (used_at, used_at))
    return path


def directory_of(folder: Path, name: str, size: int, *, used_at: int) -> Path:
    path = folder / called(name, "8-blocks-v1")
    path.mkdir()
    (path / "model.onnx").write_bytes(bytes(size - 2))
    (path / "sha256.json").write_text("{}")
    os.utime(path, (used_at, used_at))
    return path


@contextmanager
def used_elsewhere(path: Path) -> Iterator[None]:
    with (
        subprocess.Popen(
            [sys.executable, "-c", USER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
        or_killed(process),
    ):
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
    idle = file_of(tmp_path, "b", 100, used_at=20)
    gone = directory_of(tmp_path, "a", 100, used_at=10)
    newest = file_of(tmp_path, "c", 100, used_at=5)
    make_room(newest, 300)
    assert {gone.name, idle.name, newest.name} <= left(tmp_path)
    with caplog.at_level(logging.INFO):
        make_room(newest, 299)
    assert not gone.exists()
    digests = {idle.with_suffix(".sha256").name, newest.with_suffix(".sha256").name}
    assert {idle.name, newest.name, *digests} <= left(tmp_path)
    assert caplog.messages == [
        f"the converted model {gone} made room for another one: all may take 0 MiB"
    ]
    make_room(newest, 1)
    # It stays whatever it takes; so do locks, which others may hold.
    own = {newest.with_suffix(suffix).name for suffix in (".gguf", ".lock", ".sha256")}
    assert left(tmp_path) == {*own, idle.with_suffix(".lock").name}


def test_what_no_conversion_wrote_is_neither_counted_nor_removed(
    tmp_path: Path,
) -> None:
    newest = file_of(tmp_path, "c", 100, used_at=30)
    converted = file_of(tmp_path, "b", 100, used_at=20)
    weights = tmp_path / "qwen-q8_0.gguf"
    weights.write_bytes(bytes(1000))
    weights.with_suffix(".sha256").write_text("digest")  # as some publish one
    unmarked = tmp_path / f"{called('d')}.gguf"
    unmarked.write_bytes(bytes(1000))
    for name in ("llama", called("e", "8-mine"), f"{called('f')}.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(bytes(1000))
    (tmp_path / "llama" / "sha256.json").write_text("{}")
    before = left(tmp_path)
    make_room(newest, 200)
    assert left(tmp_path) == before
    make_room(newest, 1)
    assert before - left(tmp_path) == {
        converted.name,
        converted.with_suffix(".sha256").name,
    }


@pytest.mark.parametrize("folder", [False, True])
def test_what_a_killed_conversion_left_goes_and_what_one_writes_stays(
    tmp_path: Path, *, folder: bool
) -> None:
    newest = file_of(tmp_path, "c", 100, used_at=30)
    partial = tmp_path / f"{called('a')}.partial"
    if folder:
        partial.mkdir()
        (partial / "model.onnx").write_bytes(bytes(1000))
        (partial / "sha256.json").write_text("{}")  # the last that is written
    else:
        partial.write_bytes(bytes(1000))
    lock = partial.with_suffix(".lock")
    with locked(lock, lambda _: None):
        make_room(newest, 1)
        assert partial.exists()
    make_room(newest)
    assert not partial.exists()
    assert lock.exists()


def test_a_full_disk_takes_no_more_than_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = [file_of(tmp_path, name, 100, used_at=at) for at, name in enumerate("abc")]
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        shutil,
        "disk_usage",
        lambda _: usage._replace(free=1000 - sum(one.exists() for one in made)),
    )
    with caplog.at_level(logging.INFO):
        make_room(tmp_path / f"{called('d')}.gguf", free_bytes=998)
    assert [one.exists() for one in made] == [False, True, True]
    assert caplog.messages == [
        f"the converted model {made[0]} made room for another one: the disk is full"
    ]


def test_one_that_is_made_again_meanwhile_does_not_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = file_of(tmp_path, "a", 100, used_at=10)
    newest = file_of(tmp_path, "c", 100, used_at=30)

    def made_again(handle: int, how: int) -> None:
        monkeypatch.undo()
        damaged.unlink()
        damaged.write_bytes(b"whole")
        fcntl.flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", made_again)
    make_room(newest, 1)
    assert damaged.read_bytes() == b"whole"


def test_one_that_cannot_be_removed_keeps_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stuck = directory_of(tmp_path, "a", 100, used_at=10)
    gone = file_of(tmp_path, "b", 100, used_at=20)
    newest = file_of(tmp_path, "c", 100, used_at=30)

    def refused(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(shutil, "rmtree", refused)
    make_room(newest, 100)
    assert stuck.exists()
    assert not gone.exists()
    assert f"{stuck} stays among the converted models: " in caplog.text


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


@pytest.mark.parametrize("again", [False, True])
def test_one_that_goes_while_its_lock_is_waited_for_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, again: bool
) -> None:
    kept = file_of(tmp_path, "a", 100, used_at=10)

    def removed(handle: int, how: int) -> None:
        monkeypatch.undo()
        kept.unlink()
        if again:
            kept.write_bytes(b"made again")
        fcntl.flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", removed)
    if not again:
        with pytest.raises(FileNotFoundError):
            use(kept)
        return
    use(kept)
    with kept.open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_one_whose_use_cannot_be_noted_is_in_use_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = file_of(tmp_path, "a", 100, used_at=10)

    def refused(_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "utime", refused)
    use(kept)
    with kept.open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
