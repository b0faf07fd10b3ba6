"""Who stands beside whom: refuse nobody's company, and circles.

Pure.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def colocation_problem(name: str, beside: Mapping[str, str | None]) -> str | None:
    """Return what is wrong with whom a deployment stands beside; None: nothing.

    Args:
        name: the deployment.
        beside: whom each deployment stands beside.

    >>> colocation_problem("a", {"a": "b", "b": "a"})
    "colocate_with goes round in a circle: 'a', 'b', 'a'"
    """
    way = [name]
    while (other := beside[way[-1]]) is not None:
        if other not in beside:
            if len(way) > 1:
                return None  # said of that one
            near = difflib.get_close_matches(other, beside.keys() - {name}, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            return f"colocate_with: there is no deployment {other!r}{hint}"
        way.append(other)
        if way.count(other) > 1:
            shown = ", ".join(repr(each) for each in way)
            return f"colocate_with goes round in a circle: {shown}"
    return None
