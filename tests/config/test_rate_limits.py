"""Rate limits as they are written in TOML, and every mistake with its line."""

from __future__ import annotations

import attrs
import pytest

from atomr_infer.config.deployment_table import deployment_table, table_deployment
from atomr_infer.config.load import parse_config
from atomr_infer.errors import ConfigError
from atomr_infer.model.deployment import Deployment, changes_while_serving
from atomr_infer.model.rate_limits import LimitMode, OnLimit, RateLimits
from atomr_infer.policy.lifecycle.replaced import keeps_engine

HEAD = '[[deployment]]\nname = "a"\nruntime = "mock"\n[deployment.rate_limits]\n'

FULL = """\
requests_per_minute = 600
input_tokens_per_minute = 100_000
output_tokens_per_minute = 20_000
tokens_per_minute = 110_000
max_concurrent = 9
window_s = 6
mode = "strict"
on_exceeded = "reject"
shadow = true
"""
LIMITS = RateLimits(
    requests_per_minute=600,
    input_tokens_per_minute=100_000,
    output_tokens_per_minute=20_000,
    tokens_per_minute=110_000,
    max_concurrent=9,
    window_s=6,
    mode=LimitMode.STRICT,
    on_exceeded=OnLimit.REJECT,
    shadow=True,
)


def test_every_key_reaches_its_field() -> None:
    (deployment,) = parse_config(HEAD + FULL, "a.toml").deployments
    assert deployment == Deployment(name="a", runtime="mock", rate_limits=LIMITS)


def test_limits_go_into_the_catalogue_and_come_back() -> None:
    deployment = Deployment(name="a", runtime="mock", rate_limits=LIMITS)
    assert table_deployment(deployment_table(deployment)) == deployment


def test_limits_are_changed_with_the_engine_that_there_is() -> None:
    before = Deployment(name="a", runtime="mock", rate_limits=LIMITS)
    after = attrs.evolve(before, rate_limits=None)
    assert keeps_engine(before, after, is_client=True)
    assert not changes_while_serving(before, after)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 4, "{} limits nothing; give it one of requests_per_minute, "),
        ("rpm = 3", 5, "unknown key 'rpm'; did you mean 'requests_per_minute'?"),
        ("tpm = 3", 5, "unknown key 'tpm'; did you mean 'tokens_per_minute'?"),
        ("requests_per_minut = 3", 5, "did you mean 'requests_per_minute'?"),
        ("requests_per_second = 3", 5, "write requests_per_minute, and window_s = 1"),
        ("requests_per_minute = 0", 5, "0 must be at least 1"),
        ("requests_per_minute = 1.5", 5, "1.5 is not a whole number"),
        ("requests_per_minute = true", 5, "True is not a whole number"),
        ("tokens_per_minute = 99999999999999999999", 5, "must be at most"),
        ("requests_per_minute = 30\nwindow_s = 1", 5,
         "30 is less than one in a window of 1 s"),
        ("requests_per_minute = 3\nwindow_s = 61", 6, "61 is longer than the minute"),
        ("requests_per_minute = 3\nwindow_s = 0", 6, "0 must be a number above 0"),
        ("requests_per_minute = 3\nmode = 'escro'", 6, "did you mean 'escrow'?"),
        ("requests_per_minute = 3\non_exceeded = 'wait'", 6,
         "'wait' is not allowed; use 'queue' or 'reject'"),
        ("requests_per_minute = 3\nshadow = 1", 6, "shadow is a number, not true"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(text: str, line: int, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(HEAD + text + "\n", "a.toml")
    assert caught.value.line == line
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rpm = 3", "write requests_per_minute under [deployment.rate_limits]"),
        ("rate_limit = 3", "did you mean [deployment.rate_limits]?"),
        ("rate_limits = 3", "rate_limits is a number, not a table"),
    ],
)
def test_what_stands_in_the_wrong_place_is_said_where_it_belongs(
    text: str, said: str
) -> None:
    head = HEAD.removesuffix("[deployment.rate_limits]\n")
    with pytest.raises(ConfigError, match=r".") as caught:
        parse_config(head + text + "\n", "a.toml")
    assert said in caught.value.message
