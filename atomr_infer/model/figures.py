"""What a runner tells of its engine: figures by names of their own.

An engine knows what nobody else does: how full its cache is, what it has put aside,
how much of a prompt it found there.  It tells that as numbers, of which there are few,
so that whoever stores them knows how many there can be.

Pure.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, SupportsFloat

import attrs
from attrs.validators import instance_of

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_FIGURES = 64
"""So many a runner tells at most."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}[a-z0-9]")
_MAX_HELP = 200


class Kind(Enum):
    """How a figure changes; the value is Prometheus' word."""

    GAUGE = "gauge"
    COUNTER = "counter"


def _check_name(figure: Figure, _: object, name: str) -> None:
    if not _is_name(name):
        raise ValueError(
            f"a figure is called {str(name)[:80]!r}; its name is of lower-case "
            "letters, digits and underscores, 2 to 64 of them, begins with a letter "
            "and does not end in an underscore or in _total"
        )


def _is_name(name: object) -> bool:
    return (
        isinstance(name, str)
        and _NAME.fullmatch(name) is not None
        and not name.endswith("_total")
    )


def _check_help(figure: Figure, _: object, text: str) -> None:
    if len(text) > _MAX_HELP:
        raise ValueError(
            f"the figure {figure.name} has {len(text)} characters of help; "
            f"{_MAX_HELP} is the most"
        )


def _number(name: str, value: object) -> float:
    problem = ""
    # True is a number to Python, and a mistake of whoever tells how many.
    if isinstance(value, SupportsFloat) and not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            # As arrays and tensors of more than one number say, and huge integers.
            problem = f": {error}"
    raise ValueError(
        f"the figure {name} is told as {type(value).__name__}, not as a number{problem}"
    )


@attrs.frozen
class Figure:
    """One number of an engine's.

    Attributes:
        name: what it is, with its unit last: ``cache_used_ratio``.
        kind: whether it goes up and down, or counts since the engine's start.
        value: how it stands: any number, as numpy's and torch's, made a float.
        help: what it is, in a sentence.

    Raises:
        ValueError: on making one: the name is none, the value no number (a bool is
            none), or the help too long.
        TypeError: the kind or the help is none.

    >>> Figure("steps", Kind.COUNTER, 3.0, "Steps that were made.").value
    3.0
    """

    name: str = attrs.field(validator=_check_name)
    kind: Kind = attrs.field(validator=instance_of(Kind))
    value: float
    help: str = attrs.field(validator=[instance_of(str), _check_help])

    def __attrs_post_init__(self) -> None:
        # No converter, for that does not know of which figure it is.
        object.__setattr__(self, "value", _number(self.name, self.value))


def check_figures(figures: Iterable[Figure]) -> tuple[Figure, ...]:
    """Return all figures of a runner.

    Raises:
        ValueError: there are too many, or two of one name.
    """
    found = tuple(figures)
    if len(found) > MAX_FIGURES:
        raise ValueError(f"{len(found)} figures; {MAX_FIGURES} is the most")
    names = [figure.name for figure in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two figures are called {name}")
    return found


# What several engines have, they call the same; each is made of its value.

running = partial(
    Figure, "running_requests", Kind.GAUGE, help="Requests that the engine works on."
)
waiting = partial(
    Figure, "waiting_requests", Kind.GAUGE, help="Requests that wait inside the engine."
)
cache_used = partial(
    Figure,
    "cache_used_ratio",
    Kind.GAUGE,
    help="Share of the key-value cache that is taken, from 0 to 1.",
)
steps = partial(
    Figure,
    "steps",
    Kind.COUNTER,
    help="Steps that the engine has made since its start.",
)
preemptions = partial(
    Figure,
    "preemptions",
    Kind.COUNTER,
    help="Times that a request was put aside because the cache was full.",
)
prefix_asked = partial(
    Figure,
    "prefix_asked_tokens",
    Kind.COUNTER,
    help="Tokens of prompts that were looked for in the prefix cache.",
)
prefix_hit = partial(
    Figure,
    "prefix_hit_tokens",
    Kind.COUNTER,
    help="Tokens of prompts that were found in the prefix cache.",
)
read_tokens = partial(
    Figure,
    "prompt_tokens",
    Kind.COUNTER,
    help="Tokens of prompts that the engine took.",
)
made_tokens = partial(
    Figure, "output_tokens", Kind.COUNTER, help="Tokens that the engine has made."
)
