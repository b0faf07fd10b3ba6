"""Memory for values that live for a step or two: taken once, used again.

Each step of a causal model gives a whole new cache and drops the one before.  Asking
the driver for it each time would take longer than the step.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from atomr_infer_tensorrt.running import grown

if TYPE_CHECKING:
    from atomr_infer_tensorrt.plan import Device


class Arena:
    """Memory by size; of one stream, in whose order it is used again.

    Attributes:
        held_bytes: what is in use, and what may be used again.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._free: dict[int, list[int]] = defaultdict(list)
        self.held_bytes = 0

    def take(self, size_bytes: int) -> Held:
        """Return memory; it is given back when nobody refers to it any more.

        Raises:
            EngineError: the device has none left.
        """
        size = grown(size_bytes)
        if self._free[size]:
            return Held(self, self._free[size].pop(), size)
        address = self._device.allocate(size)
        self.held_bytes += size
        return Held(self, address, size)

    def back(self, address: int, size: int) -> None:
        """Take memory back, for the next one who wants as much."""
        self._free[size].append(address)

    def trim(self) -> None:
        """Give the device what is not in use."""
        for size, addresses in self._free.items():
            for address in addresses:
                self._device.release(address)
                self.held_bytes -= size
        self._free.clear()


class Held:
    """Memory of an arena."""

    __slots__ = ("_arena", "_size", "address")

    def __init__(self, arena: Arena, address: int, size: int) -> None:
        self._arena = arena
        self._size = size
        self.address = address

    def __del__(self) -> None:
        """A cache goes with the last who refers to it."""
        self._arena.back(self.address, self._size)
