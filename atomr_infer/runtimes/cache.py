"""Where a user's processes keep what they have fetched, converted and built.

Pure but for the home's look-up, and the disk's.
"""

from __future__ import annotations

import errno
import fcntl
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from atomr_infer.errors import ConfigError, EngineStartError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

TOO_BIG = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""A full file system, a quota, and a limit on the size of files (ulimit -f)."""

DISK_FULL = "disk_full"
"""The code of an error that came for want of room for a model."""

_MIB = 2**20


def own_cache(environ: Mapping[str, str]) -> Path:
    """Return the folder of all caches; it may not exist yet.

    >>> own_cache({"ATOMR_INFER_CACHE": "/data"}).as_posix()
    '/data'
    >>> own_cache({"XDG_CACHE_HOME": "/c"}).as_posix()
    '/c/atomr-infer'

    Raises:
        ConfigError: it is in a home that does not exist.
    """
    own = environ.get("ATOMR_INFER_CACHE")
    shared = environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(own) if own else Path(shared) / "atomr-infer"
    try:
        return folder.expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"the cache {str(folder)!r} cannot be found: there is no such home; "
            "set ATOMR_INFER_CACHE to a folder"
        ) from error


def free_disk_bytes(folder: Path) -> int:
    """Return how many bytes are free where a folder is, or would be made."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(there).free


def disk_full(
    folder: Path, needed_bytes: int | None, error: OSError | None = None
) -> EngineStartError:
    """Return what is told of a disk without room for what is fetched.

    Args:
        folder: where it is put.
        needed_bytes: what is still to come; None: nobody has told yet.
        error: what said so, one of :data:`TOO_BIG`; None: what is free was less.
    """
    free_mib = free_disk_bytes(folder) // _MIB
    needed = (
        "more is" if needed_bytes is None else f"{needed_bytes // _MIB + 1} MiB are"
    )
    if error is None or error.errno == errno.ENOSPC:
        problem = f"the disk of {str(folder)!r} is full"
        remedy = "free some space"
    else:
        # The disk may have plenty; it is this user or process that may not use it.
        problem = f"{str(folder)!r} cannot be written: {error.strerror}"
        remedy = "have the limit raised"
    return EngineStartError(
        f"{problem}: {free_mib} MiB are free, and {needed} needed; {remedy}, or set "
        "ATOMR_INFER_CACHE to another folder",
        code=DISK_FULL,
    )


@contextmanager
def locked(file: Path, waits: Callable[[], None]) -> Iterator[None]:
    """Hold a lock, which the kernel drops when its holder dies.

    Args:
        file: what is locked; it is made.
        waits: called before it waits for another holder.
    """
    with file.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waits()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
