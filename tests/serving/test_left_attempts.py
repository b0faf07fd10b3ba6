"""What is told, and billed, of an attempt that nobody waited for to its end.

By both ways, which is what these tests are for: where one of them counted
otherwise, a bill would depend on how busy the deployment was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing

from atomr import telemetry
from atomr_infer.errors import DeadlineError
from atomr_infer.model.batch import RawChunk, TokenChunk, Usage
from atomr_infer.model.deployment import Deployment, Timeouts
from atomr_infer.serving.requests.served import Spent, Tried
from tests.serving.acts import Act, Player, stalls

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.serving.conftest import OpenTree


ONE = Deployment(name="m", runtime="lab")
BRIEF = attrs.evolve(ONE, timeouts=Timeouts(total_s=5))

# "one two" is what is asked: seven characters, two tokens.
NOTHING = Act(hangs=True)
ROLE = Act((RawChunk(data=b"data: {}\n\n", has_content=False),), hangs=True)
WORDS = stalls("one", " two")
COUNTED = Act(
    (TokenChunk(text="one"), TokenChunk(usage=Usage(input_uncached=3, output_text=9))),
    hangs=True,
)

LOST_PROMPT = Usage(input_uncached=2, estimated=True, interrupted=True)
LOST_WORDS = attrs.evolve(LOST_PROMPT, output_text=2)

Stops = list[Mapping[str, Any]]


@pytest.fixture
def stops() -> Iterator[Stops]:
    seen: Stops = []

    def keep(
        _: telemetry.Event,
        measured: Mapping[str, float],
        metadata: Mapping[str, object],
    ) -> None:
        seen.append({**measured, **metadata})

    telemetry.attach("test-left", ("atomr_infer", "request", "stop"), keep)
    yield seen
    telemetry.detach("test-left")


CASES = pytest.mark.parametrize(
    ("act", "usage"),
    [
        pytest.param(NOTHING, None, id="before the headers"),
        pytest.param(ROLE, LOST_PROMPT, id="before the first word"),
        pytest.param(WORDS, LOST_WORDS, id="in the middle"),
        pytest.param(
            COUNTED, Usage(input_uncached=3, output_text=9), id="behind the totals"
        ),
    ],
)
STREAM = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


def told(stops: Stops) -> tuple[object, ...]:
    (stop,) = stops
    return stop["outcome"], stop["attempts"], stop["tried"], stop["spent"]


def spent(usage: Usage | None) -> tuple[Spent, ...]:
    return () if usage is None else (Spent("m", "m", usage),)


@CASES
@STREAM
async def test_one_that_its_client_left_is_one_attempt_and_its_bill_what_came(
    open_tree: OpenTree,
    autojump_clock: MockClock,
    stops: Stops,
    act: Act,
    usage: Usage | None,
    *,
    stream: bool,
) -> None:
    async with open_tree() as tree:
        tree.lab.plan = [Player([act])]
        await tree.serving.deploy(ONE)
        with trio.move_on_after(1):
            await tree.ask(stream=stream)
    assert told(stops) == ("cancelled", 1, (Tried("m", "cancelled"),), spent(usage))


@CASES
@STREAM
async def test_one_whose_time_was_over_is_one_attempt_and_its_bill_what_came(
    open_tree: OpenTree,
    autojump_clock: MockClock,
    stops: Stops,
    act: Act,
    usage: Usage | None,
    *,
    stream: bool,
) -> None:
    async with open_tree() as tree:
        tree.lab.plan = [Player([act])]
        await tree.serving.deploy(BRIEF)
        with pytest.raises(DeadlineError):
            await tree.ask(stream=stream)
    assert told(stops) == (
        "failed",
        1,
        (Tried("m", DeadlineError.kind),),
        spent(usage),
    )
