"""What an ONNX file declares, read without its weights.

Blocks.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import attrs
import onnx

from atomr_infer.errors import ConfigError, EngineStartError
from atomr_infer_tensorrt.shapes import InputShape


@attrs.frozen(kw_only=True)
class Graph:
    """A model's inputs and outputs, and its files.

    Attributes:
        path: the ``.onnx`` file.
        inputs: what it takes.
        outputs: the names of what it gives.
        weights: files with weights beside it.
    """

    path: Path
    inputs: tuple[InputShape, ...]
    outputs: tuple[str, ...]
    weights: tuple[Path, ...]

    def digest(self) -> str:
        """Return a hash of all that the model is."""
        whole = hashlib.sha256()
        for file in (self.path, *self.weights):
            with file.open("rb") as opened:
                whole.update(hashlib.file_digest(opened, "sha256").digest())
        return whole.hexdigest()


def read_graph(path: Path) -> Graph:
    """Return what a file declares.

    Raises:
        ConfigError: it, or a file with its weights, is missing.
        EngineStartError: it is no ONNX file.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {str(path)!r}") from error
    # The library's errors of a damaged file have no common class but Exception.
    except Exception as error:
        raise EngineStartError(f"{str(path)!r} is no ONNX file: {error}") from error
    graph = model.graph
    if not graph.output:
        raise EngineStartError(f"{str(path)!r} is no ONNX file, or computes nothing")
    kept = {one.name for one in graph.initializer}
    return Graph(
        path=path,
        inputs=tuple(_input(one) for one in graph.input if one.name not in kept),
        outputs=tuple(one.name for one in graph.output),
        weights=_weights(path, model),
    )


def _input(value: onnx.ValueInfoProto) -> InputShape:
    sizes: list[int | str | None] = []
    for one in value.type.tensor_type.shape.dim:
        if one.HasField("dim_value"):
            sizes.append(one.dim_value)
        else:
            sizes.append(one.dim_param or None)
    return InputShape(name=value.name, sizes=tuple(sizes))


def _weights(path: Path, model: onnx.ModelProto) -> tuple[Path, ...]:
    names = {
        entry.value
        for one in model.graph.initializer
        for entry in one.external_data
        if entry.key == "location"
    }
    found = tuple(path.parent / name for name in sorted(names))
    for file in found:
        if not file.is_file():
            raise ConfigError(
                f"{str(path)!r} keeps weights in {file.name!r}, which is not there"
            )
    return found
