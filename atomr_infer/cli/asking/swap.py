"""``atomr-infer swap``: a deployment is taken over while it serves, or goes back."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from atomr_infer.cli.asking.of_a_gateway import as_json, fail, of_a_gateway, where
from atomr_infer.cli.output.lines import one_line
from atomr_infer.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from atomr_infer.cli.asking.operators import Where

_LOOK_EVERY_S = 0.5
_PATIENCE_S = 30.0
_SWAPPED, _ROLLED_BACK = "swapped", "rolled back"


@click.command()
@click.argument("name")
@click.argument(
    "to",
    type=click.Choice(("start", "show", "cancel")),
    default="start",
    metavar="[start|show|cancel]",
)
@click.option(
    "--wait/--no-wait", default=True, help="Wait for its end.  [default: wait]"
)
@as_json
@of_a_gateway
def swap(
    *,
    name: str,
    to: str,
    wait: bool,
    as_json: bool,
    config_path: Path | None,
    url: str | None,
) -> None:
    """Have the deployment NAME become what the configuration says now, step by step.

    Change it in the file first.  The new one is opened beside the one that serves,
    asked something, and given a growing share of the requests, as
    [deployment.hot_swap] says; too many failures have all go back.  It goes on when
    this command ends early; cancel has it go back.  Exits with 1 where it went back.

    \b
    Examples:
      atomr-infer swap chat --config atomr.toml
      atomr-infer swap chat show --config atomr.toml --json
      atomr-infer swap chat cancel --config atomr.toml
    """  # noqa: D301 - click wants the character itself, no backslash and a b
    from atomr_infer.cli.asking.operators import ask  # noqa: PLC0415

    show = _quietly if as_json else _show
    try:
        gateway = where(config_path, url)
        if to == "cancel":
            swap_id = ask(gateway, "DELETE", "swaps", name)["id"]
        if to == "start":
            asked = {"deployment": _table(name, config_path)}
            found = ask(gateway, "POST", "swaps", name, body=asked)["swap"]
            swap_id = found["id"]
        elif to == "show" or not wait:
            found = _status(gateway, name)
        if to == "show" or not wait:
            show(found)
        else:
            found = _awaited(gateway, name, show, swap_id=swap_id)
    except ConfigError as error:
        fail(error)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    if to == "start" and found["phase"] == _ROLLED_BACK:
        sys.exit(1)


def _table(name: str, path: Path | None) -> dict[str, Any]:
    """Return what a configuration says of a deployment.

    Raises:
        ConfigError: it says nothing, or cannot be read.
    """
    from atomr_infer.config.deployment_table import deployment_table  # noqa: PLC0415
    from atomr_infer.config.load import load_config  # noqa: PLC0415

    if path is None:
        raise ConfigError("what it shall become is in a file: --config FILE")
    for deployment in load_config(path).deployments:
        if deployment.name == name:
            return deployment_table(deployment)
    raise ConfigError(f"there is no deployment {name!r}", path=str(path))


def _status(gateway: Where, name: str) -> dict[str, Any]:
    from atomr_infer.cli.asking.operators import ask  # noqa: PLC0415

    for status in ask(gateway, "GET", "swaps")["swaps"]:
        if status["deployment"] == name:
            found: dict[str, Any] = status
            return found
    raise ConfigError(f"{name!r} was never swapped")


def _of(gateway: Where, swap_id: str) -> dict[str, Any] | None:
    from atomr_infer.cli.asking.operators import ask  # noqa: PLC0415

    known: list[dict[str, Any]] = ask(gateway, "GET", "swaps")["swaps"]
    return next((status for status in known if status["id"] == swap_id), None)


def _awaited(
    gateway: Where, name: str, show: Callable[[dict[str, Any]], None], *, swap_id: str
) -> dict[str, Any]:
    """Return how a swap ended; tell each of its steps.

    Another worker of the gateway may answer, which has not heard of it yet.

    Raises:
        ConfigError: nobody tells of it any more.
    """
    told: tuple[object, ...] = ()
    heard_at = time.monotonic()
    while True:
        found = _of(gateway, swap_id)
        if found is None:
            if time.monotonic() - heard_at > _PATIENCE_S:
                raise ConfigError(f"the gateway tells nothing more of {name!r}'s swap")
            time.sleep(_LOOK_EVERY_S)
            continue
        heard_at = time.monotonic()
        step = (found["phase"], found["share"])
        if step != told:
            told = step
            show(found)
        if found["phase"] in (_SWAPPED, _ROLLED_BACK):
            return found
        time.sleep(_LOOK_EVERY_S)


def _quietly(_: dict[str, Any]) -> None:
    """Tell nothing: the end is told as JSON."""


def _show(found: dict[str, Any]) -> None:
    name, phase, reason = found["deployment"], found["phase"], found["reason"]
    line = f"{name}: {phase}"
    if phase == "shifting":
        line += f", {found['share']:.0%} of the requests"
    click.echo(one_line(f"{line}: {reason}" if reason else line))
