"""Two terminals: a server on the other node, and counts that agree after a cut."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from atomr_infer.cli.certificates import make_folder
from tests.examples.loading import EXAMPLES
from tests.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

WITHIN_S = 60.0
END_S = 30.0
NOBODY = "nobody greets: .*"


class Terminal:
    """A process, what is typed, and what is read."""

    def __init__(self, child: trio.Process) -> None:
        self.child = child
        self._text = ""

    async def type(self, line: str) -> None:
        assert self.child.stdin is not None
        await self.child.stdin.send_all(f"{line}\n".encode())

    async def read_until(self, line: str) -> None:
        """Read until there is such a line."""
        with trio.fail_after(WITHIN_S):
            while not self._has(line):
                await self._read()

    async def type_until(self, line: str, answer: str) -> None:
        """Type something, again and again, until that is the answer."""
        with trio.fail_after(WITHIN_S):
            while not self._has(answer):
                await self.type(line)
                await self._read()

    def _has(self, line: str) -> bool:
        """Whether there is such a line; what was before it is forgotten."""
        found = re.search(rf"^{line}$", self._text, re.MULTILINE)
        if found is not None:
            self._text = self._text[found.end() :]
        return found is not None

    async def _read(self) -> None:
        assert self.child.stdout is not None
        data = await self.child.stdout.receive_some()
        assert data, f"it ended after {self._text!r}"
        self._text += data.decode()


@asynccontextmanager
async def terminal(name: str, *arguments: str) -> AsyncIterator[Terminal]:
    script = EXAMPLES / "cluster_two_terminals" / f"{name}.py"
    child = await trio.lowlevel.open_process(
        [sys.executable, script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield Terminal(child)
    finally:
        if child.returncode is None:
            os.kill(child.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + END_S):
            await child.wait()


@pytest.mark.slow
async def test_the_readme_tells_what_happens(tmp_path: Path) -> None:
    make_folder(tmp_path, cluster="demo", nodes=("a", "b"))
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    arguments = (str(tmp_path), *addresses)
    async with terminal("a", *arguments) as a, terminal("b", *arguments) as b:
        await a.read_until("b is up")
        await b.read_until("a is up")
        await a.type("hi ann")
        await a.read_until(r"hello ann, from a, no. 1")
        await b.type_until("hi bob", "hello bob, from a, no. 2")
        await a.type("apple")
        await a.read_until("apple 1")
        await b.type_until("?", "apple 1")

        os.kill(a.child.pid, signal.SIGSTOP)
        await b.read_until("a is gone")
        for word in ("apple", "pear"):
            await b.type(word)
        await b.read_until("apple 2, pear 1")
        os.kill(a.child.pid, signal.SIGCONT)
        await a.read_until("b is up")
        await a.type_until("?", "apple 2, pear 1")

        assert a.child.stdin is not None
        await a.child.stdin.aclose()
        with trio.fail_after(END_S):
            assert await a.child.wait() == 0
        await b.read_until("a is gone")
        await b.type_until("hi cyd", NOBODY)


def test_without_certificates_it_says_how_to_make_them(tmp_path: Path) -> None:
    script = EXAMPLES / "cluster_two_terminals" / "a.py"
    ended = subprocess.run(
        [sys.executable, script, tmp_path / "certs"],
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert ended.returncode == 1
    (said,) = ended.stderr.splitlines()
    assert said.startswith(f"no certificate in {tmp_path}/certs/a.pem: ")
    assert said.endswith(
        "; make them: atomr-infer cluster certs --cluster demo"
        f" --dir {tmp_path}/certs a b"
    )
