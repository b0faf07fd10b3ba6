"""A deployment that cannot work cannot be made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from atomr_infer.model.deployment import Deployment, RetryPolicy, Serving, Timeouts
from atomr_infer.model.failover import BreakerPolicy, Fallback, HedgePolicy
from atomr_infer.model.validation import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Callable


def test_it_serves_its_own_name_unless_told_otherwise() -> None:
    assert Deployment(name="a", runtime="mock").serves == ("a",)
    assert Deployment(name="a", runtime="mock", serves=[]).serves == ("a",)
    assert Deployment(name="a", runtime="mock", serves=["b", "c-*"]).serves == (
        "b",
        "c-*",
    )


def test_it_cannot_be_changed() -> None:
    deployment = Deployment(name="a", runtime="mock")

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        deployment.name = "b"  # type: ignore[misc]


def test_equal_deployments_are_equal_and_hash_alike_whatever_their_options() -> None:
    one, two = (
        Deployment(name="a", runtime="mock", options={"x": [1]}) for _ in range(2)
    )

    assert one == two
    assert len({one, two}) == 1
    assert one != attrs.evolve(two, options={"x": [2]})


@pytest.mark.parametrize(
    "name", ["a", "gpt-4o", "meta/llama-3.1:8b", "A_b", "0", "x" * 200]
)
def test_names_that_providers_use_are_allowed(name: str) -> None:
    assert Deployment(name=name, runtime="mock").name == name


@pytest.mark.parametrize(
    ("build", "field", "message"),
    [
        (lambda: Deployment(name="", runtime="m"), "name",
         "name: '' is empty; give it a value"),
        (lambda: Deployment(name="-a", runtime="m"), "name",
         "name: '-a' is not a name; use letters, digits and . _ - / :"),
        (lambda: Deployment(name="a\n", runtime="m"), "name",
         "name: 'a\\n' is not a name; use letters, digits and . _ - / :"),
        (lambda: Deployment(name="a", runtime="m m"), "runtime",
         "runtime: 'm m' is not a name; use letters, digits and . _ - / :"),
        (lambda: Deployment(name="a", runtime="m", model=" "), "model",
         "model: ' ' is empty; give it a value"),
        (lambda: Deployment(name="a", runtime="m", serves=["x", ""]), "serves",
         "serves: '' is empty; give it a value"),
        (lambda: Serving(replicas=0), "replicas", "replicas: 0 must be at least 1"),
        (lambda: Serving(replicas=257), "replicas",
         "replicas: 257 must be at most 256"),
        (lambda: Serving(replicas=True), "replicas",
         "replicas: True is not a whole number"),
        (lambda: Serving(max_concurrency=0), "max_concurrency",
         "max_concurrency: 0 must be at least 1"),
        (lambda: Serving(max_queue=-1), "max_queue",
         "max_queue: -1 must be at least 0"),
        (lambda: Serving(queue_timeout_s=0), "queue_timeout_s",
         "queue_timeout_s: 0 must be a number above 0"),
        (lambda: Timeouts(idle_s=float("nan")), "idle_s",
         "idle_s: nan must be a number above 0"),
        (lambda: Timeouts(total_s=True), "total_s", "total_s: True is not a number"),
        (lambda: RetryPolicy(max_attempts=0), "max_attempts",
         "max_attempts: 0 must be at least 1"),
        (lambda: RetryPolicy(backoff_s=float("inf")), "backoff_s",
         "backoff_s: inf must be a number above 0"),
    ],
)  # fmt: skip
def test_a_value_that_makes_no_sense_is_refused_with_its_field(
    build: Callable[[], object], field: str, message: str
) -> None:
    with pytest.raises(InvalidValueError) as raised:
        build()

    assert raised.value.field == field
    assert str(raised.value) == message


def test_fallbacks_are_names_or_values_and_none_of_them_is_odd() -> None:
    deployment = Deployment(
        name="a", runtime="mock", fallbacks=["b", Fallback(to="c", model="x")]
    )
    assert deployment.fallbacks == (Fallback(to="b"), Fallback(to="c", model="x"))
    with pytest.raises(InvalidValueError, match="'a' is the deployment itself"):
        Deployment(name="a", runtime="mock", fallbacks=["a"])
    with pytest.raises(InvalidValueError, match="'b' stands there twice"):
        Deployment(name="a", runtime="mock", fallbacks=["b", "b"])
    with pytest.raises(InvalidValueError, match=r"'bcd' is not a list; write \[...\]"):
        Deployment(name="a", runtime="mock", fallbacks="bcd")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BreakerPolicy(failure_share=0), "failure_share: 0 must be a number"),
        (
            lambda: BreakerPolicy(failure_share=2),
            "failure_share: 2 is a share; it",
        ),
        (lambda: BreakerPolicy(max_failures=-1), "max_failures: -1 must be at least 0"),
        (
            lambda: HedgePolicy(max_fraction=-1),
            "max_fraction: -1 must be a number",
        ),
        (lambda: Serving(priority_aging_s=0), "priority_aging_s: 0 must be a number"),
    ],
)
def test_what_no_policy_can_be_is_refused(
    build: Callable[[], object], message: str
) -> None:
    with pytest.raises(InvalidValueError, match=f"^{message}"):
        build()
