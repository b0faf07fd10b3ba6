"""A swap and a way back under load over real sockets: every request is answered."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr_infer.cluster import Cluster
from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.model.swap_plan import SwapPlan
from atomr_infer.policy.lifecycle.hot_swap import Phase
from tests.gateway.http import chat, events

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.gateway.http import Answer

CLIENTS = 8
PLAN = SwapPlan(steps=(0.25, 0.5), step_s=0.5, min_requests=10, probe=None)


def mock(reply: str, **options: Any) -> Deployment:
    # Words come slowly: many answers run whenever something changes.
    slowly = {"delay_s": 0.02, **options}
    return Deployment(
        name="m",
        runtime="mock",
        options={"reply": " ".join([reply] * 6), **slowly},
        retry=RetryPolicy(max_attempts=1),
    )


@attrs.define
class Load:
    """Clients that ask one request after the other, half of them for streams.

    Attributes:
        heard: how often each word was the answer's.
        failed: what was no whole answer.
    """

    heard: dict[str, int] = attrs.field(factory=dict)
    failed: list[str] = attrs.field(factory=list)

    async def run(self, port: int, number: int) -> None:
        """Ask until it is cancelled."""
        is_stream = bool(number % 2)
        while True:
            try:
                answer = await chat(port, stream=is_stream)
                words = (_streamed if is_stream else _whole)(answer).split()
            except (OSError, ValueError, LookupError, AssertionError) as error:
                self.failed.append(repr(error))
                continue
            if len(words) != 6 or len(set(words)) != 1:
                self.failed.append(f"{words}")
            self.heard[words[0]] = self.heard.get(words[0], 0) + 1


def _whole(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    return str(answer.json["choices"][0]["message"]["content"])


def _streamed(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    *chunks, last = events(answer)
    assert last == "[DONE]", chunks[-1]
    choices = [choice for chunk in chunks for choice in json.loads(chunk)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def test_every_request_is_answered_on_the_way_there_and_on_the_way_back() -> None:
    old, new = mock("old"), mock("new")
    broken = mock("broken", fail_after=0)
    load = Load()
    async with Cluster.connect("inproc://load") as cluster:
        await cluster.deploy(old)
        gateway = await cluster.serve("127.0.0.1:0")
        port = int(gateway.url.rpartition(":")[2])
        async with trio.open_nursery() as nursery:
            for number in range(CLIENTS):
                nursery.start_soon(load.run, port, number)
            await trio.sleep(0.3)
            there = await cluster.hot_swaps.swap(new, PLAN)
            back = await cluster.hot_swaps.swap(broken, PLAN)
            heard = dict(load.heard)
            await trio.sleep(0.3)
            nursery.cancel_scope.cancel()
    assert load.failed == []
    assert (there.phase, there.failures) == (Phase.SWAPPED, 0)
    assert (back.phase, back.requests) == (Phase.ROLLED_BACK, back.failures)
    # Nobody heard the third version, and in the end nobody the first one.
    assert load.heard.keys() == {"old", "new"}
    assert load.heard["old"] == heard["old"]
    assert sum(load.heard.values()) > 50
