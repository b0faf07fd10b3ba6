"""Where a user's processes keep what they have fetched, converted and built.

Pure but for the home's look-up, and the disk's.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from atomr_infer.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping


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
