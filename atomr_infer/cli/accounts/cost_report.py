"""``atomr-infer cost-report``: what was used, and what it cost, on all nodes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from atomr_infer.cli.accounts.parameters import Duration
from atomr_infer.cli.asking.of_a_gateway import as_json, fail, of_a_gateway, where
from atomr_infer.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_WORDS = ("deployment", "key", "team", "model")


@click.command("cost-report")
@click.option(
    "--by",
    type=click.Choice(_WORDS),
    default="deployment",
    show_default=True,
    help="What a line is for.",
)
@click.option(
    "--since",
    "since_s",
    type=Duration(),
    default="30d",
    show_default=True,
    metavar="TIME",
    help="How far back: 30d, 12h, 90m.",
)
@as_json
@of_a_gateway
def cost_report(
    *, by: str, since_s: float, as_json: bool, config_path: Path | None, url: str | None
) -> None:
    """Print what finished requests used and cost, the dearest first.

    \b
    Examples:
      atomr-infer cost-report --config atomr.toml
      atomr-infer cost-report --by team --since 7d --config atomr.toml
      atomr-infer cost-report --by key --json --config atomr.toml
    """  # noqa: D301 - click wants the character itself, no backslash and a b
    from atomr_infer.cli.accounts.cost_table import print_costs  # noqa: PLC0415

    try:
        since = int(time.time() - since_s)
        print_costs(where(config_path, url), by, since, as_json=as_json)
    except ConfigError as error:
        fail(error)
