"""The ``atomr-infer`` command: its options, and errors as one clear sentence.

Each command's work is a module of its own; here is what they share.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import attrs
import click

from atomr_infer._version import VERSION
from atomr_infer.cli.accounts.cost_report import cost_report
from atomr_infer.cli.accounts.keys import keys
from atomr_infer.cli.asking.explain import explain
from atomr_infer.cli.asking.of_a_gateway import as_json as _as_json
from atomr_infer.cli.asking.of_a_gateway import fail as _fail
from atomr_infer.cli.asking.of_a_gateway import of_a_gateway as _of_a_gateway
from atomr_infer.cli.asking.of_a_gateway import of_all_nodes as _of_all_nodes
from atomr_infer.cli.asking.of_a_gateway import where as _where
from atomr_infer.cli.asking.steer import deployments, drain, reload
from atomr_infer.cli.asking.swap import swap
from atomr_infer.cli.check import check
from atomr_infer.cli.output.closed_pipe import PipedGroup
from atomr_infer.errors import ConfigError, InferenceError

_LOG_LEVELS = ("debug", "info", "warning", "error")


@click.group(cls=PipedGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="atomr-infer")
def cli() -> None:
    """One gateway for your own models and everyone else's."""


for command in (
    check,
    cost_report,
    deployments,
    drain,
    explain,
    keys,
    reload,
    swap,
):
    cli.add_command(command)


@cli.command()
@click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What to serve, in TOML.",
)
@click.option(
    "--bind",
    metavar="HOST:PORT",
    help="Where to listen.  [default: the file's, else 127.0.0.1:8080]",
)
@click.option(
    "--watch/--no-watch",
    default=None,
    help="Read the file anew when it has changed.  [default: the file's, else not]",
)
@click.option(
    "--strict",
    is_flag=True,
    help="End when one deployment cannot be started; else the others serve.",
)
@click.option(
    "--demo",
    is_flag=True,
    help="Serve the embedded demo model, whatever keys the environment holds.",
)
@click.option(
    "--local",
    is_flag=False,
    flag_value="",
    default=None,
    metavar="[MODEL]",
    help="Serve a model by its path or as hf:ORG/NAME; with neither, the embedded one.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1, max=64),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes that share the port and are one cluster; at most one per core.",
)
@click.option(
    "--log-level",
    type=click.Choice(_LOG_LEVELS, case_sensitive=False),
    default="info",
    show_default=True,
    help="How much to log, on standard error.",
)
def serve(  # noqa: PLR0913 - one for each option
    *,
    config_path: Path | None,
    bind: str | None,
    watch: bool | None,
    strict: bool,
    demo: bool,
    local: str | None,
    workers: int,
    log_level: str,
) -> None:
    """Serve models to clients of OpenAI's, Anthropic's and Google's APIs.

    With --config, what the file says.  Without it, the providers whose keys
    are in the environment (OPENAI_API_KEY, ...).  With neither, a small
    embedded model, when it is installed.  With --local, a model of yours, by
    the runtime that suits it and this machine; it says which, and why.

    \b
    Examples:
      atomr-infer serve
      OPENAI_API_KEY=sk-... atomr-infer serve
      atomr-infer serve --local models/tiny.gguf
      atomr-infer serve --config atomr.toml --bind 0.0.0.0:8080
      atomr-infer serve --config atomr.toml --workers 4
    """  # noqa: D301 - click wants the character itself, no backslash and a b
    if watch and config_path is None:
        raise click.UsageError("--watch needs a file: --config FILE")
    if demo and config_path is not None:
        raise click.UsageError("--demo and --config exclude each other")
    if local is not None and (demo or config_path is not None):
        raise click.UsageError("--local excludes --demo and --config")
    # Late: `atomr-infer --help` must not wait for what reads a file, nor what is
    # wrong with one for a gateway's import.
    from atomr_infer.cli.plan import plan_serving  # noqa: PLC0415

    try:
        again = partial(
            plan_serving,
            config_path=config_path,
            bind=bind,
            demo=demo,
            local=local,
            watch=watch,
        )
        plan = attrs.evolve(again(), strict=strict)
        from atomr_infer.cli.serving.missing_files import (  # noqa: PLC0415
            refuse_missing_at_start,
        )

        refuse_missing_at_start(plan)
        from atomr_infer.cli.serving.seat import take_seat  # noqa: PLC0415

        seat = take_seat(os.environ)
        if workers > 1 and seat is None:
            from atomr_infer.cli.serving.workers import run_workers  # noqa: PLC0415

            run_workers(
                plan, count=workers, arguments=sys.argv[2:], log_level=log_level
            )
        else:
            from atomr_infer.cli.serving.serve import run_serve  # noqa: PLC0415

            run_serve(plan, again=again, log_level=log_level, seat=seat)
    except (ConfigError, InferenceError) as error:
        _fail(error)


@cli.command()
@_as_json
def runtimes(*, as_json: bool) -> None:
    """List the runtimes that are installed, and what the others lack."""
    from atomr_infer.cli.runtimes import print_runtimes  # noqa: PLC0415

    try:
        print_runtimes(as_json=as_json)
    except ConfigError as error:
        _fail(error)


@cli.group()
def cluster() -> None:
    """Prepare the nodes of a cluster."""


@cluster.command()
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...")
@click.option(
    "--cluster", "name", required=True, metavar="NAME", help="The cluster's name."
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("certs"),
    show_default=True,
    metavar="FOLDER",
    help="Where the files are, or are made.",
)
@click.option(
    "--days",
    type=click.IntRange(min=1, max=3650),
    default=365,
    show_default=True,
    help="How long a new certificate of a node is good.",
)
def certs(*, nodes: tuple[str, ...], name: str, folder: Path, days: int) -> None:
    """Make an authority for a cluster, and a certificate for each NODE.

    What is there and good is kept, so the same command adds a node, and renews
    what has less than a third of its life left.  An authority is never
    overwritten.  Each node needs ca.pem, NODE.pem and NODE.key; ca.key signs new
    ones and belongs on none of them.

    \b
    Examples:
      atomr-infer cluster certs --cluster prod ams-1 ams-2 fra-1
      atomr-infer cluster certs --cluster dev --dir /etc/atomr --days 30 laptop
    """  # noqa: D301 - click wants the character itself, no backslash and a b
    from atomr_infer.cli.certificates import make_folder  # noqa: PLC0415

    try:
        made = make_folder(folder, cluster=name, nodes=nodes, days=days)
    except ConfigError as error:
        _fail(error)
    for each in made:
        click.echo(f"{'made' if each.is_new else 'kept'} {each.path}")


@cli.command()
@_as_json
@_of_all_nodes
@_of_a_gateway
def status(
    *, config_path: Path | None, url: str | None, as_json: bool, all_nodes: bool
) -> None:
    """Show how a running gateway is: its configuration, load, circuits, keys.

    \b
    Examples:
      atomr-infer status --config atomr.toml
      atomr-infer status --config atomr.toml --all-nodes
      atomr-infer status --url https://models.example.org --json
    """  # noqa: D301 - click wants the character itself, no backslash and a b
    from atomr_infer.cli.asking.status import print_status  # noqa: PLC0415

    try:
        asked = _where(config_path, url, all_nodes=all_nodes)
        print_status(asked, as_json=as_json)
    except ConfigError as error:
        _fail(error)


@cli.command()
@click.argument("deployment")
@click.argument(
    "to",
    type=click.Choice(("show", "open", "close")),
    default="show",
    metavar="[show|open|close]",
)
@_as_json
@_of_all_nodes
@_of_a_gateway
def breaker(
    *,
    deployment: str,
    to: str,
    as_json: bool,
    all_nodes: bool,
    config_path: Path | None,
    url: str | None,
) -> None:
    """Show or force the circuit of DEPLOYMENT's endpoint.

    One that is forced open lets nothing through, until it is closed by hand;
    requests go to fallbacks, or are refused.  Closing one forgets its failures.

    \b
    Examples:
      atomr-infer breaker gpt --config atomr.toml
      atomr-infer breaker gpt open --config atomr.toml --all-nodes
      atomr-infer breaker gpt close --config atomr.toml
    """  # noqa: D301 - click wants the character itself, no backslash and a b
    from atomr_infer.cli.asking.status import print_circuit  # noqa: PLC0415

    try:
        asked = _where(config_path, url, all_nodes=all_nodes)
        print_circuit(asked, deployment, to, as_json=as_json)
    except ConfigError as error:
        _fail(error)


@cli.command()
@click.argument("deployment")
@_as_json
@_of_all_nodes
@_of_a_gateway
def rotate_credentials(
    *,
    deployment: str,
    as_json: bool,
    all_nodes: bool,
    config_path: Path | None,
    url: str | None,
) -> None:
    """Read DEPLOYMENT's keys anew, and take them for good.

    Requests that run keep the key that they have.  SIGHUP does the same for all
    deployments.

    \b
    Examples:
      atomr-infer rotate-credentials gpt --config atomr.toml
      ATOMR_INFER_ADMIN_KEY=... atomr-infer rotate-credentials gpt
    """  # noqa: D301 - click wants the character itself, no backslash and a b
    from atomr_infer.cli.asking.nodes import tell  # noqa: PLC0415

    def show(_: object) -> None:
        click.echo(f"the keys of {deployment} are read anew")

    asked = "POST", "credentials", deployment, "renew"
    try:
        whom = _where(config_path, url, all_nodes=all_nodes)
        tell(whom, *asked, show=show, as_json=as_json)
    except ConfigError as error:
        _fail(error)


def main() -> None:
    """Run the command line."""
    cli(prog_name="atomr-infer")
