"""``atomr-infer keys``: the commands for virtual keys.

A new secret is all that standard output gets, so that a script can take it; the rest
is for who reads, and on standard error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from atomr_infer.cli.accounts.parameters import NONE, Duration, OrNone, Spend
from atomr_infer.cli.asking.of_a_gateway import as_json, fail, of_a_gateway, where
from atomr_infer.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@click.group()
def keys() -> None:
    """Make, list, change, rotate and revoke virtual keys."""


@keys.command()
@click.option("--name", required=True, metavar="NAME", help="What people call it.")
@click.option("--team", metavar="TEAM", help="A [[team]] of the configuration.")
@click.option(
    "--models",
    multiple=True,
    metavar="NAME,...",
    help="What it may ask for; * stands for any text.  [default: everything]",
)
@click.option(
    "--expires",
    "lifetime_s",
    type=Duration(),
    metavar="TIME",
    help="When it ends, from now: 30d, 12h, 90m.  [default: never]",
)
@click.option(
    "--priority",
    type=int,
    metavar="N",
    help="That of its requests; higher goes first, from -100 to 100.  [default: 0]",
)
@click.option(
    "--weight",
    type=float,
    metavar="N",
    help="Its share of a queue, beside its team's other keys.  [default: 1]",
)
@click.option("--rpm", type=int, metavar="N", help="Most requests per minute.")
@click.option("--tpm", type=int, metavar="N", help="Most tokens per minute.")
@click.option(
    "--concurrent",
    type=int,
    metavar="N",
    help="Most requests that are under way at once.",
)
@click.option(
    "--budget",
    "budgets",
    type=Spend(),
    multiple=True,
    metavar="AMOUNT/TIME",
    help="What it may spend per hour, day or month, in US dollars or tokens: "
    "10.00/day, 5000000tokens/month.",
)
@as_json
@of_a_gateway
def create(  # noqa: PLR0913 - all by keyword: an option each
    *,
    models: tuple[str, ...],
    budgets: tuple[Mapping[str, object], ...],
    rpm: int | None,
    tpm: int | None,
    concurrent: int | None,
    as_json: bool,
    config_path: Path | None,
    url: str | None,
    **terms: object,
) -> None:
    """Make a key, and print its secret: this once, and never again.

    \b
    Examples:
      atomr-infer keys create --name ci --config atomr.toml
      atomr-infer keys create --name web --team web --models 'gpt-*' --expires 30d
      atomr-infer keys create --name lab --rpm 60 --budget 10.00/day
      KEY=$(atomr-infer keys create --name job --priority -10 --config atomr.toml)
    """  # noqa: D301 - click wants the character itself, no backslash and a b
    from atomr_infer.cli.accounts.key_reports import print_issued  # noqa: PLC0415

    members = {name: value for name, value in terms.items() if value is not None}
    members |= _limits(rpm=rpm, tpm=tpm, concurrent=concurrent)
    if models:
        members["models"] = _names(models)
    if budgets:
        members["budgets"] = budgets
    try:
        print_issued(where(config_path, url), members, as_json=as_json)
    except ConfigError as error:
        fail(error)


_LIMITS = {
    "rpm": "requests_per_minute",
    "tpm": "tokens_per_minute",
    "concurrent": "max_concurrent",
}


def _limits(**options: int | str | None) -> dict[str, object]:
    """Return the member that the given limits are; none: there is none."""
    given = {
        _LIMITS[option]: _or_null(value)
        for option, value in options.items()
        if value is not None
    }
    # Whoever has a key is told, and does not wait for a minute without a word.
    return {"rate_limits": {**given, "on_exceeded": "reject"}} if given else {}


@keys.command("list")
@as_json
@of_a_gateway
def list_(*, as_json: bool, config_path: Path | None, url: str | None) -> None:
    """Show all keys: what they may do, and whether they open anything.

    \b
    Examples:
      atomr-infer keys list --config atomr.toml
      atomr-infer keys list --json --url https://models.example.org
    """  # noqa: D301 - click wants the character itself, no backslash and a b
    from atomr_infer.cli.accounts.key_reports import print_keys  # noqa: PLC0415

    try:
        print_keys(where(config_path, url), as_json=as_json)
    except ConfigError as error:
        fail(error)


@keys.command()
@click.argument("key", metavar="ID")
@click.option("--team", metavar="TEAM", help="A [[team]] of the configuration.")
@click.option(
    "--models", multiple=True, metavar="NAME,...", help="All that it may ask for."
)
@click.option(
    "--expires",
    "lifetime_s",
    type=OrNone(Duration()),
    metavar="TIME",
    help="When it ends, from now: 30d, 12h, 90m.",
)
@click.option("--priority", type=int, metavar="N", help="That of its requests.")
@click.option("--weight", type=float, metavar="N", help="Its share of a queue.")
@click.option("--rpm", type=OrNone(click.INT), metavar="N", help="Requests per minute.")
@click.option("--tpm", type=OrNone(click.INT), metavar="N", help="Tokens per minute.")
@click.option(
    "--concurrent", type=OrNone(click.INT), metavar="N", help="Requests at once."
)
@click.option(
    "--budget",
    "budgets",
    type=OrNone(Spend()),
    multiple=True,
    metavar="AMOUNT/TIME",
    help="All budgets that it has from now on.",
)
@as_json
@of_a_gateway
def change(  # noqa: PLR0913 - all by keyword: an option each
    *,
    key: str,
    models: tuple[str, ...],
    budgets: tuple[Mapping[str, object] | str, ...],
    lifetime_s: float | str | None,
    as_json: bool,
    config_path: Path | None,
    url: str | None,
    **terms: Any,  # noqa: ANN401 - of several types
) -> None:
    """Give the key ID other terms, on all nodes; its secret stays.

    What is not given stays as it is.  The word none takes a team, a limit, the
    budgets, the models or the end away.

    \b
    Examples:
      atomr-infer keys change ci --rpm 60 --budget 20.00/day --config atomr.toml
      atomr-infer keys change ci --expires none --tpm none --config atomr.toml
    """  # noqa: D301 - click wants the character itself, no backslash and a b
    from atomr_infer.cli.accounts.key_reports import print_changed  # noqa: PLC0415

    members = _limits(**{name: terms.pop(name) for name in _LIMITS})
    members |= {
        name: _or_null(each) for name, each in terms.items() if each is not None
    }
    if models:
        members["models"] = None if models == (NONE,) else _names(models)
    if budgets:
        members["budgets"] = None if budgets == (NONE,) else budgets
    if lifetime_s == NONE:
        members["expires_at_s"] = None
    elif lifetime_s is not None:
        members["lifetime_s"] = lifetime_s
    try:
        print_changed(where(config_path, url), key, members, as_json=as_json)
    except ConfigError as error:
        fail(error)


def _or_null(value: object) -> object:
    return None if value == NONE else value


def _names(models: tuple[str, ...]) -> list[str]:
    return [name.strip() for each in models for name in each.split(",")]


@keys.command()
@click.argument("key", metavar="ID")
@click.option(
    "--grace",
    "grace_s",
    type=Duration(),
    default="1h",
    show_default=True,
    metavar="TIME",
    help="How long the old secret still opens; 0s: not at all.",
)
@as_json
@of_a_gateway
def rotate(
    *,
    key: str,
    grace_s: float,
    as_json: bool,
    config_path: Path | None,
    url: str | None,
) -> None:
    """Give the key ID another secret, and print it this once.

    What belongs to the key stays its own.  A name will do for an ID where only one
    key has it.

    \b
    Examples:
      atomr-infer keys rotate ci --config atomr.toml
      atomr-infer keys rotate key_0123456789abcdef --grace 0s --config atomr.toml
    """  # noqa: D301 - click wants the character itself, no backslash and a b
    from atomr_infer.cli.accounts.key_reports import print_rotated  # noqa: PLC0415

    try:
        print_rotated(where(config_path, url), key, grace_s, as_json=as_json)
    except ConfigError as error:
        fail(error)


@keys.command()
@click.argument("key", metavar="ID")
@as_json
@of_a_gateway
def revoke(
    *, key: str, as_json: bool, config_path: Path | None, url: str | None
) -> None:
    """Close the key ID for good, on all nodes.

    Its requests that run go on to their end.  A name will do for an ID where only
    one key has it.

    \b
    Examples:
      atomr-infer keys revoke ci --config atomr.toml
      atomr-infer keys revoke key_0123456789abcdef --config atomr.toml
    """  # noqa: D301 - click wants the character itself, no backslash and a b
    from atomr_infer.cli.accounts.key_reports import print_revoked  # noqa: PLC0415

    try:
        print_revoked(where(config_path, url), key, as_json=as_json)
    except ConfigError as error:
        fail(error)
