"""Fairness between tenants: by example, by its bounds, and against a naive model."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.strategies import DataObject, data, integers, lists, sampled_from

from atomr_infer.policy.tenants.fair_share import FairShare, Shares


def one(name: str, weight: float = 1.0) -> Shares:
    return ((name, weight),)


def served(queue: FairShare[str], count: int) -> str:
    return "".join(queue.pop()[0] for _ in range(count))


def flood(queue: FairShare[str], name: str, count: int, weight: float = 1.0) -> None:
    for number in range(count):
        queue.push(f"{name}{number}", one(name, weight))


def test_one_tenant_is_served_in_order() -> None:
    queue: FairShare[str] = FairShare()
    for key in "abc":
        queue.push(key)
    assert served(queue, 3) == "abc"
    with pytest.raises(IndexError, match="nobody waits"):
        queue.pop()


def test_a_single_request_does_not_wait_behind_anothers_flood() -> None:
    queue: FairShare[str] = FairShare()
    flood(queue, "a", 100)
    assert served(queue, 10) == "a" * 10
    queue.push("b", one("b"))
    assert served(queue, 2) in {"ba", "ab"}
    assert served(queue, 89) == "a" * 89


def test_tenants_take_turns_by_weight() -> None:
    queue: FairShare[str] = FairShare()
    flood(queue, "a", 300, weight=3.0)
    flood(queue, "b", 300)
    assert Counter(served(queue, 80)) == {"a": 60, "b": 20}


def test_a_turn_that_costs_more_is_had_less_often() -> None:
    queue: FairShare[str] = FairShare()
    for number in range(100):
        queue.push(f"a{number}", one("a"), 9_000.0)
        queue.push(f"b{number}", one("b"), 1_000.0)
    assert Counter(served(queue, 50)) == {"a": 5, "b": 45}


def test_nobody_saves_up_turns_while_away() -> None:
    queue: FairShare[str] = FairShare()
    flood(queue, "a", 100)
    queue.push("b", one("b"))
    assert Counter(served(queue, 50)) == {"a": 49, "b": 1}
    flood(queue, "b", 50)
    assert Counter(served(queue, 20)) == {"a": 10, "b": 10}


def test_who_leaves_and_comes_back_gains_nothing() -> None:
    queue: FairShare[str] = FairShare()
    flood(queue, "a", 10)
    queue.push("b0", one("b"), 4.0)
    assert served(queue, 2) == "ab"
    queue.push("b1", one("b"))
    assert queue.remove("b1")
    queue.push("b2", one("b"))
    assert served(queue, 4) == "aaab"


def test_a_team_shares_what_a_key_alone_has() -> None:
    queue: FairShare[str] = FairShare()
    for number in range(100):
        queue.push(f"x{number}", (("team", 1.0), ("x", 1.0)))
        queue.push(f"y{number}", (("team", 1.0), ("y", 3.0)))
        queue.push(f"z{number}", one("z"))
    assert Counter(served(queue, 80)) == {"z": 40, "y": 30, "x": 10}


def test_the_head_is_who_is_served() -> None:
    queue: FairShare[str] = FairShare()
    flood(queue, "a", 3)
    flood(queue, "b", 3)
    for _ in range(6):
        head = queue.head()
        assert queue.pop() == head
    assert len(queue) == 0


def test_a_key_waits_once() -> None:
    queue: FairShare[str] = FairShare()
    queue.push("a")
    with pytest.raises(ValueError, match="'a' waits already"):
        queue.push("a")
    assert queue.remove("a")
    assert not queue.remove("a")


# --- who should wait no more ---------------------------------------------------------


def test_the_last_of_the_longest_makes_room() -> None:
    queue: FairShare[str] = FairShare()
    flood(queue, "a", 5)
    flood(queue, "b", 3)
    assert queue.least_served(one("c")) == "a4"
    assert queue.least_served(one("b")) == "a4"
    assert queue.least_served(one("a")) is None


def test_equals_make_no_room_for_each_other() -> None:
    queue: FairShare[str] = FairShare()
    flood(queue, "a", 2)
    flood(queue, "b", 1)
    assert queue.least_served(one("b")) is None
    assert queue.least_served(one("b", weight=2.0)) == "a1"


def test_within_a_team_too_the_longest_makes_room() -> None:
    queue: FairShare[str] = FairShare()
    for number in range(4):
        queue.push(f"x{number}", (("team", 1.0), ("x", 1.0)))
    assert queue.least_served((("team", 1.0), ("y", 1.0))) == "x3"
    assert queue.least_served((("team", 1.0), ("x", 1.0))) is None
    assert queue.least_served(one("z")) == "x3"
    assert queue.last() == "x3"


def test_where_nobody_waits_nobody_makes_room() -> None:
    queue: FairShare[str] = FairShare()
    assert queue.least_served(one("a")) is None
    with pytest.raises(IndexError, match="nobody waits"):
        queue.last()


# --- what is always true --------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(draw=data())
def test_who_waits_all_the_time_gets_its_share(draw: DataObject) -> None:
    """The bound of start-time fair queueing, over any stretch of time.

    For two that wait all along: what they were served by weight differs by at most
    their dearest turns by weight.
    """
    names = "abc"
    weights = {n: draw.draw(integers(1, 5)) for n in names}
    costs = {n: draw.draw(lists(integers(1, 20), min_size=30)) for n in names}
    queue: FairShare[tuple[str, int]] = FairShare()
    for name in names:
        for number, cost in enumerate(costs[name]):
            queue.push((name, number), one(name, weights[name]), cost)
    had = dict.fromkeys(names, Fraction(0))
    marks = [dict(had)]
    left = {name: len(costs[name]) for name in names}
    while all(left.values()):
        name, number = queue.pop()
        left[name] -= 1
        had[name] += Fraction(costs[name][number], weights[name])
        marks.append(dict(had))
    most = {n: Fraction(max(costs[n]), weights[n]) for n in names}
    begin = draw.draw(integers(0, len(marks) - 1))
    for x, y in (("a", "b"), ("a", "c"), ("b", "c")):
        gained = {n: marks[-1][n] - marks[begin][n] for n in (x, y)}
        assert abs(gained[x] - gained[y]) <= most[x] + most[y]


def test_what_a_turn_has_cost_counts_and_not_what_was_thought() -> None:
    queue: FairShare[str] = FairShare()
    flood(queue, "a", 100)
    flood(queue, "b", 100)
    had: Counter[str] = Counter()
    for _ in range(60):
        name = queue.pop()[0]
        cost = 9.0 if name == "a" else 1.0
        queue.charge(one(name), cost - 1.0)
        had[name] += int(cost)
    assert abs(had["a"] - had["b"]) <= 10


def test_who_is_not_there_pays_when_it_comes_and_gets_back_what_was_too_much() -> None:
    queue: FairShare[str] = FairShare()
    queue.charge(one("a"), 5.0)  # nobody waits: there is nothing to pay with
    flood(queue, "b", 20)
    queue.charge(one("a"), 3.0)
    queue.push("a0", one("a"))
    assert served(queue, 5) == "bbbab"
    queue.charge(one("b"), 10.0)
    queue.charge(one("b"), -10.5)
    queue.push("a1", one("a"))
    assert served(queue, 2) == "ba"


SHARES: tuple[Shares, ...] = (
    one("a"),
    one("b", 2.0),
    (("team", 2.0), ("x", 1.0)),
    (("team", 2.0), ("y", 4.0)),
)


class FairShareMachine(RuleBasedStateMachine):
    """Compares with clocks that are written down and looked through each time."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: FairShare[int] = FairShare()
        self.waiting: dict[int, tuple[Shares, int]] = {}
        self.next = 0
        # By the path of names: the clock at its start, its end, and its turn.
        self.start: dict[tuple[str, ...], float] = {}
        self.finish: dict[tuple[str, ...], float] = {}
        self.since: dict[tuple[str, ...], int] = {}
        self.now: dict[tuple[str, ...], float] = {}
        self.turns = 0

    def _names(self, key: int) -> tuple[str, ...]:
        return tuple(name for name, _ in self.waiting[key][0])

    def _size(self, path: tuple[str, ...]) -> int:
        return sum(self._names(key)[: len(path)] == path for key in self.waiting)

    def _enter(self, path: tuple[str, ...]) -> None:
        self.start[path] = max(self.now.get(path[:-1], 0.0), self.finish.get(path, 0.0))
        self.turns += 1
        self.since[path] = self.turns

    def _paths(self, names: tuple[str, ...]) -> list[tuple[str, ...]]:
        return [names[:depth] for depth in range(1, len(names) + 1)]

    def _forget_idle(self) -> None:
        known = {*self.start, *self.finish, *self.now}
        above = {path[:depth] for path in known for depth in range(len(path) + 1)}
        for path in above:
            if not self._size(path):
                for clocks in (self.start, self.finish):
                    for each in [e for e in clocks if e[: len(path)] == path]:
                        if len(each) > len(path):
                            del clocks[each]
                for each in [e for e in self.now if e[: len(path)] == path]:
                    del self.now[each]

    def _expected(self) -> int:
        path: tuple[str, ...] = ()
        while True:
            below = {
                names[: len(path) + 1]
                for names in map(self._names, self.waiting)
                if names[: len(path)] == path and len(names) > len(path)
            }
            if not below:
                return min(k for k in self.waiting if self._names(k) == path)
            path = min(below, key=lambda p: (self.start[p], self.since[p]))

    @rule(shares=sampled_from(SHARES), cost=integers(1, 8))
    def push(self, shares: Shares, cost: int) -> None:
        key, self.next = self.next, self.next + 1
        names = tuple(name for name, _ in shares)
        for path in self._paths(names):
            if not self._size(path):
                self._enter(path)
        self.waiting[key] = (shares, cost)
        self.queue.push(key, shares, cost)

    @rule(at=integers(0, 20))
    @precondition(lambda self: self.waiting)
    def remove(self, at: int) -> None:
        key = sorted(self.waiting)[at % len(self.waiting)]
        del self.waiting[key]
        self._forget_idle()
        assert self.queue.remove(key)

    @rule()
    @precondition(lambda self: self.waiting)
    def pop(self) -> None:
        key = self._expected()
        shares, cost = self.waiting[key]
        names = self._names(key)
        for path, (_, weight) in zip(self._paths(names), shares, strict=True):
            self.now[path[:-1]] = self.start[path]
            self.finish[path] = self.start[path] + cost / weight
        del self.waiting[key]
        for path in self._paths(names):
            if self._size(path):
                self._enter(path)
        self._forget_idle()
        assert self.queue.pop() == key

    @invariant()
    def as_many_wait(self) -> None:
        assert len(self.queue) == len(self.waiting)

    @invariant()
    def nothing_is_kept_for_nobody(self) -> None:
        top = self.queue._top
        if not self.waiting:
            assert (top.below, top.heap, top.ahead) == ({}, [], [])


TestFairShareMachine = FairShareMachine.TestCase
TestFairShareMachine.settings = settings(max_examples=40, deadline=None)


def test_tenants_that_come_and_go_leave_nothing_behind() -> None:
    queue: FairShare[str] = FairShare()
    queue.push("stays", one("stays"))
    for number in range(5_000):
        queue.push(f"{number}", one(f"t{number}"))
        queue.remove(f"{number}")
    for number in range(5_000):
        queue.push(f"{number}", one("same"))
        queue.remove(f"{number}")
    top = queue._top
    assert (len(top.below), len(top.ahead)) == (1, 0)
    assert len(top.heap) < 100


def test_clocks_of_those_who_were_served_are_forgotten_in_time() -> None:
    queue: FairShare[str] = FairShare()
    for number in range(2_000):
        queue.push(f"stays{number}", one("stays"))
        queue.push(f"{number}", one(f"t{number}"), 3.0)
        queue.pop()
        queue.pop()
        queue.push(f"again{number}", one("stays"))
    assert len(queue._top.below) < 50
