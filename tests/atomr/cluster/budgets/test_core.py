"""What two nodes' budgets decide, frame by frame."""

from __future__ import annotations

from atomr.cluster.budgets import BudgetTerms
from atomr.cluster.budgets.core import Core
from atomr.cluster.budgets.frames import Carried, Hello, Message
from atomr.cluster.budgets.kept import Stored
from atomr.gossip.ledger import Rows

TEAM = BudgetTerms(name="team", units=1_000)
NOW_S = 100.0


def core(name: str, *, file: str) -> Core:
    made = Core(Stored(file=file, made_at_s=50.0), name=name, voters=("a", "b"))
    made.open(TEAM, now_s=NOW_S, wall_s=NOW_S)
    return made


def say(core: Core) -> list[Message]:
    """Write what is to be written, and return what is said then."""
    while (write := core.take_write()) is not None:
        core.written(write, NOW_S)
    core.advance(now_s=NOW_S, wall_s=NOW_S)
    said, core.sends = core.sends, []
    return [message for _, message in said]


def talk(one: Core, other: Core) -> None:
    """Let two nodes talk until they have said all."""
    while True:
        here, there = say(one), say(other)
        if not (here or there):
            return
        for message in here:
            other.receive(one.name, message, now_s=NOW_S, wall_s=NOW_S)
        for message in there:
            one.receive(other.name, message, now_s=NOW_S, wall_s=NOW_S)


def test_a_hello_that_nobody_heard_is_said_again_when_the_other_says_its_own() -> None:
    a, b = core("a", file="f1"), core("b", file="f2")
    a.peer_up("b")
    assert Hello("f1", "", is_answer=False) in say(a)  # b's process restarts just now
    b.peer_up("a")
    talk(a, b)
    assert (a.state("team").minted, b.state("team").minted) == (1_000, 1_000)


def test_those_who_know_each_other_do_not_greet_for_ever() -> None:
    a, b = core("a", file="f1"), core("b", file="f2")
    a.peer_up("b")
    b.peer_up("a")
    talk(a, b)
    lost = core("a", file="f3")
    b.peer_down("a")
    b.peer_up("a")
    lost.peer_up("b")
    talk(lost, b)  # it ends
    assert "a has lost its file" in str(lost.state("team").problem)


def test_an_answer_waits_for_the_disk() -> None:
    a = core("a", file="f1")
    say(a)
    a.receive("b", Hello("f2", "", is_answer=False), now_s=NOW_S, wall_s=NOW_S)
    write = a.take_write()
    assert write is not None
    assert write.heard == {"b": "f2"}
    assert not any(isinstance(m, Hello) and m.is_answer for _, m in a.sends)
    a.written(write, NOW_S)
    assert Hello("f1", "f2", is_answer=True) in say(a)


def test_what_a_stranger_says_changes_nothing() -> None:
    a = core("a", file="f1")
    say(a)
    for message in (Hello("f9", "f1", is_answer=True), Carried(Rows("team", "x", ()))):
        a.receive("x", message, now_s=NOW_S, wall_s=NOW_S)
    assert (say(a), a.take_write()) == ([], None)
