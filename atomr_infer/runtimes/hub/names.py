"""How a deployment names a model of a hub: ``hf:organisation/name[@revision][/file]``.

Pure.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import attrs

from atomr_infer.errors import ConfigError

PREFIX = "hf:"
DEFAULT_REVISION = "main"

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_WRITTEN = re.compile(
    rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[^/@]+))?(?:/(?P<file>[^@]+))?"
)

_EXPORT = ".onnx"

_EXPORTS = "onnx"
"""The folder in which exports lie, whose settings lie above it."""


def path_inside(export: str) -> str:
    """Return the path of an export as a hub lists it.

    Raises:
        ConfigError: it may lead out of the model's folder.

    >>> path_inside("./onnx/model.onnx")
    'onnx/model.onnx'
    """
    path = PurePosixPath(export)
    if not path.parts or ".." in path.parts or path.is_absolute():
        raise ConfigError(
            f"file is {export!r}; write a path inside the model's folder, without '..'"
        )
    return path.as_posix()


@attrs.frozen
class HubModel:
    """A model of a hub, as a deployment names it.

    Attributes:
        repo: ``organisation/name``.
        revision: a branch, a tag or a commit.
        file: the one file of it that is wanted, or the folder; None: all that an
            engine needs.  One part of a split ``.gguf`` file stands for all.
        export: of several ``.onnx`` files in that folder, the one that is wanted, by
            its path inside; None: the usual one
            (:mod:`~atomr_infer.runtimes.hub.exports`).

    Raises:
        ConfigError: ``export`` is no path inside the folder.
    """

    repo: str
    revision: str = DEFAULT_REVISION
    file: str | None = None
    export: str | None = attrs.field(
        default=None, converter=attrs.converters.optional(path_inside)
    )


def parse_hub_model(model: str) -> HubModel:
    """Return what ``hf:organisation/name[@revision][/file or folder]`` names.

    Raises:
        ConfigError: it is not written so.

    >>> parse_hub_model("hf:org/tiny@v1/tiny.gguf")
    HubModel(repo='org/tiny', revision='v1', file='tiny.gguf', export=None)
    >>> parse_hub_model("hf:org/tiny")
    HubModel(repo='org/tiny', revision='main', file=None, export=None)
    """
    match = _WRITTEN.fullmatch(model.removeprefix(PREFIX))
    if match is None or not stays_inside(match["file"] or "x"):
        raise ConfigError(
            f"model is {model!r}; write {PREFIX}ORGANISATION/NAME, with @REVISION "
            "and /FILE behind it where they are needed"
        )
    file = match["file"]
    return HubModel(
        match["repo"],
        match["revision"] or DEFAULT_REVISION,
        None if file is None else file.rstrip("/"),
    )


def model_and_export(model: str) -> tuple[str, str | None]:
    """Return a hub's model, and the ``.onnx`` file inside it that its name names.

    Settings and tokenizer lie beside that file, or above a folder ``onnx``.

    >>> model_and_export("hf:org/tiny@v1/onnx/model_q4.onnx")
    ('hf:org/tiny@v1', 'onnx/model_q4.onnx')
    >>> model_and_export("hf:org/tiny/cpu")
    ('hf:org/tiny/cpu', None)

    Raises:
        ConfigError: it is not written as :func:`parse_hub_model` reads it.
    """
    file = parse_hub_model(model).file or ""
    if not file.endswith(_EXPORT):
        return model, None
    path = PurePosixPath(file)
    above = path.parents[1] if path.parent.name == _EXPORTS else path.parent
    inside = path.relative_to(above).as_posix()
    return model.rstrip("/").removesuffix(file).rstrip("/") + (
        "" if above == PurePosixPath() else f"/{above}"
    ), inside


def written(model: HubModel, path: str) -> str:
    """Return how a deployment names something in a model's repository."""
    at = "" if model.revision == DEFAULT_REVISION else f"@{model.revision}"
    return f"{PREFIX}{model.repo}{at}/{path}"


def stays_inside(path: str) -> bool:
    """Whether a path of a hub's leads nowhere else."""
    pure = PurePosixPath(path)
    odd = ".." in pure.parts or pure.is_absolute() or "\\" in path or "\0" in path
    return bool(path) and not odd
