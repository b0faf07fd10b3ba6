"""``atomr-infer`` as a real process, and what it wrote."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from tests import forks
from tests.gateway.http import until

if TYPE_CHECKING:
    import signal
    from pathlib import Path

# Starting takes half a second of imports; this is for a machine that is busy.
START_S = 90.0
# Below the half a minute for which an answer that runs may be waited for.
STOP_S = 20.0

COMMAND = (sys.executable, "-m", "atomr_infer.cli")


def environment(**more: str) -> dict[str, str]:
    """This environment without the keys of its user, and with ``more``."""
    plain = {
        name: value
        for name, value in os.environ.items()
        if not name.endswith("_API_KEY") and name not in {"NO_COLOR", "FORCE_COLOR"}
    }
    return {**plain, **more}


@attrs.define(eq=False)
class Command:
    """A running ``atomr-infer``.

    Attributes:
        process: its process.
        out: what it wrote to standard output so far.
        err: what it wrote to standard error so far.
    """

    process: trio.Process | forks.Forked
    out: bytearray = attrs.field(factory=bytearray)
    err: bytearray = attrs.field(factory=bytearray)

    @property
    def stdout(self) -> str:
        return self.out.decode()

    @property
    def stderr(self) -> str:
        return self.err.decode()

    @property
    def port(self) -> int:
        """The port in the banner."""
        found = re.search(r"serves https?://127\.0\.0\.1:(\d+)", self.stdout)
        assert found is not None, self.stdout
        return int(found[1])

    async def serving(self) -> None:
        """Wait for the banner."""
        await self._wrote(self.out, "Ctrl-C stops.")

    async def said(self, text: str) -> None:
        """Wait for ``text`` on standard error."""
        await self._wrote(self.err, text)

    async def _wrote(self, stream: bytearray, text: str) -> None:
        await until(
            lambda: text.encode() in stream or self.process.returncode is not None,
            within_s=START_S,
        )
        assert text.encode() in stream, self.stdout + self.stderr

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self, within_s: float = STOP_S) -> int:
        """Wait for its end, and return its exit status."""
        with trio.fail_after(within_s):
            return await self.process.wait()

    async def read(self, stream: trio.abc.ReceiveStream, into: bytearray) -> None:
        async with stream:
            async for piece in stream:
                into += piece


Start = Callable[..., AbstractAsyncContextManager[Command]]


async def start_process(
    *arguments: str, program: Sequence[str] = COMMAND, **env: str
) -> trio.Process | forks.Forked:
    """Start the command: forked, or from nothing where a fork would not be the same."""
    whole = environment(**env)
    if program == COMMAND and forks.can_fork(whole):
        return await forks.start(arguments, env=whole)
    return await trio.lowlevel.open_process(
        [*program, *arguments],
        stdin=subprocess.DEVNULL,  # no terminal, whoever runs the tests
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=whole,
    )


@asynccontextmanager
async def start_command(
    *arguments: str, program: Sequence[str] = COMMAND, **env: str
) -> AsyncIterator[Command]:
    """Run the command for the length of the block; after it, all that it wrote."""
    async with trio.open_nursery() as nursery:
        process = await start_process(*arguments, program=program, **env)
        command = Command(process)
        assert process.stdout is not None
        assert process.stderr is not None
        nursery.start_soon(command.read, process.stdout, command.out)
        nursery.start_soon(command.read, process.stderr, command.err)
        try:
            yield command
        finally:
            with trio.CancelScope(shield=True):
                if process.returncode is None:
                    process.kill()
                await process.wait()
            # What it wrote ends with it, unless a process of its own outlives it.
            nursery.cancel_scope.deadline = trio.current_time() + STOP_S
    assert not nursery.cancel_scope.cancelled_caught, "what it started outlives it"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    """Write a configuration, and return its path."""

    def write_it(text: str) -> str:
        path = tmp_path / "atomr.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write_it


@pytest.fixture
def serve(write: Callable[[str], str]) -> Start:
    """Start ``serve`` on a free port with a mock deployment of the given options."""

    def start(
        options: str = "", *, gateway: str = "", port: int = 0, **env: str
    ) -> AbstractAsyncContextManager[Command]:
        config = write(mock_config(options, gateway=gateway))
        bind = f"127.0.0.1:{port}"
        return start_command("serve", "-c", config, "--bind", bind, **env)

    return start


def mock_config(options: str = "", *, gateway: str = "") -> str:
    return (
        f"[gateway]\n{gateway}\n"
        '[[deployment]]\nname = "m"\nruntime = "mock"\n'
        f"[deployment.options]\n{options}\n"
    )


async def run_command(*arguments: str, **env: str) -> tuple[int, str, str]:
    """Run the command to its end: exit status, standard output and error."""
    with trio.fail_after(START_S):
        async with start_command(*arguments, **env) as command:
            code = await command.process.wait()
    return code, command.stdout, command.stderr
