"""Many clients and upstreams that fail at random, in virtual time.

Whatever happens, an answer is whole, once, and an error otherwise; nobody is
asked more often than allowed; and in the end nothing is held.
"""

from __future__ import annotations

import random
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr.otp import which_children
from atomr_infer import errors
from atomr_infer.model.batch import ExecuteBatch, RawChunk, Role, TokenChunk
from atomr_infer.model.deployment import Deployment, RetryPolicy, Serving, Timeouts
from atomr_infer.model.failover import (
    BreakerPolicy,
    HedgePolicy,
    OnCapacity,
    OnCut,
)
from atomr_infer.serving.names import REQUESTS
from tests.serving.acts import STOP, USAGE, Act, Player
from tests.serving.conftest import Collected, OpenTree, Tree

if TYPE_CHECKING:
    from trio.testing import MockClock

TEXT = "To be, or not to be, that is the question."
CLIENTS = 60

ERRORS = [
    errors.UpstreamError("broken", status=500),
    errors.RateLimitedError("slow down", status=429),
    errors.RateLimitedError("slow down", status=429, retry_after_s=3.0),
    errors.UpstreamConnectError("refused"),
    errors.OverloadedError("overloaded", status=529),
    errors.ContextLengthError("too long", status=400),
    errors.UpstreamAuthError("who?", status=401),
]


class Typist(Player):
    """Says the text, or goes on with it, and fails now and then."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng

    def act(self, batch: ExecuteBatch) -> Act:
        rng, last = self._rng, batch.messages[-1]
        said = last.text if last.role is Role.ASSISTANT else ""
        assert TEXT.startswith(said)
        whole = (*pieces(rng, TEXT[len(said) :]), STOP, USAGE)
        part = whole[: rng.randrange(len(whole) - 1)]
        before_s = rng.choice([0.0, 0.1, 1.0, 4.0])
        match rng.randrange(10):
            case 0:
                return Act(error=rng.choice(ERRORS), before_s=before_s)
            case 1:
                return Act(part, before_s=before_s)
            case 2:
                return Act(part, hangs=True, before_s=before_s)
            case 3:
                return Act(part, error=rng.choice(ERRORS[:2]), before_s=before_s)
            case _:
                return Act(whole, before_s=before_s)


def pieces(rng: random.Random, text: str) -> list[TokenChunk]:
    cuts = {0, len(text), *(rng.randrange(len(text) + 1) for _ in range(5))}
    return [TokenChunk(text=text[a:b]) for a, b in pairwise(sorted(cuts))]


def world(rng: random.Random) -> list[Deployment]:
    shared: dict[str, Any] = {
        "runtime": "lab",
        "retry": RetryPolicy(max_attempts=rng.randint(1, 3), backoff_s=0.5),
        "timeouts": Timeouts(first_token_s=5, idle_s=5, total_s=60),
        "breaker": BreakerPolicy(max_failures=3, open_s=2),
    }
    a = Deployment(
        name="m",
        fallbacks=["b", "c"],
        on_cut=rng.choice(list(OnCut)),
        hedge=HedgePolicy(after_s=rng.choice([None, 2.0]), max_fraction=0.5),
        serving=Serving(
            replicas=rng.randint(1, 2),
            max_concurrency=rng.randint(1, 8),
            max_queue=rng.randint(0, 8),
            queue_timeout_s=5,
            on_capacity_exhausted=rng.choice(list(OnCapacity)),
        ),
        options={"endpoint": "one"},
        **shared,
    )
    b = Deployment(name="b", options={"endpoint": "one"}, **shared)
    c = Deployment(name="c", options={"endpoint": "two"}, **shared)
    return [c, b, a]


@attrs.define
class SlowSink(Collected):
    """Takes its time now and then."""

    rng: random.Random = attrs.field(factory=random.Random)

    async def chunk(self, chunk: TokenChunk | RawChunk) -> None:
        await trio.sleep(self.rng.choice([0.0, 0.0, 0.0, 7.0]))
        await super().chunk(chunk)


async def client(tree: Tree, rng: random.Random, seen: list[str]) -> None:
    await trio.sleep(rng.uniform(0, 30))
    sink = SlowSink(rng=rng)
    outcome = "left"
    with trio.move_on_after(rng.choice([2.0, 20.0, 500.0, 500.0])):
        try:
            await tree.ask(
                sink=sink,
                stream=rng.random() < 0.7,
                priority=rng.randint(0, 3),
                timeout_s=rng.choice([None, 15.0]),
            )
        except errors.InferenceError as error:
            outcome = error.kind
            assert TEXT.startswith("".join(sink.texts))
        else:
            outcome = "whole"
            assert "".join(sink.texts) == TEXT
            assert sink.chunks[-1] == USAGE
            assert sink.chunks.count(STOP) == 1
            assert sink.result is not None
            attempts = sink.result.attempts
            assert attempts[-1].error is None
            # Three deployments, three tries each, one hedge per try.
            assert len(attempts) <= 18
    seen.append(outcome)


@pytest.mark.parametrize("seed", range(10))
async def test_every_answer_is_whole_or_an_error_and_nothing_is_left(
    open_tree: OpenTree, autojump_clock: MockClock, seed: int
) -> None:
    rng = random.Random(seed)
    seen: list[str] = []
    async with open_tree() as tree:
        players = []
        for deployment in world(rng):
            mine = [Typist(rng) for _ in range(deployment.serving.replicas)]
            players += mine
            tree.lab.plan = [*mine]
            await tree.serving.deploy(deployment)
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                one = random.Random(rng.random())
                nursery.start_soon(client, tree, one, seen)
        await trio.testing.wait_all_tasks_blocked()
        assert len(seen) == CLIENTS
        assert seen.count("whole") > 0
        for name in tree.serving.deployments:
            for replica in tree.serving.replicas(name):
                held = replica.running, replica.waiting, replica.arriving
                assert held == (0, 0, 0)
            guard = tree.serving.breakers.of(name)
            assert guard is not None
            assert guard.breaker.probes == 0
        assert [player.active for player in players] == [0] * len(players)
        assert await which_children(REQUESTS) == ()
