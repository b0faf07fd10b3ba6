"""``atomr-infer``, and examples, in processes that have imported it before they start.

To import what a gateway needs takes a processor most of a second, and the tests of the
command start it some hundred times.  Here one process imports it, for each process of
pytest's, and is forked for each start.  What runs then is a process of its own, whose
arguments, environment, folder and streams are as asked for; it ends as each does.  What
a start from nothing imports is a matter of starts from nothing.

The process that is forked has a child for each start, which waits for the program's end
and tells it: who started it here is not its parent, and could not ask.

All forks share the seed of the interpreter's hashes; trio draws its order and its clock
anew in each.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PROGRAM = "atomr_infer.cli"
# What ``serve`` imports only once it has something to serve, and what examples do.
_LATE = (
    "atomr_infer.gateway.opening",
    "atomr_infer.gateway.setup",
    "atomr_infer.serving.requests.straight",
    "atomr_infer.testing.mock",
    "atomr_infer.testing.upstream",
)
_MESSAGE_BYTES = 128 * 1024
# A process, and then how it ended.
_TOLD = struct.Struct("=i")
# What the process that is forked starts with.
_AT_START = dict(os.environ)
# What the interpreter reads when it starts, and a fork of it no more.
_READ_AT_START = ("PYTHON", "LANG", "LC_", "TZ")
# A start inherits that these are ignored, as under ``nohup``; Ctrl-C raises otherwise.
_UNLESS_IGNORED: dict[signal.Signals, Any] = {
    signal.SIGHUP: signal.SIG_DFL,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
}


def can_fork(env: Mapping[str, str]) -> bool:
    """Tell whether a fork is what a start with this environment would be."""
    return _of_start(env) == _of_start(_AT_START)


def _of_start(env: Mapping[str, str]) -> dict[str, str]:
    return {name: env[name] for name in env if name.startswith(_READ_AT_START)}


class Forked:
    """A running program; the part of ``trio.Process`` that tests use.

    Attributes:
        pid: of the program.
        stdout: what it writes to standard output; for who asked for it.
        stderr: the same of standard error.
    """

    def __init__(
        self,
        status: socket.socket,
        stdout: trio.lowlevel.FdStream,
        stderr: trio.lowlevel.FdStream,
    ) -> None:
        self.stdout = stdout
        self.stderr = stderr
        message, handles, _, _ = socket.recv_fds(status, _TOLD.size, 1)
        self.pid = _number(message)
        # The number may be another process's once this one has ended.
        (self._handle,) = handles
        status.setblocking(False)
        self._status = status
        self._returncode: int | None = None
        self._asks = trio.Lock()

    @property
    def returncode(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        if self._returncode is None:
            with contextlib.suppress(BlockingIOError):
                self._returncode = _number(self._status.recv(_TOLD.size))
        return self._returncode

    async def wait(self) -> int:
        """Wait for its end, and return its exit status."""
        async with self._asks:
            # Whoever else reads it, its end follows, which can be read as well.
            while self.returncode is None:
                await trio.lowlevel.wait_readable(self._status)
            if self._status.fileno() >= 0:
                self._status.close()
                os.close(self._handle)
        assert self._returncode is not None
        return self._returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Signal it, if it still runs."""
        if self.returncode is None:
            # It may have ended, and nobody has told it yet.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def _number(message: bytes) -> int:
    assert message, "the process that is forked for each start has ended"
    (number,) = _TOLD.unpack(message)
    return int(number)


async def start(
    arguments: Sequence[str], *, env: Mapping[str, str], script: str | None = None
) -> Forked:
    """Start the command with these arguments, in this folder and without a terminal.

    Args:
        arguments: of the program.
        env: its whole environment.
        script: the path of what runs instead, with warnings as errors.
    """
    assert can_fork(env), "this needs a start from nothing"
    order = {
        "arguments": arguments,
        "script": script,
        "env": dict(env),
        "folder": os.getcwd(),
        "ignored": [
            n for n in _UNLESS_IGNORED if signal.getsignal(n) is signal.SIG_IGN
        ],
    }
    read_out, out = os.pipe()
    read_err, err = os.pipe()
    status, tells = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    nothing = os.open(os.devnull, os.O_RDONLY)
    given = [nothing, out, err, tells.detach()]
    socket.send_fds(_template(), [json.dumps(order).encode()], given)
    for each in given:
        os.close(each)
    # As long as a fork takes; a program that nobody knows would run on.
    with trio.CancelScope(shield=True):
        await trio.lowlevel.wait_readable(status)
    stdout, stderr = (trio.lowlevel.FdStream(each) for each in (read_out, read_err))
    return Forked(status, stdout, stderr)


@cache
def _template() -> socket.socket:
    """Start the process that is forked, and return the end that it is asked on."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.forks", str(theirs.fileno())],
        cwd=Path(__file__).parents[1],
        env=_AT_START,
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# --- in the process that is forked ----------------------------------------------------


def main() -> None:
    """Import the command and all of its parts; be forked for each start, and run it."""
    package = importlib.import_module(_PROGRAM)
    for part in pkgutil.walk_packages(package.__path__, f"{_PROGRAM}."):
        if not part.name.endswith("__main__"):
            importlib.import_module(part.name)
    for name in _LATE:
        importlib.import_module(name)
    gc.freeze()
    # Ctrl-C is for who runs the tests, and for the programs.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = _forked(socket.socket(fileno=int(sys.argv[1])))
    if order is None:
        return
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["env"])
    for number, otherwise in _UNLESS_IGNORED.items():
        ignored = number in order["ignored"]
        signal.signal(number, signal.SIG_IGN if ignored else otherwise)
    # It is not drawn anew by a fork: nodes would have the same order and clock.
    importlib.import_module("trio._core._run")._r.seed()
    sys.argv[1:] = order["arguments"]
    if order["script"] is not None:
        warnings.simplefilter("error")
        runpy.run_path(order["script"], run_name="__main__")
    else:
        runpy.run_module(_PROGRAM, run_name="__main__", alter_sys=True)


def _forked(asked: socket.socket) -> dict[str, Any] | None:
    """Fork for each start; return it, in its process, or None when nobody asks."""
    while True:
        message, given, _, _ = socket.recv_fds(asked, _MESSAGE_BYTES, 4)
        # Waited for rather than ignored, so that what they used counts as this one's.
        with contextlib.suppress(ChildProcessError):  # there is none
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not message:
            return None
        if os.fork() == 0:
            asked.close()
            _run_and_tell(given)
            order: dict[str, Any] = json.loads(message)
            return order
        for stream in given:
            os.close(stream)


def _run_and_tell(given: list[int]) -> None:
    """Fork once more, and return there; here tell the process, and how it ended."""
    *streams, tells = given
    program = os.fork()
    if program == 0:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.closerange(3, max(given) + 1)
        return
    for stream in streams:
        os.close(stream)
    told = socket.socket(fileno=tells)
    handle = os.pidfd_open(program)
    with contextlib.suppress(BrokenPipeError):  # those who asked may be gone
        socket.send_fds(told, [_TOLD.pack(program)], [handle])
    asks = select.poll()
    asks.register(handle, select.POLLIN)
    asks.register(told, 0)  # that those who asked are gone is always told
    if handle not in dict(asks.poll()):
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    _, status = os.waitpid(program, 0)
    with contextlib.suppress(BrokenPipeError):
        told.send(_TOLD.pack(os.waitstatus_to_exitcode(status)))
    os._exit(0)


if __name__ == "__main__":
    main()
