"""What a request holds of limits and budgets ends once, however the request ends.

By both ways: where one of them forgot a hold, a limit would leak away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing

from atomr.otp import which_children
from atomr.process import kill
from atomr_infer import errors
from atomr_infer.model.asker import Asker
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling, Usage
from atomr_infer.model.capabilities import Capabilities, Feature
from atomr_infer.model.deployment import Deployment, RetryPolicy, Serving, Timeouts
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.model.failover import HedgePolicy
from atomr_infer.model.parts import ImagePart, Url
from atomr_infer.model.prices import Price, Rates
from atomr_infer.model.source import Source
from atomr_infer.policy.limits.demand import Demand, Used
from atomr_infer.serving.limits.gates import Holds
from atomr_infer.serving.names import REQUESTS
from atomr_infer.serving.requests.request import run_request
from atomr_infer.serving.requests.straight import straight
from atomr_infer.serving.requests.whole_calls import count_tokens, embed
from tests.serving.acts import Act, Player, cut, fails, says, stalls
from tests.serving.conftest import Collected
from tests.serving.tallies import Tally, TallyHold

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.serving.conftest import OpenTree, Tree

ONE = Deployment(
    name="m",
    runtime="lab",
    retry=RetryPolicy(max_attempts=2, backoff_s=0.1),
    price=Price(rates=Rates(input=1.0, output=2.0)),
)
ALONE = attrs.evolve(ONE, retry=RetryPolicy(max_attempts=1))

# "one two" is what is asked: by seven characters about three tokens, and eight for
# the message; as text that was cut, two.
DEMAND = Demand(
    deployment="m", model="m", input_tokens=11, output_tokens=5, cost_microusd=21
)
TOLD = Used(input_tokens=3, output_tokens=2, cost_pico_usd=7_000_000)
PROMPT_LOST = Used(input_tokens=2, cost_pico_usd=2_000_000)
FIVE = Sampling(max_tokens=5)


class Reader(Player):
    """A runner that embeds and counts."""

    async def embed(self, request: EmbedRequest) -> Embeddings:
        return Embeddings(vectors=((1.0,),), usage=Usage(input_uncached=4))

    async def count_tokens(self, batch: ExecuteBatch) -> int:
        return 3


def gated(tree: Tree) -> tuple[Tally, Tally]:
    """Return a tally of requests and one of attempts, through which all pass."""
    of_requests, of_attempts = Tally(), Tally()
    tree.serving.gates.add_for_requests(lambda _: [of_requests])
    tree.serving.gates.add_for_attempts("m", of_attempts)
    return of_requests, of_attempts


async def open_with(tree: Tree, deployment: Deployment, *acts: Act) -> Player:
    player = Player(list(acts))
    tree.lab.plan = [player]
    await tree.serving.deploy(deployment)
    return player


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_settles_both_holds_at_what_was_used(
    open_tree: OpenTree, *, stream: bool
) -> None:
    asker = Asker("k1", "team")
    async with open_tree() as tree:
        await open_with(tree, ONE, says("Hi"))
        of_requests, of_attempts = gated(tree)
        await tree.ask(stream=stream, sampling=FIVE, asker=asker, priority=3)
    demand = attrs.evolve(DEMAND, asker=asker, priority=3)
    assert (of_requests.demands, of_requests.ends) == ([demand], [TOLD])
    assert (of_attempts.demands, of_attempts.ends) == ([demand], [TOLD])


async def test_a_retry_is_another_attempt_of_the_same_request(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        await open_with(tree, ONE, fails(errors.UpstreamError("500")), says("Hi"))
        of_requests, of_attempts = gated(tree)
        await tree.ask()
    assert of_requests.ends == [TOLD]
    # Of a failure nobody knows how far it came: the prompt counts as read.
    assert of_attempts.ends == [PROMPT_LOST, TOLD]


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (errors.UpstreamConnectError("refused"), None),
        (errors.RateLimitedError("rests", code="key_resting"), None),
        (
            errors.RateLimitedError("slow", retry_after_s=7.0),
            Used(limited=True, retry_after_s=7.0),
        ),
        (errors.UpstreamAuthError("401"), Used()),
        (errors.InvalidRequestError("400"), Used()),
        (errors.UpstreamError("500"), PROMPT_LOST),
    ],
    ids=["unreachable", "resting", "limited", "key", "request", "failed"],
)
async def test_a_failed_attempt_gives_back_what_its_provider_cannot_have_counted(
    open_tree: OpenTree, error: errors.InferenceError, end: Used | None
) -> None:
    async with open_tree() as tree:
        await open_with(tree, ALONE, fails(error))
        of_requests, of_attempts = gated(tree)
        with pytest.raises(type(error)):
            await tree.ask()
    assert of_attempts.ends == [end]
    assert of_requests.ends == [Used()]


async def test_a_cut_answer_is_settled_at_what_came_of_it(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        await open_with(tree, ALONE, cut("one", " two"))
        of_requests, of_attempts = gated(tree)
        with pytest.raises(errors.StreamCutError):
            await tree.ask()
    used = Used(input_tokens=2, output_tokens=2, cost_pico_usd=6_000_000)
    assert (of_requests.ends, of_attempts.ends) == ([used], [used])


@pytest.mark.parametrize(
    ("act", "of_request", "of_attempt"),
    [
        (Act(hangs=True), Used(), PROMPT_LOST),
        (
            stalls("one", " two"),
            Used(input_tokens=2, output_tokens=2, cost_pico_usd=6_000_000),
            Used(input_tokens=2, output_tokens=2, cost_pico_usd=6_000_000),
        ),
    ],
    ids=["silent", "talking"],
)
@pytest.mark.parametrize("how", ["leaves", "late", "killed"])
async def test_a_request_that_is_broken_off_ends_its_holds(
    open_tree: OpenTree,
    autojump_clock: MockClock,
    act: Act,
    of_request: Used,
    of_attempt: Used,
    how: str,
) -> None:
    bound = Timeouts(total_s=5.0) if how == "late" else Timeouts()
    async with open_tree() as tree:
        await open_with(tree, attrs.evolve(ALONE, timeouts=bound), act)
        of_requests, of_attempts = gated(tree)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_in_vain, tree)
            await trio.sleep(1.0)
            assert (of_requests.held, of_attempts.held) == (1, 1)
            if how == "leaves":
                nursery.cancel_scope.cancel()
            elif how == "killed":
                (request,) = await which_children(REQUESTS)
                assert request.pid is not None
                kill(request.pid)
    assert (of_requests.held, of_attempts.held) == (0, 0)
    assert of_attempts.ends == [of_attempt]
    assert len(of_requests.ends) == 1
    if how == "leaves":
        assert of_requests.ends == [of_request]


async def ask_in_vain(tree: Tree) -> None:
    with pytest.raises(errors.InferenceError):
        await tree.ask()


async def test_who_is_refused_at_a_later_gate_gives_back_the_earlier_ones(
    open_tree: OpenTree,
) -> None:
    async with open_tree() as tree:
        player = await open_with(tree, ALONE)
        of_requests, of_attempts = gated(tree)
        late = Tally(refusal=lambda: errors.RateLimitedError("no", retry_after_s=3.0))
        tree.serving.gates.add_for_attempts("m", late)
        with pytest.raises(errors.RateLimitedError, match="no") as caught:
            await tree.ask()
        await tree.idle()
    assert caught.value.retry_after_s == 3.0
    assert player.batches == []
    assert set(of_requests.ends) == set(of_attempts.ends) == {None}
    assert (of_requests.held, of_attempts.held, late.held) == (0, 0, 0)


async def test_what_is_to_be_used_at_once_is_entered_last(
    open_tree: OpenTree,
) -> None:
    async with open_tree() as tree:
        await open_with(tree, ALONE)
        timed, other = Tally(is_timed=True), Tally()
        tree.serving.gates.add_for_attempts("m", timed)
        tree.serving.gates.add_for_attempts("m", other)
        assert tree.serving.gates.of_attempts == {"m": (other, timed)}
        tree.serving.gates.remove_for_attempts("m", timed)
        tree.serving.gates.remove_for_attempts("m", other)
        assert tree.serving.gates.is_empty


async def test_a_request_waits_at_a_gate_in_the_ordinary_way(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        await open_with(tree, ALONE, says("Hi"))
        of_requests, of_attempts = gated(tree)
        of_attempts.open = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.ask)
            await trio.sleep(10.0)
            assert (of_requests.held, of_attempts.waited) == (1, 1)
            of_attempts.open.set()
        assert of_attempts.ends == [TOLD]
        assert of_requests.ends[-1] == TOLD
        assert (of_requests.held, of_attempts.held) == (0, 0)


async def test_who_leaves_while_it_waits_at_a_gate_holds_nothing(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        player = await open_with(tree, ALONE)
        of_requests, of_attempts = gated(tree)
        of_attempts.open = trio.Event()
        with trio.move_on_after(10.0):
            await tree.ask()
        await tree.idle()
    assert player.batches == []
    assert (of_requests.held, of_attempts.held) == (0, 0)
    assert set(of_requests.ends) == {None}


async def test_both_attempts_of_a_race_hold_and_end(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    raced = attrs.evolve(
        ALONE,
        hedge=HedgePolicy(after_s=2.0, max_fraction=1.0),
        serving=Serving(replicas=2),
    )
    async with open_tree() as tree:
        tree.lab.plan = [Player([stalls()]), Player([says("Hi")])]
        await tree.serving.deploy(raced)
        of_requests, of_attempts = gated(tree)
        await tree.ask()
        await tree.idle()
    both = Used(input_tokens=5, output_tokens=2, cost_pico_usd=9_000_000)
    assert of_requests.ends == [both]
    assert of_attempts.held == 0
    assert sorted(of_attempts.ends, key=str) == sorted([PROMPT_LOST, TOLD], key=str)


async def test_what_is_fetched_for_a_model_is_there_before_it_passes_its_gates(
    open_tree: OpenTree, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched_at: list[float] = []

    async def fetch(batch: ExecuteBatch, _: Capabilities) -> ExecuteBatch:
        await trio.sleep(9.0)
        fetched_at.append(trio.current_time())
        return attrs.evolve(batch, messages=(Message(Role.USER, "seen"),))

    monkeypatch.setattr("atomr_infer.serving.requests.leg.inlined", fetch)

    class Timed(Tally):
        def try_enter(self, demand: Demand) -> TallyHold | None:
            assert fetched_at == [trio.current_time()]
            return super().try_enter(demand)

    async with open_tree() as tree:
        player = Player(features=set(Feature) - {Feature.IMAGE_URLS})
        tree.lab.plan = [player]
        await tree.serving.deploy(ALONE)
        gate = Timed(is_timed=True)
        tree.serving.gates.add_for_attempts("m", gate)
        picture = ImagePart(source=Url("https://x/a.png"))
        batch = ExecuteBatch(
            request_id="r", model="m", messages=(Message(Role.USER, (picture,)),)
        )
        await run_request(tree.serving, batch, Collected())
    assert len(gate.demands) == 1
    assert [batch.messages[0].text for batch in player.batches] == ["seen"]


async def test_an_open_circuit_gives_back_what_the_gates_gave(
    open_tree: OpenTree,
) -> None:
    guarded = attrs.evolve(ALONE, options={"endpoint": "a"})
    async with open_tree() as tree:
        await open_with(tree, guarded)
        guard = tree.serving.breakers.of("m")
        assert guard is not None
        of_attempts = Tally()
        tree.serving.gates.add_for_attempts("m", of_attempts)
        # It opens while the request waits: what it asked before the queue is old.
        of_attempts.open = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_in_vain, tree)
            await trio.testing.wait_all_tasks_blocked()
            guard.force_open()
            of_attempts.open.set()
        await tree.idle()
    assert of_attempts.ends == [None]


async def test_texts_to_embed_and_counts_of_tokens_pass_the_gates_too(
    open_tree: OpenTree,
) -> None:
    async with open_tree() as tree:
        tree.lab.plan = [Reader()]
        await tree.serving.deploy(ALONE)
        of_requests, of_attempts = gated(tree)
        asked = EmbedRequest(
            request_id="e", model="m", inputs=("to be or not", (17, 4))
        )
        await embed(tree.serving, asked)
        counted = ExecuteBatch(
            request_id="c", model="m", messages=(Message(Role.USER, "one two"),)
        )
        await count_tokens(tree.serving, counted)
    embeds = attrs.evolve(DEMAND, input_tokens=6, output_tokens=0, cost_microusd=6)
    counts = attrs.evolve(embeds, input_tokens=0, cost_microusd=0)
    assert of_requests.demands == of_attempts.demands == [embeds, counts]
    assert of_attempts.ends == [Used(input_tokens=4, cost_pico_usd=4_000_000), Used()]
    assert of_requests.ends == of_attempts.ends


def test_each_hold_ends_whatever_another_one_makes_of_it() -> None:
    ended: list[str] = []

    class Broken:
        def settle(self, used: Used) -> None:
            ended.append("broken")
            raise ValueError("more than it can count")

        def cancel(self) -> None:
            raise AssertionError("it is settled")

    class Good(Broken):
        def settle(self, used: Used) -> None:
            ended.append("good")

    holds = Holds()
    for hold in (Good(), Broken(), Good()):
        holds.add(hold)
    with pytest.raises(ValueError, match="more than it can count"):
        holds.end(Used(input_tokens=1))
    assert ended == ["good", "broken", "good"]
    holds.end(Used(input_tokens=1))
    assert len(ended) == 3


def unreadable() -> ExecuteBatch:
    raise errors.InvalidRequestError("'messages' is not valid UTF-8")


@pytest.mark.parametrize("way", ["straight"], indirect=True)
async def test_a_body_that_a_glance_takes_and_reading_refuses_holds_nothing(
    open_tree: OpenTree,
) -> None:
    async with open_tree() as tree:
        await open_with(tree, ALONE)
        of_requests, of_attempts = gated(tree)
        # Its bytes say nothing, so that it is read to be counted.
        glanced = ExecuteBatch(request_id="r", model="m", messages=())
        for _ in range(20):
            assert straight(tree.serving, glanced, reread=unreadable) is None
        assert (of_requests.demands, of_attempts.demands) == ([], [])
        assert (await tree.replica()).outstanding == 0
        await tree.ask()
        assert len(tree.straight) == 1


@pytest.mark.parametrize("way", ["straight"], indirect=True)
async def test_one_that_is_broken_off_is_counted_as_far_as_it_can_be_read(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    body = b'{"model": "m", "messages": [{"role": "user", "content": "\xff"}]}'
    async with open_tree() as tree:
        await open_with(tree, ALONE, stalls("one", " two"))
        of_requests, of_attempts = gated(tree)
        glanced = ExecuteBatch(
            request_id="r",
            model="m",
            messages=(),
            source=Source(Dialect.OPENAI_CHAT, body, "m"),
        )
        way = straight(tree.serving, glanced, reread=unreadable)
        assert way is not None
        with trio.move_on_after(1.0):
            await way.run(Collected())
        assert (of_requests.held, of_attempts.held) == (0, 0)
        used = Used(output_tokens=2, cost_pico_usd=4_000_000)
        assert (of_requests.ends, of_attempts.ends) == ([used], [used])
        assert (await tree.replica()).outstanding == 0
