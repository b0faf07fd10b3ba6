"""Model directories, as an export leaves them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

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


GENAI_NAMES = {
    "input_ids": "tokens",
    "attention_mask": "mask",
    "position_ids": "places",
    "past_key_names": "k_in_%d",
    "past_value_names": "v_in_%d",
    "logits": "scores",
    "present_key_names": "k_out_%d",
    "present_value_names": "v_out_%d",
}
"""What the graph of a directory of onnxruntime-genai may call its tensors."""


def write_genai(
    folder: Path, shape: LlamaShape = SHAPE, *, with_names: bool = True, **more: object
) -> Path:
    """Write the same model as a directory of onnxruntime-genai; return its folder.

    Args:
        folder: where.
        shape: of the model.
        with_names: whether the graph has names of its own.
        more: tables of ``model`` in ``genai_config.json``, or ``search``.
    """
    write_llama(folder, shape)
    for name in ("config.json", "generation_config.json"):
        (folder / name).unlink()
    graph = onnx.load(folder / "model.onnx")
    (folder / "model.onnx").unlink()
    if with_names:
        _rename(graph, shape)
    onnx.save(graph, folder / "decoder.onnx")
    config = genai_config(shape, GENAI_NAMES if with_names else {})
    config["search"] = more.pop("search", {"do_sample": False})
    config["model"] |= more
    (folder / "genai_config.json").write_text(json.dumps(config))
    return folder


def genai_config(shape: LlamaShape, names: dict[str, str]) -> dict[str, Any]:
    """The settings that a model builder writes."""
    inputs = [
        name for name in names if name.startswith(("input", "att", "pos", "past"))
    ]
    decoder = {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "filename": "decoder.onnx",
        "head_size": shape.size,
        "hidden_size": shape.hidden,
        "inputs": {name: names[name] for name in inputs},
        "outputs": {name: names[name] for name in names if name not in inputs},
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
    }
    model = {
        "type": "llama",
        "bos_token_id": 1,
        "eos_token_id": [2],
        "pad_token_id": 2,
        "context_length": shape.context,
        "vocab_size": shape.vocabulary,
        "decoder": decoder,
    }
    return {"model": model}


def _rename(model: onnx.ModelProto, shape: LlamaShape) -> None:
    named = {name: GENAI_NAMES[name] for name in ("input_ids", "attention_mask")}
    named |= {name: GENAI_NAMES[name] for name in ("position_ids", "logits")}
    for layer in range(shape.layers):
        for kind in ("key", "value"):
            for side, ours in (("past", "past_key_values"), ("present", "present")):
                theirs = GENAI_NAMES[f"{side}_{kind}_names"]
                named[f"{ours}.{layer}.{kind}"] = theirs.replace("%d", str(layer))
    for one in (*model.graph.input, *model.graph.output):
        one.name = named.get(one.name, one.name)
    for node in model.graph.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                names[at] = named.get(name, name)
