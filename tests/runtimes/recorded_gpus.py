"""What ``pynvml`` 13.615 says of GPUs' free memory, as recorded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atomr_infer.runtimes.gpu_memory import FreeGpu


class RecordedError(Exception):
    """What the recorded driver raises."""


class RecordedGpus:
    """Stands where the module ``pynvml`` does.

    Args:
        gpus: those that it tells of.
        taken_bytes: what others have taken of each of them.
        problem: what it raises instead of telling of memory.
    """

    NVMLError: type[Exception] = RecordedError

    def __init__(
        self, *gpus: FreeGpu, taken_bytes: int = 0, problem: str | None = None
    ) -> None:
        self.gpus = gpus
        self.taken_bytes = taken_bytes
        self.problem = problem
        self.is_open = False

    def nvmlInit(self) -> None:  # noqa: N802 - NVIDIA's name
        self.is_open = True

    def nvmlShutdown(self) -> None:  # noqa: N802 - NVIDIA's name
        self.is_open = False

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802 - NVIDIA's name
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FreeGpu:  # noqa: N802 - NVIDIA's name
        assert self.is_open
        return self.gpus[index]

    def nvmlDeviceGetUUID(self, handle: FreeGpu) -> str:  # noqa: N802 - NVIDIA's name
        return handle.uuid

    def nvmlDeviceGetName(self, handle: FreeGpu) -> str:  # noqa: N802 - NVIDIA's name
        return handle.name

    def nvmlDeviceGetMemoryInfo(self, handle: FreeGpu) -> SimpleNamespace:  # noqa: N802
        if self.problem is not None:
            raise RecordedError(self.problem)
        total = handle.free_bytes + self.taken_bytes
        return SimpleNamespace(
            total=total, free=handle.free_bytes, used=self.taken_bytes
        )
