"""Whether a model fits into this machine's memory: for runtimes that load one.

What is free is the least of what the kernel could give and of what each control group
above this process (a container's limit, a service's) still allows.  Files that the
kernel only keeps because there was room are no obstacle to a model, so they are not
counted as taken.

A GPU's memory is :mod:`~atomr_infer.runtimes.gpu_memory`'s matter.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from atomr_infer.errors import EngineStartError

if TYPE_CHECKING:
    from collections.abc import Iterator

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")

_MIB = 2**20

# A limit that is larger is version 1's way to say that there is none.
_NO_LIMIT = 2**62


def check_fits(
    model: str,
    weights_bytes: int,
    free: int | None,
    *,
    where: str = "memory",
    remedy: str = "",
) -> None:
    """Refuse a model whose weights alone are more than what is free.

    Args:
        model: what it is called, for the message.
        weights_bytes: what its weights take once they are loaded.
        free: see :func:`free_bytes`; None refuses nothing.
        where: what it is that is free, for the message.
        remedy: what helps beside a smaller model and another machine.

    Raises:
        EngineStartError: with both figures.
    """
    if free is not None and weights_bytes > free:
        raise EngineStartError(
            f"the model {model!r} does not fit: its weights have "
            f"{_mib(weights_bytes)} MiB, and {_mib(free)} MiB of {where} are free; "
            f"{remedy or 'use a smaller or a quantized model, or another machine'}"
        )


def free_bytes(proc: Path = PROC, cgroups: Path = CGROUPS) -> int | None:
    """Return the bytes that a process here can still take; None: not known.

    Args:
        proc: where the kernel tells of memory, and of this process's groups.
        cgroups: where the control groups are.
    """
    known = [_available(proc), *_left_in_groups(proc, cgroups)]
    return min((found for found in known if found is not None), default=None)


def _available(proc: Path) -> int | None:
    for line in _lines(proc / "meminfo"):
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    return None


def _left_in_groups(proc: Path, cgroups: Path) -> Iterator[int | None]:
    """Yield what each of this process's groups, and those above them, leaves."""
    two = _Files("memory.max", "memory.current", "inactive_file")
    one = _Files(
        "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
    )
    yield two.left(cgroups)
    yield one.left(cgroups / "memory")
    for line in _lines(proc / "self" / "cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            yield from two.left_on_the_way(cgroups, path)
        elif "memory" in controllers.split(","):
            yield from one.left_on_the_way(cgroups / "memory", path)


class _Files:
    """What a version of control groups calls its files."""

    def __init__(self, limit: str, used: str, kept: str) -> None:
        self._limit = limit
        self._used = used
        self._kept = kept

    def left_on_the_way(self, root: Path, path: str) -> Iterator[int | None]:
        """Yield what is left in a group and in those above it.

        In a container its path may be that of the host, which is not there.
        """
        folder = root
        for name in path.strip("/").split("/"):
            folder /= name
            yield self.left(folder)

    def left(self, group: Path) -> int | None:
        """Return what a group leaves; None: it has no limit, or is not there."""
        limit = _number(group / self._limit)
        used = _number(group / self._used)
        if limit is None or used is None or limit >= _NO_LIMIT:
            return None
        return max(0, limit - max(0, used - self._kept_files(group)))

    def _kept_files(self, group: Path) -> int:
        for line in _lines(group / "memory.stat"):
            name, _, size = line.partition(" ")
            if name == self._kept and size.isdecimal():
                return int(size)
        return 0


def _number(file: Path) -> int | None:
    """Return the number in a file; None: there is none, as where it says ``max``."""
    text = "".join(_lines(file)).strip()
    return int(text) if text.isdecimal() else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []  # not on this kind of machine


def _mib(size_bytes: int) -> int:
    return size_bytes // _MIB
