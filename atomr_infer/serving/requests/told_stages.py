"""Stages of a request as its node tells them to the one that has the client.

They are told flat, each with its depth, and stand there as if they had been made at
home: in the log, in the client's headers, and in what the request cost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.model.cost import total_of
from atomr_infer.serving.requests.served import Spent
from atomr_infer.serving.requests.stages import Stage
from atomr_infer.wire.nodes.frames import DEEPEST, SpentTold, Staged, StageTold

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MOST = 1000
"""Stages of one request that are told one by one."""

LOST = "lost"
"""The outcome of a stage whose node was lost before it had told how it ended."""


def told(stages: Sequence[Stage]) -> Staged:
    """Return a request's stages as they are told.

    Of more than ``MOST`` those that are first stand for themselves, and one stage for
    all others, with what they cost.
    """
    flat: list[StageTold] = []
    for place, stage in enumerate(stages):
        more = list(_flat(stage, 0))
        if len(flat) + len(more) > MOST:
            flat.append(_rest(stages[place:]))
            break
        flat += more
    return Staged(tuple(flat))


def _flat(stage: Stage, depth: int) -> Iterator[StageTold]:
    yield StageTold(
        depth=depth,
        model=stage.model,
        deployment=stage.deployment,
        runtime=stage.runtime,
        outcome=stage.outcome,
        verdict=stage.verdict,
        duration_s=stage.duration_s,
        spent=tuple(
            SpentTold(deployment=s.deployment, model=s.model, usage=s.usage)
            for s in stage.spent
        ),
        cost=stage.cost,
    )
    if depth < DEEPEST:
        for inner in stage.stages:
            yield from _flat(inner, depth + 1)


def _rest(stages: Sequence[Stage]) -> StageTold:
    ended = all(stage.outcome for stage in stages)
    costs = [stage.cost for stage in stages if not stage.asked_nobody]
    known = [cost for cost in costs if cost is not None]
    return StageTold(
        depth=0,
        model=f"{len(stages)} more",
        deployment="",
        runtime="",
        outcome="completed" if ended else "",
        verdict="",
        duration_s=sum(stage.duration_s for stage in stages),
        spent=(),
        cost=total_of(known) if len(known) == len(costs) else None,
    )


class ToldStages:
    """The stages of one attempt on another node, among those of its request.

    Args:
        outer: the request; None: it tells nobody.
    """

    def __init__(self, outer: Stage | None) -> None:
        self._outer = outer
        self._mine: list[Stage] = []

    def take(self, staged: Staged) -> None:
        """Let them be those that are told now."""
        if self._outer is None:
            return
        depth = self._outer.depth + 1
        self._put(list(_nested(staged, depth)))

    def lose(self, model: str) -> None:
        """Note that no more will be told, of what was not over.

        Args:
            model: what was asked for.
        """
        if self._outer is None:
            return
        if not self._mine:
            self._put([Stage(model, self._outer.depth + 1)])
        for stage in self._mine:
            if not stage.outcome and not stage.verdict:
                stage.outcome = LOST

    def _put(self, stages: list[Stage]) -> None:
        assert self._outer is not None, "looked at"
        # In place: who tells of the request holds the same list.
        others = self._outer.stages
        at = others.index(self._mine[0]) if self._mine else len(others)
        kept = [stage for stage in others if stage not in self._mine]
        others[:] = [*kept[:at], *stages, *kept[at:]]
        self._mine = stages


def _nested(staged: Staged, depth: int) -> Iterator[Stage]:
    """Yield the outermost stages, with those inside them."""
    row: list[Stage] = []
    for each in staged.stages:
        stage = Stage(
            each.model,
            depth + each.depth,
            deployment=each.deployment,
            runtime=each.runtime,
            outcome=each.outcome,
            verdict=each.verdict,
            duration_s=each.duration_s,
            spent=tuple(Spent(s.deployment, s.model, s.usage) for s in each.spent),
            cost=each.cost,
        )
        del row[each.depth :]
        if row:
            row[-1].stages.append(stage)
        else:
            yield stage
        row.append(stage)
