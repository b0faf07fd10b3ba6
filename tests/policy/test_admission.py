"""The admission queue, against a naive model and by example."""

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from hypothesis.strategies import booleans, integers

from atomr_infer.policy.admission import Admission, AdmissionQueue


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
    for key in range(10_000):
        queue.ask(key)
        queue.leave(key)
    assert len(queue._heap) < 100


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
