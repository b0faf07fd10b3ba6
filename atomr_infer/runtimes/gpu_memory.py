"""Whether a model fits into the memory of GPUs: for runtimes that load one there.

The driver is asked through NVIDIA's library (NVML), by way of the package
nvidia-ml-py, which is optional.  Where nobody can be asked, nothing is known and no
model is refused: the engine says what it says when it has no memory left.

CUDA counts GPUs from 0 among those that ``CUDA_VISIBLE_DEVICES`` leaves, the fastest
first; the driver counts them by their place on the bus.  Which one CUDA means by a
number is known where they are all named by UUID, where CUDA is told to count as the
driver does (``CUDA_DEVICE_ORDER=PCI_BUS_ID``), and where they are of one kind.  Else a
number may mean any of them, and only what fits on none is refused.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import attrs

from atomr_infer.runtimes.gpus import VISIBLE
from atomr_infer.runtimes.memory import check_fits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ORDER = "CUDA_DEVICE_ORDER"

_AS_THE_DRIVER = "PCI_BUS_ID"

Nvml: TypeAlias = Any
"""The module ``pynvml``, which has no types."""


class HasUuid(Protocol):
    """What is known of a GPU, its UUID among it."""

    @property
    def uuid(self) -> str:
        """What CUDA knows it by, in any order."""
        ...


_Gpu = TypeVar("_Gpu", bound=HasUuid)


@attrs.frozen
class FreeGpu:
    """One GPU.

    Attributes:
        uuid: what CUDA knows it by, in any order.
        name: the product's.
        free_bytes: what nobody has taken of its memory.
    """

    uuid: str
    name: str
    free_bytes: int


def load_nvml() -> Nvml:
    """Return the module.

    Raises:
        ImportError: nvidia-ml-py is not installed.
    """
    import pynvml  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: PLC0415 - optional

    return pynvml


def visible_gpus(gpus: Sequence[_Gpu], visible: str | None) -> tuple[_Gpu, ...]:
    """Return the GPUs that a process sees, as it numbers them.

    Args:
        gpus: those of the machine, in the driver's order.
        visible: the value of ``CUDA_VISIBLE_DEVICES``; None: all are.
    """
    if visible is None:
        return tuple(gpus)
    seen: list[_Gpu] = []
    for text in visible.split(","):
        gpu = _named(gpus, text.strip())
        if gpu is None or gpu in seen:
            break  # CUDA too sees nothing from the first wrong name on
        seen.append(gpu)
    return tuple(seen)


def _named(gpus: Sequence[_Gpu], text: str) -> _Gpu | None:
    if text.isdecimal():
        return gpus[int(text)] if int(text) < len(gpus) else None
    found = [gpu for gpu in gpus if text and gpu.uuid.startswith(text)]
    return found[0] if len(found) == 1 else None


def free_gpu_bytes(
    environ: Mapping[str, str],
    devices: Sequence[int] | None = None,
    load: Callable[[], Nvml] = load_nvml,
    *,
    share: float = 1.0,
) -> int | None:
    """Return what is free on some GPUs together, in bytes; None: not known.

    Blocks for as long as the driver takes, some hundred milliseconds at first.

    Args:
        environ: where CUDA's variables may stand.
        devices: which GPUs, as CUDA counts those that this process sees, from 0;
            None: all of those.
        load: returns NVIDIA's module.
        share: of each GPU's memory, free or not, no more than this counts.
    """
    there = _there(load, share)
    seen = visible_gpus(there, environ.get(VISIBLE))
    if devices is None:
        devices = range(len(seen))
    if not devices or max(devices) >= len(seen):
        return None  # the engine says which there are
    if _is_order_known(there, environ):
        return sum(seen[device].free_bytes for device in devices)
    most_first = sorted((gpu.free_bytes for gpu in there), reverse=True)
    return sum(most_first[: len(devices)])


def check_fits_gpus(
    model: str,
    weights_bytes: int,
    devices: Sequence[int] | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    load: Callable[[], Nvml] = load_nvml,
    remedy: str = "",
) -> None:
    """Refuse a model whose weights alone are more than what is free on its GPUs.

    Where nothing is known of them, nothing is refused.  Blocks as
    :func:`free_gpu_bytes` does.

    Args:
        model: what it is called, for the message.
        weights_bytes: what its weights take once they are loaded, on all of the
            GPUs together.
        devices: which GPUs it goes to; see :func:`free_gpu_bytes`.
        environ: where CUDA's variables may stand.
        load: returns NVIDIA's module.
        remedy: what helps beside a smaller model and another machine.

    Raises:
        EngineStartError: with both figures.
    """
    free = free_gpu_bytes(environ, devices, load)
    check_fits(model, weights_bytes, free, where=_where(devices), remedy=remedy)


def _where(devices: Sequence[int] | None) -> str:
    if devices is None:
        return "memory of the GPUs together"
    if len(devices) == 1:
        return f"memory of GPU {devices[0]}"
    return f"memory of GPUs {', '.join(map(str, devices))} together"


def _there(load: Callable[[], Nvml], share: float) -> tuple[FreeGpu, ...]:
    """Return the machine's GPUs in the driver's order; none: nobody can be asked."""
    try:
        nvml = load()
    except ImportError:
        return ()
    try:
        nvml.nvmlInit()
        try:
            found = list(_gpus(nvml, share))
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError:
        # There is no driver, or it does not tell, as of memory that the GPU shares
        # with the processors, or of a part of a GPU that was given to a container.
        return ()
    known = tuple(gpu for gpu in found if gpu is not None)
    return known if len(known) == len(found) else ()


def _gpus(nvml: Nvml, share: float) -> Iterator[FreeGpu | None]:
    """Yield what is known of each GPU; None: too little."""
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        uuid, name = nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle)
        if isinstance(uuid, bytes) or None in (memory.free, memory.total):
            yield None  # an old module, or a GPU that has no memory of its own
        else:
            yield FreeGpu(uuid, name, min(memory.free, int(memory.total * share)))


def _is_order_known(there: Sequence[FreeGpu], environ: Mapping[str, str]) -> bool:
    names = environ.get(VISIBLE, "0").split(",")
    return (
        environ.get(ORDER) == _AS_THE_DRIVER
        or len({gpu.name for gpu in there}) == 1
        or not any(name.strip().isdecimal() for name in names)
    )
