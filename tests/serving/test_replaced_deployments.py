"""A deployment becomes another one while it serves: nobody's request ends for it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr.otp import supervision_tree, which_children
from atomr.process import current_node, kill, whereis
from atomr_infer.errors import (
    ConfigError,
    EngineCrashedError,
    EngineStartError,
    ModelNotFoundError,
    NotReadyError,
    RateLimitedError,
)
from atomr_infer.errors import UpstreamError as Failed
from atomr_infer.model.deployment import (
    Deployment,
    RetryPolicy,
    Serving,
    Timeouts,
)
from atomr_infer.model.failover import BreakerPolicy, Swap
from atomr_infer.model.secret import Secret
from atomr_infer.policy.failures.breaker import Circuit
from atomr_infer.serving.names import (
    DEPLOYMENTS,
    MANAGER,
    coordinator_name,
    engine_core_name,
)
from atomr_infer.serving.replicas.replica import Phase
from atomr_infer.testing.mock_script import MockScript
from tests.serving.acts import Player, fails, says
from tests.serving.conftest import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from tests.serving.conftest import Collected, OpenTree, Tree

ONCE = RetryPolicy(max_attempts=1)
M = Deployment(name="m", runtime="lab", retry=ONCE)
OTHER = attrs.evolve(M, model="other")
AFTER = attrs.evolve(M, serving=Serving(swap=Swap.AFTER))


@asynccontextmanager
async def asking(tree: Tree, count: int = 1) -> AsyncIterator[list[Collected]]:
    """Requests that run before the block does, and have ended after it."""
    answers: list[Collected] = []

    async def ask() -> None:
        answers.append(await tree.ask())

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        yield answers


async def contexts(name: str = "m", number: int = 0) -> list[str]:
    """The ids of what one replica's supervisor has, behind its engine core."""
    (tree,) = [c.pid for c in await which_children(DEPLOYMENTS) if c.id == name]
    assert tree is not None
    (replicas,) = [c.pid for c in await which_children(tree) if c.id == "replicas"]
    assert replicas is not None
    found = await which_children(replicas)
    (replica,) = [c.pid for c in found if c.id == f"replica-{number}"]
    assert replica is not None
    return [child.id for child in await which_children(replica)][1:]


async def test_what_runs_ends_on_its_engine_and_what_comes_goes_to_the_new_one(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        tree.lab.plan = [
            Player([says("old", before_s=50)]),
            Player([says("new"), says("newer")]),
        ]
        await tree.serving.deploy(M)
        async with asking(tree) as old:
            await tree.serving.replace(OTHER)
            assert tree.serving.deployments == {"m": OTHER}
            assert (await tree.ask()).texts == ["new"]
            assert (tree.lab.opened, tree.lab.closed) == (2, 0)
            assert await contexts() == ["context", "context-1"]
            assert not old
        assert [answer.texts for answer in old] == [["old"]]
        await until(lambda: tree.lab.closed == 1)
        await trio.testing.wait_all_tasks_blocked()
        assert await contexts() == ["context-1"]
        assert (await tree.ask()).texts == ["newer"]
        assert tree.serving.readiness().ready


async def test_a_new_engine_that_cannot_start_leaves_all_as_it_was(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        tree.lab.plan = [Player([says("one"), says("two")]), EngineStartError("no")]
        await tree.serving.deploy(M)
        assert (await tree.ask()).texts == ["one"]
        with pytest.raises(EngineStartError, match="no"):
            await tree.serving.replace(OTHER)
        assert tree.serving.deployments == {"m": M}
        assert await contexts() == ["context"]
        assert tree.serving.routing("m").last_error is None
        assert (await tree.ask()).texts == ["two"]


async def test_one_of_several_that_cannot_start_leaves_all_as_they_were(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    two = attrs.evolve(M, serving=Serving(replicas=2))
    async with open_tree(two) as tree:
        tree.lab.plan = [MockScript(), EngineStartError("no")]
        with pytest.raises(EngineStartError, match="no"):
            await tree.serving.replace(attrs.evolve(two, model="other"))
        assert [await contexts(number=n) for n in (0, 1)] == [["context"]] * 2
        assert (tree.lab.opened, tree.lab.closed) == (3, 1)
        assert (await tree.ask()).texts == ["one", " two"]


async def test_a_replacement_that_is_given_up_leaves_all_as_it_was(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        tree.lab.plan = [MockScript(load_s=60)]
        with trio.move_on_after(5) as patience:
            await tree.serving.replace(OTHER)
        assert patience.cancelled_caught
        assert tree.serving.deployments == {"m": M}
        assert await contexts() == ["context"]
        assert (await tree.ask()).texts == ["one", " two"]
        await tree.serving.replace(OTHER)
        assert tree.serving.deployments == {"m": OTHER}


async def test_two_replacements_at_once_are_one_and_a_refusal(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree, trio.open_nursery() as nursery:
        tree.lab.plan = [MockScript(load_s=60)]
        nursery.start_soon(tree.serving.replace, OTHER)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(NotReadyError, match="m is being replaced"):
            await tree.serving.replace(M)


async def test_who_waits_is_answered_by_the_new_engine_under_its_models_name(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    one = attrs.evolve(M, serving=Serving(max_concurrency=1))
    async with open_tree() as tree:
        new = Player([says("new")])
        tree.lab.plan = [Player([says("old", before_s=9)]), new]
        await tree.serving.deploy(one)
        async with asking(tree, count=2) as answers:
            await tree.serving.replace(attrs.evolve(one, model="other"))
        assert [answer.texts for answer in answers] == [["old"], ["new"]]
        assert [batch.model for batch in new.batches] == ["other"]


async def test_what_is_no_engines_changes_in_place(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        wanted = attrs.evolve(
            M,
            serves=("m", "alias"),
            serving=Serving(max_concurrency=1, max_queue=0),
            timeouts=Timeouts(total_s=7),
        )
        await tree.serving.replace(wanted)
        assert tree.lab.opened == 1
        assert (await tree.replica()).limit == 1
        assert (await tree.ask(model="alias")).texts == ["one", " two"]
        await tree.serving.replace(M)
        assert (await tree.replica()).limit == tree.lab.runners[
            0
        ].capabilities.max_concurrency
        with pytest.raises(ModelNotFoundError):
            await tree.ask(model="alias")


async def test_who_waits_runs_when_more_may(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    one = attrs.evolve(M, serving=Serving(max_concurrency=1))
    async with open_tree() as tree:
        tree.lab.plan = [Player([says("a", before_s=50), says("b", before_s=1)])]
        await tree.serving.deploy(one)
        async with asking(tree, count=2) as answers:
            assert (await tree.replica()).waiting == 1
            await tree.serving.replace(M)
            await until(lambda: len(answers) == 1, within_s=5)
        assert [answer.texts for answer in answers] == [["b"], ["a"]]


async def test_replicas_come_and_go_with_their_requests(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        tree.lab.plan = [
            Player([says("zero", before_s=50)]),
            Player([says("one", before_s=90)]),
        ]
        await tree.serving.deploy(M)
        await tree.serving.replace(attrs.evolve(M, serving=Serving(replicas=2)))
        assert [replica.number for replica in tree.serving.replicas("m")] == [0, 1]
        async with asking(tree, count=2) as answers:
            await tree.serving.replace(M)
            await trio.testing.wait_all_tasks_blocked()
            assert [replica.number for replica in tree.serving.replicas("m")] == [0]
            assert tree.lab.closed == 0
        assert sorted(answer.texts[0] for answer in answers) == ["one", "zero"]
        await until(lambda: tree.lab.closed == 1)
        assert whereis(engine_core_name("m", 1)) is None
        assert tree.serving.readiness().ready


async def test_a_replica_that_goes_stays_when_it_is_wanted_again(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    two = attrs.evolve(M, serving=Serving(replicas=2))
    async with open_tree() as tree:
        tree.lab.plan = [Player([says(n, before_s=50)]) for n in "ab"]
        await tree.serving.deploy(two)
        async with asking(tree, count=2):
            await tree.serving.replace(M)
            await trio.testing.wait_all_tasks_blocked()
            await tree.serving.replace(two)
        await trio.testing.wait_all_tasks_blocked()
        assert [replica.number for replica in tree.serving.replicas("m")] == [0, 1]
        assert (tree.lab.opened, tree.lab.closed) == (2, 0)


async def test_a_circuit_stays_with_its_endpoint(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    here = attrs.evolve(
        M, options={"endpoint": "https://a"}, breaker=BreakerPolicy(max_failures=1)
    )
    async with open_tree() as tree:
        tree.lab.plan = [Player([fails(Failed("no"))])]
        await tree.serving.deploy(here)
        with pytest.raises(Failed):
            await tree.ask()
        guard = tree.serving.breakers.of("m")
        assert guard is not None
        assert guard.breaker.state is Circuit.OPEN
        same = attrs.evolve(here, options={"endpoint": "https://a", "x": 1})
        await tree.serving.replace(same)
        assert tree.serving.breakers.of("m") is guard
        there = attrs.evolve(here, options={"endpoint": "https://b"})
        await tree.serving.replace(there)
        assert list(tree.serving.breakers.guards) == ["lab https://b"]
        assert (await tree.ask()).texts == ["one", " two"]


async def test_two_of_one_endpoint_take_another_breaker_together(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    first = attrs.evolve(M, options={"endpoint": "https://a"})
    second = attrs.evolve(first, name="n")
    calm = BreakerPolicy(max_failures=99)
    async with open_tree(first, second) as tree:
        with pytest.raises(ConfigError, match="its breaker differs from that of 'n'"):
            await tree.serving.replace(attrs.evolve(first, breaker=calm))
        await tree.serving.replace(
            *(attrs.evolve(each, breaker=calm) for each in (first, second))
        )
        guard = tree.serving.breakers.of("m")
        assert guard is not None
        assert guard.breaker.policy == calm


async def test_several_become_others_together_or_not_at_all(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    n = attrs.evolve(M, name="n")
    wanted = [attrs.evolve(each, model="other") for each in (M, n)]
    async with open_tree(M, n) as tree:
        tree.lab.plan = [MockScript(), EngineStartError("no")]
        with pytest.raises(EngineStartError, match="no"):
            await tree.serving.replace(*wanted)
        assert tree.serving.deployments == {"m": M, "n": n}
        assert [await contexts(name) for name in "mn"] == [["context"]] * 2
        await tree.serving.replace(*wanted)
        assert list(tree.serving.deployments.values()) == wanted


async def test_two_swap_who_falls_back_to_whom(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    n = attrs.evolve(M, name="n", fallbacks=("m",))
    async with open_tree(M, n) as tree:
        await tree.serving.replace(
            attrs.evolve(M, fallbacks=("n",)), attrs.evolve(n, fallbacks=())
        )
        assert [d.name for d in tree.serving.table.deployments] == ["m", "n"]


async def test_an_engine_without_place_for_two_ends_before_the_next_opens(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        new = Player([says("new")])
        tree.lab.plan = [Player([says("old", before_s=9)]), new]
        await tree.serving.deploy(AFTER)
        async with asking(tree) as answers, trio.open_nursery() as nursery:
            nursery.start_soon(tree.serving.replace, attrs.evolve(AFTER, model="other"))
            await trio.testing.wait_all_tasks_blocked()
            assert tree.lab.opened == 1
            assert (await tree.replica()).phase is Phase.LOADING
            assert (await tree.ask()).texts == ["new"]
            assert tree.lab.closed == 1
        assert [answer.texts for answer in answers] == [["old"]]
        assert await contexts() == ["context-1"]
        assert [batch.model for batch in new.batches] == ["other"]


async def test_after_one_that_cannot_start_the_old_ones_are_opened_again(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    two = attrs.evolve(M, serving=Serving(replicas=2, swap=Swap.AFTER))
    async with open_tree(two) as tree:
        tree.lab.plan = [MockScript(), EngineStartError("no")]
        with pytest.raises(EngineStartError, match="no"):
            await tree.serving.replace(attrs.evolve(two, model="other"))
        assert tree.serving.deployments == {"m": two}
        assert (tree.lab.opened, tree.lab.closed) == (5, 3)
        assert [await contexts(number=n) for n in (0, 1)] == [["context-2"]] * 2
        assert all(replica.ready for replica in tree.serving.replicas("m"))
        assert (await tree.ask()).texts == ["one", " two"]


async def test_one_after_the_other_that_is_given_up_serves_the_old_one_again(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(AFTER) as tree:
        tree.lab.plan = [MockScript(load_s=60)]
        with trio.move_on_after(5):
            await tree.serving.replace(attrs.evolve(AFTER, model="other"))
        assert tree.serving.deployments == {"m": AFTER}
        assert (await tree.ask()).texts == ["one", " two"]
        assert await contexts() == ["context-2"]


async def test_an_old_engine_that_breaks_cuts_its_own_requests_only(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        tree.lab.plan = [MockScript(hang_after=1), MockScript(load_s=1)]
        await tree.serving.deploy(M)
        with pytest.raises(EngineCrashedError):
            try:
                async with asking(tree):
                    await tree.serving.replace(OTHER)
                    tree.lab.runners[0].fail(EngineCrashedError("gone"))
            except* EngineCrashedError as group:
                raise group.exceptions[0] from None
        await trio.testing.wait_all_tasks_blocked()
        assert (await tree.replica()).starts == 2
        assert (await tree.ask()).texts == ["one", " two"]
        assert await contexts() == ["context-1"]


async def test_a_new_engine_that_breaks_later_is_opened_anew(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        await tree.serving.replace(OTHER)
        tree.lab.runners[1].fail(EngineCrashedError("gone"))
        await until(lambda: tree.lab.opened == 3)
        assert (await tree.ask()).texts == ["one", " two"]
        assert await contexts() == ["context-1"]


async def test_an_engine_core_that_is_killed_finds_the_right_engine(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        await tree.serving.replace(OTHER)
        core = whereis(engine_core_name("m", 0))
        assert core is not None
        kill(core)
        await until(lambda: tree.serving.readiness().ready and tree.lab.opened == 3)
        assert (await tree.ask()).texts == ["one", " two"]


async def test_one_that_is_removed_ends_with_its_last_request(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    one = attrs.evolve(M, serving=Serving(max_concurrency=1))
    async with open_tree() as tree:
        tree.lab.plan = [Player([says("a", before_s=50), says("b", before_s=50)])]
        await tree.serving.deploy(one)
        async with asking(tree, count=2) as answers:
            began = trio.current_time()
            assert await tree.serving.undeploy("m", drain_s=200)
            assert trio.current_time() - began == pytest.approx(100, abs=1)
        assert [answer.texts for answer in answers] == [["a"], ["b"]]
        assert await which_children(DEPLOYMENTS) == ()
        await tree.serving.deploy(M)
        assert (await tree.ask()).texts == ["one", " two"]


async def test_who_takes_longer_than_a_drain_is_told(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree, trio.open_nursery() as nursery:
        tree.lab.plan = [Player([says("a", before_s=50)])]
        await tree.serving.deploy(M)
        told: list[str] = []

        async def ask() -> None:
            # Who has seen nothing looks for another one, and finds none.
            with pytest.raises((NotReadyError, ModelNotFoundError)) as caught:
                await tree.ask()
            told.append(caught.value.message)

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert await tree.serving.undeploy("m", drain_s=10)
        await trio.testing.wait_all_tasks_blocked()
        nowhere = "the model 'm' does not exist: nothing is deployed"
        assert told in (["m was stopped"], [nowhere])
        assert tree.serving.draining == frozenset()
        assert not await tree.serving.undeploy("m", drain_s=10)


async def test_what_drains_is_nobodys_any_more_and_is_not_deployed_twice(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree, trio.open_nursery() as nursery:
        tree.lab.plan = [Player([says("a", before_s=50)])]
        await tree.serving.deploy(M)
        async with asking(tree) as answers:

            async def remove() -> None:
                assert await tree.serving.undeploy("m", drain_s=200)

            nursery.start_soon(remove)
            await trio.testing.wait_all_tasks_blocked()
            assert tree.serving.draining == {"m"}
            with pytest.raises(ModelNotFoundError):
                await tree.ask()
            with pytest.raises(NotReadyError, match="m is draining"):
                await tree.serving.deploy(M)
        assert [answer.texts for answer in answers] == [["a"]]


async def test_who_is_loading_or_unknown_is_not_replaced(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree, trio.open_nursery() as nursery:
        with pytest.raises(ConfigError, match="there is no deployment 'm'"):
            await tree.serving.replace(M)
        tree.lab.plan = [MockScript(load_s=5)]
        nursery.start_soon(tree.serving.deploy, M)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(NotReadyError, match="m is loading"):
            await tree.serving.replace(OTHER)


async def test_one_that_has_failed_is_deployed_anew(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        while tree.serving.readiness().phases["m"] != "failed":
            coordinator = whereis(coordinator_name("m"))
            if coordinator is not None:
                kill(coordinator)
            await trio.testing.wait_all_tasks_blocked()
        tree.lab.plan = [EngineStartError("no")]
        with pytest.raises(EngineStartError, match="no"):
            await tree.serving.replace(OTHER)
        assert tree.serving.deployments == {}
        await tree.serving.deploy(M)
        assert (await tree.ask()).texts == ["one", " two"]


async def test_keys_stay_as_they_are_judged_where_they_are_found_as_before(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    keyed = attrs.evolve(M, credentials=(Secret("a"), Secret("b")))
    async with open_tree(keyed) as tree:
        keys = tree.serving.blueprint("m").keys
        await tree.serving.replace(attrs.evolve(keyed, model="other"))
        assert tree.serving.blueprint("m").keys is keys
        await tree.serving.replace(attrs.evolve(keyed, credentials=(Secret("a"),)))
        assert tree.serving.blueprint("m").keys is not keys
        assert tree.serving.renew_credentials("m")


async def test_a_limit_that_was_learnt_stays_with_its_upstream(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    here = attrs.evolve(M, options={"endpoint": "https://a"})
    async with open_tree() as tree:
        limited = RateLimitedError("slow down")
        tree.lab.plan = [Player([fails(limited)])]
        await tree.serving.deploy(here)
        with pytest.raises(RateLimitedError):
            await tree.ask()
        await trio.testing.wait_all_tasks_blocked()
        learnt = (await tree.replica()).limit
        await tree.serving.replace(attrs.evolve(here, model="other"))
        assert (await tree.replica()).limit == learnt == 1
        there = attrs.evolve(here, options={"endpoint": "https://b"})
        await tree.serving.replace(there)
        assert (await tree.replica()).limit > learnt


async def test_a_manager_that_is_killed_forgets_no_replacement(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        await tree.serving.replace(OTHER)
        manager = whereis(MANAGER)
        assert manager is not None
        kill(manager)
        await until(lambda: whereis(MANAGER) not in (None, manager))
        await tree.serving.replace(M)
        assert (await tree.ask()).texts == ["one", " two"]
        await trio.testing.wait_all_tasks_blocked()
        assert await contexts() == ["context-2"]


@pytest.mark.parametrize(
    "count", [10, pytest.param(100, marks=pytest.mark.slow)], ids=str
)
async def test_many_replacements_leave_nothing_behind(
    open_tree: OpenTree, autojump_clock: MockClock, count: int
) -> None:
    async with open_tree(M) as tree:
        before = _processes()
        for number in range(count):
            await tree.serving.replace(attrs.evolve(M, model=f"m{number}"))
            assert (await tree.ask()).texts == ["one", " two"]
        await trio.testing.wait_all_tasks_blocked()
        assert _processes() == before
        assert (tree.lab.opened, tree.lab.closed) == (count + 1, count)
        assert len(await contexts()) == 1


def _processes() -> int:
    tree = supervision_tree(current_node())
    assert tree is not None

    def count(node: object) -> int:
        children = getattr(node, "children", ())
        return 1 + sum(map(count, children))

    return count(tree)
