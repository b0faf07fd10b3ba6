"""What holds for each kind of pipeline, in TOML, over models here and elsewhere.

Each is one deployment, ``auto``, that clients ask as a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing

from atomr import telemetry
from atomr_infer.config.load import parse_config
from atomr_infer.errors import UpstreamError
from atomr_infer.model.batch import RawChunk, Sampling, TokenChunk
from atomr_infer.testing.mock import MockRunner
from atomr_infer.testing.upstream import open_openai_upstream
from atomr_infer.testing.upstream_script import HangMidStream, Happy
from tests.pipeline.conftest import Heard, OpenTree
from tests.serving.far.nodes import until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio.testing import MockClock

    from atomr_infer.model.deployment import Deployment
    from tests.pipeline.conftest import Tree

PATTERNS = {
    "cascade": 'stages = [{ model = "first", matches = "x" }, "second"]',
    "router": 'routes = [{ model = "first", matches = "hello" }]\ndefault = "second"',
    "pool": 'members = ["first", "second"]\npolicy = "round_robin"',
    "cache": 'model = "first"\nrequests = "all"\nmax_bytes = 20000',
    "batching": 'model = "first"',
    "hybrid": 'router = "second"\nplanner = "second"\nexecutor = "first"',
    "tiers": 'tiers = ["first", "second"]\nbudget_usd = 1000.0',
}
# What all models say, which has a router plan.
REPLY = "plan it"
VERDICTS = {
    "cascade": ["first (refused: matches)", "second"],
    "hybrid": ["second (router: plan)", "second (planned)", "first"],
}
ONE = ["first"]

MODEL = """
[[deployment]]
name = "{name}"
runtime = "{runtime}"
price = {{ input = 1000.0, output = 2000.0 }}
retry = {{ max_attempts = 1 }}
{more}
"""
PIPELINE = """
[[deployment]]
name = "auto"
runtime = "{pattern}"

[deployment.options]
{options}
"""
EVERY = pytest.mark.parametrize("pattern", PATTERNS)


def written(pattern: str, runtime: str, *more: str) -> tuple[Deployment, ...]:
    """Return two models and the pipeline over them, from TOML."""
    models = [
        MODEL.format(name=name, runtime=runtime, more=each)
        for name, each in zip(("first", "second"), more, strict=True)
    ]
    pipeline = PIPELINE.format(pattern=pattern, options=PATTERNS[pattern])
    return parse_config("".join([*models, pipeline]), "atomr.toml").deployments


def here(pattern: str, first: str, second: str) -> tuple[Deployment, ...]:
    given = [f"options = {{ {each} }}" for each in (first, second)]
    return written(pattern, "seen", *given)


def elsewhere(pattern: str, endpoint: str) -> tuple[Deployment, ...]:
    more = f'model = "gpt-4.1"\noptions = {{ endpoint = "{endpoint}" }}'
    return written(pattern, "openai", more, more)


async def at_rest(tree: Tree) -> None:
    """Wait until nothing of any request is left."""
    for name in ("first", "second", "auto"):
        for number in range(len(tree.serving.replicas(name))):

            def is_free(name: str = name, number: int = number) -> bool:
                return tree.serving.replicas(name)[number].outstanding == 0

            await until(is_free, f"{name} is busy")


async def one_trace(tree: Tree, pattern: str, runtime: str) -> None:
    """Ask, and find all that was asked in the one event, each with its cost."""
    told: list[Mapping[str, object]] = []
    stop = ("atomr_infer", "request", "stop")
    telemetry.attach("told", stop, lambda *event: told.append(event[2]))
    try:
        heard = await tree.ask("hello", sampling=Sampling(max_tokens=20))
    finally:
        telemetry.detach("told")
    assert heard.text == REPLY
    assert heard.verdicts == VERDICTS.get(pattern, ONE)
    [about] = [each for each in told if each["model"] == "auto"]
    stages = about["stages"]
    assert isinstance(stages, tuple)
    assert [str(stage) for stage in stages] == list(heard.done.stages)  # type: ignore[union-attr] # it is done
    costs = [stage.cost.pico_usd for stage in stages]
    assert all(cost > 0 for cost in costs)
    assert all(stage.runtime == runtime for stage in stages)
    assert heard.done is not None
    assert heard.done.cost is not None
    assert heard.done.cost.pico_usd == sum(costs)
    assert [name for name, _ in tree.ledger()] == [s.deployment for s in stages]
    await at_rest(tree)


@EVERY
async def test_it_is_one_request_with_a_stage_and_a_cost_for_each_model_here(
    open_tree: OpenTree, pattern: str
) -> None:
    says = f'reply = "{REPLY}"'
    async with open_tree(*here(pattern, says, says)) as tree:
        await one_trace(tree, pattern, "seen")


@EVERY
async def test_it_is_one_request_with_a_stage_and_a_cost_for_each_model_elsewhere(
    open_tree: OpenTree, pattern: str
) -> None:
    async with (
        open_openai_upstream(otherwise=Happy(text=REPLY)) as upstream,
        open_tree(*elsewhere(pattern, upstream.base_url)) as tree,
    ):
        await one_trace(tree, pattern, "openai")
        assert len(upstream.requests) == len(VERDICTS.get(pattern, ONE))


async def cancelled(tree: Tree, under_way: trio.Event) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.ask, "hello")
        await under_way.wait()
        nursery.cancel_scope.cancel()
    await at_rest(tree)


@EVERY
async def test_a_client_that_leaves_ends_what_runs_here(
    open_tree: OpenTree, autojump_clock: MockClock, pattern: str
) -> None:
    async with open_tree(*here(pattern, *["hang_after = 0"] * 2)) as tree:
        began = trio.Event()

        async def wait() -> None:
            await trio.sleep(0.5)
            assert sum(runner.active for runner in tree.runners.values()) == 1
            began.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await cancelled(tree, began)
        assert [runner.active for runner in tree.runners.values()] == [0, 0]


@EVERY
async def test_a_client_that_leaves_ends_what_runs_elsewhere(
    open_tree: OpenTree, pattern: str
) -> None:
    hangs = HangMidStream(after=1)
    async with (
        open_openai_upstream(otherwise=hangs) as upstream,
        open_tree(*elsewhere(pattern, upstream.base_url)) as tree,
    ):
        began = trio.Event()

        async def wait() -> None:
            await upstream.wait_for_requests(1)
            began.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await cancelled(tree, began)
        with trio.fail_after(30):
            await upstream.requests[0].client_left.wait()
        assert len(upstream.requests) == 1


@attrs.define
class Slow(Heard):
    """A client that takes one chunk, and waits.

    Attributes:
        goes_on: set when it takes the others.
    """

    goes_on: trio.Event = attrs.field(factory=trio.Event)

    async def chunk(self, chunk: TokenChunk | RawChunk) -> None:
        await super().chunk(chunk)
        await self.goes_on.wait()


@EVERY
async def test_a_model_makes_no_more_than_a_slow_client_takes(
    open_tree: OpenTree,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    pattern: str,
) -> None:
    made: dict[int, int] = {}
    before_token = MockRunner._before_token

    async def counted(self: MockRunner, position: int) -> None:
        made[id(self)] = position + 1
        await before_token(self, position)

    monkeypatch.setattr(MockRunner, "_before_token", counted)
    says = ['reply = "plan", tokens = 1000', 'reply = "plan"']
    if pattern == "cascade":
        says.reverse()  # what its last stage says is not held
    async with open_tree(*here(pattern, *says)) as tree:
        answers = tree.runners["second" if pattern == "cascade" else "first"]
        slow = Slow()
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                await tree.ask("hello", heard=slow, sampling=Sampling(max_tokens=1000))

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked(0.1)
            assert len(slow.chunks) == 1
            # A cache keeps as much for who may join as it may hold.
            assert made[id(answers)] <= (60 if pattern == "cache" else 5)
            slow.goes_on.set()
        assert made[id(answers)] == 1000
        assert slow.text.split() == ["plan"] * 1000


@attrs.define(eq=False)
class CancelAt(trio.abc.Instrument):
    """Cancels a scope behind a step of any task.

    Attributes:
        step: which.
        scope: what is cancelled.
        taken: how many steps there were.
    """

    step: int
    scope: trio.CancelScope
    taken: int = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        del task
        self.taken += 1
        if self.taken == self.step:
            self.scope.cancel()


@EVERY
@pytest.mark.parametrize("more", ["", ", fail_after = 2"], ids=["answers", "breaks"])
async def test_whenever_a_client_leaves_nothing_is_left(
    open_tree: OpenTree, autojump_clock: MockClock, pattern: str, more: str
) -> None:
    says = f'reply = "plan it now"{more}'
    cancelled, broken, over = 0, 0, False
    async with open_tree(*here(pattern, says, says)) as tree:
        for step in range(1, 500):
            with trio.CancelScope() as scope:
                at = CancelAt(step, scope)
                trio.lowlevel.add_instrument(at)
                try:
                    # Of a cache, none is the one before.
                    await tree.ask(f"hello {step}", sampling=Sampling(max_tokens=20))
                except UpstreamError:
                    broken += 1
                finally:
                    trio.lowlevel.remove_instrument(at)
            cancelled += scope.cancelled_caught
            await at_rest(tree)
            assert [runner.active for runner in tree.runners.values()] == [0, 0]
            over = at.taken < step
            if over:
                break
    assert over
    assert cancelled > 5
    assert (broken > 0) == (more != "")
