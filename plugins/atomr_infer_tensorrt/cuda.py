"""A GPU through CUDA's runtime: memory, streams, copies.

``cuda.bindings`` answers each call with a status and values: a status that is no
success becomes an error of ours, which says what was being done.

Needs a GPU; nothing here decides anything.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np
from cuda.bindings import runtime

from atomr_infer_tensorrt.faults import cuda_error, no_driver

if TYPE_CHECKING:
    from atomr_infer.errors import EngineStartError
    from atomr_infer_tensorrt.plan import Block, Bytes

_KIND = runtime.cudaMemcpyKind


def called(doing: str, answer: tuple[Any, ...]) -> Any:  # noqa: ANN401  the library has no types
    """Return what a call gave.

    Raises:
        EngineError: there is no memory left.
        EngineCrashedError: it failed in another way.
    """
    status, *values = answer
    if status != runtime.cudaError_t.cudaSuccess:
        raise cuda_error(doing, *_named(status))
    return values[0] if values else None


def _named(status: Any) -> tuple[str, str]:  # noqa: ANN401  as above
    name = runtime.cudaGetErrorName(status)[1]
    text = runtime.cudaGetErrorString(status)[1]
    return bytes(name).decode(), bytes(text).decode()


def open_device(number: int) -> CudaDevice:
    """Return a GPU.

    Raises:
        EngineStartError: there is no driver, or no GPU of that number.
    """
    status, count = runtime.cudaGetDeviceCount()
    if status != runtime.cudaError_t.cudaSuccess:
        raise no_driver(": ".join(_named(status)))
    if number >= count:
        raise _no_such(number, count)
    return CudaDevice(number)


def _no_such(number: int, count: int) -> EngineStartError:
    numbers = "none" if not count else f"0 to {count - 1}"
    return no_driver(f"device is {number}; those that are visible: {numbers}")


class CudaDevice:
    """One GPU; see :class:`~atomr_infer_tensorrt.plan.Device`."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.use()
        self.name = self._said_name()

    def _said_name(self) -> str:
        found = called(
            "asking for the GPU's name", runtime.cudaGetDeviceProperties(self._number)
        )
        name = bytes(found.name).split(b"\0")[0].decode(errors="replace")
        return f"{name} {found.major}.{found.minor}"

    def use(self) -> None:
        """Have the calls of this thread go to it."""
        called("choosing the GPU", runtime.cudaSetDevice(self._number))

    def free_bytes(self) -> int:
        """Return how much memory it has left."""
        self.use()  # the call is about the thread's own
        status, free, _ = runtime.cudaMemGetInfo()
        return int(called("asking for free memory", (status, free)))

    def allocate(self, size_bytes: int) -> int:
        """Return the address of new memory."""
        doing = f"taking {size_bytes} bytes of its memory"
        return int(called(doing, runtime.cudaMalloc(size_bytes)))

    def release(self, address: int) -> None:
        """Give memory back."""
        called("giving memory back", runtime.cudaFree(address))

    def pinned(self, size_bytes: int) -> Bytes:
        """Return memory of the machine that it reaches by itself."""
        doing = f"pinning {size_bytes} bytes of the machine's memory"
        address = int(called(doing, runtime.cudaMallocHost(size_bytes)))
        memory = (ctypes.c_uint8 * size_bytes).from_address(address)
        return np.ctypeslib.as_array(memory)

    def unpin(self, memory: Bytes) -> None:
        """Give it back."""
        called("unpinning memory", runtime.cudaFreeHost(int(memory.ctypes.data)))

    def stream(self) -> CudaStream:
        """Return a stream that does not wait for the others."""
        made = runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking)
        return CudaStream(called("making a stream", made))


class CudaStream:
    """See :class:`~atomr_infer_tensorrt.plan.Stream`."""

    def __init__(self, stream: Any) -> None:  # noqa: ANN401  as above
        self._stream = stream
        self.handle = int(stream)

    def upload(self, address: int, source: Bytes) -> None:
        """Begin to copy to the GPU."""
        self._copy(address, source.ctypes.data, source.nbytes, "to")

    def download(self, target: Bytes, address: int) -> None:
        """Begin to copy from the GPU."""
        self._copy(target.ctypes.data, address, target.nbytes, "from")

    def _copy(self, target: int, source: int, size_bytes: int, way: str) -> None:
        kind = {
            "to": _KIND.cudaMemcpyHostToDevice,
            "from": _KIND.cudaMemcpyDeviceToHost,
        }
        answer = runtime.cudaMemcpyAsync(
            target, source, size_bytes, kind[way], self._stream
        )
        called(f"copying {size_bytes} bytes {way} the GPU", answer)

    def copy(self, block: Block) -> None:
        """Begin to copy on the GPU."""
        answer = runtime.cudaMemcpy2DAsync(
            block.target,
            block.target_pitch_bytes,
            block.source,
            block.source_pitch_bytes,
            block.width_bytes,
            block.height,
            _KIND.cudaMemcpyDeviceToDevice,
            self._stream,
        )
        called("copying on the GPU", answer)

    def clear(self, address: int, size_bytes: int) -> None:
        """Begin to fill with zeros."""
        answer = runtime.cudaMemsetAsync(address, 0, size_bytes, self._stream)
        called("clearing memory", answer)

    def wait(self) -> None:
        """Return when all that was begun is done."""
        called("running the plan", runtime.cudaStreamSynchronize(self._stream))

    def close(self) -> None:
        """Give it back."""
        called("closing a stream", runtime.cudaStreamDestroy(self._stream))
