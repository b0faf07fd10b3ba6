"""What is to be done when a deployment fails, as it is written in TOML."""

from __future__ import annotations

import pytest

from atomr_infer.config.load import parse_config
from atomr_infer.errors import ConfigError
from atomr_infer.model.deployment import Deployment, Jitter, RetryPolicy, Serving
from atomr_infer.model.failover import (
    BreakerPolicy,
    Fallback,
    FallbackReason,
    HedgePolicy,
    OnCapacity,
    OnCut,
)

A = '[[deployment]]\nname = "a"\nruntime = "mock"\n'
B = '\n[[deployment]]\nname = "big"\nruntime = "mock"\n'

FULL = """\
[[deployment]]
name = "a"
runtime = "mock"
on_cut = "restart_match"
fallbacks = [
    "big",
    { to = "bold", on = ["content_filter", "auth"], model = "other" },
]
[deployment.serving]
priority_aging_s = 2.5
on_capacity_exhausted = "fallback"
[deployment.retry]
jitter = "equal"
[deployment.breaker]
max_failures = 7
failure_share = 0.25
window_s = 60
open_s = 1
max_open_s = 10
half_open_max_probes = 3
[deployment.hedge]
after_s = 1.5
max_fraction = 0.1

[[deployment]]
name = "big"
runtime = "mock"
[[deployment]]
name = "bold"
runtime = "mock"
"""


def test_every_key_reaches_its_field() -> None:
    first, *_ = parse_config(FULL, "x.toml").deployments
    reasons = frozenset({FallbackReason.CONTENT_FILTER, FallbackReason.AUTH})
    assert first == Deployment(
        name="a",
        runtime="mock",
        on_cut=OnCut.RESTART_MATCH,
        fallbacks=["big", Fallback(to="bold", on=reasons, model="other")],
        serving=Serving(
            priority_aging_s=2.5, on_capacity_exhausted=OnCapacity.FALLBACK
        ),
        retry=RetryPolicy(jitter=Jitter.EQUAL),
        breaker=BreakerPolicy(
            max_failures=7,
            failure_share=0.25,
            window_s=60,
            open_s=1,
            max_open_s=10,
            half_open_max_probes=3,
        ),
        hedge=HedgePolicy(after_s=1.5, max_fraction=0.1),
    )


def test_a_fallback_may_stand_before_and_behind_who_names_it() -> None:
    chain = B + A + 'fallbacks = ["last"]\n' + A.replace('"a"', '"last"')
    deployments = parse_config(chain, "x.toml").deployments
    assert [d.name for d in deployments] == ["big", "a", "last"]


def test_a_fallback_may_count_its_requests_for_as_long_as_they_may_take() -> None:
    slow = "timeouts.total_s = 3600\n"
    last = A.replace('"a"', '"last"') + slow + "rate_limits.max_concurrent = 5\n"
    deployments = parse_config(A + 'fallbacks = ["last"]\n' + slow + last, "x.toml")
    assert [d.name for d in deployments.deployments] == ["a", "last"]


FIX = 'write fallbacks = ["other"] or [{ to = "other", on = ["timeout"] }]'
REASONS = (
    "capacity, rate_limit, circuit_open, server_error, timeout, context_length, "
    "content_filter, auth, unsupported"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (A + 'fallbacks = "big"\n' + B,
         f"4: deployment 'a': fallbacks is a string, not an array; {FIX}"),
        (A + "fallbacks = [1]\n" + B,
         f"4: deployment 'a': fallbacks[0] is no name; {FIX}"),
        (A + 'fallbacks = [{ on = ["auth"] }]\n' + B,
         f"4: deployment 'a': fallbacks[0]: to is missing; {FIX}"),
        (A + 'fallbacks = [{ to = "big", onn = [] }]\n' + B,
         "4: deployment 'a': fallbacks[0]: unknown key 'onn'; did you mean 'on'?"),
        (A + 'fallbacks = [{ to = "big", on = [] }]\n' + B,
         "4: deployment 'a': fallbacks[0]: on is no array of reasons; "
         f"there are {REASONS}"),
        (A + 'fallbacks = [{ to = "big", on = ["time_out"] }]\n' + B,
         "4: deployment 'a': fallbacks[0]: 'time_out' is no reason for a fallback; "
         "did you mean 'timeout'?"),
        (A + 'fallbacks = [{ to = "big", on = [1] }]\n' + B,
         "4: deployment 'a': fallbacks[0]: 1 is no reason for a fallback; "
         f"use {REASONS}"),
        (A + 'fallbacks = ["bg"]\n' + B,
         "4: deployment 'a': fallbacks: there is no deployment 'bg'; "
         "did you mean 'big'?"),
        (A + 'fallbacks = ["a"]\n',
         "4: deployment 'a': fallbacks: 'a' is the deployment itself; "
         "name another one"),
        (A + 'fallbacks = ["big", "big"]\n' + B,
         "4: deployment 'a': fallbacks: 'big' stands there twice"),
        (A + 'fallbacks = ["big"]\n' + B + 'fallbacks = ["a"]\n',
         "4: the fallbacks of deployment 'a' go round in a circle: a -> big -> a; "
         "take one of them out"),
        (A + 'fallbacks = ["big"]\ntimeouts.total_s = 3600\n' + B
         + 'fallbacks = ["last"]\n' + A.replace('"a"', '"last"')
         + "rate_limits.max_concurrent = 5\n",
         "4: deployment 'a': its requests may take 3600 s, and "
         "rate_limits.max_concurrent of its fallback 'last' counts one for 900 s; "
         "give 'last' timeouts.total_s = 3600"),
        (A + 'serves = ["x"]\ntimeouts.total_s = 3600\n' + B
         + 'serves = ["x"]\nfallbacks = ["last"]\n' + A.replace('"a"', '"last"')
         + "rate_limits.max_concurrent = 5\n",
         "1: deployment 'a': its requests may take 3600 s, and "
         "rate_limits.max_concurrent of its fallback 'last' counts one for 900 s; "
         "give 'last' timeouts.total_s = 3600"),
        (A + 'serves = ["x"]\ntimeouts.total_s = 3600\n' + B
         + 'serves = ["y", "x"]\nrate_limits.max_concurrent = 5\n',
         "1: deployment 'a': its requests may take 3600 s, and "
         "rate_limits.max_concurrent of 'big', of its group, counts one for 900 s; "
         "give 'big' timeouts.total_s = 3600"),
        (A + 'on_cut = "restart"\n',
         "4: deployment 'a': on_cut: 'restart' is not allowed; "
         "did you mean 'restart_match'?"),
        (A + "on_cut = 1\n",
         "4: deployment 'a': on_cut: 1 is not allowed; use 'error' or "
         "'restart_match' or 'continue' or 'buffer'"),
        (A + 'serving.on_capacity_exhausted = "drop"\n',
         "4: deployment 'a': serving: on_capacity_exhausted: 'drop' is not allowed; "
         "use 'queue' or 'reject' or 'fallback'"),
        (A + "breaker.max_failure = 1\n",
         "4: deployment 'a': breaker: unknown key 'max_failure'; "
         "did you mean 'max_failures'?"),
        (A + "breaker.half_open_max_probes = 0\n",
         "4: deployment 'a': breaker: half_open_max_probes: 0 must be at least 1"),
        (A + "breaker.failure_share = 1.5\n",
         "4: deployment 'a': breaker: failure_share: 1.5 is a share; "
         "it must be at most 1"),
        (A + "hedge.after_s = 0\n",
         "4: deployment 'a': hedge: after_s: 0 must be a number above 0"),
        (A + "hedge.max_fraction = -0.1\n",
         "4: deployment 'a': hedge: max_fraction: -0.1 must be a number of 0 or more"),
        (A + "hedge_after_s = 1\n",
         "4: deployment 'a': unknown key 'hedge_after_s'; "
         "write after_s under [deployment.hedge]"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_sentence_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(text, "atomr.toml")

    assert str(raised.value) == f"atomr.toml:{message}"
