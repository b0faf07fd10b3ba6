"""``reload``, ``drain``, ``deployments``: commands for a gateway that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from atomr_infer.cli.asking.of_a_gateway import (
    as_json,
    fail,
    of_a_gateway,
    of_all_nodes,
    where,
)
from atomr_infer.cli.output.lines import one_line
from atomr_infer.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

# A model that is new may take minutes to load.
_RELOAD_S = 3600.0


@click.command()
@click.option(
    "--dry-run", is_flag=True, help="Say what would change, and change nothing."
)
@as_json
@of_all_nodes
@of_a_gateway
def reload(
    *,
    dry_run: bool,
    as_json: bool,
    all_nodes: bool,
    config_path: Path | None,
    url: str | None,
) -> None:
    """Have a running gateway read its configuration anew.

    It is taken whole or not at all.  Requests that run keep what they began with:
    a changed deployment serves on while its new client or engine opens, and one
    that was taken out ends with its last request.

    \b
    Examples:
      atomr-infer reload --config atomr.toml
      atomr-infer reload --config atomr.toml --dry-run
      ATOMR_INFER_ADMIN_KEY=... atomr-infer reload --url https://models.example.org
    """  # noqa: D301 - click wants the character itself, no backslash and a b
    from atomr_infer.cli.asking.nodes import tell  # noqa: PLC0415

    try:
        tell(
            where(config_path, url, all_nodes=all_nodes),
            "POST",
            "reload",
            show=_show_reload,
            as_json=as_json,
            query={"dry_run": "true"} if dry_run else {},
            timeout_s=_RELOAD_S,
        )
    except ConfigError as error:
        fail(error)


def _show_reload(done: Any) -> None:  # noqa: ANN401 - JSON
    for difference in done["differences"]:
        click.echo(one_line(difference["line"]))
    for note in done["notes"]:
        click.echo(one_line(f"note: {note}"))
    if not (done["differences"] or done["notes"]):
        click.echo("nothing in the configuration has changed")


@click.command()
@click.option("--undo", is_flag=True, help="Take requests again.")
@as_json
@of_all_nodes
@of_a_gateway
def drain(
    *,
    undo: bool,
    as_json: bool,
    all_nodes: bool,
    config_path: Path | None,
    url: str | None,
) -> None:
    """Have a running gateway send its clients elsewhere, and go on running.

    /readyz answers 503 at once.  Requests are still taken for drain_grace_s; then
    who asks is told to ask another node, and what runs has drain_timeout_s to end.
    Replicas move to other nodes of a cluster that may run them, and are asked until
    they serve there; what no other node can run stays.
    SIGTERM does the same, and ends the gateway.

    \b
    Examples:
      atomr-infer drain --config atomr.toml
      atomr-infer drain --undo --config atomr.toml
    """  # noqa: D301 - click wants the character itself, no backslash and a b
    from atomr_infer.cli.asking.nodes import tell  # noqa: PLC0415

    path = ("drain", "undo") if undo else ("drain",)
    show = _show_undone if undo else _show_drain
    asked = where(config_path, url, all_nodes=all_nodes)
    try:
        tell(asked, "POST", *path, show=show, as_json=as_json)
    except ConfigError as error:
        fail(error)


def _show_undone(_: Any) -> None:  # noqa: ANN401 - JSON
    click.echo("requests are taken again")


def _show_drain(done: Any) -> None:  # noqa: ANN401 - JSON
    grace = f"for {done['grace_s']:g} s more, then " if done["grace_s"] else ""
    taken = f"requests are taken {grace}" if grace else "requests are "
    click.echo(
        f"not ready any more; {taken}refused; {done['running']} running may end within "
        f"{done['timeout_s']:g} s"
    )
    for move in done["deployments"]:
        click.echo(one_line(f"{move['deployment']} {_moved(move)}"))


def _moved(move: Any) -> str:  # noqa: ANN401 - JSON
    if not move["to"]:
        return f"stays, and is asked no more: {move['reason']}"
    to = ", ".join(move["to"])
    return f"is served by {to} too" if move["is_there"] else f"moves to {to}"


@click.command()
@click.argument("name", required=False)
@as_json
@of_all_nodes
@of_a_gateway
def deployments(
    *,
    name: str | None,
    as_json: bool,
    all_nodes: bool,
    config_path: Path | None,
    url: str | None,
) -> None:
    """List what a running gateway serves, or show the deployment NAME whole.

    \b
    Examples:
      atomr-infer deployments --config atomr.toml
      atomr-infer deployments gpt --config atomr.toml --json
    """  # noqa: D301 - click wants the character itself, no backslash and a b
    from atomr_infer.cli.asking.nodes import tell  # noqa: PLC0415
    from atomr_infer.cli.asking.status import print_deployments  # noqa: PLC0415

    def show(found: Any) -> None:  # noqa: ANN401 - JSON
        print_deployments([found] if name is not None else found["deployments"])

    path = ("deployments",) if name is None else ("deployments", name)
    try:
        asked = where(config_path, url, all_nodes=all_nodes)
        tell(asked, "GET", *path, show=show, as_json=as_json)
    except ConfigError as error:
        fail(error)
