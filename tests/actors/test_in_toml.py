"""Actors in a configuration: found, checked with their line, and served over HTTP."""

from __future__ import annotations

import pytest

from atomr_infer.config.load import parse_config
from atomr_infer.config.validate import validate_deployments
from atomr_infer.errors import ConfigError

TWO = """
[[deployment]]
name = "small"
runtime = "mock"

[[deployment]]
name = "mine"
runtime = "%s"
%s
"""


def refusal(runtime: str, more: str = "") -> str:
    config = parse_config(TWO % (runtime, more), path="atomr.toml")
    with pytest.raises(ConfigError) as raised:
        validate_deployments(config.deployments, origin=config.origin)
    return str(raised.value)


def test_an_actor_is_named_by_its_module_or_its_file() -> None:
    for where in ("tests.actors.own", "tests/actors/own.py"):
        config = parse_config(TWO % (f"actor:{where}:plan", ""), path="atomr.toml")
        validate_deployments(config.deployments, origin=config.origin)


@pytest.mark.parametrize(
    ("runtime", "more", "told"),
    [
        ("actor:tests.actors.own:plam", "", "did you mean 'plan'?"),
        ("actor:tests.actors.own", "", "write actor:<module>:<attribute>"),
        (
            "actor:tests.actors.own:plan",
            'options = { asks = ["smoll"] }',
            "'smoll' does not exist; did you mean 'small'?",
        ),
        (
            "actor:tests.actors.own:plan",
            "options = { ctx = 1 }",
            "takes no option 'ctx'",
        ),
        (
            "python:tests.actors.own:plan",
            "",
            "is an inference_actor, which asks others and runs beside them; write "
            "actor:tests.actors.own:plan",
        ),
        (
            "actor:tests.actors.own:Powers",
            "",
            "is an actor of another kind; write python:tests.actors.own:Powers",
        ),
        (
            "python:tests.actors.own:Greedy",
            "",
            "needs 64 GPUs, and its deployment takes 0; write gpus = 64 under "
            "[deployment.placement]",
        ),
        (
            "python:tests.actors.own:Powers",
            "options = { pover = 3 }",
            "takes no option 'pover'; did you mean 'power'?",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_starts(
    runtime: str, more: str, told: str
) -> None:
    message = refusal(runtime, more)

    assert told in message
    assert message.startswith("atomr.toml:")
