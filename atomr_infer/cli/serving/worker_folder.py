"""The folder that the workers of one ``serve`` share: made for it, and gone with it.

Its parent holds a lock on a file in it.  A parent that is killed leaves the folder, and
the next one that starts takes it away: nobody holds its lock any more.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = "atomr-infer-workers-"
_LOCK = "lock"


@contextmanager
def worker_folder() -> Iterator[Path]:
    """Have a folder for the length of the block; those that dead parents left go.

    Raises:
        OSError: it cannot be made.
    """
    _sweep(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        # A child that is started does not inherit it, so it ends with this process.
        with (folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(where: Path) -> None:
    """Take away what nobody uses; what is not ours is left alone."""
    for folder in where.glob(f"{_PREFIX}*"):
        try:
            about = folder.lstat()
            if about.st_uid != os.getuid() or folder.is_symlink():
                continue
            with (folder / _LOCK).open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # somebody uses it, or has just made it, or took it away
