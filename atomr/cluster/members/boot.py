"""Boot ids: a new one for each life of a node, above all that it had.

Milliseconds of the wall clock are in the upper bits, so a restart is above its last
life; below are random bits, so two lives of one millisecond differ.  Where the clock
may go back, a file remembers the last id.

Pure.
"""

from __future__ import annotations

RANDOM_BITS = 20
"""The other 44 bits hold milliseconds until the year 2527."""

MAX_BOOT = 2**64 - 1


def next_boot(wall_s: float, draw: int, *, last: int = 0) -> int:
    """Return the boot id of the next life.

    Args:
        wall_s: seconds since 1970.
        draw: random, 0 <= draw < 2**20.
        last: the greatest that was used before; 0: none.

    Raises:
        ValueError: there is none above ``last``.

    >>> first = next_boot(1_000.0, 7)
    >>> (first >> 20, first & 0xFFFFF)
    (1000000, 7)
    >>> next_boot(999.0, 7, last=first) == first + 1
    True
    """
    made = (int(wall_s * 1000) << RANDOM_BITS) | draw
    if not last < MAX_BOOT:
        raise ValueError(f"last boot id {last}: expected less than {MAX_BOOT}")
    return min(max(made, last + 1), MAX_BOOT)
