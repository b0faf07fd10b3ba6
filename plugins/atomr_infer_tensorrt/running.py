"""Runs of a plan: buffers, streams and contexts, as many as run at once.

A run borrows a :class:`Lane`: a context, a stream, and memory on both sides that grows
to the largest run so far.  Inputs are copied to pinned memory and from there to the
device, the plan runs, and its outputs come back, all in the order of the lane's
stream; so lanes copy and compute beside each other.

All functions block, and belong in worker threads.
"""

from __future__ import annotations

import queue
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from atomr_infer.errors import (
    EngineCrashedError,
    EngineStartError,
    InferenceError,
    UnsupportedFeatureError,
)
from atomr_infer_tensorrt.shapes import choose_profile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from atomr_infer_tensorrt.plan import (
        Array,
        Binding,
        Bytes,
        Context,
        Device,
        Plan,
        Stream,
    )
    from atomr_infer_tensorrt.shapes import Shape

_LEAST_BYTES = 256
"""Also of an input without elements: it needs an address all the same."""


def grown(size_bytes: int) -> int:
    """Return how much memory is taken for so many bytes: a power of two.

    So a buffer is made anew a few times in its life, and not for every longer text.

    >>> grown(0), grown(1000)
    (256, 1024)
    """
    return max(_LEAST_BYTES, 1 << (size_bytes - 1).bit_length() if size_bytes else 0)


class Buffer:
    """Memory on the device that grows."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.address = 0
        self.size_bytes = 0

    def hold(self, size_bytes: int) -> int:
        """Return an address with room for so many bytes; what was there is gone."""
        if size_bytes > self.size_bytes or not self.address:
            self.release()
            wanted = grown(size_bytes)
            self.address = self._device.allocate(wanted)
            self.size_bytes = wanted
        return self.address

    def release(self) -> None:
        """Give it back."""
        if self.address:
            self._device.release(self.address)
        self.address = self.size_bytes = 0


class Pinned:
    """Memory of the machine that the device reaches, and that grows."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._memory: Bytes | None = None

    def hold(self, size_bytes: int) -> Bytes:
        """Return so many bytes."""
        if self._memory is None or size_bytes > len(self._memory):
            self.release()
            self._memory = self._device.pinned(grown(size_bytes))
        return self._memory[:size_bytes]

    def release(self) -> None:
        """Give it back."""
        if self._memory is not None:
            self._device.unpin(self._memory)
        self._memory = None


class Lane:
    """What one run at a time needs."""

    def __init__(self, plan: Plan, device: Device) -> None:
        self._plan = plan
        self._device = device
        self.stream: Stream = device.stream()
        self.context: Context = plan.context()
        self._profile: int | None = None
        self._on_device = {one.name: Buffer(device) for one in plan.bindings}
        self._on_host = {one.name: Pinned(device) for one in plan.bindings}

    def choose(self, shapes: Mapping[str, Shape]) -> None:
        """Use the profile that takes all shapes, and say them.

        Raises:
            InvalidRequestError: none takes them.
        """
        number = choose_profile(self._plan.profiles, shapes)
        if number != self._profile:
            self._profile = None
            self.context.choose(number, self.stream)
            self._profile = number
        for name, shape in shapes.items():
            self.context.set_shape(name, shape)

    def give(self, binding: Binding, value: Array) -> None:
        """Begin to copy an input to the device, and bind it."""
        flat = np.ascontiguousarray(value, binding.dtype).reshape(-1).view(np.uint8)
        staged = self._on_host[binding.name].hold(flat.size)
        np.copyto(staged, flat)
        if binding.on_host:
            self.context.bind(binding.name, address_of(staged))
            return
        address = self._on_device[binding.name].hold(flat.size)
        if flat.size:
            self.stream.upload(address, staged)
        self.context.bind(binding.name, address)

    def make_room(self, binding: Binding) -> Shape:
        """Bind an output to memory with room for it; return its shape."""
        shape = self.output_shape(binding)
        size_bytes = prod(shape) * binding.dtype.itemsize
        if binding.on_host:
            staged = self._on_host[binding.name].hold(size_bytes)
            self.context.bind(binding.name, address_of(staged))
        else:
            address = self._on_device[binding.name].hold(size_bytes)
            self.context.bind(binding.name, address)
        return shape

    def output_shape(self, binding: Binding) -> Shape:
        """Return an output's shape, once the inputs' are said.

        Raises:
            UnsupportedFeatureError: it depends on the inputs' values.
        """
        shape = self.context.shape_of(binding.name)
        if any(size < 0 for size in shape):
            raise UnsupportedFeatureError(
                f"the size of the output {binding.name!r} depends on what the inputs "
                "hold; such a plan is not served"
            )
        return shape

    def address(self, binding: Binding) -> int:
        """Return where an input or output is on the device."""
        return self._on_device[binding.name].address

    def fetch(self, binding: Binding, shape: Shape) -> Array:
        """Begin to copy an output back; it is there when the stream is waited for."""
        size_bytes = prod(shape) * binding.dtype.itemsize
        staged = self._on_host[binding.name].hold(size_bytes)
        if size_bytes and not binding.on_host:
            self.stream.download(staged, self._on_device[binding.name].address)
        return staged.view(binding.dtype).reshape(shape)

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Wait for what was begun when the block fails.

        Copies that are still under way would read what the next run writes.
        """
        try:
            yield
        except BaseException:
            self.stream.wait()
            raise

    def close(self) -> None:
        """Give all of it back."""
        self.context.close()
        for buffer in self._on_device.values():
            buffer.release()
        for pinned in self._on_host.values():
            pinned.release()
        self.stream.close()


def address_of(memory: Bytes) -> int:
    """Return where an array's bytes are."""
    return int(memory.ctypes.data)


class PlanRuns:
    """A plan with the lanes that its runs share.

    Args:
        plan: the plan.
        device: what it is on.
        lanes: most runs at once.

    Raises:
        InferenceError: the device has no memory for them.
    """

    def __init__(self, plan: Plan, device: Device, *, lanes: int) -> None:
        self.plan = plan
        self.device = device
        self.inputs = {one.name: one for one in plan.bindings if one.is_input}
        self.outputs = {one.name: one for one in plan.bindings if not one.is_input}
        self._idle: queue.LifoQueue[Lane] = queue.LifoQueue()
        self._lanes: list[Lane] = []
        device.use()
        for _ in range(lanes):
            lane = Lane(plan, device)
            self._lanes.append(lane)
            self._idle.put(lane)

    def run(self, wanted: Sequence[str], feeds: Mapping[str, Any]) -> list[Array]:
        """Return the outputs of a run; waits for a lane.

        Args:
            wanted: the names of outputs.
            feeds: an array for each input.

        Raises:
            InvalidRequestError: the plan does not take the shapes.
            EngineError: the device has no memory for it.
            EngineCrashedError: it failed; the context on the device may be of no use.
        """
        lane = self._idle.get()
        try:
            self.device.use()
            with lane.settled():
                return self._run(lane, wanted, feeds)
        except InferenceError:
            raise
        # The library's bindings raise what they like where they are misused.
        except Exception as error:
            raise EngineCrashedError(f"TensorRT failed: {error}") from error
        finally:
            self._idle.put(lane)

    def _run(
        self, lane: Lane, wanted: Sequence[str], feeds: Mapping[str, Any]
    ) -> list[Array]:
        lane.choose({name: feeds[name].shape for name in self.inputs})
        for name, binding in self.inputs.items():
            lane.give(binding, feeds[name])
        shapes = {
            name: lane.make_room(binding) for name, binding in self.outputs.items()
        }
        lane.context.enqueue(lane.stream)
        staged = [lane.fetch(self.outputs[name], shapes[name]) for name in wanted]
        lane.stream.wait()
        # The lane's next run writes over what it holds.
        return [one.copy() for one in staged]

    def close(self) -> None:
        """Give all lanes back; no run may be under way."""
        self.device.use()
        for lane in self._lanes:
            lane.close()
        self._lanes.clear()


def check_bindings(plan: Plan, name: str) -> None:
    """Refuse a plan that has nothing to run.

    Raises:
        EngineStartError: it has no inputs, no outputs or no profile.
    """
    kinds = {one.is_input for one in plan.bindings}
    if kinds != {True, False} or not plan.profiles:
        raise EngineStartError(f"the plan {name!r} has no inputs, outputs or profiles")
