"""One membership that hears anything, in any order, at any time.

The peers of this test say what they like: of lives that never were, of
incarnations that nobody reached, that the node itself is dead.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from atomr.crdt.origin import Origin
from atomr.gossip import membership as m
from atomr.gossip.membership.frames import (
    Ack,
    Digest,
    Gossip,
    Nack,
    Ping,
    PingRequest,
    Table,
    decode,
    encode,
)
from atomr.gossip.membership.member import precedence
from tests.at_length import times
from tests.atomr.gossip.membership.alone import (
    ALIVE,
    CLUSTER,
    LEFT,
    SUSPECT,
    Alone,
    member,
)

NAMES = ["a", "b", "c", "d"]
names = st.sampled_from(NAMES)
peers = st.sampled_from(NAMES[1:])
boots = st.integers(4, 6)
incarnations = st.integers(0, 5)
# Without "a" of a later life, which ends the test's interest in it.
records = st.builds(
    member,
    peers,
    boots,
    incarnations,
    st.sampled_from(m.Status),
    accusers=st.sampled_from([(), ("b",), ("c", "d")]),
)
rumours = st.builds(
    member, st.just("a"), st.integers(4, 5), incarnations, st.sampled_from(m.Status)
)
updates = st.lists(records | rumours, max_size=4).map(tuple)
speakers = st.builds(
    member, peers, boots, incarnations, st.sampled_from([ALIVE, ALIVE, ALIVE, LEFT])
)
numbers = st.integers(0, 6)
origins = st.builds(Origin, names, boots)


class Hears(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ranks: dict[str, tuple[int, int, int]] = {}
        self.shown: dict[str, m.Member] = {}
        self.worst_said = -1

    @initialize(seed=st.integers(0, 9))
    def begin(self, seed: int) -> None:
        self.alone = Alone(seeds=("b:1", "z:1"), seed=seed)
        self.shown["a"] = self.alone.membership.me
        self.check(self.alone.said)

    def takes(self, frame: m.Frame) -> None:
        for said in frame.updates if self.may_speak(frame.me) else ():
            if said.name == "a" and said.origin.boot == 5:
                # To be said alive with its own incarnation is no reproach.
                outbid = said.incarnation - (said.status is ALIVE)
                self.worst_said = max(self.worst_said, outbid)
        self.check(self.alone.takes(decode(encode(frame))))

    def may_speak(self, me: m.Member) -> bool:
        known = self.alone.membership.members.get(me.name)
        if known is None or me.status is LEFT:
            return True
        has_left = known.status is LEFT and known.origin == me.origin
        return known.origin.boot <= me.origin.boot and not has_left

    @rule(me=speakers, told=updates)
    def gossip(self, me: m.Member, told: tuple[m.Member, ...]) -> None:
        self.takes(Gossip(CLUSTER, me, told))

    @rule(me=speakers, told=updates, wants=st.booleans())
    def table(self, me: m.Member, told: tuple[m.Member, ...], wants: bool) -> None:
        self.takes(Table(CLUSTER, me, told, wants))

    @rule(me=speakers, told=updates, number=numbers, whom=names)
    def ping(
        self, me: m.Member, told: tuple[m.Member, ...], number: int, whom: str
    ) -> None:
        self.takes(Ping(CLUSTER, me, told, number, whom))

    @rule(me=speakers, number=numbers, whom=origins)
    def ack(self, me: m.Member, number: int, whom: Origin) -> None:
        self.takes(Ack(CLUSTER, me, (), number, whom))

    @rule(me=speakers, number=numbers, whom=origins)
    def request(self, me: m.Member, number: int, whom: Origin) -> None:
        self.takes(PingRequest(CLUSTER, me, (), number, whom))

    @rule(me=speakers, number=numbers)
    def nack(self, me: m.Member, number: int) -> None:
        self.takes(Nack(CLUSTER, me, (), number))

    @rule(me=speakers, digest=st.integers(0, 9))
    def digest(self, me: m.Member, digest: int) -> None:
        self.takes(Digest(CLUSTER, me, (), digest))

    @rule(me=speakers, told=updates)
    def foreigner(self, me: m.Member, told: tuple[m.Member, ...]) -> None:
        before = dict(self.alone.membership.members)
        self.check(self.alone.takes(Table(CLUSTER + 1, me, told, True)))
        assert self.alone.membership.members == before

    @rule(peer=origins)
    def reset(self, peer: Origin) -> None:
        self.check(self.alone.does(m.LinkReset(peer)))

    @rule(for_s=st.sampled_from([0.0, 0.05, 0.7, 3.0]))
    def wait(self, for_s: float) -> None:
        self.check(self.alone.waits(for_s))

    @rule(for_s=st.sampled_from([0.05, 0.3, 30.0]))
    def stall(self, for_s: float) -> None:
        """Nothing runs for a while; nobody dies of it."""
        suspects = self.held(SUSPECT)
        alive = self.held(ALIVE)
        self.alone.now_s += for_s
        self.check(self.alone.does(m.Woke()))
        if for_s > 0.1:
            assert self.held(SUSPECT) >= suspects
            assert self.held(ALIVE) == alive

    @rule()
    def long_silence(self) -> None:
        self.check(self.alone.waits(150.0))
        assert self.held(ALIVE) | self.held(SUSPECT) == {"a"}

    @precondition(lambda self: self.alone.membership.me.status is ALIVE)
    @rule(meta=st.integers(0, 3))
    def news(self, meta: int) -> None:
        before = self.alone.membership.me.incarnation
        self.check(self.alone.does(m.MetaChanged(meta)))
        assert self.alone.membership.me.incarnation == before + 1

    def held(self, status: m.Status) -> set[str]:
        members = self.alone.membership.members.values()
        return {x.name for x in members if x.status is status}

    def check(self, effects: list[m.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, m.Send):
                assert decode(encode(effect.message)) == effect.message
                assert effect.message.me.name == "a"
            elif isinstance(effect, m.Changed):
                before = self.shown.get(effect.after.name)
                if before is None and effect.before is not None:
                    # Within one frame: what was never live is no news.
                    assert not effect.before.status.is_live
                if before is not None and effect.before is not None:
                    assert effect.before.origin == before.origin
                    assert effect.before.status == before.status
                self.shown[effect.after.name] = effect.after
        for name, known in self.alone.membership.members.items():
            self.shown.setdefault(name, known)

    @invariant()
    def it_holds_itself_alive_and_outbids_all_that_was_said(self) -> None:
        me = self.alone.membership.me
        assert me.status is ALIVE
        assert me.incarnation > self.worst_said

    @invariant()
    def beliefs_only_go_up(self) -> None:
        for name, known in self.alone.membership.members.items():
            rank = precedence(known)
            assert rank >= self.ranks.get(name, rank)
            self.ranks[name] = rank

    @invariant()
    def exactly_the_suspects_have_their_time(self) -> None:
        membership = self.alone.membership
        assert set(membership._beliefs._suspicions) == self.held(SUSPECT)
        live = (self.held(ALIVE) | self.held(SUSPECT)) - {"a"}
        assert set(membership._roster.live) == live
        assert len(membership._roster.live) == len(live)

    @invariant()
    def it_wants_to_be_woken(self) -> None:
        assert self.alone.membership.next_deadline_s is not None
        assert self.alone.membership.next_deadline_s < self.alone.now_s + 100.0


TestHears = Hears.TestCase
TestHears.settings = settings(max_examples=15, stateful_step_count=30)


class HearsMuch(Hears):
    """The same, for longer."""


TestHearsMuch = pytest.mark.slow(HearsMuch.TestCase)
TestHearsMuch.settings = settings(max_examples=times(100), stateful_step_count=30)
