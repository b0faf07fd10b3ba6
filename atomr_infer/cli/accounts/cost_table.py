"""What ``atomr-infer cost-report`` asks, and what it prints of the answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table
from rich.text import Text

from atomr_infer.cli.asking.operators import ask
from atomr_infer.cli.output.clock import clock
from atomr_infer.cli.output.lines import one_line
from atomr_infer.cli.output.tables import print_table
from atomr_infer.model.budget import usd_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from atomr_infer.cli.asking.operators import Where


def print_costs(where: Where, by: str, since_s: int, *, as_json: bool) -> None:
    """Print what was used since a time, as a table or as the JSON it answers.

    Raises:
        ConfigError: the gateway cannot be asked, or its ledger not be read.
    """
    answer = ask(where, "GET", "usage", by, str(since_s))
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    print_table(_table(by, answer["usage"]))
    for line in _missing(answer):
        click.echo(one_line(f"warning: {line}"), err=True)


def _missing(answer: Mapping[str, Any]) -> Iterator[str]:
    """Say whose rows are not in the sums, and since when."""
    since = answer.get("away_since_s", {})
    for node, why in sorted(answer["missing"].items()):
        away = f" (away since {clock(since[node])})" if node in since else ""
        yield f"without what {node} has counted: {why}{away}"


def _table(by: str, sums: list[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(by)
    for column in ("requests", "input", "output", "usd"):
        table.add_column(column, justify="right")
    table.add_column("without a price", justify="right")
    for each in sums:
        table.add_row(
            Text(_name(each)),
            str(each["requests"]),
            str(each["input_tokens"]),
            str(each["output_tokens"]),
            usd_text(each["microusd"]),
            str(each["unpriced"] or "-"),
        )
    return table


def _name(each: Mapping[str, Any]) -> str:
    """Return whose sum it is; of a key the name, and the id that other commands take.

    >>> _name({"name": "key_01", "called": "web"})
    'web (key_01)'
    """
    called = each.get("called")
    return f"{called} ({each['name']})" if called else each["name"] or "-"
