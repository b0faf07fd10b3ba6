"""Flags: on or off, and which of the two wins when nodes disagree at once.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from atomr.crdt.replicated import Replicated

if TYPE_CHECKING:
    from atomr.crdt.wire import Delta

_KEY = ""
OFF, ON = 0, 1


class EWFlag(Replicated):
    """A flag that is on where one node enables it while another disables it."""

    KIND: ClassVar[str] = "ew_flag"
    __slots__ = ()

    def enable(self) -> Delta:
        """Turn it on."""
        return self._write(_KEY, stamp=ON)

    def disable(self) -> Delta:
        """Turn it off, as far as it is known to be on."""
        return self._kill(_KEY)

    @property
    def value(self) -> bool:
        """Whether it is on; off at first."""
        return _KEY in self._live


class DWFlag(Replicated):
    """A flag that is off where one node disables it while another enables it."""

    KIND: ClassVar[str] = "dw_flag"
    __slots__ = ()

    def enable(self) -> Delta:
        """Turn it on, as far as it is known to be off."""
        return self._write(_KEY, stamp=ON)

    def disable(self) -> Delta:
        """Turn it off."""
        return self._write(_KEY, stamp=OFF)

    @property
    def value(self) -> bool:
        """Whether it is on; off at first."""
        cell = self._live.get(_KEY)
        return cell is not None and all(entry.stamp == ON for entry in cell)
