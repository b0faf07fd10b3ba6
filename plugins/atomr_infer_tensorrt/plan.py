"""What is asked of a plan and of the device that it runs on.

Two things stand behind these protocols: TensorRT with CUDA
(:mod:`~atomr_infer_tensorrt.library`, :mod:`~atomr_infer_tensorrt.cuda`), and in tests
a device in the machine's own memory, so that everything above is tested where there is
no GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs
import numpy as np

from atomr_infer.model.tensors import Datatype
from atomr_infer_tensorrt.shapes import Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from atomr_infer.runtimes.contract import Progress
    from atomr_infer_tensorrt.recipe import Recipe
    from atomr_infer_tensorrt.shapes import Profile

Array = np.ndarray[Any, np.dtype[Any]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]

DTYPES: dict[Datatype, type[np.generic]] = {
    Datatype.FP32: np.float32,
    Datatype.FP16: np.float16,
    Datatype.INT64: np.int64,
    Datatype.INT32: np.int32,
    Datatype.INT8: np.int8,
    Datatype.UINT8: np.uint8,
    Datatype.BOOL: np.bool_,
    # Numpy does not know it; its bits are carried.
    Datatype.BF16: np.uint16,
}
"""What numpy calls the elements that a plan's inputs and outputs may have."""


@attrs.frozen(kw_only=True)
class Binding:
    """An input or output of a plan.

    Attributes:
        name: as the plan calls it.
        datatype: of its elements.
        shape: -1 where a dimension varies.
        is_input: whether it is one.
        on_host: whether the plan wants it in the machine's memory, as it does with
            what decides of other shapes.
    """

    name: str
    datatype: Datatype
    shape: Shape
    is_input: bool
    on_host: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        """As numpy calls it."""
        return np.dtype(DTYPES[self.datatype])


@attrs.frozen(kw_only=True)
class Identity:
    """What a plan depends on beside its model.

    Attributes:
        library: ``tensorrt`` or ``tensorrt_rtx``.
        version: its version.
        device: the GPU's name and compute capability, or what stands for several.
    """

    library: str
    version: str
    device: str


@attrs.frozen(kw_only=True)
class Block:
    """Some rows of bytes, each ``width_bytes`` long, to be copied on the device.

    Attributes:
        source: where the first one is.
        source_pitch_bytes: from one to the next there.
        target: where it goes.
        target_pitch_bytes: from one to the next there.
        width_bytes: of a row.
        height: how many rows.
    """

    source: int
    source_pitch_bytes: int
    target: int
    target_pitch_bytes: int
    width_bytes: int
    height: int


class Stream(Protocol):
    """An order of work on the device."""

    @property
    def handle(self) -> int:
        """As the library calls it."""
        ...

    def upload(self, address: int, source: Bytes) -> None:
        """Begin to copy from pinned memory to the device."""
        ...

    def download(self, target: Bytes, address: int) -> None:
        """Begin to copy from the device to pinned memory."""
        ...

    def copy(self, block: Block) -> None:
        """Begin to copy on the device."""
        ...

    def clear(self, address: int, size_bytes: int) -> None:
        """Begin to fill with zeros."""
        ...

    def wait(self) -> None:
        """Return when all that was begun is done."""
        ...

    def close(self) -> None:
        """Give it back."""
        ...


class Device(Protocol):
    """A GPU's memory and streams; all functions raise :class:`InferenceError`."""

    def use(self) -> None:
        """Have the calls of this thread go to the device."""
        ...

    def free_bytes(self) -> int:
        """Return how much memory it has left."""
        ...

    def allocate(self, size_bytes: int) -> int:
        """Return the address of new memory."""
        ...

    def release(self, address: int) -> None:
        """Give memory back."""
        ...

    def pinned(self, size_bytes: int) -> Bytes:
        """Return memory of the machine that the device reaches by itself."""
        ...

    def unpin(self, memory: Bytes) -> None:
        """Give it back."""
        ...

    def stream(self) -> Stream:
        """Return a new stream."""
        ...


class Context(Protocol):
    """What one run at a time needs of a plan."""

    def choose(self, profile: int, stream: Stream) -> None:
        """Use the plan's profile of a number."""
        ...

    def set_shape(self, name: str, shape: Shape) -> None:
        """Say the shape of an input."""
        ...

    def bind(self, name: str, address: int) -> None:
        """Say where an input or output is."""
        ...

    def shape_of(self, name: str) -> Shape:
        """Return an output's shape, once all of the inputs' are said."""
        ...

    def enqueue(self, stream: Stream) -> None:
        """Begin a run."""
        ...

    def close(self) -> None:
        """Give its memory back."""
        ...


class Plan(Protocol):
    """A plan on the device."""

    @property
    def bindings(self) -> Sequence[Binding]:
        """Its inputs and outputs."""
        ...

    @property
    def profiles(self) -> Sequence[Profile]:
        """The shapes that it takes."""
        ...

    @property
    def context_bytes(self) -> int:
        """What a context takes of the device's memory."""
        ...

    def context(self) -> Context:
        """Return a new context."""
        ...


class Backend(Protocol):
    """A library with a device."""

    @property
    def identity(self) -> Identity:
        """What a plan that is built here depends on."""
        ...

    @property
    def device(self) -> Device:
        """The device."""
        ...

    def build(
        self, model: Path, recipe: Recipe, report: Callable[[Progress], None]
    ) -> bytes:
        """Return the plan of an ONNX file.

        Raises:
            EngineStartError: it cannot be parsed or built.
        """
        ...

    def open(self, plan: bytes, name: str) -> Plan:
        """Return a plan that can be run.

        Raises:
            EngineStartError: it was built for another version or device, or is none.
        """
        ...
