"""The processes of the gateway's benchmark: started, waited for, measured, ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

TICKS_PER_S = os.sysconf("SC_CLK_TCK")

# The measured gateway has a core of its own; client and provider share the other.
CORES = sorted(os.sched_getaffinity(0))
GATEWAY_CORE = {CORES[0]}
OTHER_CORE = {CORES[-1]}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def wait_for_port(port: int, within_s: float = 30.0) -> None:
    give_up_at = time.monotonic() + within_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.02)
        else:
            return


def wait_until_ready(port: int, within_s: float = 30.0) -> None:
    """Wait for our gateway's deployment: the port is open before it is there."""
    give_up_at = time.monotonic() + within_s
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz").close()
        except urllib.error.HTTPError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.05)
        else:
            return


class Program(AbstractContextManager["Program"]):
    """A child process on one core, ended with the block."""

    def __init__(
        self,
        command: list[str],
        cores: set[int],
        *,
        environment: dict[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        self._command = command
        self._cores = cores
        self._environment = environment
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            error: IO[str] | None = None
            if self._log is not None:
                error = opened.enter_context(self._log.open("a", encoding="utf-8"))
            self._process = subprocess.Popen(
                self._command,
                stdout=subprocess.PIPE,
                stderr=error,
                text=True,
                env={**os.environ, **(self._environment or {})},
                # The child's first act, so that its threads have it too.
                preexec_fn=lambda: os.sched_setaffinity(0, self._cores),  # noqa: PLW1509
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        process = self.process
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None, "it runs inside the block only"
        return self._process

    def line(self) -> str:
        """The next line that it prints; "" when it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def cpu_s(self) -> float:
        """User and system time of it and all below it so far."""
        return sum(map(_cpu_s, _tree(self.process.pid)))


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").iterdir():
            found.extend(map(int, (task / "children").read_text().split()))
    return found


def _cpu_s(pid: int) -> float:
    # The name, in parentheses, may hold anything; the fields start behind it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S
