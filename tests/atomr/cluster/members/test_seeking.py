"""What is made of what discoveries find, under a virtual clock."""

from __future__ import annotations

import random
from math import inf
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr import telemetry
from atomr.cluster import StaticSeeds
from atomr.cluster.members.seeking import RETRY_S, seek
from atomr.cluster.members.station import make_station
from atomr.errors import DiscoveryError
from atomr.gossip.membership import SeedsChanged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trio.testing import MockClock

    from atomr.cluster import ClusterOptions, Discovery

Step = tuple[str, ...] | Exception


@attrs.define
class Scripted:
    """A discovery that does what it is told, then the last thing again and again.

    Attributes:
        steps: answers, and errors to raise.
        interval_s: as it says.
        asked: when it was.
    """

    steps: list[Step]
    interval_s: float = 10.0
    asked: list[float] = attrs.field(factory=list)

    async def find(self) -> tuple[str, ...]:
        await trio.lowlevel.checkpoint()
        self.asked.append(trio.current_time())
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, Exception):
            raise step
        return step


class Middle(random.Random):
    """Draws what makes the jitter nothing."""

    def random(self) -> float:
        return 0.5


@pytest.fixture
def found(options: Callable[..., ClusterOptions]) -> Callable[..., Any]:
    """Let discoveries be asked for a while; return when which seeds were told."""

    async def run(
        *discoveries: Discovery, for_s: float = 100.0, known: Sequence[str] = ()
    ) -> list[tuple[float, tuple[str, ...]]]:
        station = make_station(
            options("a", discovery=discoveries),
            (),
            draw=Middle(),
            now=trio.current_time,
            fail=lambda _: None,
        )
        station.known = tuple(known)
        heard: list[tuple[float, tuple[str, ...]]] = []
        began = trio.current_time()

        def hear(event: object) -> None:
            assert isinstance(event, SeedsChanged)
            heard.append((round(trio.current_time() - began, 3), event.seeds))

        station.switchboard.members = hear
        with trio.move_on_after(for_s):
            await seek(station)
        return heard

    return run


DOWN = DiscoveryError("a server", "it is down")


async def test_all_discoveries_together_are_the_seeds_each_once(
    found: Any, autojump_clock: MockClock
) -> None:
    heard = await found(StaticSeeds(["a:1", "b:1"]), StaticSeeds(["b:1", "c:1"]))
    assert heard[-1] == (0.0, ("a:1", "b:1", "c:1"))


async def test_what_has_not_changed_is_not_told_again(
    found: Any, autojump_clock: MockClock
) -> None:
    asked = Scripted([("a:1",), ("a:1",), ("a:1", "b:1")])
    assert await found(asked) == [(0.0, ("a:1",)), (20.0, ("a:1", "b:1"))]
    assert len(asked.asked) == 10


async def test_an_answer_without_anybody_is_an_answer(
    found: Any, autojump_clock: MockClock
) -> None:
    assert await found(Scripted([("a:1",), ()])) == [(0.0, ("a:1",)), (10.0, ())]


@pytest.mark.parametrize("error", [DOWN, ZeroDivisionError("somebody's own")])
async def test_a_discovery_that_fails_keeps_its_last_answer(
    found: Any,
    autojump_clock: MockClock,
    error: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    steps: list[Step] = [("a:1",), error, error, ("a:1", "b:1"), error]
    assert await found(Scripted(steps)) == [(0.0, ("a:1",)), (30.0, ("a:1", "b:1"))]
    said = [
        r.getMessage() for r in caplog.records if "its last answer" in r.getMessage()
    ]
    # Once, and once more after it had answered.
    assert len(said) == 2


async def test_each_failure_is_counted(found: Any, autojump_clock: MockClock) -> None:
    failures: list[object] = []
    telemetry.attach(
        "test failures",
        ("atomr", "discovery", "failed"),
        lambda _, __, metadata: failures.append(dict(metadata)),
    )
    try:
        await found(Scripted([DOWN]), for_s=35.0)
    finally:
        telemetry.detach("test failures")
    assert failures == [{"place": 0, "problem": str(DOWN)}] * 4


async def test_one_that_fails_does_not_hold_up_the_others(
    found: Any, autojump_clock: MockClock
) -> None:
    heard = await found(Scripted([DOWN]), Scripted([("b:1",)]))
    assert heard == [(0.0, ("b:1",))]


async def test_one_that_hangs_does_not_hold_up_the_others(
    found: Any, autojump_clock: MockClock
) -> None:
    class Hangs:
        interval_s = 1.0

        async def find(self) -> tuple[str, ...]:
            await trio.sleep_forever()
            raise AssertionError

    assert await found(Hangs(), StaticSeeds(["b:1"])) == [(0.0, ("b:1",))]


async def test_one_that_is_asked_once_is_asked_again_if_it_failed(
    found: Any, autojump_clock: MockClock
) -> None:
    once = Scripted([DOWN, ("a:1",)], interval_s=inf)
    assert await found(once) == [(RETRY_S, ("a:1",))]
    assert len(once.asked) == 2


async def test_what_cannot_be_dialed_is_left_out_and_said_once(
    found: Any, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    heard = await found(Scripted([("a:1", "no address", "b:1")]))
    assert heard == [(0.0, ("a:1", "b:1"))]
    assert caplog.text.count("'no address'") == 1


async def test_an_answer_that_is_none_is_a_failure(
    found: Any, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    steps: Any = [("a:1",), None, (7,), ("b:1",)]
    assert await found(Scripted(steps)) == [(0.0, ("a:1",)), (30.0, ("b:1",))]
    assert caplog.text.count("its last answer holds") == 2


async def test_a_port_that_is_none_is_left_out(
    found: Any, autojump_clock: MockClock
) -> None:
    assert await found(Scripted([("a:0", "b:1")])) == [(0.0, ("b:1",))]


async def test_whom_the_last_life_knew_stay_seeds(
    found: Any, autojump_clock: MockClock
) -> None:
    heard = await found(StaticSeeds(["a:1"]), known=["k:1"])
    assert heard == [(0.0, ("k:1", "a:1"))]
