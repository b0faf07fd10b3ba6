"""Tables where no terminal is: a line per row, whole, with nothing behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from atomr_infer.cli.output.tables import print_table
from tests.cli.conftest import run_command

if TYPE_CHECKING:
    import pytest


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


async def test_the_list_of_runtimes_has_no_trailing_blanks() -> None:
    code, out, _ = await run_command("runtimes")

    lines = out.splitlines()
    assert code == 0
    assert len(lines) > 1
    assert [line for line in lines if line != line.rstrip()] == []
