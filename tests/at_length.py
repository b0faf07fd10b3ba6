"""How much is drawn by tests that draw what they do, in ``make test-slow``.

As much as a change of the code needs to be found at once; for a night there is
``make test-slow TIMES=20``.
"""

from __future__ import annotations

import os


def number_of(text: str) -> int:
    """Return what ``TIMES`` asks for: how many times as much.

    Raises:
        ValueError: it is no number, or one with which nothing would be drawn.
    """
    # isdecimal: int() takes "1_0" and " 1" too, which nobody writes on purpose.
    if not (text.isascii() and text.isdecimal()) or int(text) < 1:
        raise ValueError(f"TIMES={text}: it must be a whole number of at least 1")
    return int(text)


TIMES = number_of(os.environ.get("TIMES", "1"))


def times(number: int) -> int:
    """Return so many examples, or as many times more as the environment asks for."""
    return number * TIMES
