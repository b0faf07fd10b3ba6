"""Teams: the tables ``[[team]]``."""

from __future__ import annotations

import pytest

from atomr_infer.config.load import parse_config
from atomr_infer.errors import ConfigError
from atomr_infer.model.team import Team


def test_teams_are_read_in_order() -> None:
    text = '[[team]]\nname = "web"\nweight = 2.5\n[[team]]\nname = "ops"\n'
    config = parse_config(text, "atomr.toml")
    assert config.teams == (Team(name="web", weight=2.5), Team(name="ops"))
    assert parse_config("", "atomr.toml").teams == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[team]\nname = "web"', "1: team is a table; write [[team]], with two"),
        ('team = ["web"]', "1: team holds a string; write [[team]] tables"),
        ("[[team]]\nweight = 2", "1: team[0]: name is missing; write name = "),
        ('[[team]]\nname = "a b"', "2: team[0]: name: 'a b' is not a name; use"),
        ('[[team]]\nname = "a"\nweight = 0', "3: team[0]: weight: 0 must be a number"),
        (
            '[[team]]\nname = "a"\nweight = 1e9',
            "3: team[0]: weight: 1000000000.0 must be from 0.001 to 1000",
        ),
        (
            '[[team]]\nname = "a"\nwieght = 2',
            "3: team[0]: unknown key 'wieght'; did you mean 'weight'?",
        ),
        (
            '[[team]]\nname = "a"\n[[team]]\nname = "a"',
            "4: team[1]: there is a team 'a' already",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "atomr.toml")
    assert str(caught.value).startswith(f"atomr.toml:{problem}")
