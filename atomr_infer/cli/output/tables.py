"""Tables, as the commands print them: for eyes on a terminal, for grep elsewhere.

A terminal's lines are read with difficulty beyond some hundred columns, and a table
that is pressed into fewer than it needs is broken in the middle of words.  So one that
does not fit has its last column wrapped, where that leaves it room; else each row is
a name with what is told of it below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from atomr_infer.cli.output.lines import one_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

READABLE = 100
"""Columns: what is wider is read with difficulty, on however wide a screen."""

_UNBOUNDED = 10_000
_GAP = 2
_LEAST_WRAPPED = 24
"""Columns that a last column of text needs to be read."""

_NOTHING = ("", "-")


class Screen(Console):
    """Where tables are printed; rich takes a pipe for one where ``FORCE_COLOR`` is set.

    It would end the program by itself when a pipe's reader has left.
    """

    def on_broken_pipe(self) -> None:
        """Raise it, as any other write does."""
        raise BrokenPipeError


def print_table(table: Table) -> None:
    """Print a table.

    Where no terminal is, each row is one line, whole, for grep, and ends with its last
    word: rich fills the last column with blanks.  A cell is one line wherever it is
    printed: what others have sent begins no row, and moves no cursor.
    """
    _tidy(table)
    console = Screen()
    if console.is_terminal:
        _print_for_eyes(table, console)
        return
    console.width = _UNBOUNDED
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().removesuffix("\n").split("\n"):
        click.echo(line.rstrip())


def _print_for_eyes(table: Table, console: Console) -> None:
    width = min(console.width, READABLE)
    console.width = _UNBOUNDED
    whole = console.measure(table).maximum
    last = max(map(len, _column(table, -1)))
    console.width = width
    if whole - last + _LEAST_WRAPPED <= width or whole <= width:
        for column in table.columns[:-1]:
            column.no_wrap = True
        console.print(table)
        return
    titles = [str(column.header) for column in table.columns]
    columns = [_column(table, index)[1:] for index in range(len(titles))]
    for name, *told in zip(*columns, strict=True):
        shown = Text.assemble(f"{titles[0]}: ", (name, "bold"))
        console.print(shown, overflow="fold")
        pairs = zip(titles[1:], told, strict=True)
        known = [f"{title} {cell}" for title, cell in pairs if cell not in _NOTHING]
        console.print(Padding(Text(" · ".join(known)), (0, 0, 0, _GAP)))


def _tidy(table: Table) -> None:
    for column in table.columns:
        # rich has no public way to write a cell anew.
        column._cells[:] = map(_shown, column.cells)  # noqa: SLF001


def _shown(cell: RenderableType) -> RenderableType:
    """Return a cell as text of one line; what is not text is ours."""
    if isinstance(cell, Text):
        return cell if cell.plain.isprintable() else Text(one_line(cell.plain))
    return one_line(cell) if isinstance(cell, str) else cell


def _column(table: Table, index: int) -> list[str]:
    """Return the title of a column, and its cells."""
    column = table.columns[index]
    cells = (
        cell.plain if isinstance(cell, Text) else str(cell) for cell in column.cells
    )
    return [str(column.header), *cells]
