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
    from collections.abc import Iterator, Mapping, Sequence

    from atomr_infer.config.reader import Origin
    from atomr_infer.config.readings import Readings
    from atomr_infer.model.team import Team

_OWNERS = ("team", "key")

# What people write who know other tools.
_OTHER_WORDS: Mapping[str, str] = {
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
    mistakes, found = Mistakes(), []
    for table in _tables(reader, key):
        with mistakes.kept():
            found.append(_budget(table))
    mistakes.tell()
    return tuple(found)


def read_owned_budgets(
    top: TableReader, teams: Sequence[Team] | None
) -> tuple[OwnedBudget, ...]:
    """Read the budgets of teams and of virtual keys: ``[[budget]]``.

    Args:
        top: the whole document.
        teams: those of it; None: they could not be read.

    Raises:
        ConfigError: there are mistakes in some of them.
    """
    if "budget" not in top.content:
        return ()
    found: dict[tuple[str, str], OwnedBudget] = {}
    mistakes = Mistakes()
    for table in _tables(top, "budget"):
        with mistakes.kept():
            owned = _owned(table, teams)
            owner, kind = owned.owner, owned.budget.kind
            if (owner, kind) in found:
                problem = f"the second budget of {owner} of {kind}; write one of them"
                raise table.fail("per", problem)
            found[owner, kind] = owned
    mistakes.tell()
    return tuple(found.values())


def check_downgrades(
    readings: Readings,
    owned: Sequence[OwnedBudget],
    origin: Origin,
    mistakes: Mistakes,
) -> None:
    """Keep budgets that send requests to a model that nobody else serves.

    Args:
        readings: all deployments of the file; where it is not known what all of them
            serve, nothing is said.
        owned: the budgets of teams and virtual keys, in their order.
        origin: the file.
        mistakes: where they are kept.
    """
    if not readings.knows_models:
        return
    table = ModelTable(readings.values)
    for index, deployment in readings:
        for number, budget in enumerate(deployment.budget):
            where = ("deployment", index, "budget", number, "downgrade_to")
            with mistakes.kept():
                others = _serving(table, budget, where, origin)
                if others and others <= {deployment.name}:
                    problem = f"deployment {deployment.name!r}: downgrade_to: "
                    problem += f"{budget.downgrade_to!r} is served by the deployment "
                    raise origin.error(where, f"{problem}itself; name another model")
    for number, each in enumerate(owned):
        with mistakes.kept():
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


def _owned(table: TableReader, teams: Sequence[Team] | None) -> OwnedBudget:
    """Read a budget and whose it is: neither hides what is wrong with the other."""
    names = {each: table.content[each] for each in _OWNERS if each in table.content}
    rest = {key: text for key, text in table.content.items() if key not in names}
    known = (*_OWNERS, *(field.name for field in attrs.fields(Budget)))
    hints = table.unknown_keys(known, _OTHER_WORDS)
    mistakes, values = Mistakes(), {**names}
    with mistakes.kept():
        _check_owner(table, names, hints, teams)
    with mistakes.kept():
        values["budget"] = _budget(attrs.evolve(table, content=rest), hints)
    mistakes.tell()
    return table.make(OwnedBudget, values)


def _check_owner(
    table: TableReader,
    names: Mapping[str, object],
    hints: Mapping[str, str],
    teams: Sequence[Team] | None,
) -> None:
    """Refuse a budget that is nobody's, or of more than one; as :func:`_owned`."""
    # Of an owner's key that is misspelt the unknown key tells.
    near = {f"did you mean {owner!r}?" for owner in _OWNERS}
    if len(names) > 1 or not (names or near.intersection(hints.values())):
        problem = 'a budget is of a team or of a virtual key: write team = "NAME"'
        raise table.fail("key" if names else "team", problem)
    table.check_values(OwnedBudget, names)
    team = names.get("team")
    if isinstance(team, str) and teams is not None:
        _check_team(table, team, [each.name for each in teams])


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


def _budget(table: TableReader, also: Mapping[str, str] = _OTHER_WORDS) -> Budget:
    return table.read(
        Budget,
        table.members(per=Per, window=Window, on_exceeded=OnExceeded),
        also=also,
        required={"per": 'write per = "day"'},
    )
