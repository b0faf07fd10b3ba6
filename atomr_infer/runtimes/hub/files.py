"""What is asked of a model hub, and what of its answers is taken.

Pure: :mod:`atomr_infer.runtimes.hub.fetching` asks.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import attrs

from atomr_infer.errors import ConfigError, EngineStartError
from atomr_infer.runtimes.gguf_files import SUFFIX as GGUF
from atomr_infer.runtimes.gguf_files import parts_of, some_of, usual_gguf
from atomr_infer.runtimes.hub.exports import SUFFIX as EXPORT
from atomr_infer.runtimes.hub.exports import belongs, other_exports
from atomr_infer.runtimes.hub.names import HubModel, stays_inside, written

ENDPOINT = "https://huggingface.co"

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

_SURROGATE = re.compile(r"[\ud800-\udfff]")
"""No text; no file can be called so, and no request can hold it."""

_VARIANT = "genai_config.json"
"""Each folder with it is a whole model."""

_DIRECTORY = (".json", ".jinja", ".model", ".txt")


@attrs.frozen
class HubFile:
    """One file of a model.

    Attributes:
        path: inside the model, with ``/``.
        size: in bytes.
        sha256: its digest; None: ``git_sha1`` tells.
        git_sha1: its digest as git makes it.
    """

    path: str
    size: int
    sha256: str | None
    git_sha1: str


def revision_path(model: HubModel) -> str:
    """Return the path that tells the commit of a revision."""
    return f"/api/models/{model.repo}/revision/{quote(model.revision, safe='')}"


def tree_path(model: HubModel, commit: str) -> str:
    """Return the path that tells a commit's files, on one page or several."""
    return f"/api/models/{model.repo}/tree/{commit}?recursive=true"


def file_path(model: HubModel, commit: str, path: str) -> str:
    """Return the path of a file's content."""
    return f"/{model.repo}/resolve/{commit}/{quote(path)}"


def commit_of(answer: Any) -> str:  # noqa: ANN401 - JSON
    """Return the commit that a hub says.

    Raises:
        EngineStartError: it says none.
    """
    commit = answer.get("sha") if isinstance(answer, dict) else None
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise EngineStartError("the model hub did not say which commit it has")
    return commit


def files_of(answer: Any) -> tuple[HubFile, ...]:  # noqa: ANN401 - JSON
    """Return the files of a commit as a hub lists them.

    Raises:
        EngineStartError: the list makes no sense, or a name would leave its folder.
    """
    if not isinstance(answer, list):
        raise EngineStartError("the model hub's list of files is no list")
    try:
        entries = [entry for entry in answer if entry["type"] == "file"]
        files = tuple(map(_file, entries))
        _check_folders(files)
    except (KeyError, TypeError, ValueError) as error:
        problem = f"the model hub's list of files makes no sense: {error!r}"
        raise EngineStartError(problem) from error
    return files


def _check_folders(files: tuple[HubFile, ...]) -> None:
    paths = {file.path for file in files}
    folders = {str(at) for path in paths for at in PurePosixPath(path).parents}
    if both := sorted(paths & folders):
        raise ValueError(f"{both[0]!r} is a file and a folder")


def _file(entry: dict[str, Any]) -> HubFile:
    path, size, sha1 = entry["path"], entry["size"], entry["oid"]
    if (
        not isinstance(path, str)
        or not stays_inside(path)
        or PurePosixPath(path).as_posix() != path  # as git writes it
        or _SURROGATE.search(path)
    ):
        raise ValueError(f"a file is called {path!r}")
    lfs = entry.get("lfs")
    sha256 = None if lfs is None else lfs["oid"]
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise ValueError(f"{path!r} has the digest {sha256!r}")
    if not isinstance(size, int) or size < 0 or not isinstance(sha1, str):
        raise ValueError(f"{path!r} has the size {size!r} and the digest {sha1!r}")
    return HubFile(path, size, sha256, sha1)


@attrs.frozen
class Wanted:
    """What is fetched of a model.

    Attributes:
        files: those that an engine needs.
        at: the file or folder that it is given; "": the whole directory.
        instead_of: folders of other variants, which are not fetched.
        exports: other ``.onnx`` files, which are not fetched.
        ggufs: other models in ``.gguf`` files, which are not fetched.
    """

    files: tuple[HubFile, ...]
    at: str = ""
    instead_of: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()
    ggufs: tuple[str, ...] = ()

    def choices(self, model: HubModel) -> list[str]:
        """Say which of several is taken, and how to name another one."""
        said = [self._variant(model)] if self.instead_of else []
        if self.ggufs:
            said.append(
                f"{model.repo} has several {GGUF} files; {self.at} is taken, and not "
                f"{', '.join(self.ggufs)}; for another one, name it: "
                f"model = {written(model, self.ggufs[0])!r}"
            )
        if self.exports and model.export is None:
            taken = ", ".join(f.path for f in self.files if f.path.endswith(EXPORT))
            inside = f"{self.at}/" if self.at else ""
            said.append(
                f"{model.repo} has several {EXPORT} files; {taken} is taken, and not "
                f"{', '.join(self.exports)}; for another one, name it in the "
                f"deployment's options: file = "
                f"{self.exports[0].removeprefix(inside)!r}"
            )
        return said

    def _variant(self, model: HubModel) -> str:
        others = ", ".join(self.instead_of)
        another = written(model, self.instead_of[0])
        return (
            f"{model.repo} has several variants; {self.at or 'the one at the top'} is "
            f"taken, and not {others}; for another one, name its folder: "
            f"model = {another!r}"
        )


def wanted_files(
    model: HubModel, files: tuple[HubFile, ...], weights: tuple[str, ...]
) -> Wanted:
    """Return the files of a model that an engine needs.

    A repository may hold a model several times, each in a folder with the settings of
    onnxruntime-genai: for a processor, for GPUs, in more bits or fewer.  One is taken,
    and of a folder with several below it, too:

    1. the one that lies at the top, if its weights do, too;
    2. else one that is called as for a CPU, for it runs everywhere;
    3. of those the one with the fewest bytes;
    4. of equal ones the first by name.

    Of several ``.onnx`` files in it, one is taken
    (:mod:`~atomr_infer.runtimes.hub.exports`), and of several ``.gguf`` files, too
    (:mod:`~atomr_infer.runtimes.gguf_files`), with all its parts.

    Args:
        model: what is wanted.
        files: what there is.
        weights: the endings of files with weights that the engine reads.

    Raises:
        ConfigError: what is wanted is not there.
    """
    if model.file is not None:
        if any(file.path == model.file for file in files):
            return _all_parts(model, model.file, files)
        if not _have(_inside(model.file, files), weights):
            near = ", ".join(f.path for f in files if f.path.endswith(weights))
            raise ConfigError(
                f"{model.repo!r} has no file {model.file!r}, and no folder of that "
                f"name with weights; files with weights: {near or 'none'}"
            )
    elif not _have(files, weights):
        raise ConfigError(
            f"{model.repo!r} has no file that ends with {' or '.join(weights)}"
        )
    top = model.file or ""
    if weights == (GGUF,):
        return _one_gguf(model, top, files)
    return _one_export(model, _one_variant(top, files, weights), weights)


def _all_parts(model: HubModel, file: str, files: tuple[HubFile, ...]) -> Wanted:
    there = {file.path: file for file in files}
    parts = parts_of(file)
    gone = [part for part in parts if part not in there]
    if gone:
        raise ConfigError(
            f"{model.repo!r} has {file!r}, which is one of {len(parts)} parts, and "
            f"lacks {some_of(gone)}"
        )
    return Wanted(tuple(there[part] for part in parts), parts[0])


def _one_gguf(model: HubModel, top: str, files: tuple[HubFile, ...]) -> Wanted:
    try:
        taken, others = usual_gguf([file.path for file in _inside(top, files)])
    except ConfigError as error:
        raise ConfigError(f"{model.repo!r}: {error}") from error
    return attrs.evolve(_all_parts(model, taken, files), ggufs=others)


def _one_export(model: HubModel, wanted: Wanted, weights: tuple[str, ...]) -> Wanted:
    """Leave out what an engine does not load that reads one ``.onnx`` file.

    Settings of onnxruntime-genai say themselves which files they need.
    """
    inside = f"{wanted.at}/" if wanted.at else ""
    paths = {file.path.removeprefix(inside) for file in wanted.files}
    if EXPORT not in weights or _VARIANT in paths:
        return wanted
    try:
        others = {inside + path for path in other_exports(paths, model.export)}
    except ConfigError as error:
        raise ConfigError(f"{model.repo!r}: {error}") from error
    needed = tuple(file for file in wanted.files if not belongs(file.path, others))
    return attrs.evolve(wanted, files=needed, exports=tuple(sorted(others)))


def _one_variant(
    top: str, files: tuple[HubFile, ...], weights: tuple[str, ...]
) -> Wanted:
    folders = {
        file.path.removesuffix(_VARIANT).rstrip("/")
        for file in _inside(top, files)
        if PurePosixPath(file.path).name == _VARIANT
    }
    folders = {at for at in folders if _have(_inside(at, files), weights)}
    own = {at: _but_below(at, folders, files) for at in {top, *folders}}
    variants = {at for at in folders if _have(own[at], weights)}
    at = top
    if variants and top not in variants:
        sizes = {at: sum(file.size for file in own[at]) for at in variants}
        at = min(sizes, key=lambda at: ("cpu" not in at.lower(), sizes[at], at))
    return Wanted(_needed(own[at], weights), at, tuple(sorted(variants - {at})))


def _inside(at: str, files: tuple[HubFile, ...]) -> tuple[HubFile, ...]:
    return tuple(file for file in files if not at or file.path.startswith(f"{at}/"))


def _but_below(
    at: str, folders: set[str], files: tuple[HubFile, ...]
) -> tuple[HubFile, ...]:
    """Return the files of a folder, without those of other variants below it."""
    prefix = f"{at}/" if at else ""
    others = folders - {at}
    below = tuple(f"{other}/" for other in others if other.startswith(prefix))
    return tuple(file for file in _inside(at, files) if not file.path.startswith(below))


def _have(files: tuple[HubFile, ...], weights: tuple[str, ...]) -> bool:
    return any(file.path.endswith(weights) for file in files)


def _needed(
    files: tuple[HubFile, ...], weights: tuple[str, ...]
) -> tuple[HubFile, ...]:
    endings = (*_DIRECTORY, *weights)
    exports = {file.path for file in files if file.path.endswith(EXPORT)}
    if EXPORT not in weights:
        exports = set()
    # Weights beside an export are called in many ways, and their list of endings is
    # part of what earlier releases noted.
    return tuple(
        file
        for file in files
        if file.path.endswith(endings) or belongs(file.path, exports)
    )
