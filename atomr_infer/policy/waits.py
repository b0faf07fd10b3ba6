"""How long there is to wait, as a person says it."""

from __future__ import annotations

import math

_PLAIN_BELOW_S = 120

# Below so many seconds it is told in these two units.
_UNITS = (
    (3_600, (60, "min"), (1, "s")),
    (86_400, (3_600, "h"), (60, "min")),
    (math.inf, (86_400, "d"), (3_600, "h")),
)


def wait_in_words(wait_s: float) -> str:
    """Return so many seconds in words: ``5 s``, ``21 h 2 min``.

    Less than two minutes are seconds with three digits.  More is rounded up to the
    smaller of its two units: who comes again then does not come too early.
    """
    if wait_s >= _PLAIN_BELOW_S:
        for below, (unit, name), (smaller, its_name) in _UNITS:
            up = math.ceil(wait_s / smaller) * smaller if wait_s < below else below
            if up < below:
                whole, rest = divmod(up, unit)
                more = f" {rest // smaller} {its_name}" if rest else ""
                return f"{whole} {name}{more}"
    return f"{wait_s:.3g} s"
