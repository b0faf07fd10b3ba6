"""Limits step by step, where the simulator would not say what went wrong."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr.crdt import Origin
from atomr.gossip.escrow import (
    FIRST,
    UNKNOWN,
    Answered,
    Asking,
    Denied,
    Effect,
    Escrow,
    Frame,
    Granted,
    Limit,
    Mark,
    Mode,
    Outcome,
    Past,
    Persist,
    Send,
    TermsDiffer,
    decode,
    encode,
)
from atomr.gossip.escrow.frames import Ask, Closed, Grant, Offer, Open, Refused, Used
from atomr.gossip.escrow.lessee import MAX_WAITERS
from atomr.testing.simulation import check
from tests.atomr.gossip.escrow_scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr.testing.simulation import Scenario

NEVER = float("inf")

# The home is "a"; each owns 2, and 54 are lent.
LIMIT = Limit("rpm", 60, 60.0, ("a", "b", "c"), away_s=None)


class Lab:
    """Nodes whose frames arrive at once, unless the test keeps them."""

    def __init__(self, limit: Limit = LIMIT, *, past: Past = FIRST) -> None:
        self.limit = limit
        self.now_s = 0.0
        self.facts: list[tuple[str, Effect]] = []
        self.frames: list[tuple[str, str, Frame]] = []
        self.cut: set[str] = set()
        self.nodes: dict[str, Escrow] = {}
        for name in limit.voters:
            self.boot(name, past=past)

    def boot(
        self, name: str, boot: int = 1, *, past: Past = UNKNOWN, limit: Any = None
    ) -> None:
        escrow = self.nodes[name] = Escrow(Origin(name, boot))
        escrow.add(limit or self.limit, self.now_s, past=past)

    def deliver(self, name: str, effects: Iterable[Effect]) -> None:
        queue = deque((name, effect) for effect in effects)
        while queue:
            sender, effect = queue.popleft()
            if not isinstance(effect, Send):
                self.facts.append((sender, effect))
                continue
            frame = decode(encode(effect.message))
            assert frame == effect.message
            self.frames.append((sender, effect.to, frame))
            if effect.to in self.nodes and not self.cut & {sender, effect.to}:
                answer = self.nodes[effect.to].receive(sender, frame, self.now_s)
                queue += [(effect.to, each) for each in answer]

    def send(self, sender: str, to: str, frame: Frame) -> None:
        self.deliver(to, self.nodes[to].receive(sender, frame, self.now_s))

    def acquire(self, name: str, permits: int = 1, wait_s: float = 0.3) -> Outcome:
        """Ask for permits; a home that is asked often is told a little later."""
        outcome = self.nodes[name].acquire("rpm", permits, now_s=self.now_s)
        self.deliver(name, self.nodes[name].advance(self.now_s))
        if not isinstance(outcome, Asking):
            return outcome
        end_s = self.now_s + wait_s
        while not self.answers(name, outcome) and self.now_s < end_s:
            self.run(0.02)
        return next(iter(self.answers(name, outcome)), outcome)

    def answers(self, name: str, asking: Asking) -> list[Outcome]:
        return [
            fact.outcome
            for who, fact in self.facts
            if who == name
            and isinstance(fact, Answered)
            and fact.ticket == asking.ticket
        ]

    def use(self, name: str, wanted: int) -> int:
        """Use permits one by one as long as there are any; return how many."""
        for used in range(wanted):
            if not isinstance(self.acquire(name), Granted):
                return used
        return wanted

    def run(self, for_s: float) -> None:
        """Let time pass, and wake whoever wants to be."""
        end_s = self.now_s + for_s
        while True:
            due = [(n.next_deadline_s, name) for name, n in self.nodes.items()]
            set_ = [(at_s, name) for at_s, name in due if at_s is not None]
            at_s, name = min(set_, default=(NEVER, ""))
            if at_s > end_s:
                break
            self.now_s = max(self.now_s, at_s)
            self.deliver(name, self.nodes[name].advance(self.now_s))
        self.now_s = end_s

    def run_to(self, at_s: float) -> None:
        self.run(at_s - self.now_s)

    def sent(self, kind: type[Any]) -> list[Any]:
        return [frame for _, _, frame in self.frames if isinstance(frame, kind)]


def lab(**terms: Any) -> Lab:
    given: dict[str, Any] = {"permits": 60, "window_s": 60.0, "voters": "abc"}
    given |= {"away_s": None} | terms
    return Lab(Limit("rpm", **given))


# --- use ----------------------------------------------------------------------------


def test_the_home_and_the_floors_follow_from_the_terms() -> None:
    assert (LIMIT.home, LIMIT.floor, LIMIT.pool, LIMIT.largest) == ("a", 2, 54, 56)


def test_a_node_uses_its_floor_without_asking_anybody() -> None:
    one = Lab()

    assert [one.nodes["b"].acquire("rpm", 1, now_s=0.0).permits for _ in "ab"] == [1, 1]  # type: ignore[union-attr]
    assert one.frames == []


def test_what_is_not_here_is_asked_for_once_and_granted() -> None:
    one = Lab()

    granted = one.acquire("b", 30)

    assert isinstance(granted, Granted)
    assert (granted.permits, granted.pool, granted.floor) == (30, 28, 2)
    assert [type(frame) for frame in (f for _, _, f in one.frames)] == [
        Open,
        Offer,
        Ask,
        Grant,
    ]
    assert str(granted) == "Granted(permits=30)"


def test_the_home_asks_itself_without_a_message() -> None:
    one = Lab()

    assert isinstance(one.acquire("a", 56), Granted)
    assert one.frames == []


def test_all_nodes_together_use_a_limit_once_and_again_after_a_window() -> None:
    one = Lab()

    assert sum(one.use(name, 60) for name in "bca") == 60
    one.run_to(59.9)
    assert [one.use(name, 60) for name in "bca"] == [0, 0, 0]
    one.run(1.0)

    assert sum(one.use(name, 60) for name in "cba") == 60


def test_a_denial_says_when_it_may_work() -> None:
    one = Lab()
    one.use("b", 60)
    one.run(20.0)

    denied = one.acquire("b")

    assert isinstance(denied, Denied)
    assert 39.0 <= denied.retry_after_s <= 60.0


def test_more_than_any_node_can_hold_is_never_granted() -> None:
    assert Lab().acquire("b", 57) == Denied(NEVER)


def test_an_acquire_waits_for_a_silent_home_as_long_as_it_may_and_later_ones_not() -> (
    None
):
    one = Lab()
    one.cut = {"a"}

    asking = one.acquire("b", 10)
    assert isinstance(asking, Asking)
    one.run_to(0.9)
    assert one.answers("b", asking) == []
    one.run_to(1.1)
    [answer] = one.answers("b", asking)

    assert isinstance(answer, Denied)
    assert isinstance(one.acquire("b", 10), Denied)
    assert isinstance(one.acquire("b", 2), Granted)


def test_no_more_than_a_bound_wait_for_the_home() -> None:
    one = Lab()
    one.cut = {"a"}

    outcomes = [one.nodes["b"].acquire("rpm", 3, now_s=0.0) for _ in range(300)]

    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [Asking] * MAX_WAITERS + [Denied] * (300 - MAX_WAITERS)


# --- settlements --------------------------------------------------------------------


def test_what_was_not_used_is_free_again_and_only_once() -> None:
    one = Lab()
    granted = one.acquire("b", 56)
    assert isinstance(granted, Granted)
    assert one.use("b", 1) == 0

    for _ in range(2):
        one.nodes["b"].settle("rpm", granted, 46, now_s=one.now_s)

    assert one.use("b", 60) == 10


def test_what_was_used_beyond_is_locked_where_there_is_any_and_else_counted() -> None:
    one = Lab(Limit("rpm", 10, 60.0, ("a",)))
    granted = one.acquire("a", 6)
    assert isinstance(granted, Granted)

    one.nodes["a"].settle("rpm", granted, 13, now_s=one.now_s)

    # Nothing more was at hand, and the home lends its other four.
    assert one.nodes["a"].overrun("rpm") == 7
    assert one.use("a", 10) == 4


def test_a_settlement_after_the_window_frees_nothing_twice() -> None:
    one = Lab(Limit("rpm", 10, 60.0, ("a",)))
    granted = one.acquire("a", 10)
    assert isinstance(granted, Granted)
    one.run(61.0)
    assert one.use("a", 10) == 10

    one.nodes["a"].settle("rpm", granted, 0, now_s=one.now_s)

    assert one.use("a", 1) == 0


# --- messages -----------------------------------------------------------------------


def test_trap_18_a_grant_that_comes_twice_or_late_lends_nothing_more() -> None:
    one = Lab()
    one.acquire("b", 10)
    old = one.sent(Grant)[0]
    assert isinstance(one.acquire("b", 46), Granted)

    for _ in range(3):
        for frame in (old, *one.sent(Grant)):
            one.send("a", "b", frame)

    assert one.use("b", 60) == 0


def test_trap_18_an_ask_that_comes_again_gives_nothing_back_twice() -> None:
    one = Lab()
    one.acquire("b", 50)
    one.run(70.0)  # all has cooled, and is given back
    assert one.sent(Ask)[-1].returned == one.sent(Grant)[-1].granted
    asks = one.sent(Ask)
    assert one.use("c", 60) == 56
    for frame in (*asks, *reversed(asks)):
        one.send("b", "a", frame)

    assert one.use("c", 1) == one.use("b", 3) - 2 == 0


def test_trap_18_an_old_opening_that_comes_again_opens_nothing() -> None:
    one = Lab()
    opening = one.nodes["b"].acquire("rpm", 50, now_s=0.0)
    assert isinstance(opening, Asking)
    one.deliver("b", one.nodes["b"].advance(0.0))
    [first], [ask] = one.sent(Open), one.sent(Ask)
    one.send("b", "a", first)
    [_, again] = one.sent(Offer)
    one.send("a", "b", again)
    one.send("b", "a", ask)

    assert one.sent(Closed) == []
    assert sum(one.use(name, 60) for name in "cba") == 10


def test_a_grant_from_anybody_but_the_home_is_not_believed() -> None:
    one = Lab()
    one.acquire("b", 10)
    [real] = one.sent(Grant)
    forged = msgspec.structs.replace(real, granted=1_000)
    one.send("c", "b", forged)

    assert one.use("b", 60) == 46


def test_an_ask_beyond_what_was_lent_gives_back_no_more_than_that() -> None:
    one = Lab()
    one.acquire("b", 50)
    forged = msgspec.structs.replace(one.sent(Ask)[0], returned=10**9, seen=10**9)
    one.send("b", "a", forged)
    others = sum(one.use(name, 60) for name in "ca")

    # A lessee that lies gets back its own; what it has lent is not lent twice more.
    assert others <= 60


def test_an_ask_for_an_account_that_was_never_offered_is_told_that_it_is_closed() -> (
    None
):
    one = Lab()
    for account in (0, 1, 99):
        one.send("b", "a", Ask("rpm", 1, account, 0.0, 0, 0, 5, 0.0))

    assert [frame.account for frame in one.sent(Closed)] == [0, 1, 99]


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), -1.0])
def test_a_rate_that_is_none_breaks_nothing(rate: float) -> None:
    one = Lab()
    one.acquire("b", 10)
    forged = msgspec.structs.replace(one.sent(Ask)[0], rate=rate, want=40, sent_s=0.5)
    one.send("b", "a", forged)

    assert isinstance(one.acquire("c", 2), Granted)


def test_a_crowd_of_strangers_gets_no_accounts_without_a_bound() -> None:
    one = Lab()
    for number in range(400):
        frame = Open("rpm", LIMIT.terms, number + 1, 0)
        one.send(f"stranger-{number}", "a", frame)

    assert len(one.sent(Offer)) <= 256
    assert isinstance(one.acquire("b", 10), Granted)


def test_terms_that_differ_are_told_on_both_sides_and_nothing_is_lent() -> None:
    one = Lab()
    other = Limit("rpm", 600, 60.0, ("a", "b", "c"))
    one.boot("b", 2, past=FIRST, limit=other)
    asking = one.acquire("b", 50)

    assert isinstance(asking, Asking)
    assert [f for f in one.facts if isinstance(f[1], TermsDiffer)][:2] == [
        ("a", TermsDiffer("rpm", "b")),
        ("b", TermsDiffer("rpm", "a")),
    ]
    assert one.sent(Grant) == []


def test_a_node_that_is_no_home_says_so() -> None:
    one = Lab()
    one.send("c", "b", Open("rpm", LIMIT.terms, 1, 0))
    one.send("c", "b", Ask("rpm", 1, 1, 0.0, 0, 0, 5, 0.0))

    assert [type(frame) for _, _, frame in one.frames] == [Refused, Closed]
    assert one.facts[0] == ("b", TermsDiffer("rpm", "c"))


def test_a_limit_that_a_node_does_not_have_is_refused_there() -> None:
    one = Lab()
    one.nodes["a"].remove("rpm", one.now_s)
    one.acquire("b", 10)

    assert {refused.terms for refused in one.sent(Refused)} == {0}
    assert one.sent(Grant) == []
    assert [f for f in one.facts if isinstance(f[1], TermsDiffer)] == []


def test_a_home_that_learns_of_a_limit_later_lends_then() -> None:
    one = Lab()
    one.nodes["a"].remove("rpm", one.now_s)
    asking = one.acquire("b", 50)
    one.nodes["a"].add(LIMIT, one.now_s, past=FIRST)
    one.run(1.0)

    assert isinstance(asking, Asking)
    [granted] = one.answers("b", asking)
    assert isinstance(granted, Granted)
    assert granted.permits == 50


FRAMES: list[Frame] = [
    Open("rpm", 1, 2, 3),
    Offer("rpm", 1, 2, 3, 4),
    Ask("rpm", 1, 2, 0.5, 3, 2, 1, 0.25),
    Grant("rpm", 1, 2, 3, 0.5, -1),
    Closed("rpm", 1, 2),
    Refused("rpm", 1, 2, 3),
    Used("rpm", 1, 2, 3),
]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_a_frame_comes_back_from_its_bytes_and_not_from_fewer(frame: Frame) -> None:
    content = encode(frame)

    assert decode(content) == frame
    for end in range(len(content)):
        with pytest.raises(msgspec.DecodeError):
            decode(content[:end])
    with pytest.raises(msgspec.DecodeError, match=r"(?i)utf-8"):
        decode(content.replace(b"rpm", b"\xff" * 3))


@given(st.binary(max_size=64))
def test_any_bytes_are_a_frame_or_an_error(content: bytes) -> None:
    try:
        frame = decode(content)
    except msgspec.DecodeError:
        return
    Lab().nodes["a"].receive("b", frame, 1.0)


# --- leases, restarts ---------------------------------------------------------------


def test_what_is_lent_cannot_be_used_after_the_lease() -> None:
    one = Lab()
    granted = one.acquire("b", 30)
    assert isinstance(granted, Granted)
    one.cut = {"b"}
    one.nodes["b"].settle("rpm", granted, 0, now_s=one.now_s)
    assert isinstance(one.acquire("b", 20), Granted)
    one.run_to(2.1)

    assert one.use("b", 60) == 2


def test_what_a_lessee_that_is_cut_off_had_is_lent_again_after_lapse_and_window() -> (
    None
):
    one = Lab()
    assert isinstance(one.acquire("b", 56), Granted)
    one.cut = {"b"}
    one.run(LIMIT.lapse_s + 59.0)
    assert one.use("c", 60) == 2
    one.run(1.5)

    assert one.use("c", 60) == 54


def test_trap_20_a_restarted_node_does_not_spend_its_floor_twice_in_a_window() -> None:
    one = lab(floor_fraction=1.0)
    assert one.use("b", 60) == 20
    one.boot("b", boot=2)

    assert one.use("b", 60) == 0
    one.run_to(59.9)
    assert one.use("b", 60) == 0
    one.run_to(61.0)
    assert one.use("b", 60) == 20


@pytest.mark.parametrize(
    ("quiet_s", "waits_s"), [(0.0, 60.0), (20.0, 40.0), (61.0, 0.0), (NEVER, 0.0)]
)
def test_trap_20_a_node_waits_as_long_as_an_earlier_life_may_matter(
    quiet_s: float, waits_s: float
) -> None:
    one = lab(floor_fraction=1.0)
    one.boot("b", boot=2, past=Past(quiet_s=quiet_s))
    if waits_s:
        one.run_to(waits_s - 2.0)
        assert one.use("b", 60) == 0
    one.run_to(waits_s + 1.0)

    assert one.use("b", 60) == 20


def test_trap_20_a_home_that_restarts_lends_nothing_for_a_lease_and_a_window() -> None:
    one = Lab()
    assert isinstance(one.acquire("b", 56), Granted)
    one.boot("a", boot=2)

    assert one.use("c", 60) == 2
    one.run(LIMIT.lapse_s + 59.0)
    one.use("c", 2)
    assert one.use("c", 60) == 0
    one.run(2.0)
    assert one.use("b", 60) + one.use("c", 60) + one.use("a", 60) == 58


def test_a_use_log_gives_back_what_was_not_used_at_once() -> None:
    limit = Limit("rpm", 80, 60.0, ("a",), floor_fraction=1.0, use_log=True)
    one = Lab(limit)
    marks: list[Mark] = []

    def use(wanted: int) -> int:
        used = 0
        for _ in range(wanted):
            used += isinstance(one.acquire("a"), Granted)
            for _, fact in one.facts:
                if isinstance(fact, Persist) and fact.mark not in marks:
                    marks.append(fact.mark)
                    one.nodes["a"].persisted(fact.mark)
        return used

    assert use(1) == 0  # before the first line is on the disk
    assert use(25) == 25
    one.boot("a", boot=2, past=Past(marks=tuple(marks)))
    one.facts.clear()
    marks.clear()

    # 25 were used, and one line allows ten more.
    assert use(80) in range(80 - 36, 80 - 25 + 1)


# --- modes --------------------------------------------------------------------------


def test_strict_asks_the_home_for_each_and_has_nothing_without_it() -> None:
    one = lab(mode=Mode.STRICT)
    assert [type(one.acquire("b")) for _ in range(3)] == [Granted] * 3
    assert len(one.sent(Ask)) == 3
    one.run(1.0)
    one.cut = {"a"}
    asking = one.acquire("b")
    one.run(1.1)

    assert isinstance(asking, Asking)
    assert [type(answer) for answer in one.answers("b", asking)] == [Denied]


def test_soft_counts_what_the_others_say_and_each_side_of_a_cut_alone() -> None:
    one = lab(mode=Mode.SOFT)
    assert one.use("b", 40) == 40
    one.run(0.5)
    assert one.use("c", 60) == 20
    one.run(61.0)
    one.cut = {"b"}

    assert [one.use(name, 100) for name in "bc"] == [60, 60]


def test_soft_gives_back_what_was_not_used() -> None:
    one = lab(mode=Mode.SOFT)
    granted = one.acquire("b", 60)
    assert isinstance(granted, Granted)

    one.nodes["b"].settle("rpm", granted, 20, now_s=one.now_s)
    one.nodes["b"].settle("rpm", granted, 20, now_s=one.now_s)

    assert one.use("b", 60) == 40
    assert one.acquire("b", 61) == Denied(NEVER)


# --- limits -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ({"permits": 0}, "permits=0: expected at least 1"),
        ({"window_s": 0.0}, "window_s=0.0: expected above 0, in seconds"),
        ({"window_s": NEVER}, "window_s=inf: expected above 0, in seconds"),
        ({"voters": ()}, "voters=(): expected distinct names"),
        ({"voters": ("a", "a")}, "voters=('a', 'a'): expected distinct names"),
        ({"floor_fraction": 1.5}, "floor_fraction=1.5: expected from 0 to 1"),
        ({"drift": 0.5}, "drift=0.5: expected from 0 to below 0.5"),
        ({"lease_s": 0.0}, "lease_s=0.0: expected above 0, in seconds"),
        ({"ask_s": NEVER}, "ask_s=inf: expected above 0, in seconds"),
    ],
)
def test_impossible_terms_are_refused(terms: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match="limit 'rpm'") as raised:
        lab(**terms)

    assert str(raised.value) == f"limit 'rpm': {expected}"


def test_names_and_numbers_that_are_none_are_refused() -> None:
    escrow = Lab().nodes["b"]

    with pytest.raises(ValueError, match="there already"):
        escrow.add(LIMIT, 0.0)
    with pytest.raises(ValueError, match="at least 1"):
        escrow.acquire("rpm", 0, now_s=0.0)
    with pytest.raises(KeyError):
        escrow.acquire("tpm", 1, now_s=0.0)
    granted = escrow.acquire("rpm", 1, now_s=0.0)
    assert isinstance(granted, Granted)
    with pytest.raises(ValueError, match="at least 0"):
        escrow.settle("rpm", granted, -1, now_s=0.0)


def test_a_node_under_a_thousand_limits_wakes_only_for_those_in_use() -> None:
    escrow = Escrow(Origin("a", 1))
    for number in range(1_000):
        escrow.add(Limit(f"rpm-{number}", 60, 60.0, ("a",)), 0.0, past=FIRST)
    dues = [escrow.next_deadline_s]
    escrow.acquire("rpm-7", 1, now_s=1.0)
    dues.append(escrow.next_deadline_s)
    for number in range(1_000):
        escrow.remove(f"rpm-{number}", 0.0)
    dues.append(escrow.next_deadline_s)

    assert dues == [None, 1.25, None]


def test_a_strict_node_that_found_its_home_silent_asks_it_again() -> None:
    limit = Limit("rpm", 6, 60.0, ("a", "b"), mode=Mode.STRICT)
    lessee = next(name for name in limit.voters if name != limit.home)
    escrow = Escrow(Origin(lessee, 1))
    escrow.add(limit, 0.0, past=FIRST)
    sent = []
    for at_s in range(60):
        escrow.acquire("rpm", 1, now_s=float(at_s))
        sent += [
            at_s for e in escrow.advance(at_s + 0.5) if isinstance(e, Send)
        ]  # nobody answers

    assert sent[-1] >= 58
    assert len(sent) <= 60


# --- other terms --------------------------------------------------------------------


def change(made: Lab, permits: int) -> None:
    limit = attrs.evolve(made.limit, permits=permits)
    for name, node in made.nodes.items():
        made.deliver(name, node.resize(limit, made.now_s))


def test_a_raised_limit_has_what_is_new_at_once_and_the_rest_after_its_window() -> None:
    made = lab()
    assert made.use("b", 100) == 56
    change(made, 90)
    assert made.use("b", 100) == 81 + 3 - 56
    made.run_to(60.0)
    assert made.use("b", 100) < 84 - 28
    made.run_to(130.0)
    assert made.use("b", 100) == 84


def test_a_lowered_limit_holds_at_once_whoever_holds_more() -> None:
    made = lab()
    assert isinstance(made.acquire("b", 40), Granted)  # 2 of them of its floor
    made.run_to(59.0)  # all are locked still
    change(made, 30)
    made.run_to(100.0)  # and have cooled
    assert made.use("b", 100) == 28
    assert made.use("c", 100) == 1
    assert made.use("a", 100) == 1


def test_a_node_that_has_just_begun_takes_what_is_new_of_its_floor_for_used() -> None:
    made = lab(floor_fraction=1.0, permits=6)
    made.boot("b", 2)  # its earlier life may have had the larger limit
    change(made, 60)
    assert made.use("b", 100) == 0
    made.run_to(made.limit.cooling_s)
    assert made.use("b", 100) == 20
    made = lab(floor_fraction=1.0, permits=6)
    made.boot("b", 2, past=Past(used=5))
    change(made, 60)
    assert made.use("b", 100) == 15


def test_other_terms_than_the_number_are_not_taken_in_passing() -> None:
    made = lab()
    node = made.nodes["a"]
    for other in (
        attrs.evolve(made.limit, window_s=30.0),
        attrs.evolve(made.limit, mode=Mode.STRICT),
    ):
        with pytest.raises(ValueError, match="expected the same but for its permits"):
            node.resize(other, 0.0)
    logged = attrs.evolve(made.limit, use_log=True)
    assert not logged.may_become(logged)


# --- runs ---------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_no_window_has_too_many_uses_whatever_goes_wrong(scenario: Scenario) -> None:
    assert check(scenario, range(4)) >= 4
