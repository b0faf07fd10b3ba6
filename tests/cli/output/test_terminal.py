"""What a person sees who starts ``serve`` in a terminal."""

from __future__ import annotations

import os
import pty
import re
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from tests.cli.conftest import (
    COMMAND,
    START_S,
    STOP_S,
    Command,
    environment,
    mock_config,
)
from tests.gateway.http import chat, request, until
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

COLOUR = re.compile(r"\x1b\[[0-9;]*(?:3|9)[0-7][0-9;]*m")
CONTROL = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")


@asynccontextmanager
async def in_terminal(*arguments: str, **env: str) -> AsyncIterator[Command]:
    """Run the command on a pseudo-terminal; ``out`` is all that it shows."""
    ours, theirs = pty.openpty()
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(
            [*COMMAND, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(**{"TERM": "xterm-256color", "COLUMNS": "100", **env}),
        )
        os.close(theirs)
        command = Command(process)
        terminal = trio.lowlevel.FdStream(ours)

        async def read() -> None:
            try:
                await command.read(terminal, command.out)
            except trio.BrokenResourceError:
                return  # Linux says EIO when the last writer is gone

        nursery.start_soon(read)
        try:
            yield command
        finally:
            with trio.CancelScope(shield=True):
                if process.returncode is None:
                    process.kill()
                await process.wait()
            nursery.cancel_scope.deadline = trio.current_time() + STOP_S
    assert not nursery.cancel_scope.cancelled_caught, "what it started outlives it"


@pytest.fixture
def config(write: Callable[[str], str]) -> str:
    return write(mock_config("load_s = 1.5"))


async def shows(command: Command, text: str) -> None:
    await until(
        lambda: text in command.stdout or command.process.returncode is not None,
        within_s=30,
    )
    assert text in command.stdout


async def run(config: str, **env: str) -> str:
    """Load, serve, stop; return all that was shown."""
    arguments = ("serve", "-c", config, "--bind", "127.0.0.1:0")
    async with in_terminal(*arguments, **env) as command:
        await command.serving()
        command.send(signal.SIGINT)
        assert await command.ended() == 0
        await shows(command, "stopped")
    return command.stdout


async def test_a_bar_moves_while_a_model_loads_and_is_gone_after(config: str) -> None:
    shown = await run(config)
    loading, _, served = shown.partition("m: ready")
    assert loading.count("m: reading the script") > 3, "it is drawn again and again"
    assert "━" in loading
    # Nothing can be counted here, so nothing is.
    assert "bytes" not in loading
    assert "━" not in served
    assert "reading the script" not in served
    assert COLOUR.search(loading) is not None


@pytest.mark.slow
async def test_no_color_means_no_colour(config: str) -> None:
    shown = await run(config, NO_COLOR="1")
    assert "m: reading the script" in shown
    assert COLOUR.search(shown) is None


@pytest.mark.slow
async def test_a_dumb_terminal_gets_plain_lines(config: str) -> None:
    arguments = ("serve", "-c", config, "--bind", "127.0.0.1:0")
    async with in_terminal(*arguments, TERM="dumb") as command:
        await command.serving()
    assert CONTROL.search(command.stdout) is None
    assert command.stdout.startswith("m: reading the script\r\nm: ready\r\n")


@pytest.mark.slow
async def test_a_file_gets_plain_lines_whatever_colour_is_forced(config: str) -> None:
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(
            [*COMMAND, "serve", "-c", config, "--bind", "127.0.0.1:0"],
            stdout=-1,
            stderr=-1,
            env=environment(FORCE_COLOR="1", TERM="xterm-256color"),
        )
        command = Command(process)
        assert process.stdout is not None
        assert process.stderr is not None
        nursery.start_soon(command.read, process.stdout, command.out)
        nursery.start_soon(command.read, process.stderr, command.err)
        await command.serving()
        process.terminate()
        assert await command.ended() == 0
    assert command.stderr.splitlines()[:2] == ["m: reading the script", "m: ready"]


@pytest.mark.slow
async def test_log_lines_go_above_the_bar_and_not_into_it(
    write: Callable[[str], str],
) -> None:
    config = write(mock_config("load_s = 8.0"))
    port = free_port()
    arguments = ("serve", "-c", config, "--bind", f"127.0.0.1:{port}")
    async with in_terminal(*arguments) as command:
        await shows(command, "m: reading the script")
        for _ in range(5):
            missing = await request(
                port, "POST", "/v1/chat/completions", b'{"model":"x","messages":[]}'
            )
            assert missing.status in {400, 404}
        await command.serving()
    loading = command.stdout.partition("m: ready")[0]
    starts = [m.start() for m in re.finditer(r"\d\d:\d\d:\d\d INFO", loading)]
    assert len(starts) == 5
    for start in starts:
        # The bar's line was erased, or the line before has ended.
        assert loading[:start].endswith(("\x1b[2K", "\n"))


async def test_what_ctrl_c_shows_has_a_line_of_its_own(config: str) -> None:
    arguments = ("serve", "-c", config, "--bind", "127.0.0.1:0")
    async with in_terminal(*arguments) as command:
        await command.serving()
        command.send(signal.SIGINT)
        assert await command.ended() == 0
        await shows(command, "stopped")
    assert "Ctrl-C stops.\r\n\r\natomr-infer: stopping\r\n" in command.stdout


@pytest.mark.slow
async def test_the_banner_is_one_piece(config: str) -> None:
    shown = CONTROL.sub("", await run(config)).replace("\r", "")
    banner = shown[shown.index("atomr-infer 0") : shown.index("Ctrl-C stops.")]
    lines = [line for line in banner.splitlines() if line]
    assert [line.split()[0] for line in lines] == [
        "atomr-infer",
        "from",
        "m",
        "Try",
        "curl",
        "-H",
        "-d",
    ]


@pytest.mark.slow
async def test_a_server_without_standard_error_serves(config: str) -> None:
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(
            # As some launchers do: closed, not sent anywhere.
            [
                "sh",
                "-c",
                'exec "$@" 2>&-',
                "sh",
                *COMMAND,
                "serve",
                "-c",
                config,
                "--bind",
                "127.0.0.1:0",
            ],
            stdout=-1,
            env=environment(),
        )
        command = Command(process)
        assert process.stdout is not None
        nursery.start_soon(command.read, process.stdout, command.out)
        await command.serving()
        answer = await chat(command.port)
        process.terminate()
        assert await command.ended() == 0
    assert answer.status == 200


@pytest.mark.parametrize("columns", [80, 100, 240])
async def test_the_list_of_runtimes_is_read_without_turning_the_head(
    columns: int,
) -> None:
    async with in_terminal("runtimes", COLUMNS=str(columns)) as command:
        assert await command.ended(within_s=START_S) == 0
        await shows(command, "vllm")
    head, *lines = CONTROL.sub("", command.stdout).replace("\r", "").splitlines()
    assert head.split() == ["runtime", "runs", "in", "state", "what", "it", "is"]
    assert max(map(len, (head, *lines))) == min(columns, 100)
    # Only the last column goes on in the next line, and no word is cut in two.
    begun = [line for line in lines if not line.startswith(" ")]
    assert all(
        re.match(r"\S+ +(in-|child )process +(ready|not yet) ", x) for x in begun
    )
    assert {"llama-cpp-python", "OpenAI-compatible"} <= set(" ".join(lines).split())
