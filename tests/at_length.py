"""How much is drawn by tests that draw what they do, in ``make test-slow``.

As much as a change of the code needs to be found at once; for a night there is
``make test-slow TIMES=20``.
"""

from __future__ import annotations

import os

TIMES = int(os.environ.get("TIMES", "1"))


def times(number: int) -> int:
    """Return so many examples, or as many times more as the environment asks for.

    Raises:
        ValueError: where this is imported, if ``TIMES`` is no number.
    """
    return number * TIMES
