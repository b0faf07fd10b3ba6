"""How much memory a child's processes have, and whether that is more than they may.

What counts is what is theirs: what they have written, in memory or swapped out, and
the largest part that one of them shares with others.  Files that they map do not, as
weights often are: the kernel takes those pages back when somebody needs them.

The kernel's own bounds on one process are of no use here: ``RLIMIT_AS`` counts what is
reserved and never touched, as CUDA and the C library's arenas do by the gigabyte, and
``RLIMIT_DATA`` the whole stack of each thread; and both leave an engine that has
helpers as much for each of them.  So the processes are looked at, twice a second.

Source: Linux, Documentation/filesystems/proc.rst (status, stat).
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.bridge.system.want import count_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PROC = Path("/proc")

TURN_S = 0.5

_GROUP = 2
"""The process group in ``stat``, counted behind the name."""


@attrs.frozen
class Taken:
    """What one process has, in bytes.

    Attributes:
        own: what it has written, swapped out or not.
        shared: what it shares with others, files apart.
    """

    own: int = 0
    shared: int = 0


def is_told(proc: Path = PROC) -> bool:
    """Whether the kernel tells what a process has."""
    return _status(proc / "self") is not None


def taken_by_group(group: int, proc: Path = PROC) -> int:
    """Return the bytes that the processes of a group have; reads some files of each."""
    return in_all(_members(group, proc))


def in_all(processes: Iterable[Taken]) -> int:
    """Return the bytes that processes have together.

    >>> in_all([Taken(5, 3), Taken(2, 4)])
    11
    """
    each = list(processes)
    return sum(one.own for one in each) + max((one.shared for one in each), default=0)


async def await_excess(
    group: int, limit_bytes: int, *, turn_s: float = TURN_S, proc: Path = PROC
) -> int:
    """Wait until the processes of a group have more than they may, and return it.

    Cancellation: safe.
    """
    take: Callable[[int, Path], int] = taken_by_group
    while True:
        # A machine has thousands of processes, and no request is to wait for them.
        taken = await trio.to_thread.run_sync(take, group, proc)
        if taken > limit_bytes:
            return taken
        await trio.sleep(turn_s)


def _members(group: int, proc: Path) -> Iterable[Taken]:
    for folder in proc.iterdir():
        if folder.name.isdigit():
            # One that has ended meanwhile has nothing.
            with suppress(OSError):
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(stat[_GROUP]) == group:
                    yield _status(folder) or Taken()


def _status(folder: Path) -> Taken | None:
    """Return what a process has; None: the kernel does not say, or it has ended."""
    try:
        text = (folder / "status").read_text()
    except OSError:
        return None
    anonymous = count_in(text, "RssAnon:")
    if anonymous is None:
        return None
    swapped, shared = count_in(text, "VmSwap:"), count_in(text, "RssShmem:")
    return Taken((anonymous + (swapped or 0)) * 1024, (shared or 0) * 1024)
