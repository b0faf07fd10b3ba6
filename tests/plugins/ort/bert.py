"""A BERT as a graph, and the same in numpy: the model behind MiniLM."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import onnx
from onnx import TensorProto
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tests.plugins.ort.graphs import Array, Graph, Weights, _tensor

if TYPE_CHECKING:
    from pathlib import Path

_FAR = -1e9
_EPSILON = 1e-12


@attrs.frozen(kw_only=True)
class BertShape:
    hidden: int = 32
    layers: int = 2
    heads: int = 4
    feed_forward: int = 64
    vocabulary: int = 40
    context: int = 32


def random_bert(shape: BertShape, seed: int = 1) -> Weights:
    """Random weights under the names of a Hugging Face checkpoint."""
    random = np.random.default_rng(seed)

    def matrix(*size: int) -> Array:
        return (random.standard_normal(size) * 0.3).astype(np.float32)

    hidden, wide = shape.hidden, shape.feed_forward
    weights = {
        "embeddings.word_embeddings.weight": matrix(shape.vocabulary, hidden),
        "embeddings.position_embeddings.weight": matrix(shape.context, hidden),
        "embeddings.token_type_embeddings.weight": matrix(2, hidden),
    }
    for name in ("embeddings", *_norms(shape)):
        weights[f"{name}.LayerNorm.weight"] = matrix(hidden) + 1
        weights[f"{name}.LayerNorm.bias"] = matrix(hidden)
    for layer in range(shape.layers):
        for name in ("query", "key", "value"):
            weights |= _linear(f"{layer}.attention.self.{name}", hidden, hidden, matrix)
        weights |= _linear(f"{layer}.attention.output.dense", hidden, hidden, matrix)
        weights |= _linear(f"{layer}.intermediate.dense", wide, hidden, matrix)
        weights |= _linear(f"{layer}.output.dense", hidden, wide, matrix)
    return weights


def _norms(shape: BertShape) -> list[str]:
    return [
        f"encoder.layer.{layer}.{name}"
        for layer in range(shape.layers)
        for name in ("attention.output", "output")
    ]


def _linear(name: str, out: int, into: int, matrix: Any) -> Weights:
    name = f"encoder.layer.{name}"
    return {f"{name}.weight": matrix(out, into), f"{name}.bias": matrix(out)}


# --- the graph -----------------------------------------------------------------


def bert(shape: BertShape, weights: Weights) -> onnx.ModelProto:
    """An encoder with ``last_hidden_state``, as ``model.onnx`` of Optimum."""
    graph = Graph()

    def linear(value: str, name: str) -> str:
        weight = graph.weight(f"{name}.weight", weights[f"{name}.weight"].T.copy())
        bias = graph.weight(f"{name}.bias", weights[f"{name}.bias"])
        return graph.add("Add", graph.add("MatMul", value, weight), bias)

    def norm(value: str, name: str, output: str | None = None) -> str:
        scale, bias = (
            graph.weight(
                f"{name}.LayerNorm.{kind}", weights[f"{name}.LayerNorm.{kind}"]
            )
            for kind in ("weight", "bias")
        )
        kind, made = "LayerNormalization", {"axis": -1, "epsilon": _EPSILON}
        if output is not None:
            return graph.named(kind, output, value, scale, bias, **made)
        return graph.add(kind, value, scale, bias, **made)

    def table(name: str, rows: str) -> str:
        full = f"embeddings.{name}_embeddings.weight"
        return graph.add("Gather", graph.weight(full, weights[full]), rows)

    length = graph.add("Gather", graph.add("Shape", "input_ids"), graph.ints(1))
    positions = graph.add(
        "Range",
        graph.constant(0, np.int64),
        graph.add("Squeeze", length),
        graph.constant(1, np.int64),
    )
    value = graph.add("Add", table("word", "input_ids"), table("position", positions))
    value = graph.add("Add", value, table("token_type", "token_type_ids"))
    value = norm(value, "embeddings")
    mask = graph.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    bias = graph.add("Sub", graph.constant(1), mask)
    bias = graph.add("Mul", bias, graph.constant(_FAR))
    bias = graph.add("Unsqueeze", bias, graph.ints(1, 2))
    size = shape.hidden // shape.heads
    for layer in range(shape.layers):
        at = f"encoder.layer.{layer}"
        query, key, kept = (
            graph.split_heads(
                linear(value, f"{at}.attention.self.{name}"), shape.heads, size
            )
            for name in ("query", "key", "value")
        )
        turned = graph.add("Transpose", key, perm=[0, 1, 3, 2])
        scores = graph.add("MatMul", query, turned)
        scores = graph.add("Mul", scores, graph.constant(size**-0.5))
        shares = graph.add("Softmax", graph.add("Add", scores, bias), axis=-1)
        joined = graph.join_heads(graph.add("MatMul", shares, kept), shape.hidden)
        attended = linear(joined, f"{at}.attention.output.dense")
        value = norm(graph.add("Add", value, attended), f"{at}.attention.output")
        fed = _gelu(graph, linear(value, f"{at}.intermediate.dense"))
        fed = graph.add("Add", value, linear(fed, f"{at}.output.dense"))
        is_last = layer == shape.layers - 1
        value = norm(fed, f"{at}.output", "last_hidden_state" if is_last else None)
    inputs = [
        _tensor(name, TensorProto.INT64, "batch", "length")
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    hidden = _tensor(
        "last_hidden_state", TensorProto.FLOAT, "batch", "length", shape.hidden
    )
    return graph.model(inputs, [hidden])


def _gelu(graph: Graph, value: str) -> str:
    spread = graph.add("Erf", graph.add("Div", value, graph.constant(math.sqrt(2))))
    spread = graph.add("Add", spread, graph.constant(1))
    half = graph.add("Mul", value, graph.constant(0.5))
    return graph.add("Mul", half, spread)


# --- the reference ----------------------------------------------------------------

_erf = np.vectorize(math.erf, otypes=[np.float64])


def bert_reference(shape: BertShape, weights: Weights, tokens: list[int]) -> Array:
    """The vector of each token of one text, in double precision."""

    def linear(value: Array, name: str) -> Array:
        made: Array = value @ weights[f"{name}.weight"].T.astype(np.float64)
        return made + weights[f"{name}.bias"]

    def norm(value: Array, name: str) -> Array:
        centred = value - value.mean(-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(-1, keepdims=True) + _EPSILON)
        scale = weights[f"{name}.LayerNorm.weight"]
        made: Array = centred / spread * scale + weights[f"{name}.LayerNorm.bias"]
        return made

    def heads(value: Array) -> Array:
        return value.reshape(len(tokens), shape.heads, -1).transpose(1, 0, 2)

    value = weights["embeddings.word_embeddings.weight"][tokens].astype(np.float64)
    value += weights["embeddings.position_embeddings.weight"][: len(tokens)]
    value += weights["embeddings.token_type_embeddings.weight"][0]
    value = norm(value, "embeddings")
    for layer in range(shape.layers):
        at = f"encoder.layer.{layer}"
        query, key, kept = (
            heads(linear(value, f"{at}.attention.self.{name}"))
            for name in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1])
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        joined = (shares @ kept).transpose(1, 0, 2).reshape(len(tokens), -1)
        attended = linear(joined, f"{at}.attention.output.dense")
        value = norm(value + attended, f"{at}.attention.output")
        fed = linear(value, f"{at}.intermediate.dense")
        fed = fed * 0.5 * (1 + _erf(fed / math.sqrt(2)))
        value = norm(value + linear(fed, f"{at}.output.dense"), f"{at}.output")
    return value


# --- a directory --------------------------------------------------------------------

WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *["the", "a", "cat", "sat", "on", "mat", "and", "dog", "ran"],
)


def word_tokenizer() -> Tokenizer:
    """A token for each of a few words, between the marks of a BERT."""
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_special_tokens(list(WORDS[:4]))
    # As in exports of sentence-transformers; both would falsify a batch.
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=16)
    return tokenizer


def write_bert(
    folder: Path, shape: BertShape, weights: Weights, *, pooling: str = "mean_tokens"
) -> Path:
    """Write an embedding model in the layout of sentence-transformers."""
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    onnx.save(bert(shape, weights), folder / "model.onnx")
    word_tokenizer().save(str(folder / "tokenizer.json"))
    config = {"model_type": "bert", "max_position_embeddings": shape.context}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"pooling_mode_mean_tokens": False, f"pooling_mode_{pooling}": True})
    )
    modules = [{"type": f"sentence_transformers.models.{n}"} for n in ("Normalize",)]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder
