"""Checks that OpenAI makes on each of its routes, in its words.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.testing.upstreams.checks import (
    Invalid,
    is_count,
    is_number,
    type_name,
)

if TYPE_CHECKING:
    from atomr_infer.testing.upstreams.call import Members

_RANGES = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}
_COUNTS = {"n": 128, "max_tokens": None, "max_completion_tokens": None}
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_MAX_STOPS = 4


def required_model(members: Members) -> str:
    """Return the model's name.

    Raises:
        Invalid: there is none.
    """
    model = members.get("model")
    if not isinstance(model, str) or not model:
        raise Invalid("you must provide a model parameter")
    return model


def refuse_unknown(members: Members, known: frozenset[str]) -> None:
    """Refuse a member that the API does not have.

    Raises:
        Invalid: names the first one.
    """
    for name in members:
        if name not in known:
            raise Invalid(f"Unrecognized request argument supplied: {name}")


def wrong_type(param: str, expected: str, value: object) -> Invalid:
    """Return the error of a member whose value has another type."""
    return Invalid(
        f"Invalid type for '{param}': expected {expected}, but got"
        f" {_article(type_name(value))} instead.",
        param=param,
        code="invalid_type",
    )


def missing(param: str) -> Invalid:
    """Return the error of a member that must be there."""
    return Invalid(
        f"Missing required parameter: '{param}'.",
        param=param,
        code="missing_required_parameter",
    )


def wrong_value(param: str, value: object, allowed: tuple[str, ...]) -> Invalid:
    """Return the error of a member that takes some words only."""
    names = ", ".join(f"'{word}'" for word in allowed[:-1])
    return Invalid(
        f"Invalid value: '{value}'. Supported values are: {names}, and"
        f" '{allowed[-1]}'.",
        param=param,
        code="invalid_value",
    )


def check_numbers(members: Members) -> None:
    """Check the members that are numbers, words of effort, or switches.

    Raises:
        Invalid: names the first one at fault.
    """
    for name, (low, high) in _RANGES.items():
        value = members.get(name)
        if value is not None:
            _check_range(name, value, low=low, high=high)
    for name, most in _COUNTS.items():
        value = members.get(name)
        if value is not None:
            check_count(name, value, most=most)
    for name in ("stream", "logprobs", "parallel_tool_calls", "store"):
        value = members.get(name)
        if value is not None and type(value) not in (bool, int):
            raise wrong_type(name, "a boolean", value)
    effort = members.get("reasoning_effort")
    if effort is not None and effort not in EFFORTS:
        raise wrong_value("reasoning_effort", effort, EFFORTS)


def check_count(name: str, value: object, *, most: int | None = None) -> None:
    """Check a whole number of at least 1.

    Raises:
        Invalid: it is none, or more than ``most``.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong_type(name, "an integer", value)
    if not is_count(value):
        raise Invalid(
            f"Invalid '{name}': integer below minimum value. Expected a value >= 1,"
            f" but got {value} instead.",
            param=name,
            code="integer_below_min_value",
        )
    if most is not None and value > most:
        raise Invalid(
            f"Invalid '{name}': integer above maximum value. Expected a value <="
            f" {most}, but got {value} instead.",
            param=name,
            code="integer_above_max_value",
        )


def stops(members: Members) -> tuple[str, ...]:
    """Return the texts that end the answer.

    Raises:
        Invalid: they are no text, or more than four.
    """
    value = members.get("stop")
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not all(isinstance(s, str) for s in value):
        raise wrong_type("stop", "a string or an array of strings", value)
    if len(value) > _MAX_STOPS:
        raise Invalid(
            "Invalid 'stop': array too long. Expected an array with maximum length"
            f" {_MAX_STOPS}, but got an array with length {len(value)} instead.",
            param="stop",
            code="array_above_max_length",
        )
    return tuple(value)


def _check_range(name: str, value: object, *, low: int, high: int) -> None:
    if not isinstance(value, int | float) or not is_number(value):
        raise wrong_type(name, "a decimal", value)
    if not low <= value <= high:
        side = "below minimum" if value < low else "above maximum"
        sign, bound = (">=", low) if value < low else ("<=", high)
        raise Invalid(
            f"Invalid '{name}': decimal {side} value. Expected a value {sign} {bound},"
            f" but got {value} instead.",
            param=name,
            code=f"decimal_{'below_min' if value < low else 'above_max'}_value",
        )


def _article(name: str) -> str:
    return name if name == "null" else f"{'an' if name[0] in 'aio' else 'a'} {name}"


def check_strict(schema: Members, *, where: str) -> None:
    """Check that an object's schema is closed, as ``strict`` wants it.

    Raises:
        Invalid: it is not.
    """
    if (
        schema.get("type") == "object"
        and schema.get("additionalProperties") is not False
    ):
        raise Invalid(
            f"Invalid schema for {where}: In context=(), 'additionalProperties' is"
            " required to be supplied and to be false.",
            param="response_format",
            code="invalid_json_schema",
        )
