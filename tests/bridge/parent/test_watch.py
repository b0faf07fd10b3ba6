"""When an engine whose process answers is said to stand still."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from atomr_infer.bridge.parent.limits import BridgeLimits
from atomr_infer.bridge.parent.watch import Watch
from atomr_infer.model.capabilities import Capabilities, Feature
from atomr_infer.model.deployment import Deployment, Timeouts

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMITS = BridgeLimits(heartbeat_s=1.0, silent_s=3.0, stuck_s=5.0, blind_s=9.0)


@attrs.frozen
class Request:
    """What was asked."""

    computes: bool = True
    has_room: bool = True


RUNS = Request()
WRITER = Capabilities()
VECTORS = Capabilities(features=frozenset({Feature.EMBEDDINGS}))
COUNTS = Request(computes=False)
RESTS = Request(has_room=False)


def turns_until_stuck(watch: Watch, asked: Sequence[Request], most: int = 99) -> int:
    for turn in range(1, most + 1):
        if watch.after_turn(heard=True, asked=asked) is not None:
            return turn
    return 0


@pytest.mark.parametrize(
    ("does", "steps", "asked", "turns"),
    [
        # A turn more than the bound, for the first one may have begun before it.
        (WRITER, None, [RUNS], 10),
        (WRITER, 7, [RUNS], 6),
        (WRITER, 7, [COUNTS, RUNS], 6),
        (WRITER, 7, [], 0),
        (WRITER, 7, [COUNTS], 0),
        # It may hold what the other one waits for.
        (WRITER, 7, [RUNS, RESTS], 0),
        # A run of all that there is takes as long as it takes.
        (VECTORS, 7, [RUNS], 10),
        (VECTORS, None, [RUNS], 10),
    ],
)
def test_who_waits_for_it_and_what_it_tells_decide(
    does: Capabilities, steps: int | None, asked: Sequence[Request], turns: int
) -> None:
    watch = Watch("m", LIMITS)
    watch.serves(does)
    watch.steps = steps
    assert watch.after_turn(heard=True, asked=[]) is None
    assert turns_until_stuck(watch, asked) == turns


@pytest.mark.parametrize(
    ("bound_s", "turns"), [(0.5, 2), (1.0, 2), (1.5, 3), (2.9, 4), (3.0, 4)]
)
def test_no_bound_is_shorter_than_it_says(bound_s: float, turns: int) -> None:
    watch = Watch("m", attrs.evolve(LIMITS, blind_s=bound_s))
    assert turns_until_stuck(watch, [RUNS]) == turns


@pytest.mark.parametrize("does", [WRITER, VECTORS])
@pytest.mark.parametrize("sign", ["token", "step"])
def test_whatever_it_makes_is_a_sign(sign: str, does: Capabilities) -> None:
    watch = Watch("m", attrs.evolve(LIMITS, blind_s=5.0))
    watch.serves(does)
    watch.steps = 0
    for _ in range(9):
        assert turns_until_stuck(watch, [RUNS], most=5) == 0
        watch.told |= sign == "token"
        watch.steps += sign == "step"
        assert watch.after_turn(heard=True, asked=[RUNS]) is None
    assert turns_until_stuck(watch, [RUNS]) == 6


def test_requests_that_give_up_one_after_the_other_find_it_too() -> None:
    watch = Watch("m", LIMITS)
    for _ in range(3):
        assert turns_until_stuck(watch, [RUNS], most=3) == 0
        assert turns_until_stuck(watch, [], most=30) == 0
    assert turns_until_stuck(watch, [RUNS]) == 1


def test_it_is_as_patient_as_it_is_told_to_be_from_now_on() -> None:
    watch = Watch("m", LIMITS)
    timeouts = Timeouts(stuck_s=20.0, silent_s=1.0)
    watch.reread(Deployment(name="m", runtime="ort", timeouts=timeouts))
    assert turns_until_stuck(watch, [RUNS]) == 21
    # Its heart is asked for as often as it was.
    watch = Watch("m", LIMITS)
    watch.reread(Deployment(name="m", runtime="ort", timeouts=timeouts))
    silent = [watch.after_turn(heard=False, asked=[]) for _ in range(3)]
    assert [one is None for one in silent] == [True, True, False]
