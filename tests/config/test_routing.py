"""How requests are spread over replicas, as it is written in TOML."""

from __future__ import annotations

import pytest

from atomr_infer.bridge.protocol.deployment_values import (
    deployment_from_wire,
    deployment_to_wire,
)
from atomr_infer.config.deployment_table import deployment_table
from atomr_infer.config.load import parse_config
from atomr_infer.errors import ConfigError
from atomr_infer.model.deployment import Deployment, Serving
from atomr_infer.model.routing import Routing

A = '[[deployment]]\nname = "a"\nruntime = "mock"\n[deployment.serving]\n'
PREFIX = Serving(routing=Routing.PREFIX, local_margin=0, weight=0.05)


def test_every_key_reaches_its_field() -> None:
    written = 'routing = "prefix"\nlocal_margin = 0\nweight = 0.05\n'
    (found,) = parse_config(A + written, "x.toml").deployments
    assert found == Deployment(name="a", runtime="mock", serving=PREFIX)


@pytest.mark.parametrize("routing", Routing)
def test_each_policy_has_a_word(routing: Routing) -> None:
    written = f'routing = "{routing.value}"\n'
    (found,) = parse_config(A + written, "x.toml").deployments
    assert found.serving.routing is routing


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ('routing = "leest_tokens"', "least_tokens"),
        ("routing = 3", "routing"),
        ("local_margin = -0.1", "local_margin: -0.1 must be a number of 0 or more"),
        ("weight = -1", "weight: -1 must be a number of 0 or more"),
        ('weight = "much"', "weight: 'much' is not a number"),
    ],
)
def test_each_mistake_is_told_with_its_line(written: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(A + written, "x.toml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("x.toml:5: ")


def test_it_goes_to_other_nodes_and_to_an_engines_own_interpreter() -> None:
    deployment = Deployment(name="a", runtime="mock", serving=PREFIX)
    assert deployment_table(deployment)["serving"] == {
        "routing": "prefix",
        "local_margin": 0,
        "weight": 0.05,
    }
    assert deployment_from_wire(deployment_to_wire(deployment)) == deployment
