"""Budgets in a configuration file."""

from __future__ import annotations

import pytest

from atomr_infer.config.deployment_table import deployment_table, table_deployment
from atomr_infer.config.load import parse_config
from atomr_infer.errors import ConfigError
from atomr_infer.model.budget import Budget, OnExceeded, OwnedBudget, Per, Window

DEPLOYMENT = """\
[[deployment]]
name = "tiny"
runtime = "mock"
"""


def test_a_deployment_has_as_many_as_are_written() -> None:
    config = parse_config(
        DEPLOYMENT
        + """\
[[deployment.budget]]
per = "day"
usd = 10.1
on_exceeded = "downgrade"
downgrade_to = "small"

[[deployment.budget]]
per = "month"
tokens = 1_000_000
window = "rolling"
alert_at = [0.9, 0.5]

[[deployment]]
name = "small"
runtime = "mock"
""",
        "a.toml",
    )
    assert config.deployments[0].budget == (
        Budget(
            per=Per.DAY,
            usd="10.1",
            on_exceeded=OnExceeded.DOWNGRADE,
            downgrade_to="small",
        ),
        Budget(
            per=Per.MONTH,
            tokens=1_000_000,
            window=Window.ROLLING,
            alert_at=(0.5, 0.9),
        ),
    )


def test_teams_and_keys_have_budgets() -> None:
    config = parse_config(
        """\
[[team]]
name = "web"

[[budget]]
team = "web"
per = "month"
usd = "250"
time_zone = "Europe/Berlin"

[[budget]]
key = "key_0123456789abcdef"
per = "hour"
tokens = 5
""",
        "a.toml",
    )
    assert config.budgets == (
        OwnedBudget(
            team="web",
            budget=Budget(per=Per.MONTH, usd=250, time_zone="Europe/Berlin"),
        ),
        OwnedBudget(key="key_0123456789abcdef", budget=Budget(per=Per.HOUR, tokens=5)),
    )


@pytest.mark.parametrize(
    ("lines", "line", "message"),
    [
        ("per = 'day'", 4, "usd: None is missing; write usd"),
        ("per = 'day'\nusd = 1\ntokens = 2", 7, "stands beside usd; write two budgets"),
        ("usd = 1", 4, 'per is missing; write per = "day"'),
        ("per = 'days'\nusd = 1", 5, "did you mean 'day'?"),
        (
            "per = 'day'\nmax_budget = 1",
            6,
            "unknown key 'max_budget'; did you mean 'usd'",
        ),
        ("per = 'day'\nusd = 0.0000001", 6, "has more than six decimals"),
        ("per = 'day'\nusd = -1", 6, "is not above 0"),
        ("per = 'day'\nusd = 'ten'", 6, "is no amount of dollars"),
        ("per = 'day'\nusd = 1\ntime_zone = 'Mars'", 7, "is no time zone"),
        ("per = 'day'\nusd = 1\nalert_at = [80]", 7, "is not above 0 and at most 1"),
        (
            "per = 'day'\nusd = 1\ndowngrade_to = 'x'",
            7,
            'needs on_exceeded = "downgrade"',
        ),
        ("per = 'day'\nusd = 1\non_exceeded = 'downgrade'", 4, "is missing"),
    ],
)
def test_what_cannot_be_is_refused_with_its_line(
    lines: str, line: int, message: str
) -> None:
    text = f"{DEPLOYMENT}[[deployment.budget]]\n{lines}\n"
    with pytest.raises(ConfigError) as refused:
        parse_config(text, "a.toml")
    assert message in str(refused.value)
    assert refused.value.line == line


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("per = 'day'\nusd = 1", "a budget is of a team or of a virtual key"),
        ("team = 'web'\nkey = 'k'\nper = 'day'\nusd = 1", "a budget is of a team or"),
        ("team = 'wep'\nper = 'day'\nusd = 1", "no team 'wep'; did you mean 'web'?"),
        (
            "team = 'web'\nper = 'day'\nusd = 1\n"
            "[[budget]]\nteam = 'web'\nper = 'day'\nusd = 2",
            "the second budget of team web of usd/day",
        ),
    ],
)
def test_whose_a_budget_is_has_to_be_clear(lines: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"a\.toml:") as refused:
        parse_config(f"[[team]]\nname = 'web'\n[[budget]]\n{lines}\n", "a.toml")
    assert message in str(refused.value)


def test_two_of_a_kind_are_refused() -> None:
    two = "[[deployment.budget]]\nper = 'day'\nusd = 1\n" * 2
    with pytest.raises(ConfigError, match="is the second one of usd/day"):
        parse_config(DEPLOYMENT + two, "a.toml")


def test_a_budget_goes_from_node_to_node_as_it_is() -> None:
    table = '[[deployment.budget]]\nper = "day"\nusd = "0.1"\non_exceeded = "warn"\n'
    [deployment] = parse_config(DEPLOYMENT + table, "a.toml").deployments
    assert table_deployment(deployment_table(deployment)) == deployment


DOWNGRADE = "per = 'day'\nusd = 1\non_exceeded = 'downgrade'\ndowngrade_to = '%s'\n"


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("smal", "downgrade_to: "),
        ("tiny", "downgrade_to: 'tiny' is served by the deployment itself"),
    ],
)
def test_a_downgrade_leads_to_another_model(to: str, message: str) -> None:
    budget = "[[deployment.budget]]\n" + DOWNGRADE % to
    with pytest.raises(ConfigError) as refused:
        parse_config(DEPLOYMENT + budget, "a.toml")
    assert message in str(refused.value)
    assert refused.value.line == 8


def test_a_teams_downgrade_leads_to_a_model() -> None:
    team = "[[team]]\nname = 'web'\n[[budget]]\nteam = 'web'\n"
    parse_config(DEPLOYMENT + team + DOWNGRADE % "tiny", "a.toml")
    with pytest.raises(ConfigError, match="downgrade_to: "):
        parse_config(DEPLOYMENT + team + DOWNGRADE % "other", "a.toml")
