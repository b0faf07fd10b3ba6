"""Two attempts race for the first token, and the bill says so."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr.otp import which_children
from atomr_infer import errors
from atomr_infer.model.batch import FinishReason, RawChunk, TokenChunk, Usage
from atomr_infer.model.deployment import Deployment, RetryPolicy, Serving, Timeouts
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.failover import HedgePolicy, OnCapacity, OnCut
from atomr_infer.model.source import Source
from atomr_infer.serving.names import REQUESTS
from atomr_infer.serving.requests.served import Spent, Tried
from tests.serving.acts import USAGE, Act, Player, cut, fails, says, stalls
from tests.serving.conftest import Collected

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.serving.conftest import OpenTree, Tree

ALWAYS = HedgePolicy(after_s=2.0, max_fraction=1.0)
ONCE = RetryPolicy(max_attempts=1)

A = Deployment(
    name="m", runtime="lab", retry=ONCE, hedge=ALWAYS, options={"endpoint": "a"}
)
TWO = attrs.evolve(A, serving=Serving(replicas=2))
WITH_B = attrs.evolve(A, fallbacks=["b"])
B = Deployment(name="b", runtime="lab", retry=ONCE, options={"endpoint": "b"})


async def deploy(tree: Tree, *pairs: tuple[Deployment, list[Player]]) -> None:
    for deployment, players in reversed(pairs):
        tree.lab.plan = list(players)
        await tree.serving.deploy(deployment)


async def nothing_left(tree: Tree) -> None:
    await trio.testing.wait_all_tasks_blocked()
    for name in tree.serving.deployments:
        for replica in tree.serving.replicas(name):
            assert (replica.running, replica.waiting, replica.arriving) == (0, 0, 0)
        guard = tree.serving.breakers.of(name)
        assert guard is not None
        assert guard.breaker.probes == 0
    assert await which_children(REQUESTS) == ()


async def test_a_slow_first_token_is_raced_by_another_replica(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    slow, quick = Player([stalls()]), Player([says("Hi")])
    async with open_tree() as tree:
        await deploy(tree, (TWO, [slow, quick]))
        began_at = trio.current_time()
        answer = await tree.ask("12345678")
        assert trio.current_time() - began_at == pytest.approx(2.0)
        await nothing_left(tree)
    assert answer.texts == ["Hi"]
    assert (slow.left, slow.active, quick.left) == (1, 0, 0)
    assert answer.served[0].attempts == (Tried("m", "hedge_lost"), Tried("m"))
    assert answer.result is not None
    lost = Usage(input_uncached=2, estimated=True, interrupted=True)
    assert answer.result.spent == (
        Spent("m", "m", lost),
        Spent("m", "m", Usage(input_uncached=3, output_text=2)),
    )


async def test_without_another_replica_the_first_fallback_races(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    slow, quick = Player([stalls()]), Player([says("Hi")])
    async with open_tree() as tree:
        await deploy(tree, (WITH_B, [slow]), (B, [quick]))
        answer = await tree.ask()
        await nothing_left(tree)
    assert answer.served[0].deployment == "b"
    assert answer.served[0].attempts == (Tried("m", "hedge_lost"), Tried("b"))


async def test_the_first_attempt_may_still_win(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    first, second = Player([says("Hi", before_s=3.0)]), Player([stalls()])
    async with open_tree() as tree:
        await deploy(tree, (WITH_B, [first]), (B, [second]))
        answer = await tree.ask()
        await nothing_left(tree)
    assert answer.texts == ["Hi"]
    assert answer.served[0].attempts == (Tried("b", "hedge_lost"), Tried("m"))
    assert second.left == 1


async def test_a_quick_first_token_is_not_hedged(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    second = Player()
    slow_end = Act((TokenChunk(text="a"), USAGE), before_s=1.0, hangs=True)
    bounded = attrs.evolve(WITH_B, timeouts=Timeouts(idle_s=10))
    async with open_tree() as tree:
        await deploy(tree, (bounded, [Player([slow_end])]), (B, [second]))
        with pytest.raises(errors.UpstreamTimeoutError):
            await tree.ask()
    assert second.batches == []


async def test_what_must_not_happen_twice_is_not_hedged(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    once = attrs.evolve(WITH_B, retry=RetryPolicy(idempotent=False))
    second = Player()
    async with open_tree() as tree:
        await deploy(tree, (once, [Player([says("Hi", before_s=9.0)])]), (B, [second]))
        assert (await tree.ask()).texts == ["Hi"]
    assert second.batches == []


async def test_an_answer_that_is_taken_up_is_not_hedged(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    twice = RetryPolicy(max_attempts=2)
    goes_on = attrs.evolve(WITH_B, on_cut=OnCut.CONTINUE, retry=twice)
    first, second = Player([cut("H"), says("i", before_s=9.0)]), Player()
    async with open_tree() as tree:
        await deploy(tree, (goes_on, [first]), (B, [second]))
        assert (await tree.ask()).texts == ["H", "i"]
    assert second.batches == []


async def test_hedges_are_a_share_of_all_requests(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    first = Player([says("Hi", before_s=3.0)] * 40)
    second = Player([says("Hi", before_s=3.0)] * 40)
    tenth = HedgePolicy(after_s=2.0, max_fraction=0.1)
    async with open_tree() as tree:
        await deploy(tree, (attrs.evolve(WITH_B, hedge=tenth), [first]), (B, [second]))
        for _ in range(40):
            await tree.ask()
    assert len(second.batches) == 4


async def test_a_first_attempt_that_fails_leaves_the_race_to_the_second(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    broken = Act(error=errors.UpstreamError("broken", status=500), before_s=3.0)
    async with open_tree() as tree:
        await deploy(
            tree,
            (WITH_B, [Player([broken])]),
            (B, [Player([says("Hi", before_s=5.0)])]),
        )
        answer = await tree.ask()
        await nothing_left(tree)
    assert answer.served[0].attempts == (Tried("m", "upstream"), Tried("b"))


async def test_when_both_fail_the_first_ones_error_decides(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    broken = Act(error=errors.UpstreamError("broken", status=500), before_s=5.0)
    slow_down = fails(errors.RateLimitedError("slow down", status=429))
    second = Player([slow_down])
    async with open_tree() as tree:
        await deploy(tree, (WITH_B, [Player([broken])]), (B, [second]))
        with pytest.raises(errors.UpstreamError) as caught:
            await tree.ask()
        await nothing_left(tree)
    assert caught.value.message == "broken (tried b: rate_limited, m: upstream)"
    assert len(second.batches) == 1


async def test_a_winner_that_is_cut_fails_as_any_other(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    sink = Collected()
    async with open_tree() as tree:
        await deploy(tree, (WITH_B, [Player([stalls()])]), (B, [Player([cut("H")])]))
        with pytest.raises(errors.StreamCutError, match=r"^b ended its answer"):
            await tree.ask(sink=sink)
        await nothing_left(tree)
    assert sink.texts == ["H"]


async def test_after_a_winner_that_is_cut_its_own_fallbacks_go_on(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    recovers = attrs.evolve(WITH_B, on_cut=OnCut.RESTART_MATCH)
    b = attrs.evolve(B, fallbacks=["c"])
    c = attrs.evolve(B, name="c", serves=["c"])
    async with open_tree() as tree:
        await deploy(
            tree,
            (recovers, [Player([stalls()])]),
            (b, [Player([cut("H")])]),
            (c, [Player([says("Hi")])]),
        )
        answer = await tree.ask()
        await nothing_left(tree)
    assert answer.texts == ["H", "i"]


async def test_a_place_in_the_queue_is_not_hedged(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    one = Serving(max_concurrency=1, on_capacity_exhausted=OnCapacity.QUEUE)
    first, second = Player([says("Hi", before_s=1.5)] * 9), Player()
    async with open_tree() as tree:
        await deploy(tree, (attrs.evolve(WITH_B, serving=one), [first]), (B, [second]))
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(tree.ask)
    assert second.batches == []


async def test_a_second_attempt_takes_no_place_in_a_queue(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    one = attrs.evolve(B, serving=Serving(max_concurrency=1))
    first, second = Player([says("Hi", before_s=9.0)]), Player([stalls()])
    async with open_tree() as tree:
        await deploy(tree, (WITH_B, [first]), (one, [second]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(tree.ask, model="b"))
            await trio.sleep(1)
            nursery.start_soon(partial(tree.ask))
            await trio.sleep(5)
            assert tree.serving.replicas("b")[0].waiting == 0
            nursery.cancel_scope.cancel()
    assert len(second.batches) == 1


async def test_a_bug_in_the_sink_is_raised_as_it_is(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    class Broken(Collected):
        async def chunk(self, chunk: TokenChunk | RawChunk) -> None:
            raise KeyError("oops")

    async with open_tree() as tree:
        await deploy(tree, (WITH_B, [Player()]), (B, [Player()]))
        with pytest.raises(KeyError, match="oops"):
            await tree.ask(sink=Broken())
        await nothing_left(tree)


async def test_the_early_bytes_of_the_loser_are_lost_with_it(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    source = Source(Dialect.OPENAI_CHAT, b'{"model":"m"}', "m")

    def raw(data: bytes, **more: object) -> RawChunk:
        return RawChunk(data=data, **more)  # type: ignore[arg-type]

    end = raw(b"end", has_content=False, finish_reason=FinishReason.STOP)
    lost = Act((raw(b"lost", has_content=False),), hangs=True)
    whole = Act((raw(b"role", has_content=False), raw(b"text"), end))
    async with open_tree() as tree:
        await deploy(tree, (WITH_B, [Player([lost])]), (B, [Player([whole])]))
        answer = await tree.ask(source=source)
    got = [chunk.data for chunk in answer.chunks if isinstance(chunk, RawChunk)]
    assert got == [b"role", b"text", b"end"]


@pytest.mark.parametrize("after_s", [0.5, 2.5, 3.5])
async def test_a_client_that_leaves_during_the_race_ends_both(
    open_tree: OpenTree, autojump_clock: MockClock, after_s: float
) -> None:
    first, second = Player([stalls()]), Player([stalls()])
    async with open_tree() as tree:
        await deploy(tree, (WITH_B, [first]), (B, [second]))
        with trio.move_on_after(after_s):
            await tree.ask()
        assert (first.active, second.active) == (0, 0)
        await nothing_left(tree)
