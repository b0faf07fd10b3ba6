"""The admission queue, against a naive model and by example."""

from collections import deque

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from hypothesis.strategies import integers

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


class AdmissionMachine(RuleBasedStateMachine):
    """Compares with a list of runners and a deque of waiters."""

    MAX_QUEUE = 3

    def __init__(self) -> None:
        super().__init__()
        self.queue: AdmissionQueue[int] = AdmissionQueue(max_queue=self.MAX_QUEUE)
        self.limit = 0
        self.running: set[int] = set()
        self.waiting: deque[int] = deque()
        self.next = 0

    def _promote(self) -> list[int]:
        promoted = []
        while self.waiting and len(self.running) < self.limit:
            promoted.append(self.waiting.popleft())
            self.running.add(promoted[-1])
        return promoted

    @rule()
    def ask(self) -> None:
        key, self.next = self.next, self.next + 1
        outcome = self.queue.ask(key)
        if len(self.running) < self.limit and not self.waiting:
            self.running.add(key)
            assert outcome is Admission.GRANTED
        elif len(self.waiting) < self.MAX_QUEUE:
            self.waiting.append(key)
            assert outcome is Admission.QUEUED
        else:
            assert outcome is Admission.REFUSED

    @rule(key=integers(0, 20))
    def leave(self, key: int) -> None:
        self.running.discard(key)
        if key in self.waiting:
            self.waiting.remove(key)
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
