"""Nodes with other terms for a limit: nothing is lent, and it is told if it lasts."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr.cluster.permits import FIRST, Denied, Limit, Permits
from atomr.cluster.permits.core import DIFFERS_S, FORGOTTEN_S, Core
from atomr.cluster.permits.line import Waiter
from atomr.crdt import Origin
from atomr.gossip.escrow.frames import Open, Refused
from tests.atomr.cluster.permits.test_permits import SEED, THREE, three
from tests.atomr.cluster.permits.world import open_virtual

if TYPE_CHECKING:
    from trio.testing import MockClock

    from atomr.cluster.permits import PermitService

LESSEE = next(name for name in THREE.voters if name != THREE.home)
OTHER = Limit("rpm", 31, 60.0, voters=THREE.voters)


def begin_anew(permits: PermitService, limit: Limit) -> None:
    """Have a node ask for an account again, by these terms."""
    permits.remove("rpm")
    permits.add(limit, past=FIRST)


async def ask(permits: PermitService, within_s: float) -> Permits | Denied:
    """Ask for more than a node has for itself."""
    deadline_s = trio.current_time() + within_s
    return await permits.acquire("rpm", 10, deadline_s=deadline_s)


async def test_a_node_whose_terms_differ_for_long_is_told_of_once_and_lent_nothing(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    told = [
        f"limit 'rpm': {peer} has other terms for it; nothing is lent between the"
        " two: give all nodes the same"
        for peer in sorted((THREE.home, LESSEE))
    ]
    async with open_virtual(random.Random(SEED)) as cluster:
        nodes = await three(cluster, THREE)
        begin_anew(nodes[LESSEE], OTHER)
        for within_s, is_told in ((0.9 * DIFFERS_S, False), (10.0, True), (90.0, True)):
            assert isinstance(await ask(nodes[LESSEE], within_s), Denied)
            found = sorted(record.getMessage() for record in caplog.records)
            assert found == (told if is_told else [])
        assert nodes[LESSEE].state("rpm").differs == (THREE.home,)
        assert nodes[THREE.home].state("rpm").differs == (LESSEE,)


async def test_what_differs_only_until_a_change_has_come_to_all_is_not_told(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_virtual(random.Random(SEED)) as cluster:
        nodes = await three(cluster, THREE)
        home, lessee = nodes[THREE.home], nodes[LESSEE]
        for changes in (lessee, home, lessee, home):
            now = home.limit("rpm")
            other = OTHER if now == THREE else THREE
            begin_anew(lessee, other)
            assert isinstance(await ask(lessee, 0.9 * DIFFERS_S), Denied)
            assert home.state("rpm").differs == (LESSEE,)
            assert lessee.state("rpm").differs == (THREE.home,)

            if changes is home:
                home.replace(other)
            elif now is not None:
                lessee.replace(now)
            got = await ask(lessee, 90.0)
            assert isinstance(got, Permits)
            assert home.state("rpm").differs == lessee.state("rpm").differs == ()
    assert caplog.records == []


# --- two cores, and frames that are handed over by hand ----------------------------

STEP_S = 0.05


class Pair:
    """The home and a lessee of a limit; the latter has other terms."""

    def __init__(self, home: Limit = THREE, lessee: Limit = OTHER) -> None:
        self.now_s = 0.0
        self.home, self.lessee = Core(Origin(THREE.home, 1)), Core(Origin(LESSEE, 2))
        self.home.add(home, 0.0, past=FIRST)
        self.lessee.add(lessee, 0.0, past=FIRST)

    def ask(self) -> None:
        """Ask the lessee for more than it has for itself."""
        self.lessee.expect("rpm", 10)
        self.lessee.wait("rpm", Waiter(10, 0, lambda _: None), self.now_s)

    def begin_anew(self, limit: Limit) -> None:
        """Give the lessee other terms; who waits there is denied."""
        self.lessee.remove("rpm", self.now_s)
        self.lessee.add(limit, self.now_s, past=FIRST)

    def to_home(self) -> int:
        """Deliver what the lessee has said, and return how much that was."""
        return self._deliver(self.lessee, LESSEE, self.home, THREE.home)

    def to_lessee(self) -> int:
        """Deliver what the home has said, and return how much that was."""
        return self._deliver(self.home, THREE.home, self.lessee, LESSEE)

    def _deliver(self, sender: Core, name: str, to: Core, to_name: str) -> int:
        sends, sender.sends = sender.sends, []
        frames = [frame for peer, frame in sends if peer == to_name]
        for frame in frames:
            to.receive(name, frame, self.now_s)
        return len(frames)

    def run(self, for_s: float, *, asks_each_s: float = 0.0) -> None:
        """Let time pass; where asked to, the lessee wants something again and again."""
        for step in range(round(for_s / STEP_S)):
            if asks_each_s and step % round(asks_each_s / STEP_S) == 0:
                self.ask()
            for core in (self.home, self.lessee):
                if core.next_deadline_s <= self.now_s:
                    core.advance(self.now_s)
            while self.to_home() + self.to_lessee():
                pass
            self.now_s += STEP_S

    def differs(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return who differs, for the home and for the lessee."""
        home, lessee = (c.state("rpm", self.now_s) for c in (self.home, self.lessee))
        return home.differs, lessee.differs


def test_who_says_nothing_any_more_is_named_no_more_and_waited_for_anew() -> None:
    pair = Pair()
    pair.ask()
    pair.run(3.0)
    assert pair.differs() == ((LESSEE,), (THREE.home,))

    pair.begin_anew(THREE)  # it wants nothing under the right terms, and says nothing
    pair.run(0.9 * FORGOTTEN_S)
    assert pair.differs() == ((LESSEE,), ())
    pair.run(0.1 * FORGOTTEN_S + 1.0)
    assert pair.differs() == ((), ())

    pair.begin_anew(OTHER)
    pair.run(0.9 * DIFFERS_S, asks_each_s=1.0)
    assert pair.differs() == ((LESSEE,), (THREE.home,))
    assert pair.home.facts == pair.lessee.facts == []
    pair.run(0.2 * DIFFERS_S, asks_each_s=1.0)
    assert len(pair.home.facts) == len(pair.lessee.facts) == 1


def test_what_is_told_is_told_again_after_it_was_over_unsaid() -> None:
    pair = Pair()
    pair.run(2.0 * DIFFERS_S, asks_each_s=1.0)
    assert len(pair.home.facts) == 1

    pair.begin_anew(THREE)
    pair.run(FORGOTTEN_S + 1.0)
    pair.begin_anew(OTHER)
    pair.run(2.0 * DIFFERS_S, asks_each_s=1.0)
    assert len(pair.home.facts) == 2


def test_a_lessee_that_says_little_since_its_leases_are_long_is_not_forgotten() -> None:
    lease_s = 4.0 * FORGOTTEN_S
    base, other = (attrs.evolve(limit, lease_s=lease_s) for limit in (THREE, OTHER))
    pair = Pair(base, other)
    pair.run(2.0 * lease_s, asks_each_s=1.0)
    for _ in range(8):  # from here on it speaks each half of a lease
        pair.run(0.2 * lease_s, asks_each_s=1.0)
        assert pair.differs() == ((LESSEE,), (THREE.home,))
    assert len(pair.home.facts) == len(pair.lessee.facts) == 1


def test_a_refusal_under_way_while_the_lessee_takes_those_terms_is_no_difference() -> (
    None
):
    pair = Pair()
    pair.ask()
    pair.lessee.advance(pair.now_s)
    assert pair.to_home() == 1
    pair.lessee.resize(THREE, pair.now_s)
    assert pair.to_lessee() == 1

    assert pair.differs() == ((LESSEE,), ())
    pair.run(1.0)
    assert pair.differs() == ((), ())


def test_a_refusal_by_the_terms_that_a_lessee_has_taken_ends_the_difference() -> None:
    pair = Pair()
    pair.ask()
    pair.run(1.0)
    pair.lessee.resize(THREE, pair.now_s)
    assert pair.differs() == ((LESSEE,), (THREE.home,))

    for terms, differs in ((OTHER.terms, (THREE.home,)), (0, (THREE.home,))):
        pair.lessee.receive(THREE.home, Refused("rpm", terms, 2, 0), pair.now_s)
        assert pair.differs() == ((LESSEE,), differs)
    pair.lessee.receive(THREE.home, Refused("rpm", THREE.terms, 2, 0), pair.now_s)
    assert pair.differs() == ((LESSEE,), ())


@pytest.mark.parametrize("each_s", [0.7 * DIFFERS_S, 2.0 * DIFFERS_S])
def test_a_home_that_is_resized_again_and_again_tells_once_of_who_stays_wrong(
    each_s: float,
) -> None:
    pair = Pair()
    for number in range(10):
        pair.home.resize(attrs.evolve(THREE, permits=28 + number % 2), pair.now_s)
        pair.run(each_s, asks_each_s=5.0)
    assert pair.differs() == ((LESSEE,), (THREE.home,))
    assert len(pair.home.facts) == len(pair.lessee.facts) == 1


def test_nodes_that_differed_and_are_gone_are_not_kept() -> None:
    home = Core(Origin(THREE.home, 1))
    home.add(THREE, 0.0, past=FIRST)
    for number in range(20):
        now_s = number * 0.6 * FORGOTTEN_S
        home.receive(f"pod-{number}", Open("rpm", OTHER.terms, 1, 0), now_s)
        assert len(home.parts["rpm"].differs) <= 2
    assert home.state("rpm", now_s).differs == ("pod-18", "pod-19")
