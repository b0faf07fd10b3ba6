"""An engine that lives and does not answer is found out, and started anew."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr_infer.errors import EngineError, OverloadedError
from atomr_infer.model.deployment import Deployment, RetryPolicy, Serving, Timeouts
from atomr_infer.testing.mock_script import MockScript
from tests.serving.conftest import until

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.serving.conftest import OpenTree

PROBED = Serving(probe_s=10.0)
M = Deployment(
    name="m",
    runtime="lab",
    serving=PROBED,
    timeouts=Timeouts(first_token_s=5.0),
    retry=RetryPolicy(max_attempts=1),
)


@pytest.fixture
def way() -> str:
    """The straight way where there is one: a probe knows neither."""
    return "straight"


async def test_an_engine_that_answers_is_left_alone(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        await trio.sleep(101)
        (runner,) = tree.lab.runners
        asked = [(b.messages[0].text, b.sampling.max_tokens) for b in runner.batches]
        assert asked == [("Hi", 1)] * 10
        assert (await tree.replica()).running == 0


async def test_one_that_says_nothing_is_started_anew(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        tree.lab.runners[0].script = MockScript(hang_after=0)
        await until(lambda: tree.lab.opened == 2)
        assert 15 <= trio.current_time() <= 16
        last = tree.serving.routing("m").last_error
        assert last is not None
        assert (last.kind, last.message) == (
            "engine_hung",
            "the engine did not answer a health probe within 5 s",
        )
        assert len((await tree.ask()).texts) > 0


async def test_one_whose_engine_is_broken_is_started_anew(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        broken = MockScript(fail_after=0, fail_kind=EngineError.kind)
        tree.lab.runners[0].script = broken
        await until(lambda: tree.lab.opened == 2)
        assert trio.current_time() < 11


async def test_one_that_refuses_a_probe_is_left_alone(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        refuses = MockScript(fail_after=0, fail_kind=OverloadedError.kind)
        tree.lab.runners[0].script = refuses
        await trio.sleep(50)
        assert tree.lab.opened == 1


async def test_a_probe_waits_for_its_turn(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    serving = attrs.evolve(PROBED, max_concurrency=1)
    timeouts = Timeouts(first_token_s=30.0)
    async with open_tree(attrs.evolve(M, serving=serving, timeouts=timeouts)) as tree:
        tree.lab.runners[0].script = MockScript(tokens=2, delay_s=20.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(tree.ask, "long"))
            await trio.sleep(39)
            assert len(tree.lab.runners[0].batches) == 1
            assert (await tree.replica()).waiting == 1
        await until(lambda: len(tree.lab.runners[0].batches) == 2)
        assert tree.lab.opened == 1


async def test_probes_do_not_keep_an_engine_from_its_rest(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    serving = attrs.evolve(PROBED, idle_stop_s=60.0)
    async with open_tree(attrs.evolve(M, serving=serving)) as tree:
        phases = tree.serving.readiness
        await until(lambda: phases().phases["m"] == "asleep", within_s=100)
        await trio.sleep(100)
        assert tree.lab.opened == 1


async def test_it_is_probed_from_when_it_is_told_so_while_it_serves(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(attrs.evolve(M, serving=Serving())) as tree:
        runner = tree.lab.runners[0]
        await trio.sleep(100)
        probes = [len(runner.batches)]
        await tree.serving.replace(M)
        await trio.sleep(15)
        probes.append(len(runner.batches))
        await tree.serving.replace(attrs.evolve(M, serving=Serving()))
        await trio.sleep(100)
        probes.append(len(runner.batches))
        assert probes == [0, 1, 1]
