"""The command that runs scenarios for many seeds."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from atomr.testing.simulation import SimulationError, tally, trace_of
from atomr.testing.simulation.__main__ import main
from atomr.testing.simulation.running import chunks, module_name, scenarios_of
from atomr.testing.simulation.tally import Tally, run_all
from tests.atomr_testing import counter_scenarios

if TYPE_CHECKING:
    from pathlib import Path

FAILING = "tests/atomr_testing/failing_scenarios.py"
COUNTER = "tests.atomr_testing.counter_scenarios"


def command(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, arguments)
    return done.exit_code, done.output


def test_many_seeds_are_run_in_processes_and_the_failing_ones_named() -> None:
    asked = "--seeds", "6", "--jobs", "1", "--only", "odd"
    ran = subprocess.run(
        [sys.executable, "-m", "atomr.testing.simulation", FAILING, *asked],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 1
    took, *lines = ran.stdout.splitlines()
    assert took.endswith(" s, 1 at once")
    assert lines[0] == "odd: 7 runs, 3 FAILED; 14 events, 7 s of virtual time"
    assert lines[1] == "  failing seeds: 1, 3, 5"
    assert "AssertionError: 1 is odd" in lines
    assert lines[-1] == (
        "  run it again: python -m atomr.testing.simulation "
        "tests.atomr_testing.failing_scenarios --only odd --seed 1 --trace trace.txt"
    )
    assert "7/7" in ran.stderr


@pytest.mark.parametrize("seeds", ["0", "-3"])
def test_no_run_at_all_does_not_hold(seeds: str) -> None:
    code, output = command(COUNTER, "--seeds", seeds)

    assert code == 2
    assert f"Invalid value for '--seeds': {seeds} is not in the range x>=1" in output


def test_a_log_is_told_how_far_it_came_and_at_once_what_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tally, "_TOLD_EACH_S", 0.0)
    module = "tests.atomr_testing.failing_scenarios"
    counted = Tally("odd", 2, "again with {seed}")

    run_all({(module, "odd"): counted}, chunks(module, "odd", (2, 3), 1), 1)

    told = capsys.readouterr().err.splitlines()
    assert told[0].endswith("odd 1 of 2, all hold")
    assert told[1] == "odd: seed 3 failed"
    assert told[2].endswith("odd 2 of 2, 1 FAILED")


def test_one_seed_is_run_here_and_its_trace_is_written(tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    code, output = command(COUNTER, "--seed", "3", "--trace", str(path))

    trace = trace_of(counter_scenarios.SCENARIOS[0], 3)
    assert code == 0
    assert path.read_bytes() == trace.content
    assert output.splitlines()[1] == f"  trace {trace.digest}, in {path}"


def test_a_seed_that_fails_is_shown_with_its_error() -> None:
    code, output = command(FAILING, "--only", "unwired", "--seed", "0")

    assert code == 1
    assert output.startswith("unwired: seed 0 FAILED; 0 events in 0.000 s")
    assert output.endswith("RuntimeError: nothing is plugged in\n")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([COUNTER, "--only", "nothing"], "there are: counter.chaos"),
        ([COUNTER, "--trace", "x"], "--trace needs --seed"),
        ([], "Missing argument 'MODULES...'"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_run(
    arguments: list[str], problem: str
) -> None:
    code, output = command(*arguments)

    assert code == 2
    assert problem in output


def test_a_module_without_scenarios_is_refused() -> None:
    with pytest.raises(SimulationError, match="expected a tuple SCENARIOS, not None"):
        scenarios_of("tests.atomr_testing.test_clocks")


def test_a_file_is_a_module_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    names = [module_name(str(tmp_path / "a/b.py")), module_name("a/b.py")]
    assert names == ["a.b", "a.b"]


@pytest.mark.parametrize("number", [1, 7, 100, 100_000])
def test_each_seed_is_in_one_chunk(number: int) -> None:
    seeds = range(number)
    divided = chunks("m", "s", seeds, jobs=2)

    assert [seed for chunk in divided for seed in chunk.seeds] == [*seeds]
    assert max(len(chunk.seeds) for chunk in divided) <= 100
