"""Which of several exports of one model is taken: they differ in bits.

A repository for ONNX often holds a model many times in one folder: ``model.onnx``,
``model_fp16.onnx``, ``model_q4.onnx``, each with its weights beside it.  An engine
loads one of them.

Pure.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from atomr_infer.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection

SUFFIX = ".onnx"

USUAL_NAMES = (
    "model.onnx",
    "decoder_model_merged.onnx",
    "decoder_with_past_model.onnx",
    "model_quantized.onnx",
)
"""What is taken where the deployment names nothing, the first that is there; all but
the last have their weights as they were exported, mostly in 32 bits."""


def usual_export(paths: Collection[str]) -> str | None:
    """Return the file that is taken unless another one is named; None: none is.

    Args:
        paths: inside the model's folder.

    >>> usual_export({"onnx/model.onnx", "onnx/model_q4.onnx"})
    'onnx/model.onnx'
    """
    for folder in ("", "onnx/"):
        for name in USUAL_NAMES:
            if folder + name in paths:
                return folder + name
    return None


def other_exports(paths: Collection[str], named: str | None) -> tuple[str, ...]:
    """Return the exports that an engine does not need.

    Args:
        paths: of all files, inside the model's folder.
        named: the file that the deployment names; None: it names none.

    Raises:
        ConfigError: that is not there; or there are several, none of a usual name, and
            none is named.

    >>> other_exports({"model.onnx", "model_q4.onnx"}, "model_q4.onnx")
    ('model.onnx',)
    """
    exports = sorted(path for path in paths if path.endswith(SUFFIX))
    if named is not None and named not in paths:
        raise ConfigError(
            f"there is no file {named!r}; name one with file = ...: "
            f"{', '.join(exports) or 'none is there'}"
        )
    if named is None and len(exports) > 1:
        named = usual_export(exports)
        if named is None:
            raise ConfigError(
                f"there are several {SUFFIX} files, and none is called as usual "
                f"({', '.join(USUAL_NAMES)}); name one with file = ...: "
                f"{', '.join(exports)}"
            )
    return tuple(path for path in exports if path != named) if named else ()


def belongs(path: str, exports: Collection[str]) -> bool:
    """Whether a file is one of some exports, or weights beside one.

    >>> belongs("onnx/a.onnx_data_1", ["onnx/a.onnx"]), belongs("b.onnx", ["a.onnx"])
    (True, False)
    """
    if not exports:
        return False
    name, folder = PurePosixPath(path).name, PurePosixPath(path).parent
    return any(
        folder == PurePosixPath(export).parent
        and (path == export or _is_beside(name, PurePosixPath(export).name))
        for export in exports
    )


def _is_beside(name: str, export: str) -> bool:
    return name.startswith((f"{export}_data", f"{export}.data"))
