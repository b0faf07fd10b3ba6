"""PartitionSupervisor, and the arguments that supervisors give to starts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

import attrs
import pytest
import trio
import trio.testing
from hypothesis import example, given
from hypothesis import strategies as st

from atomr.core.exits import KILLED, NORMAL, SHUTDOWN, ExitReason, Shutdown
from atomr.core.messages import Down
from atomr.core.partitions import PartitionKey, partition_of
from atomr.core.start_arguments import mismatch
from atomr.errors import (
    AlreadyStartedError,
    ChildError,
    ChildNotFoundError,
    NoProcessError,
    StartError,
    StartIgnoredError,
)
from atomr.otp import (
    ChildCounts,
    ChildInfo,
    ChildKind,
    ChildSpec,
    ChildState,
    DynamicSupervisor,
    From,
    GaveUp,
    GenServer,
    Ignore,
    PartitionRef,
    PartitionSupervisor,
    Registry,
    RegistryRef,
    Reply,
    Request,
    Restart,
    Strategy,
    Supervisor,
    TaskSupervisor,
    async_,
    call,
    cast,
    child,
    count_children,
    delete_child,
    restart_child,
    start_child,
    supervision_tree,
    task_children,
    terminate_child,
    which_children,
)
from atomr.process import (
    Node,
    kill,
    monitor,
    receive,
    self_pid,
    send,
    spawn,
    wait_exit,
)
from atomr.refs import Pid

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]
settle = trio.testing.wait_all_tasks_blocked


@attrs.frozen
class Collect(Request[tuple[int, list[object]]]):
    """Keep a message; reply with the partition and all it has kept."""

    message: object


class Collector(GenServer):
    """Knows its partition, and keeps what it gets."""

    def __init__(self, partition: int = -1) -> None:
        self.partition = partition
        self.kept: list[object] = []

    def handle_call(self, request: Collect, from_: From) -> Reply:
        self.kept.append(request.message)
        return Reply((self.partition, list(self.kept)))

    def handle_cast(self, message: object) -> None:
        self.kept.append(message)

    def handle_info(self, message: object) -> None:
        self.kept.append(message)


COLLECTORS = PartitionRef("collectors")


async def start(
    node: Node,
    partitions: int = 3,
    *,
    spec: ChildSpec | None = None,
    restart: Restart = Restart.TRANSIENT,
    strategy: Strategy = Strategy.ONE_FOR_ONE,
    max_restarts: int = 3,
) -> Pid:
    """Start partitions of Collector (or ``spec``) that know their numbers."""
    given = spec or ChildSpec(id="Collector", start=Collector)

    def top() -> PartitionSupervisor:
        return PartitionSupervisor(
            given,
            partitions=partitions,
            with_arguments=None if spec else lambda partition: (partition,),
            strategy=strategy,
            max_restarts=max_restarts,
        )

    return await node.start(child(top, id="top", name="collectors", restart=restart))


def pids(keys: range) -> list[Pid | None]:
    return [COLLECTORS.whereis(key) for key in keys]


# --- routing -------------------------------------------------------------------


async def test_a_key_reaches_its_partition_and_no_other(clean_node: CleanNode) -> None:
    """[PartitionSupervisor] A process is reached by a key; equal keys reach the same
    one.
    """
    async with clean_node() as node:
        await start(node)
        assert await call(COLLECTORS.via(1), Collect("hi")) == (1, ["hi"])
        assert await call(COLLECTORS.via(4), Collect("ho")) == (1, ["hi", "ho"])
        assert await call(COLLECTORS.via(-2), Collect("a")) == (2, ["a"])


async def test_cast_send_and_monitor_take_the_address_too(
    clean_node: CleanNode,
) -> None:
    """[PartitionSupervisor] The address works wherever a name does."""
    async with clean_node() as node:
        await start(node)
        cast(COLLECTORS.via(1), "cast")
        send(COLLECTORS.via(1), "sent")
        assert await call(COLLECTORS.via(1), Collect(3)) == (1, ["cast", "sent", 3])

        async def watch() -> None:
            target = COLLECTORS.whereis(1)
            assert target is not None
            ref = monitor(COLLECTORS.via(1))
            kill(target)
            assert await receive() == Down(ref, target, KILLED)

        assert await wait_exit(spawn(watch)) is NORMAL


@given(st.integers(), st.integers(1, 50))
def test_an_integer_is_routed_by_the_remainder_of_its_size(
    key: int, partitions: int
) -> None:
    """[PartitionSupervisor: Implementation notes] An integer is routed by the remainder
    of its absolute value.
    """
    assert partition_of(key, partitions) == abs(key) % partitions


def test_pids_that_follow_one_another_are_spread_evenly() -> None:
    routed = [partition_of(Pid(number, "p"), 4) for number in range(1, 9)]
    assert Counter(routed) == {0: 2, 1: 2, 2: 2, 3: 2}


KEYS: list[PartitionKey] = [
    "ann",
    "",
    "zürich",
    "\ud800",
    b"ann",
    ("room", 7),
    ("a", "bc"),
    ("ab", "c"),
    (("a",), "b"),
    (),
]
ROUTED = [77, 50, 5, 64, 51, 8, 74, 69, 4, 47]


def test_a_key_is_routed_alike_in_each_run() -> None:
    assert [partition_of(key, 97) for key in KEYS] == ROUTED


@pytest.mark.parametrize("seed", ["1", "2"])
def test_the_seed_of_hash_changes_no_route(seed: str) -> None:
    code = "from atomr.core.partitions import partition_of as p; print(p('ann', 97))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{ROUTED[0]}\n"


@given(st.integers(1, 16))
def test_a_thousand_names_are_spread_evenly(partitions: int) -> None:
    routed = Counter(partition_of(f"user-{n}", partitions) for n in range(1000))
    assert len(routed) == partitions
    assert max(routed.values()) < 1.5 * 1000 / partitions


keys = st.recursive(
    st.integers() | st.text() | st.binary(),
    lambda part: st.lists(part, max_size=3).map(tuple),
    max_leaves=6,
)


@example(("ann", 1), ("ann", True), 7)
@example((10**5000,), (-(10**5000),), 7)
@given(keys, keys, st.integers(1, 9))
def test_equal_keys_share_a_partition(
    one: PartitionKey, other: PartitionKey, partitions: int
) -> None:
    assert 0 <= partition_of(one, partitions) < partitions
    if one == other:
        assert partition_of(one, partitions) == partition_of(other, partitions)


@pytest.mark.parametrize("key", [1.5, None, object(), ["a"], ("a", 1.5)])
def test_a_key_without_a_stable_hash_is_refused(key: object) -> None:
    """[PartitionSupervisor: Implementation notes] differs: keys are integers, texts,
    bytes, pids and tuples of them. Any other has a hash in Python that is another one
    in each run.
    """
    with pytest.raises(TypeError, match="expected an int, str, bytes, Pid or a tuple"):
        partition_of(key, 4)  # type: ignore[arg-type]


async def test_the_callers_pid_as_key_gives_each_caller_a_partition_of_its_own(
    clean_node: CleanNode,
) -> None:
    """[PartitionSupervisor: DynamicSupervisor Example] With its own pid as the key each
    caller has one of the partitions.
    """
    seen: list[int] = []

    async def caller() -> None:
        seen.append((await call(COLLECTORS.via(self_pid()), Collect("x")))[0])

    async with clean_node() as node:
        await start(node, 4)
        for _ in range(8):
            await wait_exit(spawn(caller))
        assert Counter(seen) == {0: 2, 1: 2, 2: 2, 3: 2}


async def test_an_address_finds_nobody_where_no_supervisor_runs(
    clean_node: CleanNode,
) -> None:
    """[PartitionSupervisor.partitions/1] It fails with noproc when the supervisor is
    not there.
    """
    async with clean_node():
        cast(COLLECTORS.via(1), "dropped")
        assert COLLECTORS.whereis(1) is None
        with pytest.raises(NoProcessError, match=r"call\(collectors\[1\], Collect"):
            await call(COLLECTORS.via(1), Collect("x"))
        with pytest.raises(NoProcessError):
            COLLECTORS.partitions()
        with pytest.raises(NoProcessError):
            await COLLECTORS.resize(1)


async def test_an_address_of_something_else_is_refused(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        pid = await node.start(Collector())
        with pytest.raises(TypeError, match="not a Collector"):
            await call(PartitionRef(pid).via(1), Collect("x"))


async def test_a_partitions_address_is_no_name_to_give(clean_node: CleanNode) -> None:
    """[PartitionSupervisor] The address is no name that a process can be registered
    with.
    """
    async with clean_node() as node:
        await start(node)
        top = await node.start(child(Supervisor, restart=Restart.TEMPORARY))
        with pytest.raises(AlreadyStartedError):
            await start_child(top, child(Collector, name=COLLECTORS.via(1)))
        await COLLECTORS.resize(0)
        before = node.size
        with pytest.raises(StartError) as caught:
            await start_child(top, child(Collector, name=COLLECTORS.via(1)))
        assert isinstance(caught.value.reason, TypeError)
        assert (node.size, await which_children(top)) == (before, ())


async def test_the_supervisor_may_be_known_by_pid_or_by_a_registrys_key(
    clean_node: CleanNode,
) -> None:
    """[PartitionSupervisor.start_link/1] It may have a name of a registry.
    [PartitionSupervisor.start_link/1] differs: it needs no name. In Elixir the address
      of a partition is made of it; here a pid does as well.
    """
    names: RegistryRef[str, None] = RegistryRef("names")
    async with clean_node() as node:
        await node.start(child(Registry, name="names", restart=Restart.TEMPORARY))
        spec = child(
            lambda: PartitionSupervisor(child(Collector), partitions=2),
            id="top",
            name=names.via("collectors"),
        )
        top = await node.start(spec)
        by_pid = PartitionRef(top)
        by_key = PartitionRef(names.via("collectors"))
        assert by_pid.partitions() == by_key.partitions() == 2
        assert by_pid.whereis("ann") is by_key.whereis("ann") is not None


# --- partitions as children -----------------------------------------------------


async def test_partitions_are_children_with_numbers(clean_node: CleanNode) -> None:
    """[PartitionSupervisor.which_children/1] A row for each partition, by its number.
    [PartitionSupervisor.count_children/1] Partitions are counted as children are.
    [PartitionSupervisor.partitions/1] The number of partitions.
    """
    async with clean_node() as node:
        top = await start(node)
        pid_0, pid_1, pid_2 = pids(range(3))
        assert await which_children(top) == tuple(
            ChildInfo(f"Collector[{n}]", pid, ChildKind.WORKER, ChildState.RUNNING)
            for n, pid in enumerate((pid_0, pid_1, pid_2))
        )
        assert await count_children(top) == ChildCounts(3, 3, 0, 3)
        assert COLLECTORS.partitions() == 3
        tree = supervision_tree(top)
        assert tree is not None
        assert [row.pid for row in tree.children] == [pid_0, pid_1, pid_2]


async def test_there_are_eight_partitions_unless_asked_for(
    clean_node: CleanNode,
) -> None:
    """[PartitionSupervisor.start_link/1] differs: there are 8 unless asked for. Elixir
    has one for each core; here one thread runs them all.
    """
    async with clean_node() as node:
        top = await node.start(PartitionSupervisor(child(Collector)))
        assert PartitionRef(top).partitions() == 8
        assert await count_children(top) == ChildCounts(8, 8, 0, 8)


async def test_a_partition_that_crashed_is_restarted_alone_with_its_argument(
    clean_node: CleanNode, schedule: int
) -> None:
    """[PartitionSupervisor.start_link/1] strategy: one_for_one by default."""
    async with clean_node() as node:
        await start(node)
        await call(COLLECTORS.via(1), Collect("old"))
        before = pids(range(3))
        assert before[1] is not None
        kill(before[1])
        await settle()
        after = pids(range(3))
        assert (before[0], before[2]) == (after[0], after[2])
        assert after[1] not in (None, before[1])
        assert await call(COLLECTORS.via(1), Collect("new")) == (1, ["new"])


async def test_a_strategy_takes_other_partitions_along(
    clean_node: CleanNode, schedule: int
) -> None:
    """[PartitionSupervisor.start_link/1] strategy: any of a supervisor."""
    async with clean_node() as node:
        await start(node, strategy=Strategy.REST_FOR_ONE)
        before = pids(range(3))
        assert before[1] is not None
        kill(before[1])
        await settle()
        after = pids(range(3))
        assert [b is a for b, a in zip(before, after, strict=True)] == [True] + [
            False
        ] * 2


async def test_one_window_counts_the_restarts_of_all_partitions(
    clean_node: CleanNode,
) -> None:
    """[PartitionSupervisor.start_link/1] All restarts count for one max_restarts."""
    async with clean_node() as node:
        top = await start(node, restart=Restart.TEMPORARY, max_restarts=2)
        watched = node.processes[top.number]
        for key in range(3):
            target = COLLECTORS.whereis(key)
            assert target is not None
            kill(target)
            await settle()
        assert watched.reason == Shutdown(GaveUp("Collector[2]", KILLED, 2, 5.0))
        assert node.processes == {}


async def test_a_partition_that_waits_for_its_backoff_cannot_be_reached(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async with clean_node() as node:
        await start(node, spec=child(Collector, backoff_s=2.0))
        first = COLLECTORS.whereis(1)
        assert first is not None
        kill(first)
        await settle()
        with pytest.raises(NoProcessError):
            await call(COLLECTORS.via(1), Collect("x"))
        await trio.sleep(2.1)
        assert await call(COLLECTORS.via(1), Collect("x")) == (-1, ["x"])


async def test_a_temporary_partition_that_ended_keeps_its_keys(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        await start(node, spec=child(Collector, restart=Restart.TEMPORARY))
        before = pids(range(3))
        assert before[1] is not None
        kill(before[1])
        await settle()
        assert pids(range(3)) == [before[0], None, before[2]]
        assert await COLLECTORS.resize(1) == 3
        assert await COLLECTORS.resize(3) == 1
        assert None not in pids(range(3))


async def test_a_partition_that_ignores_keeps_its_place(clean_node: CleanNode) -> None:
    class Odd(GenServer):
        def __init__(self, partition: int) -> None:
            self.partition = partition

        def init(self) -> Ignore | None:
            return None if self.partition % 2 else Ignore()

    def top() -> PartitionSupervisor:
        return PartitionSupervisor(
            ChildSpec(id="odd", start=Odd),
            partitions=3,
            with_arguments=lambda partition: (partition,),
        )

    async with clean_node() as node:
        pid = await node.start(child(top, id="top", name="collectors"))
        assert [p is None for p in pids(range(3))] == [True, False, True]
        await COLLECTORS.resize(1)
        await COLLECTORS.resize(3)
        assert [p is None for p in pids(range(3))] == [True, False, True]
        assert await count_children(pid) == ChildCounts(3, 1, 0, 3)
        with pytest.raises(StartIgnoredError):
            await restart_child(pid, "odd[0]")


async def test_a_partition_can_be_stopped_and_started_by_its_id(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        top = await start(node)
        await terminate_child(top, "Collector[1]")
        assert COLLECTORS.whereis(1) is None
        pid = await restart_child(top, "Collector[1]")
        assert COLLECTORS.whereis(1) is pid


async def test_partitions_are_neither_added_nor_deleted_one_by_one(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        top = await start(node)
        with pytest.raises(ChildError, match=r"start_child\('x'\): the children of a"):
            await start_child(top, child(Collector, id="x"))
        await terminate_child(top, "Collector[2]")
        with pytest.raises(ChildError, match=r"delete_child.*resize"):
            await delete_child(top, "Collector[2]")
        with pytest.raises(ChildNotFoundError):
            await terminate_child(top, "Collector[3]")


async def test_a_partition_that_fails_to_start_fails_the_start_of_all(
    clean_node: CleanNode,
) -> None:
    class Fails(GenServer):
        def __init__(self, partition: int) -> None:
            self.partition = partition

        def init(self) -> None:
            if self.partition == 2:
                raise ValueError("no third")

    def top() -> PartitionSupervisor:
        return PartitionSupervisor(
            ChildSpec(id="p", start=Fails), with_arguments=lambda n: (n,)
        )

    async with clean_node() as node:
        with pytest.raises(StartError) as caught:
            await node.start(child(top, id="top"))
        inner = caught.value.reason
        assert isinstance(inner, StartError)
        assert (inner.child, repr(inner.reason)) == ("p[2]", "ValueError('no third')")
        assert node.processes == {}


# --- resize ------------------------------------------------------------------


async def test_resize_stops_the_last_partitions_first_and_starts_them_again(
    clean_node: CleanNode, schedule: int
) -> None:
    """[PartitionSupervisor.resize!/2] Stops or starts partitions, and returns how many
    there were.
    """
    log: list[str] = []

    class Noted(Collector):
        def init(self) -> None:
            log.append(f"+{self.partition}")

        async def terminate(self, reason: ExitReason) -> None:
            await trio.lowlevel.checkpoint()
            log.append(f"-{self.partition}")

    def top() -> PartitionSupervisor:
        return PartitionSupervisor(
            ChildSpec(id="p", start=Noted),
            partitions=4,
            with_arguments=lambda n: (n,),
        )

    async with clean_node() as node:
        await node.start(child(top, id="top", name="collectors"))
        before = pids(range(4))
        log.clear()
        assert await COLLECTORS.resize(2) == 4
        assert (log, COLLECTORS.partitions()) == (["-3", "-2"], 2)
        assert pids(range(4)) == before[:2] * 2
        assert await COLLECTORS.resize(4) == 2
        assert log == ["-3", "-2", "+2", "+3"]
        assert pids(range(2)) == before[:2]
        assert await COLLECTORS.resize(4) == 4
        assert len(log) == 4


async def test_a_group_restart_starts_no_partition_that_resize_took_away(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        top = await start(node, strategy=Strategy.ONE_FOR_ALL)
        await COLLECTORS.resize(2)
        target = COLLECTORS.whereis(0)
        assert target is not None
        kill(target)
        await settle()
        assert await count_children(top) == ChildCounts(2, 2, 0, 2)


async def test_without_partitions_all_keys_find_nobody(clean_node: CleanNode) -> None:
    """[PartitionSupervisor.resize!/2] There may be none.
    [PartitionSupervisor] differs: then an address finds nobody. Elixir raises; for a
      caller it is a server that is not there.
    """
    async with clean_node() as node:
        await start(node)
        assert await COLLECTORS.resize(0) == 3
        assert (COLLECTORS.partitions(), COLLECTORS.whereis("ann")) == (0, None)
        assert await COLLECTORS.resize(1) == 0
        assert await call(COLLECTORS.via("ann"), Collect("x")) == (0, ["x"])


@pytest.mark.parametrize("partitions", [-1, 4])
async def test_resize_goes_from_none_to_the_first_number(
    clean_node: CleanNode, partitions: int
) -> None:
    """[PartitionSupervisor.resize!/2] Not below 0, nor above the first number."""
    async with clean_node() as node:
        await start(node)
        with pytest.raises(ValueError, match="expected 0 to 3"):
            await COLLECTORS.resize(partitions)


@pytest.mark.parametrize("partitions", [2.5, 2.0, "2", None])
async def test_resize_to_what_is_no_integer_leaves_the_supervisor_alone(
    clean_node: CleanNode, partitions: int
) -> None:
    async with clean_node() as node:
        await start(node)
        with pytest.raises(TypeError, match="integer"):
            await COLLECTORS.resize(partitions)
        assert COLLECTORS.partitions() == 3


async def test_a_resize_that_fails_in_the_middle_keeps_what_has_started(
    clean_node: CleanNode,
) -> None:
    broken: set[int] = set()

    def make(partition: int) -> Collector:
        if partition in broken:
            raise OSError(f"no room for {partition}")
        return Collector(partition)

    def top() -> PartitionSupervisor:
        return PartitionSupervisor(
            ChildSpec(id="p", start=make), partitions=4, with_arguments=lambda n: (n,)
        )

    async with clean_node() as node:
        pid = await node.start(child(top, id="top", name="collectors"))
        await COLLECTORS.resize(1)
        broken.add(2)
        with pytest.raises(StartError, match="no room for 2"):
            await COLLECTORS.resize(4)
        assert COLLECTORS.partitions() == 2
        assert await count_children(pid) == ChildCounts(2, 2, 0, 2)
        broken.clear()
        assert await COLLECTORS.resize(4) == 2
        assert await call(COLLECTORS.via(2), Collect("x")) == (2, ["x"])


# --- over supervisors ----------------------------------------------------------


async def test_dynamic_supervisors_can_be_partitioned(clean_node: CleanNode) -> None:
    """[PartitionSupervisor: DynamicSupervisor] Supervisors can be partitions."""
    async with clean_node() as node:
        top = await start(node, spec=child(DynamicSupervisor))
        assert await count_children(top) == ChildCounts(3, 3, 3, 0)
        pid = await start_child(COLLECTORS.via("ann"), child(Collector))
        assert [info.pid for info in await which_children(COLLECTORS.via("ann"))] == [
            pid
        ]
        counts = [(await count_children(COLLECTORS.via(n))).active for n in range(3)]
        assert sorted(counts) == [0, 0, 1]
        await terminate_child(COLLECTORS.via("ann"), pid)
        assert await which_children(COLLECTORS.via("ann")) == ()


async def test_a_partition_of_supervisors_that_crashes_takes_only_its_children(
    clean_node: CleanNode, schedule: int
) -> None:
    async with clean_node() as node:
        await start(node, spec=child(DynamicSupervisor))
        one = await start_child(COLLECTORS.via(0), child(Collector))
        other = await start_child(COLLECTORS.via(1), child(Collector))
        gone = COLLECTORS.whereis(0)
        assert gone is not None
        kill(gone)
        await settle()
        assert [node.processes.get(p.number) is None for p in (one, other)] == [
            True,
            False,
        ]
        assert await which_children(COLLECTORS.via(0)) == ()


async def test_task_supervisors_can_be_partitioned(clean_node: CleanNode) -> None:
    """[Task.Supervisor: Scalability and partitioning] So can supervisors of tasks."""

    async def double(number: int) -> int:
        await trio.lowlevel.checkpoint()
        return 2 * number

    async def caller() -> None:
        supervisor = COLLECTORS.via(self_pid())
        tasks = [async_(supervisor, double, n) for n in range(3)]
        assert len(await task_children(supervisor)) == 3
        assert [await task.result() for task in tasks] == [0, 2, 4]

    async with clean_node() as node:
        await start(node, spec=child(TaskSupervisor))
        assert await wait_exit(spawn(caller)) is NORMAL


# --- arguments of the specification -----------------------------------------------


@pytest.mark.parametrize("partitions", [0, -3])
def test_at_least_one_partition_is_needed(partitions: int) -> None:
    """[PartitionSupervisor.start_link/1] partitions is a positive integer."""
    with pytest.raises(ValueError, match=f"partitions={partitions}: expected at least"):
        PartitionSupervisor(child(Collector), partitions=partitions)


def test_a_name_for_all_partitions_is_refused() -> None:
    with pytest.raises(ValueError, match="only one partition could have the name 'x'"):
        PartitionSupervisor(child(Collector, name="x"))


def test_a_significant_partition_is_refused() -> None:
    """[PartitionSupervisor.start_link/1] There is no automatic shutdown."""
    spec = child(Collector, significant=True, restart=Restart.TRANSIENT)
    with pytest.raises(ValueError, match="significant=True needs a supervisor with"):
        PartitionSupervisor(spec)


def test_with_arguments_must_return_a_tuple() -> None:
    """[PartitionSupervisor: with_arguments] It returns the arguments of the start, for
    each partition.
    """
    with pytest.raises(TypeError, match=r"with_arguments\(0\): expected a tuple"):
        PartitionSupervisor(child(Collector), with_arguments=lambda n: n)  # type: ignore[arg-type, return-value]


async def test_a_start_that_does_not_take_its_argument_is_named(
    clean_node: CleanNode,
) -> None:
    class Plain(GenServer):
        pass

    def top() -> PartitionSupervisor:
        return PartitionSupervisor(child(Plain), with_arguments=lambda n: (n, "x"))

    async with clean_node() as node:
        with pytest.raises(StartError) as caught:
            await node.start(child(top, id="top"))
        inner = caught.value.reason
        assert isinstance(inner, StartError)
        assert inner.child == "Plain[0]"
        assert "Plain does not take with_arguments=(0, 'x')" in str(inner.reason)


# --- extra arguments of a DynamicSupervisor -----------------------------------------


class Session(GenServer):
    """Is given a store by its supervisor."""

    def __init__(self, store: list[str], name: str = "nobody") -> None:
        self.store = store
        self.name = name

    def init(self) -> None:
        self.store.append(f"+{self.name}")


async def test_each_start_and_restart_gets_the_extra_arguments(
    clean_node: CleanNode, schedule: int
) -> None:
    store: list[str] = []
    async with clean_node() as node:
        top = await node.start(DynamicSupervisor(extra_arguments=(store, "ann")))
        pid = await start_child(top, ChildSpec(id="s", start=Session))
        assert store == ["+ann"]
        kill(pid)
        await settle()
        assert store == ["+ann", "+ann"]


async def test_a_callers_own_arguments_come_after_the_extra_ones(
    clean_node: CleanNode,
) -> None:
    store: list[str] = []
    async with clean_node() as node:
        top = await node.start(DynamicSupervisor(extra_arguments=(store,)))
        for name in ("ann", "bob"):
            spec = ChildSpec(id=name, start=lambda db, name=name: Session(db, name))
            await start_child(top, spec)
        assert store == ["+ann", "+bob"]


async def test_a_start_that_does_not_take_the_extra_arguments_is_named(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        top = await node.start(DynamicSupervisor(extra_arguments=("db", "cache", 3)))
        with pytest.raises(StartError) as caught:
            await start_child(top, ChildSpec(id="ann", start=Session))
        assert caught.value.child == "ann"
        assert str(caught.value.reason) == (
            "Session does not take extra_arguments=('db', 'cache', 3):"
            " too many positional arguments"
        )
        assert await which_children(top) == ()


async def test_a_type_error_inside_of_a_start_stays_as_it_is(
    clean_node: CleanNode,
) -> None:
    def starts_badly(store: str) -> object:
        return len(3)  # type: ignore[arg-type]

    async with clean_node() as node:
        top = await node.start(DynamicSupervisor(extra_arguments=("db",)))
        with pytest.raises(StartError) as caught:
            await start_child(top, ChildSpec(id="ann", start=starts_badly))
        assert str(caught.value.reason) == "object of type 'int' has no len()"


async def test_an_extra_argument_that_a_restart_misses_uses_the_intensity_up(
    clean_node: CleanNode,
) -> None:
    starts: list[Callable[..., object]] = [Session]

    def start(*arguments: object) -> object:
        return starts[-1](*arguments)

    def no_longer(*, store: object) -> object:
        raise AssertionError("never runs")

    async with clean_node() as node:
        top = await node.start(
            child(
                lambda: DynamicSupervisor(extra_arguments=([],)),
                id="top",
                restart=Restart.TEMPORARY,
            )
        )
        pid = await start_child(top, ChildSpec(id="s", start=start))
        starts.append(no_longer)
        watched = node.processes[top.number]
        kill(pid)
        await settle()
        reason = watched.reason
        assert isinstance(reason, Shutdown)
        assert isinstance(reason.detail, GaveUp)
        assert isinstance(reason.detail.reason, StartError)


def test_a_function_in_c_without_a_signature_has_no_mismatch_to_see() -> None:
    assert mismatch(type, ("a", "b", "c", "d")) is None


# --- names that cannot be held -----------------------------------------------------


async def test_a_name_of_a_registry_that_does_not_run_fails_the_start_alone(
    clean_node: CleanNode,
) -> None:
    nowhere: RegistryRef[str, None] = RegistryRef("nowhere")
    async with clean_node() as node:
        top = await node.start(Supervisor())
        with pytest.raises(StartError) as caught:
            await start_child(top, child(Collector, name=nowhere.via("x")))
        assert isinstance(caught.value.reason, NoProcessError)
        assert (await which_children(top), node.size) == ((), 1)


async def test_a_stop_stops_the_partitions(clean_node: CleanNode) -> None:
    """[PartitionSupervisor.stop/3] Stops all partitions, and returns when they have
    ended.
    """
    async with clean_node() as node:
        top = await start(node)
        process = node.processes[top.number]
        await node.stop()
        assert (process.reason, node.processes) == (SHUTDOWN, {})
