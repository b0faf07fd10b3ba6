"""A deployment that fails is tried again, passed over, or left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr import telemetry
from atomr.otp import which_children
from atomr_infer import errors
from atomr_infer.model.batch import FinishReason, Sampling, TokenChunk
from atomr_infer.model.deployment import (
    Deployment,
    Jitter,
    RetryPolicy,
    Serving,
    Timeouts,
)
from atomr_infer.model.failover import Fallback, FallbackReason, OnCapacity, OnCut
from atomr_infer.serving.names import REQUESTS
from atomr_infer.serving.requests.served import Tried
from tests.serving.acts import USAGE, Act, Player, cut, fails, says, stalls

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from trio.testing import MockClock

    from tests.serving.conftest import OpenTree, Tree

ONCE = RetryPolicy(max_attempts=1)
STEADY = RetryPolicy(max_attempts=3, backoff_s=1.0, jitter=Jitter.NONE)

A = Deployment(name="m", runtime="lab", fallbacks=["b"], retry=ONCE)
B = Deployment(name="b", runtime="lab", model="big", retry=ONCE)

BROKEN = errors.UpstreamError("broken", status=500)


async def deploy(tree: Tree, *pairs: tuple[Deployment, Player]) -> None:
    names = [deployment.name for deployment, _ in pairs]
    for deployment, player in pairs:
        tree.lab.plan = [player]
        await tree.serving.deploy(deployment, expected=names)


async def nothing_left(tree: Tree) -> None:
    """Wait until every release has arrived, and see that nothing is held."""
    await trio.testing.wait_all_tasks_blocked()
    for name in tree.serving.deployments:
        for replica in tree.serving.replicas(name):
            assert (replica.running, replica.waiting, replica.arriving) == (0, 0, 0)
    assert await which_children(REQUESTS) == ()


Event = tuple[str, "Mapping[str, object]"]


@pytest.fixture
def events() -> Iterator[list[Event]]:
    seen: list[Event] = []

    def note(
        event: telemetry.Event,
        measurements: Mapping[str, float],
        metadata: Mapping[str, object],
    ) -> None:
        seen.append((event[-1], metadata))

    telemetry.attach("test", ("atomr_infer",), note)
    yield seen
    telemetry.detach("test")


def of(events: list[Event], name: str, *keys: str) -> list[tuple[object, ...]]:
    return [tuple(data[key] for key in keys) for event, data in events if event == name]


async def test_another_deployment_answers_and_the_answer_says_who_failed(
    open_tree: OpenTree, autojump_clock: MockClock, events: list[Event]
) -> None:
    first, second = Player([fails(BROKEN)]), Player([says("Hi")])
    async with open_tree() as tree:
        await deploy(tree, (A, first), (B, second))
        answer = await tree.ask()
        await nothing_left(tree)
    assert answer.texts == ["Hi"]
    (served,) = answer.served
    assert (served.deployment, served.model) == ("b", "m")
    assert served.attempts == (Tried("m", "upstream"), Tried("b"))
    assert not served.recovered
    assert [batch.model for batch in second.batches] == ["big"]
    assert of(events, "fallback", "deployment", "to", "reason") == [
        ("m", "b", "server_error")
    ]


async def test_a_fallback_says_which_model_it_is_asked_for(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    first, second = Player([fails(BROKEN)]), Player()
    asked = attrs.evolve(A, fallbacks=[Fallback(to="b", model="special")])
    async with open_tree() as tree:
        await deploy(tree, (asked, first), (B, second))
        await tree.ask()
    assert [batch.model for batch in second.batches] == ["special"]


async def test_a_fallback_without_a_model_gets_the_name_without_its_prefix(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    prefixed = attrs.evolve(A, serves=["house/*"])
    bare, second = attrs.evolve(B, model=None), Player()
    async with open_tree() as tree:
        await deploy(tree, (prefixed, Player([fails(BROKEN)])), (bare, second))
        await tree.ask(model="house/large")
    assert [batch.model for batch in second.batches] == ["large"]


async def test_when_all_fail_the_error_names_who_was_asked(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    slow = errors.RateLimitedError("slow down", retry_after_s=5.0, status=429)
    async with open_tree() as tree:
        await deploy(tree, (A, Player([fails(BROKEN)])), (B, Player([fails(slow)])))
        with pytest.raises(errors.RateLimitedError) as caught:
            await tree.ask()
        await nothing_left(tree)
    assert caught.value.message == "slow down (tried m: upstream, b: rate_limited)"
    assert caught.value.retry_after_s == 5.0


async def test_a_deployment_that_has_failed_for_good_is_passed_over(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        await deploy(tree, (A, Player()), (B, Player([says("Hi")])))
        tree.serving.fail("m", errors.NotReadyError("m has failed"))
        answer = await tree.ask()
    assert answer.served[0].attempts == (Tried("m", "not_ready"), Tried("b"))


async def test_a_fallback_that_was_removed_is_not_asked(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        await deploy(tree, (A, Player([fails(BROKEN)])), (B, Player()))
        await tree.serving.undeploy("b")
        with pytest.raises(errors.UpstreamError, match=r"^broken$"):
            await tree.ask()


async def test_a_retry_waits_as_long_as_the_upstream_asks(
    open_tree: OpenTree, autojump_clock: MockClock, events: list[Event]
) -> None:
    slow = errors.RateLimitedError("slow down", retry_after_s=7.0, status=429)
    alone = attrs.evolve(A, fallbacks=(), retry=STEADY)
    async with open_tree() as tree:
        await deploy(tree, (alone, Player([fails(slow), says("Hi")])))
        began_at = trio.current_time()
        answer = await tree.ask()
        assert trio.current_time() - began_at == pytest.approx(7.0)
    assert answer.served[0].attempts == (Tried("m", "rate_limited"), Tried("m"))
    assert of(events, "retry", "deployment", "kind") == [("m", "rate_limited")]


async def test_a_silent_upstream_is_asked_twice_at_most(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    first = Player([stalls()] * 5)
    patient = attrs.evolve(
        A, fallbacks=[], retry=STEADY, timeouts=Timeouts(first_token_s=10)
    )
    async with open_tree() as tree:
        await deploy(tree, (patient, first))
        began_at = trio.current_time()
        with pytest.raises(errors.UpstreamTimeoutError):
            await tree.ask()
        assert trio.current_time() - began_at == pytest.approx(21.0)
    assert first.left == 2


async def test_a_fallback_answers_after_one_silence(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    patient = attrs.evolve(A, retry=STEADY, timeouts=Timeouts(first_token_s=10))
    async with open_tree() as tree:
        await deploy(tree, (patient, Player([stalls()])), (B, Player()))
        began_at = trio.current_time()
        answer = await tree.ask()
        assert trio.current_time() - began_at == pytest.approx(10.0)
    assert answer.served[0].attempts == (Tried("m", "upstream_timeout"), Tried("b"))


async def test_s10_one_deadline_covers_queue_retries_and_fallbacks(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    bounds = Timeouts(first_token_s=4, total_s=10)
    first = attrs.evolve(A, timeouts=bounds, retry=STEADY)
    second = attrs.evolve(B, timeouts=Timeouts(first_token_s=100))
    async with open_tree() as tree:
        await deploy(
            tree, (first, Player([stalls()] * 5)), (second, Player([stalls()]))
        )
        began_at = trio.current_time()
        with pytest.raises(errors.DeadlineError, match="longer than 10 s"):
            await tree.ask()
        assert trio.current_time() - began_at == pytest.approx(10.0)
        await nothing_left(tree)


@pytest.mark.parametrize(("wanted_s", "got_s"), [(3.0, 3.0), (500.0, 10.0)])
async def test_a_client_may_lower_the_deadline_and_not_raise_it(
    open_tree: OpenTree, autojump_clock: MockClock, wanted_s: float, got_s: float
) -> None:
    alone = attrs.evolve(A, fallbacks=(), timeouts=Timeouts(total_s=10))
    async with open_tree() as tree:
        await deploy(tree, (alone, Player([stalls()])))
        began_at = trio.current_time()
        with pytest.raises(errors.DeadlineError):
            await tree.ask(timeout_s=wanted_s)
        assert trio.current_time() - began_at == pytest.approx(got_s)


# --- groups -------------------------------------------------------------------

TWIN = attrs.evolve(B, name="twin", serves=["m"], model="other")


async def test_deployments_of_one_name_take_turns_and_take_over(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    one = attrs.evolve(A, fallbacks=[])
    first, second = Player(), Player([says("x"), says("y"), fails(BROKEN)])
    async with open_tree() as tree:
        await deploy(tree, (one, first), (TWIN, second))
        answers = []
        for _ in range(6):
            answers.append(await tree.ask())
            await nothing_left(tree)
    by = [answer.served[0].deployment for answer in answers]
    assert by == ["m", "twin", "m", "twin", "m", "m"]
    assert answers[5].served[0].attempts == (Tried("twin", "upstream"), Tried("m"))
    assert [batch.model for batch in second.batches] == ["other"] * 3


async def test_the_member_of_a_group_with_the_least_work_is_next(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    first, second = Player([stalls()] * 3), Player([says("x")] * 9)
    async with open_tree() as tree:
        await deploy(tree, (attrs.evolve(A, fallbacks=[]), first), (TWIN, second))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.ask)
            await trio.sleep(1)
            for _ in range(5):
                answer = await tree.ask()
                assert answer.served[0].attempts == (Tried("twin"),)
                await trio.testing.wait_all_tasks_blocked()  # a release is a message
            nursery.cancel_scope.cancel()


async def test_a_member_whose_circuit_is_open_is_passed_over(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    first = attrs.evolve(A, fallbacks=[], options={"endpoint": "x"})
    async with open_tree() as tree:
        await deploy(tree, (first, Player()), (TWIN, Player()))
        guard = tree.serving.breakers.of("m")
        assert guard is not None
        guard.force_open()
        answers = [await tree.ask() for _ in range(3)]
    assert [len(answer.served[0].attempts) for answer in answers] == [1, 1, 1]


# --- kinds of failure ---------------------------------------------------------


async def test_a_prompt_that_is_too_long_goes_to_a_longer_context(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    long = Fallback(to="b", on=frozenset({FallbackReason.CONTEXT_LENGTH}))
    asked = attrs.evolve(A, fallbacks=[long], retry=STEADY)
    too_long = errors.ContextLengthError("too long", status=400)
    first = Player([fails(too_long), fails(BROKEN), fails(BROKEN), fails(BROKEN)])
    async with open_tree() as tree:
        await deploy(tree, (asked, first), (B, Player()))
        assert (await tree.ask()).served[0].deployment == "b"
        with pytest.raises(errors.UpstreamError, match=r"^broken$"):
            await tree.ask()


FILTERED = Act((TokenChunk(finish_reason=FinishReason.CONTENT_FILTER), USAGE))


@pytest.mark.parametrize(
    "act",
    [fails(errors.ContentFilterError("no", status=400)), FILTERED],
    ids=["refused", "answered with nothing"],
)
async def test_a_content_filter_is_final_unless_the_operator_says_otherwise(
    open_tree: OpenTree, autojump_clock: MockClock, act: Act
) -> None:
    bold = Fallback(to="b", on=frozenset({FallbackReason.CONTENT_FILTER}))
    first, second = Player([act, act]), Player()
    async with open_tree() as tree:
        await deploy(tree, (A, first), (B, second))
        other = attrs.evolve(A, name="bold", serves=["bold"], fallbacks=[bold])
        await deploy(tree, (other, Player([act])))
        try:
            answer = await tree.ask()
        except errors.ContentFilterError:
            pass
        else:
            assert answer.texts == []
        assert second.batches == []
        answer = await tree.ask(model="bold")
    assert answer.served[0].attempts == (Tried("bold", "content_filter"), Tried("b"))


async def test_a_deployment_without_a_feature_is_passed_over(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    blind = Player(features=())
    asked = attrs.evolve(A, retry=STEADY)
    async with open_tree() as tree:
        await deploy(tree, (asked, blind), (B, Player()))
        answer = await tree.ask(sampling=Sampling(top_logprobs=1))
    assert answer.served[0].attempts == (Tried("m", "unsupported_feature"), Tried("b"))
    assert blind.batches == []


# --- capacity -----------------------------------------------------------------


def full(policy: OnCapacity, **more: float) -> Deployment:
    serving = Serving(max_concurrency=1, on_capacity_exhausted=policy, **more)  # type: ignore[arg-type]
    return attrs.evolve(A, serving=serving)


async def test_without_a_free_place_a_fallback_answers_at_once(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        await deploy(
            tree, (full(OnCapacity.FALLBACK), Player([stalls()])), (B, Player())
        )
        began_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.ask)
            await trio.sleep(1)
            answer = await tree.ask()
            assert answer.served[0].attempts == (Tried("m", "overloaded"), Tried("b"))
            assert trio.current_time() == pytest.approx(began_at + 1)
            nursery.cancel_scope.cancel()
        await nothing_left(tree)


async def test_a_deployment_that_rejects_says_so_at_once_and_asks_nobody(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    second = Player()
    async with open_tree() as tree:
        await deploy(tree, (full(OnCapacity.REJECT), Player([stalls()])), (B, second))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.ask)
            await trio.sleep(1)
            with pytest.raises(errors.OverloadedError) as caught:
                await tree.ask()
            assert caught.value.code == "queue_full"
            nursery.cancel_scope.cancel()
    assert second.batches == []


async def test_a_queue_is_waited_in_before_a_fallback_is_asked(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    asked = full(OnCapacity.QUEUE, queue_timeout_s=4.0)
    async with open_tree() as tree:
        await deploy(tree, (asked, Player([stalls()])), (B, Player()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.ask)
            await trio.sleep(1)
            began_at = trio.current_time()
            answer = await tree.ask()
            assert trio.current_time() - began_at == pytest.approx(4.0)
            assert answer.served[0].deployment == "b"
            nursery.cancel_scope.cancel()


async def test_a_wait_that_is_too_long_is_an_error_with_its_code(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    asked = attrs.evolve(full(OnCapacity.FALLBACK, queue_timeout_s=4.0), fallbacks=())
    async with open_tree() as tree:
        await deploy(tree, (asked, Player([stalls()])))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.ask)
            await trio.sleep(1)
            with pytest.raises(errors.OverloadedError) as caught:
                await tree.ask()
            assert caught.value.code == "queue_timeout"
            nursery.cancel_scope.cancel()


async def test_the_higher_priority_is_served_first(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    one = Deployment(name="m", runtime="lab", serving=Serving(max_concurrency=1))
    order: list[str] = []
    async with open_tree() as tree:
        await deploy(tree, (one, Player([says("x", before_s=5)])))

        async def ask(name: str, priority: int) -> None:
            await tree.ask(name, priority=priority)
            order.append(name)

        async with trio.open_nursery() as nursery:
            for name, priority in (("first", 0), ("low", 0), ("high", 3), ("mid", 1)):
                nursery.start_soon(ask, name, priority)
                await trio.sleep(0.1)
    assert order == ["first", "high", "mid", "low"]


async def test_429s_lower_what_runs_at_once_and_successes_raise_it_again(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    slow = errors.RateLimitedError("slow down", status=429)
    player = Player([Act(error=slow, before_s=1.0)] * 10, max_concurrency=10)
    alone = attrs.evolve(A, fallbacks=())
    async with open_tree() as tree:
        await deploy(tree, (alone, player))

        async def refused() -> None:
            with pytest.raises(errors.RateLimitedError):
                await tree.ask()

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(refused)
        (replica,) = tree.serving.replicas("m")
        await nothing_left(tree)
        assert replica.limit == 7
        player.peak = 0
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(tree.ask)
        assert player.peak <= 9
        for _ in range(40):
            await tree.ask()
        await nothing_left(tree)
        assert replica.limit == 10


async def test_wherever_a_request_is_cancelled_everything_goes_back(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    first = attrs.evolve(
        A, retry=STEADY, options={"endpoint": "x"}, on_cut=OnCut.RESTART_MATCH
    )
    async with open_tree() as tree:
        players = Player(), Player()
        await deploy(tree, (first, players[0]), (B, players[1]))
        for steps in range(1, 500):
            players[0]._acts = iter([fails(BROKEN), cut("a"), fails(BROKEN)])
            players[1]._acts = iter([says("a", "b")])
            cancelled = await cancelled_at(steps, tree)
            await nothing_left(tree)
            assert players[0].active == players[1].active == 0
            guard = tree.serving.breakers.of("m")
            assert guard is not None
            assert guard.breaker.probes == 0
            guard.force_open()
            guard.force_close()
            if not cancelled:
                break
    assert steps > 10


async def cancelled_at(steps: int, tree: Tree) -> bool:
    """Cancel a request at the n-th step that its task makes."""

    class AtStep(trio.abc.Instrument):
        left = steps

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            if task is asking:
                self.left -= 1
                if self.left == 0:
                    scope.cancel()

    asking = trio.lowlevel.current_task()
    counter = AtStep()
    with trio.CancelScope() as scope:
        trio.lowlevel.add_instrument(counter)
        try:
            await tree.ask()
        finally:
            trio.lowlevel.remove_instrument(counter)
    return scope.cancelled_caught
