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

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from atomr_infer.errors import ConfigError
from atomr_infer.runtimes.contract import Progress
from atomr_infer.runtimes.files import expanded
from atomr_infer.runtimes.gguf_files import first_part
from atomr_infer.runtimes.kept_models import (
    cache_errors,
    digest_of,
    locked,
    make_room,
    source_errors,
    space_errors,
    sync,
    use,
)
from atomr_infer.runtimes.packaged import PackagedFile, locate_packaged
from atomr_infer_mistralrs.options import GgufFile, HfDirectory, LocalSource

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from atomr_infer.runtimes.kept_models import Report

RECIPE = "q8_0-v2"
"""Changes when the conversion does, so that old results are not used."""

_log = logging.getLogger(__name__)


def locate(source: LocalSource) -> Path:
    """Return where the source's file or directory is.

    Raises:
        ConfigError: it is not there; names the command that helps.
    """
    match source:
        case GgufFile(path):
            return first_part(expanded(path))
        case HfDirectory(path):
            directory = expanded(path)
            if not (directory / "config.json").is_file():
                raise ConfigError(
                    f"{str(directory)!r} is not a model: a .gguf file, or a directory "
                    "with config.json, safetensors and tokenizer.json, is needed"
                )
            return directory
        case PackagedFile():
            return locate_packaged(source)


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
        EngineStartError: the source cannot be read, is no GGUF or of a kind that
            cannot be converted, or the cache cannot be written; nothing partial is
            used.
    """
    report(Progress("checking the model file"))
    with source_errors(source):
        digest = digest_of(source)
    with cache_errors():
        cached = folder / f"{digest[:32]}-{RECIPE}.gguf"
        if _is_whole(cached):
            return cached
        with _conversion_packages():
            # They take a while to import, and a cached model needs neither.
            from atomr_infer_mistralrs.requantize import size_as_q8_0  # noqa: PLC0415
        with source_errors(source):
            size = size_as_q8_0(source)
        if size is None:
            return source
        with space_errors(folder, lambda: size):
            folder.mkdir(parents=True, exist_ok=True)
            with locked(cached.with_suffix(".lock"), report):
                _convert_once(source, cached, size, report)
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


def _convert_once(source: Path, cached: Path, size: int, report: Report) -> None:
    from atomr_infer_mistralrs.requantize import requantize  # noqa: PLC0415  as above

    # Another process may have made it while this one waited for the lock.
    if _is_whole(cached):
        return
    if cached.exists():
        _log.warning("the converted model %s is damaged and is made again", cached)
    make_room(cached, free_bytes=size)
    partial = cached.with_suffix(".partial")
    try:
        requantize(source, partial, report)
        report(Progress("writing the converted model to disk"))
        sync(partial)
        # The digest first: a model without one is converted again, a digest
        # without its model does no harm.
        digest_file = cached.with_suffix(".sha256")
        digest_file.write_text(digest_of(partial))
        sync(digest_file)
        use(partial)
        partial.rename(cached)
        sync(cached.parent)
    finally:
        partial.unlink(missing_ok=True)
    make_room(cached)


def _is_whole(cached: Path) -> bool:
    """Whether the cache has the model, undamaged; nobody removes it then."""
    try:
        use(cached)
        # Bytes: a damaged digest need not even be text.
        expected = cached.with_suffix(".sha256").read_bytes()
    except FileNotFoundError:
        return False
    return digest_of(cached).encode() == expected
