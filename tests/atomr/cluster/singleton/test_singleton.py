"""One process in the whole cluster: where it runs, and why it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr import telemetry
from atomr.cluster import singleton as s
from atomr.cluster.singleton.runner import Ended
from atomr.errors import NoProcessError
from atomr.otp import GenServer, Restart, call, child
from atomr.process import exit_process, kill, send, stop, whereis
from tests.atomr.cluster.singleton.conftest import (
    Billing,
    Cluster,
    Log,
    Member,
    billing,
    open_members,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from atomr.cluster.singleton import ClusterSingleton

TERM_S = 3.0
LAPSE_S = 3.4
"""A lease, a tenth of it, and a little: how long a voter keeps its vote."""


@pytest.fixture
def events() -> Iterator[list[tuple[str, str]]]:
    """Collect what is told of singletons, and where."""
    seen: list[tuple[str, str]] = []

    def see(
        event: tuple[str, ...], _: Mapping[str, float], metadata: Mapping[str, object]
    ) -> None:
        seen.append((event[-1], str(metadata["node"])))

    telemetry.attach("test singleton", ("atomr", "singleton"), see)
    yield seen
    telemetry.detach("test singleton")


def others(cluster: Cluster, name: str) -> list[str]:
    return [other for other in cluster.members if other != name]


async def ask(member: Member) -> Any:
    with member.here():
        return await call(s.via("billing"), "where")


async def test_it_runs_on_one_node_and_all_nodes_reach_it(
    autojump_clock: object,
) -> None:
    async with open_members() as cluster:
        holder = await cluster["a"].wait_running()

        assert cluster.log.lines == [f"{holder} begins"]
        assert [cluster[name].holder() for name in "abc"] == [holder] * 3
        assert [await ask(cluster[name]) for name in "abc"] == [
            f"where on {holder}"
        ] * 3
        away, _ = others(cluster, holder)
        assert cluster[holder].why() == "it runs here"
        assert cluster[away].why() == f"it runs on {holder}"


async def test_nothing_runs_before_what_an_earlier_life_promised_has_lapsed(
    autojump_clock: object,
) -> None:
    async with open_members() as cluster:
        await trio.sleep(LAPSE_S - 0.1)
        assert cluster.log.lines == []
        with cluster["a"].here(), pytest.raises(NoProcessError):
            await call(s.via("billing"), "where")


async def test_a_node_that_leaves_hands_over_at_once(autojump_clock: object) -> None:
    async with open_members() as cluster:
        holder = await cluster["a"].wait_running()

        await cluster[holder].leave()
        await trio.sleep(0.01)

        [heir, *_] = others(cluster, holder)
        assert cluster.log.lines == [
            f"{holder} begins",
            f"{holder} ends",
            f"{heir} begins",
        ]


async def test_the_preferred_one_is_the_heir(autojump_clock: object) -> None:
    def make(member: Member, log: Log) -> ClusterSingleton:
        return billing(member, log, prefer=["nobody", "c", "b"])

    async with open_members(make=make) as cluster:
        first = await cluster["a"].wait_running()
        heir = "b" if first == "c" else "c"
        await cluster[first].leave()
        await trio.sleep(0.01)

        assert cluster.log.lines[-1] == f"{heir} begins"


async def test_it_is_handed_to_the_node_that_is_named(autojump_clock: object) -> None:
    async with open_members() as cluster:
        holder = await cluster["a"].wait_running()
        *_, heir = others(cluster, holder)

        with cluster[heir].here():
            assert not cluster[heir].singleton.hand_over()
        with cluster[holder].here():
            assert cluster[holder].singleton.hand_over(heir)
        await trio.sleep(0.01)

        assert cluster.log.lines[-2:] == [f"{holder} ends", f"{heir} begins"]
        await trio.sleep(3 * TERM_S)
        assert cluster.log.lines[-1] == f"{heir} begins"


async def test_a_node_that_handed_it_over_takes_it_back_when_it_is_its_turn(
    autojump_clock: object,
) -> None:
    async with open_members(("a", "b")) as cluster:
        first = await cluster["a"].wait_running()
        [heir] = others(cluster, first)
        for now, then in ((first, heir), (heir, first)):
            with cluster[now].here():
                assert cluster[now].singleton.hand_over()
            await trio.sleep(2 * TERM_S)
            assert cluster.log.running == {then}


async def test_the_end_of_an_earlier_term_says_nothing_about_this_one(
    autojump_clock: object,
) -> None:
    async with open_members() as cluster:
        holder = await cluster["a"].wait_running()
        with cluster[holder].here():
            send("singleton billing server", Ended(1, "long ago"))
        await trio.sleep(TERM_S)

        assert cluster.log.lines == [f"{holder} begins"]


async def test_tokens_grow_with_each_term(autojump_clock: object) -> None:
    tokens: list[int] = []
    async with open_members() as cluster:
        for _ in range(3):
            holder = await cluster["a"].wait_running()
            tokens.append(cluster[holder].token())
            away, _ = others(cluster, holder)
            with pytest.raises(s.NotHolderError) as caught:
                cluster[away].token()
            assert caught.value.why == f"it runs on {holder}"
            with cluster[holder].here():
                cluster[holder].singleton.hand_over()
            await trio.sleep(TERM_S)

    assert sorted(set(tokens)) == tokens


async def test_a_holder_that_is_cut_off_stops_before_another_begins(
    autojump_clock: object,
) -> None:
    async with open_members() as cluster:
        holder = await cluster["a"].wait_running()
        away, _ = others(cluster, holder)
        cluster.wire.cut(holder)
        await trio.sleep(0.01)
        assert cluster[away].why() == (
            f"the lease of {holder} has not ended, as far as is known"
        )

        await trio.sleep(2.5 * TERM_S)

        first, last, then = cluster.log.lines
        assert (first, last) == (f"{holder} begins", f"{holder} ends")
        assert then in [f"{name} begins" for name in others(cluster, holder)]
        voters = "of the voters a, b, c"
        only = f"only {holder} can be reached; 2 are needed"
        assert cluster[holder].why() == f"no majority: {voters} {only}"
        cluster.wire.heal(holder)
        await trio.sleep(2 * TERM_S)
        assert cluster[holder].why() == f"it runs on {cluster[away].holder()}"


async def test_it_never_runs_where_there_is_no_majority(autojump_clock: object) -> None:
    async with open_members(("a",)) as cluster:
        await trio.sleep(100.0)

        assert cluster.log.lines == []
        assert cluster["a"].why() == (
            "no majority: of the voters a, b, c only a can be reached; 2 are needed"
        )
        with cluster["a"].here(), pytest.raises(s.SingletonTimeoutError) as caught:
            await cluster["a"].singleton.wait_running(timeout_s=1.0)
        assert str(caught.value) == (
            f"singleton 'billing' runs nowhere after 1.0 s: {cluster['a'].why()}"
        )


async def test_a_node_that_is_no_voter_may_run_it_and_one_may_only_vote(
    autojump_clock: object,
) -> None:
    def make(member: Member, log: Log) -> ClusterSingleton:
        return billing(member, log, stands=member.name == "x")

    async with open_members(("a", "b", "x"), make=make) as cluster:
        assert await cluster["a"].wait_running() == "x"
        assert cluster["a"].why() == "it runs on x"
        cluster.wire.leave("x")
        await trio.sleep(0.01)
        assert cluster["a"].why() == (
            "this node does not run it, and nobody says to run it"
        )


async def test_other_voters_on_a_node_are_told_of_and_nothing_runs(
    autojump_clock: object,
) -> None:
    def make(member: Member, log: Log) -> ClusterSingleton:
        voters = {"a": ("a", "b"), "b": ("a", "b", "c")}[member.name]
        return billing(member, log, voters=voters)

    async with open_members(("a", "b"), make=make) as cluster:
        await trio.sleep(3 * TERM_S)

        assert cluster.log.lines == []
        assert cluster["a"].why() == "other terms are in force on b"


# --- what goes wrong with the child ---------------------------------------------------


class Fragile(Billing):
    """Fails where it is told to."""

    fails_on: tuple[str, ...] = ()

    def init(self) -> None:
        if self.node in self.fails_on:
            raise ValueError("no disk")
        super().init()


async def test_a_node_where_it_does_not_start_gives_it_to_another(
    autojump_clock: object,
) -> None:
    class Broken(Fragile):
        fails_on = ("a", "b")

    def make(member: Member, log: Log) -> ClusterSingleton:
        spec = child(lambda: Broken(member.name, log), id="billing")
        return billing(member, log, spec=spec)

    async with open_members(make=make) as cluster:
        assert await cluster["a"].wait_running() == "c"
        assert cluster.log.lines == ["c begins"]


async def test_where_it_starts_nowhere_each_node_says_why(
    autojump_clock: object,
) -> None:
    class Broken(Fragile):
        fails_on = ("a", "b", "c")

    def make(member: Member, log: Log) -> ClusterSingleton:
        spec = child(lambda: Broken(member.name, log), id="billing")
        return billing(member, log, spec=spec)

    async with open_members(make=make) as cluster:
        await trio.sleep(12 * TERM_S)
        for name in "abc":
            assert "it did not start here" in cluster[name].why()
            assert "no disk" in cluster[name].why()


async def test_a_child_that_crashes_is_restarted_on_its_node(
    autojump_clock: object,
) -> None:
    async with open_members() as cluster:
        holder = await cluster["a"].wait_running()
        token = cluster[holder].token()
        pid = cluster[holder].name_of(holder, "singleton billing")
        assert pid is not None
        cluster.log.end(holder)

        kill(pid)
        await trio.sleep(0.1)

        assert cluster.log.lines[-1] == f"{holder} begins"
        assert cluster[holder].token() == token
        assert await ask(cluster["a"]) == f"where on {holder}"


async def test_a_child_that_crashes_too_often_goes_to_another_node(
    autojump_clock: object,
) -> None:
    async with open_members() as cluster:
        holder = await cluster["a"].wait_running()
        for _ in range(4):
            pid = cluster[holder].name_of(holder, "singleton billing")
            assert pid is not None
            cluster.log.end(holder)
            kill(pid)
            await trio.sleep(0.1)

        heir = await cluster["a"].wait_running()
        assert heir != holder
        assert cluster.log.running == {heir}


async def test_a_child_that_has_done_its_work_is_not_started_again(
    autojump_clock: object,
) -> None:
    def make(member: Member, log: Log) -> ClusterSingleton:
        spec = child(
            lambda: Billing(member.name, log), id="billing", restart=Restart.TRANSIENT
        )
        return billing(member, log, spec=spec)

    async with open_members(make=make) as cluster:
        holder = await cluster["a"].wait_running()
        pid = cluster[holder].name_of(holder, "singleton billing")
        assert pid is not None
        await stop(pid)
        await trio.sleep(3 * TERM_S)

        assert cluster.log.lines == [f"{holder} begins", f"{holder} ends"]


class Stubborn(Billing):
    """Takes its time to end; what it does until then is what must not go on."""

    async def terminate(self, reason: object) -> None:  # type: ignore[override]
        try:
            await trio.sleep(60.0)
        finally:
            self.log.end(self.node)


async def test_a_child_that_does_not_end_is_killed_before_its_lease_ends(
    autojump_clock: object,
) -> None:
    def make(member: Member, log: Log) -> ClusterSingleton:
        spec = child(lambda: Stubborn(member.name, log), id="billing", shutdown=60.0)
        return billing(member, log, spec=spec)

    async with open_members(make=make) as cluster:
        holder = await cluster["a"].wait_running()
        cluster.wire.cut(holder)
        await trio.sleep(TERM_S)
        assert cluster.log.lines == [f"{holder} begins", f"{holder} ends"]
        await trio.sleep(2 * TERM_S)
        assert len(cluster.log.lines) == 3  # on another node; see Log


class Slow(GenServer):
    """Is not ready for a long time."""

    def __init__(self, node: str, log: Log) -> None:
        self.node = node
        self.log = log

    async def init(self) -> None:
        self.log.begin(self.node)
        try:
            await trio.sleep(60.0)
        finally:
            self.log.end(self.node)


async def test_a_start_that_outlasts_the_lease_is_broken_off(
    events: list[tuple[str, str]], autojump_clock: object
) -> None:
    def make(member: Member, log: Log) -> ClusterSingleton:
        spec = child(lambda: Slow(member.name, log), id="billing")
        return billing(member, log, spec=spec)

    async with open_members(make=make) as cluster:
        await trio.sleep(LAPSE_S + 1.0)
        [holder] = cluster.log.running
        assert cluster[holder].why() == "it is being started here"
        cluster.wire.cut(holder)
        await trio.sleep(3 * TERM_S)

        assert cluster.log.lines[:2] == [f"{holder} begins", f"{holder} ends"]
        assert [what for what, name in events if name == holder][:3] == [
            "won",
            "stop",
            "lost",
        ]


# --- what goes wrong with its own processes -------------------------------------------


async def test_without_an_election_nothing_runs(autojump_clock: object) -> None:
    async with open_members() as cluster:
        holder = await cluster["a"].wait_running()
        with cluster[holder].here():
            kill("singleton billing server")
        await trio.sleep(0.01)

        assert cluster.log.lines == [f"{holder} begins", f"{holder} ends"]
        await trio.sleep(3 * TERM_S)
        assert len(cluster.log.lines) == 3


async def test_an_election_that_begins_anew_learns_where_it_runs(
    autojump_clock: object,
) -> None:
    async with open_members() as cluster:
        holder = await cluster["a"].wait_running()
        away, _ = others(cluster, holder)
        with cluster[away].here():
            kill("singleton billing server")
        await trio.sleep(0.01)

        assert cluster[away].holder() == holder
        assert cluster.log.lines == [f"{holder} begins"]


async def test_who_sees_it_run_already_needs_no_time(autojump_clock: object) -> None:
    async with open_members() as cluster:
        holder = await cluster["a"].wait_running()
        with cluster["a"].here():
            assert await cluster["a"].singleton.wait_running(timeout_s=0.0) == holder


async def test_a_node_that_lost_sight_of_the_holder_alone_learns_where_it_runs(
    autojump_clock: object,
) -> None:
    async with open_members() as cluster:
        holder = await cluster["a"].wait_running()
        away, _ = others(cluster, holder)
        # The holder has never lost sight of it.
        cluster[away].peers.told(holder, is_up=False)
        await trio.sleep(0.01)
        assert cluster[away].holder() is None
        cluster[away].peers.told(holder, is_up=True)
        await trio.sleep(0.01)

        assert cluster[away].holder() == holder


async def test_the_end_of_its_runner_ends_it_too(autojump_clock: object) -> None:
    async with open_members() as cluster:
        holder = await cluster["a"].wait_running()
        with cluster[holder].here():
            kill("singleton billing runner")
        await trio.sleep(0.01)

        heir, _ = others(cluster, holder)
        assert cluster.log.lines == [
            f"{holder} begins",
            f"{holder} ends",
            f"{heir} begins",
        ]


async def test_the_stage_may_end_and_the_lease_goes_on_to_another(
    autojump_clock: object,
) -> None:
    async with open_members() as cluster:
        holder = await cluster["a"].wait_running()
        cluster.log.running.clear()  # a killed process says nothing
        with cluster[holder].here():
            exit_process(_pid(cluster[holder], "stage"), ValueError("broken"))
            kill(_pid(cluster[holder], "stage"))
        await trio.sleep(3 * TERM_S)

        assert len(cluster.log.running) == 1


def _pid(member: Member, part: str) -> Any:
    pid = whereis(f"singleton billing {part}")
    assert pid is not None, member
    return pid


# --- arguments ------------------------------------------------------------------------


async def test_a_child_with_a_name_of_its_own_is_refused(
    autojump_clock: object,
) -> None:
    async with open_members(("a",)) as cluster:
        spec = child(lambda: Billing("a", Log()), id="billing", name="mine")
        with pytest.raises(ValueError, match="expected none; it is found as singleton"):
            s.ClusterSingleton(spec, cluster["a"], voters=["a"])


async def test_one_text_is_no_list_of_nodes(autojump_clock: object) -> None:
    async with open_members(("a",)) as cluster:
        spec = child(lambda: Billing("a", Log()), id="billing")
        for names in ({"voters": "ams"}, {"voters": ["a"], "prefer": "ams"}):
            with pytest.raises(TypeError, match="'ams': expected several names"):
                s.ClusterSingleton(spec, cluster["a"], **names)


async def test_nobody_can_take_its_name(autojump_clock: object) -> None:
    async with open_members(("a",)) as cluster:
        with cluster["a"].here(), pytest.raises(ValueError, match="majority of voters"):
            s.via("billing").register(_pid(cluster["a"], "server"))


async def test_outside_of_a_cluster_it_says_so(autojump_clock: object) -> None:
    async with open_members(("a",)) as cluster:
        spec = child(lambda: Billing("a", Log()), id="other")
        other = s.ClusterSingleton(spec, cluster["a"], voters=["a"])
        with cluster["a"].here():
            assert other.holder is None
            assert other.why() == "the cluster is not open on this node"
            assert s.via("other").whereis() is None
            assert not other.hand_over()


async def test_who_wins_and_who_stops_is_told(
    events: list[tuple[str, str]], autojump_clock: object
) -> None:
    async with open_members() as cluster:
        holder = await cluster["a"].wait_running()
        *_, heir = others(cluster, holder)
        with cluster[holder].here():
            cluster[holder].singleton.hand_over(heir)
        await trio.sleep(0.01)

        assert events == [("won", holder), ("stop", holder), ("won", heir)]
