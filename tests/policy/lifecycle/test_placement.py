"""Which node runs what: rule by rule, and against the promises over random clusters."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_infer.model.placement import Placement, Role
from atomr_infer.model.validation import InvalidValueError
from atomr_infer.policy.lifecycle.placement import (
    Gpus,
    Passed,
    Placed,
    Site,
    Wanted,
    Why,
    plan,
    rank,
)


def local(name: str, replicas: int = 1, **placement: Any) -> Wanted:
    return Wanted(name=name, replicas=replicas, placement=Placement(**placement))


def remote(name: str, replicas: int = 1, **placement: Any) -> Wanted:
    return attrs.evolve(local(name, replicas, **placement), remote=True)


def sites(*names: str) -> list[Site]:
    return [Site(name=name) for name in names]


def counts(placed: Placed) -> dict[str, int]:
    return {node: len(gpus) for node, gpus in placed.nodes.items()}


def held(replicas: int) -> tuple[Gpus, ...]:
    return ((),) * replicas


def one(wanted: Wanted, nodes: list[Site]) -> Placed:
    return plan([wanted], nodes)[wanted.name]


def carried_out(nodes: list[Site], placed: dict[str, Placed]) -> list[Site]:
    """The nodes when each runs what was planned for it."""
    return [
        attrs.evolve(
            site,
            held={
                name: each.nodes[site.name]
                for name, each in placed.items()
                if site.name in each.nodes
            },
        )
        for site in nodes
    ]


# --- what a node must be ------------------------------------------------------


def test_a_remote_deployment_runs_on_every_node_with_egress() -> None:
    inner = Site(name="c", roles=frozenset({Role.GPU}))
    placed = one(remote("gpt", 2), [*sites("a", "b"), inner])
    assert counts(placed) == {"a": 2, "b": 2}
    assert placed.missing == 0
    assert placed.passed == (Passed("c", Why.ROLE, "lacks the role egress"),)


def test_a_remote_deployment_runs_so_many_times_in_all_where_that_is_asked() -> None:
    placed = one(remote("gpt", 1, everywhere=False), sites("a", "b"))
    [node] = placed.nodes
    assert node == max("ab", key=lambda name: rank("gpt", name))


def test_a_local_engine_runs_so_many_times_in_all_spread_evenly() -> None:
    placed = one(local("tiny", 4), sites("a", "b", "c"))
    assert sorted(counts(placed).values()) == [1, 1, 2]


def test_a_local_engine_runs_everywhere_where_that_is_asked() -> None:
    assert counts(one(local("tiny", everywhere=True), sites("a", "b"))) == {
        "a": 1,
        "b": 1,
    }


def test_named_roles_are_needed_all() -> None:
    wanted = local("tiny", roles={Role.EDGE, Role.EGRESS})
    edge = Site(name="a", roles=frozenset({Role.EDGE}))
    placed = one(wanted, [edge, *sites("b")])
    assert counts(placed) == {"b": 1}
    assert placed.passed == (Passed("a", Why.ROLE, "lacks the role egress"),)


def test_labels_say_where_it_may_run() -> None:
    wanted = remote("gpt", labels={"region": ["eu", "uk"]})
    nodes = [
        Site(name="a", labels={"region": "eu"}),
        Site(name="b", labels={"region": "us"}),
        Site(name="c"),
    ]
    placed = one(wanted, nodes)
    assert counts(placed) == {"a": 1}
    assert placed.passed == (
        Passed("b", Why.LABEL, "has the label 'region' = 'us', not 'eu' or 'uk'"),
        Passed("c", Why.LABEL, "has no label 'region'; it must be 'eu' or 'uk'"),
    )


def test_a_node_that_refuses_is_passed_with_its_reason() -> None:
    refusing = Site(name="a", refusals={"gpt": "the variable KEY is not set"})
    placed = one(remote("gpt"), [refusing, *sites("b")])
    assert counts(placed) == {"b": 1}
    assert placed.passed == (Passed("a", Why.REFUSED, "the variable KEY is not set"),)


def test_nodes_that_would_do_are_told_too() -> None:
    nodes = [Site(name="a", held={"tiny": held(1)}), *sites("b")]
    assert one(local("tiny"), nodes).passed == (
        Passed("b", Why.NOT_NEEDED, "would do; it runs on a"),
    )


def test_what_has_no_place_says_why_not_on_each_node() -> None:
    nodes = [Site(name="a", roles=frozenset()), Site(name="b", gpus_gib=(24.0,))]
    placed = one(local("big", gpus=2), nodes)
    assert (placed.nodes, placed.missing) == ({}, 1)
    assert placed.obstacles == ("a: lacks the role gpu; b: has 1 GPU, not 2")


def test_without_nodes_all_replicas_are_missing() -> None:
    for wanted in (local("tiny", 2), remote("gpt", 2)):
        placed = one(wanted, [])
        assert (placed.missing, placed.obstacles) == (2, "there is no node")


# --- GPUs ---------------------------------------------------------------------


def test_a_replica_takes_all_of_its_gpus_on_one_node() -> None:
    nodes = [
        Site(name="a", gpus_gib=(80.0, 80.0, 80.0)),
        Site(name="b", gpus_gib=(80.0,)),
    ]
    placed = one(local("big", 2, gpus=2), nodes)
    assert placed.nodes == {"a": ((0, 1),)}
    assert placed.missing == 1
    assert placed.obstacles == (
        "a: has 1 of 2 GPUs with all memory free; b: has 1 GPU, not 2"
    )


def test_gpus_are_shared_by_those_who_say_how_much_they_take() -> None:
    node = Site(name="a", gpus_gib=(24.0, 80.0))
    placed = plan(
        [
            local("x", gpus=1, gpu_memory_gib=20),
            local("y", gpus=1, gpu_memory_gib=40),
            local("z", gpus=1, gpu_memory_gib=40),
            local("w", gpus=1, gpu_memory_gib=5),
        ],
        [node],
    )
    found = {name: each.nodes.get("a") for name, each in placed.items()}
    # In the order of names; each goes where the least is left over.
    assert found == {"w": ((0,),), "x": ((1,),), "y": ((1,),), "z": None}
    assert placed["z"].obstacles == "a: has 0 of 1 GPUs with 40 GiB free"


def test_what_runs_keeps_its_gpus_and_others_get_what_is_left() -> None:
    node = Site(name="a", gpus_gib=(80.0, 80.0), held={"old": ((1,),)})
    placed = plan([local("old", gpus=1), local("new", gpus=1)], [node])
    assert placed["old"].nodes == {"a": ((1,),)}
    assert placed["new"].nodes == {"a": ((0,),)}


def test_what_a_removed_deployment_still_has_is_not_given_away() -> None:
    node = Site(name="a", gpus_gib=(80.0,), held={"gone": ((0,),)})
    assert one(local("new", gpus=1), [node]).missing == 1


def test_a_deployment_that_needs_more_gpus_now_is_placed_anew() -> None:
    node = Site(name="a", gpus_gib=(80.0, 80.0), held={"big": ((0,),)})
    assert one(local("big", gpus=2), [node]).nodes == {"a": ((0, 1),)}


def test_a_gpu_that_a_node_has_no_more_is_no_trouble() -> None:
    node = Site(name="a", gpus_gib=(80.0,), held={"old": ((3,),)})
    assert one(local("old", gpus=1), [node]).nodes == {"a": ((3,),)}


def test_a_gpu_of_which_more_is_held_than_it_has_is_full() -> None:
    two = local("old", 2, gpus=1, gpu_memory_gib=20)
    node = Site(name="a", gpus_gib=(24.0,), held={"old": ((0,), (0,))})
    placed = plan([two, local("new", gpus=1, gpu_memory_gib=1)], [node])
    assert placed["old"].nodes == {"a": ((0,), (0,))}
    assert placed["new"].missing == 1


# --- co-location --------------------------------------------------------------


def test_a_deployment_stands_beside_the_one_that_it_names() -> None:
    base = local("base")
    beside = local("adapter", 2, colocate_with="base")
    placed = plan([beside, base], sites("a", "b", "c"))
    [node] = placed["base"].nodes
    assert counts(placed["adapter"]) == {node: 2}
    assert {p.detail for p in placed["adapter"].passed} == {"does not run 'base'"}


def test_beside_a_deployment_that_is_not_there_nothing_runs() -> None:
    placed = one(local("adapter", colocate_with="base"), sites("a"))
    assert placed.obstacles == "a: does not run 'base'"


def test_a_circle_of_colocations_runs_nowhere() -> None:
    pair = [local("x", colocate_with="y"), local("y", colocate_with="x")]
    assert {name: each.missing for name, each in plan(pair, sites("a")).items()} == {
        "x": 1,
        "y": 1,
    }


# --- stillness ----------------------------------------------------------------


def test_a_node_that_joins_takes_nothing_from_those_that_run_one_each() -> None:
    nodes = [Site(name="a", held={"tiny": held(1)}), *sites("b", "c")]
    assert counts(one(local("tiny"), nodes)) == {"a": 1}


def test_a_node_that_joins_takes_from_one_that_has_two_more() -> None:
    nodes = [Site(name="a", held={"tiny": held(3)}), *sites("b")]
    assert counts(one(local("tiny", 3), nodes)) == {"a": 2, "b": 1}


def test_of_two_that_run_the_same_replica_all_nodes_name_the_same() -> None:
    nodes = [Site(name=name, held={"tiny": held(1)}) for name in "abc"]
    kept = max("abc", key=lambda name: rank("tiny", name))
    for order in permutations(nodes):
        assert counts(one(local("tiny"), list(order))) == {kept: 1}


def test_a_leaving_node_gives_its_replica_to_another() -> None:
    leaving = Site(name="a", held={"tiny": held(1)}, leaving=True)
    placed = one(local("tiny"), [leaving, *sites("b")])
    assert counts(placed) == {"b": 1}
    assert placed.passed == (Passed("a", Why.LEAVING, "is leaving"),)


@pytest.mark.parametrize("wanted", [local("tiny"), remote("tiny")])
def test_a_leaving_node_keeps_what_nobody_else_can_take(wanted: Wanted) -> None:
    leaving = Site(name="a", held={"tiny": held(1)}, leaving=True)
    placed = one(wanted, [leaving])
    assert (counts(placed), placed.missing) == ({"a": 1}, 0)


def test_a_remote_deployment_leaves_a_leaving_node_when_others_have_it() -> None:
    leaving = Site(name="a", held={"gpt": held(1)}, leaving=True)
    assert counts(one(remote("gpt"), [leaving, *sites("b")])) == {"b": 1}


# --- the value ----------------------------------------------------------------


def test_memory_without_gpus_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="needs gpus; say how many"):
        Placement(gpu_memory_gib=10)


@pytest.mark.parametrize("labels", [{"region": []}, {"region": [""]}, {"": "eu"}])
def test_a_label_that_says_nothing_is_refused(labels: dict[str, list[str]]) -> None:
    with pytest.raises(InvalidValueError, match="labels"):
        Placement(labels=labels)


# --- random clusters ----------------------------------------------------------

_NODES = st.lists(
    st.builds(
        Site,
        name=st.sampled_from("abcde"),
        gpus_gib=st.lists(st.sampled_from([24.0, 80.0]), max_size=4).map(tuple),
        leaving=st.sampled_from([False, False, True]),
    ),
    unique_by=lambda site: site.name,
    max_size=5,
)
_PLACEMENTS = st.sampled_from(
    [
        Placement(),
        Placement(gpus=1),
        Placement(gpus=2),
        Placement(gpus=1, gpu_memory_gib=20),
        Placement(everywhere=True),
    ]
)
_WANTED = st.lists(
    st.builds(
        Wanted,
        name=st.sampled_from("uvwxyz"),
        replicas=st.integers(1, 4),
        placement=_PLACEMENTS,
        remote=st.booleans(),
    ),
    unique_by=lambda wanted: wanted.name,
    max_size=6,
)


@given(wanted=_WANTED, nodes=_NODES, data=st.data())
def test_the_plan_does_not_depend_on_the_order(
    wanted: list[Wanted], nodes: list[Site], data: st.DataObject
) -> None:
    other = data.draw(st.permutations(wanted)), data.draw(st.permutations(nodes))
    assert plan(*other) == plan(wanted, nodes)


@given(wanted=_WANTED, nodes=_NODES)
def test_a_plan_that_was_carried_out_stays(
    wanted: list[Wanted], nodes: list[Site]
) -> None:
    first = plan(wanted, nodes)
    second = plan(wanted, carried_out(nodes, first))
    assert {n: p.nodes for n, p in second.items()} == {
        n: p.nodes for n, p in first.items()
    }


@given(wanted=_WANTED, nodes=_NODES)
def test_no_gpu_holds_more_than_it_has(wanted: list[Wanted], nodes: list[Site]) -> None:
    placed = plan(wanted, nodes)
    for site in nodes:
        left = dict(enumerate(site.gpus_gib))
        for each in wanted:
            share = each.placement.gpu_memory_gib
            for gpus in placed[each.name].nodes.get(site.name, ()):
                assert len(gpus) == len(set(gpus)) == each.placement.gpus
                for number in gpus:
                    left[number] -= site.gpus_gib[number] if share is None else share
        assert all(free >= 0 for free in left.values())


@given(wanted=_WANTED, nodes=_NODES)
def test_as_many_replicas_are_placed_or_missing_as_are_wanted(
    wanted: list[Wanted], nodes: list[Site]
) -> None:
    for each in wanted:
        placed = one(each, nodes)
        if not each.everywhere:
            assert sum(counts(placed).values()) + placed.missing == each.replicas
        told = {p.node for p in placed.passed} | set(placed.nodes)
        assert told == {site.name for site in nodes}


@given(wanted=_WANTED, nodes=_NODES, data=st.data())
def test_a_node_that_goes_moves_only_what_it_had(
    wanted: list[Wanted], nodes: list[Site], data: st.DataObject
) -> None:
    if not nodes:
        return
    placed = plan(wanted, nodes)
    gone = data.draw(st.sampled_from(nodes)).name
    left = [s for s in carried_out(nodes, placed) if s.name != gone]
    for name, after in plan(wanted, left).items():
        before = {n: g for n, g in placed[name].nodes.items() if n != gone}
        for node, gpus in before.items():
            assert after.nodes[node][: len(gpus)] == gpus
