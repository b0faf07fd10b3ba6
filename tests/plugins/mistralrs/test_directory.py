"""A Hugging Face directory runs, and what is no model does not start.

The model is a tiny Llama with random weights and a token per ASCII character.
"""

from __future__ import annotations

import json
import struct
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import trio

from atomr_infer.bridge import BridgedRunner, open_bridged_runner
from atomr_infer.errors import EngineStartError, InferenceError
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
from atomr_infer.model.deployment import Deployment
from atomr_infer.runtimes.conformance import CHECKS, Check
from atomr_infer.runtimes.conformance_case import ConformanceCase
from atomr_infer.runtimes.contract import Progress, RunnerContext
from atomr_infer.runtimes.gpu_memory import FreeGpu
from atomr_infer_mistralrs import loading
from atomr_infer_mistralrs.options import BYTES_PER_WEIGHT, Quantization
from atomr_infer_mistralrs.plugin import PLUGIN
from tests.runtimes.fake_hub import REPO, FakeHub, serving
from tests.runtimes.recorded_gpus import RecordedGpus
from tests.runtimes.test_loaded_size import write

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.engine

REF = "atomr_infer_mistralrs.plugin:PLUGIN"
Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]

HIDDEN, LAYERS, HEADS, FEED_FORWARD = 64, 2, 4, 128
SPECIAL = ["<unk>", "<s>", "</s>"]
BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": False,
}
TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}>{% endif %}"
)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "intermediate_size": FEED_FORWARD,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}


def write_tiny_model(folder: Path) -> None:
    """Write the model's four files."""
    tokens = [*SPECIAL, "Ġ", *(chr(code) for code in range(33, 127))]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    config = CONFIG | {"vocab_size": len(tokens)}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer(vocabulary)))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "bos_token": "<s>",
                "eos_token": "</s>",
                "unk_token": "<unk>",
                "chat_template": TEMPLATE,
            }
        )
    )
    _write_safetensors(folder / "model.safetensors", _weights(len(tokens)))


def files_in(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def _tokenizer(vocabulary: dict[str, int]) -> dict[str, object]:
    added = [
        {
            "id": vocabulary[token],
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for token in SPECIAL
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": BYTE_LEVEL,
        "post_processor": None,
        "decoder": BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": vocabulary,
            "merges": [],
        },
    }


def _weights(
    vocabulary_size: int,
) -> dict[str, Array]:
    random = np.random.default_rng(7)

    def matrix(*shape: int) -> Array:
        return (random.standard_normal(shape) * 0.1).astype(np.float32)

    weights = {
        "model.embed_tokens.weight": matrix(vocabulary_size, HIDDEN),
        "model.norm.weight": np.ones(HIDDEN, np.float32),
        "lm_head.weight": matrix(vocabulary_size, HIDDEN),
    }
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        for name in ("q", "k", "v", "o"):
            weights[f"{at}.self_attn.{name}_proj.weight"] = matrix(HIDDEN, HIDDEN)
        weights[f"{at}.mlp.gate_proj.weight"] = matrix(FEED_FORWARD, HIDDEN)
        weights[f"{at}.mlp.up_proj.weight"] = matrix(FEED_FORWARD, HIDDEN)
        weights[f"{at}.mlp.down_proj.weight"] = matrix(HIDDEN, FEED_FORWARD)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{at}.{name}.weight"] = np.ones(HIDDEN, np.float32)
    return weights


def _write_safetensors(path: Path, tensors: dict[str, Array]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(tensor.tobytes())


def write_wide_model(folder: Path) -> None:
    """Write a model whose rows are wide enough for each kind of blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "HIDDEN", 256)
        patch.setitem(globals(), "FEED_FORWARD", 512)
        patch.setitem(CONFIG, "hidden_size", 256)
        patch.setitem(CONFIG, "intermediate_size", 512)
        write_tiny_model(folder)


@pytest.mark.parametrize(
    "quantization",
    [
        pytest.param(kind, marks=() if kind is Quantization.Q4K else pytest.mark.slow)
        for kind in BYTES_PER_WEIGHT
    ],
    ids=lambda kind: kind.value,
)
async def test_a_directory_is_quantized_and_answers_at_once_are_those_of_one_alone(
    tmp_path: Path, quantization: Quantization
) -> None:
    write_wide_model(tmp_path)
    deployment = Deployment(
        name="wide",
        runtime="mistralrs",
        model=str(tmp_path),
        options={"quantization": quantization.value},
    )
    said: list[str] = []

    async def ask(runner: BridgedRunner) -> None:
        batch = ExecuteBatch(
            request_id="r",
            model="m",
            messages=(Message(Role.USER, "abc"),),
            sampling=Sampling(max_tokens=16, temperature=0.0),
        )
        async with runner.execute(batch) as chunks:
            said.append("".join([chunk.text async for chunk in chunks]))

    async with open_bridged_runner(REF, deployment, RunnerContext()) as runner:
        with trio.fail_after(300):
            await ask(runner)
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(ask, runner)
    assert said[0]
    assert said == [said[0]] * 4


@pytest.mark.parametrize("quantization", ["none", "Q8_0"])
async def test_a_hugging_face_directory_runs(tmp_path: Path, quantization: str) -> None:
    write_tiny_model(tmp_path)
    deployment = Deployment(
        name="tiny",
        runtime="mistralrs",
        model=str(tmp_path),
        options={"quantization": quantization, "max_seqs": 1},
    )
    progress: list[Progress] = []
    context = RunnerContext(progress=progress.append)
    async with open_bridged_runner(REF, deployment, context) as runner:
        assert runner.capabilities.max_concurrency == 1
        assert runner.capabilities.context_tokens == 256
        batch = ExecuteBatch(
            request_id="r",
            model="m",
            messages=(Message(Role.USER, "abc"),),
            sampling=Sampling(max_tokens=5, temperature=0.0),
        )
        with trio.fail_after(300):
            async with runner.execute(batch) as chunks:
                usage = [chunk async for chunk in chunks][-1].usage
    assert progress == [Progress("loading the model")]
    assert usage is not None
    # The template adds a character to the message.
    assert (usage.prompt_tokens, usage.output_tokens) == (4, 5)


async def test_a_folder_of_a_hub_s_model_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_model(tmp_path)
    files = {f"tiny/{name}": content for name, content in files_in(tmp_path).items()}
    deployment = Deployment(name="d", runtime="mistralrs", model=f"hf:{REPO}/tiny")
    with serving(FakeHub({**files, "tiny/model.gguf": b"another form"})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("ATOMR_INFER_CACHE", str(tmp_path / "cache"))
        async with open_bridged_runner(REF, deployment, RunnerContext()) as runner:
            assert runner.capabilities.context_tokens == 256
    fetched = {path.rpartition("/")[2] for path, _, _ in hub.asked if "tiny/" in path}
    assert "model.safetensors" in fetched
    assert "model.gguf" not in fetched


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_conformance(tmp_path: Path, check: Check) -> None:
    write_tiny_model(tmp_path)
    deployment = Deployment(name="tiny", runtime="mistralrs", model=str(tmp_path))
    async with open_bridged_runner(REF, deployment, RunnerContext()) as runner:
        await check(runner, ConformanceCase(model="m", leave_timeout_s=30.0))


async def start_error(deployment: Deployment) -> InferenceError:
    with pytest.raises(InferenceError) as caught:
        async with open_bridged_runner(REF, deployment, RunnerContext()):
            pytest.fail("opened")
    return caught.value


async def test_a_file_that_is_no_model_does_not_start(tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF" + b"\0" * 100)
    error = await start_error(
        Deployment(name="d", runtime="mistralrs", model=str(file))
    )
    assert type(error) is EngineStartError
    assert error.message.startswith(f"mistral.rs cannot load '{file}': ")


async def test_a_missing_file_does_not_start() -> None:
    error = await start_error(
        Deployment(name="d", runtime="mistralrs", model="/no/m.gguf")
    )
    assert type(error) is EngineStartError
    assert error.message == "there is no model file '/no/m.gguf'"


async def test_a_model_larger_than_free_memory_is_refused_before_it_is_loaded(
    tmp_path: Path,
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    # Weights of a terabyte; the file system holds none of it.
    with (tmp_path / "model.safetensors").open("wb") as weights:
        weights.truncate(2**40)
    told: list[Progress] = []
    deployment = Deployment(name="m", runtime="mistralrs", model=str(tmp_path))
    with pytest.raises(EngineStartError) as caught:
        async with PLUGIN.open_runner(deployment, RunnerContext(progress=told.append)):
            pass
    assert "does not fit: its weights have 1048576 MiB, and " in caught.value.message
    assert told == []


@pytest.mark.parametrize(
    ("mib", "says"),
    [
        (
            18,
            "its weights have 9 MiB, and 7 MiB of memory of the GPUs and the machine "
            "together are free",
        ),
        (14, "mistral.rs cannot load"),
    ],
)
async def test_with_gpus_their_memory_counts_beside_the_machine_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mib: int, says: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    # Of 32 bits, which are 16 once they are loaded there.
    write(tmp_path / "model.safetensors", ("F32", [mib * 2**18], mib * 2**20))
    write(tmp_path / "consolidated.safetensors", ("F32", [2**28], 2**30))
    monkeypatch.setattr(loading, "_is_for_cuda", lambda: True)
    monkeypatch.setattr(loading, "free_bytes", lambda: 3 * 2**20)
    gpus = (FreeGpu(f"GPU-{number}", "T4", 2 * 2**20) for number in range(2))
    monkeypatch.setitem(sys.modules, "pynvml", RecordedGpus(*gpus))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    deployment = Deployment(name="m", runtime="mistralrs", model=str(tmp_path))
    with pytest.raises(EngineStartError) as caught:
        async with PLUGIN.open_runner(deployment, RunnerContext()):
            pytest.fail("opened")
    assert says in caught.value.message
