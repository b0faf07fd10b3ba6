"""How many starts of an engine in a row came to nothing.

A replica's supervisor counts the deaths within a time, and ends with the one that is
too many.  An engine that takes longer to start than its part of that time, and dies
each time, would never be too fast for it, and be started for ever.  So starts are
counted too, however long each takes, until one of them has answered somebody.

Pure.
"""

from __future__ import annotations

import attrs

MAX_RESTARTS = 5
"""An engine that dies so often has a cause that one more start will not cure; each
start of a large model costs minutes of its own."""

MAX_SECONDS = 120.0
"""Within so long, where it has answered in between; and so long an engine must live to
say nothing against its start, where nobody asks it."""


@attrs.frozen
class FailedStarts:
    """Those since an engine has answered somebody.

    Attributes:
        count: how many.

    >>> starts = FailedStarts().after_failure()
    >>> starts.after_life(answered=False, asked=True, lived_s=1000.0).count
    2
    >>> starts.after_life(answered=False, asked=False, lived_s=1000.0).count
    1
    >>> starts.after_life(answered=True, asked=True, lived_s=1.0).count
    0
    """

    count: int = 0

    @property
    def too_many(self) -> bool:
        """Whether one more start is of no use."""
        return self.count > MAX_RESTARTS

    def after_failure(self) -> FailedStarts:
        """Return the count after a start that came to no engine."""
        return FailedStarts(self.count + 1)

    def after_life(
        self, *, answered: bool, asked: bool, lived_s: float
    ) -> FailedStarts:
        """Return the count after an engine's death.

        Args:
            answered: whether a request was answered by it.
            asked: whether one was given to it.
            lived_s: how long it could have answered, in seconds.
        """
        if answered:
            return FailedStarts()
        if not asked and lived_s >= MAX_SECONDS:
            return self
        return self.after_failure()
