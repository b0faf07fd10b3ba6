"""What is asked of a model hub, and what of its answers is taken.

Pure: :mod:`atomr_infer.runtimes.hub` asks.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import attrs

from atomr_infer.errors import ConfigError, EngineStartError

PREFIX = "hf:"
DEFAULT_REVISION = "main"
ENDPOINT = "https://huggingface.co"

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_WRITTEN = re.compile(
    rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[^/@]+))?(?:/(?P<file>[^@]+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

_DIRECTORY = (".json", ".jinja", ".model", ".txt")


@attrs.frozen
class HubModel:
    """A model of a hub, as a deployment names it.

    Attributes:
        repo: ``organisation/name``.
        revision: a branch, a tag or a commit.
        file: the one file of it that is wanted; None: a directory of them.
    """

    repo: str
    revision: str = DEFAULT_REVISION
    file: str | None = None


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


def parse_hub_model(model: str) -> HubModel:
    """Return what ``hf:organisation/name[@revision][/file]`` names.

    Raises:
        ConfigError: it is not written so.

    >>> parse_hub_model("hf:org/tiny@v1/tiny.gguf")
    HubModel(repo='org/tiny', revision='v1', file='tiny.gguf')
    >>> parse_hub_model("hf:org/tiny")
    HubModel(repo='org/tiny', revision='main', file=None)
    """
    match = _WRITTEN.fullmatch(model.removeprefix(PREFIX))
    if match is None or not _stays_inside(match["file"] or "x"):
        raise ConfigError(
            f"model is {model!r}; write {PREFIX}ORGANISATION/NAME, with @REVISION "
            "and /FILE behind it where they are needed"
        )
    return HubModel(match["repo"], match["revision"] or DEFAULT_REVISION, match["file"])


def revision_path(model: HubModel) -> str:
    """Return the path that tells the commit of a revision."""
    return f"/api/models/{model.repo}/revision/{quote(model.revision, safe='')}"


def tree_path(model: HubModel, commit: str) -> str:
    """Return the path that tells a commit's files."""
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
        return tuple(map(_file, entries))
    except (KeyError, TypeError, ValueError) as error:
        problem = f"the model hub's list of files makes no sense: {error!r}"
        raise EngineStartError(problem) from error


def _file(entry: dict[str, Any]) -> HubFile:
    path, size, sha1 = entry["path"], entry["size"], entry["oid"]
    if not isinstance(path, str) or not _stays_inside(path):
        raise ValueError(f"a file is called {path!r}")
    lfs = entry.get("lfs")
    sha256 = None if lfs is None else lfs["oid"]
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise ValueError(f"{path!r} has the digest {sha256!r}")
    if not isinstance(size, int) or size < 0 or not isinstance(sha1, str):
        raise ValueError(f"{path!r} has the size {size!r} and the digest {sha1!r}")
    return HubFile(path, size, sha256, sha1)


def _stays_inside(path: str) -> bool:
    pure = PurePosixPath(path)
    odd = ".." in pure.parts or pure.is_absolute() or "\\" in path or "\0" in path
    return bool(path) and not odd


def wanted_files(
    model: HubModel, files: tuple[HubFile, ...], weights: tuple[str, ...]
) -> tuple[HubFile, ...]:
    """Return the files of a model that an engine needs.

    Args:
        model: what is wanted.
        files: what there is.
        weights: the endings of files with weights that the engine reads.

    Raises:
        ConfigError: what is wanted is not there.
    """
    if model.file is not None:
        found = tuple(file for file in files if file.path == model.file)
        if not found:
            near = (
                ", ".join(f.path for f in files if f.path.endswith(weights)) or "none"
            )
            raise ConfigError(
                f"{model.repo!r} has no file {model.file!r}; files with weights: {near}"
            )
        return found
    if not any(file.path.endswith(weights) for file in files):
        raise ConfigError(
            f"{model.repo!r} has no file that ends with {' or '.join(weights)}"
        )
    endings = (*_DIRECTORY, *weights)
    return tuple(file for file in files if file.path.endswith(endings))
