"""``[deployment.hot_swap]``: what is read, and what is said of mistakes."""

from __future__ import annotations

import pytest

from atomr_infer.config.deployment_table import deployment_table, table_deployment
from atomr_infer.config.load import parse_config
from atomr_infer.errors import ConfigError
from atomr_infer.model.swap_plan import SwapPlan

HEAD = '[[deployment]]\nname = "tiny"\nruntime = "mock"\n[deployment.hot_swap]\n'


def test_all_keys_are_read_and_go_to_other_nodes() -> None:
    text = HEAD + 'steps = [0.1, 1]\nstep_s = 5\nmin_requests = 3\nprobe = ""\n'
    [deployment] = parse_config(text, "atomr.toml").deployments
    plan = SwapPlan(steps=(0.1, 1.0), step_s=5, min_requests=3, probe=None)
    assert deployment.hot_swap == plan
    assert table_deployment(deployment_table(deployment)) == deployment


def test_an_empty_table_is_the_plan_of_the_defaults() -> None:
    [deployment] = parse_config(HEAD, "atomr.toml").deployments
    assert deployment.hot_swap == SwapPlan()
    assert table_deployment(deployment_table(deployment)) == deployment


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("canary = 0.1", "unknown key 'canary'; did you mean 'steps'?"),
        ("steps = 0.1", "steps is a number, not an array"),
        ('steps = ["a"]', "is no array of numbers"),
        ("steps = [true]", "is no array of numbers"),
        ("steps = [0.5, 0.2]", "must rise from above 0 to at most 1"),
        ("step_s = -1", "must be a number of 0 or more"),
        ("max_error_rate = 5", "must be from 0 to 1: 5 percent are 0.05"),
        ("probe = 3", "probe is a number, not a string"),
    ],
)
def test_a_mistake_is_said_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(HEAD + text, "atomr.toml")
    assert problem in str(caught.value)
    assert caught.value.line == 5
