"""Tenants take turns by weight and tokens, whatever one of them asks for."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing

from atomr_infer.errors import OverloadedError
from atomr_infer.model.asker import Asker
from atomr_infer.model.deployment import Deployment, Serving
from atomr_infer.model.embeddings import EmbedRequest
from atomr_infer.pipeline.flows.fair_scheduler import FairShareScheduler
from atomr_infer.serving.requests.whole_calls import embed

if TYPE_CHECKING:
    from trio.testing import MockClock

    from atomr_infer.policy.tenants.fair_share import Shares
    from tests.pipeline.conftest import OpenTree

TOKENS_PER_S = 1000.0


@attrs.define
class Line:
    """Requests that take a second for each thousand tokens.

    Attributes:
        scheduler: whom they wait for.
        done: whose were served, in order.
        tokens: what each tenant's had.
        waits_s: how long each took, its wait included.
    """

    scheduler: FairShareScheduler
    done: list[str] = attrs.field(factory=list)
    tokens: Counter[str] = attrs.field(factory=Counter)
    waits_s: dict[str, list[float]] = attrs.field(factory=dict)

    async def ask(
        self,
        name: str,
        tokens: float,
        *,
        thought: float | None = None,
        weight: float = 1.0,
        priority: int = 0,
        shares: Shares | None = None,
    ) -> None:
        began_at = trio.current_time()
        async with self.scheduler.turn(
            shares or name, cost=thought or tokens, weight=weight, priority=priority
        ) as turn:
            await trio.sleep(tokens / TOKENS_PER_S)
            turn.used(tokens)
        self.done.append(name)
        self.tokens[name] += int(tokens)
        self.waits_s.setdefault(name, []).append(trio.current_time() - began_at)


async def flood(
    line: Line, nursery: trio.Nursery, name: str, count: int, tokens: float
) -> None:
    for _ in range(count):
        nursery.start_soon(line.ask, name, tokens)
    await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize("tenants", [1, 3])
async def test_a_flood_moves_anothers_latency_by_no_more_than_the_bound(
    autojump_clock: MockClock, tenants: int
) -> None:
    """The quiet one asks for less than its share.

    It waits for who runs, and for one request of each tenant that floods: with l the
    tokens of its own, L of the longest and N flooding tenants, that is at most
    (l + L + N * L) / TOKENS_PER_S seconds.
    """
    line = Line(FairShareScheduler(1))
    longest, own = 2000.0, 500.0
    bound_s = (own + longest + tenants * longest) / TOKENS_PER_S
    async with trio.open_nursery() as nursery:
        for number in range(tenants):
            await flood(line, nursery, f"flood{number}", 120 // tenants, longest)
        for _ in range(15):
            await trio.sleep(10.0)
            nursery.start_soon(line.ask, "quiet", own)
        await trio.sleep(20.0)
        waits_s = sorted(line.waits_s["quiet"])
        assert len(waits_s) == 15
        assert max(waits_s) <= bound_s + 1e-6
        # And the flood has all the rest: nothing stands idle.
        assert line.tokens.total() >= 0.97 * trio.current_time() * TOKENS_PER_S
        nursery.cancel_scope.cancel()


async def test_tenants_that_always_wait_have_their_shares_of_tokens(
    autojump_clock: MockClock,
) -> None:
    line = Line(FairShareScheduler(2))
    async with trio.open_nursery() as nursery:
        for _ in range(120):
            nursery.start_soon(lambda: line.ask("short", 100.0, weight=1.0))
            nursery.start_soon(lambda: line.ask("long", 900.0, weight=3.0))
        await trio.sleep(20.0)
        nursery.cancel_scope.cancel()
    # Of 40,000 tokens, a quarter, to within the dearest turns.
    assert abs(line.tokens["short"] - 10_000) <= 2 * 900 + 2 * 100


async def test_who_uses_more_than_was_thought_pays_for_it_afterwards(
    autojump_clock: MockClock,
) -> None:
    line = Line(FairShareScheduler(1))
    async with trio.open_nursery() as nursery:
        for _ in range(60):
            nursery.start_soon(lambda: line.ask("modest", 100.0, thought=500.0))
            nursery.start_soon(lambda: line.ask("greedy", 2000.0, thought=500.0))
        await trio.sleep(12.0)
        nursery.cancel_scope.cancel()
    assert abs(line.tokens["modest"] - 6_000) <= 2 * 2000


async def test_a_tenant_that_owes_pays_when_it_comes_again(
    autojump_clock: MockClock,
) -> None:
    line = Line(FairShareScheduler(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: line.ask("greedy", 4000.0, thought=1.0))
        await trio.testing.wait_all_tasks_blocked()
        await flood(line, nursery, "other", 10, 1000.0)
        await trio.sleep(4.5)
        nursery.start_soon(line.ask, "greedy", 1000.0)
    # It had four turns' worth; the others have as many before it has another one.
    assert line.done.index("greedy", 1) in (4, 5)


async def test_the_members_of_a_team_share_its_turns(autojump_clock: MockClock) -> None:
    line = Line(FairShareScheduler(1))

    async def member(name: str) -> None:
        await line.ask(name, 1000.0, shares=(("team", 1.0), (name, 1.0)))

    async with trio.open_nursery() as nursery:
        for name in ("ann", "bob"):
            for _ in range(50):
                nursery.start_soon(member, name)
        await flood(line, nursery, "cyd", 50, 1000.0)
        await trio.sleep(40.5)
        nursery.cancel_scope.cancel()
    assert abs(line.tokens["cyd"] - 20_000) <= 2000
    assert abs(line.tokens["ann"] - 10_000) <= 2000


async def test_the_higher_priority_goes_first(autojump_clock: MockClock) -> None:
    line = Line(FairShareScheduler(1))
    async with trio.open_nursery() as nursery:
        await flood(line, nursery, "first", 3, 1000.0)
        nursery.start_soon(lambda: line.ask("urgent", 1000.0, priority=1))
    assert line.done.index("urgent") == 1


async def test_who_leaves_waits_no_more_and_who_fails_gives_its_turn_back(
    autojump_clock: MockClock,
) -> None:
    scheduler = FairShareScheduler(1)
    line = Line(scheduler)

    async def fail() -> None:
        with pytest.raises(RuntimeError, match="it broke"):
            async with scheduler.turn("ann"):
                await trio.sleep(1.0)
                raise RuntimeError("it broke")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        await trio.sleep(0.5)
        with trio.move_on_after(0.1):
            await line.ask("bob", 1000.0)
        assert (scheduler.running, scheduler.waiting) == (1, 0)
        await line.ask("cyd", 1000.0)
    assert (line.done, scheduler.running) == (["cyd"], 0)


async def test_in_a_full_queue_whoever_has_most_waiting_makes_room(
    autojump_clock: MockClock,
) -> None:
    line, refused = Line(FairShareScheduler(1, max_queue=3)), list[str]()

    async def ask(name: str) -> None:
        try:
            await line.ask(name, 1000.0)
        except OverloadedError as error:
            refused.append(f"{name}: {error}")

    async with trio.open_nursery() as nursery:
        for name in ("flood",) * 5 + ("quiet",):
            nursery.start_soon(ask, name)
            await trio.testing.wait_all_tasks_blocked()
    assert Counter(line.done) == {"flood": 3, "quiet": 1}
    assert refused == [
        "flood: 3 wait for a turn already",
        "flood: a tenant with less waiting has taken its place",
    ]


@pytest.mark.parametrize("nothing", [0.0, -1.0, float("nan"), float("inf")])
async def test_what_costs_nothing_or_no_number_is_refused(nothing: float) -> None:
    scheduler = FairShareScheduler(1)
    with pytest.raises(ValueError, match="above 0"):
        async with scheduler.turn("ann", cost=nothing):
            pytest.fail("it has no turn")
    with pytest.raises(ValueError, match="above 0"):
        async with scheduler.turn("ann", weight=nothing):
            pytest.fail("it has no turn")
    async with scheduler.turn("ann") as turn:
        with pytest.raises(ValueError, match="more than 0"):
            turn.used(nothing)


async def test_before_a_deployment_too_texts_to_embed_cost_their_tokens(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    one_at_a_time = Serving(max_concurrency=1, queue_timeout_s=600.0)
    small = Deployment(name="small", runtime="vectors", serving=one_at_a_time)
    done: list[str] = []

    async def ask(name: str, texts: int) -> None:
        request = EmbedRequest(
            request_id=f"{name}{len(done)}",
            model="small",
            inputs=("abcdef",) * texts,
            asker=Asker(name),
        )
        await embed(tree.serving, request)
        done.append(name)

    async with open_tree(small) as tree, trio.open_nursery() as nursery:
        nursery.start_soon(ask, "runs", 1)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(8):
            nursery.start_soon(ask, "many", 8)
            nursery.start_soon(ask, "few", 1)
    assert done[1:10].count("few") >= 7
