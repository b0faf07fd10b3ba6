"""Models for ONNX Runtime, written as graphs: a Llama and a BERT.

No package holds a causal model as an ONNX file, so one is made here: tiny and
random, or with the weights of a real model.  The graphs have the inputs and the
outputs of Optimum's exports.  ``reference`` computes the same in numpy.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, np.dtype[Any]]
Weights = dict[str, Array]

OPSET = 18
_FAR = -1e9  # what a masked score gets


@attrs.frozen(kw_only=True)
class LlamaShape:
    hidden: int = 32
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 64
    vocabulary: int = 260
    context: int = 256
    theta: float = 10000.0
    epsilon: float = 1e-5
    # Without them, as in old exports, padded rows come out wrong.
    position_ids: bool = True
    # One node for all of a layer's attention, as builders for GPUs write it: its
    # rows begin at the left, whatever the mask says.
    fused: bool = False

    @property
    def size(self) -> int:
        return self.hidden // self.heads


def random_llama(shape: LlamaShape, seed: int = 1) -> Weights:
    """Weights of which each token's next one is anybody's guess, but never a tie."""
    random = np.random.default_rng(seed)

    def matrix(*size: int, scale: float = 0.3) -> Array:
        return (random.standard_normal(size) * scale).astype(np.float32)

    kv = shape.kv_heads * shape.size
    weights = {"embed": matrix(shape.vocabulary, shape.hidden, scale=1.0)}
    weights["head"] = matrix(shape.hidden, shape.vocabulary, scale=1.0)
    weights["norm"] = np.ones(shape.hidden, np.float32)
    for layer in range(shape.layers):
        weights |= {
            f"{layer}.q": matrix(shape.hidden, shape.hidden),
            f"{layer}.k": matrix(shape.hidden, kv),
            f"{layer}.v": matrix(shape.hidden, kv),
            f"{layer}.o": matrix(shape.hidden, shape.hidden),
            f"{layer}.gate": matrix(shape.hidden, shape.feed_forward),
            f"{layer}.up": matrix(shape.hidden, shape.feed_forward),
            f"{layer}.down": matrix(shape.feed_forward, shape.hidden),
            f"{layer}.norm1": np.ones(shape.hidden, np.float32),
            f"{layer}.norm2": np.ones(shape.hidden, np.float32),
        }
    return weights


class Graph:
    """Nodes that are added one by one; each gives the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def named(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, value: object, kind: type = np.float32) -> str:
        array: Array = np.array(value, kind)
        name = f"c_{len(self.constants)}"
        self.constants[name] = array
        return name

    def ints(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def weight(self, name: str, value: Array) -> str:
        self.constants[f"w_{name}"] = value
        return f"w_{name}"

    def split_heads(self, value: str, heads: int, size: int) -> str:
        shaped = self.add("Reshape", value, self.ints(0, 0, heads, size))
        return self.add("Transpose", shaped, perm=[0, 2, 1, 3])

    def join_heads(self, value: str, hidden: int) -> str:
        turned = self.add("Transpose", value, perm=[0, 2, 1, 3])
        return self.add("Reshape", turned, self.ints(0, 0, hidden))

    def model(
        self, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]
    ) -> onnx.ModelProto:
        sets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        graph = helper.make_graph(
            self.nodes,
            "graph",
            inputs,
            outputs,
            [numpy_helper.from_array(v, n) for n, v in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=sets, ir_version=10)


def _tensor(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


# --- Llama --------------------------------------------------------------------


def llama(shape: LlamaShape, weights: Weights) -> onnx.ModelProto:
    """A causal model with a key-value cache, as ``model.onnx`` of Optimum."""
    graph = Graph()
    length = graph.add("Gather", graph.add("Shape", "input_ids"), graph.ints(1))
    total = graph.add("Gather", graph.add("Shape", "attention_mask"), graph.ints(1))
    bias = _bias(graph, length, total)
    positions = "position_ids"
    if not shape.position_ids:
        positions = graph.add(
            "Unsqueeze", _columns(graph, length, total), graph.ints(0)
        )
    cos, sin = _rotation(graph, shape, positions)
    value = graph.add("Gather", graph.weight("embed", weights["embed"]), "input_ids")
    for layer in range(shape.layers):
        own = {
            name.partition(".")[2]: graph.weight(name, weight)
            for name, weight in weights.items()
            if name.startswith(f"{layer}.")
        }
        normed = _rms(graph, value, own["norm1"], shape.epsilon)
        attend = _attend_fused if shape.fused else _attend
        attended = attend(graph, shape, layer, own, (normed, cos, sin, bias))
        value = graph.add("Add", value, attended)
        normed = _rms(graph, value, own["norm2"], shape.epsilon)
        gate = graph.add("MatMul", normed, own["gate"])
        gate = graph.add("Mul", gate, graph.add("Sigmoid", gate))
        up = graph.add("MatMul", normed, own["up"])
        fed = graph.add("MatMul", graph.add("Mul", gate, up), own["down"])
        value = graph.add("Add", value, fed)
    value = _rms(graph, value, graph.weight("norm", weights["norm"]), shape.epsilon)
    graph.named("MatMul", "logits", value, graph.weight("head", weights["head"]))
    return graph.model(_llama_inputs(shape), _llama_outputs(shape))


def _llama_inputs(shape: LlamaShape) -> list[onnx.ValueInfoProto]:
    whole, real = TensorProto.INT64, TensorProto.FLOAT
    inputs = [
        _tensor("input_ids", whole, "batch", "new"),
        _tensor("attention_mask", whole, "batch", "total"),
    ]
    if shape.position_ids:
        inputs.append(_tensor("position_ids", whole, "batch", "new"))
    for layer in range(shape.layers):
        for kind in ("key", "value"):
            name = f"past_key_values.{layer}.{kind}"
            inputs.append(
                _tensor(name, real, "batch", shape.kv_heads, "past", shape.size)
            )
    return inputs


def _llama_outputs(shape: LlamaShape) -> list[onnx.ValueInfoProto]:
    real = TensorProto.FLOAT
    outputs = [_tensor("logits", real, "batch", "new", shape.vocabulary)]
    for layer in range(shape.layers):
        for kind in ("key", "value"):
            name = f"present.{layer}.{kind}"
            outputs.append(
                _tensor(name, real, "batch", shape.kv_heads, "total", shape.size)
            )
    return outputs


def _columns(graph: Graph, length: str, total: str) -> str:
    """The columns that the new tokens take: total - length .. total - 1."""
    squeeze = [graph.add("Squeeze", graph.add("Sub", total, length))]
    squeeze.append(graph.add("Squeeze", total))
    return graph.add("Range", *squeeze, graph.constant(1, np.int64))


def _bias(graph: Graph, length: str, total: str) -> str:
    rows = graph.add("Unsqueeze", _columns(graph, length, total), graph.ints(1))
    columns = graph.add(
        "Range",
        graph.constant(0, np.int64),
        graph.add("Squeeze", total),
        graph.constant(1, np.int64),
    )
    is_past = graph.add("LessOrEqual", columns, rows)
    causal = graph.add("Where", is_past, graph.constant(0), graph.constant(_FAR))
    mask = graph.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    hidden = graph.add(
        "Mul", graph.add("Sub", graph.constant(1), mask), graph.constant(_FAR)
    )
    hidden = graph.add("Unsqueeze", hidden, graph.ints(1, 2))
    return graph.add("Add", causal, hidden)


def _tables(shape: LlamaShape) -> tuple[Array, Array]:
    steps = shape.theta ** (-np.arange(0, shape.size, 2) / shape.size)
    angles = np.outer(np.arange(shape.context), steps)
    angles = np.concatenate([angles, angles], axis=1)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def _rotation(graph: Graph, shape: LlamaShape, positions: str) -> tuple[str, str]:
    found = []
    for name, table in zip(("cos", "sin"), _tables(shape), strict=True):
        rows = graph.add("Gather", graph.weight(name, table), positions)
        found.append(graph.add("Unsqueeze", rows, graph.ints(1)))
    return found[0], found[1]


def _rms(graph: Graph, value: str, weight: str, epsilon: float) -> str:
    squares = graph.add("Mul", value, value)
    mean = graph.add("ReduceMean", squares, graph.ints(-1))
    root = graph.add("Sqrt", graph.add("Add", mean, graph.constant(epsilon)))
    return graph.add("Mul", graph.add("Div", value, root), weight)


def _turned(graph: Graph, value: str, cos: str, sin: str) -> str:
    halves = [f"{value}_a", f"{value}_b"]
    graph.nodes.append(
        helper.make_node("Split", [value], halves, axis=-1, num_outputs=2)
    )
    other = graph.add("Concat", graph.add("Neg", halves[1]), halves[0], axis=-1)
    return graph.add("Add", graph.add("Mul", value, cos), graph.add("Mul", other, sin))


def _attend(
    graph: Graph,
    shape: LlamaShape,
    layer: int,
    own: dict[str, str],
    given: tuple[str, str, str, str],
) -> str:
    normed, cos, sin, bias = given
    query = graph.split_heads(
        graph.add("MatMul", normed, own["q"]), shape.heads, shape.size
    )
    query = _turned(graph, query, cos, sin)
    kept = []
    for kind, weight in (("key", "k"), ("value", "v")):
        new = graph.split_heads(
            graph.add("MatMul", normed, own[weight]), shape.kv_heads, shape.size
        )
        if kind == "key":
            new = _turned(graph, new, cos, sin)
        past = f"past_key_values.{layer}.{kind}"
        present = graph.named("Concat", f"present.{layer}.{kind}", past, new, axis=2)
        kept.append(_repeated(graph, shape, present))
    turned = graph.add("Transpose", kept[0], perm=[0, 1, 3, 2])
    scores = graph.add("MatMul", query, turned)
    scores = graph.add("Mul", scores, graph.constant(shape.size**-0.5))
    shares = graph.add("Softmax", graph.add("Add", scores, bias), axis=-1)
    joined = graph.join_heads(graph.add("MatMul", shares, kept[1]), shape.hidden)
    return graph.add("MatMul", joined, own["o"])


def _attend_fused(
    graph: Graph,
    shape: LlamaShape,
    layer: int,
    own: dict[str, str],
    given: tuple[str, str, str, str],
) -> str:
    normed, cos, sin, _ = given
    parts = []
    for name, heads in (("q", shape.heads), ("k", shape.kv_heads)):
        made = graph.add("MatMul", normed, own[name])
        made = _turned(graph, graph.split_heads(made, heads, shape.size), cos, sin)
        parts.append(graph.join_heads(made, heads * shape.size))
    parts.append(graph.add("MatMul", normed, own["v"]))
    names = [f"past_key_values.{layer}.{kind}" for kind in ("key", "value")]
    lengths = graph.add("ReduceSum", "attention_mask", graph.ints(1), keepdims=0)
    lengths = graph.add("Sub", lengths, graph.ints(1))
    total = graph.add("Gather", graph.add("Shape", "attention_mask"), graph.ints(1))
    counts = [graph.add("Cast", one, to=TensorProto.INT32) for one in (lengths, total)]
    out = f"fused_{layer}"
    graph.nodes.append(
        helper.make_node(
            "GroupQueryAttention",
            [*parts, *names, *counts],
            [out, f"present.{layer}.key", f"present.{layer}.value"],
            domain="com.microsoft",
            num_heads=shape.heads,
            kv_num_heads=shape.kv_heads,
        )
    )
    return graph.add("MatMul", out, own["o"])


def _repeated(graph: Graph, shape: LlamaShape, kept: str) -> str:
    times = shape.heads // shape.kv_heads
    if times == 1:
        return kept
    apart = graph.add("Unsqueeze", kept, graph.ints(2))
    wide = graph.add("Expand", apart, graph.ints(1, 1, times, 1, 1))
    return graph.add("Reshape", wide, graph.ints(0, shape.heads, -1, shape.size))


def llama_reference(shape: LlamaShape, weights: Weights, tokens: list[int]) -> Array:
    """The logits behind each token, without a cache, in double precision."""
    wide = {name: weight.astype(np.float64) for name, weight in weights.items()}
    cos, sin = (table[: len(tokens)] for table in _tables(shape))

    def rms(value: Array, weight: Array) -> Array:
        mean = (value * value).mean(-1, keepdims=True)
        normed: Array = value / np.sqrt(mean + shape.epsilon) * weight
        return normed

    def heads(value: Array, count: int) -> Array:
        return value.reshape(len(tokens), count, shape.size).transpose(1, 0, 2)

    def turned(value: Array) -> Array:
        half = shape.size // 2
        other = np.concatenate([-value[..., half:], value[..., :half]], -1)
        both: Array = value * cos + other * sin
        return both

    value = wide["embed"][tokens]
    future = np.triu(np.full((len(tokens), len(tokens)), -np.inf), 1)
    for layer in range(shape.layers):
        own = {n.partition(".")[2]: w for n, w in wide.items() if n[0] == str(layer)}
        normed = rms(value, own["norm1"])
        times = shape.heads // shape.kv_heads
        query = turned(heads(normed @ own["q"], shape.heads))
        key = turned(heads(normed @ own["k"], shape.kv_heads)).repeat(times, 0)
        kept = heads(normed @ own["v"], shape.kv_heads).repeat(times, 0)
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(shape.size) + future
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        joined = (shares @ kept).transpose(1, 0, 2).reshape(len(tokens), -1)
        value = value + joined @ own["o"]
        normed = rms(value, own["norm2"])
        gate = normed @ own["gate"]
        value = (
            value + (gate / (1 + np.exp(-gate)) * (normed @ own["up"])) @ own["down"]
        )
    return rms(value, wide["norm"]) @ wide["head"]
