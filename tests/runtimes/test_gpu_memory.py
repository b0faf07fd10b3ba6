"""A model is weighed against what is free on the GPUs that it goes to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from atomr_infer.errors import EngineStartError
from atomr_infer.runtimes.gpu_memory import FreeGpu, check_fits_gpus, free_gpu_bytes
from tests.runtimes.recorded_gpus import RecordedGpus

if TYPE_CHECKING:
    from collections.abc import Callable

ONE = FreeGpu("GPU-1a2b", "NVIDIA H100 80GB HBM3", 100)
TWO = FreeGpu("GPU-1a9f", "NVIDIA H100 80GB HBM3", 20)
SLOW = FreeGpu("GPU-7c00", "NVIDIA T4", 3000)

ORDERED = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


@pytest.mark.parametrize(
    ("gpus", "environ", "devices", "free"),
    [
        ((ONE, TWO), {}, None, 120),
        ((ONE, TWO), {}, [0], 100),
        ((ONE, TWO), {}, [1], 20),
        ((ONE, TWO), {}, [0, 1], 120),
        ((ONE, TWO), {"CUDA_VISIBLE_DEVICES": "1"}, None, 20),
        ((ONE, TWO), {"CUDA_VISIBLE_DEVICES": "1,0"}, [0], 20),
        # The engine says that there is no such GPU.
        ((ONE, TWO), {"CUDA_VISIBLE_DEVICES": "1"}, [1], None),
        ((ONE, TWO), {"CUDA_VISIBLE_DEVICES": ""}, None, None),
        ((), {}, None, None),
        # Of two kinds, CUDA's 0 is the fastest, wherever it is on the bus.
        ((SLOW, ONE), {}, [0], 3000),
        ((ONE, SLOW), {}, [0], 3000),
        ((ONE, SLOW), {"CUDA_VISIBLE_DEVICES": "0"}, None, 3000),
        ((ONE, SLOW), {"CUDA_VISIBLE_DEVICES": "GPU-1a2b"}, None, 100),
        ((ONE, SLOW), {"CUDA_VISIBLE_DEVICES": "GPU-7,GPU-1"}, [1], 100),
        ((ONE, SLOW), ORDERED, [0], 100),
        ((ONE, SLOW), {**ORDERED, "CUDA_VISIBLE_DEVICES": "1,0"}, [1], 100),
    ],
)
def test_what_is_free_is_that_of_the_gpus_as_cuda_counts_them(
    gpus: tuple[FreeGpu, ...],
    environ: dict[str, str],
    devices: list[int] | None,
    free: int | None,
) -> None:
    driver = RecordedGpus(*gpus)
    assert free_gpu_bytes(environ, devices, lambda: driver) == free
    assert not driver.is_open


@pytest.mark.parametrize(("taken", "free"), [(0, 90 + 18), (20, 100 + 20)])
def test_an_engine_that_takes_a_share_of_each_gpu_has_no_more(
    taken: int, free: int
) -> None:
    driver = RecordedGpus(ONE, TWO, taken_bytes=taken)
    assert free_gpu_bytes({}, None, lambda: driver, share=0.9) == free


def test_where_nobody_can_be_asked_nothing_is_known_and_nothing_refused() -> None:
    def absent() -> RecordedGpus:
        raise ImportError("No module named 'pynvml'")

    assert free_gpu_bytes({}, None, absent) is None
    check_fits_gpus("m", 1 << 60, environ={}, load=absent)
    driver = RecordedGpus(ONE, problem="Not Supported")
    assert free_gpu_bytes({}, None, lambda: driver) is None
    assert not driver.is_open


def no_memory(_: FreeGpu) -> SimpleNamespace:
    return SimpleNamespace(total=None, free=None, used=None)


@pytest.mark.parametrize(
    ("function", "tells"),
    [
        ("nvmlDeviceGetUUID", lambda gpu: gpu.uuid.encode()),
        ("nvmlDeviceGetMemoryInfo", no_memory),
    ],
)
def test_what_a_driver_or_an_old_module_does_not_tell_is_not_known(
    monkeypatch: pytest.MonkeyPatch, function: str, tells: Callable[[FreeGpu], object]
) -> None:
    driver = RecordedGpus(ONE, TWO)
    monkeypatch.setattr(driver, function, tells)
    for environ in ({}, {"CUDA_VISIBLE_DEVICES": "GPU-1a2b"}):
        assert free_gpu_bytes(environ, None, lambda: driver) is None
        check_fits_gpus("m", 1 << 60, environ=environ, load=lambda: driver)
    assert not driver.is_open


@pytest.mark.parametrize(
    ("devices", "where"),
    [
        ([1], "2 MiB of memory of GPU 1 are free"),
        ([0, 1], "4 MiB of memory of GPUs 0, 1 together are free"),
        (None, "4 MiB of memory of the GPUs together are free"),
    ],
)
def test_a_model_that_is_larger_is_refused_with_the_figures(
    devices: list[int] | None, where: str
) -> None:
    driver = RecordedGpus(*(FreeGpu(f"GPU-{n}", "T4", 2 << 20) for n in range(2)))
    check_fits_gpus("m", 2 << 20, devices, environ={}, load=lambda: driver)
    with pytest.raises(EngineStartError) as caught:
        check_fits_gpus("m", 5 << 20, devices, environ={}, load=lambda: driver)
    assert caught.value.message == (
        f"the model 'm' does not fit: its weights have 5 MiB, and {where}; use a "
        "smaller or a quantized model, or another machine"
    )
