"""The admission queue, against a naive model and by example."""

from functools import partial

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from hypothesis.strategies import booleans, integers, sampled_from

from atomr_infer.policy.tenants.admission import Admission, AdmissionQueue, Claim


def test_a_closed_queue_grants_nothing_and_keeps_its_waiters() -> None:
    queue: AdmissionQueue[str] = AdmissionQueue(max_queue=2)
    assert queue.ask("a") is Admission.QUEUED
    assert queue.ask("b") is Admission.QUEUED
    assert queue.ask("c") is Admission.REFUSED
    assert queue.open(1) == ["a"]
    queue.close()
    assert queue.leave("a") == []
    assert (queue.running, queue.waiting) == (0, 1)
    assert queue.open(1) == ["b"]


def test_nobody_overtakes_a_waiter() -> None:
    queue: AdmissionQueue[str] = AdmissionQueue(max_queue=5)
    queue.open(1)
    assert queue.ask("a") is Admission.GRANTED
    assert queue.ask("b") is Admission.QUEUED
    assert queue.leave("a") == ["b"]
    assert queue.ask("c") is Admission.QUEUED


def test_leaving_twice_frees_one_permit() -> None:
    queue: AdmissionQueue[str] = AdmissionQueue(max_queue=5)
    queue.open(1)
    for key in "abc":
        queue.ask(key)
    assert queue.leave("a") == ["b"]
    assert queue.leave("a") == []
    assert queue.running == 1


def test_asking_twice_under_one_key_is_an_error() -> None:
    queue: AdmissionQueue[str] = AdmissionQueue(max_queue=5)
    queue.ask("a")
    with pytest.raises(ValueError, match="'a' has asked already"):
        queue.ask("a")


def test_the_higher_priority_goes_first_and_equals_in_order() -> None:
    queue: AdmissionQueue[str] = AdmissionQueue(max_queue=5)
    for key, priority in (("a", 0), ("b", 5), ("c", 0), ("d", 5)):
        queue.ask(key, priority=priority)
    assert queue.open(4) == ["b", "d", "a", "c"]


def test_who_has_waited_long_enough_goes_before_a_higher_priority() -> None:
    queue: AdmissionQueue[str] = AdmissionQueue(max_queue=5, aging_s=10.0)
    queue.ask("low", now=0.0, priority=0)
    queue.ask("soon", now=19.0, priority=2)
    queue.ask("late", now=21.0, priority=2)
    assert queue.open(3) == ["soon", "low", "late"]


def test_who_may_not_wait_is_refused_and_granted_like_others() -> None:
    queue: AdmissionQueue[str] = AdmissionQueue(max_queue=5)
    assert queue.ask("a", may_wait=False) is Admission.REFUSED
    queue.open(1)
    assert queue.ask("b", may_wait=False) is Admission.GRANTED
    assert queue.ask("c", may_wait=False) is Admission.REFUSED
    assert (queue.running, queue.waiting) == (1, 0)


def test_a_lower_limit_takes_no_permit_away() -> None:
    queue: AdmissionQueue[str] = AdmissionQueue(max_queue=5)
    queue.open(3)
    for key in "abcd":
        queue.ask(key)
    assert queue.open(1) == []
    assert queue.running == 3
    assert [queue.leave(key) for key in "abc"] == [[], [], ["d"]]


def test_waiters_that_give_up_leave_nothing_behind() -> None:
    queue: AdmissionQueue[int] = AdmissionQueue(max_queue=5)
    for key in range(3_000):
        queue.ask(key)
        queue.leave(key)
    assert (queue._levels, queue._waiting) == ({}, {})


def test_who_left_and_asks_again_stands_at_the_end() -> None:
    queue: AdmissionQueue[str] = AdmissionQueue(max_queue=5)
    queue.ask("a")
    queue.ask("b")
    queue.leave("a")
    queue.ask("a")
    assert queue.open(2) == ["b", "a"]


AGING_S = 10.0


class AdmissionMachine(RuleBasedStateMachine):
    """Compares with a list of runners and a list of waiters that is sorted anew."""

    MAX_QUEUE = 3

    def __init__(self) -> None:
        super().__init__()
        self.queue: AdmissionQueue[int] = AdmissionQueue(
            max_queue=self.MAX_QUEUE, aging_s=AGING_S
        )
        self.limit = 0
        self.running: set[int] = set()
        self.waiting: list[tuple[int, int, int]] = []  # key, priority, since
        self.next = 0
        self.now = 0

    def _priority(self, waiter: tuple[int, int, int]) -> float:
        _, priority, since = waiter
        return priority + (self.now - since) / AGING_S

    def _promote(self) -> list[int]:
        promoted = []
        while self.waiting and len(self.running) < self.limit:
            best = max(self.waiting, key=self._priority)  # the first of equals
            self.waiting.remove(best)
            promoted.append(best[0])
            self.running.add(best[0])
        return promoted

    @rule(seconds=integers(0, 40))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(priority=integers(-2, 2), may_wait=booleans())
    def ask(self, priority: int, may_wait: bool) -> None:
        key, self.next = self.next, self.next + 1
        outcome = self.queue.ask(
            key, now=self.now, priority=priority, may_wait=may_wait
        )
        if len(self.running) < self.limit and not self.waiting:
            self.running.add(key)
            assert outcome is Admission.GRANTED
        elif may_wait and len(self.waiting) < self.MAX_QUEUE:
            self.waiting.append((key, priority, self.now))
            assert outcome is Admission.QUEUED
        else:
            assert outcome is Admission.REFUSED

    @rule(key=integers(0, 20))
    def leave(self, key: int) -> None:
        self.running.discard(key)
        self.waiting = [waiter for waiter in self.waiting if waiter[0] != key]
        assert self.queue.leave(key) == self._promote()

    @rule(limit=integers(0, 4))
    def open(self, limit: int) -> None:
        self.limit = limit
        assert self.queue.open(limit) == self._promote()

    @rule()
    def close(self) -> None:
        self.limit = 0
        self.queue.close()

    @invariant()
    def counts_agree(self) -> None:
        assert self.queue.running == len(self.running)
        assert self.queue.waiting == len(self.waiting)
        assert self.queue.outstanding == len(self.running) + len(self.waiting)


TestAdmissionMachine = AdmissionMachine.TestCase
TestAdmissionMachine.settings = settings(max_examples=100, deadline=None)


# --- tenants -------------------------------------------------------------------------


def of(name: str, weight: float = 1.0, cost: float = 1.0) -> Claim:
    return Claim(((name, weight),), cost)


def test_a_single_request_does_not_wait_behind_anothers_flood() -> None:
    queue: AdmissionQueue[str] = AdmissionQueue(max_queue=300)
    queue.open(1)
    queue.ask("running", claim=of("flood"))
    for number in range(200):
        queue.ask(f"flood{number}", now=float(number), claim=of("flood"))
    queue.ask("single", now=200.0, claim=of("other"))
    assert queue.leave("running") == ["flood0"]
    assert queue.leave("flood0") == ["single"]
    assert queue.leave("single") == ["flood1"]


def test_a_higher_priority_goes_before_a_tenants_share() -> None:
    queue: AdmissionQueue[str] = AdmissionQueue(max_queue=9)
    for key, priority, name in (
        ("a1", 0, "a"),
        ("a2", 1, "a"),
        ("a3", 1, "a"),
        ("b1", 1, "b"),
        ("b2", 0, "b"),
    ):
        queue.ask(key, priority=priority, claim=of(name))
    assert queue.open(5) == ["a2", "b1", "a3", "a1", "b2"]


def test_whose_turn_it_is_says_how_long_a_priority_has_waited() -> None:
    queue: AdmissionQueue[str] = AdmissionQueue(max_queue=9, aging_s=10.0)
    queue.ask("old", now=0.0, claim=of("a"))
    queue.ask("high", now=5.0, priority=1, claim=of("b"))
    queue.ask("later", now=16.0, priority=1, claim=of("b"))
    assert queue.open(1) == ["high"]
    assert queue.leave("high") == ["old"], "it has waited for 10 s more than later"
    assert queue.leave("old") == ["later"]


# --- a full queue --------------------------------------------------------------------


def full(*waiting: tuple[str, int, str]) -> AdmissionQueue[str]:
    queue: AdmissionQueue[str] = AdmissionQueue(max_queue=len(waiting), aging_s=10.0)
    queue.open(1)
    queue.ask("running")
    for key, priority, name in waiting:
        queue.ask(key, priority=priority, claim=of(name))
    return queue


def test_the_last_of_the_longest_makes_room_for_another_tenant() -> None:
    queue = full(("a1", 0, "a"), ("a2", 0, "a"), ("a3", 0, "a"))
    assert queue.ask("b1", claim=of("b")) is Admission.REFUSED
    assert queue.displace(claim=of("b")) == "a3"
    assert queue.ask("b1", claim=of("b")) is Admission.QUEUED
    assert queue.displace(claim=of("b")) is None, "b would have as many as a"
    assert queue.displace(claim=of("a")) is None
    assert queue.leave("running") == ["a1"]
    assert queue.waiting == 2


def test_a_lower_priority_makes_room_first_and_a_higher_one_never() -> None:
    queue = full(("low", -1, "a"), ("high", 5, "b"), ("high2", 5, "b"))
    assert queue.displace(priority=-1, claim=of("a")) is None
    assert queue.displace(priority=0, claim=of("b")) == "low"
    assert queue.ask("mid", priority=0, claim=of("b")) is Admission.QUEUED
    assert queue.displace(priority=0, claim=of("c")) is None
    assert queue.displace(priority=5, claim=of("b")) == "mid"


def test_who_has_waited_so_long_that_it_goes_before_stays() -> None:
    queue = full(("low", 0, "a"))
    assert queue.displace(now=10.0, priority=1, claim=of("b")) is None
    assert queue.displace(now=9.0, priority=1, claim=of("b")) == "low"


def test_where_there_is_room_nobody_makes_any() -> None:
    queue: AdmissionQueue[str] = AdmissionQueue(max_queue=2)
    queue.ask("a", claim=of("a"))
    assert queue.displace(priority=9, claim=of("b")) is None
    nobody: AdmissionQueue[str] = AdmissionQueue(max_queue=0)
    assert nobody.displace(priority=9) is None


def test_nobody_waits_for_ever_behind_others() -> None:
    """A low priority, while another tenant asks twice for each turn that there is."""
    queue: AdmissionQueue[str] = AdmissionQueue(max_queue=1_000, aging_s=10.0)
    queue.open(1)
    queue.ask("running", claim=of("flood"), priority=5)
    queue.ask("low", now=0.0, priority=0, claim=of("single"))
    runs, now = "running", 0.0
    while runs != "low":
        now += 1.0
        for number in range(2):
            queue.ask(f"{now}-{number}", now=now, priority=5, claim=of("flood"))
        [runs] = queue.leave(runs)
        assert now <= 110.0


class TenantMachine(RuleBasedStateMachine):
    """Tenants, priorities and a full queue: nobody is lost, and rights are kept."""

    MAX_QUEUE = 4
    TENANTS = ("a", "b", "c")

    def __init__(self) -> None:
        super().__init__()
        self.queue: AdmissionQueue[int] = AdmissionQueue(
            max_queue=self.MAX_QUEUE, aging_s=AGING_S
        )
        self.limit = 0
        self.running: set[int] = set()
        self.waiting: dict[int, tuple[int, str, int]] = {}  # priority, tenant, since
        self.next = 0
        self.now = 0

    def _granted(self, keys: list[int]) -> None:
        for key in keys:
            del self.waiting[key]
            self.running.add(key)

    def _of(self, tenant: str, priority: int) -> int:
        return sum(w[:2] == (priority, tenant) for w in self.waiting.values())

    @rule(seconds=integers(0, 30))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(priority=integers(0, 2), tenant=sampled_from(TENANTS), cost=integers(1, 9))
    def come(self, priority: int, tenant: str, cost: int) -> None:
        key, self.next = self.next, self.next + 1
        ask = partial(
            self.queue.ask, key, now=self.now, priority=priority, claim=of(tenant)
        )
        outcome = ask()
        if outcome is Admission.REFUSED:
            assert len(self.waiting) == self.MAX_QUEUE
            last = self.queue.displace(
                now=self.now, priority=priority, claim=of(tenant)
            )
            if last is None:
                self._nobody_makes_room(priority, tenant)
                return
            self._makes_room(last, priority, tenant)
            outcome = ask()
        if outcome is Admission.GRANTED:
            self.running.add(key)
        else:
            assert outcome is Admission.QUEUED
            self.waiting[key] = (priority, tenant, self.now)

    def _makes_room(self, last: int, priority: int, tenant: str) -> None:
        theirs, owner, since = self.waiting.pop(last)
        if theirs == priority:
            assert self._of(owner, priority) >= self._of(tenant, priority) + 1
        else:
            assert theirs < priority
            assert self.now - since < (priority - theirs) * AGING_S

    def _nobody_makes_room(self, priority: int, tenant: str) -> None:
        most = max((self._of(each, priority) for each in self.TENANTS), default=0)
        assert most <= self._of(tenant, priority) + 1

    @rule(key=integers(0, 30))
    def leave(self, key: int) -> None:
        self.running.discard(key)
        self.waiting.pop(key, None)
        self._granted(self.queue.leave(key))

    @rule(limit=integers(0, 3))
    def open(self, limit: int) -> None:
        self.limit = limit
        self._granted(self.queue.open(limit))

    @invariant()
    def nobody_is_lost_and_nobody_waits_beside_a_free_permit(self) -> None:
        assert self.queue.waiting == len(self.waiting)
        assert self.queue.running == len(self.running)
        assert not self.waiting or len(self.running) >= self.limit

    def teardown(self) -> None:
        self.queue.close()
        for key in list(self.running):
            self.running.discard(key)
            self._granted(self.queue.leave(key))
        self._granted(self.queue.open(100))
        assert self.waiting == {}


TestTenantMachine = TenantMachine.TestCase
TestTenantMachine.settings = settings(max_examples=60, deadline=None)
