"""MiniLM as a GGUF, from the weights inside a Python package."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING

import gguf

from tests.plugins.ort.real import (
    MINILM,
    MINILM_SHAPE,
    minilm_weights,
    once,
    packaged,
)

if TYPE_CHECKING:
    from pathlib import Path

_UNKNOWN, _FIRST_CONTROL = 2, 3
_LAYER = "encoder.layer."
_NAMES = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm": "token_embd_norm",
}
_IN_LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def minilm_gguf() -> Path | None:
    """The file; None: the package with its weights is not installed."""
    source = packaged(*MINILM)
    return None if source is None else once("minilm-gguf", source, _write) / "m.gguf"


def _write(source: Path, folder: Path) -> None:
    with zipfile.ZipFile(source) as archive:
        archive.extractall(folder)
    writer = gguf.GGUFWriter(folder / "m.gguf", "bert")
    shape = MINILM_SHAPE
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_block_count(shape.layers)
    writer.add_head_count(shape.heads)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    _add_tokenizer(writer, folder)
    for name, value in minilm_weights(folder).items():
        if (named := _named(name)) is not None:
            writer.add_tensor(named, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (folder / "model.safetensors").unlink()


def _add_tokenizer(writer: gguf.GGUFWriter, folder: Path) -> None:
    known = json.loads((folder / "tokenizer.json").read_text())
    numbers = known["model"]["vocab"]
    special = {token["content"] for token in known["added_tokens"]}
    tokens = sorted(numbers, key=numbers.__getitem__)
    writer.add_tokenizer_model("bert")
    writer.add_token_list([_as_gguf(t, special=t in special) for t in tokens])
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_type_count(2)
    writer.add_unk_token_id(numbers["[UNK]"])
    writer.add_sep_token_id(numbers["[SEP]"])
    writer.add_pad_token_id(numbers["[PAD]"])
    writer.add_mask_token_id(numbers["[MASK]"])


def _as_gguf(token: str, *, special: bool) -> str:
    """A GGUF marks where a word begins, and a tokenizer where one goes on."""
    if special:
        return token
    return token[2:] if token.startswith("##") else "\u2581" + token


def _named(name: str) -> str | None:
    if name.startswith(_LAYER):
        layer, _, rest = name.removeprefix(_LAYER).partition(".")
        kind, _, part = rest.rpartition(".")
        return f"blk.{layer}.{_IN_LAYER[kind]}.{part}"
    for theirs, ours in _NAMES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return None  # what it was trained with beside
