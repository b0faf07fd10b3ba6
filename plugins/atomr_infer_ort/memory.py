"""Whether a model fits into this machine's memory.

What is free is the lesser of what the kernel could give and what the control
group (a container's limit) still allows.
"""

from __future__ import annotations

from pathlib import Path

from atomr_infer.errors import EngineStartError

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")

_MIB = 2**20


def free_bytes(meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int | None:
    """Return the bytes that a process here can still take; None: not known."""
    known = [
        found
        for found in (_available(meminfo), _left_in_group(cgroup))
        if found is not None
    ]
    return min(known, default=None)


def _available(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    return None


def _left_in_group(cgroup: Path) -> int | None:
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            most = (cgroup / limit).read_text().strip()
            now = (cgroup / used).read_text().strip()
        except OSError:
            continue
        # "max": no limit.
        return max(0, int(most) - int(now)) if most.isdecimal() else None
    return None


def check_fits(model: str, weights_bytes: int, free: int | None) -> None:
    """Refuse a model whose weights alone are more than what is free.

    Raises:
        EngineStartError: with both figures.
    """
    if free is not None and weights_bytes > free:
        raise EngineStartError(
            f"the model {model!r} does not fit: its weights have "
            f"{_mib(weights_bytes)} MiB, and {_mib(free)} MiB of memory are free; "
            "use a smaller or a quantized model, or another machine"
        )


def _mib(size_bytes: int) -> int:
    return size_bytes // _MIB
