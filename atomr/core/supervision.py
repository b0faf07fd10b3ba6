"""What a supervisor does when a child ended by itself.

The decision is a value, :class:`Plan`; the supervisor carries it out.

Per restart type: a permanent child is restarted for every reason, a transient
one for an abnormal reason, a temporary one never.  A child that is not
restarted affects no sibling, whatever the strategy.  A restart counts once in
the supervisor's window; over the limit all children stop and the supervisor
exits.  With a restart, by strategy:

================  =======================================  ===================
strategy          stops                                    starts
================  =======================================  ===================
ONE_FOR_ONE       nothing                                  the child
ONE_FOR_ALL       all other children, last first           all, in order
REST_FOR_ONE      the children after it, last first        it and those after
================  =======================================  ===================

Temporary children that a strategy stops are forgotten, not started again.
Children that had stopped before (a transient one that was done) are started
again with their group, as in OTP.

Pure.

Source: OTP ``supervisor.erl``, ``do_restart`` and ``restart``.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import attrs

from atomr.core.child_spec import Restart
from atomr.core.exits import ExitReason, is_abnormal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr.core.intensity import RestartIntensity


class Strategy(Enum):
    """Which siblings a restart takes along."""

    ONE_FOR_ONE = "one_for_one"
    ONE_FOR_ALL = "one_for_all"
    REST_FOR_ONE = "rest_for_one"


class AutoShutdown(Enum):
    """When the end of significant children ends the supervisor."""

    NEVER = "never"
    ANY_SIGNIFICANT = "any_significant"
    ALL_SIGNIFICANT = "all_significant"


class Verdict(Enum):
    """What becomes of the supervisor."""

    CONTINUE = "continue"
    ESCALATE = "escalate"
    """too many restarts: stop all children and exit"""
    AUTO_SHUTDOWN = "auto_shutdown"
    """the significant children are done: stop all children and exit"""


@attrs.frozen
class ChildView:
    """What the decision needs to know of a child.

    Attributes:
        id: its id.
        restart: its restart type.
        running: whether it has a process, or is about to get one; one whose end
            was not acted on yet counts as running.
        significant: whether its end may end the supervisor.
    """

    id: str
    restart: Restart
    running: bool = True
    significant: bool = False


@attrs.frozen
class Plan:
    """What to do, in this order: stop, forget, then start.

    Attributes:
        verdict: whether the supervisor goes on.
        stop: ids to stop one by one, in this order.
        forget: ids whose specification is dropped.
        start: ids to start one by one, in this order.
    """

    verdict: Verdict = Verdict.CONTINUE
    stop: tuple[str, ...] = ()
    forget: tuple[str, ...] = ()
    start: tuple[str, ...] = ()


@attrs.frozen
class GaveUp:
    """Detail of the ``Shutdown`` of a supervisor over its restart intensity.

    Attributes:
        child: the child whose end was one too many.
        reason: that child's exit reason.
        max_restarts: the limit.
        max_seconds: the window in seconds.
    """

    child: str
    reason: ExitReason
    max_restarts: int
    max_seconds: float


def should_restart(restart: Restart, reason: ExitReason) -> bool:
    """Return whether a child that ended by itself is started again."""
    if restart is Restart.TRANSIENT:
        return is_abnormal(reason)
    return restart is Restart.PERMANENT


def plan_exit(  # noqa: PLR0913 - the facts of one decision, by keyword
    *,
    strategy: Strategy,
    auto_shutdown: AutoShutdown,
    children: Sequence[ChildView],
    exited: str,
    reason: ExitReason,
    window: RestartIntensity,
    now: float,
) -> tuple[Plan, RestartIntensity]:
    """Return the plan for a child's end, and the window after it.

    Args:
        strategy: the supervisor's.
        auto_shutdown: the supervisor's.
        children: all children in start order; ``exited`` is not running.
        exited: id of the child that ended, or failed to start again.
        reason: its exit reason.
        window: the supervisor's recent restarts.
        now: monotonic time in seconds.
    """
    views = {child.id: child for child in children}
    child = views[exited]
    if not should_restart(child.restart, reason):
        return _plan_without_restart(auto_shutdown, children, child), window
    window = window.record(now)
    if window.exceeded:
        return Plan(verdict=Verdict.ESCALATE, stop=_running(children)), window
    return _plan_restart(_group(strategy, children, exited), exited), window


def _group(
    strategy: Strategy, children: Sequence[ChildView], exited: str
) -> Sequence[ChildView]:
    position = next(i for i, child in enumerate(children) if child.id == exited)
    if strategy is Strategy.ONE_FOR_ONE:
        return children[position : position + 1]
    if strategy is Strategy.REST_FOR_ONE:
        return children[position:]
    return children


def _plan_restart(group: Sequence[ChildView], exited: str) -> Plan:
    def dropped(child: ChildView) -> bool:
        return child.restart is Restart.TEMPORARY and child.id != exited

    return Plan(
        stop=_running(group),
        forget=tuple(child.id for child in group if dropped(child)),
        start=tuple(child.id for child in group if not dropped(child)),
    )


def _plan_without_restart(
    auto_shutdown: AutoShutdown, children: Sequence[ChildView], child: ChildView
) -> Plan:
    forget = (child.id,) if child.restart is Restart.TEMPORARY else ()
    if child.significant and _ends_supervisor(auto_shutdown, children):
        stop = _running(children)
        return Plan(verdict=Verdict.AUTO_SHUTDOWN, stop=stop, forget=forget)
    return Plan(forget=forget)


def _ends_supervisor(
    auto_shutdown: AutoShutdown, children: Sequence[ChildView]
) -> bool:
    if auto_shutdown is AutoShutdown.ALL_SIGNIFICANT:
        return not any(c.significant and c.running for c in children)
    return auto_shutdown is AutoShutdown.ANY_SIGNIFICANT


def _running(children: Sequence[ChildView]) -> tuple[str, ...]:
    return tuple(child.id for child in reversed(children) if child.running)
