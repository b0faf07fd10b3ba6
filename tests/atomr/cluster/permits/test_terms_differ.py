"""Nodes with other terms for a limit: nothing is lent, and it is told if it lasts."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import trio

from atomr.cluster.permits import FIRST, Denied, Limit, Permits
from atomr.cluster.permits.core import DIFFERS_S
from tests.atomr.cluster.permits.test_permits import SEED, THREE, three
from tests.atomr.cluster.permits.world import open_virtual

if TYPE_CHECKING:
    import pytest
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
