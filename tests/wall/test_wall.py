"""The fault wall: what clients see of upstreams that fail, cell by cell."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from atomr_infer.testing.wall.running import run_cell
from atomr_infer.testing.wall.scenarios import PROVIDERS, Cell, Dialect, cells

NAMED = (
    "primary 500",
    "429 with Retry-After",
    "429 without",
    "529",
    "connection refused",
    "TLS failure",
    "silent before headers",
    "silent before first token",
    "cut after tokens",
    "stall after tokens",
    "malformed chunk",
    "in-band error before first token",
    "in-band error after tokens",
    "content filter",
    "context too long",
    "fallback refuses prefill",
    "every target down",
)


OWN = [cell for cell in cells() if cell.provider is cell.dialect]
OTHER = [cell for cell in cells() if cell not in OWN]


@pytest.mark.parametrize("cell", OWN, ids=lambda cell: cell.name)
async def test_cell_stands(cell: Cell) -> None:
    assert (await run_cell(cell)).faults == ()


@pytest.mark.slow
@pytest.mark.parametrize("cell", OTHER, ids=lambda cell: cell.name)
async def test_cell_stands_where_client_and_provider_speak_differently(
    cell: Cell,
) -> None:
    assert (await run_cell(cell)).faults == ()


def test_each_scenario_is_met_in_each_dialect_streamed_and_not() -> None:
    met = Counter(cell.scenario.name for cell in cells())
    assert set(NAMED) <= set(met)
    assert set(met.values()) == {2 * len(Dialect) * len(PROVIDERS)}
    assert len({cell.name for cell in cells()}) == len(cells())


def test_fallback_never_speaks_what_the_primary_speaks() -> None:
    assert all(cell.other_provider is not cell.provider for cell in cells())


def test_command_prints_the_cells_and_what_became_of_them() -> None:
    command = [sys.executable, "-m", "atomr_infer.testing.wall", "--only"]
    ran = subprocess.run(
        [*command, "connection refused, openai to openai"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout.splitlines() == [
        "scenario                          dialect    provider   streamed outcome",
        "connection refused                openai     openai     yes      "
        "ok: delivered by fallback (0+1 requests)",
        "connection refused                openai     openai     no       "
        "ok: delivered by fallback (0+1 requests)",
        "2 of 2 cells stand.",
    ]
    assert (ran.returncode, ran.stderr) == (0, "")


def test_command_refuses_a_name_that_no_cell_has() -> None:
    command = [sys.executable, "-m", "atomr_infer.testing.wall", "--only", "nothing"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "no cell's name holds 'nothing'; one is called '" in ran.stderr
