"""What is counted of requests, and what engines tell, in a real serving tree."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr_infer.errors import InvalidRequestError
from atomr_infer.gateway.admin.metrics import engines
from atomr_infer.gateway.admin.metrics.routes import own_figures
from atomr_infer.model.cost import Cost
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.prices import PICO
from atomr_infer.model.usage import Usage
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.requests.meters import FIRST_S, Histogram, Meters
from atomr_infer.serving.requests.report import Report
from atomr_infer.serving.requests.served import Spent, Tried
from atomr_infer.testing.mock import MockRunner
from atomr_infer.testing.mock_script import MockScript
from tests.gateway.figures_read import Figures
from tests.serving.conftest import OpenTree, Tree
from tests.serving.lab import PLUGIN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from importlib.metadata import Distribution

    from trio.testing import MockClock

    from atomr_infer.model.figures import Figure
    from atomr_infer.serving.shared import Serving

LAB = Deployment(name="m", runtime="lab")


async def figures_of(serving: Serving) -> Figures:
    return Figures(await own_figures(serving))


def noted(took_s: float = 1.0, **more: Any) -> Meters:
    """Note a request that has taken so many seconds; its instants are since then."""
    began_at = trio.current_time() - took_s
    made = Report("r", "public", "m", started_at=began_at, asked_at=began_at)
    for name, value in more.items():
        setattr(made, name, value + began_at if name.endswith("_at") else value)
    meters = Meters()
    meters.note(made)
    return meters


async def test_times_go_into_their_buckets(autojump_clock: MockClock) -> None:
    usage = Usage(output_text=11)
    of = noted(
        2.3, asked_at=0.02, first_chunk_at=0.3, usage=usage, outcome="completed"
    ).deployments["m"]
    assert of.ended == {"completed": 1}
    for histogram, value in (
        (of.request_s, 2.3),
        (of.wait_s, 0.02),
        (of.first_s, 0.3),
        (of.token_s, 0.2),
    ):
        assert histogram.total == pytest.approx(value)
        assert sum(histogram.counts) == 1
        index = histogram.counts.index(1)
        assert value <= histogram.bounds[index]
        assert index == 0 or value > histogram.bounds[index - 1]


async def test_what_has_no_first_words_has_no_time_of_them(
    autojump_clock: MockClock,
) -> None:
    of = noted(asked_at=math.nan).deployments["m"]
    assert (of.ended, of.unpriced) == ({"failed": 1}, 0)
    assert sum(of.request_s.counts) == 1
    for histogram in (of.wait_s, of.first_s, of.token_s):
        assert (sum(histogram.counts), histogram.total) == (0, 0.0)


async def test_attempts_are_their_deployments_own(autojump_clock: MockClock) -> None:
    tried = [
        Tried("a", "rate_limited"),
        Tried("a", "upstream_timeout"),
        Tried("b", "rate_limited"),
        Tried("m"),
    ]
    meters = noted(tried=tried, outcome="completed", recovered=True)
    a, b, m = (meters.deployments[name] for name in "abm")
    assert a.attempts == {"rate_limited": 1, "upstream_timeout": 1}
    assert (a.retries, b.retries, m.retries) == (1, 0, 0)
    assert (a.fallbacks, b.fallbacks, m.fallbacks) == ({}, {"a": 1}, {"b": 1})
    assert (b.attempts, m.attempts) == ({"rate_limited": 1}, {"": 1})
    assert (a.ended, b.ended, m.ended) == ({}, {}, {"completed": 1})
    assert (a.recovered, m.recovered) == (0, 1)


async def test_each_token_is_in_one_kind_and_what_is_not_known_is_no_zero(
    autojump_clock: MockClock,
) -> None:
    lost = Usage(input_uncached=5, output_text=1, estimated=True)
    whole = Usage(
        input_uncached=7,
        input_image=1,
        cache_read=20,
        cache_write_5m=3,
        cache_write_1h=4,
        output_text=9,
        reasoning=6,
    )
    spent = [Spent("a", "x", lost), Spent("m", "y", whole)]
    unpriced = noted(spent=spent)
    a, m = unpriced.deployments["a"], unpriced.deployments["m"]
    assert (a.tokens, a.estimated) == ({"input": 5, "output": 1}, 1)
    assert m.tokens == {
        "input": 8,
        "cache_read": 20,
        "cache_write": 7,
        "output": 9,
        "reasoning": 6,
    }
    assert sum(m.tokens.values()) == whole.total_tokens
    assert (m.unpriced, m.cost_usd) == (1, 0.0)
    cost = Cost(parts={"output_text": PICO // 4})
    priced = noted(spent=spent, cost=cost).deployments["m"]
    assert (priced.unpriced, priced.cost_usd) == (0, 0.25)


def test_a_bound_belongs_to_its_bucket() -> None:
    histogram = Histogram(FIRST_S)
    for value in (0.0, FIRST_S[0], FIRST_S[1], FIRST_S[-1], 1e9):
        histogram.note(value)
    assert histogram.counts[:2] == [2, 1]
    assert histogram.counts[-2:] == [1, 1]
    assert len(histogram.counts) == len(FIRST_S) + 1


async def test_a_request_is_counted_by_whichever_way_it_goes(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    PLUGIN.plan = [MockScript(), MockScript(fail_after=0, fail_kind="invalid_request")]
    async with open_tree(LAB, Deployment(name="n", runtime="lab")) as tree:
        await tree.ask()
        with pytest.raises(InvalidRequestError):
            await tree.ask(model="n")
        figures = await figures_of(tree.serving)
    ended = figures.of("atomr_infer_requests_total", "deployment", "outcome")
    assert ended == {("m", "completed"): 1.0, ("n", "failed"): 1.0}


@pytest.fixture
async def engine(
    lab_installed: Callable[[], Iterator[Distribution]],
) -> AsyncIterator[Tree]:
    """A tree with an engine in a process of its own."""
    async with open_serving(environ={}, installed=lab_installed) as serving:
        await serving.deploy(Deployment(name="e", runtime="awkward"))
        yield Tree(serving, PLUGIN)


async def test_an_engine_tells_its_figures_from_its_own_process(
    engine: Tree,
) -> None:
    figures = await figures_of(engine.serving)
    of = {"deployment": "e", "replica": "0"}
    assert figures.one("atomr_infer_engine_told", **of) == 1.0
    assert figures.one("atomr_infer_engine_running_requests", **of) == 0.0
    assert figures.one("atomr_infer_engine_steps_total", **of) == 0.0
    assert figures.types["atomr_infer_engine_steps"] == "counter"
    await engine.ask("count 3", model="e")
    figures = await figures_of(engine.serving)
    assert figures.one("atomr_infer_engine_steps_total", **of) == 3.0


async def test_an_engine_that_is_silent_costs_its_own_figures(
    engine: Tree,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for how, said in (
        ("twice", "two figures are called steps"),
        ("stall", "e/0 told no figures in 0.05 s"),
    ):
        await engine.ask(f"tell {how}", model="e")
        with caplog.at_level(logging.WARNING):
            figures = await figures_of(engine.serving)
        assert figures.one("atomr_infer_engine_told", deployment="e") == 0.0
        assert figures.of("atomr_infer_engine_steps_total", "deployment") == {}
        assert figures.one("atomr_infer_replica_serving", deployment="e") == 1.0
        assert said in caplog.text
        monkeypatch.setattr(engines, "ASKED_S", 0.05)  # the next one is silent
    # It has done nothing but be silent, and goes on.
    monkeypatch.undo()
    await engine.ask("tell ok", model="e")
    figures = await figures_of(engine.serving)
    assert figures.one("atomr_infer_engine_told", deployment="e") == 1.0
    assert figures.one("atomr_infer_replica_starts_total", deployment="e") == 1.0


async def test_a_runner_that_tells_nothing_is_no_engine_that_is_silent(
    open_tree: OpenTree,
) -> None:
    async with open_tree(LAB) as tree:
        figures = await figures_of(tree.serving)
    assert figures.one("atomr_infer_replica_serving") == 1.0
    assert figures.of("atomr_infer_engine_told", "deployment") == {}


class Broken(MockRunner):
    """A runner in this process whose plugin has a bug."""

    async def figures(self) -> tuple[Figure, ...]:
        raise ZeroDivisionError("a bug")


async def test_a_plugin_s_bug_costs_its_own_figures(
    open_tree: OpenTree, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_tree() as tree:
        tree.lab.plan.append(Broken(MockScript()))
        await tree.serving.deploy(LAB)
        figures = await figures_of(tree.serving)
    assert figures.one("atomr_infer_replica_serving") == 1.0
    assert figures.one("atomr_infer_engine_told", deployment="m") == 0.0
    assert "m/0 told no figures" in caplog.text
    assert "ZeroDivisionError: a bug" in caplog.text
