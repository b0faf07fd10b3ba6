"""What to do next with a request, given what has failed: the whole plan of it.

A plan stands at one deployment (a *leg*).  When an attempt there fails, it says
one of three things: try again here after a wait, go to another deployment, or
give up with this error.  The rules, in order:

1.  What the client has seen stays.  After the first words the plan goes on only
    where ``on_cut`` of the first deployment says how, and only after a failure
    that cuts; see :mod:`atomr_infer.policy.failures.recovery`.
2.  A leg is asked again as :mod:`atomr_infer.policy.failures.retry` allows.  A place in
    its queue is not asked for twice: the queue has waited for us already.
3.  Where another deployment may take over, an upstream that was silent is not
    asked again, and a ``Retry-After`` that is longer than our own wait would be
    is not waited for.
4.  The others that serve the same name come first, then fallbacks, each for the
    failures that it is written for; those of the leg that failed come before
    those that are left of earlier ones.  Each
    deployment is a leg once, so no route is hammered: there are at most
    ``max_attempts`` tries at each one.
5.  Once a content filter has refused, only a fallback that names
    ``content_filter`` may be asked, whatever else fails later.
6.  What a fallback refuses to understand says nothing of the request: the
    client gets the error from before it.

Pure: the random number and the time that is left are arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import attrs

from atomr_infer.errors import (
    CircuitOpenError,
    ContentFilterError,
    InferenceError,
    InvalidRequestError,
    ModelNotFoundError,
    NotReadyError,
    OverloadedError,
    UpstreamTimeoutError,
)
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.failover import Fallback, FallbackReason, OnCapacity, OnCut
from atomr_infer.policy.failures.fallback import reason_of
from atomr_infer.policy.failures.retry import (
    Attempt,
    backoff_ceiling_s,
    may_repeat,
    retry_wait_s,
)

_CUTS = frozenset(
    {
        FallbackReason.CAPACITY,
        FallbackReason.RATE_LIMIT,
        FallbackReason.SERVER_ERROR,
        FallbackReason.TIMEOUT,
    }
)


class Sent(Enum):
    """What the client has seen of the answer."""

    NOTHING = "nothing"
    TEXT = "text that another attempt can agree with"
    MORE = "what no other attempt can take up"


@attrs.frozen(kw_only=True)
class Failure:
    """An attempt that failed.

    Attributes:
        error: why.
        admitted: False when there was no place for it, so that it did not run.
        sent: what the client has seen so far.
        remaining_s: seconds until the request's deadline.
    """

    error: InferenceError
    admitted: bool
    sent: Sent
    remaining_s: float


@attrs.frozen
class Again:
    """Try the same leg again.

    Attributes:
        wait_s: after so many seconds.
    """

    wait_s: float


@attrs.frozen
class GoTo:
    """Try another deployment at once.

    Attributes:
        fallback: which one.
        reason: the failure that it takes over after.
    """

    fallback: Fallback
    reason: FallbackReason


@attrs.frozen
class GiveUp:
    """The request has failed.

    Attributes:
        error: what the client is told.
    """

    error: InferenceError


Step = Again | GoTo | GiveUp


@attrs.frozen(kw_only=True)
class RoutePlan:
    """Where a request stands, and where it may still go.

    Attributes:
        deployments: all that there are, by name.
        first: the name of the deployment that it began with.
        siblings: the others of its group; they come before all fallbacks.
        leg: the deployment that is asked now.
        on_cut: the first deployment's.
        tries: attempts at this leg so far.
        timeouts: how many of these ended with a time-out.
        pending: fallbacks of earlier legs that were not taken.
        visited: the legs so far, this one included, and who may be none.
        causes: the kinds of failure so far.
        told: what the client is told when nothing is left.
    """

    deployments: Mapping[str, Deployment] = attrs.field(repr=False)
    first: str
    leg: Deployment
    on_cut: OnCut
    siblings: tuple[Fallback, ...] = ()
    tries: int = 0
    timeouts: int = 0
    pending: tuple[Fallback, ...] = ()
    visited: frozenset[str] = frozenset()
    causes: frozenset[FallbackReason] = frozenset()
    told: InferenceError | None = None

    @property
    def at_first(self) -> bool:
        """Whether this is the leg that the model's name belongs to."""
        return self.leg.name == self.first

    @property
    def may_wait(self) -> bool:
        """Whether the leg's queue may be waited in."""
        policy = self.leg.serving.on_capacity_exhausted
        if policy is OnCapacity.FALLBACK:
            causes = self.causes | {FallbackReason.CAPACITY}
            return self.open_fallback(causes) is None
        return policy is OnCapacity.QUEUE

    def would_fall_back(self, reason: FallbackReason) -> bool:
        """Whether a failure of that kind would go to another deployment."""
        return self.open_fallback(self.causes | {reason}) is not None

    def members_with(self, name: str) -> int:
        """Return among how many of the group a deployment could be chosen.

        1: there is no group, or it is none of the group's, such as a fallback.
        """
        group = {self.first, *(sibling.to for sibling in self.siblings)}
        return len(group) if name in group else 1

    def after(self, failure: Failure, random: float) -> tuple[RoutePlan, Step]:
        """Return the plan after a failed attempt, and what to do now.

        Args:
            failure: the attempt that failed.
            random: uniform in [0, 1).
        """
        return _next_step(_noted(self, failure), failure, random)

    def hedged(self) -> tuple[RoutePlan, Fallback] | None:
        """Return the deployment for a second attempt beside this leg's.

        It counts as visited: whatever becomes of it, it is not asked again.
        """
        fallback = self.open_fallback(self.causes | {FallbackReason.TIMEOUT})
        if fallback is None:
            return None
        return attrs.evolve(self, visited=self.visited | {fallback.to}), fallback

    def taken_over(self, fallback: Fallback) -> RoutePlan:
        """Return the plan that stands at another deployment."""
        return attrs.evolve(
            self,
            leg=self.deployments[fallback.to],
            tries=0,
            timeouts=0,
            pending=(*self.leg.fallbacks, *self.pending),
            visited=self.visited | {fallback.to},
        )

    def without(self, name: str) -> RoutePlan:
        """Return the plan in which a deployment takes over from nobody."""
        return attrs.evolve(self, visited=self.visited | {name})

    def is_for(self, fallback: Fallback) -> bool:
        """Whether one is written for such failures as there were."""
        return _is_open(fallback, self.causes)

    @property
    def open_fallbacks(self) -> tuple[Fallback, ...]:
        """Those that were not asked yet, in their order."""
        return tuple(
            fallback
            for fallback in (*self.siblings, *self.leg.fallbacks, *self.pending)
            if fallback.to in self.deployments and fallback.to not in self.visited
        )

    def open_fallback(self, causes: frozenset[FallbackReason]) -> Fallback | None:
        """Return the first one that may take over after such failures."""
        for fallback in self.open_fallbacks:
            if _is_open(fallback, causes):
                return fallback
        return None


def start(
    deployments: Mapping[str, Deployment],
    first: Deployment,
    siblings: tuple[Fallback, ...] = (),
) -> RoutePlan:
    """Return the plan of a request that has not been tried yet.

    Args:
        deployments: all that there are, by name.
        first: the one that its model's name belongs to.
        siblings: the others that serve the same name.
    """
    return RoutePlan(
        deployments=deployments,
        first=first.name,
        siblings=siblings,
        leg=first,
        on_cut=first.on_cut,
        visited=frozenset({first.name}),
    )


def _next_step(
    plan: RoutePlan, failure: Failure, random: float
) -> tuple[RoutePlan, Step]:
    assert plan.told is not None, "a failure has an error"
    if not _may_go_on(plan, failure):
        return plan, GiveUp(plan.told)
    wait_s = _wait_s(plan, failure, random)
    if wait_s is not None:
        return plan, Again(wait_s)
    return _fall_back(plan, failure)


def _noted(plan: RoutePlan, failure: Failure) -> RoutePlan:
    error = failure.error
    reason = reason_of(error)
    own = not plan.at_first and _does_not_understand(error)
    # What was sent is broken because of an earlier failure, not of this one.
    own = own or (failure.sent is not Sent.NOTHING and not failure.admitted)
    return attrs.evolve(
        plan,
        tries=plan.tries + 1,
        timeouts=plan.timeouts + isinstance(error, UpstreamTimeoutError),
        causes=plan.causes if reason is None else plan.causes | {reason},
        told=plan.told if own and plan.told is not None else error,
    )


def _may_go_on(plan: RoutePlan, failure: Failure) -> bool:
    if failure.sent is Sent.NOTHING:
        return True
    if failure.sent is Sent.MORE:
        return False
    if plan.on_cut not in (OnCut.RESTART_MATCH, OnCut.CONTINUE):
        return False
    # Who gave no place, or refused, added nothing: the cut is still to be mended.
    refused = not plan.at_first and _does_not_understand(failure.error)
    return not failure.admitted or refused or reason_of(failure.error) in _CUTS


def _wait_s(plan: RoutePlan, failure: Failure, random: float) -> float | None:
    error = failure.error
    if not failure.admitted and (
        plan.tries == 1 or not isinstance(error, NotReadyError)
    ):
        return None
    attempt = Attempt(
        number=plan.tries,
        timeouts=plan.timeouts,
        content_sent=False,
        remaining_s=failure.remaining_s,
    )
    wait_s = retry_wait_s(plan.leg.retry, attempt, error, random)
    if _costs_long(plan, error) and plan.open_fallback(plan.causes) is not None:
        return None
    return wait_s


def _costs_long(plan: RoutePlan, error: InferenceError) -> bool:
    """Whether asking again costs the client more than our own wait."""
    if isinstance(error, UpstreamTimeoutError):
        return True
    ours_s = backoff_ceiling_s(plan.leg.retry, plan.tries)
    return error.retry_after_s is not None and error.retry_after_s > ours_s


def _fall_back(plan: RoutePlan, failure: Failure) -> tuple[RoutePlan, Step]:
    assert plan.told is not None, "a failure has an error"
    fallback = plan.open_fallback(plan.causes)
    if fallback is None or not _may_fall_back(plan, failure):
        return plan, GiveUp(plan.told)
    reason = reason_of(failure.error)
    if reason is None or reason not in fallback.on:
        reason = min(plan.causes & fallback.on, key=lambda cause: cause.value)
    return plan.taken_over(fallback), GoTo(fallback, reason)


def _may_fall_back(plan: RoutePlan, failure: Failure) -> bool:
    if failure.remaining_s <= 0:
        return False
    error = failure.error
    if failure.admitted and not may_repeat(plan.leg.retry, error):
        return False
    if reason_of(error) is None and not (
        not plan.at_first and _does_not_understand(error)
    ):
        return False
    full = isinstance(error, OverloadedError) and not failure.admitted
    rejects = plan.leg.serving.on_capacity_exhausted is OnCapacity.REJECT
    refused = full and not isinstance(error, CircuitOpenError)
    # A deployment that rejects means its own clients, not those of others.
    return not (refused and rejects and plan.at_first)


def _is_open(fallback: Fallback, causes: frozenset[FallbackReason]) -> bool:
    if FallbackReason.CONTENT_FILTER in causes:
        return FallbackReason.CONTENT_FILTER in fallback.on
    return bool(causes & fallback.on)


def _does_not_understand(error: InferenceError) -> bool:
    """Whether a deployment refused what another one might have taken."""
    if isinstance(error, ContentFilterError):
        return False
    return isinstance(error, (InvalidRequestError, ModelNotFoundError))
