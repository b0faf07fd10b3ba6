"""Stages as they are told to another node: the same there, in their place, bounded."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_infer.model.cost import Cost
from atomr_infer.model.usage import Usage
from atomr_infer.serving.requests.served import Spent
from atomr_infer.serving.requests.stages import Stage
from atomr_infer.serving.requests.told_stages import MOST, ToldStages, told
from atomr_infer.wire.nodes.frames import FrameError, Staged, answer_of, encoded

WORDS = st.text("ab", max_size=2)
COSTS = st.none() | st.builds(
    Cost,
    parts=st.dictionaries(st.sampled_from(["request", "x"]), st.integers(0, 9)),
    estimated=st.booleans(),
)
SPENT = st.builds(Spent, WORDS, WORDS, st.builds(Usage, output_text=st.integers(0, 9)))


def stages(inner: st.SearchStrategy[Stage] | None) -> st.SearchStrategy[Stage]:
    return st.builds(
        Stage,
        model=WORDS,
        deployment=WORDS,
        runtime=WORDS,
        outcome=st.sampled_from(["", "completed", "failed"]),
        verdict=WORDS,
        duration_s=st.floats(0, 9),
        spent=st.lists(SPENT, max_size=2).map(tuple),
        cost=COSTS,
        stages=st.just([]) if inner is None else st.lists(inner, max_size=2),
    )


TREES = st.lists(stages(stages(stages(None))), max_size=3)


def plain(stage: Stage, depth: int) -> dict[str, Any]:
    """Return all that is known of a stage, as a value."""
    found = {f.name: getattr(stage, f.name) for f in attrs.fields(Stage)}
    inner = [plain(each, depth + 1) for each in stage.stages]
    return found | {"stages": inner, "depth": depth}


@given(TREES)
@settings(max_examples=40)
def test_they_are_the_same_on_the_other_node(made: list[Stage]) -> None:
    outer = Stage("m", depth=3)
    staged = answer_of(encoded(told(made)))
    assert isinstance(staged, Staged)
    ToldStages(outer).take(staged)

    assert [plain(s, s.depth) for s in outer.stages] == [plain(s, 4) for s in made]


@given(TREES, TREES)
@settings(max_examples=40)
def test_those_of_one_attempt_stay_in_their_place(
    first: list[Stage], then: list[Stage]
) -> None:
    before, after = Stage("before"), Stage("after")
    outer = Stage("m", stages=[before])
    mine = ToldStages(outer)
    row = outer.stages
    mine.take(told(first))
    outer.stages.append(after)
    mine.take(told(then))

    models = [s.model for s in then]
    assert outer.stages is row
    if first:
        assert [s.model for s in row] == ["before", *models, "after"]
    else:
        assert [s.model for s in row] == ["before", "after", *models]


def test_more_than_are_told_are_one_with_what_they_cost() -> None:
    cost = Cost(parts={"request": 2})
    made = [Stage(str(n), outcome="completed", cost=cost) for n in range(MOST + 7)]
    staged = told(made)

    assert len(staged.stages) == MOST + 1
    assert (staged.stages[-1].model, staged.stages[-1].cost) == (
        "7 more",
        Cost(parts={"request": 14}),
    )
    made[-1].cost = None
    assert told(made).stages[-1].cost is None


def test_what_is_lost_costs_what_nobody_knows() -> None:
    outer = Stage("m")
    lost = ToldStages(outer)
    lost.take(
        told(
            [
                Stage("a", outcome="completed", cost=Cost(parts={"request": 1})),
                Stage("b", verdict="hit"),
                Stage("c"),
            ]
        )
    )
    lost.lose("m")

    assert [s.outcome for s in outer.stages] == ["completed", "", "lost"]
    assert outer.cost_with(Cost()) is None

    again = Stage("m")
    ToldStages(again).lose("x")
    assert [(s.model, s.outcome) for s in again.stages] == [("x", "lost")]
    assert again.cost_with(Cost()) is None


def test_who_belongs_to_no_request_tells_nobody() -> None:
    nobody = ToldStages(None)
    nobody.take(told([Stage("a")]))
    nobody.lose("a")


def test_a_stage_that_is_inside_of_none_is_no_answer() -> None:
    staged = told([Stage("a"), Stage("b")])
    for depth in (-1, 2):
        broken = attrs.evolve(staged.stages[1], depth=depth)
        with pytest.raises(FrameError, match="a stage at the depth"):
            answer_of(encoded(Staged((staged.stages[0], broken))))


@pytest.mark.parametrize(
    "change",
    [
        {"duration_s": -1.0},
        {"duration_s": float("nan")},
        {"cost": Cost(parts={"request": 5, "x": -1})},
    ],
)
def test_a_stage_that_took_or_cost_less_than_nothing_is_no_answer(
    change: dict[str, Any],
) -> None:
    [stage] = told([Stage("a")]).stages
    with pytest.raises(FrameError, match="a stage "):
        answer_of(encoded(Staged((attrs.evolve(stage, **change),))))
