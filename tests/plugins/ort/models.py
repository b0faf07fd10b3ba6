"""Model directories, as an export leaves them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import onnx
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tests.plugins.ort.graphs import LlamaShape, llama, random_llama

if TYPE_CHECKING:
    from pathlib import Path

SPECIAL = ("<unk>", "<s>", "</s>", "<|turn|>")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|turn|>{{ message['role'][0] }}{{ message['content'] }}"
    "{% endfor %}{% if add_generation_prompt %}<|turn|>a{% endif %}"
)
SHAPE = LlamaShape()


def byte_tokenizer() -> Tokenizer:
    """A token for each byte: most tokens of a random model are no characters."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: n for n, token in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def write_llama(folder: Path, shape: LlamaShape = SHAPE, seed: int = 1) -> Path:
    """Write a tiny random chat model; return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(llama(shape, random_llama(shape, seed)), folder / "model.onnx")
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    config = {
        "model_type": "llama",
        "eos_token_id": 2,
        "max_position_embeddings": shape.context,
    }
    settings = {
        "bos_token": "<s>",
        "eos_token": {"content": "</s>", "special": True},
        "chat_template": TEMPLATE,
    }
    # Drawn tokens would now and then be the one that ends the answer.
    greedy = {"do_sample": False}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps(greedy))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
