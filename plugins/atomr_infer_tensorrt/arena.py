"""Memory for values that live for a step or two: taken once, used again.

Each step of a causal model gives a whole new cache and drops the one before.  Asking
the driver for it each time would take longer than the step.

A cache that grows is of another size every so many steps, and what it was in before
is of use to nobody.  So memory is given back, what was taken first before the rest,
where more than a budget would be held; and all of it where the device has none left.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from atomr_infer_tensorrt.running import grown

if TYPE_CHECKING:
    from atomr_infer_tensorrt.plan import Device, Stream

_COARSE_BYTES = 64 * 1024
UNUSED_SHARE = 8
"""Sizes between one power of two and the next: at most an eighth of memory is not
used, and a cache is of a new size when it has grown by an eighth."""


def stepped(size_bytes: int) -> int:
    """Return how much memory is taken for so many bytes.

    >>> stepped(1000), stepped(100_000), stepped(1 << 20), stepped((1 << 20) + 1)
    (1024, 106496, 1048576, 1179648)
    """
    if size_bytes <= _COARSE_BYTES:
        return grown(size_bytes)
    step = (1 << (size_bytes - 1).bit_length() - 1) // UNUSED_SHARE
    return -(-size_bytes // step) * step


class Arena:
    """Memory by size; of one stream, in whose order it is used again.

    Attributes:
        held_bytes: what is in use, and what may be used again.
        budget_bytes: how much is held before what is not in use is given back; None:
            any amount.  What is in use may be more.
    """

    def __init__(self, device: Device, stream: Stream) -> None:
        self._device = device
        self._stream = stream
        self._free: dict[int, list[int]] = defaultdict(list)
        self.held_bytes = 0
        self.budget_bytes: int | None = None

    def take(self, size_bytes: int) -> Held:
        """Return memory; it is given back when nobody refers to it any more.

        Raises:
            EngineError: the device has none left; :meth:`trim` may help.
        """
        size = stepped(size_bytes)
        if self._free[size]:
            return Held(self, self._free[size].pop(), size)
        if self.budget_bytes is not None:
            self.trim(self.budget_bytes - size)
        address = self._device.allocate(size)
        self.held_bytes += size
        return Held(self, address, size)

    def back(self, address: int, size: int) -> None:
        """Take memory back, for the next one who wants as much."""
        self._free[size].append(address)

    def trim(self, most_bytes: int = 0) -> None:
        """Give the device what is not in use, until no more than so much is held."""
        if self.held_bytes <= most_bytes or not any(self._free.values()):
            return
        # What was begun may still read or write what nobody refers to any more.
        self._stream.wait()
        # Meanwhile a cache may go in another thread, so nothing is taken out but
        # addresses, one by one.
        for size in list(self._free):
            addresses = self._free[size]
            while addresses and self.held_bytes > most_bytes:
                self._device.release(addresses.pop())
                self.held_bytes -= size


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
