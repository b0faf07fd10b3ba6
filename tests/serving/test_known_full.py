"""Whether a limit is known to have no room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
import trio

from atomr.cluster.permits import Permits
from atomr_infer.errors import RateLimitedError
from atomr_infer.model.rate_limits import OnLimit, RateLimits
from atomr_infer.policy.limits.demand import Demand
from atomr_infer.serving.limits.known_full import KNOWN_S, KnownFull
from atomr_infer.serving.limits.limiter import RateGate
from atomr_infer.serving.limits.rate_hold import RateHold

if TYPE_CHECKING:
    from trio.testing import MockClock

    from atomr.cluster.permits import PermitService


def ask(tokens: int) -> Demand:
    return Demand(deployment="m", model="m", input_tokens=tokens)


def full(*, has_others: bool = True) -> KnownFull:
    needs = (lambda _: 1, lambda demand: demand.input_tokens)
    return KnownFull(needs, has_others=has_others)


def test_a_node_without_others_knows_at_once() -> None:
    assert full(has_others=False).refuses(ask(1), 0.0)
    assert not full().refuses(ask(1), 0.0)


@pytest.mark.parametrize(
    ("tokens", "after_s", "refuses"),
    [
        (100, 0.0, True),
        (101, KNOWN_S - 0.01, True),
        (99, 0.0, False),
        (100, KNOWN_S, False),
    ],
)
def test_who_needs_as_much_as_one_that_got_nothing_gets_nothing_for_a_moment(
    tokens: int, after_s: float, *, refuses: bool
) -> None:
    known = full()
    known.note(ask(100), 5.0)
    assert known.refuses(ask(tokens), 5.0 + after_s) is refuses


class Away:
    """Permits that another node gives back after a while; that of a service."""

    def __init__(self, after_s: float) -> None:
        self.after_s = after_s

    def now_s(self) -> float:
        return trio.current_time()

    def expect(self, _name: str, _permits: int) -> None:
        """It is asked below."""

    def try_acquire(self, _name: str, _permits: int, **_: object) -> None:
        """Nothing is here."""

    async def acquire(self, name: str, permits: int, **_: object) -> object:
        await trio.sleep(self.after_s)
        return Permits(
            name, permits, self.now_s(), cast("Any", None), cast("Any", None)
        )

    def retry_after_s(self, _name: str, _permits: int) -> float:
        return 57.0


@pytest.mark.parametrize(("after_s", "has_room"), [(0.5, True), (1.5, False)])
async def test_who_does_not_queue_waits_for_what_another_node_gives_back(
    autojump_clock: MockClock, after_s: float, has_room: bool
) -> None:
    """A node says once in a quarter of a second what it does not need."""
    terms = RateLimits(requests_per_minute=60, on_exceeded=OnLimit.REJECT)
    service = cast("PermitService", Away(after_s))
    gate = RateGate(service, terms, name="m", owner="m", longest_s=60.0)
    deadline_s = trio.current_time() + 60.0
    if has_room:
        hold = await gate.enter(ask(1), deadline_s=deadline_s)
        assert isinstance(hold, RateHold)
        return
    for waited_s in (1.0, 0.0):  # the second one knows
        began_s = trio.current_time()
        with pytest.raises(RateLimitedError, match="come again in 57"):
            await gate.enter(ask(1), deadline_s=deadline_s)
        assert trio.current_time() - began_s == pytest.approx(waited_s)
