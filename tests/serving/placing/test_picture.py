"""What follows from what a node knows: its share, when it may end, what is told."""

from __future__ import annotations

from typing import Any

import attrs

from atomr_infer.policy.lifecycle.deployment_state import State
from atomr_infer.serving.placing.picture import Known, Picture, understood
from atomr_infer.serving.placing.records import Claim, Entry, Facts, revised

ALL = ("control", "egress", "edge")


def known(name: str = "tiny", *, remote: bool = False, **more: Any) -> Known:
    table = {"name": name, "runtime": "mock", **more}
    entry = revised(None, table, remote=remote, by="a")
    assert entry is not None
    return understood(entry)


def facts(**more: Any) -> Facts:
    return Facts(**{"roles": ALL, **more})


def claim(state: str, replicas: int = 1, **more: Any) -> Claim:
    full = {"gpus": ((),) * replicas, "serving": replicas, "digest": "", **more}
    return Claim(state=State(state), **full)


def picture(*entries: Known, me: str = "a", **more: Any) -> Picture:
    catalogue = {each.entry.table["name"]: each for each in entries}
    return Picture(
        me=me,
        catalogue=catalogue,
        facts=more.pop("facts", {"a": facts(), "b": facts()}),
        **more,
    )


def of(entry: Known, found: Claim) -> Claim:
    """The claim, about the entry as it is now."""
    return Claim(
        state=found.state,
        gpus=found.gpus,
        serving=found.serving,
        digest=entry.entry.digest,
        reason=found.reason,
    )


def test_a_share_is_what_the_plan_says_of_this_node() -> None:
    tiny = known(serving={"replicas": 4})
    assert picture(tiny).share("tiny") == ((), ())
    assert picture(tiny).share("other") == ()


def test_what_a_node_says_that_it_runs_stays_there() -> None:
    tiny = known()
    for node in "ab":
        drawn = picture(tiny, claims={"tiny": {node: claim("loading")}})
        assert drawn.plan["tiny"].nodes == {node: ((),)}


def test_a_node_on_which_it_failed_is_passed_until_it_is_changed() -> None:
    tiny = known()
    failed = of(tiny, claim("failed", 0, reason="no such file"))
    drawn = picture(tiny, claims={"tiny": {"a": failed}})
    assert set(drawn.plan["tiny"].nodes) == {"b"}
    assert drawn.reason("tiny") == "a: no such file"
    changed = known(model="other")
    assert not picture(changed, claims={"tiny": {"a": failed}}).reason("tiny")


def test_a_node_without_the_runtime_is_passed() -> None:
    nodes = {"a": facts(runtimes=("openai",)), "b": facts(runtimes=("mock",))}
    drawn = picture(known(), facts=nodes)
    assert set(drawn.plan["tiny"].nodes) == {"b"}
    assert drawn.plan["tiny"].passed[0].detail == "has no runtime 'mock'"


def test_gpus_of_what_drains_are_not_given_away() -> None:
    tiny = known(placement={"gpus": 1})
    nodes = {"a": facts(roles=("gpu",), gpus_gib=(80.0,))}
    drains = {"old": {"a": claim("draining", gpus=((0,),))}}
    assert not picture(tiny, facts=nodes, claims=drains).plan["tiny"].nodes
    assert picture(tiny, facts=nodes).share("tiny") == ((0,),)


def test_a_replica_ends_when_those_that_take_its_place_serve() -> None:
    tiny = known()
    a, b = claim("serving"), claim("loading")
    keeper = set(picture(tiny, claims={"tiny": {"a": a, "b": b}}).plan["tiny"].nodes)
    assert len(keeper) == 1
    [other] = {"a", "b"} - keeper
    both = {"a": claim("serving"), "b": claim("serving")}
    loading = {**both, next(iter(keeper)): claim("loading")}
    assert picture(tiny, me=other, claims={"tiny": both}).may_end("tiny")
    assert not picture(tiny, me=other, claims={"tiny": loading}).may_end("tiny")


def test_a_replica_does_not_end_for_one_that_is_out_of_sight() -> None:
    tiny = known()
    both = {"tiny": {"a": claim("serving"), "b": claim("serving")}}
    [keeper] = picture(tiny, claims=both).plan["tiny"].nodes
    [other] = {"a", "b"} - {keeper}
    drawn = picture(tiny, me=other, claims=both, away=frozenset({keeper}))
    assert not drawn.may_end("tiny")


def test_what_nobody_else_can_take_does_not_end() -> None:
    full = known(placement={"gpus": 1})
    nodes = {name: facts(roles=(*ALL, "gpu")) for name in "ab"}
    runs = {"tiny": {"a": claim("serving", 1)}}
    drawn = picture(full, facts=nodes, claims=runs)
    assert not drawn.plan["tiny"].nodes
    assert not drawn.may_end("tiny")


def test_what_must_not_run_here_ends_at_once() -> None:
    bound = known(placement={"labels": {"region": "eu"}})
    nodes = {"a": facts(labels={"region": "us"}), "b": facts(labels={"region": "eu"})}
    drawn = picture(bound, facts=nodes, claims={"tiny": {"a": claim("serving")}})
    assert drawn.may_end("tiny")


def test_what_is_removed_ends_at_once() -> None:
    assert picture(claims={"tiny": {"a": claim("serving")}}).may_end("tiny")


def test_the_state_of_the_whole() -> None:
    tiny = known()
    assert picture(tiny).state("tiny") is State.PLACING
    assert picture(tiny, facts={}).state("tiny") is State.PENDING
    serving = {"tiny": {"b": claim("serving")}}
    assert picture(tiny, claims=serving).state("tiny") is State.SERVING
    assert picture(claims=serving).state("tiny") is State.DRAINING
    assert picture().state("tiny") is State.STOPPED
    away = picture(tiny, claims=serving, away=frozenset("b"))
    assert away.state("tiny") is State.PLACING
    failed = of(tiny, claim("failed", 0, reason="x"))
    drawn = picture(tiny, claims={"tiny": {"a": failed, "b": failed}})
    assert drawn.state("tiny") is State.FAILED
    assert drawn.reason("tiny") == "a: x; b: x"


def test_it_is_settled_when_all_that_shall_run_serves_what_it_shall() -> None:
    gpt = known("gpt", remote=True)
    one = {"gpt": {"a": of(gpt, claim("serving"))}}
    both = {"gpt": {**one["gpt"], "b": of(gpt, claim("serving"))}}
    old = {"gpt": {**one["gpt"], "b": claim("serving")}}
    assert not picture(gpt).is_settled("gpt")
    assert not picture(gpt, claims=one).is_settled("gpt")
    assert not picture(gpt, claims=old).is_settled("gpt")
    assert picture(gpt, claims=both).is_settled("gpt")


def test_an_entry_of_a_later_version_is_told_and_not_run() -> None:
    entry = Entry(table={"name": "new", "colour": "red"}, digest="d", revision=1)
    drawn = Picture(me="a", catalogue={"new": understood(entry)}, facts={"a": facts()})
    assert drawn.share("new") == ()
    assert "unknown key 'colour'" in drawn.reason("new")
    assert drawn.state("new") is State.PENDING


def test_a_dry_run_changes_nothing() -> None:
    tiny = known()
    drawn = picture(tiny, claims={"tiny": {"a": claim("serving")}})
    assert tiny.deployment is not None
    wanted = attrs.evolve(
        tiny.deployment, serving=attrs.evolve(tiny.deployment.serving, replicas=2)
    )
    assert set(drawn.explained(wanted, remote=False).nodes) == {"a", "b"}
    assert set(drawn.plan["tiny"].nodes) == {"a"}
