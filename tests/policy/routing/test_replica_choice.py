"""Which replica is next, and which deployment of a group."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from atomr_infer.model.routing import Routing
from atomr_infer.policy.routing.affinity import ReadPrefixes
from atomr_infer.policy.routing.replica_choice import (
    Choice,
    Chooser,
    Member,
    Wanted,
    next_member,
)

if TYPE_CHECKING:
    from collections.abc import Callable


@attrs.frozen
class Replica:
    label: str
    tokens: int = 0
    outstanding: int = 0
    limit: int = 8
    ready: bool = True
    first_s: float = 0.0
    is_local: bool = True
    asleep: bool = False


def far(label: str, tokens: int = 0, **more: Any) -> Replica:
    return Replica(label, tokens, is_local=False, **more)


def chooser(routing: Routing = Routing.LEAST_TOKENS, margin: float = 0.5) -> Chooser:
    return Chooser(routing=routing, local_margin=margin, prefixes=ReadPrefixes())


def drawn(*numbers: float) -> Callable[[], float]:
    turns = itertools.cycle(numbers)
    return lambda: next(turns)


def chosen(
    replicas: list[Replica],
    routing: Routing = Routing.LEAST_TOKENS,
    *,
    avoid: tuple[Replica, ...] = (),
    wanted: Wanted | None = None,
    random: tuple[float, ...] = (0.0,),
) -> tuple[str, str]:
    choice = chooser(routing).choose(
        replicas, frozenset(avoid), wanted or Wanted(), random=drawn(*random)
    )
    assert choice is not None
    assert choice.candidates == len(replicas)
    return choice.replica.label, choice.reason


def test_the_replica_with_the_fewest_tokens_is_next() -> None:
    replicas = [Replica("a", 300), Replica("b", 100), Replica("c", 200)]
    assert chosen(replicas) == ("b", "least_tokens")


def test_one_that_is_not_ready_full_or_has_failed_already_comes_last() -> None:
    loading, failed = Replica("l", ready=False), Replica("f")
    busy, full = Replica("b", 900, 7), Replica("u", 10, 8)
    everyone = [loading, failed, full, busy]
    assert chosen(everyone, avoid=(failed,)) == ("b", "only_free")
    assert chosen([loading, failed, full], avoid=(failed,)) == ("u", "only_free")
    assert chosen([loading, failed], avoid=(failed,)) == ("l", "only_free")
    assert chosen([failed], avoid=(failed,)) == ("f", "only")
    assert chooser().choose([], frozenset(), Wanted(), random=drawn(0.0)) is None


def test_when_all_are_full_the_policy_decides_whose_queue_it_is() -> None:
    full = [Replica("a", 500, 9), Replica("b", 300, 8), far("c", 400, outstanding=8)]
    assert chosen(full) == ("b", "least_tokens")


@pytest.mark.parametrize(
    ("routing", "expected"),
    [
        (Routing.LEAST_TOKENS, "many"),
        (Routing.LEAST_REQUESTS, "few"),
        (Routing.WEIGHTED, "wide"),
        (Routing.FASTEST, "quick"),
    ],
)
def test_each_policy_has_a_measure_of_its_own(routing: Routing, expected: str) -> None:
    replicas = [
        Replica("many", 100, 6, limit=8, first_s=0.5),
        Replica("few", 400, 1, limit=8, first_s=2.0),
        Replica("wide", 300, 4, limit=64, first_s=1.0),
        Replica("quick", 350, 2, limit=8, first_s=0.1),
    ]
    assert chosen(replicas, routing) == (expected, routing.value)


def test_of_two_that_are_drawn_the_better_one_is_taken() -> None:
    replicas = [Replica(str(number), outstanding=number) for number in range(4)]
    assert chosen(replicas, Routing.TWO_CHOICES, random=(0.5, 0.0)) == (
        "2",
        "two_choices",
    )
    drawn_pairs = {
        chosen(replicas, Routing.TWO_CHOICES, random=(a / 8, b / 8))[0]
        for a in range(8)
        for b in range(8)
    }
    assert drawn_pairs == {"0", "1", "2"}  # the worst of four never wins


@pytest.mark.parametrize(
    ("here", "there", "goes"),
    [(0, 0, "a"), (100, 0, "a"), (250, 100, "a"), (400, 100, "b"), (400, 0, "b")],
)
def test_another_node_is_asked_only_when_this_one_has_clearly_more_to_do(
    here: int, there: int, goes: str
) -> None:
    replicas = [Replica("a", here), far("b", there)]
    assert chosen(replicas, wanted=Wanted(tokens=100)) == (goes, "least_tokens")


def test_another_node_is_asked_when_no_place_is_free_here() -> None:
    replicas = [Replica("a", 10, 8), far("b", 9_000, outstanding=7)]
    assert chosen(replicas, wanted=Wanted(tokens=100)) == ("b", "only_free")


def test_a_conversation_stays_where_it_is_on_every_node() -> None:
    labels = [f"n{node}/{number}" for node in range(3) for number in range(3)]
    for session in range(50):
        wanted = Wanted(session=b"%d" % session)
        seen = {
            chosen(
                [Replica(x, tokens=i * 9, is_local=x.startswith(here)) for i, x in at],
                Routing.SESSION,
                wanted=wanted,
            )
            for here in ("n0", "n1", "n2")
            for at in (list(enumerate(labels)), list(enumerate(reversed(labels))))
        }
        assert len(seen) == 1
        assert seen.pop()[1] == "session"


def test_when_a_replica_goes_only_its_own_conversations_move() -> None:
    replicas = [Replica(str(number)) for number in range(5)]
    moved = spread = 0
    for session in range(200):
        wanted = Wanted(session=b"s%d" % session)
        before, _ = chosen(replicas, Routing.SESSION, wanted=wanted)
        after, _ = chosen(replicas[:-1], Routing.SESSION, wanted=wanted)
        spread += before == "4"
        moved += before != after
    assert moved == spread
    assert 20 <= spread <= 60


def test_a_request_without_a_conversation_goes_by_tokens() -> None:
    replicas = [Replica("a", 300), Replica("b", 100)]
    assert chosen(replicas, Routing.SESSION) == ("b", "least_tokens")
    assert chosen(replicas, Routing.PREFIX) == ("b", "least_tokens")


def test_a_prompt_goes_to_who_has_read_its_beginning_unless_that_is_busy() -> None:
    policy = chooser(Routing.PREFIX)
    wanted = Wanted(tokens=100, blocks=(b"1", b"12", b"123"))

    def ask(*replicas: Replica) -> Choice[Replica]:
        choice = policy.choose(replicas, frozenset(), wanted, random=drawn(0.0))
        assert choice is not None
        return choice

    new = {ask(Replica("a"), far("b"), far("c")).replica.label for _ in range(5)}
    assert len(new) == 1
    assert ask(Replica("a"), far("b"), far("c")).reason == "prefix_new"
    policy.prefixes.note((b"1", b"12"), "b")
    policy.prefixes.note((b"1",), "c")
    known = ask(Replica("a"), far("b", 100), far("c"))
    assert (known.replica.label, known.reason) == ("b", "prefix")
    busy = ask(Replica("a"), far("b", 900), far("c"))
    assert (busy.replica.label, busy.reason) == ("a", "prefix_busy")
    gone = ask(Replica("a"), far("c"))
    assert gone.reason == "prefix_new"


def member(name: str, **more: Any) -> Member:
    given = {"usable": True, "outstanding": 0, "turn": 0, **more}
    return Member(name=name, **given)


def test_members_of_a_group_are_told_apart_by_use_then_work_then_turn() -> None:
    unusable = member("u", usable=False)
    assert next_member([unusable, member("a", outstanding=5)], {}) == "a"
    assert next_member([member("a", outstanding=1), member("b", turn=9)], {}) == "b"
    assert next_member([member("a", turn=2), member("b", turn=1)], {}) == "b"
    assert next_member([unusable], {}) == "u"


def test_weights_that_differ_are_shares_whatever_the_work_is() -> None:
    owed: dict[str, float] = {}
    group = [
        member("new", weight=0.05),
        member("old", weight=0.9, outstanding=50),
        member("other", weight=0.05, outstanding=2),
    ]
    first = [next_member(group, owed) for _ in range(20)]
    assert [first.count(name) for name in ("new", "old", "other")] == [1, 18, 1]
    many = first + [next_member(group, owed) for _ in range(180)]
    assert [many.count(name) for name in ("new", "old", "other")] == [10, 180, 10]


def test_a_weight_of_nothing_is_for_when_nobody_else_can_answer() -> None:
    spare, usual = member("spare", weight=0), member("usual", weight=2, outstanding=9)
    assert {next_member([spare, usual], {}) for _ in range(5)} == {"usual"}
    broken = attrs.evolve(usual, usable=False)
    assert next_member([spare, broken], {}) == "spare"
    assert next_member([attrs.evolve(spare, usable=False), broken], {}) == "usual"


def test_one_that_is_full_is_for_when_all_that_can_answer_are() -> None:
    full, busy = member("full", is_full=True), member("busy", outstanding=9)
    assert next_member([full, busy], {}) == "busy"
    assert next_member([full, attrs.evolve(busy, usable=False)], {}) == "full"
    assert next_member([full, attrs.evolve(busy, is_full=True)], {}) == "full"
    # A spare one is for when nobody can answer, and who is full can, later.
    assert next_member([full, attrs.evolve(busy, weight=0)], {}) == "full"


def test_a_full_one_is_owed_nothing_for_what_it_could_not_take() -> None:
    full, other = member("full", weight=3, is_full=True), member("other", weight=1)
    owed: dict[str, float] = {}
    assert [next_member([full, other], owed) for _ in range(9)] == ["other"] * 9
    free = attrs.evolve(full, is_full=False)
    then = [next_member([free, other], owed) for _ in range(8)]
    assert (then.count("full"), then.count("other")) == (6, 2)
