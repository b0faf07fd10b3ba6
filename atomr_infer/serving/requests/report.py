"""What a request tells log and telemetry: each turn that it takes, and its end.

Events, all under ``("atomr_infer", "request", ...)``:

============  ==========================================================
``retry``     another attempt at the same deployment, after ``wait_s``
``fallback``  another deployment takes over: ``from``, ``to``, ``reason``
``hedge``     a second attempt beside the first: ``to``, ``outcome``
``recovery``  an answer that was cut goes on
``stop``      the request has ended
============  ==========================================================
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import attrs
import trio

from atomr import telemetry
from atomr_infer.errors import InferenceError, decode, encode
from atomr_infer.model.batch import Usage
from atomr_infer.model.cost import Cost
from atomr_infer.model.prices import PICO
from atomr_infer.policy.limits.demand import Used
from atomr_infer.serving.requests.served import Spent, Tried
from atomr_infer.serving.requests.stages import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from atomr_infer.model.failover import Fallback

log = logging.getLogger(__name__)


@attrs.define(eq=False)
class Report:
    """What is told about one request.

    Attributes:
        request_id: the request's.
        model: the name that the client used.
        deployment: who is asked now, or was last.
        members: among how many of a group that one was chosen; 1: there was no choice.
        outcome: ``completed``, ``cancelled`` or ``failed``.
        error: why it failed, in words: an error holds on to all that it passed.
        started_at: in trio's clock.
        asked_at: when somebody was asked first, in trio's clock.
        first_chunk_at: in trio's clock; None: nothing came.
        usage: the answer's own totals.
        recovered: True when a cut answer is whole.
        downgraded: why another model answers; empty: it is the one that was asked.
        tried: every attempt.
        spent: what the attempts used.
        cost: what they and its stages cost together; None: nobody knows.
        stages: the requests inside it, so far.
    """

    request_id: str
    model: str
    deployment: str
    members: int = 1
    outcome: str = "failed"
    error: str = ""
    started_at: float = attrs.field(factory=trio.current_time)
    asked_at: float = math.nan
    first_chunk_at: float | None = None
    usage: Usage | None = None
    recovered: bool = False
    downgraded: str = ""
    tried: list[Tried] = attrs.field(factory=list)
    spent: list[Spent] = attrs.field(factory=list)
    cost: Cost | None = None
    stages: list[Stage] = attrs.field(factory=list)

    @property
    def used(self) -> Used:
        """What all attempts used together."""
        return Used(
            input_tokens=sum(each.usage.prompt_tokens for each in self.spent),
            output_tokens=sum(each.usage.output_tokens for each in self.spent),
            cost_pico_usd=None if self.cost is None else self.cost.pico_usd,
        )

    def told_route(self, route: bytes) -> bytes:
        """Return which replica of the deployment answers, beside whom that one stands.

        Args:
            route: what is told of the replica; empty: nothing is.
        """
        if not route or self.members == 1:
            return route
        return b"%b; group=%d" % (route, self.members)

    def retry(self, error: InferenceError, wait_s: float) -> None:
        """Tell that the same deployment is asked again."""
        log.warning(
            "request %s: attempt %d failed (%s), next one in %.2f s",
            self.request_id,
            len(self.tried),
            error,
            wait_s,
        )
        self._emit("retry", {"wait_s": wait_s}, kind=error.kind)

    def fallback(self, error: InferenceError, to: str, reason: str) -> None:
        """Tell that another deployment takes over."""
        log.warning(
            "request %s: %s failed (%s), %s takes over (%s)",
            self.request_id,
            self.deployment,
            error,
            to,
            reason,
        )
        self._emit("fallback", {}, to=to, reason=reason)

    def hedge(self, to: str, outcome: str) -> None:
        """Tell what became of a second attempt."""
        log.info("request %s: hedged with %s, %s", self.request_id, to, outcome)
        self._emit("hedge", {}, to=to, outcome=outcome)

    def recovery(self, how: str) -> None:
        """Tell that an answer which was cut goes on."""
        log.warning("request %s: the cut answer goes on (%s)", self.request_id, how)
        self._emit("recovery", {}, how=how)

    def stop(self) -> None:
        """Tell how the request went."""
        first = self.first_chunk_at
        ttft_s = math.nan if first is None else first - self.started_at
        usage = self.usage
        measurements: dict[str, float] = {
            "duration_s": trio.current_time() - self.started_at,
            "ttft_s": ttft_s,
            "attempts": len(self.tried),
            "prompt_tokens": 0 if usage is None else usage.prompt_tokens,
            "output_tokens": 0 if usage is None else usage.output_tokens,
            "drafted_tokens": 0 if usage is None else usage.drafted,
            "drafts_accepted": 0 if usage is None else usage.drafts_accepted,
            "cost_usd": math.nan if self.cost is None else self.cost.pico_usd / PICO,
        }
        self._emit(
            "stop",
            measurements,
            outcome=self.outcome,
            recovered=self.recovered,
            tried=tuple(self.tried),
            spent=tuple(self.spent),
            cost=self.cost,
            stages=tuple(self.stages),
        )
        log.info(
            "request %s model=%s deployment=%s outcome=%s attempts=%d "
            "ttft=%s total=%.3fs prompt=%d output=%d cost=%s%s%s%s",
            self.request_id,
            self.model,
            self.deployment,
            self.outcome,
            len(self.tried),
            "none" if first is None else f"{ttft_s:.3f}s",
            measurements["duration_s"],
            measurements["prompt_tokens"],
            measurements["output_tokens"],
            "unknown" if self.cost is None else f"${self.cost.usd_text}",
            f" stages=[{', '.join(map(str, self.stages))}]" if self.stages else "",
            " recovered" if self.recovered else "",
            f" error={self.error}" if self.error else "",
        )

    def _emit(self, event: str, measurements: dict[str, float], **more: object) -> None:
        if not telemetry.handlers:
            return  # what is told would be made for nobody
        telemetry.emit(
            ("atomr_infer", "request", event),
            measurements,
            {
                "request_id": self.request_id,
                "deployment": self.deployment,
                "model": self.model,
                **more,
            },
        )


def with_chain(error: InferenceError, tried: Sequence[Tried]) -> InferenceError:
    """Return the error that names everyone who was asked, when several were."""
    chain = list(_chain(tried))
    if len({name for name, _ in chain}) < 2:
        return error
    told = ", ".join(f"{name}: {kind}" for name, kind in chain)
    record = encode(error)
    longer = decode(attrs.evolve(record, message=f"{record.message} (tried {told})"))
    longer.__cause__ = error
    return longer


def with_refusals(
    error: InferenceError,
    refusals: Iterable[tuple[Fallback, str]],
    is_for: Callable[[Fallback], bool],
) -> InferenceError:
    """Return the error that says, too, why others did not take over.

    Args:
        error: what nobody took over after.
        refusals: who did not, and why.
        is_for: whether one is written for such failures; of others nothing is said.
    """
    told = [why for fallback, why in refusals if is_for(fallback)]
    if not told:
        return error
    record = encode(error)
    text = "; ".join((record.message, *told))
    longer = decode(attrs.evolve(record, message=text))
    longer.__cause__ = error
    return longer


def _chain(tried: Iterable[Tried]) -> Iterable[tuple[str, str]]:
    """Each deployment and error once in a row, not once per attempt."""
    last: tuple[str, str] | None = None
    for attempt in tried:
        each = (attempt.deployment, attempt.error or "answered")
        if each != last:
            yield each
        last = each
