"""What the pure parts of a link decide, without a socket and a clock."""

from __future__ import annotations

import math
from heapq import heappop, heappush
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr.http2 import Lane, Reason, frames, node_uri
from atomr.http2.events import Event, PeerLeft, Ponged, StreamData, StreamOpened
from atomr.http2.framing import frame_of
from atomr.http2.guard import Kind
from atomr.http2.heartbeat import Beat, Heartbeat
from atomr.http2.identity import Seal, check_name, node_uris
from atomr.http2.outlets import LIMITS, QUEUE_BYTES
from atomr.http2.problems import LaneFullError, NoStreamError, PeerError
from atomr.http2.protocol import LinkProtocol
from atomr.http2.setup import (
    CONNECTION_WINDOW_BYTES,
    LANE_WINDOW_BYTES,
    MAX_STREAMS,
    STREAM_WINDOW_BYTES,
)
from atomr.http2.windows import InWindow, OutWindow, WindowError


class Pair:
    """Two protocols, whose bytes go from one to the other."""

    def __init__(self) -> None:
        self.a = LinkProtocol(dialed=True, now_s=0.0)
        self.b = LinkProtocol(dialed=False, now_s=0.0)
        self.heard: list[Event] = []
        self.move()

    def move(self) -> None:
        """Move bytes until neither has more to say."""
        moved = True
        while moved:
            moved = False
            for one, other in ((self.a, self.b), (self.b, self.a)):
                data = one.data_to_send(65_536)
                if data:
                    moved = True
                    events = other.receive(data, now_s=0.0)
                    if other is self.b:
                        self.heard.extend(events)


def big(size: int) -> frames.Tell:
    return frames.Tell("s", frames.raw("x" * size))


def test_messages_of_each_lane_arrive_in_its_order() -> None:
    pair = Pair()
    for number in range(3):
        for lane in Lane:
            pair.a.outlets.put(lane, frames.Cancel(10 * lane + number))
    pair.move()
    ids = [event.id for event in pair.heard if isinstance(event, frames.Cancel)]
    assert ids == [10, 11, 12, 30, 31, 32, 50, 51, 52]


def test_ctl_overtakes_bulk_that_waits() -> None:
    pair = Pair()
    for _ in range(4):
        pair.a.outlets.put(Lane.BULK, big(300_000))
    first = pair.a.data_to_send(65_536)
    pair.a.outlets.put(Lane.CTL, frames.Probe(1))
    second = pair.a.data_to_send(65_536)
    assert not any(
        isinstance(event, frames.Probe) for event in pair.b.receive(first, now_s=0.0)
    )
    assert frames.Probe(1) in pair.b.receive(second[:100], now_s=0.0)


def test_bulk_leaves_ctl_some_of_the_window() -> None:
    # A peer that opens no window any more: all that bulk may use is used.
    pair = Pair()
    outlets = [pair.a.open() for _ in range(MAX_STREAMS)]
    for outlet in outlets:
        outlet.buffer += bytes(STREAM_WINDOW_BYTES)
    sent = 0
    while data := pair.a.data_to_send(65_536):
        sent += len(data)
    assert sent < CONNECTION_WINDOW_BYTES
    pair.a.outlets.put(Lane.CTL, frames.Probe(1))
    assert pair.a.data_to_send(65_536) != b""


def test_one_stream_after_the_other_has_its_turn() -> None:
    pair = Pair()
    for _ in range(3):
        pair.a.open().buffer += bytes(40_000)
    order = []
    while data := pair.a.data_to_send(16_384):
        events = pair.b.receive(data, now_s=0.0)
        order += [e.stream_id for e in events if isinstance(e, StreamData)]
    assert sorted(order[:3]) == [7, 9, 11]
    assert sorted(order) == sorted([7, 9, 11] * 3)


def test_a_lane_takes_its_limit_and_all_lanes_twice_theirs() -> None:
    protocol = LinkProtocol(dialed=True, now_s=0.0)
    with pytest.raises(LaneFullError) as caught:
        while True:
            protocol.outlets.offer(Lane.CTL, big(10_000))
    assert caught.value.limit_bytes == LIMITS[Lane.CTL]
    with pytest.raises(LaneFullError) as caught:
        while True:
            protocol.outlets.put(Lane.MSG, big(100_000))
    assert 2 * QUEUE_BYTES < caught.value.queued_bytes < 2 * QUEUE_BYTES + 110_000


def test_a_stream_sends_its_window_and_then_what_is_read_of_it() -> None:
    pair = Pair()
    outlet = pair.a.open()
    outlet.buffer += bytes(3 * STREAM_WINDOW_BYTES)
    pair.move()
    assert len(outlet.buffer) == 2 * STREAM_WINDOW_BYTES
    pair.b.consumed(outlet.stream_id, STREAM_WINDOW_BYTES // 2)
    pair.move()
    assert len(outlet.buffer) == 2 * STREAM_WINDOW_BYTES  # half is not more than half
    pair.b.consumed(outlet.stream_id, 1)
    pair.move()
    assert len(outlet.buffer) == 3 * STREAM_WINDOW_BYTES // 2 - 1


def test_a_lane_is_never_short_of_window() -> None:
    pair = Pair()
    for _ in range(40):
        pair.a.outlets.put(Lane.MSG, big(200_000))
        pair.move()
    tells = [event for event in pair.heard if isinstance(event, frames.Tell)]
    assert len(tells) == 40
    assert pair.a.outlets.queued_bytes == 0


@pytest.mark.parametrize("stream_id", [Lane.MSG, 7])
def test_a_peer_that_overruns_its_window_is_refused(stream_id: int) -> None:
    pair = Pair()
    pair.a.open()
    pair.move()
    piece = frame_of(Kind.DATA, stream_id=stream_id, payload=bytes(16_384))
    window = (
        LANE_WINDOW_BYTES[Lane.MSG] if stream_id == Lane.MSG else (STREAM_WINDOW_BYTES)
    )
    if stream_id == Lane.MSG:
        # Zeros are empty messages: these would be refused as such.
        with pytest.raises(PeerError, match="malformed"):
            pair.b.receive(piece, now_s=0.0)
        return
    for _ in range(window // 16_384):
        pair.b.receive(piece, now_s=0.0)
    with pytest.raises(PeerError, match="more than its window"):
        pair.b.receive(piece, now_s=0.0)


def test_data_for_a_stream_that_was_left_is_dropped_and_the_link_goes_on() -> None:
    pair = Pair()
    outlet = pair.a.open()
    pair.move()
    assert pair.heard == [StreamOpened(7)]
    pair.b.reset(7)
    outlet.buffer += b"too late"
    late = pair.a.data_to_send(65_536)
    pair.b.receive(late, now_s=0.0)
    pair.move()
    pair.a.outlets.put(Lane.MSG, frames.Cancel(1))
    pair.move()
    assert pair.heard[-1] == frames.Cancel(1)


def test_only_the_side_that_dialed_opens_streams_and_not_more_than_it_may() -> None:
    pair = Pair()
    for _ in range(MAX_STREAMS):
        pair.a.open()
    with pytest.raises(NoStreamError):
        pair.a.open()
    pair.move()
    pair.a.reset(7)
    pair.move()
    assert pair.a.open().stream_id == 7 + 2 * MAX_STREAMS


def test_a_ping_comes_back_and_a_farewell_is_heard() -> None:
    pair = Pair()
    pair.b.ping(42)
    pair.a.receive(pair.b.data_to_send(65_536), now_s=0.0)
    assert pair.b.receive(pair.a.data_to_send(65_536), now_s=0.0) == [Ponged(42)]
    pair.a.leave(said="wrong_cookie", fault=True)
    data = pair.a.data_to_send(65_536)
    assert pair.b.receive(data, now_s=0.0) == [PeerLeft(1, "wrong_cookie")]


@settings(max_examples=20)
@given(st.data())
def test_a_connection_may_come_in_any_pieces(data: st.DataObject) -> None:
    a = LinkProtocol(dialed=True, now_s=0.0)
    b = LinkProtocol(dialed=False, now_s=0.0)
    for number in range(20):
        a.outlets.put(Lane.MSG, frames.Cancel(number))
    whole = a.data_to_send(65_536)
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=10))
    edges = [0, *sorted(cuts), len(whole)]
    got: list[Event] = []
    for start, end in pairwise(edges):
        got += b.receive(whole[start:end], now_s=0.0)
    assert got == [frames.Cancel(number) for number in range(20)]


@settings(max_examples=30)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_beginning_or_an_error(data: bytes) -> None:
    for dialed in (True, False):
        protocol = LinkProtocol(dialed=dialed, now_s=0.0)
        said = ""
        try:
            protocol.receive(data, now_s=0.0)
        except PeerError as error:
            said = str(error)
        assert not data or repr(data[:8])[2:-1] not in said or len(data) < 8


def test_windows_keep_their_sums() -> None:
    window = InWindow(100)
    with pytest.raises(WindowError):
        window.take(101)
    out = OutWindow(2**31 - 2)
    out.widen(1)
    with pytest.raises(WindowError):
        out.widen(1)


# --- heartbeats -------------------------------------------------------------------


def test_a_peer_that_answers_both_is_there() -> None:
    beats = Heartbeat(interval_s=1.0, timeout_s=5.0, now_s=0.0)
    assert beats.step(0.5) is None
    for second in range(1, 100):
        assert beats.step(float(second)) == Beat(second, seen=second - 1)
        beats.ponged(second + 0.1)
        beats.probed(second, second + 0.25)
        assert beats.round_trip_s == 0.25


@pytest.mark.parametrize(
    ("answered", "reason"),
    [("ping", Reason.STALLED), ("probe", Reason.NO_PONG), ("", Reason.NO_PONG)],
)
def test_a_peer_that_answers_one_of_them_is_down(answered: str, reason: Reason) -> None:
    beats = Heartbeat(interval_s=1.0, timeout_s=3.0, now_s=0.0)
    found = []
    for second in range(1, 5):
        found.append(beats.step(float(second)))
        if answered == "ping":
            beats.ponged(second + 0.1)
        if answered == "probe":
            beats.probed(second, second + 0.1)
    assert found[:2] == [Beat(1), Beat(2, seen=answered == "probe")]
    assert reason in found


def test_a_node_that_stood_still_itself_accuses_nobody() -> None:
    beats = Heartbeat(interval_s=1.0, timeout_s=3.0, now_s=0.0)
    assert beats.step(1.0) == Beat(1)
    beats.ponged(1.5)
    beats.probed(1, 1.5)
    # It was stopped for a minute: the answers are there, and not read yet.
    assert beats.step(61.0) == Beat(2, seen=1)
    assert beats.step(62.0) == Beat(3, seen=1)
    assert beats.step(63.0) == Beat(4, seen=1)
    # By now the peer has had its time.
    assert beats.step(64.0) == Reason.NO_PONG


def test_there_are_two_beats_within_a_short_timeout() -> None:
    beats = Heartbeat(interval_s=10.0, timeout_s=1.0, now_s=0.0)
    assert beats.due_at == 0.5
    assert beats.step(0.5) == Beat(1)


def test_a_silent_peer_is_down_when_its_time_is_over_and_not_a_beat_later() -> None:
    beats = Heartbeat(interval_s=1.0, timeout_s=2.6, now_s=0.0)
    assert [beats.step(1.0), beats.step(2.0)] == [Beat(1), Beat(2)]
    assert beats.due_at == 2.6
    assert beats.step(2.6) == Reason.NO_PONG


class Ends:
    """Both ends of a link, whose words take a while.

    Attributes:
        sent: how many beats, by who sent them.
    """

    def __init__(self, *, began_at: tuple[float, float], takes_s: float) -> None:
        dialed = {"a": True, "b": False}
        self.ends = {
            name: Heartbeat(
                interval_s=1.0, timeout_s=5.0, now_s=at_s, dialed=dialed[name]
            )
            for name, at_s in zip("ab", began_at, strict=True)
        }
        self.takes_s = takes_s
        self.sent = {"a": 0, "b": 0}
        self.deaf: set[str] = set()
        self.down: dict[str, tuple[float, Reason]] = {}
        self._coming: list[tuple[float, int, str, object]] = []
        self._number = 0
        self.now_s = max(began_at)

    def run(self, until_s: float) -> None:
        while True:
            up = {n: end for n, end in self.ends.items() if n not in self.down}
            due = [(end.due_at, name) for name, end in up.items()]
            ats = [at_s for at_s, _ in due] + [row[0] for row in self._coming]
            at_s = min(ats, default=math.inf)
            if at_s > until_s:
                return
            self.now_s = max(self.now_s, at_s)
            if self._coming and self._coming[0][0] <= at_s:
                _, _, name, what = heappop(self._coming)
                if name not in self.down:
                    self._hear(name, what)
                continue
            name = min(due)[1]
            match self.ends[name].step(self.now_s):
                case Beat() as beat:
                    self.sent[name] += 1
                    took_s = self.ends[name].round_trip_s or 0.0
                    self._say(name, (beat.number, beat.seen, took_s))
                case Reason() as reason:
                    self.down[name] = (self.now_s, reason)

    def _say(self, name: str, what: object) -> None:
        self._number += 1
        other = "b" if name == "a" else "a"
        if other not in self.deaf:
            row = (self.now_s + self.takes_s, self._number, other, what)
            heappush(self._coming, row)

    def _hear(self, name: str, what: object) -> None:
        end = self.ends[name]
        match what:
            case (int(number), int(seen), float(took_s)):
                end.asked(number, self.now_s, seen=seen, round_trip_s=took_s)
                self._say(name, number)
            case int(number):
                end.ponged(self.now_s)
                end.probed(number, self.now_s)


@pytest.mark.parametrize("began_at", [(0.0, 0.0), (0.3, 0.0), (0.0, 0.9)])
def test_of_two_ends_one_asks_for_both(began_at: tuple[float, float]) -> None:
    pair = Ends(began_at=began_at, takes_s=0.01)
    pair.run(10.0)
    before = dict(pair.sent)
    pair.run(110.0)
    asked = {name: pair.sent[name] - before[name] for name in "ab"}
    assert sorted(asked.values()) == [0, 100]
    assert pair.down == {}
    for end in pair.ends.values():
        assert end.round_trip_s == pytest.approx(0.02)


@pytest.mark.parametrize("deaf", ["a", "b", "ab"])
def test_whichever_end_hears_nothing_both_know_within_the_timeout(deaf: str) -> None:
    # Also the end that does not ask: that its answers are not seen, it is told.
    pair = Ends(began_at=(0.0, 0.5), takes_s=0.01)
    pair.run(20.5)
    pair.deaf = set(deaf)
    pair.run(40.0)
    first_s = min(at_s for at_s, _ in pair.down.values())
    assert first_s - 20.5 <= 5.0
    assert {reason for _, reason in pair.down.values()} == {Reason.NO_PONG}
    assert set(deaf) <= set(pair.down)


def test_both_ask_where_answers_take_longer_than_an_interval() -> None:
    pair = Ends(began_at=(0.0, 0.5), takes_s=0.8)
    pair.run(60.0)
    assert pair.down == {}
    assert min(pair.sent.values()) > 20


# --- identity ---------------------------------------------------------------------


def test_a_name_has_to_fit_into_a_certificate() -> None:
    assert node_uri("prod", "ams-1.a_b@c") == "node:prod/ams-1.a_b@c"
    for bad in ("", "a/b", "-a", "a b", "ä", "a" * 129, "a\n"):
        with pytest.raises(ValueError, match="expected up to 128"):
            check_name("node", bad)


def test_only_uris_of_nodes_are_names_of_nodes() -> None:
    names = (("DNS", "node:prod/a"), ("URI", "https://a"), ("URI", "node:prod/b"))
    assert node_uris({"subjectAltName": names}) == ("node:prod/b",)
    assert node_uris({}) == ()


def test_a_proof_is_for_one_peer_one_direction_and_one_life() -> None:
    ours, theirs = b"our certificate", b"their certificate"
    cookie = b"c" * 16
    said = {"dialed": True, "cluster": "prod", "node": "a", "boot": 1}
    proof = Seal(cookie, ours, theirs).make(**said)  # type: ignore[arg-type]
    other_side = Seal(cookie, theirs, ours)
    assert other_side.holds(proof, **said)  # type: ignore[arg-type]
    for change in ({"dialed": False}, {"cluster": "x"}, {"node": "b"}, {"boot": 2}):
        assert not other_side.holds(proof, **{**said, **change})  # type: ignore[arg-type]
    for seal in (
        Seal(b"d" * 16, theirs, ours),
        Seal(cookie, ours, theirs),
        Seal(cookie, theirs, b"another certificate"),
        Seal(cookie, b"another certificate", ours),
    ):
        assert not seal.holds(proof, **said)  # type: ignore[arg-type]
