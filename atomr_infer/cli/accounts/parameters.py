"""What a person writes behind an option: times, and amounts to spend."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw])")
_SPEND = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?)(tokens)?/(hour|day|month)")


class Duration(click.ParamType):  # type: ignore[type-arg] # generic of late
    """A time such as ``30d``, ``12h``, ``90m``, ``45s`` or ``2w``, in seconds.

    >>> Duration().convert("1.5h", None, None)
    5400.0
    """

    name = "duration"

    def convert(
        self,
        value: str,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """Return the seconds.

        Raises:
            click.BadParameter: it is no such time.
        """
        found = _DURATION.fullmatch(value)
        if found is None:
            self.fail(f"{value!r} is no time such as 30d, 12h or 90m", param, ctx)
        return float(found[1]) * _UNITS_S[found[2]]


NONE = "none"
"""What takes a term away."""


class OrNone(click.ParamType):  # type: ignore[type-arg] # as above
    """A value of another type, or ``none``.

    >>> OrNone(click.INT).convert("none", None, None)
    'none'
    >>> OrNone(click.INT).convert("5", None, None)
    5
    """

    def __init__(self, inner: click.ParamType) -> None:  # type: ignore[type-arg] # as above
        self.name = inner.name
        self._inner = inner

    def convert(
        self,
        value: Any,  # noqa: ANN401 - as the base class has it
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401 - as above
        """Return the value, or the word.

        Raises:
            click.BadParameter: it is neither.
        """
        if value == NONE:
            return NONE
        return self._inner.convert(value, param, ctx)


class Spend(click.ParamType):  # type: ignore[type-arg] # as above
    """An amount in a period, as the members of a budget.

    >>> Spend().convert("5_000tokens/month", None, None)
    {'per': 'month', 'tokens': 5000}
    >>> Spend().convert("10.00/day", None, None)
    {'per': 'day', 'usd': '10.00'}
    """

    name = "budget"

    def convert(
        self,
        value: str,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Mapping[str, object]:
        """Return the members.

        Raises:
            click.BadParameter: it is no such amount.
        """
        found = _SPEND.fullmatch(value)
        if found is None or (found[2] and "." in found[1]):
            problem = f"{value!r} is no amount such as 10.00/day or 5000tokens/hour"
            self.fail(problem, param, ctx)
        amount = found[1].replace("_", "")
        if found[2]:
            return {"per": found[3], "tokens": int(amount)}
        return {"per": found[3], "usd": amount}
