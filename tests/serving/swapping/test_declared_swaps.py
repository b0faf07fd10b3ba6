"""What files of several nodes say anew is swapped once, in virtual time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import attrs
import pytest
import trio
from msgspec.structs import replace

from atomr_infer.config.deployment_table import deployment_table
from atomr_infer.errors import ConfigError, NotReadyError
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.swap_plan import SwapPlan
from atomr_infer.policy.lifecycle.hot_swap import Phase
from atomr_infer.serving.placing.catalogue import Catalogue
from atomr_infer.serving.placing.own_file import OwnFile
from atomr_infer.serving.placing.records import digest_of
from atomr_infer.serving.swapping.board import SwapBoard
from atomr_infer.serving.swapping.declared import DeclaredSwaps
from atomr_infer.serving.swapping.records import SwapRecord
from tests.serving.placing.world import ModelReplicator, World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio.testing import MockClock

    from atomr.cluster.replicator import Replicator

OLD = Deployment(name="m", runtime="mock", options={"reply": "old"})
NEW = attrs.evolve(OLD, options={"reply": "new"}, hot_swap=SwapPlan())


def digest(deployment: Deployment) -> str:
    return digest_of(deployment_table(deployment))


class Node:
    """What one node knows, and which swaps it begins."""

    def __init__(self, world: World, name: str) -> None:
        world.begin(name)
        self.name = name
        replicator = cast("Replicator", ModelReplicator(world, name))
        self.catalogue = Catalogue(replicator, me=name, replace_after_s=30.0)
        self.board = SwapBoard(replicator)
        self.began: list[str] = []
        self.refuses: Exception | None = None
        self.withdraws = False
        self.is_client = True
        self.reads_s = 0.0  # how long it reads what it swaps to
        serving: Any = SimpleNamespace(has_met=True, orders=self)
        self.declared = DeclaredSwaps(serving, self.board, self._begin)

    def picture(self) -> Any:
        return self.catalogue.draw(trio.current_time())

    async def _begin(self, wanted: Deployment) -> str:
        if self.refuses is not None:
            raise self.refuses
        swap_id = f"{self.name}{len(self.began)}"
        self.began.append(swap_id)
        await trio.sleep(self.reads_s)
        now = self.catalogue.entry(wanted.name)
        assert now is not None
        record = SwapRecord(
            id=swap_id,
            node=self.name,
            life="1",
            before=now.table,
            after=digest(wanted),
        )
        self.board.put(wanted.name, record)
        await trio.sleep(1)  # until all nodes know it
        if self.withdraws:
            self.withdraws = False
            self.end(Phase.ROLLED_BACK, after="")
            raise NotReadyError("it has not begun")
        return swap_id

    def end(self, phase: Phase, **more: Any) -> None:
        """Have the swap of all nodes end."""
        record = self.board.records()["m"]
        ended = replace(record, phase=phase, reason="3 failed", **more)
        self.board.put("m", ended)

    def reload(self, *deployments: Deployment) -> tuple[str, ...]:
        file = OwnFile(
            self.catalogue,
            self.picture(),
            is_remote=lambda *_: False,
            is_client=lambda _: self.is_client,
            swaps=self.declared,
        )
        return file.put({each.name: each for each in deployments})

    def serves(self, name: str = "m") -> Any:
        entry = self.catalogue.entry(name)
        assert entry is not None
        return entry.table["options"]


async def watch(nodes: Iterator[Node] | list[Node], for_s: float) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(round(for_s / 0.25)):
            for node in nodes:
                node.declared.look(nursery)
            await trio.sleep(0.25)


@pytest.fixture
def world() -> World:
    return World()


def nodes(world: World, *names: str) -> list[Node]:
    """Nodes that serve the old one, from their files."""
    found = [Node(world, name) for name in names]
    for node in found:
        node.reload(OLD)
    return found


def begun(*of: Node) -> list[str]:
    return [swap_id for node in of for swap_id in node.began]


async def test_all_that_reload_at_once_begin_one_swap(
    autojump_clock: MockClock,
    world: World,
) -> None:
    a, b, c = all_ = nodes(world, "a", "b", "c")
    for node in (c, b, a):
        assert node.reload(NEW) == (
            "m is taken over step by step, as its hot_swap says: "
            "`atomr-infer swap m show` tells how far it is",
        )
    # The first by name looks last, so that the others would be before it.
    await watch([c, b, a], 30.0)
    assert begun(*all_) == ["a0"]
    assert a.serves() == {"reply": "old"}
    a.catalogue.put(deployment_table(NEW), remote=False)
    a.end(Phase.SWAPPED)
    await watch([c, b, a], 5.0)
    assert begun(*all_) == ["a0"]
    assert [node.declared.names for node in all_] == [(), (), ()]


async def test_one_that_reloads_later_joins_the_swap_that_runs(
    autojump_clock: MockClock,
    world: World,
) -> None:
    a, b = nodes(world, "a", "b")
    b.reload(NEW)
    await watch([a, b], 5.0)
    a.reload(NEW)
    await watch([a, b], 30.0)
    assert begun(a, b) == ["b0"]


async def test_where_the_first_by_name_does_nothing_the_next_one_begins(
    autojump_clock: MockClock,
    world: World,
) -> None:
    a, b, c = nodes(world, "a", "b", "c")
    for node in (a, b, c):
        node.reload(NEW)
    await watch([b, c], 30.0)  # a is at something else
    assert begun(a, b, c) == ["b0"]


async def test_nobody_begins_before_it_knows_the_others(
    autojump_clock: MockClock,
    world: World,
) -> None:
    (a,) = nodes(world, "a")
    serving: Any = a.declared._serving
    serving.has_met = False
    a.reload(NEW)
    await watch([a], 30.0)
    assert begun(a) == []
    serving.has_met = True
    await watch([a], 1.0)
    assert begun(a) == ["a0"]


async def test_what_went_back_is_not_begun_again_by_who_reloads_later(
    autojump_clock: MockClock,
    world: World,
) -> None:
    a, b = nodes(world, "a", "b")
    a.reload(NEW)
    await watch([a, b], 5.0)
    a.end(Phase.ROLLED_BACK)
    assert b.reload(NEW) == (
        "m stays: what this node's file says was tried, and rolled back (3 failed); "
        "`atomr-infer swap m` tries it again",
    )
    await watch([a, b], 30.0)
    assert begun(a, b) == ["a0"]


async def test_what_went_back_and_is_said_anew_is_begun_again_once(
    autojump_clock: MockClock,
    world: World,
) -> None:
    both = a, _ = nodes(world, "a", "b")
    for node in both:
        node.reload(NEW)
    await watch(both, 5.0)
    a.end(Phase.ROLLED_BACK)
    await watch(both, 1.0)
    for said in (OLD, NEW):
        for node in both:
            node.reload(said)
        await watch(both, 30.0)
    assert begun(*both) == ["a0", "a1"]


async def test_another_one_waits_for_the_end_of_the_swap_that_runs(
    autojump_clock: MockClock,
    world: World,
) -> None:
    (a,) = nodes(world, "a")
    a.reload(NEW)
    await watch([a], 5.0)
    other = attrs.evolve(NEW, options={"reply": "other"})
    a.reload(other)
    await watch([a], 30.0)
    assert begun(a) == ["a0"]
    a.end(Phase.ROLLED_BACK)
    await watch([a], 1.0)
    assert begun(a) == ["a0", "a1"]
    assert a.board.records()["m"].after == digest(other)


async def test_what_the_file_says_no_more_is_not_begun(
    autojump_clock: MockClock,
    world: World,
) -> None:
    (a,) = nodes(world, "a")
    a.reload(NEW)
    a.reload(OLD)
    await watch([a], 30.0)
    assert (begun(a), a.declared.names) == ([], ())


async def test_what_was_served_meanwhile_is_not_begun(
    autojump_clock: MockClock,
    world: World,
) -> None:
    (a,) = nodes(world, "a")
    a.reload(NEW)
    a.catalogue.put(deployment_table(NEW), remote=False)
    await watch([a], 30.0)
    assert (begun(a), a.declared.names) == ([], ())


async def test_without_a_plan_or_with_the_same_engine_it_is_exchanged_at_once(
    autojump_clock: MockClock,
    world: World,
) -> None:
    (a,) = nodes(world, "a")
    assert a.reload(attrs.evolve(NEW, hot_swap=None)) == (
        "m is changed, as revision 2",
    )
    renamed = attrs.evolve(NEW, serves=("m", "n"))
    assert a.reload(renamed) == ("m is changed, as revision 3",)
    await watch([a], 30.0)
    assert begun(a) == []


@pytest.mark.parametrize(
    ("refuses", "left"), [(NotReadyError("busy"), ("m",)), (ConfigError("no"), ())]
)
async def test_what_cannot_be_begun_now_is_tried_again_and_what_never_can_is_not(
    autojump_clock: MockClock, world: World, refuses: Exception, left: tuple[str, ...]
) -> None:
    (a,) = nodes(world, "a")
    a.refuses = refuses
    a.reload(NEW)
    await watch([a], 5.0)
    assert a.declared.names == left
    a.refuses = None
    await watch([a], 5.0)
    assert begun(a) == ["a0"] * len(left)


async def test_one_that_starts_in_the_last_step_leaves_what_is_served_to_the_swap(
    autojump_clock: MockClock,
    world: World,
) -> None:
    a, b = nodes(world, "a", "b")
    a.reload(NEW)
    await watch([a, b], 5.0)
    serving = attrs.evolve(NEW.serving, weight=0.0)
    last_step = deployment_table(attrs.evolve(NEW, serving=serving))
    a.catalogue.put(last_step, remote=False)
    b.reload(NEW)
    assert a.catalogue.entry("m").table == last_step  # type: ignore[union-attr]


# --- what is said while another thing is done ---------------------------------------


async def test_what_is_said_while_a_swap_begins_is_not_lost(
    autojump_clock: MockClock,
    world: World,
) -> None:
    (a,) = nodes(world, "a")
    other = attrs.evolve(NEW, options={"reply": "other"})
    a.reload(NEW)
    await watch([a], 0.5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, [a], 5.0)
        await trio.sleep(1.0)
        assert begun(a) == ["a0"]  # and for half a second it is not known to lead
        a.reload(other)
    assert a.declared.names == ("m",)
    a.end(Phase.SWAPPED)
    await watch([a], 3.0)
    assert begun(a) == ["a0", "a1"]
    assert a.board.records()["m"].after == digest(other)


async def test_the_beginning_of_one_holds_up_nothing(
    autojump_clock: MockClock,
    world: World,
) -> None:
    a = Node(world, "a")
    n = attrs.evolve(OLD, name="n")
    new_n = attrs.evolve(n, options={"reply": "new"}, hot_swap=SwapPlan())
    a.reload(OLD, n)
    a.reload(NEW, new_n)
    async with trio.open_nursery() as nursery:
        await trio.sleep(1.0)
        a.declared.look(nursery)
        # What the file says no more by then is not begun.
        a.reload(NEW, n)
        await trio.sleep(0.1)
        a.declared.look(nursery)
    ids = {name: record.id for name, record in a.board.records().items()}
    assert sorted(begun(a)) == sorted(ids.values())
    assert a.board.is_ended("n", ids["n"])
    assert not a.board.is_ended("m", ids["m"])


async def test_one_that_takes_long_to_begin_is_begun_once(
    autojump_clock: MockClock,
    world: World,
) -> None:
    (a,) = nodes(world, "a")
    a.reads_s = 3.0
    a.reload(NEW)
    await watch([a], 10.0)
    assert begun(a) == ["a0"]


@pytest.mark.parametrize("phase", ["beginning", "loading", "shifting"])
async def test_a_swap_goes_back_where_a_file_says_again_what_was_before(
    autojump_clock: MockClock, world: World, phase: str
) -> None:
    both = a, b = nodes(world, "a", "b")
    for node in both:
        node.reload(NEW)
    await watch(both, 1.5 if phase == "beginning" else 5.0)
    if phase == "shifting":
        half = attrs.evolve(OLD.serving, weight=0.5)
        table = deployment_table(attrs.evolve(OLD, serving=half))
        a.catalogue.put(table, remote=False)
    told = (
        "m goes back to what this node's file says again: "
        "`atomr-infer swap m show` tells how far it is",
    )
    assert b.reload(OLD) == told
    if phase == "shifting":
        assert b.reload(OLD) == told
    assert a.board.is_ended("m", "a0")
    await watch(both, 5.0)
    a.catalogue.put(deployment_table(OLD), remote=False)
    a.end(Phase.ROLLED_BACK)
    await watch(both, 30.0)
    assert (begun(*both), a.declared.names, b.declared.names) == (["a0"], (), ())


async def test_what_was_said_too_late_to_go_back_is_swapped_back(
    autojump_clock: MockClock,
    world: World,
) -> None:
    (a,) = nodes(world, "a")
    a.reload(NEW)
    await watch([a], 5.0)
    a.reload(OLD)
    a.catalogue.put(deployment_table(NEW), remote=False)
    a.end(Phase.SWAPPED)
    await watch([a], 5.0)
    assert begun(a) == ["a0", "a1"]
    assert a.board.records()["m"].after == digest(OLD)


async def test_a_file_that_has_said_so_all_along_has_nothing_go_back(
    autojump_clock: MockClock,
    world: World,
) -> None:
    a, b = nodes(world, "a", "b")
    a.reload(NEW)
    await watch([a, b], 5.0)
    assert b.reload(OLD) == ()
    c = Node(world, "c")
    assert c.reload(OLD) == ()
    assert not a.board.is_ended("m", "a0")


async def test_one_that_did_not_begin_is_begun_by_another_node(
    autojump_clock: MockClock,
    world: World,
) -> None:
    both = a, b = nodes(world, "a", "b")
    for node in both:
        node.reload(NEW)
    a.withdraws = True
    await watch(both, 2.0)
    await watch([b], 10.0)  # a is gone
    assert begun(*both) == ["a0", "b0"]


async def test_one_that_says_the_same_again_is_told_how_it_stands(
    autojump_clock: MockClock,
    world: World,
) -> None:
    a, b = nodes(world, "a", "b")
    on = a.reload(NEW)
    assert a.reload(NEW) == on
    await watch([a], 5.0)
    b.reload(NEW)
    assert (a.reload(NEW), b.reload(NEW)) == (on, on)
    a.end(Phase.ROLLED_BACK)
    await watch([a, b], 1.0)
    left = (
        "m stays: what this node's file says was tried, and rolled back (3 failed); "
        "`atomr-infer swap m` tries it again",
    )
    assert (a.reload(NEW), b.reload(NEW)) == (left, left)


async def test_one_that_can_never_begin_says_why_at_each_reload(
    autojump_clock: MockClock,
    world: World,
) -> None:
    (a,) = nodes(world, "a")
    a.refuses = ConfigError("no such runtime")
    a.reload(NEW)
    await watch([a], 5.0)
    assert a.reload(NEW) == (
        "m stays: what this node's file says cannot take over: no such runtime",
    )
    assert a.reload(OLD) == ()
    a.refuses = None
    on = a.reload(NEW)
    assert a.reload(NEW) == on
    await watch([a], 5.0)
    assert begun(a) == ["a0"]


async def test_after_a_restart_a_file_that_has_said_something_else_begins_it_again(
    autojump_clock: MockClock,
    world: World,
) -> None:
    a, b = nodes(world, "a", "b")
    a.reload(NEW)
    await watch([a], 5.0)
    a.end(Phase.ROLLED_BACK)
    b.reload(NEW)  # it remembers no more of it than one that starts
    b.reload(OLD)
    b.reload(NEW)
    await watch([b], 5.0)
    assert begun(b) == ["b0"]


async def test_what_a_client_keeps_and_a_process_is_made_with_is_told_apart(
    autojump_clock: MockClock,
    world: World,
) -> None:
    (a,) = nodes(world, "a")
    patient = attrs.evolve(
        OLD, timeouts=attrs.evolve(OLD.timeouts, idle_s=7.0), hot_swap=SwapPlan()
    )
    a.is_client = False
    assert a.reload(patient) == ("m is changed, as revision 2",)
    a.is_client = True
    a.reload(attrs.evolve(patient, timeouts=OLD.timeouts))
    assert a.declared.names == ("m",)
