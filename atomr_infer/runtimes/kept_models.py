"""Models that were converted, kept for the next start.

All processes of a user share one folder::

    ${ATOMR_INFER_CACHE:-${XDG_CACHE_HOME:-~/.cache}/atomr-infer}/models/

What a plugin keeps there is complete from its first moment: it is written beside its
place, synced and moved there, by whoever holds its lock.

Blocks.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from atomr_infer.errors import EngineStartError
from atomr_infer.runtimes.cache import own_cache
from atomr_infer.runtimes.contract import Progress

if TYPE_CHECKING:
    from pathlib import Path

Report = Callable[[Progress], None]

# A full file system, a quota, and a limit on the size of files (ulimit -f).
_TOO_BIG = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

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
        folder: where the converted model is kept.
        size_bytes: tells its size; asked when there is no room for it.

    Raises:
        EngineStartError: a file became larger than there is room for.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _TOO_BIG:
            raise
        # Rounded up, and one for the metadata.
        need_mib = size_bytes() // 2**20 + 2
        raise EngineStartError(
            f"the converted model cannot be cached: no space left in {str(folder)!r}, "
            f"about {need_mib} MiB are needed ({error.strerror}); {_REMEDY}"
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
