"""What a request does next, by example and against a naive model."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_infer import errors
from atomr_infer.model.deployment import Deployment, Jitter, RetryPolicy, Serving
from atomr_infer.model.failover import (
    DEFAULT_REASONS,
    Fallback,
    FallbackReason,
    OnCapacity,
    OnCut,
)
from atomr_infer.policy.failures.fallback import check_chains, reason_of
from atomr_infer.policy.failures.route_plan import (
    Again,
    Failure,
    GiveUp,
    GoTo,
    RoutePlan,
    Sent,
    Step,
    start,
)

TWICE = RetryPolicy(max_attempts=2, backoff_s=1.0, jitter=Jitter.NONE)
ONCE = RetryPolicy(max_attempts=1)

BROKEN = errors.UpstreamError("broken", status=500)
SLOW_DOWN = errors.RateLimitedError("slow down", status=429)
TOO_LONG = errors.ContextLengthError("too long", status=400)
FILTERED = errors.ContentFilterError("no", status=400)
WRONG = errors.InvalidRequestError("prefill is not supported", status=400)
FULL = errors.OverloadedError("full")


def deployment(name: str, *fallbacks: str | Fallback, **more: object) -> Deployment:
    given = {"retry": ONCE, **more}
    return Deployment(name=name, runtime="x", fallbacks=fallbacks, **given)  # type: ignore[arg-type]


def plan(*deployments: Deployment) -> RoutePlan:
    return start({d.name: d for d in deployments}, deployments[0])


def failed(error: errors.InferenceError, **more: object) -> Failure:
    given: dict[str, object] = {
        "admitted": True,
        "sent": Sent.NOTHING,
        "remaining_s": 60.0,
        **more,
    }
    return Failure(error=error, **given)  # type: ignore[arg-type]


def walk(at: RoutePlan, *failures: Failure | errors.InferenceError) -> list[str]:
    """Return what the plan does after each failure, in a word."""
    steps = []
    for each in failures:
        failure = failed(each) if isinstance(each, errors.InferenceError) else each
        at, step = at.after(failure, 0.5)
        steps.append(_word(step))
    return steps


def _word(step: Step) -> str:
    match step:
        case Again(wait_s=wait_s):
            return f"again in {wait_s:g}"
        case GoTo(fallback=fallback, reason=reason):
            return f"to {fallback.to} for {reason.value}"
        case GiveUp(error=error):
            return f"give up: {error.message}"


# --- retries and fallbacks ----------------------------------------------------


def test_a_leg_is_tried_as_often_as_it_allows_and_then_the_next() -> None:
    at = plan(deployment("a", "b", retry=TWICE), deployment("b"))
    assert walk(at, BROKEN, BROKEN, BROKEN) == [
        "again in 1",
        "to b for server_error",
        "give up: broken",
    ]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.OverloadedError("x"), "capacity"),
        (errors.NotReadyError("x"), "capacity"),
        (errors.RateLimitedError("x"), "rate_limit"),
        (errors.CircuitOpenError("x"), "circuit_open"),
        (errors.UpstreamError("x"), "server_error"),
        (errors.UpstreamConnectError("x"), "server_error"),
        (errors.UpstreamProtocolError("x"), "server_error"),
        (errors.StreamCutError("x"), "server_error"),
        (errors.EngineCrashedError("x"), "server_error"),
        (errors.UpstreamTimeoutError("x"), "timeout"),
        (errors.ContextLengthError("x"), "context_length"),
        (errors.UpstreamAuthError("x"), "auth"),
        (errors.UnsupportedFeatureError("x"), "unsupported"),
    ],
    ids=lambda value: getattr(value, "kind", value),
)
def test_each_kind_of_failure_has_its_reason_and_is_taken_over_by_default(
    error: errors.InferenceError, reason: str
) -> None:
    at = plan(deployment("a", "b"), deployment("b"))
    assert walk(at, error) == [f"to b for {reason}"]


@pytest.mark.parametrize(
    "error",
    [
        WRONG,
        FILTERED,
        errors.DeadlineError("late"),
        errors.InternalError("a bug"),
        errors.ModelNotFoundError("no such model"),
    ],
    ids=lambda error: error.kind,
)
def test_what_another_deployment_cannot_mend_is_final(
    error: errors.InferenceError,
) -> None:
    at = plan(deployment("a", "b"), deployment("b"))
    assert walk(at, error) == [f"give up: {error.message}"]


def test_a_bug_of_ours_is_final_even_where_more_could_be_asked() -> None:
    bug = errors.InternalError("a bug")
    at = plan(deployment("a", "b", "c"), deployment("b"), deployment("c"))
    assert walk(at, BROKEN, bug) == ["to b for server_error", "give up: a bug"]


def test_a_plan_says_beforehand_whether_it_would_fall_back() -> None:
    bold = Fallback(to="b", on=frozenset({FallbackReason.CONTENT_FILTER}))
    at = plan(deployment("a", bold), deployment("b"))
    assert at.would_fall_back(FallbackReason.CONTENT_FILTER)
    assert not at.would_fall_back(FallbackReason.TIMEOUT)


def test_a_fallback_is_asked_only_for_what_it_is_written_for() -> None:
    long = Fallback(to="long", on=frozenset({FallbackReason.CONTEXT_LENGTH}))
    at = plan(deployment("a", long), deployment("long"))
    assert walk(at, BROKEN) == ["give up: broken"]
    assert walk(at, TOO_LONG) == ["to long for context_length"]


def test_the_fallbacks_of_a_fallback_come_before_those_that_are_left() -> None:
    at = plan(
        deployment("a", "b", "c"),
        deployment("b", "d"),
        deployment("c"),
        deployment("d"),
    )
    assert walk(at, BROKEN, SLOW_DOWN, BROKEN, BROKEN) == [
        "to b for server_error",
        "to d for rate_limit",
        "to c for server_error",
        "give up: broken",
    ]


def test_a_fallback_that_two_lead_to_is_asked_once() -> None:
    at = plan(deployment("a", "b", "c"), deployment("b", "c"), deployment("c"))
    assert walk(at, BROKEN, BROKEN, BROKEN)[2:] == ["give up: broken"]


def test_a_fallback_for_the_first_failure_is_not_lost_by_another_one() -> None:
    only = Fallback(to="c", on=frozenset({FallbackReason.RATE_LIMIT}))
    at = plan(deployment("a", "b", only), deployment("b"), deployment("c"))
    assert walk(at, SLOW_DOWN, BROKEN) == ["to b for rate_limit", "to c for rate_limit"]


def test_a_fallback_that_is_not_deployed_any_more_is_passed_over() -> None:
    at = plan(deployment("a", "gone", "b"), deployment("b"))
    assert walk(at, BROKEN) == ["to b for server_error"]


def test_a_content_filter_is_gone_round_by_explicit_choice_only() -> None:
    bold = Fallback(to="bold", on=frozenset({FallbackReason.CONTENT_FILTER}))
    at = plan(deployment("a", "b", bold), deployment("b"), deployment("bold"))
    assert walk(at, FILTERED) == ["to bold for content_filter"]
    # It failed for another reason there; who did not ask for it stays out.
    assert walk(at, FILTERED, BROKEN) == [
        "to bold for content_filter",
        "give up: broken",
    ]
    assert walk(at, BROKEN, FILTERED) == [
        "to b for server_error",
        "to bold for content_filter",
    ]


def test_what_a_fallback_does_not_understand_is_not_the_clients_mistake() -> None:
    at = plan(deployment("a", "b", "c"), deployment("b"), deployment("c"))
    assert walk(at, BROKEN, WRONG, WRONG) == [
        "to b for server_error",
        "to c for server_error",
        "give up: broken",
    ]


def test_a_retry_after_that_is_long_is_not_waited_for_where_another_can_help() -> None:
    alone = plan(deployment("a", retry=TWICE))
    helped = plan(deployment("a", "b", retry=TWICE), deployment("b"))
    slow = errors.RateLimitedError("slow down", retry_after_s=7.0)
    short = errors.RateLimitedError("slow down", retry_after_s=0.5)
    assert walk(alone, slow) == ["again in 7"]
    assert walk(helped, slow) == ["to b for rate_limit"]
    assert walk(helped, short) == ["again in 1"]


def test_a_silent_upstream_is_not_asked_again_where_another_can_help() -> None:
    silent = errors.UpstreamTimeoutError("silent")
    alone = plan(deployment("a", retry=TWICE))
    helped = plan(deployment("a", "b", retry=TWICE), deployment("b"))
    assert walk(alone, silent) == ["again in 1"]
    assert walk(helped, silent) == ["to b for timeout"]


def test_a_wait_that_does_not_fit_goes_to_the_fallback_at_once() -> None:
    at = plan(deployment("a", "b", retry=TWICE), deployment("b"))
    assert walk(at, failed(BROKEN, remaining_s=0.5)) == ["to b for server_error"]
    assert walk(at, failed(BROKEN, remaining_s=0.0)) == ["give up: broken"]


def test_a_request_that_must_not_repeat_goes_on_only_when_it_did_not_begin() -> None:
    once = attrs.evolve(TWICE, idempotent=False)
    at = plan(deployment("a", "b", retry=once), deployment("b"))
    assert walk(at, BROKEN) == ["give up: broken"]
    assert walk(at, TOO_LONG) == ["to b for context_length"]
    assert walk(at, failed(BROKEN, admitted=False)) == ["to b for server_error"]


def test_the_others_of_a_group_come_before_all_fallbacks() -> None:
    a, b, c, d = (deployment(name) for name in "abcd")
    a = attrs.evolve(a, fallbacks=["d"])
    at = start(
        {each.name: each for each in (a, b, c, d)},
        a,
        siblings=(Fallback(to="b"), Fallback(to="c")),
    )
    assert walk(at, BROKEN, TOO_LONG, BROKEN, BROKEN) == [
        "to b for server_error",
        "to c for context_length",
        "to d for server_error",
        "give up: broken",
    ]


# --- capacity -----------------------------------------------------------------


def test_a_place_in_the_queue_is_not_asked_for_twice() -> None:
    at = plan(deployment("a", "b", retry=TWICE), deployment("b"))
    assert walk(at, failed(FULL, admitted=False)) == ["to b for capacity"]
    assert walk(plan(deployment("a", retry=TWICE)), failed(FULL, admitted=False)) == [
        "give up: full"
    ]


def test_a_core_that_restarts_is_asked_again_after_an_attempt_and_not_for_ever() -> (
    None
):
    away = errors.NotReadyError("restarting")
    at = plan(deployment("a", retry=attrs.evolve(TWICE, max_attempts=3)))
    assert walk(at, failed(away, admitted=False)) == ["give up: restarting"]
    assert walk(at, BROKEN, *[failed(away, admitted=False)] * 2) == [
        "again in 1",
        "again in 2",
        "give up: restarting",
    ]


def capacity(policy: OnCapacity) -> Serving:
    return Serving(on_capacity_exhausted=policy)


@pytest.mark.parametrize(
    ("policy", "waits", "alone_waits", "then"),
    [
        (OnCapacity.QUEUE, True, True, "to b for capacity"),
        (OnCapacity.REJECT, False, False, "give up: full"),
        (OnCapacity.FALLBACK, False, True, "to b for capacity"),
    ],
)
def test_what_is_done_without_a_free_place_is_the_deployments_choice(
    policy: OnCapacity, waits: bool, alone_waits: bool, then: str
) -> None:
    alone = plan(deployment("a", serving=capacity(policy)))
    helped = plan(deployment("a", "b", serving=capacity(policy)), deployment("b"))
    assert (helped.may_wait, alone.may_wait) == (waits, alone_waits)
    assert walk(helped, failed(FULL, admitted=False)) == [then]


def test_a_deployment_that_rejects_means_its_own_clients() -> None:
    rejects = capacity(OnCapacity.REJECT)
    at = plan(
        deployment("a", "b", "c"), deployment("b", serving=rejects), deployment("c")
    )
    assert walk(at, BROKEN, failed(FULL, admitted=False)) == [
        "to b for server_error",
        "to c for capacity",
    ]


# --- what the client has seen -------------------------------------------------


@pytest.mark.parametrize("on_cut", OnCut)
def test_after_the_first_words_only_a_policy_that_says_how_goes_on(
    on_cut: OnCut,
) -> None:
    at = plan(deployment("a", "b", on_cut=on_cut), deployment("b"))
    cut = failed(errors.StreamCutError("cut"), sent=Sent.TEXT)
    goes_on = on_cut in (OnCut.RESTART_MATCH, OnCut.CONTINUE)
    assert walk(at, cut) == ["to b for server_error" if goes_on else "give up: cut"]


def test_a_tool_call_that_was_sent_is_final() -> None:
    at = plan(deployment("a", "b", on_cut=OnCut.RESTART_MATCH), deployment("b"))
    cut = errors.StreamCutError("cut")
    assert walk(at, failed(cut, sent=Sent.MORE)) == ["give up: cut"]


def test_a_refusal_behind_the_first_words_is_final() -> None:
    at = plan(deployment("a", "b", on_cut=OnCut.RESTART_MATCH), deployment("b"))
    assert walk(at, failed(TOO_LONG, sent=Sent.TEXT)) == ["give up: too long"]


def test_a_cut_answer_is_taken_up_past_deployments_without_a_place() -> None:
    at = plan(
        deployment("a", "b", "c", on_cut=OnCut.RESTART_MATCH),
        deployment("b"),
        deployment("c"),
    )
    cut = failed(errors.StreamCutError("cut"), sent=Sent.TEXT)
    is_open = errors.CircuitOpenError("open")
    shut = failed(is_open, sent=Sent.TEXT, admitted=False)
    assert walk(at, cut, shut, shut) == [
        "to b for server_error",
        "to c for circuit_open",
        "give up: cut",
    ]


# --- hedging ------------------------------------------------------------------


def test_a_hedge_goes_to_the_first_fallback_which_is_not_asked_again() -> None:
    never = Fallback(to="n", on=frozenset({FallbackReason.AUTH}))
    at = plan(deployment("a", never, "b"), deployment("b"), deployment("n"))
    hedged = at.hedged()
    assert hedged is not None
    at, fallback = hedged
    assert fallback.to == "b"
    assert at.hedged() is None
    assert walk(at, BROKEN) == ["give up: broken"]


# --- cycles -------------------------------------------------------------------


def test_fallbacks_that_go_round_in_a_circle_are_refused() -> None:
    chains = {
        d.name: d.fallbacks
        for d in (deployment("a", "b"), deployment("b", "c"), deployment("c", "b"))
    }
    with pytest.raises(errors.ConfigError, match="in a circle: b -> c -> b; take one"):
        check_chains(chains, "a")


def test_many_ways_to_one_fallback_are_no_circle_and_cost_little() -> None:
    layers = [(f"l{n}", f"r{n}") for n in range(40)]
    chains = {
        name: deployment(name, *after).fallbacks
        for before, after in pairwise(layers)
        for name in before
    }
    check_chains(chains, "l0")


# --- every plan ends ----------------------------------------------------------

ERRORS = st.sampled_from(
    [
        BROKEN,
        SLOW_DOWN,
        TOO_LONG,
        FILTERED,
        WRONG,
        FULL,
        errors.RateLimitedError("slow", retry_after_s=3.0),
        errors.UpstreamTimeoutError("silent"),
        errors.NotReadyError("restarting"),
        errors.CircuitOpenError("open"),
        errors.UpstreamAuthError("who?"),
        errors.DeadlineError("late"),
    ]
)
FAILURES = st.builds(
    Failure,
    error=ERRORS,
    admitted=st.booleans(),
    sent=st.sampled_from(Sent),
    remaining_s=st.floats(0.0, 20.0),
)
NAMES = "abcde"


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Deployment, ...]:
    made = []
    for position, name in enumerate(NAMES):
        later = draw(st.permutations(NAMES[position + 1 :]))
        fallbacks = [
            Fallback(to=to, on=draw(st.frozensets(st.sampled_from(FallbackReason))))
            for to in later[: draw(st.integers(0, 3))]
        ]
        retry = RetryPolicy(
            max_attempts=draw(st.integers(1, 3)),
            idempotent=draw(st.booleans()),
            backoff_s=1.0,
        )
        serving = capacity(draw(st.sampled_from(OnCapacity)))
        on_cut = draw(st.sampled_from(OnCut))
        made.append(
            deployment(name, *fallbacks, retry=retry, serving=serving, on_cut=on_cut)
        )
    return tuple(made)


@given(worlds(), st.lists(FAILURES, min_size=20, max_size=20))
def test_no_route_is_hammered_and_every_step_is_allowed(
    world: tuple[Deployment, ...], failures: list[Failure]
) -> None:
    by_name = {d.name: d for d in world}
    at = plan(*world)
    asked: list[str] = [at.leg.name]
    causes: set[FallbackReason] = set()
    silences: Counter[str] = Counter()
    rng = random.Random(0)
    for failure in failures:
        before = at.leg
        at, step = at.after(failure, rng.random())
        reason = reason_of(failure.error)
        causes |= {reason} - {None}  # type: ignore[arg-type]
        if isinstance(failure.error, errors.UpstreamTimeoutError):
            silences[before.name] += 1
        if isinstance(step, GiveUp):
            break
        assert failure.remaining_s > 0
        if failure.sent is not Sent.NOTHING:
            assert failure.sent is Sent.TEXT
            assert world[0].on_cut in (OnCut.RESTART_MATCH, OnCut.CONTINUE)
        if isinstance(step, Again):
            assert failure.error.retryable
            assert step.wait_s < failure.remaining_s
            asked.append(before.name)
        else:
            taken = step.fallback
            assert step.reason in taken.on
            assert taken.to not in asked
            assert any(taken in by_name[name].fallbacks for name in asked)
            if FallbackReason.CONTENT_FILTER in causes:
                assert FallbackReason.CONTENT_FILTER in taken.on
            asked.append(taken.to)
        assert at.leg.name == asked[-1]
    else:
        pytest.fail("20 failures did not end it")
    for name, tries in Counter(asked).items():
        assert tries <= by_name[name].retry.max_attempts
        assert silences[name] <= 2


def test_the_default_leaves_out_the_content_filter_and_nothing_else() -> None:
    assert set(FallbackReason) - DEFAULT_REASONS == {FallbackReason.CONTENT_FILTER}
