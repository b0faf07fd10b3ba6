"""What ``atomr-infer keys`` asks, and what it prints of the answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table
from rich.text import Text

from atomr_infer.cli.asking.operators import ask
from atomr_infer.cli.output.lines import one_line
from atomr_infer.cli.output.tables import print_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.cli.asking.operators import Where


def print_issued(where: Where, terms: Mapping[str, object], *, as_json: bool) -> None:
    """Make a key, and print its secret.

    Raises:
        ConfigError: the gateway refuses it, or cannot be asked.
    """
    answer = ask(where, "POST", "keys", body=terms)
    _print_secret(answer, "is made", as_json=as_json)


def print_rotated(where: Where, key: str, grace_s: float, *, as_json: bool) -> None:
    """Give a key another secret, and print it; raises as :func:`print_issued`."""
    answer = ask(where, "POST", "keys", key, "rotate", body={"grace_s": grace_s})
    _print_secret(answer, "has another secret", as_json=as_json)


def print_revoked(where: Where, key: str, *, as_json: bool) -> None:
    """Revoke a key, and say so; raises as :func:`print_issued`."""
    answer = ask(where, "POST", "keys", key, "revoke")
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    click.echo(one_line(f"{_called(answer)} is revoked"))
    _warn(answer)


def print_changed(
    where: Where, key: str, members: Mapping[str, object], *, as_json: bool
) -> None:
    """Give a key other terms, and print them; raises as :func:`print_issued`."""
    answer = ask(where, "PATCH", "keys", key, body=members)
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    click.echo(one_line(f"{_called(answer)} is changed:"))
    print_table(_table([answer["key"]]))
    _warn(answer)


def print_keys(where: Where, *, as_json: bool) -> None:
    """Print all keys, as a table or as JSON; raises as :func:`print_issued`."""
    answer = ask(where, "GET", "keys")
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    print_table(_table(answer["keys"]))


def _print_secret(answer: Any, did: str, *, as_json: bool) -> None:  # noqa: ANN401 - JSON
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    told = one_line(f"{_called(answer)} {did}; it is shown this once:")
    click.echo(told, err=True)
    click.echo(one_line(answer["secret"]))
    _warn(answer)


def _called(answer: Any) -> str:  # noqa: ANN401 - JSON
    key = answer["key"]
    return f"the key {key['name']!r}, {key['id']},"


def _warn(answer: Any) -> None:  # noqa: ANN401 - JSON
    for warning in answer["warnings"]:
        click.echo(one_line(f"warning: {warning}"), err=True)


def _table(keys: list[Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in (
        "id",
        "name",
        "team",
        "state",
        "models",
        "priority",
        "expires",
        "limits",
        "budgets",
        "secrets",
    ):
        table.add_column(title, overflow="fold")
    for key in keys:
        table.add_row(*map(Text, _row(key)))
    return table


def _row(key: Any) -> tuple[str, ...]:  # noqa: ANN401 - JSON
    is_open = [each["shown"] for each in key["secrets"] if each["is_open"]]
    return (
        key["id"],
        key["name"],
        key["team"] or "-",
        key["state"],
        ",".join(key["models"]) or "*",
        str(key["priority"]),
        _day(key["expires_at_s"]),
        _limits(key["rate_limits"]),
        ", ".join(map(_budget, key["budgets"])) or "-",
        ", ".join(is_open) or "-",
    )


_SHORT = {
    "requests_per_minute": "{} rpm",
    "tokens_per_minute": "{} tpm",
    "input_tokens_per_minute": "{} input tpm",
    "output_tokens_per_minute": "{} output tpm",
    "max_concurrent": "{} at once",
}


def _limits(limits: Mapping[str, Any] | None) -> str:
    given = limits or {}
    told = [said.format(given[name]) for name, said in _SHORT.items() if name in given]
    return ", ".join(told) or "-"


def _budget(budget: Mapping[str, Any]) -> str:
    rolling = "rolling " if budget.get("window") == "rolling" else ""
    amount = f"${budget['usd']}" if "usd" in budget else f"{budget['tokens']}tokens"
    return f"{amount}/{rolling}{budget['per']}"


def _day(at_s: int | None) -> str:
    if at_s is None:
        return "-"
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%MZ")
