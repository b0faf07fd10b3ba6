"""Budgets of several nodes under faults that are drawn, in virtual time."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr.cluster.budgets import (
    BudgetsError,
    BudgetTerms,
    Refused,
    Reservation,
)
from tests.at_length import times
from tests.atomr.cluster.budgets.lab import Lab, open_lab

if TYPE_CHECKING:
    from tests.atomr.cluster.budgets.lab import SimNode

NAMES = ("a", "b", "c", "d")
UNITS = 1_000_000
TEAM = BudgetTerms(name="team", units=UNITS)
CHAOS_S = 12.0
LEAST = 250
SPENT_IN = (64_000, 8_000, 1_000, LEAST)
"""Units of the calls that spend what is left."""


@attrs.define
class Calls:
    """What calls cost, as their provider charges it.

    Attributes:
        charged: units, in total.
        over: units that calls cost beyond what was reserved.
        refused: calls that were.
        down: calls that met a node without a budget.
        open: calls that run.
        stranded: units that calls held beyond their cost when their node was killed.
        by_ledger: units that calls cost, by the ledger that they were reserved in.
        lost: ledgers whose file is lost.
    """

    charged: int = 0
    over: int = 0
    refused: int = 0
    down: int = 0
    open: int = 0
    stranded: int = 0
    by_ledger: Counter[str] = attrs.field(factory=Counter)
    lost: list[str] = attrs.field(factory=list)

    async def make(
        self, lab: Lab, name: str, units: int, *, cost: int, takes_s: float
    ) -> None:
        node = lab.network.up.get(name)
        if node is None:
            return
        try:
            with node.here():
                found = await node.service.reserve("team", units, wait_s=2.0)
        except BudgetsError:
            self.down += 1
            return
        if isinstance(found, Refused):
            self.refused += 1
            return
        # Charged at once, whatever becomes of the node.
        self.charged += cost
        self.by_ledger[found.account.ledger.ledger] += cost
        self.over += max(0, cost - units)
        self.open += 1
        await trio.sleep(takes_s)
        self.open -= 1
        if lab.network.up.get(name) is node:
            self._settle(node, found, cost)
        else:
            self.stranded += max(0, units - cost)

    @staticmethod
    def _settle(node: SimNode, found: Reservation, cost: int) -> None:
        with node.here():
            node.service.settle(found, cost)
            node.service.settle(found, cost)  # a second time it does nothing


async def chaos(lab: Lab, calls: Calls) -> None:
    """Make calls while nodes are killed, stopped and cut off."""
    draw = lab.draw
    async with trio.open_nursery() as nursery:
        for _ in range(draw.randrange(50, 110)):
            nursery.start_soon(partial(_later, lab, calls, draw.uniform(0.0, CHAOS_S)))
        nursery.start_soon(_break, lab, calls)


async def _later(lab: Lab, calls: Calls, at_s: float) -> None:
    draw = lab.draw
    await trio.sleep(at_s)
    units = draw.randint(10, 24_000)
    cost = int(units * draw.choice((0.1, 0.5, 1.0)))
    name = "a" if draw.random() < 0.5 else draw.choice(NAMES)
    await calls.make(lab, name, units, cost=cost, takes_s=draw.uniform(0.0, 1.5))


async def _break(lab: Lab, calls: Calls) -> None:
    draw = lab.draw
    lab.network.loss = draw.choice((0.0, 0.2))
    lab.network.delay_s = draw.choice((0.002, 0.5))
    for _ in range(draw.randrange(1, 5)):
        await trio.sleep(draw.uniform(0.1, 3.0))
        name = draw.choice(NAMES)
        match draw.randrange(5):
            case 0:
                await lab.kill(name)
                await trio.sleep(draw.uniform(0.0, 2.0))
                await lab.start(name)
            case 1:
                await lab.stop(name)
                await trio.sleep(draw.uniform(0.0, 2.0))
                await lab.start(name)
            case 2:
                lab.network.split(*draw.sample(NAMES, draw.randrange(1, 3)))
                await trio.sleep(draw.uniform(0.1, 4.0))
                lab.network.heal()
            case 3:
                lab.disks[name].is_full = True
                await trio.sleep(draw.uniform(0.1, 3.0))
                lab.disks[name].is_full = False
            case 4 if not calls.lost:
                # Of one at most: another one knows what it had.
                calls.lost.append(f"{name}/{lab.disks[name].stored.file}")
                await lab.kill(name, lose_disk=True)
                await trio.sleep(draw.uniform(0.0, 2.0))
                await lab.start(name)
    lab.network.loss = 0.0
    lab.network.delay_s = 0.002


async def spend_all(lab: Lab, calls: Calls) -> None:
    """Spend what there is, in ever smaller calls, until all nodes are refused.

    A refusal costs the most: all others have been asked.  So one node alone meets
    those of the larger calls.
    """
    for units in SPENT_IN:
        names = NAMES if units == LEAST else (lab.draw.choice(NAMES),)
        before = -1
        while calls.charged != before:
            before = calls.charged
            for name in names:
                await _spend(lab, calls, name, units)


async def _spend(lab: Lab, calls: Calls, name: str, units: int) -> None:
    """Make calls at a node until one is refused."""
    before = -1
    while calls.charged != before:
        before = calls.charged
        await calls.make(lab, name, units, cost=units, takes_s=0.0)


async def reclaim(lab: Lab, calls: Calls) -> None:
    """Let an operator say what was spent in a file that is lost."""
    spent = {ledger: calls.by_ledger[ledger] for ledger in calls.lost}
    name = lab.draw.choice(NAMES)
    with lab.here(name):
        await lab[name].reclaim("team", spent)
    await trio.sleep(1.0)


def check_sums(lab: Lab, calls: Calls) -> None:
    """Hold what the ledgers say against what was charged."""
    assert calls.open == 0
    rows = {}
    for node in lab.network.up.values():
        server = node.service._server
        assert server is not None
        account = server.core.accounts["team"]
        balance = account.ledger.balance
        assert account.reserved == 0
        # What is neither idle nor settled now was taken by lives that are over.
        assert balance.taken - balance.idle >= account.settled
        [row] = [r for r in account.ledger.rows if r.ledger == account.ledger.ledger]
        rows[row.ledger] = row
        moved_here = sum(
            other.moved.get(row.ledger, 0) for other in account.ledger.rows
        )
        moved_away = sum(row.moved.values())
        made = row.minted + moved_here - moved_away
        assert balance.rights == max(0, made - balance.taken)
    minted = {row.ledger: row.minted for row in rows.values()}
    [server, *_] = [node.service._server for node in lab.network.up.values()]
    assert server is not None
    for row in server.core.accounts["team"].ledger.rows:
        if row.ledger in calls.lost:
            minted[row.ledger] = row.minted
    assert sum(minted.values()) == UNITS


async def run(seed: int) -> Calls:
    calls = Calls()
    async with open_lab(*NAMES, seed=seed) as lab:
        lab.prepare = _open_team
        await lab.start(*NAMES)
        await trio.sleep(0.5)
        await chaos(lab, calls)
        await trio.sleep(4.0)
        assert calls.charged <= UNITS, f"{calls.charged - UNITS} units too many"
        if calls.lost:
            await reclaim(lab, calls)
        await spend_all(lab, calls)
        await trio.sleep(2.0)
        check_sums(lab, calls)
    assert calls.charged <= UNITS + calls.over
    return calls


def _open_team(node: SimNode) -> None:
    node.service.open(TEAM)


async def check(seed: int) -> None:
    """Run a schedule; nothing is left of it, and hardly a unit cannot be spent."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    calls = await run(seed)
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    # Killed lives leave a chunk each: one percent of what there is, at most.
    left = UNITS - calls.charged - calls.stranded
    assert left <= 0.04 * UNITS, f"{left} cannot be spent"


@pytest.mark.parametrize("seed", range(1))
async def test_nothing_is_overspent_and_sums_are_right(
    seed: int, autojump_clock: object
) -> None:
    await check(seed)


@pytest.mark.slow
async def test_nothing_is_overspent_under_many_schedules(
    autojump_clock: object,
) -> None:
    for seed in range(100, 100 + times(16)):
        await check(seed)
