"""A forked command is one as any other: it says the same, and ends the same."""

from __future__ import annotations

import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests import forks
from tests.cli.conftest import COMMAND, STOP_S, environment, run_command, start_command

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Start


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("runtimes", "--json"), 0),
        (("check", "-c", "none.toml"), 1),
        (("serve", "--no-such-option"), 2),
    ],
)
async def test_it_says_and_ends_as_one_that_starts_from_nothing(
    arguments: tuple[str, ...], status: int
) -> None:
    forked = await run_command(*arguments)
    whole = await trio.run_process(
        [*COMMAND, *arguments],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env=environment(),
    )
    assert forked == (whole.returncode, whole.stdout.decode(), whole.stderr.decode())
    assert forked[0] == status


async def test_it_runs_in_this_folder_with_streams_of_its_own(
    serve: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with serve() as command:
        await command.serving()
        assert isinstance(command.process, forks.Forked)
        process = f"/proc/{command.process.pid}"
        assert os.readlink(f"{process}/cwd") == str(tmp_path)
        streams = [os.readlink(f"{process}/fd/{number}") for number in range(3)]
    assert streams[0] == os.devnull
    assert [stream.partition(":")[0] for stream in streams[1:]] == ["pipe", "pipe"]
    assert streams[1] != streams[2]


async def test_one_that_is_killed_has_the_signals_number(serve: Start) -> None:
    async with serve() as command:
        await command.serving()
        assert command.process.returncode is None
        command.send(signal.SIGKILL)
        assert await command.ended() == -signal.SIGKILL
        command.send(signal.SIGKILL)  # nobody, whoever has its number now


@pytest.mark.parametrize("name", ["PYTHONPATH", "LC_ALL", "TZ"])
async def test_what_an_interpreter_reads_at_its_start_takes_a_start(name: str) -> None:
    assert forks.can_fork(environment())
    assert not forks.can_fork(environment(**{name: "C"}))
    async with start_command("--help", **{name: "C"}) as command:
        assert isinstance(command.process, trio.Process)
        assert await command.process.wait() == 0


async def test_the_end_of_one_that_ended_long_ago_is_its_own() -> None:
    process = await forks.start(["--version"], env=environment())
    with trio.fail_after(60):
        while await trio.Path(f"/proc/{process.pid}").exists():  # noqa: ASYNC110 - a file
            await trio.sleep(0.01)
    process.kill()  # nobody, whoever has its number now
    assert await process.wait() == 0
    assert process.returncode == 0
    await process.stdout.aclose()
    await process.stderr.aclose()


async def test_who_waits_hears_of_an_end_that_somebody_else_has_asked_for(
    serve: Start,
) -> None:
    async with serve() as command, trio.open_nursery() as nursery:
        await command.serving()
        process = command.process
        nursery.start_soon(process.wait)
        await wait_all_tasks_blocked(0.01)
        command.send(signal.SIGKILL)
        gives_up_at_s = time.monotonic() + STOP_S
        while process.returncode is None:  # before who waits has a turn
            assert time.monotonic() < gives_up_at_s, "nobody tells that it has ended"


async def test_it_ends_with_who_started_it(serve: Start) -> None:
    async with serve() as command:
        await command.serving()
        assert isinstance(command.process, forks.Forked)
        handle = os.dup(command.process._handle)
        # As when the process of the tests is gone, and all that it held with it.
        command.process._status.shutdown(socket.SHUT_RDWR)
        with trio.fail_after(STOP_S):
            await trio.lowlevel.wait_readable(handle)
        os.close(handle)
        command.process._returncode = -signal.SIGKILL  # as nobody is left who tells it


async def test_each_draws_an_order_and_a_clock_of_its_own(tmp_path: Path) -> None:
    script = tmp_path / "clock.py"
    script.write_text(
        "import time, trio\n"
        "async def main():\n"
        "    print(round(trio.current_time() - time.perf_counter()))\n"
        "trio.run(main)\n"
    )
    clocks = set()
    for _ in range(3):
        process = await forks.start([], env=environment(), script=str(script))
        clocks.add(await process.stdout.receive_some())
        await process.wait()
        await process.stdout.aclose()
        await process.stderr.aclose()
    assert len(clocks) > 1
