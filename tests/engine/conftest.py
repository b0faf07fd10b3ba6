"""The whole product as its user runs it: one server process, one real model."""

from __future__ import annotations

import queue
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import attrs
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

_READY_S = 300.0  # a first start requantises the model, on a busy machine
_STOP_S = 60.0
_URL = re.compile(r"serves (http://\S+)")


@attrs.define
class Server:
    """A running ``atomr-infer serve``.

    Attributes:
        process: the server.
        banner: its standard output up to the prompt to stop it.
        log: its standard error so far, a line each.
    """

    process: subprocess.Popen[str]
    banner: str = ""
    log: list[str] = attrs.field(factory=list)

    @property
    def url(self) -> str:
        found = _URL.search(self.banner)
        assert found is not None, self.banner
        return found[1]

    def engine_pid(self) -> int:
        """The engine's child process, now."""
        children = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        engine = until(lambda: Path(children).read_text().split(), "an engine runs")
        return int(engine[0])

    def stop(self) -> int:
        """End it as Ctrl-C does, and return its exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(_STOP_S)


def until(condition: Callable[[], T], what: str, within_s: float = 60.0) -> T:
    """Wait for a real process: poll until ``condition`` is true, and return it."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.02)
    return found


def start_server(*arguments: str) -> Server:
    """Start the server and wait for its banner."""
    process = subprocess.Popen(
        [sys.executable, "-m", "atomr_infer.cli", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    server = Server(process)
    assert process.stdout is not None
    assert process.stderr is not None
    lines: queue.Queue[str | None] = queue.Queue()

    def read_banner() -> None:
        for line in process.stdout or ():
            lines.put(line)
        lines.put(None)

    def read_log() -> None:
        for line in process.stderr or ():
            server.log.append(line)

    for reader in (read_banner, read_log):
        threading.Thread(target=reader, daemon=True).start()
    while "Ctrl-C stops." not in server.banner:
        line = lines.get(timeout=_READY_S)
        assert line is not None, "the server ended: " + "".join(server.log)
        server.banner += line
    return server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = start_server("--demo", "--bind", "127.0.0.1:0")
    try:
        yield running
        assert running.stop() == 0, "".join(running.log[-50:])
    finally:
        running.process.kill()
        running.process.wait()
        for pipe in (running.process.stdout, running.process.stderr):
            if pipe is not None:
                pipe.close()
