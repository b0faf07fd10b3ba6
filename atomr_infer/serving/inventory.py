"""The GPUs of this machine, as placement counts them.

They are asked of the driver through NVIDIA's library (NVML), by way of the package
nvidia-ml-py, which is optional: without it, and without a driver, there are none,
and the note says why.

A process that may only see some of them (``CUDA_VISIBLE_DEVICES``) has only those.
A GPU is named by its UUID: CUDA and the driver number them in different orders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.runtimes.gpu_memory import load_nvml, visible_gpus
from atomr_infer.runtimes.gpus import VISIBLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from atomr_infer.runtimes.gpu_memory import Nvml

_GIB = 1 << 30


@attrs.frozen
class Gpu:
    """One GPU.

    Attributes:
        uuid: what CUDA knows it by, in any order.
        name: the product's.
        memory_bytes: all of it.
    """

    uuid: str
    name: str
    memory_bytes: int

    @property
    def memory_gib(self) -> float:
        """All of its memory, in GiB.

        >>> Gpu("GPU-1", "NVIDIA T4", 16 << 30).memory_gib
        16.0
        """
        return self.memory_bytes / _GIB


@attrs.frozen
class Inventory:
    """What this machine has.

    Attributes:
        gpus: those that may be used, in the driver's order.
        note: where that is from, or why there are none, in a few words.
        is_known: False: there may be others, of which nobody could be asked.
    """

    gpus: tuple[Gpu, ...] = ()
    note: str = "not looked for"
    is_known: bool = True


def read_inventory(
    environ: Mapping[str, str], load: Callable[[], Nvml] = load_nvml
) -> Inventory:
    """Return the GPUs that this process may use.

    Blocks for as long as the driver takes, some hundred milliseconds at first.

    Args:
        environ: where ``CUDA_VISIBLE_DEVICES`` may stand.
        load: returns NVIDIA's module.
    """
    try:
        nvml = load()
    except ImportError:
        note = "nvidia-ml-py is not installed: pip install 'atomr-infer[gpu]'"
        return Inventory(note=note, is_known=False)
    try:
        nvml.nvmlInit()
        try:
            gpus = tuple(_gpus(nvml))
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        # A driver that does not answer now, or GPUs of another kind.
        note = f"the NVIDIA driver says: {error}"
        return Inventory(note=note, is_known=False)
    return _visible(gpus, environ.get(VISIBLE))


def _gpus(nvml: Nvml) -> Iterator[Gpu]:
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        memory: int = nvml.nvmlDeviceGetMemoryInfo(handle).total
        yield Gpu(
            nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle), memory
        )


def _visible(gpus: tuple[Gpu, ...], visible: str | None) -> Inventory:
    if visible is None:
        return Inventory(gpus, "the NVIDIA driver" if gpus else "the driver has none")
    seen = visible_gpus(gpus, visible)
    return Inventory(seen, f"the NVIDIA driver, {VISIBLE}={visible}")
