"""Budgets step by step, where the simulator would not say what went wrong."""

from __future__ import annotations

import itertools
import random
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr.crdt import BoundedCounter, Origin
from atomr.gossip.ledger import (
    Answered,
    Budget,
    Effect,
    Frame,
    Held,
    Ledger,
    Matrix,
    Outcome,
    Overran,
    Persist,
    Reclaimed,
    ReclaimFailed,
    Refused,
    RolledBack,
    Row,
    Send,
    Waiting,
    decode,
    decode_record,
    encode,
)
from atomr.gossip.ledger.calls import MAX_WAITING
from atomr.gossip.ledger.frames import Freeze, Frozen, Need, Objects, Rows
from atomr.testing.simulation import check
from tests.atomr.gossip.ledger_scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr.testing.simulation import Scenario

UNITS = 1_000_000
BUDGET = Budget("team", ("a", "b", "c"))


class Lab:
    """Ledgers whose frames and files arrive at once, unless the test keeps them."""

    def __init__(self, budget: Budget = BUDGET) -> None:
        self.budget = budget
        self.now_s = 0.0
        self.facts: list[tuple[str, Effect]] = []
        self.frames: list[tuple[str, str, Frame]] = []
        self.cut: set[str] = set()
        self.slow_disks: set[str] = set()
        self.disks: dict[str, bytes] = {}
        self.written: dict[str, list[bytes]] = {}
        self.pending: dict[str, Persist] = {}
        self.ledgers: dict[str, Ledger] = {}
        self.boots = 0
        for name in budget.voters:
            self.boot(name)

    def boot(self, name: str) -> Ledger:
        """Begin a life, with what is on the disk."""
        self.boots += 1
        self.pending.pop(name, None)
        ledger = self.ledgers[name] = Ledger(
            self.budget,
            name=name,
            ledger=f"{name}/{self.boots}",
            record=self.disks.get(name),
        )
        self.do(name, ledger.start(self.now_s))
        return ledger

    def lose(self, name: str) -> str:
        """End a life and its disk; return the lost ledger."""
        del self.disks[name]
        return self.ledgers.pop(name).ledger

    def do(self, name: str, effects: Iterable[Effect]) -> None:
        """Perform effects, and all that follows from them at once."""
        queue = deque((name, effect) for effect in effects)
        while queue:
            sender, effect = queue.popleft()
            match effect:
                case Send(to, message):
                    queue += self.arrive(sender, to, message)
                case Persist():
                    self.pending[sender] = effect
                    if sender not in self.slow_disks:
                        queue += self.sync(sender)
                case _:
                    self.facts.append((sender, effect))

    def arrive(
        self, sender: str, to: str, message: Frame
    ) -> Iterable[tuple[str, Effect]]:
        frame = decode(encode(message))
        assert frame == message
        self.frames.append((sender, to, frame))
        if to not in self.ledgers or self.cut & {sender, to}:
            return []
        answer = self.ledgers[to].receive(sender, frame, self.now_s)
        return [(to, effect) for effect in answer]

    def sync(self, name: str) -> list[tuple[str, Effect]]:
        """Let what is being written be on the disk."""
        persist = self.pending.pop(name)
        self.disks[name] = persist.record
        self.written.setdefault(name, []).append(persist.record)
        effects = self.ledgers[name].persisted(persist.seq, self.now_s)
        return [(name, effect) for effect in effects]

    def run(self, for_s: float) -> None:
        """Let time pass, and wake whoever wants to be."""
        end_s = self.now_s + for_s
        while True:
            due = [(each.next_deadline_s, n) for n, each in self.ledgers.items()]
            at_s, name = min(
                ((at_s, name) for at_s, name in due if at_s is not None),
                default=(end_s + 1.0, ""),
            )
            if at_s > end_s:
                break
            self.now_s = max(self.now_s, at_s)
            self.do(name, self.ledgers[name].advance(self.now_s))
        self.now_s = end_s

    def mint(self, name: str = "a", units: int = UNITS) -> None:
        self.do(name, self.ledgers[name].mint(units, self.now_s))

    def hold(self, name: str, units: int, *, for_s: float = 2.0) -> Outcome:
        """Ask, and return what was answered at once, or within a moment."""
        deadline_s = self.now_s + for_s
        outcome = self.ledgers[name].hold(
            units, deadline_s=deadline_s, now_s=self.now_s
        )
        if isinstance(outcome, Waiting):
            self.run(0.0)
            outcome = next(iter(self.answers(name, outcome)), outcome)
        return outcome

    def answers(self, name: str, waiting: Waiting) -> list[Outcome]:
        return [
            fact.outcome
            for who, fact in self.facts
            if who == name
            and isinstance(fact, Answered)
            and fact.ticket == waiting.ticket
        ]

    def settle(self, name: str, held: Outcome, cost: int) -> None:
        assert isinstance(held, Held)
        self.do(name, self.ledgers[name].settle(held, cost, now_s=self.now_s))

    def spend(self, name: str, units: int) -> None:
        self.settle(name, self.hold(name, units), units)

    def found(self, kind: type[Any]) -> list[Any]:
        return [fact for _, fact in self.facts if isinstance(fact, kind)]

    def remaining(self) -> dict[str, int]:
        return {name: ledger.remaining for name, ledger in self.ledgers.items()}


def funded() -> Lab:
    """Return a lab in which a million units were minted at a."""
    lab = Lab()
    lab.mint()
    lab.run(1.0)
    return lab


# --- use ----------------------------------------------------------------------------


def test_what_was_minted_is_known_to_all() -> None:
    assert funded().remaining() == {"a": UNITS, "b": UNITS, "c": UNITS}


def test_a_hold_waits_for_the_disk_and_no_longer() -> None:
    lab = funded()
    lab.slow_disks = {"a"}
    waiting = lab.hold("a", 100)
    assert isinstance(waiting, Waiting)
    assert lab.answers("a", waiting) == []
    lab.do("a", [effect for _, effect in lab.sync("a")])

    [held] = lab.answers("a", waiting)
    assert isinstance(held, Held)
    assert (held.units, held.is_open) == (100, True)


def test_a_chunk_is_written_once_for_many_holds() -> None:
    lab = funded()
    lab.spend("a", 100)
    before = len(lab.written["a"])
    for _ in range(20):
        lab.spend("a", 50)

    assert len(lab.written["a"]) == before


def test_what_a_call_did_not_cost_is_there_for_others() -> None:
    lab = funded()
    held = lab.hold("a", 900_000)
    lab.settle("a", held, 100)
    lab.settle("a", held, 100)
    lab.run(1.0)
    lab.do("a", lab.ledgers["a"].close(lab.now_s))

    assert lab.remaining() == dict.fromkeys("abc", UNITS - 100)
    assert isinstance(lab.hold("c", 900_000), Held)


def test_rights_come_from_where_they_are() -> None:
    lab = funded()

    assert isinstance(lab.hold("b", 5_000), Held)
    [need] = [frame for _, _, frame in lab.frames if isinstance(frame, Need)]
    assert (need.seen, need.least, need.amount) == (0, 5_000, 80_000)


def test_all_of_it_can_be_spent_and_not_one_unit_more() -> None:
    lab = funded()
    spent = 0
    for units in (100_000, 10_000, 1_000, 100, 10, 1):
        for name in "abc" * 40:
            held = lab.hold(name, units, for_s=1.0)
            if isinstance(held, Waiting):
                lab.run(1.0)
                [held] = lab.answers(name, held)
            if isinstance(held, Held):
                lab.settle(name, held, units)
                spent += units

    assert spent == UNITS
    assert lab.remaining() == dict.fromkeys("abc", 0)


def test_a_hold_is_refused_as_soon_as_all_have_said_that_there_is_not_enough() -> None:
    lab = funded()
    waiting = lab.hold("b", UNITS + 1, for_s=9.0)
    assert isinstance(waiting, Waiting)
    lab.run(0.5)

    assert lab.answers("b", waiting) == [Refused(UNITS)]


def test_a_hold_is_refused_at_its_deadline_when_nobody_answers() -> None:
    lab = funded()
    lab.cut = {"b"}
    waiting = lab.hold("b", 100, for_s=2.0)
    assert isinstance(waiting, Waiting)
    lab.run(1.9)
    assert lab.answers("b", waiting) == []
    lab.run(0.2)

    assert lab.answers("b", waiting) == [Refused(UNITS)]


def test_a_side_that_is_cut_off_spends_what_it_holds_and_the_others_the_rest() -> None:
    lab = funded()
    lab.spend("b", 1_000)
    lab.run(1.0)
    lab.cut = {"b"}
    there = sum(row.moved.get("b/2", 0) for row in lab.ledgers["a"].rows)
    spent = 0
    while isinstance(held := lab.hold("b", 100), Held):
        lab.settle("b", held, 100)
        spent += 100

    assert 0 < spent <= there - 1_000
    assert isinstance(lab.hold("c", UNITS - there - 20_000), Held)


def test_no_more_than_a_bound_wait() -> None:
    lab = funded()
    lab.cut = {"b"}
    outcomes = [lab.hold("b", 1, for_s=9.0) for _ in range(MAX_WAITING + 10)]

    assert [type(each) for each in outcomes[-11:]] == [Waiting] + [Refused] * 10


def test_a_cost_beyond_what_was_held_is_covered_where_there_are_rights() -> None:
    lab = funded()
    held = lab.hold("a", 100)
    lab.settle("a", held, 350)

    assert lab.found(Overran) == [Overran("team", 250, 0)]
    lab.do("a", lab.ledgers["a"].close(lab.now_s))
    assert lab.remaining()["c"] == UNITS - 350


def test_a_cost_for_which_there_are_none_is_counted_and_told() -> None:
    lab = Lab()
    lab.mint(units=100)
    held = lab.hold("a", 100)
    lab.settle("a", held, 140)
    lab.run(1.0)

    assert lab.found(Overran) == [Overran("team", 40, 40)]
    assert [ledger.overrun for ledger in lab.ledgers.values()] == [40, 40, 40]


# --- crashes ------------------------------------------------------------------------


def test_trap_20_what_a_crashed_ledger_had_taken_is_spent_until_it_is_reconciled() -> (
    None
):
    lab = funded()
    lab.spend("a", 1_000)
    ledger = lab.boot("a")
    lab.run(1.0)

    assert ledger.ledger == "a/1"  # it has its file, so it is the same
    stranded = UNITS - 1_000 - ledger.remaining
    assert 0 < stranded <= UNITS // 100
    for _ in range(2):
        lab.do("a", ledger.reconcile(1_000, lab.now_s))
    lab.run(1.0)
    assert lab.remaining() == dict.fromkeys("abc", UNITS - 1_000)


def test_what_was_charged_and_never_written_is_taken_at_the_reconciliation() -> None:
    lab = funded()
    lab.spend("a", 1_000)
    ledger = lab.boot("a")
    lab.do("a", ledger.reconcile(30_000, lab.now_s))

    assert ledger.remaining == UNITS - 30_000


def test_a_crash_before_the_disk_forgets_only_what_nobody_profited_from() -> None:
    lab = funded()
    lab.slow_disks = {"a"}
    waiting = lab.hold("b", 5_000)
    assert isinstance(waiting, Waiting)
    moved = [row.moved for row in lab.ledgers["a"].rows if row.ledger == "a/1"]
    assert moved != [{}]  # decided, and told nobody
    lab.slow_disks = set()
    lab.boot("a")
    lab.run(1.0)

    [held] = lab.answers("b", waiting)
    assert isinstance(held, Held)
    lab.settle("b", held, 5_000)
    assert lab.remaining()["a"] <= UNITS - 5_000


def test_a_damaged_file_is_an_error_and_no_empty_ledger() -> None:
    lab = funded()
    lab.spend("a", 1_000)
    record = lab.disks["a"]
    for damaged in (b"", record[:-1], record.replace(b"a/1", b"\xff" * 3)):
        with pytest.raises(msgspec.DecodeError):
            Ledger(BUDGET, name="a", ledger="a/9", record=damaged)


def test_a_file_that_was_restored_from_a_copy_is_noticed() -> None:
    lab = funded()
    old = lab.disks["a"]
    lab.spend("a", 400_000)
    lab.run(1.0)
    lab.disks["a"] = old
    lab.boot("a")
    lab.run(1.0)

    assert RolledBack("team", "a/1") in lab.found(RolledBack)


def test_a_planned_end_makes_nothing_unavailable() -> None:
    lab = funded()
    for name in "abc":
        lab.spend(name, 500)
        lab.do(name, lab.ledgers[name].close(lab.now_s))
    for name in "abc":
        lab.boot(name)
    lab.run(1.0)

    assert lab.remaining() == dict.fromkeys("abc", UNITS - 1_500)


# --- lost disks ---------------------------------------------------------------------


def with_a_lost_disk() -> tuple[Lab, str]:
    """Return a lab in which b, which spent 1,000, has lost all; a new b is there."""
    lab = funded()
    lab.spend("b", 1_000)
    lab.run(1.0)
    lost = lab.lose("b")
    lab.boot("b")
    lab.run(1.0)
    return lab, lost


def test_what_a_lost_ledger_did_not_spend_is_inherited() -> None:
    lab, lost = with_a_lost_disk()
    lab.do("c", lab.ledgers["c"].reclaim({lost: 1_000}, lab.now_s))
    lab.run(1.0)

    [reclaimed] = lab.found(Reclaimed)
    assert reclaimed.lost == (lost,)
    assert reclaimed.units > 0
    for name in "abc":
        lab.do(name, lab.ledgers[name].close(lab.now_s))
    lab.run(1.0)
    assert lab.remaining() == dict.fromkeys("abc", UNITS - 1_000)


def test_what_was_minted_is_on_the_disks_of_those_who_have_only_heard_of_it() -> None:
    lab = funded()
    lost = lab.lose("a")
    for name in "abc":  # all of them at once, so that nobody remembers
        lab.ledgers.pop(name, None)
    for name in "abc":
        lab.boot(name)
    lab.run(1.0)
    lab.do("b", lab.ledgers["b"].reclaim({lost: 0}, lab.now_s))
    lab.run(1.0)

    assert lab.remaining() == dict.fromkeys("abc", UNITS)


def test_for_many_that_wait_no_more_than_a_chunk_is_taken_at_once() -> None:
    lab = funded()
    lab.slow_disks = {"a"}
    ledger = lab.ledgers["a"]
    taken = [row.spent for row in ledger.rows if row.ledger == "a/1"]
    for _ in range(100):
        lab.hold("a", 1_000)
    taken += [row.spent for row in ledger.rows if row.ledger == "a/1"]
    while "a" in lab.pending:
        lab.do("a", [effect for _, effect in lab.sync("a")])
        taken += [row.spent for row in ledger.rows if row.ledger == "a/1"]

    assert taken[-1] >= 100_000
    assert max(b - a for a, b in itertools.pairwise(taken)) <= UNITS // 100


def test_an_heir_waits_for_all_voters() -> None:
    lab, lost = with_a_lost_disk()
    lab.cut = {"a"}
    lab.do("c", lab.ledgers["c"].reclaim({lost: 1_000}, lab.now_s))
    lab.run(5.0)
    assert lab.found(Reclaimed) == []
    lab.cut = set()
    lab.run(1.0)

    assert len(lab.found(Reclaimed)) == 1


def test_a_node_that_will_not_come_back_is_not_waited_for() -> None:
    lab = funded()
    lab.spend("b", 1_000)
    lab.run(1.0)
    lost = lab.lose("b")
    heir = lab.ledgers["c"]
    lab.do("c", heir.reclaim({lost: 1_000}, lab.now_s, gone=["b"]))
    lab.run(1.0)

    assert [fact.lost for fact in lab.found(Reclaimed)] == [(lost,)]


def test_a_ledger_that_is_there_is_not_inherited_from() -> None:
    lab = funded()
    lab.do("c", lab.ledgers["c"].reclaim({"a/1": 0}, lab.now_s))
    lab.run(1.0)

    assert lab.found(ReclaimFailed) == [ReclaimFailed("team", "a/1", "alive")]
    assert isinstance(lab.hold("a", 1_000), Held)


def test_nobody_inherits_twice() -> None:
    lab, lost = with_a_lost_disk()
    lab.do("c", lab.ledgers["c"].reclaim({lost: 1_000}, lab.now_s))
    lab.run(1.0)
    lab.do("a", lab.ledgers["a"].reclaim({lost: 1_000}, lab.now_s))
    lab.run(1.0)

    assert lab.found(ReclaimFailed) == [ReclaimFailed("team", lost, "c/3")]
    assert len(lab.found(Reclaimed)) == 1


def test_a_lost_ledger_that_was_not_named_stands_in_the_way() -> None:
    lab = funded()
    for name in "bc":
        lab.spend(name, 1_000)
    lab.run(1.0)
    b, c = lab.lose("b"), lab.lose("c")
    lab.boot("b")
    lab.boot("c")
    lab.run(1.0)
    lab.do("a", lab.ledgers["a"].reclaim({b: 1_000}, lab.now_s))
    lab.run(1.0)
    assert lab.found(ReclaimFailed) == [ReclaimFailed("team", c, "also lost")]
    lab.do("a", lab.ledgers["a"].reclaim({b: 1_000, c: 1_000}, lab.now_s))
    lab.run(1.0)

    assert [fact.lost for fact in lab.found(Reclaimed)] == [(b, c)]


def test_late_news_of_a_lost_ledger_change_nothing_any_more() -> None:
    lab, lost = with_a_lost_disk()
    late = Rows("team", lost, (Row(lost, moved={"a/1": UNITS}),))
    lab.do("c", lab.ledgers["c"].reclaim({lost: 1_000}, lab.now_s))
    lab.run(1.0)
    before = lab.remaining()
    for name in "ac":
        lab.do(name, lab.ledgers[name].receive("b", late, lab.now_s))

    assert lab.remaining() == before


# --- messages -----------------------------------------------------------------------


def test_trap_18_a_question_that_comes_again_moves_nothing_more() -> None:
    lab = funded()
    lab.hold("b", 5_000)
    [need] = [frame for _, _, frame in lab.frames if isinstance(frame, Need)]
    rows = lab.ledgers["a"].rows
    for _ in range(3):
        lab.do("a", lab.ledgers["a"].receive("b", need, lab.now_s))

    assert lab.ledgers["a"].rows == rows


def test_trap_18_rows_that_come_again_or_late_change_nothing() -> None:
    lab = funded()
    lab.spend("b", 5_000)
    lab.spend("c", 7_000)
    lab.run(1.0)
    before = lab.remaining()
    told = [(s, to, f) for s, to, f in lab.frames if isinstance(f, Rows)]
    random.Random(1).shuffle(told)
    for sender, to, frame in told:
        lab.do(to, lab.ledgers[to].receive(sender, frame, lab.now_s))

    assert lab.remaining() == before


def test_nobody_but_voters_and_nobody_with_another_budget_is_heard() -> None:
    lab = funded()
    ledger = lab.ledgers["a"]
    rows = (Row("x", minted=UNITS),)

    assert ledger.receive("x", Rows("team", "x", rows), lab.now_s) == ()
    assert ledger.receive("b", Rows("other", "b/2", rows), lab.now_s) == ()
    assert ledger.remaining == UNITS


def test_a_ledger_moves_nothing_to_itself_and_not_more_than_it_has() -> None:
    lab = funded()
    ledger = lab.ledgers["a"]
    lab.do("a", ledger.receive("b", Need("team", "a/1", 0, 5, 5), lab.now_s))
    assert [row.moved for row in ledger.rows if row.ledger == "a/1"] == [{}]
    huge = Need("team", "b/2", 0, 10**30, 10**30)
    lab.do("a", ledger.receive("b", huge, lab.now_s))

    assert [row.moved for row in ledger.rows if row.ledger == "a/1"] == [{"b/2": UNITS}]


def test_a_row_that_says_more_than_there_can_be_is_not_believed() -> None:
    lab = funded()
    huge = Row("b/2", minted=2**62, moved={"a/1": 2**62})
    lab.do("a", lab.ledgers["a"].receive("b", Rows("team", "b/2", (huge,)), lab.now_s))

    assert lab.remaining() == dict.fromkeys("abc", UNITS)
    assert lab.hold("a", UNITS + 1, for_s=0.0) == Refused(UNITS)


FRAMES: list[Frame] = [
    Rows("team", "a/1", (Row("a/1", 5, {"b/2": 3}, 1, 0, 0, ""),)),
    Need("team", "a/1", 1, 2, 3),
    Freeze("team", "a/1", ("b/2",)),
    Frozen("team", "c/3", "a/1", ("b/2",), (Row("b/2"),)),
    Objects("team", "a/1", "b/2", "alive"),
]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_a_frame_comes_back_from_its_bytes_and_not_from_fewer(frame: Frame) -> None:
    content = encode(frame)

    assert decode(content) == frame
    for end in range(len(content)):
        with pytest.raises(msgspec.DecodeError):
            decode(content[:end])
    with pytest.raises(msgspec.DecodeError, match=r"(?i)utf-8"):
        decode(content.replace(b"team", b"\xff" * 4))


@given(st.binary(max_size=64))
def test_any_bytes_are_a_frame_or_an_error(content: bytes) -> None:
    for read in (decode, decode_record):
        try:
            read(content)
        except msgspec.DecodeError:
            continue


# --- beside the replicated value -----------------------------------------------------


def test_the_matrix_allows_what_the_replicated_counter_allows() -> None:
    """Two implementations of one rule: whatever one refuses, the other does."""
    draw = random.Random(7)
    names = ("a", "b", "c")
    counter, matrix = BoundedCounter(Origin("n", 1)), Matrix(Row(n) for n in names)

    def write(name: str, **cells: Any) -> None:
        row = matrix.rows[name]
        matrix.put(msgspec.structs.replace(row, **cells))

    for _ in range(2_000):
        name, other = draw.sample(names, 2)
        units, row = draw.randrange(1, 50), matrix.rows[name]
        match draw.randrange(3):
            case 0:
                counter.mint(name, units)
                write(name, minted=row.minted + units)
            case 1 if units <= matrix.rights(name):
                counter.move(name, other, amount=units)
                moved = {**row.moved, other: row.moved.get(other, 0) + units}
                write(name, moved=moved)
            case 2 if units <= matrix.rights(name):
                counter.spend(name, units)
                write(name, spent=row.spent + units)
        assert {n: counter.rights(n) for n in names} == {
            n: matrix.rights(n) for n in names
        }
    assert counter.remaining == matrix.remaining > 0


@given(st.lists(st.tuples(*[st.integers(0, 9)] * 6), max_size=20))
def test_the_sums_of_a_matrix_are_those_of_its_rows(
    copies: list[tuple[int, int, int, int, int, int]],
) -> None:
    matrix = Matrix()
    names = ("a", "b", "c")
    for at, minted, moved, spent, released, overrun in copies:
        to = names[(at + 1 + moved % 2) % 3]
        row = Row(names[at % 3], minted, {to: moved}, spent, released, overrun)
        matrix.merge(row)
    rows = matrix.rows.values()

    for name in names:
        own = matrix.rows.get(name, Row(name))
        given_to = sum(row.moved.get(name, 0) for row in rows)
        gone = sum(own.moved.values()) + own.spent
        assert matrix.rights(name) == own.minted + given_to + own.released - gone
    assert matrix.minted == sum(row.minted for row in rows)
    assert matrix.spent == sum(row.spent - row.released for row in rows)
    assert matrix.overrun == sum(row.overrun for row in rows)


# --- terms --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ({"voters": ()}, "voters=(): expected distinct names"),
        ({"voters": ("a", "a")}, "voters=('a', 'a'): expected distinct names"),
        ({"chunk_share": 0.0}, "chunk_share=0.0: expected above 0, at most 1"),
        ({"chunk_share": 1.1}, "chunk_share=1.1: expected above 0, at most 1"),
        ({"chunk_cap": 0}, "chunk_cap=0: expected at least 1"),
        ({"ask_s": 0.0}, "ask_s=0.0: expected above 0, in seconds"),
    ],
)
def test_impossible_terms_are_refused(terms: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match="budget 'team'") as raised:
        Budget("team", **({"voters": ("a",)} | terms))

    assert str(raised.value) == f"budget 'team': {expected}"


def test_numbers_that_are_none_are_refused() -> None:
    ledger = funded().ledgers["a"]

    for ask in (
        lambda: ledger.mint(2**53 + 1, 0.0),
        lambda: ledger.hold(2**53 + 1, deadline_s=1.0, now_s=0.0),
        lambda: ledger.settle(Held(1), 2**53 + 1, now_s=0.0),
        lambda: ledger.reconcile(2**53 + 1, 0.0),
        lambda: ledger.reclaim({"x/1": 2**53 + 1}, 0.0),
    ):
        with pytest.raises(ValueError, match=r"expected at most 2\*\*53 units"):
            ask()
    with pytest.raises(ValueError, match=r"^reclaim\('x/1'=-1\): expected at least 0"):
        ledger.reclaim({"x/1": -1}, 0.0)
    with pytest.raises(ValueError, match="at least 1 unit"):
        ledger.mint(0, 0.0)
    with pytest.raises(ValueError, match="at least 1 unit"):
        ledger.hold(0, deadline_s=1.0, now_s=0.0)
    with pytest.raises(ValueError, match="at least 0"):
        ledger.settle(Held(1), -1, now_s=0.0)
    with pytest.raises(ValueError, match="at least 0"):
        ledger.reconcile(-1, 0.0)


def test_one_node_alone_needs_nobody() -> None:
    lab = Lab(Budget("team", ("a",)))
    lab.mint(units=1_000)
    for _ in range(10):
        lab.spend("a", 100)

    assert lab.hold("a", 1) == Refused(0)
    assert lab.frames == []


# --- runs ---------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_nothing_is_overspent_and_hardly_anything_lost(scenario: Scenario) -> None:
    assert check(scenario, range(4)) >= 4
