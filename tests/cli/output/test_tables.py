"""Tables: lines that fit on a terminal, and a line per row, whole, elsewhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from rich.table import Table
from rich.text import Text

from atomr_infer.cli.output.tables import print_table
from tests.cli.conftest import run_command

if TYPE_CHECKING:
    from collections.abc import Sequence

TITLES = ("deployment", "phase", "limit", "keys")


def test_a_row_is_one_line_without_trailing_blanks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("name", "what it is"):
        table.add_column(title)
    table.add_row("a", "x" * 300)
    table.add_row("bc", "short")
    table.add_row("d", "")

    print_table(table)

    assert capsys.readouterr().out == (
        f"name  what it is\na     {'x' * 300}\nbc    short\nd\n"
    )


FORGED = "one\nforged  ready\x1b[1A\x1b[2K"


def test_a_cell_of_others_forges_no_row_for_grep(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("name", "state"):
        table.add_column(title)
    table.add_row(Text(FORGED), FORGED)

    print_table(table)

    _, *rows = capsys.readouterr().out.splitlines()
    assert rows == ["  ".join([r"one\nforged  ready\x1b[1A\x1b[2K"] * 2)]


@pytest.mark.parametrize("columns", [30, 100])
def test_a_cell_of_others_moves_no_cursor(
    columns: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = table_of((FORGED, "serving", "4", FORGED))
    shown = "\n".join(on_terminal(table, columns, capsys, monkeypatch))
    assert "\x1b" not in shown
    assert not any(line.startswith("forged") for line in shown.splitlines())


async def test_the_list_of_runtimes_has_no_trailing_blanks() -> None:
    code, out, _ = await run_command("runtimes")

    lines = out.splitlines()
    assert code == 0
    assert len(lines) > 1
    assert [line for line in lines if line != line.rstrip()] == []


def table_of(*rows: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in TITLES:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def on_terminal(
    table: Table,
    columns: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> list[str]:
    """Return the lines that a terminal of so many columns shows."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(columns))
    print_table(table)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    return [line.rstrip() for line in shown.splitlines()]


def test_what_fits_is_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of(("gpt", "serving", "4", "live"))
    assert on_terminal(table, 60, capsys, monkeypatch) == [
        "deployment  phase    limit  keys",
        "gpt         serving  4      live",
    ]


def test_only_the_last_column_is_wrapped_and_never_in_a_word(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of(("gpt-4o-mini", "serving", "4", " ".join(["cooling down"] * 3)))
    assert on_terminal(table, 60, capsys, monkeypatch) == [
        "deployment   phase    limit  keys",
        "gpt-4o-mini  serving  4      cooling down cooling down",
        "                             cooling down",
    ]


def test_a_row_that_would_be_pressed_is_told_below_its_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of(("gpt-4o-mini-production-eu", "serving", "4", "-"))
    table.add_row("b" * 70, "loading", "-", "live, live")
    assert on_terminal(table, 48, capsys, monkeypatch) == [
        "deployment: gpt-4o-mini-production-eu",
        "  phase serving · limit 4",
        "deployment:",
        "b" * 48,
        "b" * 22,
        "  phase loading · keys live, live",
    ]


@pytest.mark.parametrize("columns", [100, 300])
def test_no_line_is_wider_than_can_be_read(
    columns: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = ("a-deployment-with-a-name", "serving", "4", "a key that is live, " * 20)
    lines = on_terminal(table_of(row), columns, capsys, monkeypatch)
    assert 80 < max(map(len, lines)) <= 100
