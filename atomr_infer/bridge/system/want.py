"""Whether the kernel killed a process for want of memory: a decision over counters.

All that a parent sees of such a death is SIGKILL, which anybody may send.  But the
kernel counts whom it kills so: in the control group of the one that it killed,
whoever's memory was short; and over all groups.  A count that rose about when the
process died says why.

Pure.

Source: Linux, Documentation/admin-guide/cgroup-v2.rst (memory.events);
cgroup-v1/memory.rst (memory.oom_control); proc_vmstat (oom_kill).
"""

from __future__ import annotations

import re
from collections import deque

import attrs

_MIB = 2**20
_NO_LIMIT = 2**60
"""Version 1 writes a huge number where there is no limit."""


@attrs.frozen(kw_only=True)
class Counted:
    """What the kernel has counted, and what it says of memory with that.

    Attributes:
        group: kills in the control group, and in those below it; None: not known.
        machine: kills on the machine; None: not known.
        limit_bytes: what the group may have; None: not known, or no limit.
        peak_bytes: the most that it had; None: not known.
        total_bytes: what the machine has; None: not known.
        is_shared: whether the group is the parent's as well.
    """

    group: int | None = None
    machine: int | None = None
    limit_bytes: int | None = None
    peak_bytes: int | None = None
    total_bytes: int | None = None
    is_shared: bool = False


class Kills:
    """Counts of the last turns, to set the present one beside.

    Others of a group die, too: what was counted long before a death is not its own.

    Args:
        turns: how many are kept, at least 1.
    """

    def __init__(self, turns: int) -> None:
        self._counts: deque[Counted] = deque(maxlen=turns)

    def note(self, counted: Counted) -> None:
        """Keep a turn's counts."""
        self._counts.append(counted)

    def why(self, now: Counted) -> str | None:
        """Return why a process that was killed died, in words.

        Returns:
            None: nothing says that it was for want of memory.
        """
        if not self._counts:
            return None
        before = self._counts[0]
        if before.group is not None and now.group is not None:
            # The killed one is counted in its group, so nothing else need be asked.
            if now.group <= before.group:
                return None
            # Other engines are counted there as well.
            likely = "most likely " if now.is_shared else ""
            return f"{likely}killed by the kernel for want of memory{_in_group(now)}"
        if before.machine is None or now.machine is None:
            return None
        if now.machine <= before.machine:
            return None
        has = _size(now.total_bytes)
        machine = "" if has is None else f"; the machine has {has}"
        return f"most likely killed by the kernel for want of memory{machine}"


def _in_group(now: Counted) -> str:
    limit, peak = _size(now.limit_bytes), _size(now.peak_bytes)
    parts = []
    if limit is not None:
        parts.append(f"may have {limit}")
    if peak is not None:
        parts.append(f"had {peak} at most")
    return f"; its control group {' and '.join(parts)}" if parts else ""


def _size(size_bytes: int | None) -> str | None:
    if size_bytes is None or size_bytes >= _NO_LIMIT:
        return None
    return f"{size_bytes / _MIB:.0f} MiB"


def count_in(text: str, name: str) -> int | None:
    r"""Return a number of a file of names and numbers; None: it is not there.

    >>> count_in("oom 3\noom_kill 2\n", "oom_kill")
    2
    >>> count_in("MemTotal:       16 kB\n", "MemTotal:")
    16
    """
    found = re.search(rf"^{re.escape(name)}\s+(\d+)\b", text, re.MULTILINE)
    return None if found is None else int(found[1])


@attrs.frozen
class Place:
    """Where a process's memory is counted.

    Attributes:
        folder: of its control group.
        version: of its hierarchy: 1 or 2.
    """

    folder: str
    version: int


def places(cgroup: str, mountinfo: str) -> tuple[Place, ...]:
    r"""Return where a process's memory may be counted, the likeliest first.

    Args:
        cgroup: its ``/proc/PID/cgroup``.
        mountinfo: our ``/proc/self/mountinfo``.

    >>> mounted = "1 1 0:1 /a /sys/fs/cgroup rw - cgroup2 none rw"
    >>> places("0::/a/b\n", mounted)
    (Place(folder='/sys/fs/cgroup/b', version=2),)
    """
    paths: dict[int, str] = {}
    for line in cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            paths[1] = path
        elif not controllers:
            paths[2] = path
    found = []
    # Where both are mounted, the first one has the memory.
    for version in sorted(paths):
        for line in mountinfo.splitlines():
            place = _mounted(line, paths[version], version)
            if place is not None:
                found.append(place)
    return tuple(found)


def _mounted(line: str, path: str, version: int) -> Place | None:
    mount, _, filesystem = line.partition(" - ")
    kind, _, options = filesystem.partition(" ")
    if version == 1:
        if kind != "cgroup" or "memory" not in re.split("[, ]", options):
            return None
    elif kind != "cgroup2":
        return None
    _, _, _, root, point, *_ = mount.split(" ")
    if root != "/":
        # A container sees its own group at the top, and the whole path in its name.
        if path != root and not path.startswith(f"{root}/"):
            return None
        path = path[len(root) :]
    return Place(f"{point.rstrip('/')}{path}".rstrip("/") or "/", version)
