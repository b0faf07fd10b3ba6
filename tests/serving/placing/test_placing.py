"""Nodes place, start, drain and take over, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from atomr.otp import which_children
from atomr.process.context import NODE
from atomr_infer.errors import ConfigError, NotReadyError
from atomr_infer.model.deployment import Deployment, Serving
from atomr_infer.model.placement import Check, Placement
from atomr_infer.model.secret import EnvSecret
from atomr_infer.serving.names import DEPLOYMENTS
from atomr_infer.serving.placing.leaving import Move
from atomr_infer.serving.placing.placer import Met
from atomr_infer.serving.requests.elsewhere import know
from tests.serving.placing.world import Places, open_places

REMOTE: dict[str, Any] = {
    "runtime": "openai",
    "model": "gpt",
    "options": {"endpoint": "http://127.0.0.1:9/v1"},
}


def local(name: str = "tiny", replicas: int = 1, **more: Any) -> Deployment:
    serving = Serving(replicas=replicas)
    return Deployment(**{"name": name, "runtime": "mock", "serving": serving, **more})


def remote(name: str = "gpt", **more: Any) -> Deployment:
    return Deployment(**{"name": name, **REMOTE, **more})


async def test_a_local_engine_runs_once_whoever_asks(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b", "c") as places:
        await places["b"].orders.deploy(local())
        [(node, runs)] = places.runs.items()
        assert runs == {"tiny": 1}
        for place in places.all.values():
            assert place.state("tiny") == "serving"
            assert place.serving.table.resolve("tiny").deployment == "tiny"
        others = [p for p in places.all.values() if p.name != node]
        assert [p.serving.is_elsewhere("tiny") for p in others] == [True, True]


async def test_a_provider_is_asked_from_every_node_with_egress(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b") as places:
        await places.start("inner", roles=("gpu",))
        await places["inner"].orders.deploy(remote())
        assert places.runs == {"a": {"gpt": 1}, "b": {"gpt": 1}}
        await places.start("c")
        await places.until(lambda: "c" in places.runs, within_s=10)


async def test_replicas_of_a_lost_node_run_elsewhere_after_a_while(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b", "c") as places:
        await places["a"].orders.deploy(local())
        [lost] = places.runs
        places.kill(lost)
        await trio.sleep(29)
        assert places.runs == {}
        await places.until(lambda: bool(places.runs), within_s=5)
        [taker] = places.runs
        await places.start(lost)
        await trio.sleep(60)
        assert places.runs == {taker: {"tiny": 1}}


async def test_a_node_that_is_back_in_time_has_its_replica_and_nobody_else(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b", "c") as places:
        await places["a"].orders.deploy(local())
        [lost] = places.runs
        places.kill(lost)
        await trio.sleep(20)
        await places.start(lost)
        await places.until(lambda: bool(places.runs), within_s=10)
        await trio.sleep(60)
        assert sum(runs["tiny"] for runs in places.runs.values()) == 1


async def test_a_short_cut_moves_nothing(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b", "c") as places:
        await places["a"].orders.deploy(local())
        before = places.runs
        places.world.cut(*before)
        await trio.sleep(25)
        places.world.heal()
        await trio.sleep(120)
        assert places.runs == before


async def test_each_side_of_a_long_cut_serves_and_one_is_left_when_it_heals(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b", "c") as places:
        await places["a"].orders.deploy(local())
        [first] = places.runs
        places.world.cut(first)
        await places.until(lambda: len(places.runs) == 2, within_s=40)
        places.world.heal()
        await places.until(lambda: len(places.runs) == 1, within_s=10)
        await trio.sleep(60)
        [(_, runs)] = places.runs.items()
        assert runs == {"tiny": 1}


async def test_what_both_sides_of_a_cut_deploy_is_there_when_it_heals(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b", "c", "d") as places:
        places.world.cut("a", "b")
        await places["a"].orders.deploy(local("left"))
        await places["d"].orders.deploy(local("right"))
        places.world.heal()
        await trio.sleep(5)
        for place in places.all.values():
            assert set(place.orders.picture().catalogue) == {"left", "right"}


async def test_a_restarted_node_starts_nothing_twice_before_it_has_met_others(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b") as places:
        await places["a"].orders.deploy(local("one"))
        await places["a"].orders.deploy(local("two"))
        before = places.runs
        # It has read the catalogue from its disk, and sees nobody yet.
        places.world.cut("a", "b")
        await places.start("c")
        for write in places.world.log:
            write.known_to.add("c")
        await trio.sleep(14)
        assert places.runs == before
        places.world.heal()
        await trio.sleep(60)
        assert places.runs == before


@pytest.mark.parametrize(
    ("others", "not_after_s", "after_s"),
    [("b", 4, 6), ("", 14, 16)],
    ids=["most", "few"],
)
async def test_a_node_that_sees_few_of_the_voters_waits_longer_for_them(
    autojump_clock: object, others: str, not_after_s: float, after_s: float
) -> None:
    async with open_places() as places:
        places.voters = 3
        await places.start("a", *others)
        await places["a"].orders.deploy(local(), wait=False)
        await trio.sleep(not_after_s)
        assert places.runs == {}
        await trio.sleep(after_s - not_after_s)
        assert list(places.runs.values()) == [{"tiny": 1}]


@pytest.mark.parametrize("linked_s", [3, 7, 14.9])
@pytest.mark.parametrize("rise", [Met.MOST, Met.ALL])
async def test_a_node_hears_those_whom_it_meets_late(
    autojump_clock: object,
    monkeypatch: pytest.MonkeyPatch,
    linked_s: float,
    rise: Met,
) -> None:
    linked: set[str] = set()
    real = Places._met
    monkeypatch.setattr(
        Places, "_met", lambda self, n: rise if n in linked else real(self, n)
    )
    async with open_places("a", "b") as places:
        await places["a"].orders.deploy(local("one"))
        await places["a"].orders.deploy(local("two"))
        before = places.runs
        places.world.cut("a", "b")
        await places.start("c")
        for write in places.world.log:
            write.known_to.add("c")
        await trio.sleep(linked_s)
        assert places.runs == before
        # It sees the voters, and what they run comes a moment after.
        linked.add("c")
        places.world.changed()
        await trio.sleep(0.9)
        assert places.runs == before
        places.world.heal()
        await trio.sleep(60)
        assert places.runs == before


async def test_scaling_out_and_in_goes_over_the_nodes(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b", "c") as places:
        await places["a"].orders.deploy(local())
        await places["b"].orders.scale("tiny", 4)
        assert sorted(runs["tiny"] for runs in places.runs.values()) == [1, 1, 2]
        await places["c"].orders.scale("tiny", 2)
        await places.until(
            lambda: [r["tiny"] for r in places.runs.values()] == [1, 1], within_s=10
        )


async def test_a_removed_deployment_ends_everywhere(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b") as places:
        await places["a"].orders.deploy(remote())
        assert await places["b"].orders.undeploy("gpt")
        assert places.runs == {}
        assert places["a"].serving.table.names() == ()
        assert not await places["b"].orders.undeploy("gpt")


async def test_a_change_reaches_all_nodes_and_can_be_undone(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b") as places:
        await places["a"].orders.deploy(remote())
        wider = remote(serves=("gpt", "gpt-*"))
        await places["b"].orders.change(wider)
        assert [p.serving.table.names() for p in places.all.values()] == [
            ("gpt", "gpt-*"),
            ("gpt", "gpt-*"),
        ]
        await places["a"].orders.change(remote())
        entry = places["b"].orders.picture().catalogue["gpt"].entry
        assert (entry.revision, entry.by) == (3, "a")


# --- what a node's file says -----------------------------------------------------


async def test_the_same_file_on_all_nodes_is_one_entry(autojump_clock: object) -> None:
    async with open_places("a", "b") as places:
        assert places["a"].orders.declare([remote()]) == (
            "gpt is deployed, as revision 1",
        )
        assert places["b"].orders.declare([remote()]) == ()
        await places.until(lambda: len(places.runs) == 2, within_s=10)
        [status] = places["b"].orders.statuses()
        assert (status.revision, status.by, status.conflicts) == (1, "a", ())


async def test_a_file_that_is_read_again_changes_all_nodes(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b") as places:
        places["a"].orders.declare([remote()])
        wider = remote(serves=("gpt", "gpt-*"))
        assert places["a"].orders.declare([wider]) == ("gpt is changed, as revision 2",)
        await places.until(
            lambda: "gpt-*" in places["b"].serving.table.names(), within_s=10
        )


async def test_a_node_with_last_weeks_file_undoes_nothing(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b") as places:
        wider = remote(serves=("gpt", "gpt-*"))
        places["a"].orders.declare([remote()])
        places["a"].orders.declare([wider])
        assert places["b"].orders.declare([remote()]) == (
            "gpt stays as revision 2 has it, from a: what this node's file says is "
            "older",
        )
        [status] = places["a"].orders.statuses()
        assert status.revision == 2
        assert status.conflicts == ("the file of b has older content",)


async def test_last_weeks_file_behind_a_cut_does_not_come_back_when_it_heals(
    autojump_clock: object,
) -> None:
    async with open_places("a") as places:
        places["a"].orders.declare([remote()])
        places["a"].orders.declare([remote(serves=("gpt", "gpt-*"))])
        places.world.cut("b")
        await places.start("b")
        assert places["b"].orders.declare([remote()], at_start=True) == (
            "gpt is deployed, as revision 1",
        )
        await places.until(lambda: places["b"].runs() == {"gpt": 1}, within_s=10)

        places.world.heal()

        await places.until(
            lambda: "gpt-*" in places["b"].serving.table.names(), within_s=10
        )
        for name in "ab":
            [status] = places[name].orders.statuses()
            assert (status.revision, status.by) == (2, "a")
            assert status.conflicts == ("the file of b has older content",)


async def test_of_two_edits_on_both_sides_of_a_cut_the_last_one_counts(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b") as places:
        places["a"].orders.declare([remote()])
        places["b"].orders.declare([remote()])
        places.world.cut("b")
        places["a"].orders.declare([remote(serves=("gpt", "gpt-*"))])
        places["b"].orders.declare([remote(serves=("gpt", "g"))])
        places.world.heal()
        for name in "ab":
            [status] = places[name].orders.statuses()
            assert (status.revision, status.by) == (2, "b")
            assert status.conflicts == (
                "the file of a has another content",
                "another node wrote another one at the same moment; the last one "
                "counts",
            )


ANOTHER_TOO = "another node wrote another one at the same moment; the last one counts"


async def test_what_is_deployed_anew_beyond_a_cut_is_not_taken_for_an_old_file(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b") as places:
        a, b = places["a"].orders, places["b"].orders
        await a.deploy(remote(), wait=False)
        await a.replace(remote(serves=("gpt", "gpt-*")), wait=False)
        places.world.cut("b")
        await b.replace(remote(serves=("gpt", "g")), wait=False)
        await a.undeploy("gpt", wait=False)
        await a.deploy(remote(), wait=False)  # a first revision, which is the last

        places.world.heal()

        await places.until(
            lambda: places["b"].serving.table.names() == ("gpt",), within_s=10
        )
        for orders in (a, b):
            [status] = orders.statuses()
            assert (status.revision, status.by) == (1, "a")
            assert status.conflicts == (ANOTHER_TOO,)


async def test_an_older_text_that_is_read_behind_a_cut_counts_when_it_is_the_last(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b") as places:
        a, b = places["a"].orders, places["b"].orders
        a.declare([remote()])
        a.declare([remote(serves=("gpt", "gpt-*"))])
        b.declare([remote(serves=("gpt", "gpt-*"))], at_start=True)
        places.world.cut("b")
        for name in ("g", "g-*"):
            a.declare([remote(serves=("gpt", name))])
        assert b.declare([remote()]) == ("gpt is changed, as revision 3",)

        places.world.heal()

        for orders in (a, b):
            [status] = orders.statuses()
            assert (status.revision, status.by) == (3, "b")
            assert status.conflicts == (
                "the file of a has another content",
                ANOTHER_TOO,
            )


async def test_an_older_text_that_is_written_anew_counts(
    autojump_clock: object,
) -> None:
    async with open_places("a") as places:
        orders = places["a"].orders
        orders.declare([remote()])
        orders.declare([remote(serves=("gpt", "gpt-*"))])
        assert orders.declare([remote()]) == ("gpt is changed, as revision 3",)


async def test_what_is_in_no_file_any_more_is_removed(autojump_clock: object) -> None:
    async with open_places("a", "b") as places:
        both = [remote(), local()]
        places["a"].orders.declare(both)
        places["b"].orders.declare(both)
        await places.until(lambda: len(places.runs) == 2, within_s=10)
        assert places["a"].orders.declare([remote()]) == (
            "tiny stays: it stands in another node's file",
        )
        assert places["b"].orders.declare([remote()]) == ("tiny is removed",)
        await places.until(
            lambda: places.runs == {"a": {"gpt": 1}, "b": {"gpt": 1}}, within_s=10
        )


async def test_what_a_program_deployed_stays_beside_a_file(
    autojump_clock: object,
) -> None:
    async with open_places("a") as places:
        await places["a"].orders.deploy(local("by-hand"))
        places["a"].orders.declare([remote()])
        assert places["a"].orders.declare([]) == ("gpt is removed",)
        names = [status.name for status in places["a"].orders.statuses()]
        assert "by-hand" in names


async def test_a_file_with_a_mistake_changes_nothing(autojump_clock: object) -> None:
    async with open_places("a") as places:
        bad = remote("bad", fallbacks=("nobody",))
        with pytest.raises(ConfigError, match="cannot fall back to 'nobody'"):
            places["a"].orders.declare([local(), bad])
        assert places["a"].orders.statuses() == ()


# --- what cannot work --------------------------------------------------------------


async def test_what_cannot_start_is_told_by_each_node_and_removed_again(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b") as places:
        wanted = remote(credential=EnvSecret("NOT_THERE"))
        with pytest.raises(NotReadyError) as caught:
            await places["a"].orders.deploy(wanted)
        told = caught.value.message
        assert told.startswith("gpt cannot be served: a: deployment 'gpt' has no")
        assert told.count("the environment variable NOT_THERE is not set") == 2
        assert places["b"].orders.statuses() == ()


async def test_a_local_engine_that_fails_on_one_node_starts_on_another(
    autojump_clock: object,
) -> None:
    async with open_places("a") as places:
        await places.start("b", runtimes=("openai",))
        await places["b"].orders.deploy(local())
        assert places.runs == {"a": {"tiny": 1}}
        [status] = places["b"].orders.statuses()
        assert [p.detail for p in status.passed] == ["has no runtime 'mock'"]


async def test_what_failed_is_tried_again_after_a_while(
    autojump_clock: object,
) -> None:
    async with open_places("a") as places:
        await places["a"].orders.deploy(
            remote(credential=EnvSecret("LATER")), wait=False
        )
        await places.until(lambda: places["a"].state("gpt") == "failed", within_s=5)
        assert places.runs == {}
        [status] = places["a"].orders.statuses()
        assert "LATER is not set" in status.reason
        places.environ["LATER"] = "sk-1"
        await places.until(lambda: bool(places.runs), within_s=12)
        assert places["a"].state("gpt") == "serving"


async def test_what_no_node_may_run_is_pending_until_one_comes(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b") as places:
        wanted = local(placement=Placement(labels={"region": "eu"}))
        with pytest.raises(ConfigError, match="cannot be placed: a: has no label"):
            await places["a"].orders.deploy(wanted)
        await places["a"].orders.deploy(wanted, wait=False)
        assert places["b"].state("tiny") == "pending"
        await places.start("c", labels={"region": "eu"})
        await places.until(lambda: places.runs == {"c": {"tiny": 1}}, within_s=10)


async def test_a_deploy_that_is_given_up_leaves_nothing(
    autojump_clock: object,
) -> None:
    slow = local(options={"load_s": 1000.0})
    async with open_places("a", "b") as places:
        with trio.move_on_after(20):
            await places["a"].orders.deploy(slow)
            raise AssertionError("it does not serve so soon")
        await trio.sleep(5)
        assert places.runs == {}
        assert places["b"].orders.statuses() == ()


# --- a node that leaves --------------------------------------------------------------


async def test_a_node_that_leaves_waits_until_others_have_taken_over(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b") as places:
        await places["a"].orders.deploy(local())
        await places["a"].orders.deploy(remote())
        [holder] = [name for name, runs in places.runs.items() if "tiny" in runs]
        [other] = {"a", "b"} - {holder}
        await places[holder].orders.leave()
        assert places.runs == {other: {"tiny": 1, "gpt": 1}}
        assert set(places[holder].serving.table.names()) == {"tiny", "gpt"}


async def test_who_is_about_to_go_says_what_moves_and_what_stays_and_may_stay(
    autojump_clock: object,
) -> None:
    only_a = local(name="big", placement=Placement(labels={"at": ("a",)}))
    async with open_places() as places:
        await places.start("a", labels={"at": "a"})
        await places["a"].orders.deploy(local())
        await places["a"].orders.deploy(only_a)
        await places.start("b", labels={"at": "b"})
        await places["a"].orders.deploy(remote())
        await trio.sleep(5)
        orders = places["a"].orders
        assert orders.begin_leaving() == (
            Move(
                deployment="big",
                reason="b: has the label 'at' = 'b', not 'a'",
            ),
            Move(deployment="gpt", to=("b",), is_there=True),
            Move(deployment="tiny", to=("b",)),
        )
        assert orders.goes("tiny")
        await orders.leave()
        assert places.runs == {"a": {"big": 1}, "b": {"gpt": 1, "tiny": 1}}
        orders.stay()
        await trio.sleep(5)
        assert places.runs == {
            "a": {"big": 1, "gpt": 1},
            "b": {"gpt": 1, "tiny": 1},
        }


async def test_the_last_node_does_not_wait_for_others(autojump_clock: object) -> None:
    async with open_places("a") as places:
        await places["a"].orders.deploy(local())
        with trio.fail_after(1):
            await places["a"].orders.leave()
        assert places.runs == {"a": {"tiny": 1}}


async def test_nodes_that_all_leave_wait_for_nobody(autojump_clock: object) -> None:
    async with open_places("a", "b") as places:
        await places["a"].orders.deploy(local())
        await places["a"].orders.deploy(remote())
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for place in places.all.values():
                    nursery.start_soon(place.orders.leave)


async def test_a_node_that_leaves_does_not_wait_for_one_that_is_gone(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b") as places:
        await places["a"].orders.deploy(remote())
        places.kill("b")
        with trio.fail_after(5):
            await places["a"].orders.leave()


# --- crashes -----------------------------------------------------------------------


async def test_a_placer_that_crashes_takes_over_what_runs(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b") as places:
        await places["a"].orders.deploy(local())
        await places["a"].orders.deploy(remote())
        before = places.runs
        cores = {
            (place.name, name): [r.core for r in place.serving.replicas(name)]
            for place in places.all.values()
            for name in ("tiny", "gpt")
        }
        for place in places.all.values():
            place.crash_placer()
        await trio.sleep(30)
        assert places.runs == before
        assert cores == {
            (place.name, name): [r.core for r in place.serving.replicas(name)]
            for place in places.all.values()
            for name in ("tiny", "gpt")
        }
        assert places["a"].state("tiny") == places["a"].state("gpt") == "serving"


async def test_what_was_removed_while_a_placer_was_down_ends(
    autojump_clock: object,
) -> None:
    async with open_places("a") as places:
        await places["a"].orders.deploy(local())
        places["a"].crash_placer()
        await places["a"].orders.undeploy("tiny", wait=False)
        await places.until(lambda: places.runs == {}, within_s=10)
        assert places["a"].serving.table.names() == ()


async def test_a_revision_that_cannot_be_leaves_the_one_before_it_serving(
    autojump_clock: object,
) -> None:
    async with open_places("a") as places:
        place = places["a"]
        await place.orders.deploy(remote())
        bad = remote(credential=EnvSecret("NO_SUCH_KEY"))
        with pytest.raises(NotReadyError, match="NO_SUCH_KEY is not set"):
            await place.orders.replace(bad)
        assert place.state("gpt") == "failed"
        assert places.runs == {"a": {"gpt": 1}}
        assert place.serving.readiness().phases["gpt"] == "serving"
        await place.orders.replace(
            remote(options={"endpoint": "http://127.0.0.1:8/v1"})
        )
        assert place.state("gpt") == "serving"
        await place.orders.undeploy("gpt")
        await places.until(lambda: not places.runs, within_s=10)


async def test_what_drains_here_ends_in_time_where_others_still_run_it(
    autojump_clock: object,
) -> None:
    async with open_places("a") as places:
        serving, deployment = places["a"].serving, local("tiny")
        token = NODE.set(places["a"].node)
        await serving.deploy(deployment)
        permit = serving.replicas("tiny")[0].permits.take(0)
        assert permit is not None
        know(serving, deployment, ())
        assert await serving.undeploy("tiny", drain_s=1.0)
        assert [child.id for child in await which_children(DEPLOYMENTS)] == []
        assert serving.draining == frozenset()
        # It is asked from here all the same.
        assert serving.is_elsewhere("tiny")
        assert serving.table.resolve("tiny").deployment == "tiny"
        NODE.reset(token)


async def test_what_a_model_of_other_nodes_costs_is_known_where_it_is_asked(
    autojump_clock: object,
) -> None:
    """What it costs is a matter of budgets of keys, which are kept by who is asked."""
    sold = remote(
        options={"endpoint": "https://api.openai.com/v1"},
        model="gpt-4o",
        credential=EnvSecret("KEY"),
        placement=Placement(check=Check.NONE),
    )
    async with open_places() as places:
        places.environ["KEY"] = "sk-1"
        await places.start("a")
        await places.start("edge", roles=("edge",))
        edge, here = places["edge"].serving, places["a"].serving
        await places["a"].orders.deploy(sold)
        assert edge.is_elsewhere("gpt")
        price = here.prices.price(here.deployments["gpt"], "gpt-4o")
        assert price is not None
        assert edge.prices.price(edge.deployments["gpt"], "gpt-4o") == price
        # One that ran here, and runs elsewhere alone now.
        token = NODE.set(places["a"].node)
        await here.undeploy("gpt")
        NODE.reset(token)
        assert here.is_elsewhere("gpt")
        assert here.prices.price(here.deployments["gpt"], "gpt-4o") == price
        await places["a"].orders.undeploy("gpt", wait=False)
        await places.until(lambda: not edge.deployments, within_s=20)
        assert edge.prices.price(sold, "gpt-4o") is None
