"""Which messages of peers wait, and which are looked at."""

from __future__ import annotations

from atomr.cluster.replicator.frames import Carried, Hello
from atomr.cluster.replicator.inbox import Inbox
from atomr.crdt import Origin
from atomr.gossip.replication import Digest, Push

A, B = Origin("a", 1), Origin("b", 1)
HELLO = Hello((1,), is_answer=False)


def digest(number: int, *, shard: int = 0) -> Carried:
    return Carried(shard, 1, Digest((), (), number, is_answer=False))


def push(shard: int = 0) -> Carried:
    return Carried(shard, 1, Push(()))


def test_frames_have_room_and_as_many_hellos_again() -> None:
    inbox = Inbox(2)
    frames = [inbox.arrived(A, push()) for _ in range(4)]
    hellos = [inbox.arrived(A, HELLO) for _ in range(4)]

    assert frames == [True, True, False, False]
    assert hellos == [True, True, False, False]
    assert (inbox.waiting, inbox.overrun) == (4, 4)


def test_the_latest_digest_takes_the_place_of_one_that_waits() -> None:
    inbox = Inbox(10)
    first, later = digest(1), digest(2)
    assert inbox.arrived(A, first)
    assert inbox.arrived(A, push())
    assert not inbox.arrived(A, later)

    assert (inbox.waiting, inbox.overrun) == (2, 0)
    assert inbox.take(A, first) is later
    assert inbox.take(A, push()) == push()
    assert inbox.waiting == 0


def test_one_that_comes_after_its_turn_waits_for_another() -> None:
    inbox = Inbox(10)
    first, later = digest(1), digest(2)
    inbox.arrived(A, first)
    inbox.take(A, first)

    assert inbox.arrived(A, later)
    assert inbox.take(A, later) is later


def test_digests_of_other_peers_and_shards_are_others() -> None:
    inbox = Inbox(10)
    several = [(A, digest(1)), (A, digest(2, shard=1)), (B, digest(3))]

    assert [inbox.arrived(peer, one) for peer, one in several] == [True] * 3
    assert [inbox.take(peer, one) for peer, one in several] == [m for _, m in several]


def test_one_that_waits_is_renewed_though_there_is_no_room() -> None:
    inbox = Inbox(1)
    first, later = digest(1), digest(2)
    inbox.arrived(A, first)

    assert not inbox.arrived(A, digest(9, shard=1))
    assert not inbox.arrived(A, later)
    assert inbox.overrun == 1
    assert inbox.take(A, first) is later


def test_nothing_is_remembered_of_what_is_gone() -> None:
    inbox = Inbox(100)
    for number in range(1_000):
        one = digest(number, shard=number)
        if inbox.arrived(A, one):
            inbox.take(A, one)

    assert inbox._digests == {}
