"""What the simulated world does to its nodes: each fault is what it says."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

import attrs
import pytest

from atomr.testing.simulation import (
    Boot,
    Clock,
    Codec,
    Crash,
    Cut,
    Degrade,
    Disk,
    Drift,
    Event,
    LinkReset,
    Mend,
    Mix,
    Pause,
    Planned,
    Quality,
    Received,
    Restart,
    Sent,
    Simulation,
    SimulationError,
    Woke,
    draw_faults,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


class Log:
    """A node that keeps what happens to it, and sends what it is told to."""

    def __init__(self, boot: Boot, wakes: Iterable[float] = ()) -> None:
        self.boot = boot
        self.seen: list[tuple[float, Event]] = []
        self.wakes = list(wakes)
        self.began_s = 0.0

    @property
    def next_deadline_s(self) -> float | None:
        return self.began_s + self.wakes[0] if self.wakes else None

    def start(self, now_s: float) -> Iterable[object]:
        self.began_s = now_s
        return ()

    def handle(self, event: Event, now_s: float) -> Iterable[object]:
        if isinstance(event, Woke):
            self.wakes.pop(0)
        self.seen.append((now_s - self.began_s, event))
        return ()

    def send(self, to: str, message: object, now_s: float) -> Iterable[object]:
        return [Sent(to, message)]

    @property
    def messages(self) -> list[object]:
        return [x.message for _, x in self.seen if isinstance(x, Received)]


def world(*names: str, seed: int = 0, codec: Codec | None = None) -> Simulation:
    simulation = Simulation(seed, codec=codec)
    for name in names:
        simulation.add_node(name, Log, clock=Clock())
    simulation.start()
    return simulation


def send(simulation: Simulation, sender: str, to: str, message: object) -> None:
    simulation.do(sender, lambda node, now_s: node.send(to, message, now_s))


def send_many(simulation: Simulation, number: int = 1000) -> list[object]:
    for message in range(number):
        send(simulation, "a", "b", message)
    simulation.run(60.0)
    messages: list[object] = simulation.node("b").messages
    return messages


# --- links --------------------------------------------------------------------------


def test_a_message_arrives_once_between_half_a_millisecond_and_two() -> None:
    simulation = world("a", "b")
    send(simulation, "a", "b", "hello")
    simulation.run(1.0)

    [(at_s, event)] = simulation.node("b").seen
    assert event == Received("a", "hello")
    assert 0.0005 <= at_s <= 0.002


def test_losses_and_duplicates_are_as_frequent_as_they_are_said_to_be() -> None:
    simulation = world("a", "b")
    simulation.set_quality(Quality(loss=0.3, duplicate=0.2))

    messages = send_many(simulation)

    assert 650 <= len(set(messages)) <= 750
    assert 100 <= len(messages) - len(set(messages)) <= 180


def test_messages_overtake_each_other_unless_the_link_keeps_their_order() -> None:
    mixed = send_many(world("a", "b"))
    ordered = world("a", "b")
    ordered.set_quality(Quality(reorder=0.5, reorder_s=2.0, in_order=True))

    assert sorted(mixed, key=str) == sorted(range(1000), key=str)
    assert mixed != list(range(1000))
    assert send_many(ordered) == list(range(1000))


def test_a_slow_link_is_slow_in_one_direction() -> None:
    simulation = world("a", "b")
    simulation.set_quality(Quality(delay_s=3.0), sender="a", to="b")
    send(simulation, "a", "b", 1)
    send(simulation, "b", "a", 2)
    simulation.run(1.0)

    assert (simulation.node("b").messages, simulation.node("a").messages) == ([], [2])
    simulation.run(3.0)
    assert simulation.node("b").messages == [1]


def test_a_cut_lets_pass_what_was_on_its_way_and_nothing_after_it() -> None:
    simulation = world("a", "b", "c")
    send(simulation, "a", "b", "before")
    simulation.cut(["a"], ["b", "c"])
    send(simulation, "a", "b", "after")
    send(simulation, "b", "a", "back")
    send(simulation, "b", "c", "beside")
    simulation.run(1.0)
    simulation.mend()
    send(simulation, "a", "b", "mended")
    simulation.run(1.0)

    got = {name: simulation.node(name).messages for name in "abc"}
    assert got == {"a": [], "b": ["before", "mended"], "c": ["beside"]}


def test_a_cut_may_be_of_one_direction() -> None:
    simulation = world("a", "b")
    simulation.cut(["a"], ["b"], both_ways=False)
    send(simulation, "a", "b", 1)
    send(simulation, "b", "a", 2)
    simulation.run(1.0)

    assert (simulation.node("a").messages, simulation.node("b").messages) == ([2], [])


def test_a_message_to_nobody_is_lost() -> None:
    simulation = world("a")
    send(simulation, "a", "nobody", 1)
    simulation.run(1.0)

    assert simulation.host("a").sent == 1


def test_with_a_codec_no_object_is_shared_and_sizes_are_counted() -> None:
    codec = Codec(bytes, lambda content: [*content])
    simulation = world("a", "b", codec=codec)
    message = [1, 2, 3]
    send(simulation, "a", "b", message)
    message.append(4)
    simulation.run(1.0)

    assert simulation.node("b").messages == [[1, 2, 3]]
    assert simulation.host("a").sent_bytes == 3


def test_any_effect_with_to_and_message_is_sent_and_others_are_facts() -> None:
    @attrs.frozen
    class Letter:
        to: str
        message: str

    simulation = world("a", "b")
    facts: list[tuple[str, object]] = []
    simulation.observe(lambda name, fact: facts.append((name, fact)))

    simulation.do("a", lambda node, now_s: [Letter("b", "x"), "a fact"])
    simulation.run(1.0)

    assert simulation.node("b").messages == ["x"]
    assert facts == [("a", "a fact")]


# --- machines -----------------------------------------------------------------------


def test_a_crash_is_told_to_the_peers_whose_links_hold_and_a_power_loss_to_none() -> (
    None
):
    simulation = world("a", "b", "c", "d")
    boots = {name: simulation.node(name).boot.boot for name in "ad"}
    simulation.cut(["a"], ["c"])
    simulation.crash("a")
    simulation.crash("d", resets=False)
    simulation.run(1.0)

    seen = {name: [x for _, x in simulation.node(name).seen] for name in "bc"}
    assert seen == {"b": [LinkReset("a", boots["a"])], "c": []}
    assert simulation.up == ("b", "c")


def test_a_new_life_has_a_greater_boot_id_and_finds_the_disk() -> None:
    simulation = world("a")
    first = simulation.node("a").boot
    first.disk.append(b"kept")
    first.disk.sync()
    simulation.restart("a")
    second = simulation.node("a").boot
    simulation.restart("a", lose_disk=True)
    third = simulation.node("a").boot

    assert first.boot < second.boot < third.boot
    assert [second.disk.records, third.disk.records] == [[b"kept"], []]
    assert first.random.random() != second.random.random()


def test_a_crash_keeps_a_prefix_of_what_was_not_synced() -> None:
    kept = set()
    for seed in range(40):
        disk = Disk()
        for record in (b"1", b"2"):
            disk.append(record)
        disk.sync()
        for record in (b"3", b"4"):
            disk.append(record)
        disk.crash(random.Random(seed))
        kept.add(b"".join(disk.records))

    assert kept == {b"12", b"123", b"1234"}


def test_a_disk_is_rewritten_at_once() -> None:
    disk = Disk()
    disk.append(b"1")
    disk.rewrite([b"2", b"3"])
    disk.crash(random.Random(0))

    assert disk.records == [b"2", b"3"]


def test_what_comes_to_a_paused_node_waits_for_it_with_its_timers() -> None:
    simulation = Simulation(0)
    simulation.add_node("a", partial(Log, wakes=(0.5,)), clock=Clock())
    simulation.add_node("b", Log, clock=Clock())
    simulation.start()
    simulation.pause("a", 3.0)
    send(simulation, "b", "a", 1)
    assert simulation.do("a", lambda node, now_s: node.send("b", "late", now_s))
    simulation.run(2.9)
    assert simulation.node("a").seen == []
    simulation.run(1.0)

    seen = simulation.node("a").seen
    assert [at_s for at_s, _ in seen] == [3.0, 3.0]
    assert {type(event) for _, event in seen} == {Received, Woke}
    assert simulation.node("b").messages == ["late"]


def test_a_pause_ends_with_the_life_that_was_paused() -> None:
    simulation = world("a", "b")
    simulation.pause("a", 5.0)
    simulation.run(1.0)
    simulation.restart("a")
    send(simulation, "b", "a", 1)
    simulation.run(1.0)

    assert simulation.node("a").messages == [1]


def test_healing_ends_cuts_pauses_and_bad_links() -> None:
    simulation = world("a", "b")
    simulation.set_quality(Quality(loss=1.0))
    simulation.cut(["a"], ["b"])
    simulation.pause("b", 100.0)
    simulation.heal()
    send(simulation, "a", "b", 1)
    simulation.run(1.0)

    assert simulation.node("b").messages == [1]


def test_a_node_that_is_down_does_nothing() -> None:
    simulation = world("a")
    simulation.crash("a")

    assert simulation.do("a", lambda node, now_s: ["never"]) is False
    with pytest.raises(SimulationError, match=r"^node\('a'\): it is down$"):
        simulation.node("a")


# --- time ---------------------------------------------------------------------------


def test_a_node_is_woken_at_its_own_time() -> None:
    simulation = Simulation(0)
    wakes = (0.25, 0.25, 7.0)
    simulation.add_node("fast", partial(Log, wakes=wakes), clock=Clock(rate=2.0))
    simulation.start()
    simulation.run(3.4)

    seen = [at_s for at_s, _ in simulation.node("fast").seen]
    assert seen == pytest.approx([0.25, 0.25])
    simulation.run(0.2)
    assert simulation.node("fast").seen[-1][0] == pytest.approx(7.0)


@pytest.mark.parametrize("rate", [0.95, 1.0, 1.0 + 1e-9, 1.05])
def test_rounding_never_shows_a_node_a_time_before_its_deadline(rate: float) -> None:
    simulation = Simulation(0)
    wakes = [number * 0.1 for number in range(1, 400)]
    clock = Clock(offset_s=93_417.3, rate=rate)
    simulation.add_node("a", partial(Log, wakes=wakes), clock=clock)
    simulation.start()
    simulation.run(60.0)

    node = simulation.node("a")
    late = [
        node.began_s + at_s - (node.began_s + due_s)
        for (at_s, _), due_s in zip(node.seen, wakes, strict=True)
    ]
    assert min(late) >= 0.0
    assert max(late) < 1e-6


def test_a_clock_that_drifts_goes_on_from_where_it_was() -> None:
    clock = Clock(offset_s=100.0, wall_error_s=2.0)
    assert clock.read_s(10.0) == 110.0
    clock.drift(10.0, 0.5)

    assert [clock.read_s(10.0), clock.read_s(20.0)] == [110.0, 115.0]
    assert clock.true_s(115.0) == 20.0
    assert clock.wall_s(115.0) - clock.wall_s(110.0) == 5.0
    with pytest.raises(ValueError, match=r"^rate=0: "):
        clock.drift(20.0, 0)


def test_a_node_that_wants_to_be_woken_for_ever_is_found_out() -> None:
    class Restless(Log):
        def handle(self, event: Event, now_s: float) -> Iterable[object]:
            return ()

    simulation = Simulation(0)
    simulation.add_node("a", partial(Restless, wakes=(0.5,)))
    simulation.start()

    with pytest.raises(SimulationError, match=r"^a: woken 1000 times at 0\.500000 s"):
        simulation.run(1.0)


# --- plans --------------------------------------------------------------------------


def test_a_plan_is_carried_out_in_time() -> None:
    simulation = world("a", "b")
    simulation.run(1.0)
    plan = [
        Planned(1.0, Cut(("a",), ("b",))),
        Planned(2.0, Mend()),
        Planned(3.0, Pause("a", 1.0)),
        Planned(5.0, Crash("a")),
        Planned(6.0, Restart("a")),
        Planned(7.0, Drift("b", 1.5)),
        Planned(8.0, Degrade(Quality(loss=1.0), to="a")),
    ]
    simulation.plan(plan)
    states = []
    for _ in range(9):
        a = simulation.host("a")
        link = simulation.host("b").links["a"]
        states.append((a.node is not None, a.is_paused, link.is_cut, a.lives))
        simulation.run(1.0)

    up, paused = (True, False, False, 1), (True, True, False, 1)
    cut, down, again = (True, False, True, 1), (False, False, False, 1), (True, False)
    assert states == [up, cut, up, paused, up, down, *[(*again, False, 2)] * 3]
    assert simulation.host("b").clock.rate == 1.5
    assert simulation.host("b").links["a"].quality == Quality(loss=1.0)


def test_a_drawn_plan_has_what_was_asked_for_and_ends_what_it_begins() -> None:
    draw = random.Random(1)
    mix = Mix(pause=0.0, slow_link=0.0, bad_network=0.0, lost_disk=1.0, drift=1.0)
    plan = draw_faults(draw, "abc", within_s=10.0, number=200, mix=mix)
    kinds = [type(planned.fault) for planned in plan]

    assert set(kinds) == {Cut, Mend, Crash, Restart, Drift}
    assert kinds.count(Cut) == kinds.count(Mend)
    assert kinds.count(Crash) == kinds.count(Restart)
    assert {x.fault.lose_disk for x in plan if isinstance(x.fault, Restart)} == {
        True,
        False,
    }
    assert [x.at_s for x in plan] == sorted(x.at_s for x in plan)
    again = random.Random(1)
    assert draw_faults(again, "abc", within_s=10.0, number=200, mix=mix) == plan


def test_a_mix_of_nothing_is_an_empty_plan() -> None:
    names = [field.name for field in attrs.fields(Mix)]
    nothing = Mix(**dict.fromkeys(names, 0.0))

    assert (
        draw_faults(random.Random(0), "ab", within_s=9.0, number=9, mix=nothing) == []
    )


# --- mistakes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", [{"loss": 1.5}, {"duplicate": -0.1}, {"delay_s": -1.0}]
)
def test_an_impossible_link_is_refused(wrong: dict[str, float]) -> None:
    [name] = wrong
    with pytest.raises(ValueError, match=f"^{name}="):
        Quality(**wrong)  # type: ignore[arg-type]


def test_a_name_is_taken_once_and_an_unknown_one_is_told() -> None:
    simulation = world("a", "b")

    with pytest.raises(SimulationError, match=r"^add_node\('a'\): the name is taken$"):
        simulation.add_node("a", Log)
    with pytest.raises(SimulationError, match=r"^'z': no such node; there are: a, b$"):
        simulation.crash("z")


def test_an_error_says_when_and_where_it_was_raised() -> None:
    simulation = world("a", "b")

    def fails(name: str) -> None:
        if name == "b":
            raise AssertionError("not so")

    simulation.always(fails)
    send(simulation, "a", "b", "x")
    with pytest.raises(AssertionError, match="not so") as failed:
        simulation.run(1.0)

    [note] = failed.value.__notes__
    assert note.endswith("Received(sender='a', message='x')")
    assert ", b at 0.00" in note
