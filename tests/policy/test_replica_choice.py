"""Which replica is next, and which deployment of a group."""

from __future__ import annotations

import attrs

from atomr_infer.policy.replica_choice import (
    MemberLoad,
    least_outstanding,
    next_member,
)


@attrs.frozen
class Replica:
    name: str
    outstanding: int = 0
    ready: bool = True


def test_the_replica_with_the_least_work_is_next() -> None:
    replicas = [Replica("a", 3), Replica("b", 1), Replica("c", 2)]
    assert least_outstanding(replicas, frozenset()) == replicas[1]


def test_one_that_is_not_ready_or_has_failed_already_comes_last() -> None:
    loading, failed, busy = Replica("l", 0, ready=False), Replica("f"), Replica("b", 9)
    everyone = [loading, failed, busy]
    avoid = frozenset({failed})
    assert least_outstanding(everyone, avoid) == busy
    assert least_outstanding([loading, failed], avoid) == loading
    assert least_outstanding([failed], avoid) == failed
    assert least_outstanding([], avoid) is None


def member(name: str, **more: int) -> MemberLoad:
    given = {"usable": True, "outstanding": 0, "turn": 0, **more}
    return MemberLoad(name=name, **given)  # type: ignore[arg-type]


def test_members_of_a_group_are_told_apart_by_use_then_work_then_turn() -> None:
    unusable = member("u", usable=False)
    assert next_member([unusable, member("a", outstanding=5)]) == "a"
    assert next_member([member("a", outstanding=1), member("b", turn=9)]) == "b"
    assert next_member([member("a", turn=2), member("b", turn=1)]) == "b"
    assert next_member([unusable]) == "u"
