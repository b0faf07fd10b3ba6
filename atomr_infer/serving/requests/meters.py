"""What is counted of requests, for the operators' ``/metrics``.

A request that ends costs some additions in the task that made it: no lock, no clock,
no event.  What can be read off the tree is not counted here but looked up when
somebody asks (:mod:`atomr_infer.gateway.admin.metrics`).

How many series there can be is bounded by what is deployed: a client's words, such as
a model's name that a pattern matches, are no label.  What is counted of a deployment
goes with it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.model.prices import PICO

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from atomr_infer.model.usage import Usage
    from atomr_infer.serving.requests.report import Report

REQUEST_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
"""Bounds for whole requests, in seconds."""

FIRST_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80)
"""Bounds for the wait for an answer's first words, in seconds."""

TOKEN_S = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
"""Bounds for one token, in seconds."""


class Histogram:
    """How often something was how large.

    Attributes:
        bounds: upper bounds of the buckets, ascending.
        counts: what fell into each, and what was above the last.
        total: the sum of all.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def note(self, value: float) -> None:
        """Take one."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@attrs.define(eq=False)
class OfDeployment:
    """What is counted of one deployment.

    Attributes:
        ended: requests, by their outcome.
        attempts: by what they failed with; empty: they answered.
        fallbacks: requests that it took over, by whom they came from.
        retries: attempts at it that followed another one of the same request.
        recovered: answers that were cut and are whole all the same.
        tokens: of all attempts, by their bucket.
        estimated: attempts whose tokens nobody told.
        cost_usd: of its requests whose cost is known.
        unpriced: those whose cost is not.
        request_s: from a request's arrival to its end.
        wait_s: from there to the first attempt.
        first_s: from there to the first words of an answer.
        token_s: between two tokens of an answer, on average.
    """

    ended: Counter[str] = attrs.field(factory=Counter)
    attempts: Counter[str] = attrs.field(factory=Counter)
    fallbacks: Counter[str] = attrs.field(factory=Counter)
    retries: int = 0
    recovered: int = 0
    tokens: Counter[str] = attrs.field(factory=Counter)
    estimated: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0
    request_s: Histogram = attrs.field(factory=lambda: Histogram(REQUEST_S))
    wait_s: Histogram = attrs.field(factory=lambda: Histogram(FIRST_S))
    first_s: Histogram = attrs.field(factory=lambda: Histogram(FIRST_S))
    token_s: Histogram = attrs.field(factory=lambda: Histogram(TOKEN_S))


class Meters:
    """What a node has counted since its start.

    Attributes:
        answers: answers to HTTP requests, by action, dialect and status; the status
            is 0 where the client left before there was one.
    """

    def __init__(self) -> None:
        self.answers: Counter[tuple[str, str, int]] = Counter()
        self._deployments: dict[str, OfDeployment] = {}

    @property
    def deployments(self) -> Mapping[str, OfDeployment]:
        """What is counted of each that has been asked."""
        return self._deployments

    def keep(self, names: Collection[str]) -> None:
        """Forget what is counted of all other deployments."""
        for name in self._deployments.keys() - set(names):
            del self._deployments[name]

    def note(self, report: Report) -> None:
        """Count a request that has ended."""
        of = self._of(report.deployment)
        of.ended[report.outcome] += 1
        of.recovered += report.recovered
        if report.cost is not None:
            of.cost_usd += report.cost.pico_usd / PICO
        elif report.spent:
            of.unpriced += 1
        self._note_times(of, report)
        before = ""
        for tried in report.tried:
            name = tried.deployment
            at = of if name == report.deployment else self._of(name)
            at.attempts[tried.error or ""] += 1
            if before == name:
                at.retries += 1
            elif before:
                at.fallbacks[before] += 1
            before = name
        for spent in report.spent:
            self._note_tokens(self._of(spent.deployment), spent.usage)

    def _of(self, name: str) -> OfDeployment:
        found = self._deployments.get(name)
        if found is None:
            found = self._deployments[name] = OfDeployment()
        return found

    def _note_times(self, of: OfDeployment, report: Report) -> None:
        now, began_at = trio.current_time(), report.started_at
        of.request_s.note(now - began_at)
        if not math.isnan(report.asked_at):
            of.wait_s.note(report.asked_at - began_at)
        first_at = report.first_chunk_at
        if first_at is None:
            return
        of.first_s.note(first_at - began_at)
        made = 0 if report.usage is None else report.usage.output_tokens
        if made > 1:
            of.token_s.note((now - first_at) / (made - 1))

    def _note_tokens(self, of: OfDeployment, usage: Usage) -> None:
        tokens = of.tokens
        # Not by the totals, which are sums that would be taken apart again.
        tokens["input"] += (
            usage.input_uncached
            + usage.input_audio
            + usage.input_image
            + usage.tool_prompt
        )
        tokens["output"] += usage.output_text + usage.output_audio
        if usage.cache_read:
            tokens["cache_read"] += usage.cache_read
        if usage.cache_write_5m or usage.cache_write_1h:
            tokens["cache_write"] += usage.cache_write
        if usage.reasoning:
            tokens["reasoning"] += usage.reasoning
        of.estimated += usage.estimated
