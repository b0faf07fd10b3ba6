"""Figures of the user's code, as it tells them: numbers by name, or figures of ours.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from atomr_infer.errors import InternalError
from atomr_infer.model.figures import Figure, Kind, check_figures

_COUNTS = "_total"
_HELP = "Told by the model's own code."


def figures_of(made: object, who: str) -> tuple[Figure, ...]:
    """Return what was told.

    Args:
        made: numbers by name, where one that only grows ends in ``_total``; or
            figures.
        who: whose it is.

    Raises:
        InternalError: it is neither, a name or a number is none, or there are too
            many.

    >>> [f.kind.value for f in figures_of({"open": 2, "seen_total": 9}, "m:A")]
    ['gauge', 'counter']
    """
    try:
        if isinstance(made, Mapping):
            return check_figures(_figure(*each, who) for each in made.items())
        told = tuple(made) if isinstance(made, Iterable) else (made,)
        if all(isinstance(each, Figure) for each in told):
            return check_figures(cast("tuple[Figure, ...]", told))
    except ValueError as error:
        raise InternalError(f"figures of {who}: {error}") from error
    raise InternalError(
        f"figures of {who} returns {type(made).__name__}; it tells numbers by name, "
        "or figures of atomr_infer.model.figures"
    )


def _figure(name: object, value: object, who: str) -> Figure:
    if not isinstance(name, str):
        raise InternalError(
            f"figures of {who} tells {name!r} as {type(value).__name__}; it tells "
            "numbers by name"
        )
    # Whether it is a number, the figure says.
    kind = Kind.COUNTER if name.endswith(_COUNTS) else Kind.GAUGE
    return Figure(name.removesuffix(_COUNTS), kind, cast("float", value), _HELP)
