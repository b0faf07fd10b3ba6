"""The tables ``[[team]]`` to :class:`Team` values.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.config.mistakes import Mistakes
from atomr_infer.config.rate_limits import read_rate_limits
from atomr_infer.config.reader import TableReader, type_name
from atomr_infer.model.team import Team

if TYPE_CHECKING:
    from collections.abc import Iterator


def read_teams(top: TableReader) -> tuple[Team, ...]:
    """Read every ``[[team]]`` of a document.

    Raises:
        ConfigError: there are mistakes in some of them.
    """
    teams: dict[str, Team] = {}
    mistakes = Mistakes()
    for table in _tables(top):
        with mistakes.kept():
            team = _team(table)
            if team.name in teams:
                raise table.fail("name", f"there is a team {team.name!r} already")
            teams[team.name] = team
    mistakes.tell()
    return tuple(teams.values())


def _team(table: TableReader) -> Team:
    def read_limits() -> object:
        limits = table.table("rate_limits")
        assert limits is not None, "it is written"
        return read_rate_limits(limits)

    required = {"name": 'write name = "NAME"'}
    return table.read(Team, {"rate_limits": read_limits}, required=required)


def _tables(top: TableReader) -> Iterator[TableReader]:
    tables = top.content.get("team", [])
    if not isinstance(tables, list):
        problem = f"team is {type_name(tables)}; write [[team]], with two brackets"
        raise top.fail("team", problem)
    for index, content in enumerate(tables):
        if not isinstance(content, dict):
            problem = f"team holds {type_name(content)}; write [[team]] tables"
            raise top.fail("team", problem)
        label = f"team[{index}]"
        yield TableReader(top.origin, ("team", index), label, content)
