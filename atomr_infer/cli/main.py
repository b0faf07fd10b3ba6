"""The ``atomr-infer`` command: its options, and errors as one clear sentence.

Each command's work is a module of its own; here is what they share.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import click

from atomr_infer._version import VERSION
from atomr_infer.errors import ConfigError, InferenceError

_LOG_LEVELS = ("debug", "info", "warning", "error")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="atomr-infer")
def cli() -> None:
    """One gateway for your own models and everyone else's."""


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
    "--demo",
    is_flag=True,
    help="Serve the embedded demo model, whatever keys the environment holds.",
)
@click.option(
    "--log-level",
    type=click.Choice(_LOG_LEVELS, case_sensitive=False),
    default="info",
    show_default=True,
    help="How much to log, on standard error.",
)
def serve(
    *, config_path: Path | None, bind: str | None, demo: bool, log_level: str
) -> None:
    """Serve models to clients of OpenAI's, Anthropic's and Google's APIs.

    With --config, what the file says.  Without it, the providers whose keys
    are in the environment (OPENAI_API_KEY, ...).  With neither, a small
    embedded model, when it is installed.

    \b
    Examples:
      atomr-infer serve
      OPENAI_API_KEY=sk-... atomr-infer serve
      atomr-infer serve --config atomr.toml --bind 0.0.0.0:8080
    """  # noqa: D301 - click wants the character itself, no backslash and a b
    # Late: `atomr-infer --help` must not wait for a web server's import.
    from atomr_infer.cli.plan import plan_serving  # noqa: PLC0415
    from atomr_infer.cli.serve import run_serve  # noqa: PLC0415

    if demo and config_path is not None:
        raise click.UsageError("--demo and --config exclude each other")
    try:
        plan = plan_serving(config_path=config_path, bind=bind, demo=demo)
        run_serve(plan, log_level=log_level)
    except (ConfigError, InferenceError) as error:
        _fail(error)


@cli.command()
def runtimes() -> None:
    """List the runtimes that are installed, and what the others lack."""
    from atomr_infer.cli.runtimes import print_runtimes  # noqa: PLC0415

    try:
        print_runtimes()
    except ConfigError as error:
        _fail(error)


def _fail(error: Exception) -> NoReturn:
    click.echo(f"atomr-infer: {error}", err=True)
    sys.exit(1)


def main() -> None:
    """Run the command line."""
    cli(prog_name="atomr-infer")
