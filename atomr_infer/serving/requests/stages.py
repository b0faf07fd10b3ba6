"""Requests inside a request: what a runner asks of other deployments.

Each is a request of its own, with its place in the tree, its limits, retries, costs
and line in the log.  A :class:`Stage` says which request it belongs to, so that the
outer one can tell what its stages did and cost; it is found by a context variable,
as an inner request is made in a task of the outer one's.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.model.cost import Cost, total_of
from atomr_infer.policy.estimates.shared_usage import split_usage
from atomr_infer.serving.requests.served import Spent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from atomr_infer.serving.requests.report import Report


@attrs.define(eq=False)
class Stage:
    """A request and the requests inside it.

    Attributes:
        model: the name that it asks for.
        depth: how many requests it is inside of.
        deployment: who answered, or was asked last; "" until it has ended.
        runtime: that one's.
        outcome: ``completed``, ``cancelled`` or ``failed``; "" until it has ended.
        verdict: what became of its answer, in the words of who asked for it.
        duration_s: from its beginning to its end.
        spent: what it used itself.
        cost: what that and its own stages cost; None: nobody knows, or not yet.
        stages: the requests inside it, in the order in which they began.
    """

    model: str = ""
    depth: int = 0
    deployment: str = ""
    runtime: str = ""
    outcome: str = ""
    verdict: str = ""
    duration_s: float = 0.0
    spent: tuple[Spent, ...] = ()
    cost: Cost | None = None
    stages: list[Stage] = attrs.field(factory=list)

    def ended(self, report: Report, runtime: str) -> None:
        """Take what is known at the request's end."""
        self.deployment, self.runtime = report.deployment, runtime
        self.outcome = report.outcome
        self.duration_s = trio.current_time() - report.started_at
        self.spent = tuple(report.spent)
        self.cost = report.cost

    @property
    def asked_nobody(self) -> bool:
        """Whether it only says so: an answer that was there already."""
        return not self.outcome and not self.spent and self.cost is None

    def cost_with(self, own: Cost | None) -> Cost | None:
        """Return what a request cost with its stages; None: nobody knows.

        Args:
            own: what it cost itself.
        """
        # Not from what they used: of those of another node only that one may know the
        # prices.
        costs = [own, *(s.cost for s in self.stages if not s.asked_nobody)]
        known = [cost for cost in costs if cost is not None]
        return total_of(known) if len(known) == len(costs) else None

    def split(self, weights: Sequence[int]) -> tuple[Stage, ...]:
        """Return the parts of a request that was made for several others.

        What they cost is for who knows the prices to say.

        Args:
            weights: how much of it was for each, at least 0; for one at least more.
        """
        used = [split_usage(each.usage, weights) for each in self.spent]
        inner = [stage.split(weights) for stage in self.stages]
        return tuple(
            attrs.evolve(
                self,
                spent=tuple(
                    attrs.evolve(whole, usage=parts[number])
                    for whole, parts in zip(self.spent, used, strict=True)
                ),
                cost=None,
                stages=[parts[number] for parts in inner],
            )
            for number in range(len(weights))
        )

    def all_spent(self) -> Iterator[Spent]:
        """Yield what the stages inside it used, to any depth."""
        for stage in self.stages:
            yield from stage.spent
            yield from stage.all_spent()

    def __str__(self) -> str:
        """Return who was asked, how long it took, what it cost, what became of it.

        >>> str(Stage(model="small", verdict="refused: finish=length"))
        'small (refused: finish=length)'
        """
        told = self.verdict or ("" if self.outcome == "completed" else self.outcome)
        words = [self.deployment or self.model]
        if self.outcome:
            words.append(f"{self.runtime} {self.duration_s:.3f}s")
        if self.cost is not None:
            words.append(f"${self.cost.usd_text}")
        if told:
            words.append(f"({told})")
        if self.stages:
            words.append(f"[{', '.join(map(str, self.stages))}]")
        return " ".join(words)


CURRENT: ContextVar[Stage | None] = ContextVar("CURRENT", default=None)
"""The request that this task is of, where it or another one has stages."""
