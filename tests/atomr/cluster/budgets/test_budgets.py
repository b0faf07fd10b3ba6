"""Budgets of nodes that are killed, cut off, or lose what they had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr.cluster.budgets import (
    BudgetService,
    BudgetTerms,
    ClosedBudgetError,
    LedgerStoreError,
    NotRunningError,
    NoVoterError,
    ReclaimError,
    Refused,
    Reservation,
    UnknownBudgetError,
)
from tests.atomr.cluster.budgets.lab import Lab, open_lab

if TYPE_CHECKING:
    from tests.atomr.cluster.budgets.lab import SimNode

TEAM = BudgetTerms(name="team", units=3_000)
DAY_S = 86_400.0


def opens(*terms: BudgetTerms) -> Any:
    def prepare(node: SimNode) -> None:
        for each in terms:
            node.service.open(each)

    return prepare


async def take(lab: Lab, name: str, units: int, budget: str = "team") -> Any:
    node = lab.network.up[name]
    with node.here():
        return await node.service.reserve(budget, units, wait_s=5.0)


async def spend(lab: Lab, name: str, units: int, budget: str = "team") -> bool:
    """Spend so much; False: it was refused."""
    reserved = await take(lab, name, units, budget)
    if isinstance(reserved, Refused):
        return False
    with lab.here(name):
        lab[name].settle(reserved, units)
    return True


def remaining(lab: Lab, name: str, budget: str = "team") -> int:
    return lab[name].state(budget).remaining


# --- alone ----------------------------------------------------------------------------


async def test_alone_what_is_held_is_not_there_for_others(
    autojump_clock: object,
) -> None:
    async with open_lab("a") as lab:
        lab.prepare = opens(TEAM)
        await lab.start("a")
        held = await take(lab, "a", 2_900)
        assert isinstance(held, Reservation)
        assert await take(lab, "a", 200) == Refused(remaining=100)
        with lab.here("a"):
            lab["a"].settle(held, 1_000)
        assert remaining(lab, "a") == 2_000
        assert await spend(lab, "a", 2_000)
        assert remaining(lab, "a") == 0


async def test_what_is_at_hand_is_taken_in_place(autojump_clock: object) -> None:
    async with open_lab("a") as lab:
        lab.prepare = opens(TEAM)
        await lab.start("a")
        with lab.here("a"):
            # The first chunk has to be written first.
            assert lab["a"].try_reserve("team", 1) is None
            assert await spend(lab, "a", 1)
            found = lab["a"].try_reserve("team", 1)
            assert isinstance(found, Reservation)
            lab["a"].cancel(found)
            assert not found.is_open


async def test_what_was_refused_just_now_is_refused_in_place(
    autojump_clock: object,
) -> None:
    async with open_lab("a") as lab:
        lab.prepare = opens(TEAM)
        await lab.start("a")
        assert await take(lab, "a", 5_000) == Refused(remaining=3_000)
        with lab.here("a"):
            assert lab["a"].try_reserve("team", 4_000) == Refused(remaining=3_000)
            await trio.sleep(1.5)
            assert lab["a"].try_reserve("team", 4_000) is None


async def test_a_cost_beyond_what_was_held_is_charged_and_told(
    autojump_clock: object,
) -> None:
    told: list[tuple[int, int]] = []
    async with open_lab("a") as lab:
        lab.prepare = opens(TEAM)
        await lab.start("a")
        service = lab["a"]
        service.on_overrun = lambda fact: told.append((fact.excess, fact.uncovered))
        held = await take(lab, "a", 2_000)
        with lab.here("a"):
            service.settle(held, 2_500)
            assert service.state("team").overrun == 0
            service.charge("team", 700)
            # What is on its way to the disk is not there yet.
            assert 200 <= service.state("team").overrun <= 210
        assert [excess for excess, _ in told] == [500, 700]
        assert remaining(lab, "a") <= 10


async def test_what_is_charged_before_a_budget_is_open_is_charged_when_it_is(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_lab("a") as lab:
        await lab.start("a")
        with lab.here("a"):
            lab["a"].charge("team", 300)
            lab["a"].charge("team", 400)
            lab["a"].open(TEAM)
            assert lab["a"].state("team").spent == 700
            for number in range(100):  # nobody opens these, and they are not kept
                lab["a"].charge(f"gone {number}", 1)
        assert len(lab["a"]._owed) == 64
        assert "'gone 35': 1 were spent" in caplog.text


async def test_a_restart_knows_what_was_spent(autojump_clock: object) -> None:
    async with open_lab("a") as lab:
        lab.prepare = opens(TEAM)
        await lab.start("a")
        assert await spend(lab, "a", 1_000)
        await lab.stop("a")
        await lab.start("a")
        assert remaining(lab, "a") == 2_000


async def test_a_kill_loses_a_hundredth_at_most_and_gives_nothing_back(
    autojump_clock: object,
) -> None:
    async with open_lab("a") as lab:
        lab.prepare = opens(TEAM)
        await lab.start("a")
        for _ in range(10):
            assert await spend(lab, "a", 100)
        await lab.kill("a")
        await lab.start("a")
        assert 2_000 - 30 <= remaining(lab, "a") <= 2_000


async def test_whoever_leaves_while_waiting_holds_nothing(
    autojump_clock: object,
) -> None:
    async with open_lab("a", "b") as lab:
        lab.prepare = opens(TEAM)
        await lab.start("a")
        # b is missing: its part cannot be had, and a's not be made without it.
        with trio.move_on_after(0.5):
            await take(lab, "a", 100)
        await lab.start("b")
        await trio.sleep(1.0)
        assert lab["a"].state("team").reserved == 0
        assert remaining(lab, "a") == 3_000


async def test_a_reservation_of_an_earlier_life_is_spent_and_its_excess_charged(
    autojump_clock: object,
) -> None:
    async with open_lab("a") as lab:
        lab.prepare = opens(TEAM)
        await lab.start("a")
        held = await take(lab, "a", 1_000)
        service = lab["a"]
        assert service._server is not None
        node = lab.network.up["a"].node
        assert node is not None
        # The process crashes, and its supervisor is not here to restart it.
        await lab.stop("a")
        with pytest.raises(NotRunningError):
            service.try_reserve("team", 1)
        service.settle(held, 1_300)
        assert not held.is_open


# --- the file -------------------------------------------------------------------------


async def test_a_full_disk_refuses_what_is_not_at_hand_and_says_so(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_lab("a") as lab:
        lab.prepare = opens(TEAM)
        await lab.start("a")
        assert await spend(lab, "a", 1)
        lab.disks["a"].is_full = True
        # This one finds it out, and is told in time; the next ones at once.
        assert isinstance(await take(lab, "a", 1_000), Refused)
        with pytest.raises(LedgerStoreError, match="make room on its disk"):
            await take(lab, "a", 1_000)
        assert "make room on its disk" in str(lab["a"].state("team").problem)
        lab.disks["a"].is_full = False
        await trio.sleep(2.0)
        assert lab["a"].state("team").problem is None
        assert await spend(lab, "a", 1_000)
        told = [record.message for record in caplog.records]
        assert len([text for text in told if "make room" in text]) == 1
        assert "budgets: the file is written again" in told


# --- several nodes --------------------------------------------------------------------


async def test_each_makes_its_part_once_and_rights_move_to_who_needs_them(
    autojump_clock: object,
) -> None:
    async with open_lab("a", "b", "c") as lab:
        lab.prepare = opens(TEAM)
        await lab.start("a", "b", "c")
        assert await spend(lab, "a", 2_900)
        assert remaining(lab, "a") == 100
        assert isinstance(await take(lab, "b", 200), Refused)
        assert await spend(lab, "b", 100)


async def test_both_sides_of_a_cut_spend_their_part_and_no_more(
    autojump_clock: object,
) -> None:
    async with open_lab("a", "b", "c") as lab:
        lab.prepare = opens(TEAM)
        await lab.start("a", "b", "c")
        await trio.sleep(1.0)
        lab.network.split("a")
        assert await spend(lab, "a", 900)
        assert not await spend(lab, "a", 900)
        assert await spend(lab, "b", 1_900)
        assert not await spend(lab, "c", 500)
        lab.network.heal()
        assert await spend(lab, "c", 200)


async def test_a_period_that_begins_in_a_cut_is_made_on_both_sides(
    autojump_clock: object,
) -> None:
    async with open_lab("a", "b", "c") as lab:
        await lab.start("a", "b", "c")
        await trio.sleep(1.0)
        lab.network.split("a")
        begins_at_s = lab.wall_s() + DAY_S
        await trio.sleep(DAY_S)
        later = attrs.evolve(TEAM, name="team/2", begins_at_s=begins_at_s)
        for name in ("a", "b", "c"):
            with lab.here(name):
                lab[name].open(later)
        assert await spend(lab, "a", 900, "team/2")
        assert await spend(lab, "b", 1_900, "team/2")
        lab.network.heal()
        await trio.sleep(1.0)
        assert 190 <= remaining(lab, "c", "team/2") <= 200


async def test_a_budget_that_others_are_the_first_to_use_is_found(
    autojump_clock: object,
) -> None:
    def knows(node: SimNode) -> None:
        node.service.find = {"team": TEAM}.get

    async with open_lab("a", "b", "c") as lab:
        lab.prepare = knows
        await lab.start("a", "b", "c")
        with lab.here("a"):
            lab["a"].open(TEAM)
        assert await spend(lab, "a", 2_900)
        await trio.sleep(1.0)
        assert 90 <= remaining(lab, "b") <= 100


async def test_a_node_that_lost_its_file_makes_nothing_twice(
    autojump_clock: object,
) -> None:
    async with open_lab("a", "b", "c") as lab:
        lab.prepare = opens(TEAM)
        await lab.start("a", "b", "c")
        assert await spend(lab, "a", 1_000)
        await trio.sleep(1.0)
        await lab.kill("a", lose_disk=True)
        await lab.start("a")
        await trio.sleep(2.0)
        state = lab["a"].state("team")
        assert state.minted == 3_000
        assert state.remaining <= 2_000
        assert "a has lost its file" in str(state.problem)
        total = 0
        for name in ("a", "b", "c"):
            while await spend(lab, name, 10):
                total += 10
        assert total <= 2_000


async def test_what_a_lost_file_held_comes_back_by_an_operator(
    autojump_clock: object,
) -> None:
    async with open_lab("a", "b", "c") as lab:
        lab.prepare = opens(TEAM)
        await lab.start("a", "b", "c")
        await trio.sleep(1.0)
        lost = f"a/{lab.disks['a'].stored.file}"
        assert await spend(lab, "a", 600)
        await lab.kill("a", lose_disk=True)
        await lab.start("a")
        await trio.sleep(1.0)
        with lab.here("b"), pytest.raises(ReclaimError, match="alive"):
            await lab["b"].reclaim("team", {f"c/{lab.disks['c'].stored.file}": 0})
        with lab.here("b"):
            units = await lab["b"].reclaim("team", {lost: 600})
        assert units > 0
        assert remaining(lab, "b") == 2_400
        await trio.sleep(1.0)  # and the others hear of it
        assert await spend(lab, "c", 2_350)


async def test_a_reclaim_without_all_voters_says_so(autojump_clock: object) -> None:
    async with open_lab("a", "b", "c") as lab:
        lab.prepare = opens(TEAM)
        await lab.start("a", "b", "c")
        await trio.sleep(1.0)
        lost = f"a/{lab.disks['a'].stored.file}"
        await lab.kill("a", lose_disk=True)
        with (
            lab.here("b"),
            pytest.raises(ReclaimError, match="no answer of all voters"),
        ):
            await lab["b"].reclaim("team", {lost: 0}, timeout_s=2.0)


async def test_the_next_period_is_made_by_a_new_file_at_once(
    autojump_clock: object,
) -> None:
    async with open_lab("a", "b", "c") as lab:
        lab.prepare = opens(TEAM)
        await lab.start("a", "b", "c")
        await trio.sleep(1.0)
        await lab.kill("a", lose_disk=True)
        await lab.start("a")
        await trio.sleep(DAY_S)
        later = attrs.evolve(TEAM, name="team/2", begins_at_s=lab.wall_s())
        with lab.here("a"):
            lab["a"].open(later)
        assert await spend(lab, "a", 900, "team/2")


async def test_a_voter_that_comes_later_makes_nothing_of_what_is_made(
    autojump_clock: object,
) -> None:
    async with open_lab("a", "b") as lab:
        lab.prepare = opens(TEAM)
        await lab.start("a", "b")
        await trio.sleep(1.0)
        await lab.stop("a")
        await lab.stop("b")
        lab.voters = ("a", "b", "c")
        await lab.start("a", "b", "c")
        await trio.sleep(3.0)
        assert lab["c"].state("team").minted == 3_000


def change(lab: Lab, units: int) -> None:
    terms = attrs.evolve(TEAM, units=units)
    lab.prepare = opens(terms)
    for name in lab.network.up:
        with lab.here(name):
            lab[name].open(terms)


async def test_more_units_are_made_at_once_and_fewer_are_given_up_at_once(
    autojump_clock: object,
) -> None:
    async with open_lab("a", "b", "c") as lab:
        lab.prepare = opens(TEAM)
        await lab.start("a", "b", "c")
        await trio.sleep(1.0)
        for units in (6_000, 30, 3_000, 1_000):
            change(lab, units)
            await trio.sleep(1.0)
            assert [remaining(lab, name) for name in "abc"] == [units] * 3
            state = lab["b"].state("team")
            assert (state.minted, state.spent) == (units, 0)
        await lab.kill("a")
        await lab.start("a")
        await trio.sleep(1.0)
        assert remaining(lab, "b") >= 990
        assert await spend(lab, "b", 990)
        assert not await spend(lab, "a", 11)


async def test_what_was_spent_counts_against_a_lowered_budget_whoever_spent_it(
    autojump_clock: object,
) -> None:
    async with open_lab("a", "b", "c") as lab:
        lab.prepare = opens(TEAM)
        await lab.start("a", "b", "c")
        assert await spend(lab, "a", 2_700)
        change(lab, 2_900)
        await trio.sleep(3.0)
        # But for what the others have opened, a hundredth at most.
        assert all(198 <= remaining(lab, name) <= 200 for name in "abc")
        change(lab, 1_000)
        await trio.sleep(8.0)
        assert [remaining(lab, name) for name in "abc"] == [0] * 3
        assert not await spend(lab, "b", 1)
        state = lab["c"].state("team")
        assert (state.spent, state.units) == (2_700, 1_000)
        change(lab, 3_000)
        await trio.sleep(1.0)
        assert all(297 <= remaining(lab, name) <= 300 for name in "abc")


async def test_a_node_that_is_cut_off_gives_up_its_own_part_of_a_lowered_budget(
    autojump_clock: object,
) -> None:
    async with open_lab("a", "b", "c") as lab:
        lab.prepare = opens(TEAM)
        await lab.start("a", "b", "c")
        await trio.sleep(1.0)
        lab.network.split("a")
        change(lab, 300)
        assert await spend(lab, "a", 100)
        assert not await spend(lab, "a", 1)
        assert await spend(lab, "b", 200)
        assert not await spend(lab, "c", 1)
        lab.network.heal()
        await trio.sleep(5.0)
        assert [remaining(lab, name) for name in "abc"] == [0] * 3


@pytest.mark.parametrize("held", [900, 1_900, 2_900])
async def test_what_comes_back_of_a_call_is_not_spent_where_a_budget_was_lowered(
    autojump_clock: object, held: int
) -> None:
    async with open_lab("a", "b", "c") as lab:
        lab.prepare = opens(TEAM)
        await lab.start("a", "b", "c")
        await trio.sleep(1.0)
        call = await take(lab, "b", held)
        assert isinstance(call, Reservation)
        change(lab, 300)
        await trio.sleep(3.0)
        spent = 0
        with lab.here("b"):
            lab["b"].settle(call, 100)
            # In the very moment in which it is back.
            while isinstance(lab["b"].try_reserve("team", 50), Reservation):
                spent += 50
        for name in "bac":
            while await spend(lab, name, 50):
                spent += 50
        assert spent <= 200
        await trio.sleep(5.0)
        left = 200 - spent
        assert all(left - 3 <= remaining(lab, name) <= left for name in "abc")
        assert lab["a"].state("team").minted == 300


async def test_who_waits_for_units_gets_none_that_are_given_up(
    autojump_clock: object,
) -> None:
    async with open_lab("a") as lab:
        lab.prepare = opens(TEAM)
        await lab.start("a")
        call = await take(lab, "a", 2_950)
        assert isinstance(call, Reservation)
        change(lab, 300)
        got: list[Any] = []
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                got.append(await take(lab, "a", 400))

            nursery.start_soon(wait)
            await trio.sleep(0.1)
            with lab.here("a"):
                lab["a"].cancel(call)
        assert [type(each) for each in got] == [Refused]
        assert await spend(lab, "a", 300)
        assert not await spend(lab, "a", 1)


# --- time -----------------------------------------------------------------------------


async def test_a_rolling_budget_comes_back_a_window_later(
    autojump_clock: object,
) -> None:
    rolling = attrs.evolve(TEAM, window_s=3_600.0)
    async with open_lab("a", "b", "c") as lab:
        lab.prepare = opens(rolling)
        await lab.start("a", "b", "c")
        began_s = trio.current_time()
        assert await spend(lab, "a", 2_000)
        await trio.sleep(1_800.0)
        assert await spend(lab, "b", 900)
        await trio.sleep(began_s + 3_600.0 - trio.current_time() - 1.0)
        assert remaining(lab, "c") <= 100
        # A sixtieth of the window late, at most.
        await trio.sleep(62.0)
        assert 2_050 <= remaining(lab, "c") <= 2_100
        await trio.sleep(1_800.0)
        assert 2_950 <= remaining(lab, "c") <= 3_000


async def test_a_rolling_budget_comes_back_after_a_kill_too(
    autojump_clock: object,
) -> None:
    rolling = attrs.evolve(TEAM, window_s=3_600.0)
    async with open_lab("a") as lab:
        lab.prepare = opens(rolling)
        await lab.start("a")
        assert await spend(lab, "a", 2_000)
        await take(lab, "a", 500)  # never settled: it may have been charged
        await lab.kill("a")
        await lab.start("a")
        assert remaining(lab, "a") <= 500
        await trio.sleep(3_500.0)
        assert remaining(lab, "a") <= 500
        await trio.sleep(200.0)
        assert remaining(lab, "a") == 3_000


async def test_a_period_that_is_long_over_is_closed_for_good(
    autojump_clock: object,
) -> None:
    async with open_lab("a") as lab:
        await lab.start("a")
        ends_at_s = lab.wall_s() + DAY_S
        day = attrs.evolve(TEAM, name="team/1", ends_at_s=ends_at_s)
        with lab.here("a"):
            lab["a"].open(day)
            assert await spend(lab, "a", 3_000, "team/1")
            await trio.sleep(9 * DAY_S)
            lab["a"].open(attrs.evolve(TEAM, name="team/2"))
            await trio.sleep(1.0)
            assert not lab["a"].is_open("team/1")
            # A clock that is set back brings nothing back.
            with pytest.raises(ClosedBudgetError):
                lab["a"].open(day)
        await lab.stop("a")
        lab.wall_offset_s["a"] = -9 * DAY_S
        await lab.start("a")
        with lab.here("a"), pytest.raises(ClosedBudgetError):
            lab["a"].open(day)
        assert list(lab.disks["a"].stored.budgets) == ["team/2"]


# --- mistakes -------------------------------------------------------------------------


async def test_a_node_that_is_no_voter_is_told_so(autojump_clock: object) -> None:
    async with open_lab("a", "b") as lab:
        await lab.start("a", "c")
        with (
            lab.here("c"),
            pytest.raises(NoVoterError, match="none of the voters a, b"),
        ):
            lab["c"].open(TEAM)


async def test_what_is_not_open_is_unknown(autojump_clock: object) -> None:
    async with open_lab("a") as lab:
        await lab.start("a")
        with lab.here("a"), pytest.raises(UnknownBudgetError, match="'team'"):
            lab["a"].try_reserve("team", 1)


def test_there_must_be_a_voter() -> None:
    with pytest.raises(ValueError, match="at least one"):
        BudgetService(voters=())
    with pytest.raises(TypeError, match="voters"):
        BudgetService(voters="abc")


# --- the first use --------------------------------------------------------------------


async def test_the_first_use_waits_until_all_voters_have_made_their_part(
    autojump_clock: object,
) -> None:
    def prepare(node: SimNode) -> None:
        node.service.find = {TEAM.name: TEAM}.get

    async with open_lab("a", "b") as lab:
        lab.prepare = prepare
        for name in ("a", "b"):
            await lab.start(name)
        with lab.here("b"):
            lab["b"].open(TEAM)  # a hears of it by b's asking
        assert await spend(lab, "b", 2_900)
        assert remaining(lab, "b") == 100
        before_s = trio.current_time()
        assert not await spend(lab, "b", 200)
        assert trio.current_time() - before_s < 1  # nobody can have more


async def test_while_a_voter_is_missing_a_refusal_waits_for_its_deadline(
    autojump_clock: object,
) -> None:
    async with open_lab("a", "b", "c") as lab:
        lab.prepare = opens(TEAM)
        for name in ("a", "b"):
            await lab.start(name)
        assert await spend(lab, "a", 1_900)
        before_s = trio.current_time()
        assert not await spend(lab, "a", 500)
        assert 4 < trio.current_time() - before_s <= 5
        await lab.start("c")
        await trio.sleep(2)  # who was just refused is not asked for again at once
        assert await spend(lab, "a", 500)
