"""Tables, as the commands print them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from rich.table import Table

_UNBOUNDED = 10_000


def print_table(table: Table) -> None:
    """Print a table; where no terminal is, each row is one line, whole, for grep."""
    console = Console()
    if not console.is_terminal:
        console.width = _UNBOUNDED
    console.print(table)
