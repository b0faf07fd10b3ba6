"""What an election does, step by step, where chance would seldom lead."""

from __future__ import annotations

import re

import msgspec
import pytest

from atomr.crdt.origin import Origin
from atomr.gossip import voting as v
from atomr.gossip.voting.frames import (
    LAST_EPOCH,
    MOST_AHEAD,
    Ask,
    Busy,
    Free,
    GivenUp,
    Granted,
    Poll,
    Refused,
    Yield,
    decode,
    encode,
)

TERMS = v.Terms("billing", ("a", "b", "c"), lease_s=6.0, stop_s=1.0)
ME = Origin("a", 7)
FINGERPRINT = TERMS.fingerprint
LATER_S = TERMS.lapse_s


def election(name: str = "a", *, epoch: int = 10) -> v.Election:
    me = Origin(name, 7)
    return v.Election(TERMS, me, draw=lambda: 0.0, epoch=epoch, now_s=0.0)


def frame_to(effects: list[v.Effect], name: str) -> v.Frame:
    [frame] = [e.message for e in effects if isinstance(e, v.Send) and e.to == name]
    return frame


def facts(effects: list[v.Effect]) -> list[v.Effect]:
    return [effect for effect in effects if not isinstance(effect, v.Send)]


def asking(now_s: float = LATER_S) -> tuple[v.Election, Ask]:
    """Return an election that has its own vote, and asks the others."""
    made = election()
    made.handle(v.Stand(), 0.0)
    poll = frame_to(made.handle(v.Woke(), now_s), "b")
    assert isinstance(poll, Poll)
    free = Free("billing", 7, poll.attempt, 10)
    ask = frame_to(made.handle(v.Received("b", free), now_s), "b")
    assert isinstance(ask, Ask)
    return made, ask


def granted(ask: Ask, *, epoch: int | None = None, is_yours: bool = True) -> Granted:
    epoch = ask.epoch if epoch is None else epoch
    return Granted("billing", ask.boot, ask.attempt, ask.sent_s, epoch, is_yours)


def holding() -> tuple[v.Election, Ask]:
    made, ask = asking()
    effects = made.handle(v.Received("b", granted(ask)), LATER_S)
    assert facts(effects) == [v.Won(11)]
    return made, ask


def test_a_node_that_starts_waits_for_a_lapse_before_it_asks() -> None:
    made = election()

    assert made.handle(v.Stand(), 0.0) == []
    assert made.next_deadline_s == pytest.approx(TERMS.lapse_s)
    assert made.phase is v.Phase.WAITING


def test_a_candidate_polls_then_asks_then_holds() -> None:
    made, ask = holding()

    assert ask == Ask("billing", FINGERPRINT, 7, ask.attempt, 11, LATER_S, None)
    assert made.phase is v.Phase.HOLDING
    assert made.seen == "a"
    assert made.until_s == LATER_S + 6.0


def test_a_lease_counts_from_when_it_was_asked_for() -> None:
    made, ask = asking()
    made.handle(v.Received("b", granted(ask)), LATER_S + 4.0)

    assert made.until_s == LATER_S + 6.0
    assert made.holds(LATER_S + 5.9) == 11
    assert made.holds(LATER_S + 6.0) is None


def test_an_answer_that_leaves_no_time_to_stop_wins_nothing() -> None:
    made, ask = asking()

    effects = made.handle(v.Received("b", granted(ask)), LATER_S + 5.0)

    assert facts(effects) == []
    assert made.phase is not v.Phase.HOLDING


def test_one_voter_that_answers_twice_is_one_voter() -> None:
    terms = v.Terms("billing", ("b", "c", "d"), lease_s=6.0)
    made = v.Election(terms, ME, draw=lambda: 0.0, epoch=0, now_s=0.0)
    poll = frame_to(made.handle(v.Stand(), 0.0), "b")
    assert isinstance(poll, Poll)
    free = Free("billing", 7, poll.attempt, 0)

    assert made.handle(v.Received("b", free), 0.0) == []
    assert made.handle(v.Received("b", free), 0.0) == []
    assert made.handle(v.Received("stranger", free), 0.0) == []
    assert len(made.handle(v.Received("c", free), 0.0)) == 3


def test_a_majority_is_told_the_epoch_before_the_term_begins() -> None:
    made, ask = asking()

    effects = made.handle(
        v.Received("b", granted(ask, epoch=30, is_yours=False)), LATER_S
    )

    again = frame_to(effects, "b")
    assert facts(effects) == []
    assert again == msgspec.structs.replace(ask, epoch=31)
    assert isinstance(again, Ask)
    effects = made.handle(v.Received("b", granted(again)), LATER_S)
    assert facts(effects) == [v.Won(31)]


def test_an_epoch_that_a_peer_makes_up_ends_no_counting() -> None:
    made, ask = asking()
    lie = granted(ask, epoch=LAST_EPOCH, is_yours=False)
    again = frame_to(made.handle(v.Received("b", lie), LATER_S), "c")
    assert isinstance(again, Ask)
    assert again.epoch == 10 + 1 + MOST_AHEAD + 1
    # It can be said, and is believed by whoever has not heard the lie.
    other = election("c")
    assert decode(encode(again)) == again
    answer = frame_to(other.handle(v.Received("a", again), LATER_S), "a")
    assert isinstance(answer, Granted)
    assert (answer.epoch, answer.is_yours) == (10 + MOST_AHEAD, False)
    answer = frame_to(other.handle(v.Received("a", again), LATER_S), "a")
    assert isinstance(answer, Granted)
    assert (answer.epoch, answer.is_yours) == (again.epoch, True)
    assert facts(made.handle(v.Received("c", answer), LATER_S)) == []
    # Nor has its own vote followed yet: it is asked once more.
    assert made.next_deadline_s is not None
    effects = made.handle(v.Woke(), made.next_deadline_s)
    assert facts(effects) == [v.Won(again.epoch)]


def test_a_candidate_for_whom_no_epoch_is_left_asks_for_nothing() -> None:
    made, ask = asking()
    lie = granted(ask, epoch=LAST_EPOCH, is_yours=False)
    now_s, seen = LATER_S, 0
    for _ in range((LAST_EPOCH >> 48) + 2):
        effects = made.handle(v.Received("b", lie), now_s)
        for effect in effects:
            if isinstance(effect, v.Send):
                assert decode(encode(effect.message)) == effect.message
                seen = max(seen, getattr(effect.message, "epoch", 0))
    assert seen == LAST_EPOCH
    assert made.phase in (v.Phase.WAITING, v.Phase.POLLING)
    for _ in range(10):
        assert made.next_deadline_s is not None
        now_s = made.next_deadline_s
        for effect in made.handle(v.Woke(), now_s):
            assert isinstance(effect, v.Send)
            assert isinstance(effect.message, Poll)
            free = Free("billing", 7, effect.message.attempt, LAST_EPOCH)
            made.handle(v.Received(effect.to, free), now_s)


def test_an_answer_to_an_earlier_attempt_is_no_vote() -> None:
    made, ask = asking()
    made.handle(v.Leave(), LATER_S)
    made.handle(v.Stand(), LATER_S)

    assert made.handle(v.Received("b", granted(ask)), LATER_S) == []
    made, ask = holding()
    made.handle(v.Leave(), LATER_S)
    made.handle(v.Stopped(), LATER_S)
    assert made.handle(v.Received("b", granted(ask)), LATER_S) == []
    assert made.until_s == -float("inf")


def test_an_answer_to_an_earlier_life_is_no_vote() -> None:
    made, ask = asking()
    late = msgspec.structs.replace(granted(ask), boot=6)

    assert made.handle(v.Received("b", late), LATER_S) == []


def test_votes_are_asked_for_again_in_time() -> None:
    made, _ = holding()

    at_s = LATER_S
    asked_at: list[float] = []
    while at_s < LATER_S + 5.2:
        assert made.next_deadline_s is not None
        at_s = made.next_deadline_s
        for effect in made.handle(v.Woke(), at_s):
            assert isinstance(effect, v.Send)
            if effect.to == "b" and isinstance(effect.message, Ask):
                asked_at.append(at_s - LATER_S)
                answer = granted(effect.message)
                made.handle(v.Received("b", answer), at_s)

    assert asked_at == pytest.approx([2.5, 5.0], abs=0.51)


def test_a_holder_that_is_answered_no_more_is_told_to_stop_and_then_cut_off() -> None:
    made, _ = holding()
    seen: list[tuple[float, v.Effect]] = []

    while made.phase in (v.Phase.HOLDING, v.Phase.STOPPING):
        assert made.next_deadline_s is not None
        at_s = made.next_deadline_s
        seen += [(at_s - LATER_S, f) for f in facts(made.handle(v.Woke(), at_s))]

    assert [fact for _, fact in seen] == [v.Stop(11, v.Why.NO_MAJORITY), v.Lost(11)]
    assert [at_s for at_s, _ in seen] == pytest.approx([5.0, 6.0])


def test_a_holder_that_was_away_learns_the_end_before_all_else() -> None:
    made, ask = holding()
    late = granted(msgspec.structs.replace(ask, sent_s=LATER_S + 5.0))

    effects = made.handle(v.Received("b", late), LATER_S + 6.1)

    assert effects[0] == v.Lost(11)
    assert made.holds(LATER_S + 6.1) is None


def test_a_lease_is_handed_over_when_the_work_has_ended() -> None:
    made, ask = holding()

    assert made.handle(v.Leave("c"), LATER_S) == [v.Stop(11, v.Why.LEAVING)]
    assert made.holds(LATER_S) == 11
    said = Yield("billing", 7, ask.attempt, 11, "c")
    effects = made.handle(v.Stopped(), LATER_S + 0.5)
    assert effects == [v.Send("b", said), v.Send("c", said)]
    assert made.holds(LATER_S + 0.5) is None
    assert made.phase is v.Phase.IDLE


def test_an_heir_asks_at_once_and_says_whose_heir_it_is() -> None:
    heir = election("c")
    heir.handle(v.Stand(), 0.0)
    said = Yield("billing", 9, 4, 30, "c")

    ask = frame_to(heir.handle(v.Received("a", said), 3.0), "b")

    assert isinstance(ask, Ask)
    assert ask.epoch == 31
    assert ask.heir_of == GivenUp("a", 9, 4)


def test_a_node_that_does_not_stand_inherits_nothing() -> None:
    heir = election("c")

    said = Yield("billing", 9, 4, 30, "c")
    assert heir.handle(v.Received("a", said), LATER_S) == []


def test_a_voter_takes_the_word_of_an_heir_for_this_attempt_only() -> None:
    voter = election("b")
    first = Ask("billing", FINGERPRINT, 7, 4, 11, 0.0, None)
    voter.handle(v.Received("a", first), LATER_S)
    claim = Ask("billing", FINGERPRINT, 8, 1, 12, 0.0, GivenUp("a", 7, 3))

    refusal = frame_to(voter.handle(v.Received("c", claim), LATER_S), "c")
    assert refusal == Busy("billing", 8, 1, "a", LATER_S, 11)
    right = msgspec.structs.replace(claim, heir_of=GivenUp("a", 7, 4))
    answer = frame_to(voter.handle(v.Received("c", right), LATER_S), "c")
    assert answer == Granted("billing", 8, 1, 0.0, 12, True, 0.0, 1)


def test_a_request_that_comes_after_its_end_gets_no_vote() -> None:
    voter = election("b")
    ask = Ask("billing", FINGERPRINT, 7, 4, 11, 0.0, None)
    voter.handle(v.Received("a", ask), LATER_S)
    voter.handle(v.Received("a", Yield("billing", 7, 4, 11, "")), LATER_S)

    assert voter.handle(v.Received("a", ask), LATER_S) == []


def test_a_new_life_of_a_holder_waits_for_the_old_one() -> None:
    voter = election("b")
    ask = Ask("billing", FINGERPRINT, 7, 4, 11, 0.0, None)
    voter.handle(v.Received("a", ask), LATER_S)
    again = msgspec.structs.replace(ask, boot=8, attempt=1)

    refusal = frame_to(voter.handle(v.Received("a", again), 2 * LATER_S - 1.0), "a")

    assert refusal == Busy("billing", 8, 1, "a", 1.0, 11)


def test_other_terms_get_no_vote_and_are_told_of() -> None:
    voter = election("b")
    poll = Poll("billing", FINGERPRINT + 1, 7, 1)
    refusal = Refused("billing", 7, FINGERPRINT)
    assert voter.handle(v.Received("a", poll), LATER_S) == [v.Send("a", refusal)]

    made = election()
    made.handle(v.Stand(), 0.0)
    made.handle(v.Woke(), LATER_S)
    effects = made.handle(v.Received("b", refusal), LATER_S)
    assert effects == [v.TermsDiffer("b")]


def test_frames_of_another_lease_are_nothing_to_it() -> None:
    voter = election("b")

    poll = Poll("another", FINGERPRINT, 7, 1)
    assert voter.handle(v.Received("a", poll), LATER_S) == []


def test_who_has_no_vote_gives_none() -> None:
    outsider = election("x")

    poll = Poll("billing", FINGERPRINT, 7, 1)
    assert outsider.handle(v.Received("a", poll), LATER_S) == []


@pytest.mark.parametrize(
    "frame",
    [
        Poll("billing", 1, 2, 3),
        Free("billing", 1, 2, 3),
        Ask("billing", 1, 2, 3, 4, 5.5, GivenUp("a", 1, 2)),
        Granted("billing", 1, 2, 3.5, 4, True),
        Busy("billing", 1, 2, "a", 3.5, 4),
        Yield("billing", 1, 2, 3, "a"),
        Refused("billing", 1, 2),
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_a_frame_survives_the_wire(frame: v.Frame) -> None:
    assert v.decode(v.encode(frame)) == frame


@pytest.mark.parametrize(
    "frame",
    [
        Free("billing", 1, 2, 1 << 62),
        Free("x" * 129, 1, 2, 3),
        Granted("billing", 1, 2, float("inf"), 4, True),
        Granted("billing", 1, 2, float("nan"), 4, True),
        Poll("billing", -1, 2, 3),
    ],
)
def test_a_frame_that_would_do_harm_is_refused(frame: v.Frame) -> None:
    with pytest.raises(msgspec.DecodeError):
        v.decode(v.encode(frame))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"voters": ("a", "a")}, "voters=('a', 'a'): expected distinct names"),
        ({"voters": ()}, "voters=(): expected distinct names"),
        ({"lease_s": 0.0}, "lease_s=0.0: expected above 0, in seconds"),
        ({"stop_s": 2.5}, "stop_s=2.5: expected 0 to 2, in seconds"),
        ({"name": ""}, "name='': expected 1 to 128 characters"),
    ],
)
def test_terms_that_make_no_sense_are_refused(
    wrong: dict[str, object], message: str
) -> None:
    given = {"name": "billing", "voters": ("a", "b"), "lease_s": 6.0} | wrong

    said = re.escape(f"lease {given['name']!r}: {message}")
    with pytest.raises(ValueError, match=f"^{said}$"):
        v.Terms(**given)  # type: ignore[arg-type]


def test_terms_that_are_written_otherwise_are_the_same() -> None:
    one = v.Terms("billing", ("a", "b"), lease_s=5)
    other = v.Terms("billing", ("b", "a"), lease_s=5.0)
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != v.Terms("billing", ("a", "b"), lease_s=6).fingerprint
