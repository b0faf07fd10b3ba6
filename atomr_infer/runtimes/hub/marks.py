"""What is noted beside the files of a hub's model: what of it is whole.

A note names what is asked for, the endings of weights that an engine reads, and which
of several exports.

Pure: :mod:`atomr_infer.runtimes.hub.notes` reads and writes it.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import ConfigError
from atomr_infer.runtimes.gguf_files import SUFFIX as GGUF
from atomr_infer.runtimes.gguf_files import parts_of
from atomr_infer.runtimes.hub.exports import SUFFIX as EXPORT
from atomr_infer.runtimes.hub.files import HubFile, wanted_files

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from atomr_infer.runtimes.hub.names import HubModel
    from atomr_infer.runtimes.hub.notes import Note


def place_in(
    note: Note,
    there: Collection[str],
    model: HubModel,
    weights: tuple[str, ...],
    *,
    is_asked: bool = True,
) -> str | None:
    """Return where a model is among files that are whole; None: it is not there.

    Args:
        note: what has come whole.
        there: those files of the note that are still there.
        model: what is asked for.
        weights: the endings of files with weights that the engine reads.
        is_asked: whether the hub can be asked; if not, marks of earlier releases are
            believed, too.
    """
    if model.file is not None:
        parts = parts_of(model.file)
        if all(part in there for part in parts):
            return parts[0]
        if len(parts) > 1:
            return None  # earlier releases noted one part as whole
    # Earlier releases noted a folder of .gguf files, too.
    noted = sorted(
        mark for mark in note.marks if weights != (GGUF,) or mark.endswith(GGUF)
    )
    for at in _marked(noted, _mark(model, weights)):
        if _has_all(at, note, there, model, weights):
            return at
    if is_asked:
        return None
    # Earlier releases fetched all exports, but not all weights beside them.
    for at in _marked(noted, _early_mark(model, weights)):
        export = None if model.export is None else PurePosixPath(at) / model.export
        if export is not None and export.as_posix() not in there:
            continue
        if _has_all(at, note, there, model, weights):
            return at
    return None


def _marked(noted: Collection[str], mark: str) -> list[str]:
    return [one.removeprefix(mark) for one in noted if one.startswith(mark)]


def _has_all(
    at: str,
    note: Note,
    there: Collection[str],
    model: HubModel,
    weights: tuple[str, ...],
) -> bool:
    """Whether what was noted as whole still has the files that it needs.

    Those that others need beside it, such as another export, may have gone.
    """
    noted = tuple(HubFile(path, 0, None, "") for path in sorted(note.files))
    asked = attrs.evolve(model, file=at or None)
    try:
        needed = {file.path for file in wanted_files(asked, noted, weights).files}
    except ConfigError:
        # An earlier release noted several exports, of which none is the usual one.
        inside = f"{at}/" if at else ""
        needed = {path for path in note.files if path.startswith(inside)}
    return bool(needed) and needed.issubset(there)


def marks(
    names: Collection[str],
    model: HubModel,
    files: tuple[HubFile, ...],
    weights: tuple[str, ...],
) -> set[str]:
    """Return what is noted beside files that are whole: all that may be asked for.

    That is the model without a file's name, and each folder, of which everything is
    there that an engine with such weights needs.

    Args:
        names: the files that are whole.
        model: says the repository.
        files: what the repository has.
        weights: the endings of files with weights that the engine reads.
    """
    with_weights = [file.path for file in files if file.path.endswith(weights)]
    folders = {
        folder.as_posix()
        for path in with_weights
        if path in names
        for folder in PurePosixPath(path).parents
    }
    found = set()
    for asked in _askable(model, names, folders):
        try:
            wanted = wanted_files(asked, files, weights)
        except ConfigError:
            continue  # nobody gets it without naming one of its files
        if all(file.path in names for file in wanted.files):
            found.add(f"{_mark(asked, weights)}{wanted.at}")
    return found


def _askable(
    model: HubModel, names: Collection[str], folders: Collection[str]
) -> Iterator[HubModel]:
    """Yield how what is in some folders may be asked for."""
    for folder in folders:
        # The parent of what lies at the top; all of it is asked for without a file.
        asked = attrs.evolve(model, file=None if folder == "." else folder, export=None)
        yield asked
        inside = "" if asked.file is None else f"{asked.file}/"
        for path in names:
            if path.startswith(inside) and path.endswith(EXPORT):
                yield attrs.evolve(asked, export=path.removeprefix(inside))
    yield model


def _mark(asked: HubModel, weights: tuple[str, ...]) -> str:
    return f"{_early_mark(asked, weights).removesuffix('//')}={asked.export or ''}//"


def _early_mark(asked: HubModel, weights: tuple[str, ...]) -> str:
    # No file's path begins so: it would be absolute.
    return f"/{asked.file or ''}//{','.join(sorted(weights))}//"
