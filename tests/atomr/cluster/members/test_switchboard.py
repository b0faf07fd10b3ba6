"""Frames find their links, links find the membership, and what is due is dialed."""

from __future__ import annotations

import random
from typing import Any, cast

import attrs
import pytest

from atomr import telemetry
from atomr.cluster import PeerDown, PeerEvent
from atomr.cluster.members.dial_plan import Target
from atomr.cluster.members.switchboard import MAX_SAID, Redialing, Switchboard
from atomr.crdt.origin import Origin
from atomr.errors import LinkBusyError, LinkDownError, LinkRefusedError
from atomr.gossip.membership import (
    Changed,
    Event,
    Frame,
    LinkReset,
    Member,
    Received,
    Status,
)
from atomr.gossip.membership.frames import Gossip, Ping, Table
from atomr.http2 import Lane, Link, LinkDown, Links, LinkUp, Reason

ALIVE, SUSPECT, DEAD, LEFT = Status

ME = Member(Origin("m", 1), "m:1", 0, ALIVE)
HELLO = Gossip(7, ME, ())


def member(
    name: str, status: Status = ALIVE, address: str = "", boot: int = 1
) -> Member:
    return Member(Origin(name, boot), address or f"{name}:1", 0, status)


@attrs.define
class Line:
    """A link that takes frames on the lanes that have room.

    Attributes:
        peer: the other end.
        room: lanes that take something.
        told: what they took.
        down: as a link's.
        ended: why it was ended.
    """

    peer: Origin
    room: tuple[Lane, ...] = tuple(Lane)
    told: list[tuple[Lane, object]] = attrs.field(factory=list)
    down: LinkDownError | None = None
    ended: str = ""

    def tell(self, service: str, message: object, *, lane: Lane) -> None:
        assert service == "members"
        if lane not in self.room:
            raise LinkBusyError(self.peer, queued_bytes=1, limit_bytes=1)
        self.told.append((lane, message))

    def end(self, reason: Reason, detail: str, *, fault: bool) -> None:
        assert fault
        self.ended = f"{reason}: {detail}"


class Board:
    """A switchboard of the node ``m``, with links that a test makes."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.lines: dict[str, Line] = {}
        self.heard: list[Event] = []
        self.woken = 0
        self.it = Switchboard(
            "m",
            now=lambda: self.now_s,
            draw=random.Random(0),
            redialing=Redialing(0.1, 5.0),
        )
        self.it.begin(ME.origin, cast(Links, self.lines))
        self.it.members = self.heard.append
        self.it.wake_dialer = self._wake
        self.table: dict[str, Member] = {"m": ME}
        self.it.peers.members = self.table

    def _wake(self) -> None:
        self.woken += 1

    def up(self, name: str, **changed: Any) -> Line:
        line = self.lines[name] = Line(Origin(name, 1), **changed)
        self.it.observe(LinkUp(cast(Link, line)))
        return line

    def ends(self, name: str, reason: Reason) -> None:
        line = self.lines.pop(name)
        line.down = LinkDownError(line.peer, reason, "")
        self.it.observe(LinkDown(cast(Link, line), line.down))

    def holds(self, now: Member) -> None:
        before = self.table.get(now.name)
        self.table[now.name] = now
        self.it.changed(Changed(before, now))

    def hears(self, line: Line, frame: Frame) -> None:
        tell = self.it.service().tell
        assert tell is not None
        tell(cast(Link, line), frame)

    def due(self) -> list[Target]:
        self.now_s += 1.0
        return self.it.plan.due(self.now_s)


def test_a_frame_goes_by_the_link_of_who_has_the_address() -> None:
    board = Board()
    board.holds(member("x"))
    line = board.up("x")
    board.it.send("x:1", HELLO)
    assert line.told == [(Lane.CTL, HELLO)]
    assert board.due() == []


def test_an_answer_goes_by_the_name_of_who_asked() -> None:
    board = Board()
    asks, other = board.up("x"), board.up("y")
    for name in "xy":
        board.holds(member(name, address="shared:1"))
    board.hears(asks, Gossip(7, member("x", address="shared:1"), ()))
    assert board.heard == [
        Received("@x", Gossip(7, member("x", address="shared:1"), ()))
    ]
    board.it.send("@x", HELLO)
    assert (asks.told, other.told) == ([(Lane.CTL, HELLO)], [])


def test_a_ping_goes_to_whom_it_names_whoever_else_has_the_address() -> None:
    board = Board()
    lines = board.up("x"), board.up("y")
    for name in "xy":
        board.holds(member(name, address="shared:1"))
    ping = Ping(7, ME, (), 3, "y")
    board.it.send("shared:1", ping)
    assert [line.told for line in lines] == [[], [(Lane.CTL, ping)]]


def test_what_is_for_nobody_that_is_linked_is_dialed_for_and_sent_when_it_is() -> None:
    board = Board()
    board.it.send("seed:1", HELLO)
    newest = Table(7, ME, (), wants=True)
    board.it.send("seed:1", newest)
    assert board.woken > 0
    seed = Target("seed:1", None)
    assert board.due() == [seed]
    line = board.up("x")
    board.it.dialed(seed, cast(Link, line))
    assert line.told == [(Lane.CTL, newest)]
    # Who was found there is remembered.
    board.it.send("seed:1", HELLO)
    assert line.told[1:] == [(Lane.CTL, HELLO)]
    assert board.due() == []


def test_what_waits_is_sent_on_a_link_that_the_other_side_opened() -> None:
    board = Board()
    board.holds(member("x"))
    board.it.send("x:1", HELLO)
    line = board.up("x")
    assert line.told == [(Lane.CTL, HELLO)]
    assert board.it._waiting == {}


@pytest.mark.parametrize("status", [DEAD, LEFT])
def test_what_waits_for_one_that_is_gone_is_dropped(status: Status) -> None:
    board = Board()
    board.holds(member("x"))
    board.it.send("x:1", HELLO)
    board.holds(member("x", status))
    assert board.it._waiting == {}
    assert board.up("x").told == []


def test_what_waits_is_dropped_when_the_dial_fails() -> None:
    board = Board()
    board.it.send("seed:1", HELLO)
    [seed] = board.due()
    board.it.failed(seed, LinkRefusedError("seed:1", Reason.UNREACHABLE, ""))
    assert board.it._waiting == {}


def test_nothing_is_sent_to_the_node_itself() -> None:
    board = Board()
    board.it.send("alias:1", HELLO)
    [alias] = board.due()
    board.it.failed(alias, LinkRefusedError("m", Reason.WRONG_NAME, ""))
    board.it.send("alias:1", HELLO)
    assert (board.it._waiting, board.due()) == ({}, [])


def test_what_ctl_has_no_room_for_goes_with_the_bulk_and_else_is_lost() -> None:
    board = Board()
    lost: list[object] = []
    line = board.up("x", room=(Lane.BULK,))
    telemetry.attach(
        "test lost",
        ("atomr", "member", "frame_lost"),
        lambda _, __, metadata: lost.append(metadata["frame"]),
    )
    try:
        board.it.send("@x", HELLO)
        assert (line.told, lost) == ([(Lane.BULK, HELLO)], [])
        line.room = ()
        board.it.send("@x", HELLO)
        board.it.send("@y", HELLO)
    finally:
        telemetry.detach("test lost")
    assert lost == [HELLO, HELLO]


def test_a_frame_of_another_life_or_node_ends_the_link_unheard() -> None:
    for said in (member("x", boot=2), member("y")):
        board = Board()
        line = board.up("x")
        board.hears(line, Gossip(7, said, ()))
        assert board.heard == []
        assert line.ended == f"malformed: it speaks as {said.origin}, and is x#1"


@pytest.mark.parametrize("reason", list(Reason))
def test_the_membership_hears_of_a_link_that_the_peers_system_closed(
    reason: Reason,
) -> None:
    board = Board()
    board.up("x")
    board.ends("x", reason)
    resets = reason in (Reason.PEER_CLOSED, Reason.GOODBYE)
    assert board.heard == ([LinkReset(Origin("x", 1))] if resets else [])


def test_two_that_leave_at_once_have_both_left() -> None:
    board, events = Board(), list[PeerEvent]()
    lines = {name: board.up(name) for name in "xy"}
    for name in "xy":
        board.holds(member(name))
    with board.it.peers.watch(events.append):
        for name, line in lines.items():
            board.hears(line, Gossip(7, member(name, LEFT), ()))
        for name in "xy":
            board.ends(name, Reason.GOODBYE)
    assert events[2:] == [
        PeerDown(Origin("x", 1), "left"),
        PeerDown(Origin("y", 1), "left"),
    ]
    assert board.it._leaving == set()


def test_a_member_that_has_a_link_already_is_not_dialed() -> None:
    board = Board()
    board.up("x")
    board.holds(member("x"))
    assert board.due() == []
    board.ends("x", Reason.PEER_CLOSED)
    assert board.due() == [Target("x:1", "x")]


def test_a_link_that_ended_is_dialed_again_as_long_as_the_member_is_held_live() -> None:
    board = Board()
    board.holds(member("x"))
    board.up("x")
    board.ends("x", Reason.NO_PONG)
    board.holds(member("x", SUSPECT))
    assert board.due() == [Target("x:1", "x")]
    board.it.failed(Target("x:1", "x"), LinkRefusedError("x", Reason.UNREACHABLE, ""))
    board.holds(member("x", DEAD))
    assert board.due() == []


def test_why_somebody_cannot_be_reached_is_said_once_until_it_is_reached(
    caplog: pytest.LogCaptureFixture,
) -> None:
    board, target = Board(), Target("x:1", "x")
    unreachable = LinkRefusedError("x", Reason.UNREACHABLE, "nobody")
    wrong = LinkRefusedError("x", Reason.WRONG_COOKIE, "no")
    for error in (unreachable, unreachable, wrong, unreachable, wrong):
        board.it.failed(target, error)
    assert len(caplog.records) == 2
    board.it.dialed(target, cast(Link, board.up("x")))
    board.it.failed(target, unreachable)
    assert len(caplog.records) == 3


def test_what_was_said_is_bounded() -> None:
    board = Board()
    for number in range(MAX_SAID + 5):
        board.it.failed(Target(f"n{number}:1", None), ValueError("no address"))
    assert len(board.it._said) == 5


def test_nothing_comes_to_the_membership_between_two_lives() -> None:
    board = Board()
    line = board.up("x")
    board.it.end()
    board.hears(line, Gossip(7, member("x"), ()))
    board.ends("x", Reason.PEER_CLOSED)
    assert board.heard == []
