"""``atomr-infer runtimes``: what is installed, and the command for the rest."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from atomr_infer.errors import PluginError
from atomr_infer.runtimes.contract import Parametric
from atomr_infer.runtimes.loader import ensure_available, list_runtimes, load_runtime

_UNBOUNDED = 10_000


def print_runtimes() -> None:
    """Print a table of all registered runtimes."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("runtime", "runs in", "what it is", "state"):
        table.add_column(title, overflow="fold")
    for entry in list_runtimes():
        # As text: rich would take the [extra] of a pip command for markup.
        table.add_row(*map(Text, _row(entry.name)))
    console = Console()
    if not console.is_terminal:
        # A line per runtime, whole, for grep and for files.
        console.width = _UNBOUNDED
    console.print(table)


def _row(name: str) -> tuple[str, str, str, str]:
    try:
        plugin = load_runtime(name)
    except PluginError as error:
        return name, "-", "-", str(error)
    written = plugin.form if isinstance(plugin, Parametric) else name
    try:
        ensure_available(plugin)
    except PluginError as error:
        state = str(error).removeprefix(f"runtime {name!r} ")
        return written, plugin.host.value, plugin.summary, state
    return written, plugin.host.value, plugin.summary, "ready"
