"""Starting, awaiting and ending a child interpreter.

The child gets its own session.  So a Ctrl-C in the terminal reaches the parent
only, which decides what becomes of running generations; and the child leads a
process group, so that helpers which its engine started (vLLM starts several)
can be killed with it; a parent that cannot do so itself, for it was killed, has
the child's guard do it (``lineage``).  (A service manager that signals every
process of a service would still kill engines before the gateway has drained:
with systemd, set ``KillMode=mixed``.)

Owns the process: it is always reaped, and so is its group.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@attrs.define(eq=False)
class Child:
    """A running child interpreter.

    Attributes:
        popen: the process; only :meth:`wait` reaps it.
        link: our end of the socket pair.
        output: read end of the pipe that is its stdout and stderr.
    """

    popen: subprocess.Popen[bytes]
    link: socket.socket
    output: int

    @property
    def pid(self) -> int:
        """Its process id, and its group's."""
        return self.popen.pid

    async def wait(self) -> int:
        """Wait until it has exited, kill its group, reap it.

        Returns:
            ``Popen.returncode``: negative for a signal.
        """
        if self.popen.returncode is None:
            await _wait_until_exited(self.pid)
            # While the zombie is not reaped, its id cannot be another's.
            self.signal_group(signal.SIGKILL)
        return self.popen.wait()

    def terminate(self) -> None:
        """Ask it to end, by SIGTERM; only it, its helpers are its own."""
        self._signal(os.kill, signal.SIGTERM)

    def kill(self) -> None:
        """Kill it and every process of its group."""
        self.signal_group(signal.SIGKILL)

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the child's process group, if any of it is left."""
        self._signal(os.killpg, number)

    def _signal(self, send: Callable[[int, int], None], number: signal.Signals) -> None:
        if self.popen.returncode is None:
            # PermissionError is what macOS says of a group of zombies.
            with suppress(ProcessLookupError, PermissionError):
                send(self.pid, number)


def start_child(
    module: str,
    *,
    python: str,
    environment: Mapping[str, str],
) -> Child:
    """Start ``python -m module FD PARENT_PID`` at the other end of a socket pair.

    Blocks for the few milliseconds of fork and exec, on purpose: started from
    a worker thread, the child would die with that thread (``lineage``).

    Args:
        module: what it runs; it finds its socket by ``FD``.
        python: the interpreter's path.
        environment: all of its environment variables.

    Raises:
        OSError: the interpreter cannot be started; nothing is left open.
    """
    ours, theirs = socket.socketpair()
    output_read, output_write = os.pipe()
    try:
        popen = _start(
            (python, module),
            theirs,
            output=output_write,
            environment=environment,
        )
    except BaseException:
        ours.close()
        os.close(output_read)
        raise
    finally:
        theirs.close()
        os.close(output_write)
    return Child(popen, ours, output_read)


def run_on_socket(
    module: str, *, python: str, link: socket.socket, environment: Mapping[str, str]
) -> int:
    """Run ``python -m module FD PARENT_PID`` on a socket until it ends; blocks.

    Its output is this process's, and it dies with the calling thread.

    Args:
        module: what it runs; it finds its socket by ``FD``.
        python: the interpreter's path.
        link: a connected socket; our own copy of it is closed.
        environment: all of its environment variables.

    Returns:
        ``Popen.returncode``: negative for a signal.

    Raises:
        OSError: the interpreter cannot be started.
    """
    popen = _start((python, module), link, output=None, environment=environment)
    # The peer is to see the end of the connection with the child's.
    link.close()
    _block_until_exited(popen.pid)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(popen.pid, signal.SIGKILL)
    return popen.wait()


def _start(
    command: tuple[str, str],
    link: socket.socket,
    *,
    output: int | None,
    environment: Mapping[str, str],
) -> subprocess.Popen[bytes]:
    python, module = command
    fd = link.fileno()
    return subprocess.Popen(
        # -P keeps the working directory off the import path: a file that
        # happens to be called trio.py there must not break an engine.
        # -u lets its prints reach the log when they are made.
        [python, "-P", "-u", "-m", module, str(fd), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=(fd,),
        close_fds=True,
        start_new_session=True,
        env=environment,
    )


async def _wait_until_exited(pid: int) -> None:
    """Wait until our child ``pid`` is a zombie; leave it to be reaped."""
    if sys.platform != "win32" and hasattr(os, "pidfd_open"):
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:  # a kernel before 5.3, or a sandbox that forbids it
            pass
        else:
            try:
                await trio.lowlevel.wait_readable(pidfd)
            finally:
                os.close(pidfd)
            return
    await trio.to_thread.run_sync(_block_until_exited, pid, abandon_on_cancel=True)


def _block_until_exited(pid: int) -> None:
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
