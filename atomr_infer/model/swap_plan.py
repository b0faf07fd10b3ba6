"""How carefully one deployment takes over from another: a value of a `Deployment`.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.model.validation import (
    InvalidValueError,
    at_least,
    not_negative,
    positive,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


def _steps(given: Iterable[float]) -> tuple[float, ...]:
    steps = tuple(given)
    return steps if steps and steps[-1] == 1.0 else (*steps, 1.0)


def _probe(given: str | None) -> str:
    return "" if given is None else given


def _rise(
    _: object, field: attrs.Attribute[tuple[float, ...]], steps: tuple[float, ...]
) -> None:
    if any(isinstance(s, bool) or not isinstance(s, int | float) for s in steps):
        raise InvalidValueError(field.name, list(steps), "is no array of numbers")
    if list(steps) != sorted(set(steps)) or not 0 < steps[0] <= steps[-1] == 1:
        problem = "must rise from above 0 to at most 1"
        raise InvalidValueError(field.name, list(steps), problem)


def _rate(_: object, field: attrs.Attribute[float], value: float) -> None:
    not_negative(_, field, value)
    if value > 1:
        problem = "is a share; it must be from 0 to 1: 5 percent are 0.05"
        raise InvalidValueError(field.name, value, problem)


@attrs.frozen(kw_only=True)
class SwapPlan:
    """How carefully one deployment takes over from another.

    Attributes:
        steps: its shares of the requests, one after the other; the last one is 1.
        step_s: how long a step lasts at least.
        min_requests: how many requests a step counts at least.
        patience_s: a step with fewer requests is over after so long.
        max_error_rate: the share of a step's requests that may fail, from 0 to 1.
        probe: what it is asked before it gets any request, for text or else for
            vectors; empty: nothing.
        probe_timeout_s: how long its answer may take.
        drain_s: how long requests of who goes may still take; those of the new one
            may, where it has taken over, at least ``timeouts.total_s``.
    """

    steps: tuple[float, ...] = attrs.field(
        default=(0.05, 0.25, 0.5, 1.0), converter=_steps, validator=_rise
    )
    step_s: float = attrs.field(default=30.0, validator=not_negative)
    min_requests: int = attrs.field(default=20, validator=at_least(0))
    patience_s: float = attrs.field(default=300.0, validator=positive)
    max_error_rate: float = attrs.field(default=0.02, validator=_rate)
    probe: str = attrs.field(
        default="Reply with the word yes.",
        converter=_probe,
        validator=attrs.validators.instance_of(str),
    )
    probe_timeout_s: float = attrs.field(default=60.0, validator=positive)
    drain_s: float = attrs.field(default=300.0, validator=not_negative)
