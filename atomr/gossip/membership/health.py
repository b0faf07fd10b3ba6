"""How well a node takes itself to be: it slows itself down before it accuses others.

A node whose loop stalls, or whose own link is bad, sees all others fail at once.
Each sign of that makes it wait longer for answers, and ask less often; each
answer in time takes one back.

Pure.

Source: Lifeguard, section "Local Health Multiplier".
"""

from __future__ import annotations


class Health:
    """A score from 0, which is well.

    Attributes:
        score: how many signs of being unwell there are.
    """

    __slots__ = ("_most", "score")

    def __init__(self, most: int) -> None:
        """Start well.

        Args:
            most: the score at most.
        """
        self.score = 0
        self._most = most

    @property
    def multiplier(self) -> int:
        """By how much probes are slower, and wait longer."""
        return self.score + 1

    def worsen(self) -> None:
        """Take a sign of being unwell."""
        self.score = min(self.score + 1, self._most)

    def improve(self) -> None:
        """Take a sign of being well."""
        self.score = max(self.score - 1, 0)
