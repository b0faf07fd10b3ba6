"""Whether two deployments can be asked for the same model by name.

A fallback without a model of its own is asked for the name that the client used.
Another provider knows that name only when it is among those that it serves too.

Pure.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_PREFIX = "/*"


def may_share_a_name(asked: Iterable[str], served: Iterable[str]) -> bool:
    """Whether some name that falls under ``asked`` falls under ``served`` too.

    Args:
        asked: names and patterns that a client may use; the prefix of one such as
            ``openai/*`` is taken off before anybody is asked.
        served: names and patterns of who would be asked.

    >>> may_share_a_name(["gpt-*"], ["claude-*"]), may_share_a_name(["*"], ["gpt-*"])
    (False, True)
    >>> may_share_a_name(["openai/*"], ["gpt-*"])
    True
    """
    names = {name for each in asked for name in (each, _without_prefix(each))}
    return any(_meet(one, other) for one in names for other in served)


def _without_prefix(name: str) -> str:
    return "*" if name.endswith(_PREFIX) else name


@cache
def _meet(one: str, other: str) -> bool:
    """Whether a text falls under both patterns; ``*`` stands for any text."""
    if not one or not other:
        return not (one + other).strip("*")
    if one[0] == "*":
        return _meet(one[1:], other) or _meet(one, other[1:])
    if other[0] == "*":
        return _meet(other, one)
    return one[0] == other[0] and _meet(one[1:], other[1:])
