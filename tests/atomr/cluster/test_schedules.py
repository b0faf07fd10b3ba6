"""The command that plays drawn schedules of the services."""

from __future__ import annotations

import subprocess
import sys

import pytest
import trio
from click.testing import CliRunner

from atomr.testing.simulation.running import Chunk
from tests.atomr.cluster import schedules


def test_schedules_are_played_in_processes_and_summed_up() -> None:
    asked = "permits", "--first", "3", "--seeds", "1", "--jobs", "1"
    ran = subprocess.run(
        [sys.executable, "-m", schedules.MODULE, *asked],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0
    took, summary = ran.stdout.splitlines()
    assert took.endswith(" s, 1 at once")
    assert summary.startswith("permits: 1 runs, all hold; ")
    assert "1/1" in ran.stderr


@pytest.mark.parametrize("seeds", ["0", "-3"])
def test_no_schedule_at_all_does_not_hold(seeds: str) -> None:
    played = CliRunner().invoke(schedules.main, ["permits", "--seeds", seeds])

    assert played.exit_code == 2
    wrong = f"Invalid value for '--seeds': {seeds} is not in the range x>=1"
    assert wrong in played.output


async def _odd(seed: int) -> None:
    await trio.sleep(2.0)
    assert seed % 2 == 0, f"{seed} is odd"


async def _untidy(_: int) -> None:
    trio.lowlevel.spawn_system_task(trio.sleep, 60.0)


def test_a_schedule_that_fails_is_kept_with_its_error_and_others_are_played(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(schedules.SERVICES, "odd", _odd)
    monkeypatch.setattr("logging.disable", lambda _: None)

    done = schedules.play_chunk(Chunk(schedules.MODULE, "odd", (4, 5, 6)))

    assert (done.events, done.virtual_s) == (3, 6.0)
    [(seed, error)] = done.failed
    assert seed == 5
    assert "AssertionError: 5 is odd\n" in error


def test_a_schedule_that_leaves_a_task_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(schedules.SERVICES, "untidy", _untidy)
    monkeypatch.setattr("logging.disable", lambda _: None)

    done = schedules.play_chunk(Chunk(schedules.MODULE, "untidy", (0,)))

    assert "AssertionError: 1 tasks are left\n" in done.failed[0][1]
