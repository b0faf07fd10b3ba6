"""Tables, as the commands print them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.console import Console

if TYPE_CHECKING:
    from rich.table import Table

_UNBOUNDED = 10_000


def print_table(table: Table) -> None:
    """Print a table.

    Where no terminal is, each row is one line, whole, for grep, and ends with its last
    word: rich fills the last column with blanks.
    """
    console = Console()
    if console.is_terminal:
        console.print(table)
        return
    console.width = _UNBOUNDED
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().removesuffix("\n").split("\n"):
        click.echo(line.rstrip())
