"""The GPUs of this machine: recorded ones, and the case of none."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from atomr_infer.runtimes.gpu_memory import load_nvml
from atomr_infer.serving.inventory import Gpu, Inventory, read_inventory

GIB = 1 << 30


class RecordedError(Exception):
    """What the recorded driver raises."""


class Recorded:
    """What ``pynvml`` 13.615 says of a machine with GPUs, as recorded."""

    NVMLError: type[Exception] = RecordedError

    def __init__(self, *gpus: Gpu, problem: str | None = None) -> None:
        self.gpus = gpus
        self.problem = problem
        self.is_open = False

    def nvmlInit(self) -> None:  # noqa: N802 - NVIDIA's name
        if self.problem is not None:
            raise RecordedError(self.problem)
        self.is_open = True

    def nvmlShutdown(self) -> None:  # noqa: N802 - NVIDIA's name
        self.is_open = False

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802 - NVIDIA's name
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Gpu:  # noqa: N802 - NVIDIA's name
        assert self.is_open
        return self.gpus[index]

    def nvmlDeviceGetUUID(self, handle: Gpu) -> str:  # noqa: N802 - NVIDIA's name
        return handle.uuid

    def nvmlDeviceGetName(self, handle: Gpu) -> str:  # noqa: N802 - NVIDIA's name
        return handle.name

    def nvmlDeviceGetMemoryInfo(self, handle: Gpu) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=handle.memory_bytes, free=0, used=0)


ONE = Gpu("GPU-1a2b", "NVIDIA H100 80GB HBM3", 80 * GIB)
TWO = Gpu("GPU-1a9f", "NVIDIA H100 80GB HBM3", 80 * GIB)


def test_all_gpus_of_the_driver_are_there() -> None:
    driver = Recorded(ONE, TWO)
    assert read_inventory({}, lambda: driver) == Inventory(
        (ONE, TWO), "the NVIDIA driver"
    )
    assert not driver.is_open
    assert ONE.memory_gib == 80.0


@pytest.mark.parametrize(
    ("visible", "gpus"),
    [
        ("1", (TWO,)),
        ("1,0", (TWO, ONE)),
        ("GPU-1a2", (ONE,)),
        ("GPU-1a", ()),  # two have such a name
        ("0,7,1", (ONE,)),  # what stands behind a wrong one is not seen
        ("", ()),
        ("-1", ()),
        ("0,0", (ONE,)),
    ],
)
def test_those_that_the_process_may_see_are_there(
    visible: str, gpus: tuple[Gpu, ...]
) -> None:
    environ = {"CUDA_VISIBLE_DEVICES": visible}
    found = read_inventory(environ, lambda: Recorded(ONE, TWO))
    assert found.gpus == gpus
    assert found.note == f"the NVIDIA driver, CUDA_VISIBLE_DEVICES={visible}"


def test_without_the_package_there_are_none_and_the_note_says_what_to_install() -> None:
    def absent() -> Recorded:
        raise ImportError("No module named 'pynvml'")

    assert read_inventory({}, absent) == Inventory(
        (),
        "nvidia-ml-py is not installed: pip install 'atomr-infer[gpu]'",
        is_known=False,
    )


def test_without_a_driver_nobody_knows_of_any_and_the_note_says_so() -> None:
    driver = Recorded(problem="NVML Shared Library Not Found")
    assert read_inventory({}, lambda: driver) == Inventory(
        (), "the NVIDIA driver says: NVML Shared Library Not Found", is_known=False
    )


def test_a_driver_without_gpus_is_said_to_have_none() -> None:
    assert read_inventory({}, Recorded) == Inventory((), "the driver has none")


def test_this_machine_is_asked_and_answers() -> None:
    pytest.importorskip("pynvml")
    nvml = load_nvml()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        note = f"the NVIDIA driver says: {error}"
        expected = Inventory((), note, is_known=False)
    else:
        expected = Inventory(read_inventory({}).gpus, "the NVIDIA driver")
        assert len(expected.gpus) == nvml.nvmlDeviceGetCount()
    assert read_inventory({}) == expected
