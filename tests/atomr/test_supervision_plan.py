"""What a supervisor decides: restart types, reasons, strategies, intensity."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr.core.child_spec import BRUTAL_KILL, INFINITY, ChildKind, ChildSpec, Restart
from atomr.core.dependencies import start_order
from atomr.core.exits import KILLED, NORMAL, SHUTDOWN, ExitReason, Shutdown
from atomr.core.intensity import RestartIntensity, backoff_delay_s
from atomr.core.supervision import (
    AutoShutdown,
    ChildView,
    Plan,
    Strategy,
    Verdict,
    plan_exit,
)
from atomr.errors import DependencyError

P, T, X = Restart.PERMANENT, Restart.TRANSIENT, Restart.TEMPORARY
CRASH = ValueError("x")
ORDERLY: list[ExitReason] = [NORMAL, SHUTDOWN, Shutdown(1)]
FAILED: list[ExitReason] = [KILLED, CRASH]


def plan(
    strategy: Strategy,
    children: list[ChildView],
    exited: str,
    reason: ExitReason,
    *,
    auto: AutoShutdown = AutoShutdown.NEVER,
    window: RestartIntensity | None = None,
) -> Plan:
    found, _ = plan_exit(
        strategy=strategy,
        auto_shutdown=auto,
        children=children,
        exited=exited,
        reason=reason,
        window=window or RestartIntensity(),
        now=0.0,
    )
    return found


def four(middle: Restart) -> list[ChildView]:
    """Return a, b, c, d, of which b has the given type and has just ended."""
    return [
        ChildView("a", P),
        ChildView("b", middle, running=False),
        ChildView("c", X),
        ChildView("d", T),
    ]


@pytest.mark.parametrize(
    ("strategy", "reason"), list(itertools.product(Strategy, ORDERLY + FAILED))
)
def test_a_temporary_child_is_forgotten_and_no_sibling_is_touched(
    strategy: Strategy, reason: ExitReason
) -> None:
    assert plan(strategy, four(X), "b", reason) == Plan(forget=("b",))


@pytest.mark.parametrize(
    ("strategy", "reason"), list(itertools.product(Strategy, ORDERLY))
)
def test_a_transient_child_that_was_done_stays_stopped(
    strategy: Strategy, reason: ExitReason
) -> None:
    assert plan(strategy, four(T), "b", reason) == Plan()


RESTARTED = [(P, r) for r in ORDERLY + FAILED] + [(T, r) for r in FAILED]


@pytest.mark.parametrize(("restart", "reason"), RESTARTED)
def test_one_for_one_restarts_the_child_alone(
    restart: Restart, reason: ExitReason
) -> None:
    assert plan(Strategy.ONE_FOR_ONE, four(restart), "b", reason) == Plan(start=("b",))


@pytest.mark.parametrize(("restart", "reason"), RESTARTED)
def test_one_for_all_stops_all_last_first_and_starts_all_but_the_temporary(
    restart: Restart, reason: ExitReason
) -> None:
    assert plan(Strategy.ONE_FOR_ALL, four(restart), "b", reason) == Plan(
        stop=("d", "c", "a"), forget=("c",), start=("a", "b", "d")
    )


@pytest.mark.parametrize(("restart", "reason"), RESTARTED)
def test_rest_for_one_leaves_those_before_it(
    restart: Restart, reason: ExitReason
) -> None:
    assert plan(Strategy.REST_FOR_ONE, four(restart), "b", reason) == Plan(
        stop=("d", "c"), forget=("c",), start=("b", "d")
    )


def test_a_group_restart_also_starts_a_transient_child_that_was_done() -> None:
    children = [ChildView("a", T, running=False), ChildView("b", P, running=False)]

    assert plan(Strategy.ONE_FOR_ALL, children, "b", CRASH) == Plan(start=("a", "b"))


@pytest.mark.parametrize("strategy", Strategy)
def test_over_the_intensity_all_children_stop_last_first(strategy: Strategy) -> None:
    window = RestartIntensity(max_restarts=0)

    assert plan(strategy, four(P), "b", CRASH, window=window) == Plan(
        verdict=Verdict.ESCALATE, stop=("d", "c", "a")
    )


def significant(*, other_runs: bool) -> list[ChildView]:
    return [
        ChildView("a", P),
        ChildView("b", T, running=False, significant=True),
        ChildView("c", X, running=other_runs, significant=True),
    ]


@pytest.mark.parametrize(
    ("auto", "other_runs", "ends"),
    [
        (AutoShutdown.NEVER, False, False),
        (AutoShutdown.ANY_SIGNIFICANT, True, True),
        (AutoShutdown.ALL_SIGNIFICANT, True, False),
        (AutoShutdown.ALL_SIGNIFICANT, False, True),
    ],
)
def test_the_end_of_significant_children_ends_the_supervisor(
    auto: AutoShutdown, other_runs: bool, ends: bool
) -> None:
    children = significant(other_runs=other_runs)
    found = plan(Strategy.ONE_FOR_ONE, children, "b", NORMAL, auto=auto)

    stop = ("c", "a") if other_runs else ("a",)
    expected = Plan(verdict=Verdict.AUTO_SHUTDOWN, stop=stop) if ends else Plan()
    assert found == expected


def test_a_significant_child_that_is_restarted_ends_nothing() -> None:
    found = plan(
        Strategy.ONE_FOR_ONE,
        significant(other_runs=False),
        "b",
        CRASH,
        auto=AutoShutdown.ALL_SIGNIFICANT,
    )

    assert found == Plan(start=("b",))


@given(st.lists(st.floats(0.0, 3.0), max_size=30), st.integers(0, 4))
def test_the_window_agrees_with_counting_all_restarts(
    gaps: list[float], max_restarts: int
) -> None:
    window = RestartIntensity(max_restarts, 5.0)
    times: list[float] = []
    for gap in gaps:
        now = (times[-1] if times else 0.0) + gap
        times.append(now)
        window = window.record(now)
        within = [then for then in times if now <= then + 5.0]
        assert sorted(window.restarts) == within
        assert window.exceeded == (len(within) > max_restarts)


def test_only_a_restart_counts_in_the_window() -> None:
    window = RestartIntensity()
    ends: list[tuple[Restart, ExitReason]] = [(X, CRASH), (T, NORMAL)]
    for restart, reason in ends:
        _, after = plan_exit(
            strategy=Strategy.ONE_FOR_ONE,
            auto_shutdown=AutoShutdown.NEVER,
            children=four(restart),
            exited="b",
            reason=reason,
            window=window,
            now=1.0,
        )
        assert after == window


def test_backoff_never_exceeds_its_bound_however_many_attempts() -> None:
    assert backoff_delay_s(10_000, backoff_s=0.1, max_backoff_s=7.0) == 7.0


@pytest.mark.parametrize("shutdown", [-1.0, float("nan")])
def test_a_child_spec_refuses_a_negative_shutdown_time(shutdown: float) -> None:
    with pytest.raises(ValueError, match="expected seconds"):
        ChildSpec(id="a", start=dict, shutdown=shutdown)


def test_a_permanent_child_cannot_be_significant() -> None:
    with pytest.raises(ValueError, match="significant=True needs"):
        ChildSpec(id="a", start=dict, significant=True)


def test_workers_have_five_seconds_to_stop_and_supervisors_all_the_time() -> None:
    spec = ChildSpec(id="a", start=dict)
    brutal = ChildSpec(id="a", start=dict, shutdown=BRUTAL_KILL)

    assert spec.shutdown_for(ChildKind.WORKER) == 5.0
    assert spec.shutdown_for(ChildKind.SUPERVISOR) == INFINITY
    assert brutal.shutdown_for(ChildKind.SUPERVISOR) is BRUTAL_KILL


def test_applications_in_a_cycle_are_refused_with_the_cycle() -> None:
    with pytest.raises(DependencyError) as caught:
        start_order({"a": ["b"], "b": ["c"], "c": ["b"]})

    assert caught.value.names == ("b", "c", "b")


def test_a_missing_application_is_refused_with_who_needs_it() -> None:
    with pytest.raises(DependencyError) as caught:
        start_order({"a": ["b"]})

    assert caught.value.names == ("a", "b")


@given(st.permutations(["a", "b", "c", "d"]))
def test_each_application_starts_after_all_that_it_needs(names: list[str]) -> None:
    needs = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}
    order = start_order({name: needs[name] for name in names})

    assert sorted(order) == sorted(names)
    for name in names:
        assert all(order.index(need) < order.index(name) for need in needs[name])
