"""What is bound to a GPU, and weighed against it: all that needs none."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import onnxruntime
import pytest

from atomr_infer.errors import ConfigError, EngineStartError
from atomr_infer.model.deployment import Deployment
from atomr_infer.runtimes.contract import RunnerContext
from atomr_infer.runtimes.gpu_memory import FreeGpu
from atomr_infer_ort import loading, model
from atomr_infer_ort.options import Options, parse_options
from atomr_infer_ort.plugin import PLUGIN
from tests.plugins.ort.graphs import LlamaShape
from tests.plugins.ort.models import write_genai, write_llama
from tests.runtimes.recorded_gpus import RecordedGpus

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20
Place = tuple[str, int]


class GpuSession:
    """A session on the CPU that says it is on a GPU, and keeps what it is told."""

    def __init__(self, path: Path, places: set[Place]) -> None:
        self._session: Any = onnxruntime.InferenceSession(str(path))
        self._places = places

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def io_binding(self) -> GpuBinding:
        return GpuBinding(self._session.io_binding(), self._places)

    def run_with_iobinding(self, binding: GpuBinding) -> None:
        self._session.run_with_iobinding(binding.bound)


class GpuBinding:
    def __init__(self, bound: Any, places: set[Place]) -> None:
        self.bound = bound
        self._places = places

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bound, name)

    def bind_output(self, name: str, device: str, device_id: int = 0) -> None:
        if name not in {"logits", "scores"}:
            self._places.add((device, device_id))
        self.bound.bind_output(name, "cpu")


class GpuValue:
    """Stands where ``OrtValue`` does."""

    places: ClassVar[set[Place]] = set()

    @classmethod
    def ortvalue_from_numpy(cls, array: Any, device: str, device_id: int) -> Any:
        cls.places.add((device, device_id))
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> set[Place]:
    """Where caches were put."""
    found: set[Place] = set()

    def opened(path: Path, options: Options) -> GpuSession:
        return GpuSession(path, found)

    monkeypatch.setattr(loading, "open_session", opened)
    monkeypatch.setattr(model, "OrtValue", GpuValue)
    monkeypatch.setattr(GpuValue, "places", found)
    return found


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have GPUs here, with so many MiB free on each."""

    def have(*free_mib: int) -> None:
        there = [
            FreeGpu(f"GPU-{n}", "T4", free * MIB) for n, free in enumerate(free_mib)
        ]
        monkeypatch.setitem(sys.modules, "pynvml", RecordedGpus(*there))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return have


def on_gpu(folder: Path, device_id: str, **more: Any) -> Deployment:
    chosen: dict[str, Any] = {
        "providers": ["cuda", "cpu"],
        "provider_options": {"cuda": {"device_id": device_id}},
    }
    return Deployment(
        name="m", runtime="ort", model=str(folder), options={**chosen, **more}
    )


@pytest.mark.parametrize("write", [write_llama, write_genai])
async def test_caches_stay_on_the_gpu_that_the_provider_computes_on(
    tmp_path: Path, places: set[Place], write: Callable[[Path], Path]
) -> None:
    folder = write(tmp_path / "m")
    async with PLUGIN.open_runner(on_gpu(folder, "1"), RunnerContext()):
        # Loading tries the model: runs and gatherings, of one and of several.
        assert places == {("cuda", 1)}


async def test_a_model_larger_than_what_its_gpu_has_free_is_refused_before_it_is_loaded(
    tmp_path: Path, gpus: Callable[..., None]
) -> None:
    folder = write_llama(tmp_path)
    with (folder / "model.onnx_data").open("wb") as weights:
        weights.truncate(3 * MIB)
    (folder / "model.onnx").write_bytes(b"never read")
    gpus(9, 2)
    with pytest.raises(EngineStartError) as caught:
        async with PLUGIN.open_runner(on_gpu(folder, "1"), RunnerContext()):
            raise AssertionError
    assert (
        "does not fit: its weights have 3 MiB, and 2 MiB of memory of GPU 1 are free"
        in caught.value.message
    )


async def test_the_cache_is_what_a_share_of_the_gpu_s_free_memory_holds(
    tmp_path: Path, places: set[Place], gpus: Callable[..., None]
) -> None:
    # A token takes 256 bytes in this model's cache.
    gpus(900, 1)
    folder = write_llama(tmp_path, LlamaShape(context=4096))
    async with PLUGIN.open_runner(on_gpu(folder, "1"), RunnerContext()) as runner:
        assert runner.capabilities.context_tokens == 1024
    assert places == {("cuda", 1)}


async def test_of_a_gpu_that_nobody_tells_of_the_machine_s_memory_bounds_the_cache(
    tmp_path: Path,
    places: set[Place],
    gpus: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpus()
    monkeypatch.setattr(loading, "free_bytes", lambda: MIB)
    folder = write_llama(tmp_path, LlamaShape(context=4096))
    async with PLUGIN.open_runner(on_gpu(folder, "1"), RunnerContext()) as runner:
        assert runner.capabilities.context_tokens == 1024
    assert places == {("cuda", 1)}


@pytest.mark.parametrize(
    ("options", "gpu"),
    [
        ({}, None),
        ({"providers": ["cuda"]}, 0),
        ({"providers": ["cpu", "cuda"]}, None),
        ({"providers": ["openvino"]}, None),
        (
            {
                "providers": ["tensorrt", "cuda"],
                "provider_options": {
                    "tensorrt": {"device_id": "2"},
                    "cuda": {"device_id": "2"},
                },
            },
            2,
        ),
    ],
    ids=str,
)
def test_the_gpu_is_that_of_the_first_provider(
    options: dict[str, Any], gpu: int | None
) -> None:
    deployment = Deployment(name="m", runtime="ort", model="/m", options=options)
    assert parse_options(deployment).gpu == gpu


@pytest.mark.parametrize("number", ["", "one", "-1", "1.0", "\u0661"])
def test_a_gpu_has_a_number(number: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_options(on_gpu(Path("/m"), number))
    assert caught.value.message == (
        f"deployment 'm': device_id of cuda in provider_options is {number!r}; give a "
        'GPU\'s number, such as "1"'
    )
