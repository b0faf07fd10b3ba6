"""SmolLM2 with weights of eight or four bits, as a draft for itself with those of 32.

Four bits are made as a deployment's ``weights`` makes them.  For eight, the matrices of
a graph become ``MatMulNBits``: blocks of 32 numbers, each with a scale and a zero
point, and attention is one node of each layer, as builders write it.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

from atomr_infer_ort.converted import with_bits
from tests.plugins.ort.real import (
    SMOLLM2,
    once,
    packaged,
    smollm2_folder,
    write_smollm2,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugins.ort.graphs import Array

BLOCK = 32
_HIGHEST = 255
_AS_INT8 = 4  # the activations', which is fastest on processors


def smollm2_int8_folder() -> Path | None:
    """The chat model's directory; None: its package is not installed."""
    source = packaged(*SMOLLM2)
    return None if source is None else once("smollm2-int8", source, _write)


def smollm2_int4_folder() -> Path | None:
    """The chat model's directory; None: its package is not installed."""
    whole = smollm2_folder()
    return None if whole is None else once("smollm2-int4", whole, _write_int4)


def _write_int4(source: Path, folder: Path) -> None:
    made = with_bits(source / "model.onnx", 4, folder / "made", lambda _: None)
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(source / name, folder)
    for name in ("model.onnx", "model.onnx_data"):
        shutil.move(made.with_name(name), folder)
    shutil.rmtree(folder / "made")


def _write(source: Path, folder: Path) -> None:
    write_smollm2(source, folder, fused=True)
    whole = onnx.load(folder / "model.onnx")
    (folder / "model.onnx_data").unlink()
    onnx.save(to_int8(whole), folder / "model.onnx")


def to_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose matrices have eight bits for a number."""
    graph = model.graph
    known = {one.name: one for one in graph.initializer}
    made: dict[str, Array] = {}
    nodes = []
    for node in graph.node:
        weight = known.get(node.input[1]) if node.op_type == "MatMul" else None
        if weight is None:
            nodes.append(node)
            continue
        name = weight.name
        matrix = numpy_helper.to_array(weight)
        parts = dict(zip(("q", "s", "z"), in_blocks(matrix), strict=True))
        made |= {f"{name}_{kind}": part for kind, part in parts.items()}
        nodes.append(
            helper.make_node(
                "MatMulNBits",
                [node.input[0], *(f"{name}_{kind}" for kind in parts)],
                list(node.output),
                domain="com.microsoft",
                K=matrix.shape[0],
                N=matrix.shape[1],
                bits=8,
                block_size=BLOCK,
                accuracy_level=_AS_INT8,
            )
        )
    used = {name for node in nodes for name in node.input}
    kept = [one for one in graph.initializer if one.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in made.items())
    return model


def in_blocks(matrix: Array) -> tuple[Array, Array, Array]:
    """Return a matrix's numbers, scales and zero points."""
    columns = matrix.shape[1]
    blocks = matrix.T.reshape(columns, -1, BLOCK)
    low = np.minimum(blocks.min(-1), 0)
    scale = (np.maximum(blocks.max(-1), 0) - low) / _HIGHEST
    scale[scale == 0] = 1
    zero = np.clip(np.round(-low / scale), 0, _HIGHEST).astype(np.uint8)
    numbers = np.round(blocks / scale[..., None]) + zero[..., None]
    whole = np.clip(numbers, 0, _HIGHEST).astype(np.uint8)
    return whole, scale.astype(np.float32).reshape(-1), zero.reshape(-1)
