"""What the commands that ask a running gateway share: options, and how they fail."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import attrs
import click

from atomr_infer.cli.output.lines import below
from atomr_infer.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.cli.asking.operators import Where

F = TypeVar("F", bound="Callable[..., Any]")


def of_a_gateway(command: F) -> F:
    """Add the options of a command that asks a running gateway."""
    url = click.option(
        "--url",
        metavar="URL",
        help="The gateway.  [default: the file's address, else http://127.0.0.1:8080]",
    )
    config = click.option(
        "-c",
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The gateway's configuration: where it is, and its admin_key.  "
        "Without it, the key is in ATOMR_INFER_ADMIN_KEY.",
    )
    return config(url(command))


def as_json(command: F) -> F:
    """Add the option ``--json``."""
    option = click.option(
        "--json", "as_json", is_flag=True, help="Print JSON, for scripts."
    )
    return option(command)


def of_all_nodes(command: F) -> F:
    """Add the option ``--all-nodes``."""
    option = click.option(
        "--all-nodes",
        is_flag=True,
        help="All nodes of the gateway's cluster, and not the one that answers.",
    )
    return option(command)


def where(
    config_path: Path | None, url: str | None, *, all_nodes: bool = False
) -> Where:
    """Return the gateway that is meant.

    Raises:
        ConfigError: the configuration or the key is not there.
    """
    # Late: `atomr-infer --help` must not wait for an HTTP client's import.
    from atomr_infer.cli.asking.operators import find_gateway  # noqa: PLC0415

    found = find_gateway(config_path=config_path, url=url, environ=os.environ)
    return attrs.evolve(found, all_nodes=all_nodes)


def fail(error: Exception) -> NoReturn:
    """Say why, each reason in one sentence, and end."""
    reasons = error.lines if isinstance(error, ConfigError) else (str(error),)
    for reason in reasons:
        # A gateway, or who listens in its place, may have said it.
        click.echo(f"atomr-infer: {below(reason)}", err=True)
    sys.exit(1)
