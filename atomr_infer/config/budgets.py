"""The tables ``[[deployment.budget]]`` and ``[[budget]]`` to values.

Pure.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import attrs

from atomr_infer.config.mistakes import Mistakes
from atomr_infer.config.reader import TableReader, type_name
from atomr_infer.errors import ModelNotFoundError
from atomr_infer.model.budget import Budget, OnExceeded, OwnedBudget, Per, Window
from atomr_infer.policy.routing.model_table import ModelTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from atomr_infer.config.reader import Origin
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.model.team import Team

_MEMBERS = {"per": Per, "window": Window, "on_exceeded": OnExceeded}
_OWNERS = ("team", "key")

# What people write who know other tools.
_OTHER_WORDS = {
    "max_budget": "did you mean 'usd'?",
    "budget_duration": "did you mean 'per'?",
    "dollars": "did you mean 'usd'?",
    "limit": "write usd or tokens",
    "period": "did you mean 'per'?",
    "soft_budget": "did you mean 'alert_at'?",
    "timezone": "did you mean 'time_zone'?",
}


def read_budgets(reader: TableReader, key: str = "budget") -> tuple[Budget, ...]:
    """Read the budgets of a deployment.

    Args:
        reader: the deployment's table; the key is there.
        key: where they stand in it.

    Raises:
        ConfigError: it is no array of tables, or one of them is wrong.
    """
    tables = _tables(reader, key)
    return tuple(table.make(Budget, _values(table)) for table in tables)


def read_owned_budgets(
    top: TableReader, teams: Sequence[Team]
) -> tuple[OwnedBudget, ...]:
    """Read the budgets of teams and of virtual keys: ``[[budget]]``.

    Args:
        top: the whole document.
        teams: those of it.

    Raises:
        ConfigError: there are mistakes in some of them.
    """
    if "budget" not in top.content:
        return ()
    found: dict[tuple[str, str], OwnedBudget] = {}
    mistakes = Mistakes()
    for table in _tables(top, "budget"):
        with mistakes.kept():
            owned = _owned(table)
            if owned.team is not None:
                _check_team(table, owned.team, [team.name for team in teams])
            owner, kind = owned.owner, owned.budget.kind
            if (owner, kind) in found:
                problem = f"the second budget of {owner} of {kind}; write one of them"
                raise table.fail("per", problem)
            found[owner, kind] = owned
    mistakes.tell()
    return tuple(found.values())


def check_downgrades(
    deployments: Sequence[Deployment], owned: Sequence[OwnedBudget], origin: Origin
) -> None:
    """Refuse budgets that send requests to a model that nobody else serves.

    Args:
        deployments: all of the file, in its order.
        owned: those of teams and virtual keys, in theirs.
        origin: the file.

    Raises:
        ConfigError: at the first mistake.
    """
    table = ModelTable(tuple(deployments))
    for index, deployment in enumerate(deployments):
        for number, budget in enumerate(deployment.budget):
            where = ("deployment", index, "budget", number, "downgrade_to")
            others = _serving(table, budget, where, origin)
            if others and others <= {deployment.name}:
                problem = f"deployment {deployment.name!r}: downgrade_to: "
                problem += f"{budget.downgrade_to!r} is served by the deployment itself"
                raise origin.error(where, f"{problem}; name another model")
    for number, each in enumerate(owned):
        _serving(table, each.budget, ("budget", number, "downgrade_to"), origin)


def _serving(
    table: ModelTable, budget: Budget, where: tuple[str | int, ...], origin: Origin
) -> set[str]:
    """Return the deployments that a budget sends requests to."""
    if budget.downgrade_to is None:
        return set()
    try:
        route = table.resolve(budget.downgrade_to)
    except ModelNotFoundError as error:
        raise origin.error(where, f"downgrade_to: {error.message}") from error
    return {each.deployment for each in route.group}


def _check_team(table: TableReader, name: str, known: list[str]) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "add a [[team]]"
    raise table.fail("team", f"there is no team {name!r}; {hint}")


def _owned(table: TableReader) -> OwnedBudget:
    given = [owner for owner in _OWNERS if owner in table.content]
    if len(given) != 1:
        problem = 'a budget is of a team or of a virtual key: write team = "NAME"'
        raise table.fail(given[-1] if given else "team", problem)
    values = _values(table, also=_OWNERS)
    names = {owner: values.pop(owner) for owner in given}
    budget = table.make(Budget, values)
    return table.make(OwnedBudget, {**names, "budget": budget})


def _tables(reader: TableReader, key: str) -> Iterator[TableReader]:
    written = "budget" if not reader.label else "deployment.budget"
    tables = reader.content[key]
    if not isinstance(tables, list):
        problem = f"{key} is {type_name(tables)}; write [[{written}]] tables"
        raise reader.fail(key, problem)
    for index, content in enumerate(tables):
        where = (*reader.where, key, index)
        label = f"{reader.label}: {key}[{index}]" if reader.label else f"{key}[{index}]"
        if not isinstance(content, dict):
            problem = f"{key} holds {type_name(content)}; write [[{written}]] tables"
            raise reader.fail(key, problem)
        yield TableReader(reader.origin, where, label, content)


def _values(table: TableReader, also: tuple[str, ...] = ()) -> dict[str, object]:
    names = [field.name for field in attrs.fields(Budget)]
    table.check_keys((*also, *names), also=_OTHER_WORDS)
    if "per" not in table.content:
        raise table.fail("per", 'per is missing; write per = "day"')
    values = {**table.content}
    for key, kind in _MEMBERS.items():
        if key in values:
            values[key] = table.member(key, kind)
    return values
