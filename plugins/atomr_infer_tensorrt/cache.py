"""Plans that were built, kept for the next start.

A plan takes seconds to hours to build and depends on the model, on how it is built, on
the library's version and on the GPU: its name is a hash of all that
(:func:`~atomr_infer_tensorrt.recipe.key_of`), so a change of any of it builds another
one, and nothing is ever found that does not fit.

A file is a line of JSON with the plan's size and hash, then the plan.  It is written
beside its place and moved there when it is whole; one that is cut or changed is built
anew.  Who finds another one building the same plan waits for it.  When all plans
together take more than their bound, those that were not used for the longest go.

Blocks.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from atomr_infer.runtimes.cache import own_cache

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_log = logging.getLogger(__name__)

_SUFFIX = ".kept-plan"
_LINE_BYTES = 4096


class PlanCache:
    """A directory with plans.

    Args:
        folder: the directory; made when the first plan is kept.
        most_bytes: what all plans may take; one alone may take more.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder = folder
        self._most_bytes = most_bytes

    @contextmanager
    def alone(self, key: str) -> Iterator[None]:
        """Keep others from building the same plan at the same time.

        A folder that cannot be written to keeps nobody from anything.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = (self._folder / f"{key}.lock").open("w")
        except OSError as error:
            _log.warning("plans are not kept: %s", error)
            yield
            return
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def find(self, key: str) -> bytes | None:
        """Return a plan; None: there is none, or it is damaged."""
        path = self._path(key)
        try:
            with path.open("rb") as opened:
                said = json.loads(opened.readline(_LINE_BYTES))
                plan = opened.read()
            # Its time says when it was last used.
            os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _log.warning("the kept plan %s cannot be read: %s", path, error)
            return None
        if not isinstance(said, dict) or said.get("sha256") != _digest(plan):
            _log.warning("the kept plan %s is damaged; it is built anew", path)
            return None
        return plan

    def keep(self, key: str, plan: bytes, about: Mapping[str, str]) -> None:
        """Keep a plan; where that fails, the log says why.

        To be called :meth:`alone`: parts of it that others left are of no use.

        Args:
            key: its name.
            plan: the plan.
            about: what it is, for who looks into the file.
        """
        path = self._path(key)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        line = json.dumps({"sha256": _digest(plan), "bytes": len(plan), **about})
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for left in {*self._folder.glob(f"{key}.*.partial")} - {partial}:
                left.unlink(missing_ok=True)
            with partial.open("wb") as opened:
                opened.write(line.encode() + b"\n")
                opened.write(plan)
                opened.flush()
                os.fsync(opened.fileno())
            partial.rename(path)
            self._make_room(path)
        except OSError as error:
            _log.warning("the plan %s is not kept: %s", path, error)
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{_SUFFIX}"

    def _make_room(self, newest: Path) -> None:
        kept = {}
        for path in self._folder.glob(f"*{_SUFFIX}"):
            with suppress(FileNotFoundError):  # another one made room meanwhile
                kept[path] = path.stat()
        total = sum(stat.st_size for stat in kept.values())
        for path in sorted(kept, key=lambda path: kept[path].st_mtime_ns):
            if total <= self._most_bytes or path == newest:
                break
            path.unlink(missing_ok=True)
            total -= kept[path].st_size
            _log.info("the kept plan %s made room for another one", path)


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return where plans are kept when nothing else is said.

    Raises:
        ConfigError: the cache is in a home that does not exist.
    """
    return own_cache(environ) / "plans"


def _digest(plan: bytes) -> str:
    return hashlib.sha256(plan).hexdigest()
