"""Nobody reads standard error any more: all happens as it would have."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from tests.cli.conftest import (
    COMMAND,
    START_S,
    Command,
    environment,
    mock_config,
    start_process,
)
from tests.gateway.http import chat
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OTHER = '[[deployment]]\nname = "n"\nruntime = "mock"\n'
# A command that says why, or whose engine's pipe has closed.
SCRIPT = """
import sys, click
from atomr_infer.cli.output.closed_pipe import PipedGroup
cli = PipedGroup()
@cli.command()
def says():
    click.echo("why", err=True)
    print("more", file=sys.stderr)
    sys.exit(3)
@cli.command()
def breaks():
    raise BrokenPipeError(32, "the engine's pipe")
cli()
"""


@contextmanager
def unread() -> Iterator[int]:
    """A pipe whose reader has left."""
    read, write = os.pipe()
    os.close(read)
    try:
        yield write
    finally:
        os.close(write)


def run_without_stderr(*command: str, stdout: int = subprocess.DEVNULL) -> int:
    """Run it with nobody at its standard error, and return the exit status."""
    with unread() as stderr:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            check=False,
            env=environment(),
        ).returncode


async def is_open(port: int) -> bool:
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return False
    await stream.aclose()
    return True


async def test_a_gateway_goes_on_and_takes_a_changed_file(
    write: Callable[[str], str],
) -> None:
    path = write(mock_config())
    bind = ("--bind", "127.0.0.1:0")
    async with trio.open_nursery() as nursery:
        process = await start_process("serve", "-c", path, "--watch", *bind)
        command = Command(process)
        assert process.stdout is not None
        assert process.stderr is not None
        nursery.start_soon(command.read, process.stdout, command.out)
        await command.serving()
        await process.stderr.aclose()
        write(mock_config() + OTHER)

        with trio.fail_after(START_S):
            while (  # noqa: ASYNC110 - in another process
                await chat(command.port, model="n")
            ).status != 200:
                await trio.sleep(0.05)
        assert (await chat(command.port)).status == 200
        process.terminate()
        assert await command.ended() == 0


async def test_a_gateway_starts_where_nobody_reads_a_word(
    write: Callable[[str], str],
) -> None:
    config = write(mock_config())
    port = free_port()
    with unread() as both:
        process = await trio.lowlevel.open_process(
            [*COMMAND, "serve", "-c", config, "--bind", f"127.0.0.1:{port}"],
            stdin=subprocess.DEVNULL,
            stdout=both,
            stderr=both,
            env=environment(),
        )
    try:
        with trio.fail_after(START_S):
            while not await is_open(port):
                assert process.poll() is None
                await trio.sleep(0.05)
        process.terminate()
        assert await process.wait() == 0
    finally:
        process.kill()


def test_a_command_ends_with_the_status_of_what_is_wrong(
    write: Callable[[str], str],
) -> None:
    bad = write("a = ")
    assert run_without_stderr(*COMMAND, "check", "-c", bad) == 1
    with unread() as stdout:
        assert run_without_stderr(*COMMAND, "check", "-c", bad, stdout=stdout) == 1
    assert run_without_stderr(*COMMAND, "check", "--no-such-option") == 2
    assert run_without_stderr(sys.executable, "-c", SCRIPT, "says") == 3


@pytest.mark.parametrize("stdout", [subprocess.PIPE, subprocess.DEVNULL])
def test_a_pipe_of_somebody_else_that_breaks_is_told(stdout: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, "breaks"],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env=environment(),
    )
    assert ran.returncode == 1
    assert "the engine's pipe" in ran.stderr
