"""Models whose weights were made smaller, kept for the next start.

A model is a directory in the cache of converted models
(:mod:`~atomr_infer.runtimes.kept_models`)::

    <key>/model.onnx        the converted model
    <key>/model.onnx_data   its weights
    <key>/sha256.json       the digests of both, so that a damaged one is noticed
    <key>.lock              held by whoever converts
    <key>.partial/          what a conversion writes; left over after a crash

``key`` is a hash of the source's files with the bits and the recipe's version.

Blocks.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from atomr_infer.errors import ConfigError
from atomr_infer.runtimes.contract import Progress
from atomr_infer.runtimes.kept_models import (
    DIGESTS,
    cache_errors,
    digest_of,
    locked,
    make_room,
    remove_damaged,
    replace,
    source_errors,
    space_errors,
    sync,
    used_if_whole,
)
from atomr_infer_ort.layout import weights_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from atomr_infer.runtimes.kept_models import Report

RECIPE = "blocks-v1"
"""Changes when the conversion does, so that old results are not used."""


def with_bits(
    model: Path, bits: int, folder: Path, report: Report, *, if_any: bool = False
) -> Path:
    """Return a model with its weights in fewer bits, from the cache or made now.

    A whole model in the cache is returned without a write: the cache of a container's
    image may be read-only.

    Args:
        model: the ``.onnx`` file.
        bits: 8 or 4.
        folder: the cache; made when it is missing.
        report: told how far the conversion has come.
        if_any: whether a model that has no weights in 32 bits is returned as it is.

    Raises:
        ConfigError: the package ``onnx`` is not installed.
        EngineStartError: the model cannot be read or converted, or the cache cannot
            be written; nothing partial is used.
    """
    report(Progress("checking the model file"))
    with source_errors(model):
        key = _key(model)
    with cache_errors():
        kept = folder / f"{key}-{bits}-{RECIPE}"
        if not _is_whole(kept):
            with _conversion_packages(bits):
                # It takes a while to import, and a cached model does not need it.
                from atomr_infer_ort.quantizing import has_products, size_as  # noqa: PLC0415
            if if_any and not has_products(model):
                return model
            with space_errors(folder, lambda: size_as(model, bits)):
                folder.mkdir(parents=True, exist_ok=True)
                with locked(kept.with_name(f"{kept.name}.lock"), report):
                    _convert_once(model, kept, bits, report)
    return kept / "model.onnx"


@contextmanager
def _conversion_packages(bits: int) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"weights in {bits} bits need the package {error.name!r}; run: pip install "
            f"{error.name}"
        ) from error


def _convert_once(model: Path, kept: Path, bits: int, report: Report) -> None:
    from atomr_infer_ort.quantizing import size_as, write_quantized  # noqa: PLC0415

    # Another process may have made it while this one waited for the lock.
    if _is_whole(kept):
        return
    remove_damaged(kept)
    partial = kept.with_name(f"{kept.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    make_room(kept, free_bytes=size_as(model, bits))
    try:
        partial.mkdir()
        write_quantized(model, partial / "model.onnx", bits, report)
        report(Progress("writing the converted model to disk"))
        files = sorted(partial.iterdir())
        digests = partial / DIGESTS
        digests.write_text(json.dumps({file.name: digest_of(file) for file in files}))
        for file in (*files, digests, partial):
            sync(file)
        replace(kept, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    make_room(kept)


def _is_whole(kept: Path) -> bool:
    """Whether the cache has the model, undamaged; nobody removes it then."""

    def is_whole() -> bool:
        said = json.loads((kept / DIGESTS).read_bytes())
        return all(digest_of(kept / name) == digest for name, digest in said.items())

    try:
        return used_if_whole(kept, is_whole)
    except (FileNotFoundError, ValueError, AttributeError):
        return False


def _key(model: Path) -> str:
    whole = hashlib.sha256()
    for file in weights_files(model):
        whole.update(digest_of(file).encode())
    return whole.hexdigest()[:32]
