"""One engine for all tests of a session: it takes half a minute and more to start."""

from __future__ import annotations

import json
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import trio

from atomr_infer.bridge import BridgedRunner, open_bridged_runner
from atomr_infer.model.deployment import Deployment
from atomr_infer.runtimes.contract import RunnerContext
from tests.engines.environments import how_to_make, interpreter_of
from tests.engines.models import model_folder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from atomr_infer.runtimes.contract import Progress

STARTS_IN_S = 600.0
LAYERS, WIDTH, RANK = 30, 576, 8


class RunningEngine:
    """A bridged runner in a trio loop of its own thread, for tests that are no tasks.

    Attributes:
        runner: the runner.
        progress: what was said while it started.
    """

    def __init__(self, deployment: Deployment) -> None:
        self.progress: list[Progress] = []
        self._deployment = deployment
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="engine")
        self._thread.start()
        assert self._ready.wait(STARTS_IN_S)
        if self._error is not None:
            raise self._error

    def run(self, work: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """Run a task beside the engine, and return its value."""
        return trio.from_thread.run(work, *arguments, trio_token=self._token)

    def close(self) -> None:
        """End the engine, if it has not ended."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._end.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            trio.run(self._main)
        except BaseException as error:  # noqa: BLE001  told to who waits for it
            self._error = error
        finally:
            self._ready.set()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._end = trio.Event()
        context = RunnerContext(progress=self.progress.append)
        ref = "tests.plugins.vllm.watched:PLUGIN"
        async with open_bridged_runner(ref, self._deployment, context) as runner:
            self.runner: BridgedRunner = runner
            self._ready.set()
            await self._end.wait()


def deployment_of(model: str, **options: Any) -> Deployment:
    """A deployment of a model that ``make engines`` made, or a reason to skip."""
    python, folder = interpreter_of("vllm"), model_folder(model)
    if python is None or folder is None:
        pytest.skip(how_to_make("vllm"))
    return Deployment(
        name="tiny",
        runtime="vllm",
        serves=("tiny", "adapted"),
        interpreter=str(python),
        options={"weights": str(folder), "cpu_cache_gib": 1, **options},
    )


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of random numbers: it changes what the model says."""
    folder = tmp_path_factory.mktemp("adapter")
    config = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": 4 * RANK,
        "target_modules": ["q_proj"],
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    random = np.random.default_rng(1)
    shapes = {"lora_A": (RANK, WIDTH), "lora_B": (WIDTH, RANK)}
    tensors = {
        f"base_model.model.model.layers.{n}.self_attn.q_proj.{part}.weight": (
            random.standard_normal(shape, dtype=np.float32)
        )
        for n in range(LAYERS)
        for part, shape in shapes.items()
    }
    (folder / "adapter_model.safetensors").write_bytes(safetensors(tensors))
    return folder


def safetensors(tensors: dict[str, np.ndarray[Any, np.dtype[np.float32]]]) -> bytes:
    listed, data = {}, bytearray()
    for name, tensor in tensors.items():
        begin = len(data)
        data += tensor.tobytes()
        listed[name] = {
            "dtype": "F32",
            "shape": tensor.shape,
            "data_offsets": [begin, len(data)],
        }
    header = json.dumps(listed).encode()
    return struct.pack("<Q", len(header)) + header + bytes(data)


@pytest.fixture(scope="session")
def engine(adapter: Path) -> Iterator[RunningEngine]:
    running = RunningEngine(
        deployment_of(
            "smollm2-hf",
            dtype="bfloat16",
            context_tokens=1024,
            max_seqs=16,
            tool_parser="hermes",
            lora={"adapted": str(adapter)},
            engine={"enable_log_requests": True},
        )
    )
    yield running
    running.close()
