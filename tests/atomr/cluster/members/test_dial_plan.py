"""Whom to dial and when, step by step and against any order of events."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from atomr.cluster.members.address_book import KEPT_S, MAX_AT_ONE, AddressBook
from atomr.cluster.members.dial_plan import (
    MAX_DIALS,
    MAX_ERRANDS,
    MAX_WANTED,
    PACE_S,
    PATIENCE_S,
    STABLE_S,
    DialPlan,
    Target,
)

NEVER = float("inf")


def plan_of(own: str, seed: int = 0) -> DialPlan:
    return DialPlan(own, draw=random.Random(seed), redial_s=0.1, max_redial_s=5.0)


def member(name: str) -> Target:
    return Target(f"{name}:1", name)


def test_the_lower_name_dials_at_once() -> None:
    plan = plan_of("a")
    plan.want("b", "b:1", 10.0)
    assert plan.due_at == 10.0
    assert plan.due(10.0) == [member("b")]
    assert plan.dialing == {member("b")}
    assert plan.due(11.0) == []


def test_the_higher_name_waits_before_it_dials() -> None:
    plan = plan_of("b")
    plan.want("a", "a:1", 10.0)
    assert 10.0 + PATIENCE_S <= plan.due_at <= 10.0 + 2 * PATIENCE_S
    assert plan.due(10.0 + PATIENCE_S * 0.99) == []
    assert plan.due(10.0 + PATIENCE_S * 2) == [member("a")]


def test_a_link_that_the_other_side_opened_ends_the_wait() -> None:
    plan = plan_of("b")
    plan.want("a", "a:1", 0.0)
    plan.linked("a", 1.0)
    assert plan.due_at == NEVER


@pytest.mark.parametrize("seed", range(5))
def test_failures_are_tried_again_after_longer_and_longer(seed: int) -> None:
    plan, now_s, waits = plan_of("a", seed), 0.0, []
    plan.want("b", "b:1", now_s)
    for _ in range(10):
        assert plan.due(now_s) == [member("b")]
        plan.ended(member("b"), now_s)
        waits.append(plan.due_at - now_s)
        now_s = plan.due_at
    most = [min(5.0, 0.1 * 2**n) for n in range(10)]
    assert all(m / 2 <= w <= m for w, m in zip(waits, most, strict=True))
    assert len(set(waits)) == 10  # nodes that lost one together do not dial together


def test_a_link_that_held_begins_the_waits_anew() -> None:
    plan = plan_of("a")
    plan.want("b", "b:1", 0.0)
    for at in (0.0, 10.0, 20.0):
        plan.due(at)
        plan.ended(member("b"), at)
    plan.due(30.0)
    plan.linked("b", 30.0)
    plan.ended(member("b"), 30.0)
    plan.unlinked("b", 30.0 + STABLE_S)
    assert plan.due_at <= 30.0 + STABLE_S + 0.1


def test_a_link_that_ends_at_once_again_and_again_is_dialed_less_and_less() -> None:
    plan, now_s, waits = plan_of("a"), 0.0, []
    plan.want("b", "b:1", now_s)
    for _ in range(8):
        assert plan.due(now_s) == [member("b")]
        plan.linked("b", now_s)
        plan.ended(member("b"), now_s)
        plan.unlinked("b", now_s)
        waits.append(plan.due_at - now_s)
        now_s = plan.due_at
    assert waits[7] > 2.5


def test_a_member_that_moved_is_dialed_at_its_new_address_at_once() -> None:
    plan = plan_of("a")
    plan.want("b", "old:1", 0.0)
    assert plan.due(0.0) == [Target("old:1", "b")]
    plan.want("b", "new:1", 1.0)
    assert plan.due(1.0) == [Target("new:1", "b")]
    # That nobody answers at the old one is no news any more.
    plan.ended(Target("old:1", "b"), 2.0)
    plan.ended(Target("new:1", "b"), 2.0)
    assert plan.due(10.0) == [Target("new:1", "b")]


def test_nobody_dials_whom_nobody_wants() -> None:
    plan = plan_of("a")
    plan.want("b", "b:1", 0.0)
    plan.release("b")
    assert (plan.due_at, plan.due(9.0)) == (NEVER, [])
    plan.unlinked("b", 1.0)
    plan.linked("b", 1.0)
    plan.ended(member("b"), 1.0)
    assert plan.due_at == NEVER


def test_an_errand_is_run_once() -> None:
    plan, seed = plan_of("b"), Target("seed:1", None)
    plan.run_errand(seed)
    plan.run_errand(seed)
    assert plan.due_at < 0.0
    assert plan.due(1.0) == [seed]
    plan.run_errand(seed)  # it is under way
    assert plan.due(2.0) == []
    plan.ended(seed, 3.0)
    assert plan.due_at == NEVER


def test_an_errand_to_who_is_wanted_anyhow_changes_nothing() -> None:
    plan = plan_of("b")
    plan.want("a", "a:1", 0.0)
    plan.run_errand(member("a"))
    assert plan.due(0.0) == []


def test_so_many_are_dialed_at_once_and_no_more() -> None:
    plan = plan_of("a")
    for number in range(MAX_DIALS + 9):
        plan.want(f"b{number}", f"b{number}:1", 0.0)
    first = plan.due(0.0)
    assert len(first) == MAX_WANTED
    assert plan.due_at == NEVER
    assert plan.due(9.0) == []
    plan.ended(first[0], 9.0)
    assert plan.due_at <= 9.0
    # Who has waited since the beginning, and not who has just failed.
    assert plan.due(9.0) == [member(f"b{MAX_WANTED}")]


def test_members_that_nobody_answers_at_leave_room_for_errands() -> None:
    plan = plan_of("a")
    for number in range(MAX_DIALS + 9):
        plan.want(f"b{number}", f"b{number}:1", 0.0)
    plan.due(0.0)
    seeds = [Target(f"seed{number}:1", None) for number in range(MAX_DIALS)]
    for seed in seeds:
        plan.run_errand(seed)
    assert plan.due_at <= MAX_WANTED * PACE_S
    room = MAX_DIALS - MAX_WANTED
    assert plan.due(9.0) == seeds[:room]
    assert plan.due_at == NEVER
    plan.ended(seeds[0], 10.0)
    assert plan.due(11.0) == [seeds[room]]


def test_errands_leave_room_for_members() -> None:
    plan = plan_of("a")
    for number in range(MAX_DIALS):
        plan.run_errand(Target(f"seed{number}:1", None))
    assert len(plan.due(0.0)) == MAX_ERRANDS
    plan.want("b", "b:1", 1.0)
    assert plan.due(1.0) == [member("b")]


def test_dials_are_paced() -> None:
    plan = plan_of("a")
    for number in range(10):
        plan.run_errand(Target(f"n{number}:1", None))
    assert len(plan.due(0.0)) == 10
    plan.run_errand(Target("one more:1", None))
    assert plan.due_at == 10 * PACE_S
    assert plan.due(9 * PACE_S) == []
    assert plan.due(10 * PACE_S) == [Target("one more:1", None)]


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens: nobody twice, nobody unwanted, nobody forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.plan = plan_of("m")
        self.now_s = 0.0
        self.wanted: dict[str, str] = {}
        self.linked: set[str] = set()
        self.errands: set[Target] = set()

    names = st.sampled_from("abxyz")

    @rule(name=names, port=st.integers(1, 2))
    def want(self, name: str, port: int) -> None:
        self.wanted[name] = f"{name}:{port}"
        self.plan.want(name, self.wanted[name], self.now_s)
        if name in self.linked:
            self.plan.linked(name, self.now_s)

    @rule(name=names)
    def release(self, name: str) -> None:
        self.wanted.pop(name, None)
        self.plan.release(name)

    @rule(name=names)
    def link(self, name: str) -> None:
        self.linked.add(name)
        self.plan.linked(name, self.now_s)

    @rule(name=names)
    def unlink(self, name: str) -> None:
        self.linked.discard(name)
        self.plan.unlinked(name, self.now_s)

    @rule(port=st.integers(1, 3))
    def errand(self, port: int) -> None:
        target = Target(f"seed:{port}", None)
        if target not in self.plan.dialing:
            self.errands.add(target)
        self.plan.run_errand(target)

    @rule(data=st.data(), links=st.booleans())
    def end_of_a_dial(self, data: Any, links: bool) -> None:
        if self.plan.dialing:
            target = data.draw(st.sampled_from(sorted(self.plan.dialing, key=str)))
            if links and target.name is not None:
                self.link(target.name)
            self.plan.ended(target, self.now_s)

    @rule(by_s=st.sampled_from([0.0, 0.01, 0.2, 7.0]))
    def time(self, by_s: float) -> None:
        self.now_s += by_s
        before = set(self.plan.dialing)
        for target in self.plan.due(self.now_s):
            assert target not in before
            if target.name is None:
                self.errands.remove(target)
            else:
                assert self.wanted[target.name] == target.address
                assert target.name not in self.linked

    @invariant()
    def nobody_is_forgotten(self) -> None:
        missing = {
            Target(address, name)
            for name, address in self.wanted.items()
            if name not in self.linked
        }
        if self.errands or missing - self.plan.dialing:
            assert self.plan.due_at < self.now_s + 20.0


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)


# --- addresses ------------------------------------------------------------------------


def test_who_says_that_it_is_there_comes_before_who_was_found_there() -> None:
    book = AddressBook()
    book.found("x:1", "a", 0.0)
    assert book.whom("x:1", 1.0) == ("a",)
    book.put("b", "x:1")
    assert book.whom("x:1", 1.0) == ("b",)
    book.put("b", "y:1")
    assert (book.whom("x:1", 1.0), book.whom("y:1", 1.0)) == (("a",), ("b",))
    book.drop("b")
    assert book.whom("y:1", 1.0) == ()


def test_who_was_found_is_looked_for_again_after_a_while() -> None:
    book = AddressBook()
    book.found("x:1", "a", 0.0)
    assert book.whom("x:1", KEPT_S * 0.99) == ("a",)
    assert book.whom("x:1", KEPT_S) == ()


def test_a_crowd_at_one_address_is_bounded() -> None:
    book = AddressBook()
    for number in range(MAX_AT_ONE + 5):
        book.put(f"n{number}", "x:1")
    assert len(book.whom("x:1", 0.0)) == MAX_AT_ONE
    for number in range(MAX_AT_ONE + 5):
        book.drop(f"n{number}")
    assert book._names == {}
