"""The child's promise to die with its parent.

An engine holds gigabytes and a GPU; one that outlives a gateway that was killed
by ``kill -9`` (or by the kernel's out-of-memory killer) would hold them for
ever.  On Linux the kernel keeps the promise: with ``PR_SET_PDEATHSIG`` it kills
the child when the *thread* that started it ends, even when the child's
interpreter is busy inside an extension that holds the GIL.  (Hence the parent
starts it from the trio thread itself, never from a worker thread.)  Elsewhere
the end-of-file on the bridge's socket has to do.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


class OrphanedError(Exception):
    """The parent was gone before the child could tie itself to it."""


def die_with_parent(parent_pid: int) -> bool:
    """Have the kernel kill this process when its parent dies.

    Args:
        parent_pid: who started this process, by its own account.

    Returns:
        False where the kernel cannot: not Linux, or ``prctl`` is forbidden.

    Raises:
        OrphanedError: the parent died before the call; nobody would kill us.
    """
    bound = _set_parent_death_signal()
    # Checked after the call: a parent that dies later is the kernel's matter.
    if os.getppid() != parent_pid:
        raise OrphanedError(f"the parent, process {parent_pid}, is gone")
    return bound


def _set_parent_death_signal() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):  # a C library without it
        return False
    return bool(prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0)
