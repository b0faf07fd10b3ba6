"""What is said again and again: once, and then with longer and longer pauses.

Pure.
"""

from __future__ import annotations

import attrs

FIRST_PAUSE_S = 10.0
MOST_PAUSE_S = 600.0
MAX_KNOWN = 256


@attrs.define
class _Said:
    """What was said last.

    Attributes:
        at_s: when.
        pause_s: how long nothing more is said.
        more: how often it would have been said since then.
    """

    at_s: float
    pause_s: float = FIRST_PAUSE_S
    more: int = 0


class SaidOften:
    """Which of the things that are to be said are said now.

    >>> said = SaidOften()
    >>> [said.now("a", at) for at in (0.0, 1.0, 2.0, 10.0, 11.0)]
    [0, None, None, 2, None]
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[object, _Said] = {}

    def now(self, what: object, now_s: float) -> int | None:
        """Return how often something was kept back since it was said last.

        Args:
            what: equal for what is the same.
            now_s: monotonic time.

        Returns:
            None: it is kept back now, too.
        """
        said = self._known.get(what)
        if said is None or now_s - said.at_s >= 2 * said.pause_s + MOST_PAUSE_S:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[what] = _Said(now_s)
            return 0
        if now_s - said.at_s < said.pause_s:
            said.more += 1
            return None
        more, said.more, said.at_s = said.more, 0, now_s
        said.pause_s = min(2 * said.pause_s, MOST_PAUSE_S)
        return more
