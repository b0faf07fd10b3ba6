"""How much memory a child's processes have, and whether that is more than they may.

What counts is what is theirs: what they have written, in memory or swapped out, and
the largest part that one of them shares with others.  Files that they map do not, as
weights often are: the kernel takes those pages back when somebody needs them.

The kernel's own bounds on one process are of no use here: ``RLIMIT_AS`` counts what is
reserved and never touched, as CUDA and the C library's arenas do by the gigabyte, and
``RLIMIT_DATA`` the whole stack of each thread; and both leave an engine that has
helpers as much for each of them.  So the processes are looked at, twice a second.

What is quickly told counts a page once for each process that has it since a fork, and
so too much.  Where it is more than they may have, the kernel is asked for each one's
share of such pages; that walks all of them, and is not for every turn.

Source: Linux, Documentation/filesystems/proc.rst (status, stat, smaps_rollup).
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

_REST = 10
"""A turn is at least so many times as long as its look took: a walk over the pages of a
process costs a second for some 100 GiB, in which it waits to map more."""

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
    """Return the bytes that the processes of a group have; reads some files of each.

    A page that several have since a fork counts for each of them.
    """
    return in_all(_status(folder) or Taken() for folder in _members(group, proc))


def shares_of_group(group: int, proc: Path = PROC) -> int:
    """Return the bytes that the processes of a group have, each page once.

    It is slow.  Of a process whose share the kernel does not tell, all counts.
    """
    return in_all(_shares(folder) or Taken() for folder in _members(group, proc))


def excess(group: int, limit_bytes: int, proc: Path = PROC) -> int | None:
    """Return the bytes that a group's processes have; None: no more than they may."""
    if taken_by_group(group, proc) <= limit_bytes:
        return None
    taken = shares_of_group(group, proc)
    return taken if taken > limit_bytes else None


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
    look: Callable[[int, int, Path], int | None] = excess
    while True:
        began_at = trio.current_time()
        # A machine has thousands of processes, and no request is to wait for them.
        taken = await trio.to_thread.run_sync(look, group, limit_bytes, proc)
        if taken is not None:
            return taken
        took_s = trio.current_time() - began_at
        await trio.sleep(max(turn_s, _REST * took_s))


def _members(group: int, proc: Path) -> Iterable[Path]:
    for folder in proc.iterdir():
        if folder.name.isdigit():
            # One that has ended meanwhile has nothing.
            with suppress(OSError):
                # Its name may have parentheses of its own.
                stat = _text(folder / "stat").rpartition(")")[2].split()
                if int(stat[_GROUP]) == group:
                    yield folder


def _status(folder: Path) -> Taken | None:
    """Return what a process has; None: the kernel does not say, or it has ended."""
    try:
        text = _text(folder / "status")
    except OSError:
        return None
    anonymous = count_in(text, "RssAnon:")
    if anonymous is None:
        return None
    swapped, shared = count_in(text, "VmSwap:"), count_in(text, "RssShmem:")
    return Taken((anonymous + (swapped or 0)) * 1024, (shared or 0) * 1024)


def _shares(folder: Path) -> Taken | None:
    """Return what a process has, of pages that others have too its share alone.

    Returns:
        What it has in all where the kernel does not tell its share: it is another
        user's, or the kernel is older than 5.4.  None: as for :func:`_status`.
    """
    taken = _status(folder)
    if taken is None:
        return None
    try:
        text = _text(folder / "smaps_rollup")
    except OSError:
        return taken
    anonymous, swapped = count_in(text, "Pss_Anon:"), count_in(text, "SwapPss:")
    if anonymous is None:
        return taken
    return Taken((anonymous + (swapped or 0)) * 1024, taken.shared)


def _text(file: Path) -> str:
    """Return a file of a process.

    Its name, which anybody gives it, is cut at 15 bytes, inside a character too.

    Raises:
        OSError: it has ended, or is not ours to look at.
    """
    return file.read_bytes().decode(errors="replace")
