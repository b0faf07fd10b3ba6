"""A device in the machine's own memory, whose plans ONNX Runtime computes.

It has the shape of a GPU, and its strictness: an address that nobody was given, a copy
over the end of an allocation, a shape outside of the chosen profile and an input that
is not bound are errors.  What is begun on a stream happens when the stream is waited
for, in order, so whoever reads sooner, or writes over what is still to be copied, gets
what they deserve.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import onnx
import onnxruntime

from atomr_infer.model.tensors import Datatype
from atomr_infer_tensorrt.faults import cuda_error
from atomr_infer_tensorrt.plan import Binding, Bytes, Identity
from atomr_infer_tensorrt.precision import write_with_precision
from atomr_infer_tensorrt.recipe import Precision, Recipe
from atomr_infer_tensorrt.shapes import Profile, Range, Shape

if TYPE_CHECKING:
    from pathlib import Path

    from atomr_infer.runtimes.contract import Progress
    from atomr_infer_tensorrt.options import Options
    from atomr_infer_tensorrt.plan import Block, Stream

_GARBAGE = 0xA5
_TYPES = {
    "tensor(float)": Datatype.FP32,
    "tensor(float16)": Datatype.FP16,
    "tensor(int64)": Datatype.INT64,
    "tensor(int32)": Datatype.INT32,
    "tensor(bool)": Datatype.BOOL,
}


@attrs.define(eq=False)
class HostDevice:
    """Memory by address; ``left``: bytes that it has yet to give."""

    left: int = 1 << 34
    memory: dict[int, Bytes] = attrs.field(factory=dict)
    host: dict[int, Bytes] = attrs.field(factory=dict)
    streams: int = 0

    def use(self) -> None:
        """It is the only one."""

    def free_bytes(self) -> int:
        return self.left

    def allocate(self, size_bytes: int) -> int:
        if size_bytes > self.left:
            raise cuda_error("taking memory", "cudaErrorMemoryAllocation", "no memory")
        self.left -= size_bytes
        made = np.full(size_bytes, _GARBAGE, np.uint8)
        self.memory[made.ctypes.data] = made
        return int(made.ctypes.data)

    def release(self, address: int) -> None:
        self.left += len(self.memory.pop(address))

    def pinned(self, size_bytes: int) -> Bytes:
        made = np.full(size_bytes, _GARBAGE, np.uint8)
        self.host[made.ctypes.data] = made
        return made

    def unpin(self, memory: Bytes) -> None:
        del self.host[memory.ctypes.data]

    def stream(self) -> HostStream:
        self.streams += 1
        return HostStream(self)

    def check(self, address: int, size_bytes: int) -> None:
        """Refuse what is not inside one allocation."""
        assert any(
            begin <= address and address + size_bytes <= begin + len(memory)
            for begin, memory in self.memory.items()
        ), f"{size_bytes} bytes at {address:#x} were not allocated"


@attrs.define(eq=False)
class HostStream:
    device: HostDevice
    begun: list[Callable[[], None]] = attrs.field(factory=list)
    handle: int = 1

    def upload(self, address: int, source: Bytes) -> None:
        self.device.check(address, source.nbytes)
        where, size = int(source.ctypes.data), source.nbytes
        self.begun.append(lambda: _move(address, where, size))

    def download(self, target: Bytes, address: int) -> None:
        self.device.check(address, target.nbytes)
        where, size = int(target.ctypes.data), target.nbytes
        self.begun.append(lambda: _move(where, address, size))

    def copy(self, block: Block) -> None:
        for row in range(block.height):
            source = block.source + row * block.source_pitch_bytes
            target = block.target + row * block.target_pitch_bytes
            self.device.check(source, block.width_bytes)
            self.device.check(target, block.width_bytes)
            self.begun.append(
                lambda t=target, s=source: _move(t, s, block.width_bytes)  # type: ignore[misc]
            )

    def clear(self, address: int, size_bytes: int) -> None:
        self.device.check(address, size_bytes)
        self.begun.append(lambda: _clear(address, size_bytes))

    def wait(self) -> None:
        begun, self.begun = self.begun, []
        for one in begun:
            one()

    def close(self) -> None:
        assert not self.begun
        self.device.streams -= 1


def _move(target: int, source: int, size_bytes: int) -> None:
    ctypes.memmove(target, source, size_bytes)


def _clear(address: int, size_bytes: int) -> None:
    ctypes.memset(address, 0, size_bytes)


@attrs.define(eq=False)
class HostPlan:
    device: HostDevice
    session: Any
    bindings: tuple[Binding, ...]
    profiles: tuple[Profile, ...]
    contexts: int = 0
    runs: list[dict[str, Shape]] = attrs.field(factory=list)
    failing: Exception | None = None
    context_bytes: int = 0

    def context(self) -> HostContext:
        self.contexts += 1
        return HostContext(self)


@attrs.define(eq=False)
class HostContext:
    plan: HostPlan
    profile: Profile | None = None
    shapes: dict[str, Shape] = attrs.field(factory=dict)
    bound: dict[str, int] = attrs.field(factory=dict)

    def choose(self, profile: int, stream: Stream) -> None:
        self.profile = self.plan.profiles[profile]
        self.shapes.clear()
        stream.wait()

    def set_shape(self, name: str, shape: Shape) -> None:
        assert self.profile is not None
        assert self.profile[name].takes(shape), f"{name} is {shape}"
        self.shapes[name] = shape

    def bind(self, name: str, address: int) -> None:
        assert address
        self.bound[name] = address

    def shape_of(self, name: str) -> Shape:
        sizes: dict[str, int] = {}
        for one in self.plan.session.get_inputs():
            sizes |= zip(one.shape, self.shapes[one.name], strict=True)
        [found] = [
            one.shape for one in self.plan.session.get_outputs() if one.name == name
        ]
        return tuple(
            size if isinstance(size, int) else sizes.get(size, -1) for size in found
        )

    def enqueue(self, stream: Stream) -> None:
        assert isinstance(stream, HostStream)
        if self.plan.failing is not None:
            raise self.plan.failing
        shapes, bound = dict(self.shapes), dict(self.bound)
        outs = {
            one.name: self.shape_of(one.name)
            for one in self.plan.bindings
            if not one.is_input
        }
        self.plan.runs.append(shapes)
        stream.begun.append(lambda: self._compute(shapes | outs, bound))

    def _compute(self, shapes: dict[str, Shape], bound: dict[str, int]) -> None:
        arrays = {}
        for one in self.plan.bindings:
            count = prod(shapes[one.name])
            size = count * one.dtype.itemsize
            self.plan.device.check(bound[one.name], size)
            memory = (ctypes.c_uint8 * size).from_address(bound[one.name])
            array = np.frombuffer(memory, one.dtype, count)  # type: ignore[call-overload]
            arrays[one.name] = array.reshape(shapes[one.name])
        feeds = {
            b.name: arrays[b.name].copy() for b in self.plan.bindings if b.is_input
        }
        names = [one.name for one in self.plan.bindings if not one.is_input]
        made = self.plan.session.run(names, feeds)
        for name, value in zip(names, made, strict=True):
            arrays[name][...] = value

    def close(self) -> None:
        self.plan.contexts -= 1


@attrs.define(eq=False)
class HostBackend:
    """Builds a plan that is the model with its profiles, and opens it."""

    device: HostDevice = attrs.field(factory=HostDevice)
    identity: Identity = attrs.field(
        factory=lambda: Identity(library="host", version="1", device="memory")
    )
    built: list[Recipe] = attrs.field(factory=list)
    opened: list[HostPlan] = attrs.field(factory=list)
    context_bytes: int = 0

    def build(
        self, model: Path, recipe: Recipe, report: Callable[[Progress], None]
    ) -> bytes:
        self.built.append(recipe)
        return host_plan(model, recipe)

    def open(self, plan: bytes, name: str) -> HostPlan:
        head, _, rest = plan.partition(b"\n")
        profiles = tuple(
            {key: Range(*map(tuple, spans)) for key, spans in one.items()}
            for one in json.loads(head)
        )
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(rest, settings)
        bindings = tuple(
            Binding(
                name=one.name,
                datatype=_TYPES[one.type],
                shape=tuple(s if isinstance(s, int) else -1 for s in one.shape),
                is_input=is_input,
            )
            for is_input, ones in (
                (True, session.get_inputs()),
                (False, session.get_outputs()),
            )
            for one in ones
        )
        made = HostPlan(
            self.device,
            session,
            bindings,
            profiles,
            context_bytes=self.context_bytes,
        )
        self.opened.append(made)
        return made

    def opener(self, options: Options) -> HostBackend:
        """What the plugin opens it by."""
        return self


def host_plan(model: Path, recipe: Recipe) -> bytes:
    """A plan of the device's own kind."""
    file = model
    if recipe.precision is not Precision.MODEL:
        file = model.with_name(f"rewritten-{recipe.precision.value}.onnx")
        write_with_precision(model, file, recipe.precision)
    profiles = [
        {name: (span.least, span.usual, span.most) for name, span in profile.items()}
        for profile in recipe.profiles
    ]
    whole: bytes = onnx.load(str(file)).SerializeToString()
    return json.dumps(profiles).encode() + b"\n" + whole
