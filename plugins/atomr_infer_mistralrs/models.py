"""From a deployment's model to a file that the engine loads.

A GGUF that is not Q8_0 is rewritten as Q8_0 once, into a cache that
all processes of a user share::

    ${ATOMR_INFER_CACHE:-${XDG_CACHE_HOME:-~/.cache}/atomr-infer}/models/
        <key>.gguf          the converted model, complete from its first moment
        <key>.sha256        its digest, so that a damaged file is noticed
        <key>.lock          held by whoever converts
        <key>.partial       what a conversion writes; left over after a crash

``key`` is the source's digest with the quantization and the recipe's version,
so a source that changes is converted anew and a renamed one is not.

All functions block; they belong in a worker thread.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from atomr_infer.errors import ConfigError, EngineStartError
from atomr_infer.runtimes.contract import Progress
from atomr_infer.runtimes.packaged import PackagedFile, locate_packaged
from atomr_infer_mistralrs.options import GgufFile, HfDirectory, LocalSource

RECIPE = "q8_0-v2"
"""Changes when the conversion does, so that old results are not used."""

Report = Callable[[Progress], None]

_log = logging.getLogger(__name__)

# A full file system, a quota, and a limit on the size of files (ulimit -f).
_TOO_BIG = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

_REMEDY = "free some space, or set ATOMR_INFER_CACHE to another folder"


def locate(source: LocalSource) -> Path:
    """Return where the source's file or directory is.

    Raises:
        ConfigError: it is not there; names the command that helps.
    """
    match source:
        case GgufFile(path):
            file = Path(path).expanduser()
            if not file.is_file():
                raise ConfigError(f"there is no model file {str(file)!r}")
            return file
        case HfDirectory(path):
            directory = Path(path).expanduser()
            if not (directory / "config.json").is_file():
                raise ConfigError(
                    f"{str(directory)!r} is not a model: a .gguf file, or a directory "
                    "with config.json, safetensors and tokenizer.json, is needed"
                )
            return directory
        case PackagedFile():
            return locate_packaged(source)


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of converted models; it may not exist yet.

    >>> cache_folder({"ATOMR_INFER_CACHE": "/data"}).as_posix()
    '/data/models'
    >>> cache_folder({"XDG_CACHE_HOME": "/c"}).as_posix()
    '/c/atomr-infer/models'

    Raises:
        ConfigError: it is in a home that does not exist.
    """
    own = environ.get("ATOMR_INFER_CACHE")
    shared = environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(own) if own else Path(shared) / "atomr-infer"
    try:
        return folder.expanduser() / "models"
    except RuntimeError as error:
        raise ConfigError(
            f"the folder {str(folder)!r} for converted models cannot be found: "
            "there is no such home; set ATOMR_INFER_CACHE to a folder"
        ) from error


def as_q8_0(source: Path, folder: Path, report: Report) -> Path:
    """Return the source as a Q8_0 GGUF, from the cache or converted into it.

    A source that is Q8_0 already is returned itself, and so is a whole model in
    the cache, without a write: the cache of a container image may be read-only.

    Args:
        source: a GGUF file.
        folder: the cache; made when it is missing.
        report: told how far the conversion has come.

    Raises:
        ConfigError: the package ``gguf`` is not installed.
        EngineStartError: the source is no GGUF or of a kind that cannot be
            converted, or the cache cannot be written; nothing partial is used.
    """
    with _cache_errors():
        report(Progress("checking the model file"))
        cached = folder / f"{_digest(source)[:32]}-{RECIPE}.gguf"
        if _is_whole(cached):
            return cached
        with _conversion_packages():
            # They take a while to import, and a cached model needs neither.
            from atomr_infer_mistralrs.requantize import size_as_q8_0  # noqa: PLC0415
        size = size_as_q8_0(source)
        if size is None:
            return source
        with _space_errors(folder, size):
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(cached.with_suffix(".lock"), report):
                _convert_once(source, cached, report)
        return cached


@contextmanager
def _conversion_packages() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"quantization needs the package {error.name!r}; "
            "run: pip install 'atomr-infer[mistralrs]'"
        ) from error


def _convert_once(source: Path, cached: Path, report: Report) -> None:
    from atomr_infer_mistralrs.requantize import requantize  # noqa: PLC0415  as above

    # Another process may have made it while this one waited for the lock.
    if _is_whole(cached):
        return
    if cached.exists():
        _log.warning("the converted model %s is damaged and is made again", cached)
    partial = cached.with_suffix(".partial")
    try:
        requantize(source, partial, report)
        report(Progress("writing the converted model to disk"))
        _sync(partial)
        # The digest first: a model without one is converted again, a digest
        # without its model does no harm.
        digest_file = cached.with_suffix(".sha256")
        digest_file.write_text(_digest(partial))
        _sync(digest_file)
        partial.rename(cached)
        _sync(cached.parent)
    finally:
        partial.unlink(missing_ok=True)


def _is_whole(cached: Path) -> bool:
    """Whether the cache has the model, undamaged."""
    if not cached.exists():
        return False
    try:
        # Bytes: a damaged digest need not even be text.
        expected = cached.with_suffix(".sha256").read_bytes()
    except FileNotFoundError:
        return False
    return _digest(cached).encode() == expected


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _locked(lock_file: Path, report: Report) -> Iterator[None]:
    """Hold the lock, which the kernel drops when its holder dies."""
    with lock_file.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(Progress("waiting for another process that converts the model"))
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def _space_errors(folder: Path, size_bytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _TOO_BIG:
            raise
        # Rounded up, and one for the metadata.
        need_mib = size_bytes // 2**20 + 2
        raise EngineStartError(
            f"the converted model cannot be cached: no space left in {str(folder)!r}, "
            f"about {need_mib} MiB are needed ({error.strerror}); {_REMEDY}"
        ) from error


@contextmanager
def _cache_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EngineStartError(
            f"the converted model cannot be cached: {error}; {_REMEDY}"
        ) from error
