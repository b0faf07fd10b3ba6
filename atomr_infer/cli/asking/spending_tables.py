"""Rate limits and budgets of a node as tables: what is used, and what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from atomr_infer.model.budget import usd_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def limits_table(limits: Sequence[Mapping[str, Any]]) -> Table | None:
    """Return rate limits as a table; None: there are none."""
    table = _table("rate limit", "counts", numbers=("used", "of", "in", "waiting"))
    for limit in limits:
        nodes = limit["nodes"]
        _row(
            table,
            limit["name"],
            limit["counts"],
            f"on {', '.join(nodes)}" if nodes else str(limit["used"]),
            str(limit["limit"]),
            f"{limit['window_s']:g} s",
            str(limit["waiting"]),
        )
    return table if limits else None


def budgets_table(budgets: Sequence[Mapping[str, Any]]) -> Table | None:
    """Return budgets as a table; None: there are none."""
    return _amounts_table(
        budgets,
        spent="spent, set aside",
        remaining="left",
        set_aside="of it set aside here",
    )


def whole_budgets_table(budgets: Sequence[Mapping[str, Any]]) -> Table | None:
    """Return budgets of all nodes together as a table; None: there are none."""
    return _amounts_table(
        budgets, spent="spent", reserved="running", remaining="left", limit="of"
    )


def _amounts_table(
    budgets: Sequence[Mapping[str, Any]], **columns: str
) -> Table | None:
    table = _table("budget of", "how much", numbers=[*columns.values()])
    for each in budgets:
        told = [
            _amount(each[name], each["unit"]) if name in each else "-"
            for name in columns
        ]
        _row(table, each["name"], each["budget"], *told)
    return table if budgets else None


def _amount(units: int, unit: str) -> str:
    return f"${usd_text(units)}" if unit == "microusd" else f"{units:,} tokens"


def _table(*texts: str, numbers: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in texts:
        table.add_column(title, overflow="fold")
    for title in numbers:
        table.add_column(title, justify="right")
    return table


def _row(table: Table, *cells: str) -> None:
    table.add_row(*map(Text, cells))
