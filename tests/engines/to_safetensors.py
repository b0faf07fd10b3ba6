"""A GGUF file to a directory in Hugging Face's layout: ``SOURCE FOLDER``.

Runs in the environment of ``vllm``, which has transformers and torch.
"""

# mypy: ignore-errors
# Neither is in the environment that is checked.

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path

import gguf
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def main(source: Path, folder: Path) -> None:
    """Write the weights, the tokenizer and the configuration."""
    # It is read once for its settings, its weights and its tokenizer, each of which
    # would take seconds: the words of the vocabulary are read one by one.
    gguf.GGUFReader = cache(gguf.GGUFReader)
    named = {"gguf_file": source.name}
    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        dtype=torch.bfloat16,
        # Else the weights stay packed, and cannot be saved.
        quantization_config=GgufConfig(dequantize=True),
        **named,
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source.parent, **named).save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    # Engines that do not know transformers 5 look for it at the top.
    config.setdefault("rope_theta", config["rope_parameters"]["rope_theta"])
    path.write_text(json.dumps(config, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
