"""The child's promise to die with its parent, and its helpers with it.

An engine holds gigabytes and a GPU; one that outlives a gateway that was killed
by ``kill -9`` (or by the kernel's out-of-memory killer) would hold them for
ever.  On Linux the kernel keeps the promise: with ``PR_SET_PDEATHSIG`` it kills
the child when the *thread* that started it ends, even when the child's
interpreter is busy inside an extension that holds the GIL.  (Hence the parent
starts it from the trio thread itself, never from a worker thread.)  Elsewhere
the end-of-file on the bridge's socket has to do.

The signal reaches the child alone, and engines have helpers (vLLM's workers hold
the GPU).  So before an engine is imported the child forks a guard: a process of
its group that waits for its death and then kills the group.  It shows as a second
process with the child's command line.  A helper that leaves the group, by
``setsid``, is out of its reach, and so are helpers where there is no pidfd (Linux
before 5.3, other systems).
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
from contextlib import suppress
from typing import NoReturn

ORPHANED_STATUS = 70
"""Exit status of a child whose parent is gone (``EX_SOFTWARE``); nobody reads it."""

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


def abandon_ship() -> NoReturn:
    """End at once: the parent is gone, and there is nobody to clean up for.

    No unwinding: engines may hold the interpreter for minutes, and with it the
    memory that somebody is waiting for.
    """
    os._exit(ORPHANED_STATUS)


def guard_group() -> bool:
    """Have this process's group killed when this process dies, however it does.

    To be called by a group's leader, before it starts threads.

    Returns:
        False where that is not possible: no pidfd, no more processes, or this
        process does not lead its group.
    """
    if not sys.platform.startswith("linux") or not hasattr(os, "pidfd_open"):
        return False
    # Started by hand, it would take a shell's whole job with it.
    if os.getpgrp() != os.getpid():
        return False
    try:
        pidfd = os.pidfd_open(os.getpid())
    except OSError:  # an old kernel, or a sandbox that forbids it
        return False
    try:
        between = os.fork()
        if between == 0:
            _fork_guard(pidfd)
        return os.waitpid(between, 0)[1] == 0
    except OSError:  # a limit on processes
        return False
    finally:
        os.close(pidfd)


def _fork_guard(pidfd: int) -> NoReturn:
    # Forked twice: an engine that waits for all of its children, or counts
    # them, must not find one that it has not started.
    status = 1
    try:
        if os.fork() == 0:
            _guard(pidfd)
        status = 0
    finally:
        # A fork's last frame: nothing of the child's may run here.
        os._exit(status)


def _guard(pidfd: int) -> None:
    # Service managers signal every process of a service; the engine decides.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # The parent waits for the end of the socket and of the output.
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd != pidfd:
            with suppress(OSError):  # the listing's own
                os.close(fd)
    ended = select.poll()
    ended.register(pidfd, select.POLLIN)
    ended.poll()
    # The group's number is not another's while this process is in it.
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _set_parent_death_signal() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):  # a C library without it
        return False
    return bool(prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0)
