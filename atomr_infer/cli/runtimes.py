"""``atomr-infer runtimes``: what is installed, and the command for the rest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import attrs
import click
from rich.table import Table
from rich.text import Text

from atomr_infer.cli.output.tables import READABLE, Screen, print_table
from atomr_infer.errors import PluginError
from atomr_infer.runtimes.contract import Parametric
from atomr_infer.runtimes.loader import ensure_available, list_runtimes, load_runtime

if TYPE_CHECKING:
    from collections.abc import Sequence


@attrs.frozen
class _Listed:
    """A runtime, as it is listed.

    Attributes:
        runtime: as a deployment names it.
        runs_in: which process; ``-``: the plugin cannot say.
        what_it_is: in a few words; ``-``: the plugin cannot say.
        lacks: what keeps it from working here, and the remedy; None: it is ready.
    """

    runtime: str
    runs_in: str
    what_it_is: str
    lacks: str | None

    @property
    def state(self) -> str:
        return self.lacks or "ready"


def print_runtimes(*, as_json: bool = False) -> None:
    """Print all registered runtimes: as a table, or as JSON."""
    listed = [_listed(entry.name) for entry in list_runtimes()]
    console = Screen()
    if as_json:
        click.echo(json.dumps({"runtimes": [*map(attrs.asdict, listed)]}, indent=2))
    elif console.is_terminal:
        console.width = min(console.width, READABLE)
        console.print(_for_eyes(listed))
    else:
        print_table(_for_grep(listed))


def _for_eyes(listed: Sequence[_Listed]) -> Table:
    """Return a table of which only the last column is wrapped."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("runtime", "runs in", "state"):
        table.add_column(title, no_wrap=True)
    table.add_column("what it is", overflow="fold")
    for each in listed:
        state = "ready" if each.lacks is None else "not yet"
        told = each.what_it_is if each.lacks is None else _with_lacks(each)
        # As text: rich would take the [extra] of a pip command for markup.
        table.add_row(*map(Text, (each.runtime, each.runs_in, state, told)))
    return table


def _with_lacks(listed: _Listed) -> str:
    return f"{listed.what_it_is}\n{listed.lacks}"


def _for_grep(listed: Sequence[_Listed]) -> Table:
    """Return a table with a line per runtime, whole."""
    table = Table(box=None, pad_edge=False)
    for title in ("runtime", "runs in", "what it is", "state"):
        table.add_column(title)
    for each in listed:
        row = (each.runtime, each.runs_in, each.what_it_is, each.state)
        table.add_row(*map(Text, row))
    return table


def _listed(name: str) -> _Listed:
    try:
        plugin = load_runtime(name)
    except PluginError as error:
        return _Listed(name, "-", "-", str(error))
    written = plugin.form if isinstance(plugin, Parametric) else name
    lacks = None
    try:
        ensure_available(plugin)
    except PluginError as error:
        lacks = str(error).removeprefix(f"runtime {name!r} ")
    return _Listed(written, plugin.host.value, plugin.summary, lacks)
