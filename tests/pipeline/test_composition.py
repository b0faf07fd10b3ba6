"""Which deployments may ask each other, and what their options may say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pytest

from atomr_infer.config.load import parse_config
from atomr_infer.config.validate import validate_deployments
from atomr_infer.errors import ConfigError, InternalError
from atomr_infer.model.budget import Budget, Per
from atomr_infer.model.failover import Fallback
from atomr_infer.policy.routing.composition import MAX_DEPTH
from atomr_infer.serving.requests import others
from tests.pipeline.conftest import OpenTree, cascade, model

if TYPE_CHECKING:
    from atomr_infer.model.deployment import Deployment

TWO = """
[[deployment]]
name = "small"
runtime = "mock"

[[deployment]]
name = "auto"
runtime = "cascade"
options = { stages = %s }
"""


def refusal(stages: str) -> ConfigError:
    config = parse_config(TWO % stages, path="atomr.toml")
    with pytest.raises(ConfigError) as raised:
        validate_deployments(config.deployments, origin=config.origin)
    return raised.value


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        ('["small"]', "stages must be two at least"),
        ('"small"', "stages is no list of tables"),
        ('["small", "smal"]', "the model 'smal' does not exist; did you mean 'small'?"),
        ('["small", "auto"]', "it would ask itself: auto -> auto"),
        ('["small", 7]', "stages[1] is 7; it must be a table"),
        ('[{ model = "small", refusal = ["x"] }, "small"]', "did you mean 'refusals'?"),
        ('[{ timeout_s = 1.0 }, "small"]', "stages[0] lacks 'model'"),
        ('[{ model = "small", matches = "(" }, "small"]', "is no pattern"),
        ('[{ model = "small", finish = ["end"] }, "small"]', "is none of stop, length"),
        ('[{ model = "small", min_logprob = 1.0 }, "small"]', "at most 0"),
        ('["small", { model = "small", min_chars = 3 }]', "leave out min_chars"),
        (
            '[{ model = "small", validator = "python:json:dump_it" }, "small"]',
            "AttributeError",
        ),
        (
            '[{ model = "small", validator = "json.dumps" }, "small"]',
            "is not of the form python:<module>:<name>",
        ),
        (
            '[{ model = "small", json = true }, "small"], stream = "commit"',
            "'json' of 'small' judges a whole answer",
        ),
        ('["small", "small"], stream = "late"', "is none of 'buffer', 'commit'"),
    ],
)
def test_options_that_cannot_be_meant_are_refused_with_their_line(
    stages: str, told: str
) -> None:
    error = refusal(stages)

    assert told in error.message
    assert str(error).startswith("atomr.toml:9: deployment 'auto'")


@pytest.mark.parametrize(
    "more",
    [
        {"model": "x"},
        {"price": model("x").price},
        {"budget": (Budget(per=Per.DAY, usd="1"),)},
    ],
)
def test_what_is_a_models_own_is_refused_of_a_cascade(more: dict[str, Any]) -> None:
    auto = attrs.evolve(cascade("small", "small"), **more)

    with pytest.raises(ConfigError, match="has no meaning for the runtime 'cascade'"):
        validate_deployments([attrs.evolve(model("small"), runtime="mock"), auto])


def row(*names: str) -> list[Deployment]:
    """Return cascades of which each asks the one before."""
    made = [model("m", reply="the answer")]
    for name in names:
        made.append(cascade({"model": "m", "min_chars": 99}, made[-1].name, name=name))
    return made


async def test_a_row_of_cascades_ends_at_its_bound(open_tree: OpenTree) -> None:
    names = [f"c{n}" for n in range(MAX_DEPTH)]
    *allowed, beyond = row(*names, "beyond")
    async with open_tree(*allowed) as tree:
        heard = await tree.ask(model=names[-1])
        assert heard.text == "the answer"
        with pytest.raises(ConfigError, match="4 in a row at most: beyond -> c3"):
            await tree.serving.deploy(beyond)


async def test_a_deployment_that_closes_a_ring_is_refused_whichever_it_is(
    open_tree: OpenTree,
) -> None:
    async with open_tree(model("m"), cascade("m", "later", name="first")) as tree:
        with pytest.raises(ConfigError, match="later -> first -> later"):
            await tree.serving.deploy(cascade("m", "first", name="later"))
        back = model("later", fallbacks=(Fallback(to="first"),))
        with pytest.raises(ConfigError, match="later -> first -> later"):
            await tree.serving.deploy(back)
        await tree.serving.deploy(model("later"))
        assert (await tree.ask(model="first")).text == "one two three"


async def test_a_ring_that_nobody_saw_ends_all_the_same(
    open_tree: OpenTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As of nodes that have different configurations.
    monkeypatch.setattr(others, "MAX_DEPTH", 2)
    async with open_tree(*row("a", "b", "c")) as tree:
        with pytest.raises(InternalError, match="2 deep"):
            await tree.ask(model="c")
        assert (await tree.ask(model="b")).text == "the answer"


async def test_a_budget_that_is_spent_refuses_a_stage_and_the_first_answer_is_given(
    open_tree: OpenTree,
) -> None:
    hour = Budget(per=Per.HOUR, usd="0.001")
    large = attrs.evolve(model("large"), budget=(hour,))
    stage = {"model": "small", "min_chars": 99}
    async with open_tree(model("small"), large, cascade(stage, "large")) as tree:
        heard = await tree.ask()
        assert heard.verdicts == ["small (refused: chars=13)", "large (failed)"]
        assert tree.runners["large"].batches == ()
    assert heard.text == "one two three"
    assert heard.served is not None
    assert "budget_exceeded" in heard.served.warnings[0]
