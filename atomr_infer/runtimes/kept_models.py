"""Models that were converted, kept for the next start.

All processes of a user share one folder::

    ${ATOMR_INFER_CACHE:-${XDG_CACHE_HOME:-~/.cache}/atomr-infer}/models/

What a plugin keeps there is complete from its first moment: it is written beside its
place, synced and moved there, by whoever holds its lock.

All of them take :data:`MOST_BYTES` at most.  When one is made, those that were not
used for the longest go, but none that a process uses: each has a shared lock on what
it uses, for its life, and who removes one takes it alone.  What killed conversions left
goes then, too.  Whatever else lies in the folder is somebody's, and stays.

Blocks.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from atomr_infer.errors import EngineStartError
from atomr_infer.runtimes.cache import (
    DISK_FULL,
    TOO_BIG,
    free_disk_bytes,
    own_cache,
)
from atomr_infer.runtimes.contract import Progress

if TYPE_CHECKING:
    from pathlib import Path

Report = Callable[[Progress], None]

MOST_BYTES = 64 << 30
"""What all converted models may take; one alone may take more, and so may those that
are in use."""

_log = logging.getLogger(__name__)

DIGESTS = "sha256.json"
"""The file of digests in a converted directory; a file has them beside it, in
``.sha256``.  What has none was not made by a conversion."""

_DAMAGED = ".damaged-"
"""In the name of a model that was damaged while a process used it."""

# A hash of the source, and the recipe.
_CONVERTED = re.compile(r"[0-9a-f]{32}-.+")

_REMEDY = "free some space, or set ATOMR_INFER_CACHE to another folder"


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of converted models; it may not exist yet.

    >>> cache_folder({"ATOMR_INFER_CACHE": "/data"}).as_posix()
    '/data/models'
    >>> cache_folder({"XDG_CACHE_HOME": "/c"}).as_posix()
    '/c/atomr-infer/models'

    Raises:
        ConfigError: it is in a home that does not exist.
    """
    return own_cache(environ) / "models"


def digest_of(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Have a file, or a folder's entries, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(lock_file: Path, report: Report) -> Iterator[None]:
    """Hold the lock, which the kernel drops when its holder dies."""
    with lock_file.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(Progress("waiting for another process that converts the model"))
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def use(kept: Path) -> None:
    """Have nobody remove a kept model while this process lives, and note its use.

    To be called before it is looked at, for until then it may go.  Nothing is written:
    the cache of a container's image may be read-only.

    Raises:
        FileNotFoundError: it is not there.
    """
    handle = _locked_at(kept)
    # It is never closed: an engine maps its files, and its process is its own.
    try:
        os.utime(handle)
    except OSError as error:
        # Another user's, or read-only: it may go first once nobody uses it.
        _log.debug("the use of %s is not noted: %s", kept, error)


def used_if_whole(kept: Path, is_whole: Callable[[], bool]) -> bool:
    """Use a kept model if it is whole; one that is not is let go of again.

    Raises:
        FileNotFoundError: it is not there.
    """
    handle = _locked_at(kept)
    try:
        if is_whole():
            use(kept)
            return True
        return False
    finally:
        os.close(handle)


def replace(kept: Path, partial: Path) -> None:
    """Move a model that was made now to its place, and use it.

    What lies there is damaged.  A process that uses it keeps its files, under another
    name, until it ends and :func:`make_room` finds them.

    To be called by whoever holds the model's lock (:func:`locked`).
    """
    use(partial)
    if not _cleared(kept):
        aside = kept.with_name(f"{kept.name}{_DAMAGED}{os.getpid()}-{time.time_ns()}")
        kept.rename(aside)
        _log.warning("a process uses the damaged model: it is kept as %s", aside)
    partial.rename(kept)
    sync(kept.parent)


def remove_damaged(kept: Path) -> None:
    """Remove what is damaged, unless a process uses it; say so in the log."""
    if kept.exists():
        _log.warning("the converted model %s is damaged and is made again", kept)
        _cleared(kept)


def _cleared(kept: Path) -> bool:
    """Have nothing at a place; False: a process uses what is there."""
    try:
        return _removed(kept)
    except FileNotFoundError:
        return True


def _locked_at(kept: Path) -> int:
    """Open what is at a place, with a shared lock on it.

    Raises:
        FileNotFoundError: nothing is there.
    """
    while True:
        handle = os.open(kept, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH)
        except OSError as error:
            # A file system without locks: then nobody removes anything there either.
            _log.debug("the use of %s keeps nobody from removing it: %s", kept, error)
        try:
            if _is_at(handle, kept):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # it was removed while this one waited, and made again


def _is_at(handle: int, path: Path) -> bool:
    return os.path.samestat(os.fstat(handle), path.stat())


def make_room(newest: Path, most_bytes: int | None = None, free_bytes: int = 0) -> None:
    """Remove models that were not used for the longest, where there is no room.

    Where that fails, the log says why.

    Args:
        newest: the one that was made now, or will be; it stays, and so does what is
            in use.
        most_bytes: what all may take; None: :data:`MOST_BYTES`.
        free_bytes: what the disk must have free for it.
    """
    most = MOST_BYTES if most_bytes is None else most_bytes
    folder = newest.parent
    with _told(folder):
        for path in list(folder.iterdir()):
            with _told(path):
                _remove_leftover(path)
    by_use = []
    with _told(folder):
        for path in list(folder.iterdir()):
            with _told(path):
                if _is_converted(path):
                    by_use.append((path.stat().st_mtime_ns, path, _size_bytes(path)))
    total = sum(size for _, _, size in by_use)
    for _, path, size in sorted(by_use):
        if total <= most and _has_free(folder, free_bytes):
            return
        with _told(path):
            if path != newest and _removed(path):
                reason = (
                    f"all may take {most >> 20} MiB"
                    if total > most
                    else "the disk is full"
                )
                total -= size
                _log.info(
                    "the converted model %s made room for another one: %s", path, reason
                )
    if total > most:
        _log.info("converted models take %d MiB, and are in use", total >> 20)


def _has_free(folder: Path, needed_bytes: int) -> bool:
    return shutil.disk_usage(folder).free >= needed_bytes


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Go on with the others when one cannot be read or removed."""
    try:
        yield
    except FileNotFoundError:
        _log.debug("%s was removed by another process", path)
    except OSError as error:
        _log.warning("%s stays among the converted models: %s", path, error)


def _is_converted(path: Path) -> bool:
    """Whether it is a whole model that a conversion wrote: nobody else's is removed."""
    if not _CONVERTED.fullmatch(path.name) or path.suffix == ".partial":
        return False
    if _DAMAGED in path.name:
        return True  # it is somebody's yet, and takes its room
    if path.suffix == ".gguf":
        return path.with_suffix(".sha256").exists()
    return (path / DIGESTS).exists()


def _remove_leftover(path: Path) -> None:
    """Remove what nobody will use again.

    That is what a conversion wrote that was killed, for nobody holds its lock, and
    what was damaged while a process used it that does so no more.
    """
    if _DAMAGED in path.name and _CONVERTED.fullmatch(path.name):
        if _removed(path):
            _log.info("%s was removed: nobody uses it any more", path)
        return
    lock = path.with_suffix(".lock")
    is_partial = path.suffix == ".partial" and _CONVERTED.fullmatch(path.name)
    if not is_partial or not lock.exists():
        return
    with lock.open("r+b") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        _remove(path)
        _log.info("%s was removed: its conversion did not end", path)


def _size_bytes(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files)


def _removed(path: Path) -> bool:
    """Remove a model; False: a process uses it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_at(handle, path):
            return False  # it was made again, and is in use
        _remove(path)
        if path.suffix == ".gguf":
            path.with_suffix(".sha256").unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


@contextmanager
def source_errors(source: Path) -> Iterator[None]:
    """Say of a model that fails to be read that it is the one.

    Raises:
        EngineStartError: it cannot be read.
    """
    try:
        yield
    except OSError as error:
        raise EngineStartError(
            f"the model {str(source)!r} cannot be read: {error}"
        ) from error


@contextmanager
def space_errors(folder: Path, size_bytes: Callable[[], int]) -> Iterator[None]:
    """Say of a disk that is full how much is needed.

    Args:
        folder: where the converted model is kept; it may not exist.
        size_bytes: tells its size; asked when there is no room for it.

    Raises:
        EngineStartError: a file became larger than there is room for; its ``code`` is
            :data:`DISK_FULL`.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in TOO_BIG:
            raise
        # Rounded up, and one for the metadata.
        need_mib = size_bytes() // 2**20 + 2
        # What was written of it is removed by now.
        free_mib = free_disk_bytes(folder) // 2**20
        raise EngineStartError(
            f"the converted model cannot be cached: no space left in {str(folder)!r}, "
            f"about {need_mib} MiB are needed and {free_mib} MiB are free "
            f"({error.strerror}); {_REMEDY}",
            code=DISK_FULL,
        ) from error


@contextmanager
def cache_errors() -> Iterator[None]:
    """Say of a cache that fails that it is one, and what to do.

    Raises:
        EngineStartError: it cannot be read or written.
    """
    try:
        yield
    except OSError as error:
        raise EngineStartError(
            f"the converted model cannot be cached: {error}; {_REMEDY}"
        ) from error
