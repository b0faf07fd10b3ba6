"""What the kernel counts of killed processes and of memory, read from its files.

Reads a few small files of the kernel's own, which are memory and never a disk; so it
blocks, for some microseconds.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from atomr_infer.bridge.system.exits import describe_exit
from atomr_infer.bridge.system.want import Counted, Kills, Place, count_in, places

if TYPE_CHECKING:
    from collections.abc import Callable

PROC = Path("/proc")

TURN_S = 1.0
TURNS = 10
"""A count that rose within the last ten seconds is a death's own: so long may a large
process need for its end."""


class KernelWatch:
    """Looks at the counters of one process's control group.

    Args:
        pid: the process.
        proc: where the kernel tells of processes.
    """

    def __init__(self, pid: int, proc: Path = PROC) -> None:
        self._proc = proc
        self._kills = Kills(TURNS)
        self._place = self._find(str(pid))
        self._is_shared = self._place == self._find("self")
        self.look()

    def look(self) -> None:
        """Note how the counters stand."""
        self._kills.note(self._counted())

    async def look_forever(self) -> None:
        """Look once a second."""
        while True:
            await trio.sleep(TURN_S)
            self.look()

    def how(self, returncode: int) -> tuple[str, bool]:
        """Say how the process ended, from ``Popen.returncode``.

        Returns:
            In words, and whether it was for want of memory.
        """
        how = describe_exit(returncode)
        why = None
        if returncode == -signal.SIGKILL:
            why = self.why()
        return (how, False) if why is None else (f"{why} ({how})", True)

    def why(self) -> str | None:
        """Say that the kernel killed one of the group of late; None: it did not."""
        return self._kills.why(self._counted())

    def _find(self, process: str) -> Place | None:
        cgroup = self._read(self._proc / process / "cgroup")
        mountinfo = self._read(self._proc / "self/mountinfo")
        for place in places(cgroup, mountinfo):
            if _kills_in(place, self._read) is not None:
                return place
        return None

    def _counted(self) -> Counted:
        machine = count_in(self._read(self._proc / "vmstat"), "oom_kill")
        place = self._place
        if place is None:
            total_kib = count_in(self._read(self._proc / "meminfo"), "MemTotal:")
            total_bytes = None if total_kib is None else total_kib * 1024
            return Counted(machine=machine, total_bytes=total_bytes)
        limit, peak = _BOUNDS[place.version]
        return Counted(
            group=_kills_in(place, self._read),
            machine=machine,
            limit_bytes=_number(self._read(Path(place.folder, limit))),
            peak_bytes=_number(self._read(Path(place.folder, peak))),
            is_shared=self._is_shared,
        )

    def _read(self, path: Path) -> str:
        try:
            # A mount point's name may be no UTF-8, whoever mounted it.
            return os.fsdecode(path.read_bytes())
        except OSError:
            # Another kernel, a sandbox, a group that is gone: nothing is known of it.
            return ""


_KILLS = {1: "memory.oom_control", 2: "memory.events"}
_BOUNDS = {
    1: ("memory.limit_in_bytes", "memory.max_usage_in_bytes"),
    2: ("memory.max", "memory.peak"),
}


def _kills_in(place: Place, read: Callable[[Path], str]) -> int | None:
    return count_in(read(Path(place.folder, _KILLS[place.version])), "oom_kill")


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isdecimal() else None
