"""Errors say what may be done about them, and survive the trip between processes."""

from __future__ import annotations

import pytest

from atomr_infer.errors import (
    BudgetExceededError,
    ConfigError,
    ErrorRecord,
    InferenceError,
    InternalError,
    RateLimitedError,
    decode,
    encode,
)


def all_kinds() -> list[type[InferenceError]]:
    found: list[type[InferenceError]] = [InferenceError]
    for error_class in found:
        found.extend(error_class.__subclasses__())
    return found


def test_every_class_has_a_kind_of_its_own() -> None:
    kinds = [error_class.kind for error_class in all_kinds()]

    assert len(set(kinds)) == len(kinds)


@pytest.mark.parametrize("error_class", all_kinds(), ids=lambda c: c.kind)
def test_an_error_survives_being_encoded(error_class: type[InferenceError]) -> None:
    error = error_class(
        "it broke", code="c", param="messages", retry_after_s=1.5, status=503
    )

    copy = decode(encode(error))

    assert type(copy) is error_class
    assert vars(copy) == vars(error)
    assert str(copy) == "it broke"


def test_a_kind_from_a_newer_version_is_reported_as_ours() -> None:
    error = decode(ErrorRecord("from_the_future", "it broke"))

    assert type(error) is InternalError
    assert error.message == "from_the_future: it broke"


def test_a_rate_limit_is_retried_elsewhere_and_does_not_trip_the_breaker() -> None:
    error = RateLimitedError("slow down", retry_after_s=2.0)

    assert (error.retryable, error.fallback, error.breaker_failure) == (
        True,
        True,
        False,
    )


def test_a_configuration_error_shows_its_place_in_front() -> None:
    assert str(ConfigError("no")) == "no"
    assert str(ConfigError("no", path="a.toml")) == "a.toml: no"
    assert str(ConfigError("no", path="a.toml", line=3)) == "a.toml:3: no"


def test_where_a_spent_budget_sends_a_request_crosses_with_it() -> None:
    error = BudgetExceededError("spent", code="budget_exceeded")
    error.downgrade_to = "small"
    came = decode(encode(error))
    assert isinstance(came, BudgetExceededError)
    assert (came.message, came.code, came.downgrade_to) == (
        "spent",
        "budget_exceeded",
        "small",
    )
