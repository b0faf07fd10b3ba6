"""Rate limits of deployments: what is sent, what waits, and what is refused."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing

from atomr_infer import errors
from atomr_infer.model.batch import Sampling, TokenChunk, Usage
from atomr_infer.model.deployment import Deployment, RetryPolicy, Serving
from atomr_infer.model.rate_limits import LimitMode, OnLimit, RateLimits
from atomr_infer.model.secret import Secret
from atomr_infer.serving.limits.shared_limits import ShownLimit
from tests.serving.acts import STOP, Act, Player, fails, says

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.serving.conftest import OpenTree, Tree

ONE = Deployment(
    name="m",
    runtime="lab",
    retry=RetryPolicy(max_attempts=1),
    serving=Serving(max_concurrency=100),
    options={"endpoint": "a"},
)
MODES = pytest.mark.parametrize("mode", list(LimitMode))


def limited(**limits: Any) -> Deployment:
    return attrs.evolve(ONE, rate_limits=RateLimits(**limits))


async def deploy(tree: Tree, deployment: Deployment, *acts: Act) -> Player:
    player = Player(list(acts), max_concurrency=100)
    tree.lab.plan = [player]
    await tree.serving.deploy(deployment)
    return player


async def ask_at(tree: Tree, times: list[float], **more: Any) -> None:
    """Ask, and note when it was answered."""
    await tree.ask(**more)
    times.append(trio.current_time())


@MODES
async def test_no_window_has_more_requests_than_its_limit(
    open_tree: OpenTree, autojump_clock: MockClock, mode: LimitMode
) -> None:
    times: list[float] = []
    async with open_tree() as tree:
        await deploy(tree, limited(requests_per_minute=10, mode=mode))
        began_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(25):
                nursery.start_soon(ask_at, tree, times)
        waited = [at_s - began_s for at_s in times]
        assert len(times) == 25
        assert [each for each in waited if each > 1.0] == waited[10:]
        for at, first in enumerate(waited[:15]):
            assert waited[at + 10] - first >= 60.0
        assert waited[-1] == pytest.approx(121.3, abs=1.0)
        (shown,) = tree.serving.limits.shown()
    assert shown == ShownLimit(
        owner="lab a, model m",
        counts="requests_per_minute",
        limit=10,
        window_s=60.0,
        used=5,
        waiting=0,
        mode=mode.value,
        withheld=0.0,
        shadow_refusals=None,
        account="no key",
    )


async def test_a_limit_that_rejects_says_when_to_come_again(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        player = await deploy(
            tree, limited(requests_per_minute=2, on_exceeded=OnLimit.REJECT)
        )
        await tree.ask()
        await trio.sleep(20.0)
        await tree.ask()
        began_s = trio.current_time()
        with pytest.raises(
            errors.RateLimitedError, match="the rate limit of lab a, model m is reached"
        ) as caught:
            await tree.ask()
        assert trio.current_time() == began_s  # nobody else can have any
        assert caught.value.code == "rate_limit_exceeded"
        assert caught.value.retry_after_s == pytest.approx(40.3, abs=0.5)
        await trio.sleep(caught.value.retry_after_s or 0.0)
        await tree.ask()
        assert len(player.batches) == 3


async def test_who_waits_longer_than_its_time_is_told_so(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        await deploy(tree, limited(requests_per_minute=1))
        await tree.ask()
        began_s = trio.current_time()
        with pytest.raises(errors.RateLimitedError, match="come again in 51"):
            await tree.ask(timeout_s=10.0)
        # A tenth of its time is left, in which an answer would have come.
        assert trio.current_time() - began_s == pytest.approx(9.0)
        await tree.idle()


async def test_the_more_urgent_of_those_who_wait_goes_first(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        player = await deploy(tree, limited(requests_per_minute=1))
        await tree.ask()
        async with trio.open_nursery() as nursery:
            for text, priority in (("low", 0), ("middle", 1), ("high", 2)):
                nursery.start_soon(
                    partial(tree.ask, text, priority=priority, timeout_s=800.0)
                )
                await trio.testing.wait_all_tasks_blocked()
    texts = [batch.messages[0].text for batch in player.batches]
    # The first to come was at the front already: it is asked for first.
    assert texts == ["one two", "low", "high", "middle"]


async def test_tokens_are_reserved_at_the_worst_and_settled_at_what_was_used(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    told = TokenChunk(usage=Usage(input_uncached=3, output_text=2))
    answer = Act((TokenChunk(text="Hi"), STOP, told), before_s=5.0)
    async with open_tree() as tree:
        await deploy(
            tree,
            limited(
                tokens_per_minute=100,
                input_tokens_per_minute=50,
                output_tokens_per_minute=60,
            ),
            *[answer] * 4,
        )
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(partial(tree.ask, sampling=Sampling(max_tokens=25)))
            await trio.sleep(1.0)
            reserved = {each.counts: each.used for each in tree.serving.limits.shown()}
        used = {each.counts: each.used for each in tree.serving.limits.shown()}
    # "one two" is eleven tokens at most.
    assert reserved == {
        "input_tokens_per_minute": 22,
        "output_tokens_per_minute": 50,
        "tokens_per_minute": 72,
    }
    assert used == {
        "input_tokens_per_minute": 6,
        "output_tokens_per_minute": 4,
        "tokens_per_minute": 10,
    }


async def test_a_request_whose_worst_case_is_more_than_the_limit_takes_all_of_it(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        player = await deploy(tree, limited(output_tokens_per_minute=10))
        await tree.ask()  # it does not say how long its answer may be
        await tree.ask(sampling=Sampling(max_tokens=8))
        assert len(player.batches) == 2


async def test_no_more_are_under_way_than_is_allowed(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        player = await deploy(
            tree, limited(max_concurrent=3), *[says("Hi", before_s=2.0)] * 10
        )
        began_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(tree.ask)
        took_s = trio.current_time() - began_s
        assert player.peak == 3
        assert took_s == pytest.approx(8.0, abs=0.5)
        assert [each.used for each in tree.serving.limits.shown()] == [0]


async def test_a_shadow_refuses_nothing_and_counts_what_it_would_refuse(
    open_tree: OpenTree, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_tree() as tree:
        player = await deploy(tree, limited(requests_per_minute=2, shadow=True))
        for _ in range(5):
            await tree.ask()
        assert len(player.batches) == 5
        (shown,) = tree.serving.limits.shown()
        assert (shown.used, shown.shadow_refusals) == (2, 3)
    told = [r.getMessage() for r in caplog.records if "shadow" in r.getMessage()]
    assert len(told) == 1
    assert told[0].startswith(
        "shadow limit of lab a, model m: 1 requests would have been refused so far: the"
        " rate limit of lab a, model m is reached"
    )


async def test_a_providers_refusal_tunes_the_limit_down_and_time_back_up(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    refused = fails(errors.RateLimitedError("slow", retry_after_s=5.0))

    async def answered(tree: Tree, seconds: float) -> int:
        times: list[float] = []
        with trio.move_on_after(seconds):
            while True:
                await ask_at(tree, times)
        return len(times)

    async with open_tree() as tree:
        await deploy(tree, limited(requests_per_minute=40), refused)
        with pytest.raises(errors.RateLimitedError, match="slow"):
            await tree.ask()
        began_s = trio.current_time()
        await tree.ask()
        assert trio.current_time() - began_s == pytest.approx(5.0, abs=0.1)
        assert tree.serving.limits.shown()[0].withheld == 0.1
        first = await answered(tree, 54.0)
        # One was refused, one was answered, and four are withheld.
        assert first == 40 - 1 - 1 - 4
        later = await answered(tree, 60.6 * 4)
        assert 40 * 4 - 6 <= later <= 40 * 4
        assert tree.serving.limits.shown()[0].withheld == 0.0


async def test_deployments_with_one_key_and_model_share_a_limit(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    key = Secret("sk-123")
    first = attrs.evolve(limited(requests_per_minute=5), model="x", credential=key)
    second = attrs.evolve(first, name="n", serves=("n",))
    other_key = attrs.evolve(
        first, name="o", serves=("o",), credential=Secret("sk-456")
    )
    async with open_tree() as tree:
        for each in (first, second, other_key):
            await deploy(tree, each)
        for name in ("m", "n", "o"):
            await tree.ask(model=name)
        shown = tree.serving.limits.shown()
        assert sorted(each.used for each in shown) == [1, 2]
        differs = attrs.evolve(
            second, name="p", rate_limits=RateLimits(requests_per_minute=6)
        )
        with pytest.raises(
            errors.ConfigError,
            match="deployment 'p': its rate limits differ from those of 'm', which has"
            " the same key and model",
        ):
            await tree.serving.deploy(differs)
        for name in ("m", "n", "o"):
            await tree.serving.undeploy(name)
        assert tree.serving.limits.shown() == []
        await trio.sleep(120)  # what was used counts for a minute
        assert tree.serving.limits.service.limits == ()


async def test_limits_are_changed_while_it_serves_and_what_was_used_stays_used(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        await deploy(tree, limited(requests_per_minute=5))
        for _ in range(3):
            await tree.ask()
        changed = limited(
            requests_per_minute=4, tokens_per_minute=1000, on_exceeded=OnLimit.REJECT
        )
        await tree.serving.replace(changed)
        shown = {each.counts: each.used for each in tree.serving.limits.shown()}
        assert shown == {"requests_per_minute": 3, "tokens_per_minute": 0}
        await tree.ask(sampling=Sampling(max_tokens=5))
        with pytest.raises(errors.RateLimitedError):
            await tree.ask(sampling=Sampling(max_tokens=5))
        await tree.serving.replace(ONE)
        await tree.ask()
        assert tree.serving.limits.shown() == []


async def test_who_was_refused_for_a_limit_is_answered_by_a_fallback(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    first = attrs.evolve(
        limited(requests_per_minute=1, on_exceeded=OnLimit.REJECT), fallbacks=["b"]
    )
    async with open_tree() as tree:
        await deploy(tree, attrs.evolve(ONE, name="b", serves=("b",)), says("B"))
        await deploy(tree, first, says("A"))
        answers = [(await tree.ask()).texts for _ in range(2)]
    assert answers == [["A"], ["B"]]
